//! Scopes. RFC 6749 §3.3; OpenID Connect Core §5.4.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Asks for an ID token.
pub const OPENID: &str = "openid";

/// Asks for a refresh token that outlives the sign-in (OpenID Connect Core §11).
pub const OFFLINE_ACCESS: &str = "offline_access";

/// Every scope that this server knows, and so can be asked for.
pub const SUPPORTED: &[&str] = &[
    OPENID,
    "profile",
    "email",
    "address",
    "phone",
    "groups",
    OFFLINE_ACCESS,
];

/// A set of scope tokens, printed in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(BTreeSet<String>);

/// A character that RFC 6749 §3.3 doesn't allow in a scope token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope may hold only printable ASCII without quotes and backslashes")]
pub struct BadScope;

impl Scope {
    /// Whether a token is in the set.
    pub fn contains(&self, token: &str) -> bool {
        self.0.contains(token)
    }

    /// Whether `openid` is asked for, and with it an ID token.
    pub fn is_openid(&self) -> bool {
        self.contains(OPENID)
    }

    /// The tokens, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// What is left of this scope under a rule.
    pub fn retain(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|token| keep(token));
        self
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every token is in the other too.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Both together.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        let allowed = |c: char| matches!(c, '!' | '#'..='[' | ']'..='~');
        text.split(' ')
            .filter(|token| !token.is_empty())
            .map(|token| {
                if token.chars().all(allowed) {
                    Ok(token.to_owned())
                } else {
                    Err(BadScope)
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for Scope {
    type Error = BadScope;

    fn try_from(text: String) -> Result<Self, BadScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, token) in self.0.iter().enumerate() {
            write!(f, "{}{token}", if position == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_set_of_printable_tokens() {
        let scope: Scope = "openid  profile openid".parse().expect("valid");
        assert_eq!(scope.to_string(), "openid profile");
        assert_eq!("open\"id".parse::<Scope>(), Err(BadScope));
        assert_eq!("ümlaut".parse::<Scope>(), Err(BadScope));
    }
}
