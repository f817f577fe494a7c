//! What a grant at the token endpoint is worth.

pub mod authorization_code;
pub mod client_credentials;
pub mod refresh_token;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::claims::ClaimsRequest;
use super::client::ClientId;
use super::error::{ErrorCode, OAuthError};
use super::scope::Scope;
use super::time::Timestamp;

/// The grant types that the token endpoint accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
}

impl GrantType {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AuthorizationCode,
        Self::RefreshToken,
        Self::ClientCredentials,
    ];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

impl FromStr for GrantType {
    type Err = OAuthError;

    fn from_str(name: &str) -> Result<Self, OAuthError> {
        Self::ALL
            .iter()
            .find(|grant_type| grant_type.as_str() == name)
            .copied()
            .ok_or_else(|| {
                OAuthError::new(
                    ErrorCode::UnsupportedGrantType,
                    "grant_type must be authorization_code, refresh_token or client_credentials",
                )
            })
    }
}

/// What a person allowed a client: all tokens that come from it end with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub id: String,
    pub client_id: ClientId,
    pub subject: String,
    /// The sign-in it came from (`sid`).
    pub session_id: String,
    pub scope: Scope,
    pub claims: ClaimsRequest,
    /// The resources that were asked for (RFC 8707); a token may be meant for some of them.
    pub resources: Vec<String>,
    pub auth_time: Timestamp,
    pub acr: String,
    pub amr: Vec<String>,
    /// Whether it goes on when the sign-in ends (`offline_access`).
    pub offline: bool,
    pub created_at: Timestamp,
}
