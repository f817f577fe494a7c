//! Resource indicators: for which API a token is meant. RFC 8707.

use url::Url;

use super::client::Client;
use super::error::{ErrorCode, OAuthError};

/// The resources that a request names, each one allowed to this client; nothing is allowed by default.
pub fn parse<'a>(
    values: impl Iterator<Item = &'a str>,
    client: &Client,
) -> Result<Vec<String>, OAuthError> {
    let mut resources = Vec::new();
    for value in values {
        if !client
            .allowed_resources
            .iter()
            .any(|allowed| allowed == value)
        {
            return Err(invalid_target(
                "the client is not allowed to ask for this resource",
            ));
        }
        if !resources.iter().any(|known| known == value) {
            resources.push(value.to_owned());
        }
    }
    Ok(resources)
}

/// The audience of an access token: what the token request names, within what the authorization request named (§2.2).
pub fn narrow<'a>(
    requested: impl Iterator<Item = &'a str>,
    granted: &[String],
) -> Result<Vec<String>, OAuthError> {
    let mut audience: Vec<String> = Vec::new();
    for value in requested {
        if !granted.iter().any(|resource| resource == value) {
            return Err(invalid_target(
                "the authorization request did not name this resource",
            ));
        }
        if !audience.iter().any(|known| known == value) {
            audience.push(value.to_owned());
        }
    }
    Ok(if audience.is_empty() {
        granted.to_vec()
    } else {
        audience
    })
}

/// Whether a text is an absolute URI without a fragment (§2).
pub fn is_valid(value: &str) -> bool {
    Url::parse(value).is_ok_and(|url| url.fragment().is_none())
        && value.chars().all(|c| c.is_ascii_graphic())
}

fn invalid_target(description: &'static str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidTarget, description)
}
