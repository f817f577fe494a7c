//! Resource indicators: for which API a token is meant. RFC 8707; RFC 9068 §3.

use url::Url;

use super::client::Client;
use super::error::{ErrorCode, OAuthError};

/// Whom an access token is meant for: `aud`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// This server, whose UserInfo it opens.
    pub issuer: bool,
    pub resources: Vec<String>,
}

impl Audience {
    /// As it is written into a token.
    pub fn names<'a>(&'a self, issuer: &'a str) -> Vec<&'a str> {
        let own = self.issuer.then_some(issuer);
        own.into_iter()
            .chain(self.resources.iter().map(String::as_str))
            .collect()
    }
}

/// The resources that a request names, each one allowed to this client; nothing is allowed by default.
pub fn parse<'a>(
    values: impl Iterator<Item = &'a str>,
    client: &Client,
) -> Result<Vec<String>, OAuthError> {
    only(
        values,
        &client.allowed_resources,
        "the client is not allowed to ask for this resource",
    )
}

/// The audience of an access token: what the token request names, within what the authorization request named (§2.2).
/// A token that was asked for one API alone opens nothing here.
pub fn narrow<'a>(
    requested: impl Iterator<Item = &'a str>,
    granted: &[String],
    opens_userinfo: bool,
) -> Result<Audience, OAuthError> {
    let resources = only(
        requested,
        granted,
        "the authorization request did not name this resource",
    )?;
    Ok(if resources.is_empty() {
        Audience {
            issuer: opens_userinfo || granted.is_empty(),
            resources: granted.to_vec(),
        }
    } else {
        Audience {
            issuer: false,
            resources,
        }
    })
}

/// Whether a text is an absolute URI without a fragment (§2).
pub fn is_valid(value: &str) -> bool {
    Url::parse(value).is_ok_and(|url| url.fragment().is_none())
        && value.chars().all(|c| c.is_ascii_graphic())
}

/// Each value once, if it is among the allowed ones.
fn only<'a>(
    values: impl Iterator<Item = &'a str>,
    allowed: &[String],
    reason: &'static str,
) -> Result<Vec<String>, OAuthError> {
    let mut resources: Vec<String> = Vec::new();
    for value in values {
        if !allowed.iter().any(|resource| resource == value) {
            return Err(OAuthError::new(ErrorCode::InvalidTarget, reason));
        }
        if !resources.iter().any(|known| known == value) {
            resources.push(value.to_owned());
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_one_api_alone_opens_nothing_here() {
        let granted = [
            "https://a.example/".to_owned(),
            "https://b.example/".to_owned(),
        ];
        let narrowed = |requested: &[&str], granted: &[String], openid| {
            let audience = narrow(requested.iter().copied(), granted, openid);
            audience.map(|audience| audience.names("https://op.example").join(" "))
        };
        assert_eq!(
            narrowed(&["https://a.example/"], &granted, true),
            Ok("https://a.example/".to_owned())
        );
        assert_eq!(
            narrowed(&[], &granted, true),
            Ok("https://op.example https://a.example/ https://b.example/".to_owned())
        );
        assert_eq!(
            narrowed(&[], &granted, false),
            Ok("https://a.example/ https://b.example/".to_owned())
        );
        assert_eq!(
            narrowed(&[], &[], false),
            Ok("https://op.example".to_owned())
        );
        assert!(narrowed(&["https://c.example/"], &granted, true).is_err());
    }
}
