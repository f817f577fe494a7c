//! What audit events say of a change: which fields are different, and the values of those by which somebody may do more or less.
//! No secret, and nothing of what a person is called or where they live.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::audit::{Event, Kind};
use crate::identity::user::User;
use crate::protocol::client::{Client, ClientId};
use crate::protocol::known_scopes::DefinedScope;
use crate::store::client_secrets::Changes;

/// Of a person: what they may do, and what apps believe of them.
const OF_USERS: &[&str] = &["admin", "disabled", "email_verified", "groups"];
/// Of an app: where people and tokens are sent, how it proves itself, and what it gets.
const OF_CLIENTS: &[&str] = &[
    "access_token_format",
    "allowed_cors_origins",
    "allowed_resources",
    "application_type",
    "claims_in_id_token",
    "grant_types",
    "id_token_signed_response_alg",
    "jwks",
    "post_logout_redirect_uris",
    "protected_resources",
    "redirect_uris",
    "require_pkce",
    "scope",
    "session_refresh_tokens",
    "skip_consent",
    "token_endpoint_auth_method",
    "token_endpoint_auth_signing_alg",
    "tokens",
];
const OF_SCOPES: &[&str] = &["claims"];

pub(super) fn user_created(user: &User) -> Event {
    telling(
        Event::new(Kind::UserCreated).target(&user.id),
        None,
        &fields(user),
        OF_USERS,
    )
}

/// What a change of a person amounts to.
pub(super) fn user_changes(earlier: &User, user: &User) -> Vec<Event> {
    let mut kinds = Vec::new();
    if earlier.disabled != user.disabled {
        kinds.push(if user.disabled {
            Kind::UserDisabled
        } else {
            Kind::UserEnabled
        });
    }
    if earlier.password_hash != user.password_hash {
        kinds.push(Kind::PasswordChanged);
    }
    let of_user = |kind| Event::new(kind).target(&user.id);
    let mut events: Vec<_> = kinds.into_iter().map(of_user).collect();
    // That has been said.
    let before = User {
        disabled: user.disabled,
        ..earlier.clone()
    };
    let (before, after) = (fields(&before), fields(user));
    if before != after {
        let event = of_user(Kind::UserUpdated);
        events.push(telling(event, Some(&before), &after, OF_USERS));
    }
    events
}

/// A new app, or what is different.
pub(super) fn client(kind: Kind, earlier: Option<&Client>, client: &Client) -> Event {
    let event = Event::of_client(kind, &client.client_id);
    let before = earlier.map(object);
    telling(event, before.as_ref(), &object(client), OF_CLIENTS)
}

/// What became of each secret that a file named, or names no more.
pub(super) fn secrets(client: &ClientId, changes: &Changes, from_file: bool) -> Vec<Event> {
    let of = |kind: Kind, ids: &[String]| -> Vec<Event> {
        let event = |id: &String| Event::of_client(kind, client).noting("secret", id.as_str());
        ids.iter().map(event).collect()
    };
    let added = of(Kind::ClientSecretAdded, &changes.added);
    let kept = of(Kind::ClientUpdated, &changes.kept);
    added
        .into_iter()
        .map(|event| event.noting("from_file", from_file))
        .chain(of(Kind::ClientSecretRevoked, &changes.ended))
        .chain(
            kept.into_iter()
                .map(|event| event.noting("changed", json!(["client_secret"]))),
        )
        .collect()
}

/// A scope that is new or different.
pub(super) fn scope(earlier: Option<&DefinedScope>, scope: &DefinedScope) -> Event {
    let event = Event::new(Kind::ScopeChanged).target(&scope.name);
    let before = earlier.map(object);
    telling(event, before.as_ref(), &object(scope), OF_SCOPES)
}

fn telling(
    event: Event,
    before: Option<&Map<String, Value>>,
    after: &Map<String, Value>,
    told: &[&str],
) -> Event {
    let nothing = Map::new();
    let is_different = |name: &str| before.unwrap_or(&nothing).get(name) != after.get(name);
    let values = |of: &Map<String, Value>| -> Map<String, Value> {
        let known = told.iter().filter(|name| is_different(name));
        known
            .filter_map(|name| Some(((*name).to_owned(), of.get(*name)?.clone())))
            .collect()
    };
    let Some(before) = before else {
        return event.noting("after", values(after));
    };
    let mut changed: Vec<&String> = before.keys().chain(after.keys()).collect();
    changed.sort_unstable();
    changed.dedup();
    changed.retain(|name| is_different(name));
    event
        .noting("changed", json!(changed))
        .noting("before", values(before))
        .noting("after", values(after))
}

/// What a file can say of a person, without the secret.
pub(super) fn fields(user: &User) -> Map<String, Value> {
    object(&json!({
        "email": user.email,
        "email_verified": user.email_verified,
        "admin": user.admin,
        "disabled": user.disabled,
        "groups": user.groups,
        "claims": user.claims,
    }))
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        _ => unreachable!("our own types are objects in JSON"),
    }
}
