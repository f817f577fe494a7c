//! A person with an account.

use serde_json::{Map, Value, json};

use crate::protocol::time::Timestamp;

/// A person. The id is their `sub`: random, never the e-mail, never given again.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub id: String,
    /// As typed, for display.
    pub email: String,
    /// In its normal form, for comparing.
    pub email_key: String,
    pub email_verified: bool,
    pub password_hash: Option<String>,
    pub admin: bool,
    pub disabled: bool,
    pub groups: Vec<String>,
    /// Standard claims (OpenID Connect Core §5.1), checked when they were set.
    pub claims: Map<String, Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl User {
    /// Their whole name, if it is known.
    pub fn name(&self) -> Option<&str> {
        self.claims.get("name").and_then(Value::as_str)
    }

    /// What a page calls this person: their name, else their e-mail.
    pub fn display_name(&self) -> &str {
        self.name().unwrap_or(&self.email)
    }

    /// Everything that a claim could say about this person; what is unknown is absent.
    pub fn all_claims(&self) -> Map<String, Value> {
        let mut claims = self.claims.clone();
        claims.insert("email".to_owned(), json!(self.email));
        claims.insert("email_verified".to_owned(), json!(self.email_verified));
        claims.insert("updated_at".to_owned(), json!(self.updated_at));
        claims.insert("groups".to_owned(), json!(self.groups));
        claims
    }
}
