//! The client credentials grant: a token that a client gets for itself. RFC 6749 §4.4; RFC 9068 §2.2, §3; RFC 8707 §2.2.

use serde_json::{Map, Value};

use crate::protocol::client::{Client, ClientId};
use crate::protocol::error::{OAuthError, invalid_scope};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::parameters::Parameters;
use crate::protocol::resource::{self, Audience};
use crate::protocol::scope::Scope;
use crate::protocol::time::Timestamp;

/// A token request of a client for itself.
pub struct Request {
    pub scope: Option<Scope>,
    pub resources: Vec<String>,
}

/// What a client got for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientToken {
    pub client_id: ClientId,
    pub scope: Scope,
    pub audience: Audience,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Request {
    /// Reads the parameters of RFC 6749 §4.4.2.
    pub fn parse(parameters: &Parameters) -> Result<Self, OAuthError> {
        let scope = parameters.get("scope").map(str::parse).transpose();
        Ok(Self {
            scope: scope
                .map_err(|_bad_scope| invalid_scope("scope has characters that are not allowed"))?,
            resources: parameters.resources().map(str::to_owned).collect(),
        })
    }
}

/// What this client gets: what it asks for within what it is registered for, or all of that.
pub fn check(
    request: &Request,
    client: &Client,
    known: &KnownScopes,
) -> Result<(Scope, Audience), OAuthError> {
    let registered = client.scope.clone().unwrap_or_default();
    // What a person would have to allow is nobody's to give here.
    let own = registered.retain(|token| !known.needs_a_person(token));
    let scope = match &request.scope {
        Some(requested) if requested.is_subset(&own) => requested.clone(),
        Some(_) => {
            return Err(invalid_scope(
                "the client is not registered for this scope, or it needs a person",
            ));
        }
        None => own,
    };
    let named = resource::parse(request.resources.iter().map(String::as_str), client)?;
    let resources = if named.is_empty() {
        client.allowed_resources.clone()
    } else {
        named
    };
    let audience = Audience {
        issuer: resources.is_empty(),
        resources,
    };
    Ok((scope, audience))
}

impl ClientToken {
    /// From the claims of a JWT whose signature was checked; of a person's token nothing comes out.
    pub fn from_claims(claims: &Map<String, Value>, issuer: &str) -> Option<Self> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let time = |name: &str| claims.get(name).and_then(Value::as_i64);
        let client_id = text("client_id")?;
        if text("iss") != Some(issuer) || text("sub") != Some(client_id) {
            return None;
        }
        let audience = match claims.get("aud")? {
            Value::Array(names) => names
                .iter()
                .map(Value::as_str)
                .collect::<Option<Vec<_>>>()?,
            name => vec![name.as_str()?],
        };
        let resources = audience.iter().filter(|name| **name != issuer);
        Some(Self {
            client_id: ClientId::from_request(client_id),
            scope: text("scope").unwrap_or_default().parse().ok()?,
            audience: Audience {
                issuer: audience.contains(&issuer),
                resources: resources.map(|name| (*name).to_owned()).collect(),
            },
            issued_at: Timestamp::from_seconds(time("iat")?),
            expires_at: Timestamp::from_seconds(time("exp")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::client;
    use crate::protocol::error::ErrorCode;

    fn machine() -> Client {
        client(|metadata| {
            metadata.grant_types = Some(vec!["client_credentials".to_owned()]);
            metadata.scope = Some("orders:read orders:write email".to_owned());
            metadata.allowed_resources = Some(vec![
                "https://a.example/".to_owned(),
                "https://b.example/".to_owned(),
            ]);
        })
    }

    fn asked(text: &str) -> Result<(String, Vec<String>), ErrorCode> {
        let parameters = Parameters::parse(text.as_bytes()).expect("well-formed");
        Request::parse(&parameters)
            .and_then(|request| check(&request, &machine(), &KnownScopes::default()))
            .map(|(scope, audience)| (scope.to_string(), audience.resources))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn b7_a_scope_is_given_only_to_whom_it_is_registered_for_and_never_a_persons() {
        let all = ["https://a.example/", "https://b.example/"].map(str::to_owned);
        assert_eq!(
            asked(""),
            Ok(("orders:read orders:write".to_owned(), all.to_vec()))
        );
        assert_eq!(
            asked("scope=orders:read&resource=https://a.example/"),
            Ok((
                "orders:read".to_owned(),
                vec!["https://a.example/".to_owned()]
            ))
        );
        for refused in [
            "scope=orders:delete",
            "scope=orders:read+email",
            "scope=openid",
            "scope=\"",
        ] {
            assert_eq!(asked(refused), Err(ErrorCode::InvalidScope), "{refused}");
        }
        assert_eq!(
            asked("resource=https://c.example/"),
            Err(ErrorCode::InvalidTarget)
        );
    }

    #[test]
    fn a_persons_token_is_no_clients() {
        let claims = |subject: &str| {
            let claims = serde_json::json!({
                "iss": "https://op.example", "sub": subject, "client_id": "rp", "aud": "https://op.example",
                "iat": 1, "exp": 2
            });
            claims.as_object().expect("an object").clone()
        };
        assert!(ClientToken::from_claims(&claims("rp"), "https://op.example").is_some());
        assert!(ClientToken::from_claims(&claims("alice"), "https://op.example").is_none());
        assert!(ClientToken::from_claims(&claims("rp"), "https://other.example").is_none());
    }
}
