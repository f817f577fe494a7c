//! Everything that a file can say, as `apply` reads it.

use serde_json::{Map, Value, json};

use super::secret_hash;
use crate::identity::user::User;
use crate::protocol::client::Client;
use crate::protocol::client_secret::ClientSecret;
use crate::protocol::time::Timestamp;
use crate::store::{AnyConnection, StoreError, client_secrets, clients, groups, scopes, users};

/// People, apps, scopes and groups, each list in the order of its names. Applied to an empty database, it comes out the same.
pub fn export(conn: &mut AnyConnection, now: Timestamp) -> Result<Value, StoreError> {
    let people: Vec<Value> = users::list(conn)?.iter().map(person).collect();
    let mut apps = Vec::new();
    for client in clients::list(conn)? {
        let mut app = metadata_of(&client);
        if client.has_secret()
            && let Some(members) = app.as_object_mut()
        {
            let secrets = client_secrets::list(conn, &client.client_id)?;
            let hashes = json!(hashes(secrets, now));
            members.insert("client_secret_hashes".to_owned(), hashes);
        }
        apps.push(app);
    }
    let scopes = scopes::list(conn)?;
    let groups = groups::list(conn)?;
    Ok(json!({ "users": people, "clients": apps, "scopes": scopes, "groups": groups }))
}

/// A client under the names of a file, lifetimes in seconds; what is not set is left out.
pub fn metadata_of(client: &Client) -> Value {
    let mut value = serde_json::to_value(client).expect("our own types always have a JSON form");
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
        if let Some(keys) = object.remove("jwks") {
            object.insert("jwks".to_owned(), json!({ "keys": keys }));
        }
        object.insert("tokens".to_owned(), lifetimes(client));
    }
    value
}

fn lifetimes(client: &Client) -> Value {
    let tokens = &client.tokens;
    let lifetimes = [
        ("code", tokens.code),
        ("access", tokens.access),
        ("id", tokens.id),
        ("refresh_idle", tokens.refresh_idle),
        ("refresh_absolute", tokens.refresh_absolute),
        ("refresh_retry_window", tokens.refresh_retry_window),
    ];
    let own = lifetimes
        .into_iter()
        .filter_map(|(name, life)| Some((name.to_owned(), json!(life?.as_secs()))));
    Value::Object(own.collect())
}

fn person(user: &User) -> Value {
    let mut person = Map::new();
    let mut add = |name: &str, value: Value| person.insert(name.to_owned(), value);
    add("sub", json!(user.id));
    add("email", json!(user.email));
    add("email_verified", json!(user.email_verified));
    if let Some(hash) = &user.password_hash {
        add("password_hash", json!(hash));
    }
    add("admin", json!(user.admin));
    add("disabled", json!(user.disabled));
    add("groups", json!(user.groups));
    add("claims", sorted(&user.claims));
    Value::Object(person)
}

/// By their names: TOML puts tables last, so that any other order would not come back.
fn sorted(members: &Map<String, Value>) -> Value {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    let sorted = members.into_iter().map(|(name, value)| {
        let value = value.as_object().map_or_else(|| value.clone(), sorted);
        (name.clone(), value)
    });
    Value::Object(sorted.collect())
}

/// Those that work; in an order that does not depend on when each was made, which a file does not say.
fn hashes(mut secrets: Vec<ClientSecret>, now: Timestamp) -> Vec<Value> {
    secrets.retain(|secret| secret.is_live(now));
    secrets.sort_by_key(|secret| secret.hash);
    secrets.iter().map(secret_hash::write).collect()
}
