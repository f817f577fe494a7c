//! The reference: a TOML file with every key, its default and its reason, made from the declarations themselves.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::sources::{parse_value, variable_name};
use super::{KEYS, Key, Presence};

/// One key, for scripts.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub key: &'static str,
    pub variable: String,
    /// The variable that names the file of a secret.
    pub file_variable: Option<String>,
    pub required: bool,
    /// What counts when nobody sets it; null where nothing does, or where `unset` says what.
    pub default: Value,
    pub unset: Option<Value>,
    pub allowed: String,
    pub reason: String,
}

const PREAMBLE: &str = "\
# Every key of latchkey.toml, with its default and its reason. Remove the # directly before a key to set it.
# Each key is also an environment variable, and a secret may instead be read from a file named by KEY_file.
# Precedence: flag, environment, file, default. Durations: \"60s\", \"10m\", \"12h\", \"30d\", or a whole number of seconds.
# In a variable, the items of a list are separated by commas.
";

/// Prints the reference; uncommented, it sets every key to its default.
pub fn reference() -> String {
    let mut text = PREAMBLE.to_owned();
    let mut section = "";
    for key in KEYS.iter() {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            text.push_str(&format!("\n[{section}]\n"));
        }
        entry(&mut text, key, name);
    }
    text
}

/// Every key as data, in the order of the reference.
pub fn entries() -> Vec<Entry> {
    let entry = |key: &Key| Entry {
        key: key.name,
        variable: variable_name(key.name),
        file_variable: key.secret.then(|| variable_name(key.file_name)),
        required: matches!(key.presence, Presence::Required(_)),
        default: key.default().map_or(Value::Null, |raw| raw.to_json(None)),
        unset: match key.presence {
            Presence::Optional(form) => parse_value(form).map(|raw| raw.to_json(None)),
            Presence::Required(_) | Presence::Default(_) => None,
        },
        allowed: key.allowed.clone(),
        reason: key.reason.concat().trim().to_owned(),
    };
    KEYS.iter().map(entry).collect()
}

// Prose begins with "# ", an assignment with "#" alone: so one rule uncomments the keys and nothing else.
fn entry(text: &mut String, key: &Key, name: &str) {
    text.push('\n');
    for line in key.reason {
        text.push_str(&format!("# {}\n", line.trim()));
    }
    text.push_str(&format!("# Allowed: {}.\n", key.allowed));
    text.push_str(&format!("# Variable: {}", variable_name(key.name)));
    if key.secret {
        let _ = write!(
            text,
            ", or {}_FILE with the path of a file of mode 0600",
            variable_name(key.name)
        );
    }
    text.push_str(".\n");
    match key.presence {
        Presence::Required(example) => {
            text.push_str(&format!("# Required; for example:\n#{name} = {example}\n"))
        }
        Presence::Default(value) => text.push_str(&format!("#{name} = {value}\n")),
        // Never an example to uncomment: a published secret would end up in use.
        Presence::Optional(form) => text.push_str(&format!("# Not set by default: {form}\n")),
    }
}
