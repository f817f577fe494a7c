//! What is wrong with a configuration, all of it at once, and nothing that must stay secret.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// One mistake: where it is, which key, the value seen (masked where it may be secret), and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: Place,
    pub key: Option<String>,
    pub value: Option<String>,
    pub problem: String,
}

/// Where a value was written. The order is that of precedence, weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the key is missing, or its default does not fit another key.
    Absent,
    /// The file, with the line where one can be named.
    File { path: PathBuf, line: Option<usize> },
    /// An environment variable.
    Variable(String),
    /// A flag of the command.
    CommandLine,
}

/// Every mistake of one configuration, in the order of the file, then of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        Self(findings)
    }

    /// The findings one by one, for output as JSON.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }
}

impl Error for Findings {}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.place)?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " {}", self.problem)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("configuration"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

// By hand, because a path that is not UTF-8 must not turn a finding into an error.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.place {
            Place::Absent => map.serialize_entry("source", "none")?,
            Place::File { path, line } => {
                map.serialize_entry("source", "file")?;
                map.serialize_entry("file", &path.display().to_string())?;
                map.serialize_entry("line", line)?;
            }
            Place::Variable(name) => {
                map.serialize_entry("source", "environment")?;
                map.serialize_entry("variable", name)?;
            }
            Place::CommandLine => map.serialize_entry("source", "command line")?,
        }
        map.serialize_entry("key", &self.key)?;
        map.serialize_entry("value", &self.value)?;
        map.serialize_entry("problem", &self.problem)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_as_json_names_file_line_key_value_and_problem() {
        let finding = Finding {
            place: Place::File {
                path: "latchkey.toml".into(),
                line: Some(3),
            },
            key: Some("tokens.code".into()),
            value: Some("\"2h\"".into()),
            problem: "must be a duration from 10s to 10m".into(),
        };
        assert_eq!(
            serde_json::to_string(&finding).expect("plain data"),
            r#"{"source":"file","file":"latchkey.toml","line":3,"key":"tokens.code","value":"\"2h\"","problem":"must be a duration from 10s to 10m"}"#
        );
    }
}
