//! A file's text, TOML or JSON, as values of which each has a line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Deserializer, Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Origin, Place};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    Json,
}

/// A file as it was handed in.
#[derive(Clone, Debug)]
pub struct File {
    /// As people are told of it.
    pub name: String,
    pub bytes: Vec<u8>,
    /// Where its name does not say, the text does.
    pub format: Option<Format>,
}

/// A file whose text could be read.
#[derive(Default)]
pub(super) struct Document {
    pub(super) root: Map<String, Value>,
    pub(super) origin: Origin,
    /// What is there twice.
    pub(super) mistakes: Vec<Mistake>,
}

/// The only member of a TOML date, for which JSON has no type; no field takes one.
pub(super) const DATE: &str = "$date";

impl Document {
    /// Reads a text, or says in which lines it can't be read. What is in them is not shown: it may be a secret.
    pub(super) fn read(file: &File) -> Result<Self, Vec<Mistake>> {
        let wrong = |line, problem: String| Mistake::of_text(&file.name, line, problem);
        let text = match std::str::from_utf8(&file.bytes) {
            Ok(text) => text,
            Err(error) => {
                let readable = file.bytes.iter().take(error.valid_up_to());
                let line = 1 + readable.filter(|byte| **byte == b'\n').count();
                return Err(vec![wrong(Some(line), "is not UTF-8 text".to_owned())]);
            }
        };
        // Some editors begin a file with a mark that belongs to no value.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reading = Reading::new(text);
        let read = match file.format.unwrap_or_else(|| format_of(text)) {
            Format::Toml => reading.toml(),
            Format::Json => reading.json(),
        };
        let root = read.map_err(|problems| {
            let problems = problems.into_iter();
            problems
                .map(|(line, problem)| wrong(line, problem))
                .collect::<Vec<_>>()
        })?;
        let Value::Object(root) = root else {
            let lists = super::fields::LISTS.join(", ");
            let problem = format!("is not an object with the lists {lists}");
            return Err(vec![wrong(None, problem)]);
        };
        Ok(Self {
            root,
            origin: Origin {
                file: (!file.name.is_empty()).then(|| file.name.clone()),
                lines: reading.lines,
            },
            mistakes: reading.mistakes,
        })
    }
}

/// No TOML begins with a brace.
fn format_of(text: &str) -> Format {
    if text.trim_start().starts_with('{') {
        Format::Json
    } else {
        Format::Toml
    }
}

/// The path of a member. A quoted name with a dot in it is another than the path it looks like, and control characters
/// stay out of terminals.
pub(super) fn member(path: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = match name.chars().all(bare) && !name.is_empty() {
        true => name.to_owned(),
        false => format!("{name:?}"),
    };
    Place::at(path).field(&name)
}

struct Reading<'a> {
    text: &'a str,
    /// How far it was read, as JSON.
    at: usize,
    /// Where each line ends.
    ends: Vec<usize>,
    lines: BTreeMap<String, usize>,
    mistakes: Vec<Mistake>,
}

/// A line, where one can be named, and what is wrong with it.
type Unreadable = (Option<usize>, String);

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            lines: BTreeMap::new(),
            mistakes: Vec::new(),
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }

    fn note(&mut self, path: &str, offset: usize) {
        let line = self.line_at(offset);
        self.lines.entry(path.to_owned()).or_insert(line);
    }

    fn toml(&mut self) -> Result<Value, Vec<Unreadable>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let mut broken = BTreeSet::new();
        let mut unreadable = Vec::new();
        for error in errors {
            let line = self.line_at(error.span().map_or(0, |span| span.start));
            // What follows the first error of a line is mostly its echo. Of the error only the message is taken, since its
            // own text quotes the line.
            if broken.insert(line) {
                unreadable.push((Some(line), format!("is not TOML: {}", error.message())));
            }
        }
        if unreadable.is_empty() {
            Ok(Value::Object(self.table("", table.get_ref())))
        } else {
            Err(unreadable)
        }
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Map<String, Value> {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        let mut read = Map::new();
        for (name, value) in members {
            let path = member(path, name.get_ref());
            self.note(&path, name.span().start);
            let value = self.toml_value(&path, value.get_ref());
            read.insert(name.get_ref().clone().into_owned(), value);
        }
        read
    }

    fn toml_value(&mut self, path: &str, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_too_large| endless(), Value::from),
            DeValue::Float(number) => number.as_str().parse().map_or_else(
                |_no_number| endless(),
                |number| Number::from_f64(number).map_or_else(endless, Value::Number),
            ),
            DeValue::Datetime(date) => {
                Value::Object(Map::from_iter([(DATE.to_owned(), date.to_string().into())]))
            }
            DeValue::Array(items) => {
                let mut read = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.note(&path, item.span().start);
                    read.push(self.toml_value(&path, item.get_ref()));
                }
                Value::Array(read)
            }
            DeValue::Table(table) => Value::Object(self.table(path, table)),
        }
    }

    fn json(&mut self) -> Result<Value, Vec<Unreadable>> {
        // As a whole first: what follows takes it for granted that the text is JSON, and not nested without end.
        if let Err(error) = serde_json::from_str::<Value>(self.text) {
            let (line, column) = (error.line(), error.column());
            let said = error.to_string();
            let reason = said.split(" at line ").next().unwrap_or_default();
            let problem = format!("is not JSON: {reason} (column {column})");
            return Err(vec![(Some(line), problem)]);
        }
        Ok(self.json_value(""))
    }

    fn json_value(&mut self, path: &str) -> Value {
        match self.peek() {
            Some(b'{') => {
                let mut read = Map::new();
                while self.next_item(b'}') {
                    let name_at = self.at;
                    let name = self.scalar();
                    let name = name.as_str().unwrap_or_default();
                    let path = member(path, name);
                    let is_new = !read.contains_key(name);
                    self.note(&path, name_at);
                    self.skip(b':');
                    let value = self.json_value(&path);
                    if is_new {
                        read.insert(name.to_owned(), value);
                    } else {
                        let mut mistake = Place::at(path).mistake("", "is there twice");
                        mistake.line = Some(self.line_at(name_at));
                        self.mistakes.push(mistake);
                    }
                }
                Value::Object(read)
            }
            Some(b'[') => {
                let mut read = Vec::new();
                while self.next_item(b']') {
                    let path = format!("{path}[{}]", read.len());
                    self.note(&path, self.at);
                    read.push(self.json_value(&path));
                }
                Value::Array(read)
            }
            _ => self.scalar(),
        }
    }

    /// Goes to the next member or item, past what stands before it; past the end of them, if there is none.
    fn next_item(&mut self, end: u8) -> bool {
        // What begins the list, or what parts two of its items.
        if self.peek() != Some(end) {
            self.at += 1;
        }
        let is_end = self.peek() == Some(end);
        if is_end {
            self.at += 1;
        }
        !is_end
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == Some(byte) {
            self.at += 1;
        }
        self.peek();
    }

    /// What comes next, past any space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.text.as_bytes().get(self.at).copied();
            match byte {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte,
            }
        }
    }

    fn scalar(&mut self) -> Value {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        let value = values.next().and_then(Result::ok).unwrap_or_default();
        self.at += values.byte_offset();
        value
    }
}

/// What JSON has no number for is too large for every field.
fn endless() -> Value {
    Value::from(f64::MAX)
}
