//! Which lists a file has, which fields each entry has, and what may stand in them.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::document::{DATE, Document, member};
use super::mistakes::{Mistake, Place};
use crate::identity::email::Email;
use crate::identity::group;
use crate::protocol::client::{LIFETIMES, UNKNOWN_LIFETIME, is_client_id};
use crate::protocol::known_scopes::is_scope_name;

pub(super) const LISTS: &[&str] = &["users", "clients", "scopes", "groups"];

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Texts,
    Flag,
    Number,
    Table,
    Tables,
    Life,
    Lives,
}

use Kind::{Flag, Life, Lives, Number, Table, Tables, Text, Texts};

/// The fields of one kind of entry.
pub(super) struct Shape {
    fields: &'static [(&'static str, Kind)],
    /// The one that it can't be without, and is called by.
    name: &'static str,
    /// A text that is none is not shown: it may be a secret in the wrong place.
    is_name: fn(&str) -> bool,
}

pub(super) const USER: Shape = Shape {
    fields: &[
        ("sub", Text),
        ("email", Text),
        ("password", Text),
        ("password_hash", Text),
        ("email_verified", Flag),
        ("admin", Flag),
        ("disabled", Flag),
        ("groups", Texts),
        ("claims", Table),
    ],
    name: "email",
    is_name: |text| text.parse::<Email>().is_ok(),
};

pub(super) const CLIENT: Shape = Shape {
    fields: &[
        ("client_id", Text),
        ("client_secret", Text),
        ("client_secret_hashes", Tables),
        ("client_name", Text),
        ("client_uri", Text),
        ("policy_uri", Text),
        ("tos_uri", Text),
        ("application_type", Text),
        ("redirect_uris", Texts),
        ("post_logout_redirect_uris", Texts),
        ("response_types", Texts),
        ("grant_types", Texts),
        ("token_endpoint_auth_method", Text),
        ("token_endpoint_auth_signing_alg", Text),
        ("jwks", Table),
        ("id_token_signed_response_alg", Text),
        ("default_max_age", Number),
        ("default_acr_values", Texts),
        ("scope", Text),
        ("require_pkce", Flag),
        ("skip_consent", Flag),
        ("access_token_format", Text),
        ("allowed_cors_origins", Texts),
        ("allowed_resources", Texts),
        ("protected_resources", Texts),
        ("claims_in_id_token", Flag),
        ("session_refresh_tokens", Flag),
        ("refresh_retry_window", Life),
        ("tokens", Lives),
    ],
    name: "client_id",
    is_name: is_client_id,
};

/// One of a client's `client_secret_hashes`.
pub(super) const SECRET_HASH: Shape = Shape {
    fields: &[("sha256", Text), ("prefix", Text), ("expires_at", Text)],
    name: "sha256",
    is_name: |_| false,
};

pub(super) const SCOPE: Shape = Shape {
    fields: &[("name", Text), ("description", Text), ("claims", Texts)],
    name: "name",
    is_name: is_scope_name,
};

pub(super) const GROUP: Shape = Shape {
    fields: &[("name", Text), ("description", Text), ("members", Texts)],
    name: "name",
    is_name: group::is_name,
};

/// An entry, of which every field has a value of its type.
pub(super) struct Entry<T> {
    pub(super) place: Place,
    pub(super) value: T,
    /// Fields that were refused and are absent now: what follows from that would be an echo.
    pub(super) refused: BTreeSet<String>,
}

impl<T> Entry<T> {
    /// One that was not written in a file.
    pub(super) fn unplaced(value: T) -> Self {
        Self {
            place: Place::default(),
            value,
            refused: BTreeSet::new(),
        }
    }
}

/// Says of each list that a file can't have what it can.
pub(super) fn check_lists(document: &Document, mistakes: &mut Vec<Mistake>) {
    for (list, value) in &document.root {
        if !LISTS.contains(&list.as_str()) {
            let problem = format!("is not known; a file has the lists {}", LISTS.join(", "));
            mistakes.push(Place::at(member("", list)).mistake("", problem));
        } else if !value.is_array() {
            let problem = format!("is a list ([[{list}]] in TOML), not {}", type_of(value));
            mistakes.push(Place::at(list).mistake("", problem));
        }
    }
}

/// Reads a list entry by entry, so that one bad entry hides no other.
pub(super) fn entries<T: DeserializeOwned>(
    document: &Document,
    list: &str,
    shape: &Shape,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Entry<T>> {
    let values = document.root.get(list).and_then(Value::as_array);
    let values = values.into_iter().flatten().enumerate();
    values
        .filter_map(|(index, value)| {
            let path = format!("{list}[{index}]");
            entry(Place::at(path), value, shape, mistakes)
        })
        .collect()
}

/// Reads one entry field by field, so that one bad field hides no other.
pub(super) fn entry<T: DeserializeOwned>(
    mut place: Place,
    value: &Value,
    shape: &Shape,
    mistakes: &mut Vec<Mistake>,
) -> Option<Entry<T>> {
    let Some(members) = value.as_object() else {
        let problem = format!("is a table of fields, not {}", type_of(value));
        mistakes.push(place.mistake("", problem));
        return None;
    };
    let name = members.get(shape.name).and_then(Value::as_str);
    if let Some(name) = name.filter(|name| (shape.is_name)(name)) {
        place.entry = Some(name.to_owned());
    }
    let mut good = Map::new();
    let mut refused = BTreeSet::new();
    // What is null is absent.
    for (field, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let Some((_, kind)) = shape.fields.iter().find(|(known, _)| known == field) else {
            let nearest = shape.nearest(field);
            let problem = format!("is not known; did you mean {nearest}?");
            mistakes.push(place.mistake(&member("", field), problem));
            if !members.contains_key(nearest) {
                refused.insert(nearest.to_owned());
            }
            continue;
        };
        let wrong = kind.wrong(value);
        match kind.good_part(value) {
            _ if wrong.is_empty() => {
                good.insert(field.clone(), value.clone());
            }
            Some(part) => {
                good.insert(field.clone(), part);
            }
            None => {
                refused.insert(field.clone());
            }
        }
        for (beneath, problem) in wrong {
            mistakes.push(place.mistake(&format!("{field}{beneath}"), problem));
        }
    }
    if !good.contains_key(shape.name) {
        if !refused.contains(shape.name) {
            mistakes.push(place.mistake(shape.name, "is missing"));
        }
        refused.insert(shape.name.to_owned());
        good.insert(shape.name.to_owned(), Value::from(""));
    }
    let value = serde_json::from_value(Value::Object(good))
        .expect("the kind of each field is that of its type, as a test shows");
    Some(Entry {
        place,
        value,
        refused,
    })
}

impl Shape {
    fn nearest(&self, field: &str) -> &'static str {
        let likeness = |known: &str| strsim::jaro_winkler(known, field);
        let names = self.fields.iter().map(|(name, _)| *name);
        names
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .unwrap_or_default()
    }
}

impl Kind {
    /// What of a value has not this type: where in it, and what is allowed there. A value itself is never shown: any of
    /// them may be a secret in the wrong place.
    fn wrong(self, value: &Value) -> Vec<(String, String)> {
        let not = |beneath: String, seen: &Value, allowed: &str| {
            (beneath, format!("is {allowed}, not {}", type_of(seen)))
        };
        let is_good = match self {
            Text => value.is_string(),
            Flag => value.is_boolean(),
            Number => value.is_u64(),
            Life => value.is_string() || value.is_u64(),
            Table | Lives => is_table(value),
            Texts | Tables => value.is_array(),
        };
        if !is_good {
            return vec![not(String::new(), value, self.allowed())];
        }
        match (self, value) {
            (Texts, Value::Array(items)) => (items.iter().enumerate())
                .filter(|(_, item)| !item.is_string())
                .map(|(index, item)| not(format!("[{index}]"), item, Text.allowed()))
                .collect(),
            (Lives, Value::Object(members)) => (members.iter())
                .filter(|(_, life)| !Life.wrong(life).is_empty())
                .flat_map(|(name, life)| {
                    let place = format!(".{}", member("", name));
                    let unknown = (!LIFETIMES.contains(&name.as_str()))
                        .then(|| (place.clone(), UNKNOWN_LIFETIME.to_owned()));
                    unknown
                        .into_iter()
                        .chain([not(place, life, Life.allowed())])
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Of a table whose members don't depend on each other those that have this type, so that they are judged as well.
    fn good_part(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Lives, Value::Object(members)) if is_table(value) => {
                let good = members
                    .iter()
                    .filter(|(_, life)| Life.wrong(life).is_empty());
                let good = good.map(|(name, life)| (name.clone(), life.clone()));
                Some(Value::Object(good.collect()))
            }
            _ => None,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Text => "a text",
            Texts => "a list of texts",
            Flag => "true or false",
            Number => "a whole number, at least 0",
            Table => "a table",
            Tables => "a list of tables",
            Life => "a duration such as \"60s\" or \"10m\"",
            Lives => "a table of durations",
        }
    }
}

fn is_table(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|members| !members.contains_key(DATE))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_u64() => "a number",
        Value::Number(number) if number.is_i64() => "a number below 0",
        Value::Number(_) => "a fraction or a number out of range",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) if is_table(value) => "a table",
        Value::Object(_) => "a date (which stands in quotes)",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{GroupEntry, UserEntry, secret_hash};
    use super::*;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::known_scopes::DefinedScope;

    fn samples(kind: Kind) -> Vec<Value> {
        match kind {
            Text => vec![json!("x")],
            Texts => vec![json!([]), json!(["x"])],
            Flag => vec![json!(true)],
            Number => vec![json!(5)],
            Table => vec![json!({ "x": [] })],
            Tables => vec![json!([{ "x": [] }])],
            Life => vec![json!(5), json!("5s")],
            Lives => vec![json!({}), json!({ "x": 5, "y": "5s" })],
        }
    }

    fn reads_all<T: DeserializeOwned>(shape: &Shape) {
        for (field, kind) in shape.fields {
            for sample in samples(*kind) {
                let value = json!({ shape.name: "x", *field: sample });
                let mut mistakes = Vec::new();
                let read: Option<Entry<T>> = entry(Place::default(), &value, shape, &mut mistakes);
                assert!(
                    read.is_some() && mistakes.is_empty(),
                    "{field}: {mistakes:?}"
                );
            }
        }
    }

    #[test]
    fn the_kind_of_each_field_is_that_of_its_type() {
        reads_all::<UserEntry>(&USER);
        reads_all::<ClientMetadata>(&CLIENT);
        reads_all::<DefinedScope>(&SCOPE);
        reads_all::<GroupEntry>(&GROUP);
        reads_all::<secret_hash::Hash>(&SECRET_HASH);
    }

    #[test]
    fn a_mistake_names_the_type_that_came_and_never_the_value() {
        let value = json!({ "email": -5, "admin": "hunter2", "groups": ["a", 1.5], "claims": { DATE: "1979-05-27" } });
        let mut mistakes = Vec::new();
        entry::<UserEntry>(Place::at("users[0]"), &value, &USER, &mut mistakes);
        let said: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let expected = [
            "users[0].email: is a text, not a number below 0",
            "users[0].admin: is true or false, not a text",
            "users[0].groups[1]: is a text, not a fraction or a number out of range",
            "users[0].claims: is a table, not a date (which stands in quotes)",
        ];
        assert_eq!(said, expected);
    }
}
