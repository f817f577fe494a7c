//! What a grant at the token endpoint is worth.

pub mod authorization_code;
pub mod refresh_token;

use super::claims::ClaimsRequest;
use super::client::ClientId;
use super::scope::Scope;
use super::time::Timestamp;

/// The grant types that the token endpoint accepts.
pub const SUPPORTED: &[&str] = &["authorization_code", "refresh_token"];

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
