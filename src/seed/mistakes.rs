//! What is wrong with a file, all of it at once, and nothing that must stay secret.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::protocol::problem::Problem;

/// One mistake: where it is, and what is allowed there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name; nothing where the values came another way.
    pub file: Option<String>,
    pub line: Option<usize>,
    /// The field, such as `users[0].email`; empty where it is the file as a whole.
    pub path: String,
    /// What the entry is called, by which people find it quicker than by a number.
    pub entry: Option<String>,
    pub problem: String,
}

/// Where an entry is, and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) entry: Option<String>,
}

/// A file's name, and the line on which each field of it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub(super) file: Option<String>,
    pub(super) lines: BTreeMap<String, usize>,
}

impl Mistake {
    /// Of a file as a whole, or of the text in a line of it.
    pub(super) fn of_text(file: &str, line: Option<usize>, problem: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_owned()),
            line,
            problem: problem.into(),
            ..Self::default()
        }
    }
}

impl Place {
    /// Of something in a file that is no entry.
    pub(super) fn at(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            entry: None,
        }
    }

    /// The path of one of its fields. Who describes an entry by flags of a command gave it no place in a list.
    pub(super) fn field(&self, field: &str) -> String {
        match (self.path.as_str(), field) {
            ("", field) => field.to_owned(),
            (path, "") => path.to_owned(),
            (path, field) => format!("{path}.{field}"),
        }
    }

    pub(super) fn mistake(&self, field: &str, problem: impl Into<String>) -> Mistake {
        Mistake {
            path: self.field(field),
            entry: self.entry.clone(),
            problem: problem.into(),
            ..Mistake::default()
        }
    }

    pub(super) fn mistakes(&self, problems: Vec<Problem>) -> impl Iterator<Item = Mistake> {
        let problems = problems.into_iter();
        problems.map(|problem| self.mistake(&problem.field, problem.reason))
    }
}

impl Origin {
    /// The line of a field; of what is missing, the line of what it is missing in.
    pub(super) fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            (path, _) = path.rsplit_once(['.', '['])?;
        }
    }

    /// Names file and line of each, and puts them in the order of the file.
    pub(super) fn locate(&self, mistakes: &mut [Mistake]) {
        for mistake in mistakes.iter_mut() {
            mistake.file.clone_from(&self.file);
            mistake.line = mistake.line.or_else(|| self.line_of(&mistake.path));
        }
        mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            if let Some(entry) = &self.entry {
                write!(f, " ({entry})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)
    }
}

/// Under the names that `config check` uses.
impl Serialize for Mistake {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("source", "file")?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("line", &self.line)?;
        let key = Some(&self.path).filter(|path| !path.is_empty());
        map.serialize_entry("key", &key)?;
        map.serialize_entry("entry", &self.entry)?;
        map.serialize_entry("problem", &self.problem)?;
        map.end()
    }
}
