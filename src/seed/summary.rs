//! What an application changed, in the words of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::document::member;

/// What an application changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    /// What came from a file once and is in it no more.
    pub deleted: Vec<String>,
    pub unchanged: usize,
    /// What is different about each of the updated, field by field; secrets are only said to be other ones.
    pub differences: BTreeMap<String, Vec<String>>,
    /// Secrets that were made now: client id and secret, to be shown this once.
    pub new_secrets: Vec<(String, String)>,
}

impl Summary {
    /// Whether anything is not as it was.
    pub fn is_change(&self) -> bool {
        ![&self.created, &self.updated, &self.deleted]
            .iter()
            .all(|names| names.is_empty())
    }

    /// For people: a line a change.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let changes = [
            ("created", &self.created),
            ("updated", &self.updated),
            ("deleted", &self.deleted),
        ];
        for (verb, names) in changes {
            for name in names {
                let _infallible = writeln!(text, "{verb} {name}");
                for different in self.differences.get(name).into_iter().flatten() {
                    let _infallible = writeln!(text, "    {different}");
                }
            }
        }
        let _infallible = writeln!(text, "{} unchanged", self.unchanged);
        text
    }

    /// Writes down what became of one of them.
    pub(super) fn note(
        &mut self,
        name: String,
        before: Option<&Value>,
        after: &Value,
        also: Vec<String>,
    ) {
        let Some(before) = before else {
            self.created.push(name);
            return;
        };
        let mut different = differences(before, after);
        different.extend(also);
        if different.is_empty() {
            self.unchanged += 1;
        } else {
            self.differences.insert(name.clone(), different);
            self.updated.push(name);
        }
    }
}

/// What is different, field by field; within tables, member by member.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut different = Vec::new();
    compare("", before, after, &mut different);
    different
}

fn compare(path: &str, before: &Value, after: &Value, different: &mut Vec<String>) {
    let members = |value: &Value| value.as_object().cloned();
    match (members(before), members(after)) {
        _ if before == after => {}
        (Some(old), Some(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let of = |table: &Map<String, Value>| table.get(name).cloned().unwrap_or_default();
                compare(&member(path, name), &of(&old), &of(&new), different);
            }
        }
        _ => different.push(format!("{path}: {} -> {}", shown(before), shown(after))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        value => value.to_string(),
    }
}
