//! The ID token. OpenID Connect Core §2, §3.1.3.6.

use serde_json::{Map, Value, json};

use super::client::Client;
use super::grants::Grant;
use super::jose::{SigningAlgorithm, half_hash};
use super::time::Timestamp;

/// What makes one ID token differ from another.
#[derive(Debug)]
pub struct Input<'a> {
    pub issuer: &'a str,
    pub client: &'a Client,
    pub grant: &'a Grant,
    /// Only the first ID token of a grant has one (OpenID Connect Core §12.2).
    pub nonce: Option<&'a str>,
    pub access_token: &'a str,
    /// About the person, as far as this place shows it.
    pub person: Map<String, Value>,
    pub algorithm: SigningAlgorithm,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The claims of the ID token that comes with an access token. There is a `nonce` only if the request had one.
pub fn claims(input: Input<'_>) -> Map<String, Value> {
    let client_id = input.client.client_id.as_str();
    let mut claims = input.person;
    let about_the_login = [
        ("iss", json!(input.issuer)),
        ("sub", json!(input.grant.subject)),
        ("aud", json!(client_id)),
        ("azp", json!(client_id)),
        ("exp", json!(input.expires_at)),
        ("iat", json!(input.issued_at)),
        ("auth_time", json!(input.grant.auth_time)),
        ("acr", json!(input.grant.acr)),
        ("amr", json!(input.grant.amr)),
        ("sid", json!(input.grant.session_id)),
        (
            "at_hash",
            json!(half_hash(input.algorithm, input.access_token)),
        ),
    ];
    // Last, so that no attribute of a person can ever stand in for a claim about the login.
    claims.extend(about_the_login.map(|(name, value)| (name.to_owned(), value)));
    if let Some(nonce) = input.nonce {
        claims.insert("nonce".to_owned(), json!(nonce));
    }
    claims
}
