//! What a token is worth, told to whom it concerns. RFC 7662 §2; RFC 9470 §6.2.

use serde_json::{Map, Value, json};

use super::access_token::{IssuedAccessToken, audience_claim};
use super::client::{Client, ClientId};
use super::grants::Grant;
use super::grants::client_credentials::ClientToken;
use super::grants::refresh_token::IssuedRefreshToken;
use super::resource::Audience;
use super::scope::Scope;
use super::time::Timestamp;

/// May this client know what the token is worth? The one that it was issued to, and those it is meant for (§4).
pub fn concerns(asker: &Client, issued_to: &ClientId, audience: &Audience) -> bool {
    let protects = |resource: &String| asker.protected_resources.contains(resource);
    asker.client_id == *issued_to || audience.resources.iter().any(protects)
}

/// One answer for what never was, what has ended, and what is somebody else's.
pub fn inactive() -> Value {
    json!({ "active": false })
}

/// A live access token of a person.
pub fn of_access_token(token: &IssuedAccessToken, grant: &Grant, issuer: &str) -> Value {
    let mut answer = active(
        issuer,
        &grant.client_id,
        &grant.subject,
        &token.scope,
        token.expires_at,
    );
    answer.insert("token_type".to_owned(), json!("Bearer"));
    answer.insert("iat".to_owned(), json!(token.issued_at));
    answer.insert("aud".to_owned(), audience_claim(&token.audience, issuer));
    answer.insert("auth_time".to_owned(), json!(grant.auth_time));
    answer.insert("acr".to_owned(), json!(grant.acr));
    Value::Object(answer)
}

/// A live access token that a client got for itself.
pub fn of_client_token(token: &ClientToken, issuer: &str) -> Value {
    let mut answer = active(
        issuer,
        &token.client_id,
        token.client_id.as_str(),
        &token.scope,
        token.expires_at,
    );
    answer.insert("token_type".to_owned(), json!("Bearer"));
    answer.insert("iat".to_owned(), json!(token.issued_at));
    answer.insert("aud".to_owned(), audience_claim(&token.audience, issuer));
    Value::Object(answer)
}

/// A live refresh token; it has no type and no audience but this server.
pub fn of_refresh_token(token: &IssuedRefreshToken, grant: &Grant, issuer: &str) -> Value {
    Value::Object(active(
        issuer,
        &grant.client_id,
        &grant.subject,
        &grant.scope,
        token.expires_at,
    ))
}

fn active(
    issuer: &str,
    client_id: &ClientId,
    subject: &str,
    scope: &Scope,
    expires_at: Timestamp,
) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("active".to_owned(), json!(true));
    answer.insert("iss".to_owned(), json!(issuer));
    answer.insert("client_id".to_owned(), json!(client_id.as_str()));
    answer.insert("sub".to_owned(), json!(subject));
    if !scope.is_empty() {
        answer.insert("scope".to_owned(), json!(scope));
    }
    answer.insert("exp".to_owned(), json!(expires_at));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::client;

    #[test]
    fn b10_a_token_concerns_its_client_and_the_resources_that_it_is_meant_for() {
        let api = client(|metadata| {
            metadata.protected_resources = Some(vec!["https://api.example/".to_owned()]);
        });
        let meant_for = |resources: &[&str]| Audience {
            issuer: true,
            resources: resources.iter().map(ToString::to_string).collect(),
        };
        let other = ClientId::from_request("other");
        assert!(concerns(&api, &api.client_id, &meant_for(&[])));
        assert!(concerns(
            &api,
            &other,
            &meant_for(&["https://api.example/"])
        ));
        assert!(!concerns(
            &api,
            &other,
            &meant_for(&["https://api.example"])
        ));
        assert!(!concerns(&api, &other, &meant_for(&[])));
    }
}
