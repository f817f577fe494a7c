//! Access tokens. RFC 9068 (`at+jwt`); RFC 6750.

use serde_json::{Value, json};

use super::client::ClientId;
use super::error::{ErrorCode, OAuthError, invalid_request};
use super::grants::Grant;
use super::scope::Scope;
use super::time::Timestamp;

/// The `typ` of a JWT access token (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// What makes one access token differ from another.
#[derive(Debug)]
pub struct Input<'a> {
    pub issuer: &'a str,
    pub client_id: &'a ClientId,
    pub grant: &'a Grant,
    /// All that was granted, or what a refresh narrowed it to.
    pub scope: &'a Scope,
    pub audience: &'a [String],
    pub jti: &'a str,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The claims of RFC 9068 §2.2. Without a resource the audience is this server, whose UserInfo the token opens.
pub fn claims(input: &Input<'_>) -> Value {
    let audience = match input.audience {
        [] => json!(input.issuer),
        [one] => json!(one),
        several => json!(several),
    };
    json!({
        "iss": input.issuer,
        "sub": input.grant.subject,
        "aud": audience,
        "client_id": input.client_id.as_str(),
        "scope": input.scope,
        "iat": input.issued_at,
        "exp": input.expires_at,
        "jti": input.jti,
        "auth_time": input.grant.auth_time,
        "acr": input.grant.acr,
    })
}

/// An access token that was issued, as the database remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedAccessToken {
    pub grant_id: String,
    pub scope: Scope,
    pub expires_at: Timestamp,
    pub revoked: bool,
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
        .filter(|token| !token.revoked && now < token.expires_at)
        .ok_or_else(invalid)?;
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
