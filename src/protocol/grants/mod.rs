//! What a grant at the token endpoint is worth.

pub mod authorization_code;

use super::claims::ClaimsRequest;
use super::client::ClientId;
use super::scope::Scope;
use super::time::Timestamp;

/// The grant types that the token endpoint accepts.
pub const SUPPORTED: &[&str] = &["authorization_code"];

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
    pub created_at: Timestamp,
}
