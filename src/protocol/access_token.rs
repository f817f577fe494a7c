//! Access tokens. RFC 9068 (`at+jwt`); RFC 6750.

use serde_json::{Value, json};

use super::client::ClientId;
use super::error::{ErrorCode, OAuthError, invalid_request};
use super::grants::Grant;
use super::resource::Audience;
use super::scope::Scope;
use super::time::Timestamp;

/// The `typ` of a JWT access token (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// What makes one access token differ from another.
#[derive(Debug)]
pub struct Input<'a> {
    pub issuer: &'a str,
    pub client_id: &'a ClientId,
    pub holder: Holder<'a>,
    /// All that was granted, or what a refresh narrowed it to.
    pub scope: &'a Scope,
    pub audience: &'a Audience,
    pub jti: &'a str,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// For whom a token speaks.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// A person, by what they allowed.
    Person(&'a Grant),
    /// The client itself (RFC 6749 §4.4).
    Client,
}

/// The claims of RFC 9068 §2.2.
pub fn claims(input: &Input<'_>) -> Value {
    let subject = match input.holder {
        Holder::Person(grant) => &grant.subject,
        Holder::Client => input.client_id.as_str(),
    };
    let mut claims = json!({
        "iss": input.issuer,
        "sub": subject,
        "aud": audience_claim(input.audience, input.issuer),
        "client_id": input.client_id.as_str(),
        "iat": input.issued_at,
        "exp": input.expires_at,
        "jti": input.jti,
    });
    if let Some(claims) = claims.as_object_mut() {
        if !input.scope.is_empty() {
            claims.insert("scope".to_owned(), json!(input.scope));
        }
        if let Holder::Person(grant) = input.holder {
            claims.insert("auth_time".to_owned(), json!(grant.auth_time));
            claims.insert("acr".to_owned(), json!(grant.acr));
        }
    }
    claims
}

/// One name is text, several are a list (RFC 7519 §4.1.3).
pub fn audience_claim(audience: &Audience, issuer: &str) -> Value {
    match audience.names(issuer).as_slice() {
        [one] => json!(one),
        several => json!(several),
    }
}

/// An access token that was issued for a person, as the database remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedAccessToken {
    pub grant_id: String,
    pub scope: Scope,
    pub audience: Audience,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked: bool,
}

impl IssuedAccessToken {
    /// Whether it is good for anything now.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && now < self.expires_at
    }
}

/// Is this token good for UserInfo?
pub fn check_for_userinfo(
    token: Option<&IssuedAccessToken>,
    now: Timestamp,
) -> Result<(), OAuthError> {
    // One answer for what never was, what expired and what was revoked.
    let invalid = || {
        OAuthError::new(
            ErrorCode::InvalidToken,
            "the access token is unknown, expired or revoked",
        )
    };
    let token = token
        .filter(|token| token.is_live(now))
        .ok_or_else(invalid)?;
    if !token.audience.issuer {
        return Err(OAuthError::new(
            ErrorCode::InvalidToken,
            "the access token is meant for another resource",
        ));
    }
    if token.scope.is_openid() {
        Ok(())
    } else {
        Err(OAuthError::new(
            ErrorCode::InsufficientScope,
            "the access token was issued without the scope openid",
        ))
    }
}

/// The token of an `Authorization` header: the scheme in any case, one space, and a `b64token` (RFC 6750 §2.1).
pub fn from_authorization_header(value: &str) -> Result<&str, OAuthError> {
    let malformed =
        || invalid_request("the Authorization header must be Bearer, one space, and the token");
    let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    let body = token.trim_end_matches('=');
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/');
    if body.is_empty() || !body.chars().all(allowed) {
        return Err(malformed());
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_read_in_any_case_and_the_token_exactly() {
        assert_eq!(
            from_authorization_header("bEaReR abc.def-_~+/=="),
            Ok("abc.def-_~+/==")
        );
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer  abc",
            "Bearer abc ",
            "Bearer a b",
            "Basic abc",
            "Bearer\tabc",
            "Bearer a=b",
        ] {
            assert!(from_authorization_header(bad).is_err(), "{bad:?}");
        }
    }
}
