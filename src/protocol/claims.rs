//! Claims about a person: which exist, which scope brings them, which a request asks for one by one.
//! OpenID Connect Core §5.1, §5.4, §5.5.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::client::Client;
use super::error::{OAuthError, invalid_request};
use super::known_scopes::KnownScopes;
use super::problem::Problem;
use super::scope::Scope;

/// What the server can say about a person, and which scope delivers it. `groups` is ours.
pub const BY_SCOPE: &[(&str, &[&str])] = &[
    (
        "profile",
        &[
            "name",
            "given_name",
            "family_name",
            "middle_name",
            "nickname",
            "preferred_username",
            "profile",
            "picture",
            "website",
            "gender",
            "birthdate",
            "zoneinfo",
            "locale",
            "updated_at",
        ],
    ),
    ("email", &["email", "email_verified"]),
    ("address", &["address"]),
    ("phone", &["phone_number", "phone_number_verified"]),
    ("groups", &["groups"]),
];

/// Every claim that can be asked for, as discovery lists them.
pub fn supported() -> Vec<&'static str> {
    let about_the_login = [
        "sub",
        "iss",
        "aud",
        "exp",
        "iat",
        "auth_time",
        "nonce",
        "acr",
        "amr",
        "azp",
        "sid",
        "at_hash",
    ];
    about_the_login
        .into_iter()
        .chain(
            BY_SCOPE
                .iter()
                .flat_map(|(_, claims)| claims.iter().copied()),
        )
        .collect()
}

/// The claims that one place (UserInfo or the ID token) shows: those of the scope, and those asked for by name.
pub fn select(
    person: &Map<String, Value>,
    scope: &Scope,
    asked: &Asked,
    known: &KnownScopes,
) -> Map<String, Value> {
    let by_scope = known
        .with_claims()
        .filter(|name| scope.contains(name))
        .flat_map(|name| known.claims_of(name));
    let by_name = asked.names().filter(|name| is_about_the_person(name));
    let mut selected = Map::new();
    for name in by_scope.chain(by_name) {
        if let Some(value) = person.get(name) {
            selected.insert(name.to_owned(), value.clone());
        }
        // A mail address without the word whether it was verified invites apps to trust it.
        if name == "email"
            && let Some(verified) = person.get("email_verified")
        {
            selected.insert("email_verified".to_owned(), verified.clone());
        }
    }
    selected
}

/// Whether a claim tells something about a person, rather than about the login.
pub fn is_about_the_person(name: &str) -> bool {
    BY_SCOPE.iter().any(|(_, claims)| claims.contains(&name))
}

/// The `claims` parameter (§5.5): what is asked for in each place. Claims of one never appear in the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimsRequest {
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "Asked::is_empty"
    )]
    pub userinfo: Asked,
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "Asked::is_empty"
    )]
    pub id_token: Asked,
}

fn null_is_absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Asked, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Claims asked for by name in one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asked(BTreeMap<String, Option<Wish>>);

/// How a claim is wanted (§5.5.1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    #[serde(default)]
    pub essential: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
}

impl Wish {
    /// The values that would do; nothing when any would.
    pub fn accepted(&self) -> Option<Vec<&Value>> {
        (self.value.is_some() || self.values.is_some()).then(|| {
            self.value
                .iter()
                .chain(self.values.iter().flatten())
                .collect()
        })
    }
}

impl Asked {
    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How a claim is wanted; nothing when it isn't, or without details.
    pub fn wish(&self, name: &str) -> Option<&Wish> {
        self.0.get(name).and_then(Option::as_ref)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ClaimsRequest {
    /// Reads the parameter's JSON. Unknown claims and members are ignored, as §5.5 asks.
    pub fn parse(json: Option<&str>) -> Result<Self, OAuthError> {
        let Some(json) = json else {
            return Ok(Self::default());
        };
        // An object first: serde would also read a list as the members in their order.
        serde_json::from_str(json)
            .and_then(|object: Map<String, Value>| serde_json::from_value(Value::Object(object)))
            .map_err(|_json| {
                invalid_request("claims must be a JSON object as in OpenID Connect Core 5.5")
            })
    }

    /// What is left of it for a client: what tells nothing about the person, and what it may learn.
    pub fn allowed_to(mut self, client: &Client, known: &KnownScopes) -> Self {
        for place in [&mut self.userinfo, &mut self.id_token] {
            place
                .0
                .retain(|name, _| !is_about_the_person(name) || client.may_learn(name, known));
        }
        self
    }

    /// Whether nothing is asked for by name.
    pub fn is_empty(&self) -> bool {
        self.userinfo.is_empty() && self.id_token.is_empty()
    }

    /// Whether the request demands certain people (§5.5.1: `sub` with a value).
    pub fn demands_a_subject(&self) -> bool {
        self.demanded_subjects().next().is_some()
    }

    /// Whether a person is one whom the request would take, in both places.
    pub fn accepts_subject(&self, subject: &str) -> bool {
        self.demanded_subjects()
            .all(|accepted| accepted.iter().any(|value| value.as_str() == Some(subject)))
    }

    fn demanded_subjects(&self) -> impl Iterator<Item = Vec<&Value>> {
        [&self.id_token, &self.userinfo]
            .into_iter()
            .filter_map(|place| place.wish("sub")?.accepted())
    }

    /// Everything about the person that is asked for in either place.
    pub fn about_the_person(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .userinfo
            .names()
            .chain(self.id_token.names())
            .filter(|name| is_about_the_person(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Checks what an operator says about a person; `null` and empty values are dropped, unknown names and wrong types refused.
pub fn check_attributes(claims: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut checked = Map::new();
    let mut problems = Vec::new();
    for (name, value) in claims {
        if is_nothing(value) {
            continue;
        }
        match check_attribute(name, value) {
            Ok(()) => {
                checked.insert(name.clone(), value.clone());
            }
            Err(reason) => problems.push(Problem::new(format!("claims.{name}"), reason)),
        }
    }
    if problems.is_empty() {
        Ok(checked)
    } else {
        Err(problems)
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        _ => false,
    }
}

fn check_attribute(name: &str, value: &Value) -> Result<(), &'static str> {
    let text = value.as_str();
    match name {
        "email" | "email_verified" | "groups" | "sub" | "updated_at" => {
            Err("is not set here; it has a field of its own")
        }
        _ if !is_about_the_person(name) => Err("is not a standard claim (OpenID Connect Core 5.1)"),
        "phone_number_verified" => value.is_boolean().then_some(()).ok_or("is true or false"),
        "address" => check_address(value),
        "birthdate" => text
            .is_some_and(is_birthdate)
            .then_some(())
            .ok_or("is YYYY-MM-DD, YYYY or 0000-MM-DD"),
        "profile" | "picture" | "website" => {
            let is_address = text
                .and_then(|text| url::Url::parse(text).ok())
                .is_some_and(|url| matches!(url.scheme(), "https" | "http"));
            is_address.then_some(()).ok_or("is a web address")
        }
        "locale" => text
            .is_some_and(is_locale)
            .then_some(())
            .ok_or("is a language tag such as en-GB"),
        "zoneinfo" => text
            .is_some_and(is_zone)
            .then_some(())
            .ok_or("is a time zone such as Europe/Berlin"),
        _ => text
            .is_some_and(|text| text.len() <= 2_000 && !text.chars().any(char::is_control))
            .then_some(())
            .ok_or("is a text of one line, at most 2000 bytes"),
    }
}

fn check_address(value: &Value) -> Result<(), &'static str> {
    const MEMBERS: &[&str] = &[
        "formatted",
        "street_address",
        "locality",
        "region",
        "postal_code",
        "country",
    ];
    let is_valid = value.as_object().is_some_and(|members| {
        members.iter().all(|(name, value)| {
            MEMBERS.contains(&name.as_str())
                && value.as_str().is_some_and(|text| text.len() <= 2_000)
        })
    });
    is_valid
        .then_some(())
        .ok_or("is an object of formatted, street_address, locality, region, postal_code, country")
}

fn is_birthdate(text: &str) -> bool {
    let digits_only = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [year] => year.len() == 4 && digits_only(year),
        // The year may be withheld; 2000 was a leap year.
        ["0000", month, day] => {
            NaiveDate::parse_from_str(&format!("2000-{month}-{day}"), "%Y-%m-%d").is_ok()
                && text.len() == 10
        }
        [_, _, _] => text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(),
        _ => false,
    }
}

fn is_locale(text: &str) -> bool {
    let mut subtags = text.split('-');
    subtags.next().is_some_and(|language| {
        (2..=8).contains(&language.len()) && language.chars().all(|c| c.is_ascii_alphabetic())
    }) && subtags.all(|subtag| {
        (1..=8).contains(&subtag.len()) && subtag.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

fn is_zone(text: &str) -> bool {
    text == "UTC"
        || text.split('/').count() >= 2
            && text.split('/').all(|part| {
                !part.is_empty()
                    && part
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'))
            })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn claims_of_one_place_do_not_appear_in_the_other() {
        let request = ClaimsRequest::parse(Some(
            r#"{"userinfo":{"name":{"essential":true}},"id_token":{"nickname":null}}"#,
        ))
        .expect("valid");
        let person = object(
            json!({"name": "Alice", "nickname": "al", "email": "a@example.test", "email_verified": true}),
        );
        let scope = "openid".parse().expect("valid");
        assert_eq!(
            select(&person, &scope, &request.userinfo, &KnownScopes::default()),
            object(json!({"name": "Alice"}))
        );
        assert_eq!(
            select(&person, &scope, &request.id_token, &KnownScopes::default()),
            object(json!({"nickname": "al"}))
        );
    }

    #[test]
    fn a_place_that_is_null_asks_for_nothing() {
        let request = ClaimsRequest::parse(Some(r#"{"userinfo":null,"id_token":{"name":null}}"#))
            .expect("valid");
        assert_eq!(request.userinfo.names().count(), 0);
        assert_eq!(request.id_token.names().collect::<Vec<_>>(), ["name"]);
    }

    #[test]
    fn a_subject_has_to_be_among_those_of_every_place() {
        for (claims, alice, bob) in [
            (r#"{"id_token":{"sub":null}}"#, true, true),
            (r#"{"id_token":{"sub":{"essential":true}}}"#, true, true),
            (r#"{"id_token":{"sub":{"value":"alice"}}}"#, true, false),
            (r#"{"userinfo":{"sub":{"value":"alice"}}}"#, true, false),
            (
                r#"{"id_token":{"sub":{"values":["alice","bob"]}}}"#,
                true,
                true,
            ),
            (r#"{"id_token":{"sub":{"values":["bob"]}}}"#, false, true),
            (r#"{"id_token":{"sub":{"values":[]}}}"#, false, false),
            (r#"{"id_token":{"sub":{"value":7}}}"#, false, false),
            (
                r#"{"id_token":{"sub":{"value":"alice"}},"userinfo":{"sub":{"value":"bob"}}}"#,
                false,
                false,
            ),
            (
                r#"{"id_token":{"sub":{"values":["alice","bob"]}},"userinfo":{"sub":{"value":"bob"}}}"#,
                false,
                true,
            ),
        ] {
            let request = ClaimsRequest::parse(Some(claims)).expect("valid");
            assert_eq!(
                (
                    request.accepts_subject("alice"),
                    request.accepts_subject("bob")
                ),
                (alice, bob),
                "{claims}"
            );
        }
    }

    #[test]
    fn a_mail_address_always_comes_with_whether_it_was_verified() {
        let request = ClaimsRequest::parse(Some(r#"{"id_token":{"email":null}}"#)).expect("valid");
        let person = object(json!({"email": "a@example.test", "email_verified": false}));
        assert_eq!(
            select(
                &person,
                &Scope::default(),
                &request.id_token,
                &KnownScopes::default()
            ),
            person
        );
    }

    #[test]
    fn attributes_have_the_types_of_the_specification() {
        let good = object(json!({
            "name": "Alice", "birthdate": "0000-02-29", "locale": "en-GB", "zoneinfo": "Europe/Berlin", "phone_number_verified": true,
            "address": {"locality": "Bremen"}, "nickname": "", "middle_name": null
        }));
        let checked = check_attributes(&good).expect("valid");
        assert!(!checked.contains_key("nickname") && !checked.contains_key("middle_name"));
        for bad in [
            json!({"birthdate": "1.2.1990"}),
            json!({"birthdate": "1990-02-30"}),
            json!({"phone_number_verified": "true"}),
            json!({"address": "Bremen"}),
            json!({"address": {"planet": "Earth"}}),
            json!({"locale": "English (UK)"}),
            json!({"zoneinfo": "somewhere"}),
            json!({"website": "javascript:alert(1)"}),
            json!({"email": "x@example.test"}),
            json!({"role": "admin"}),
            json!({"name": 7}),
        ] {
            assert!(check_attributes(&object(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_claims_parameter_that_is_not_an_object_is_refused() {
        for bad in [
            "[]",
            "{\"userinfo\":[]}",
            "{\"userinfo\":{\"name\":true}}",
            "{",
            "null",
        ] {
            assert!(ClaimsRequest::parse(Some(bad)).is_err(), "{bad}");
        }
        assert!(
            ClaimsRequest::parse(Some("{\"other\":{}}"))
                .expect("valid")
                .is_empty()
        );
    }
}
