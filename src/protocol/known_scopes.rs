//! The scopes that this server knows: those of OpenID Connect, and those that an operator defined beside them.
//! OpenID Connect Core §5.4.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::claims;
use super::problem::Problem;
use super::scope::{self, Scope};

/// A scope of an operator's own: what an API lets an app do, or another selection of claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinedScope {
    pub name: String,
    /// What people read on the consent page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The claims about a person that it brings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownScopes {
    defined: BTreeMap<String, DefinedScope>,
}

const LONGEST_NAME: usize = 200;
const LONGEST_DESCRIPTION: usize = 500;

impl DefinedScope {
    /// Everything that is wrong with it, field by field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |field: &str, reason: String| problems.push(Problem::new(field, reason));
        if scope::SUPPORTED.contains(&self.name.as_str()) {
            let reason = format!("{:?} is OpenID Connect's; choose another", self.name);
            add("name", reason);
        } else if !is_scope_name(&self.name) {
            let reason = format!(
                "is at most {LONGEST_NAME} printable ASCII characters without spaces, quotes and backslashes"
            );
            add("name", reason);
        }
        if let Some(text) = &self.description
            && (text.is_empty()
                || text.len() > LONGEST_DESCRIPTION
                || text.chars().any(char::is_control))
        {
            let reason = format!("is a text of one line, at most {LONGEST_DESCRIPTION} bytes");
            add("description", reason);
        }
        for (index, claim) in self.claims.iter().enumerate() {
            if !claims::is_about_the_person(claim) {
                let reason = format!(
                    "{claim:?} is not a standard claim (OpenID Connect Core 5.1) or groups"
                );
                add(&format!("claims[{index}]"), reason);
            }
        }
        problems
    }
}

/// Can a scope of an operator's own be called so?
pub fn is_scope_name(name: &str) -> bool {
    let is_one_token = name
        .parse::<Scope>()
        .is_ok_and(|scope| scope.iter().eq([name]));
    is_one_token && name.len() <= LONGEST_NAME && !scope::SUPPORTED.contains(&name)
}

impl KnownScopes {
    /// Is there such a scope?
    pub fn contains(&self, name: &str) -> bool {
        scope::SUPPORTED.contains(&name) || self.defined.contains_key(name)
    }

    /// Would a person have to allow it? What a machine may do at an API has no person.
    pub fn needs_a_person(&self, name: &str) -> bool {
        scope::SUPPORTED.contains(&name) || self.claims_of(name).next().is_some()
    }

    /// Every name, those of the specification first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let defined = self.defined.keys().map(String::as_str);
        scope::SUPPORTED.iter().copied().chain(defined)
    }

    /// Those that bring claims, in the order in which people are asked.
    pub fn with_claims(&self) -> impl Iterator<Item = &str> {
        let defined = self.defined.values();
        let defined = defined.filter(|scope| !scope.claims.is_empty());
        claims::BY_SCOPE
            .iter()
            .map(|(name, _)| *name)
            .chain(defined.map(|scope| scope.name.as_str()))
    }

    /// The claims that a scope brings.
    pub fn claims_of(&self, name: &str) -> impl Iterator<Item = &str> {
        let standard = claims::BY_SCOPE.iter().find(|(scope, _)| *scope == name);
        let standard = standard.map_or(&[][..], |(_, claims)| *claims);
        let defined = self.defined.get(name);
        let defined = defined.map_or(&[][..], |scope| scope.claims.as_slice());
        standard
            .iter()
            .copied()
            .chain(defined.iter().map(String::as_str))
    }

    /// What an operator says of a scope.
    pub fn description_of(&self, name: &str) -> Option<&str> {
        self.defined.get(name)?.description.as_deref()
    }
}

impl FromIterator<DefinedScope> for KnownScopes {
    fn from_iter<T: IntoIterator<Item = DefinedScope>>(scopes: T) -> Self {
        Self {
            defined: scopes
                .into_iter()
                .map(|scope| (scope.name.clone(), scope))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str, claims: &[&str]) -> DefinedScope {
        DefinedScope {
            name: name.to_owned(),
            description: None,
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
        }
    }

    #[test]
    fn what_an_operator_defines_stands_beside_the_standard_scopes() {
        let known: KnownScopes = [scope("calendar.read", &[]), scope("contact", &["email"])]
            .into_iter()
            .collect();
        assert!(known.contains("profile") && known.contains("calendar.read"));
        assert!(!known.contains("calendar.write"));
        assert!(known.claims_of("contact").eq(["email"]));
        assert!(known.claims_of("phone").count() == 2);
        assert!(known.needs_a_person("contact") && known.needs_a_person("openid"));
        assert!(!known.needs_a_person("calendar.read"));
        assert_eq!(known.names().last(), Some("contact"));
        assert_eq!(known.with_claims().last(), Some("contact"));
    }

    #[test]
    fn a_definition_is_one_token_that_the_specification_does_not_have() {
        assert!(scope("a:b/c", &["name"]).problems().is_empty());
        for bad in [
            scope("", &[]),
            scope("two words", &[]),
            scope("\"quoted\"", &[]),
            scope("email", &[]),
            scope("x", &["sub"]),
            scope("x", &["role"]),
            DefinedScope {
                description: Some("two\nlines".to_owned()),
                ..scope("x", &[])
            },
        ] {
            assert_eq!(bad.problems().len(), 1, "{bad:?}");
        }
    }
}
