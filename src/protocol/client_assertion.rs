//! A client proves itself with a JWT that it signed (`private_key_jwt`). RFC 7523 §3; OpenID Connect Core §9; RFC 8725.
//!
//! The audience is the issuer, as one text; the token endpoint's address, which OpenID Connect Core asks for, is taken too
//! (security decision 6). A list is refused even where each of its members is ours: who else reads it could use it here.

use std::time::Duration;

use serde_json::{Map, Value};

use super::client::{AuthMethod, Client, ClientId};
use super::error::{OAuthError, invalid_client};
use super::jose::{self, client_key};
use super::seal::TokenHash;
use super::time::Timestamp;

/// The only kind of assertion (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Clocks differ. Dates ahead are borne so far …
const MOST_AHEAD: Duration = Duration::from_secs(60);
/// … and an end that has passed so far.
const MOST_LATE: Duration = Duration::from_secs(10);
/// Whoever gets hold of one may not have long.
const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// So long after it was used, an assertion has certainly expired.
pub const OVER_AFTER: Duration = Duration::from_secs(LONGEST_LIFE.as_secs() + MOST_LATE.as_secs());
const LONGEST_JTI: usize = 256;

/// An assertion that is good, if it was not used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Of client and `jti`.
    pub hash: TokenHash,
    pub issued_at: Option<Timestamp>,
    /// Until then it must be remembered.
    pub expires_at: Timestamp,
}

/// Which client an assertion says it is of. Nothing is verified: it only leads to the keys.
pub fn named_client(token: &str) -> Option<ClientId> {
    let claims = jose::unverified_claims(token).ok()?;
    Some(ClientId::from_request(claims.get("sub")?.as_str()?))
}

/// Judges an assertion of this client, for one of these audiences.
pub fn check(
    token: &str,
    client: &Client,
    audiences: [&str; 2],
    now: Timestamp,
) -> Result<Assertion, OAuthError> {
    if client.token_endpoint_auth_method != AuthMethod::PrivateKeyJwt {
        return Err(invalid_client(
            "this client does not authenticate with an assertion",
        ));
    }
    let algorithm = client.token_endpoint_auth_signing_alg;
    let claims = client_key::verify(token, &client.jwks, algorithm).map_err(|error| {
        invalid_client(match error {
            jose::JoseError::Refused(reason) => format!("the assertion was refused: {reason}"),
            _ => "the assertion was refused".to_owned(),
        })
    })?;
    let refuse = |reason: &'static str| Err(invalid_client(reason));
    let is_its_own = |name: &str| text(&claims, name) == Some(client.client_id.as_str());
    if !is_its_own("iss") || !is_its_own("sub") {
        return refuse("iss and sub of the assertion must be the client_id");
    }
    if !text(&claims, "aud").is_some_and(|aud| audiences.contains(&aud)) {
        return refuse("aud of the assertion must be the issuer, as one text");
    }
    let Some(expires_at) = moment(&claims, "exp") else {
        return refuse("the assertion has no exp");
    };
    if expires_at.plus(MOST_LATE) <= now {
        return refuse("the assertion has expired");
    }
    if expires_at > now.plus(LONGEST_LIFE) {
        return refuse("exp of the assertion must be within five minutes");
    }
    for name in ["iat", "nbf"] {
        if !claims.contains_key(name) {
            continue;
        }
        if moment(&claims, name).is_none_or(|at| at > now.plus(MOST_AHEAD)) {
            return refuse("iat or nbf of the assertion lies ahead, or is no number");
        }
    }
    match text(&claims, "jti") {
        Some(jti) if (1..=LONGEST_JTI).contains(&jti.len()) => Ok(Assertion {
            hash: TokenHash::of(&format!("{}\0{jti}", client.client_id)),
            issued_at: moment(&claims, "iat"),
            expires_at: expires_at.plus(MOST_LATE),
        }),
        _ => refuse("the assertion needs a jti of 1 to 256 bytes"),
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    claims.get(name)?.as_str()
}

/// A `NumericDate`, which may have a fraction (RFC 7519 §2). What no calendar knows is no date.
fn moment(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let value = claims.get(name)?;
    let seconds = value.as_i64().or_else(|| {
        let whole = value.as_f64()?.floor();
        format!("{whole:.0}").parse().ok()
    })?;
    (0..1_000_000_000_000)
        .contains(&seconds)
        .then(|| Timestamp::from_seconds(seconds))
}
