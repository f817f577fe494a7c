//! Where values come from: a TOML file, `LATCHKEY_*` variables, flags. Taken as data, so that a test needs no process.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Key;
use super::findings::{Finding, Place};
use super::rules::Raw;

const PREFIX: &str = "LATCHKEY_";
/// Names the file, so it cannot be a key inside it.
const CONFIG_VARIABLE: &str = "LATCHKEY_CONFIG";
const DEFAULT_FILE: &str = "latchkey.toml";
/// A secret is short; a file that is not (a disk, a log) was named by mistake.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Everything a configuration is made from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file to read; absent means that there is none, not that it may be missing.
    pub file: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    /// Key and value of each flag that sets a key.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// Reads the environment and finds the file: the flag, else `LATCHKEY_CONFIG`, else `latchkey.toml` if it is there.
    pub fn from_process(config_flag: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let variable = env::var_os(CONFIG_VARIABLE).filter(|value| !value.is_empty());
        let named = config_flag.or_else(|| variable.map(PathBuf::from));
        // A link that leads nowhere is there: somebody meant a file.
        let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        let file = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(is_there));
        // Bytes that are not UTF-8 become U+FFFD here and a finding later; dropping the variable would hide a mistake.
        let environment = env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            file,
            environment,
            overrides,
        }
    }
}

// Values may be secret, and nothing here knows yet which are.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// One value with the place that gave it.
pub(super) struct Given {
    pub(super) place: Place,
    pub(super) raw: Raw,
}

/// The strongest value of each known key, and what was wrong on the way.
pub(super) struct Gathered {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) findings: Vec<Finding>,
    /// The file could not be read as a whole, so a key that seems to be missing may well be in it.
    pub(super) incomplete: bool,
}

pub(super) fn gather(sources: &Sources, keys: &'static [Key]) -> Gathered {
    let mut gathering = Gathering {
        names: keys.iter().flat_map(Key::names).collect(),
        gathered: Gathered {
            values: BTreeMap::new(),
            findings: Vec::new(),
            incomplete: false,
        },
    };
    // In the order of precedence: a later value replaces an earlier one.
    if let Some(path) = &sources.file {
        gathering.file(path);
    }
    for (variable, value) in &sources.environment {
        gathering.variable(variable, value);
    }
    for (key, value) in &sources.overrides {
        gathering.value(key, Place::CommandLine, Raw::Word(value.clone()));
    }
    gathering.gathered
}

/// Parses the right side of an assignment; used for defaults, which are written as TOML.
pub(super) fn parse_value(text: &str) -> Option<Raw> {
    let document = format!("value = {text}");
    let table = DeTable::parse(&document).ok()?;
    table
        .get_ref()
        .values()
        .next()
        .map(|value| raw(value.get_ref()))
}

/// The text of a file that holds one secret, without its line end. The error completes "`KEY_file` = PATH …".
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("names a file that cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LARGEST_SECRET {
        return Err("must name a regular file of at most 64 KiB".to_owned());
    }
    // A group may read, as service managers arrange it; whoever else has an account on this machine may not.
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!(
            "names a file with mode {mode:04o}; allowed is 0600, or 0640 at most"
        ));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        // The error holds the bytes, and they are secret.
        Err(_) => Err("names a file that is not UTF-8 text".to_owned()),
    }
}

/// Whether what stands where the path of a secret's file belongs may be the secret. A file that is there is none, and
/// neither is what looks like a path and not like random text.
pub(super) fn may_be_a_secret(raw: &Raw) -> bool {
    let (Raw::Word(text) | Raw::Text(text)) = raw else {
        return true;
    };
    let looks_like_a_path = text.contains(['/', '.']) && !text.contains("://");
    !(Path::new(text).exists() || (looks_like_a_path && !is_random(text)))
}

/// Hexadecimal or base64 of about as many bytes as a key has.
fn is_random(text: &str) -> bool {
    const SHORTEST: usize = 32;
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    text.len() >= SHORTEST && mixed && has(u8::is_ascii_digit) && text.bytes().all(base64)
}

/// The variable that sets a key.
pub(super) fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

struct Gathering {
    names: Vec<&'static str>,
    gathered: Gathered,
}

impl Gathering {
    fn file(&mut self, path: &Path) {
        let text = match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                let line = 1 + error
                    .as_bytes()
                    .iter()
                    .take(error.utf8_error().valid_up_to())
                    .filter(|byte| **byte == b'\n')
                    .count();
                return self.broken(path, Some(line), "is not UTF-8 text".to_owned());
            }
            Err(error) => return self.broken(path, None, format!("cannot be read: {error}")),
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut broken_lines = BTreeSet::new();
        for error in errors {
            let line = line_of(&text, error.span().map_or(0, |span| span.start));
            // One finding a line: what follows the first error of a line is mostly its echo. Only the message is taken,
            // because the error's own text quotes the line, and the line may hold a secret.
            if broken_lines.insert(line) {
                self.broken(
                    path,
                    Some(line),
                    format!("is not TOML: {}", error.message()),
                );
            }
        }
        let document = Document {
            path,
            text: &text,
            broken_lines,
        };
        self.table(table.get_ref(), "", &document);
    }

    fn broken(&mut self, path: &Path, line: Option<usize>, problem: String) {
        self.gathered.incomplete = true;
        let place = Place::File {
            path: path.to_owned(),
            line,
        };
        self.gathered.findings.push(Finding {
            place,
            key: None,
            value: None,
            problem,
        });
    }

    fn table(&mut self, table: &DeTable<'_>, section: &str, document: &Document<'_>) {
        for (key, value) in table {
            let line = line_of(document.text, key.span().start);
            // What the parser guessed from a broken line is not what anybody wrote.
            if document.broken_lines.contains(&line) {
                continue;
            }
            let key = bare_or_quoted(key.get_ref());
            let name = if section.is_empty() {
                key
            } else {
                format!("{section}.{key}")
            };
            let place = Place::File {
                path: document.path.to_owned(),
                line: Some(line),
            };
            let is_section = self.is_section(&name);
            match value.get_ref() {
                DeValue::Table(inner)
                    if is_section || (!inner.is_empty() && !self.is_key(&name)) =>
                {
                    self.table(inner, &name, document);
                }
                _ if is_section => {
                    let problem = format!("is a section: write [{name}] and its keys below");
                    self.gathered.findings.push(Finding {
                        place,
                        key: Some(name),
                        value: None,
                        problem,
                    });
                }
                value => self.value(&name, place, raw(value)),
            }
        }
    }

    fn variable(&mut self, variable: &str, value: &str) {
        if !variable.starts_with(PREFIX)
            || variable == CONFIG_VARIABLE
            || is_service_link(variable, value)
        {
            return;
        }
        let place = Place::Variable(variable.escape_debug().to_string());
        let Some(key) = self
            .names
            .iter()
            .copied()
            .find(|key| variable_name(key) == variable)
        else {
            let meant = meant(variable, self.names.iter().map(|key| variable_name(key)));
            let problem = format!("is not a variable of Latchkey{meant}");
            self.gathered.findings.push(Finding {
                place,
                key: None,
                value: None,
                problem,
            });
            return;
        };
        if value.contains('\u{fffd}') {
            let problem = "must be UTF-8 text".to_owned();
            self.gathered.findings.push(Finding {
                place,
                key: Some(key.to_owned()),
                value: None,
                problem,
            });
            return;
        }
        self.value(key, place, Raw::Word(value.to_owned()));
    }

    fn value(&mut self, name: &str, place: Place, raw: Raw) {
        match self.names.iter().copied().find(|key| *key == name) {
            Some(key) => {
                self.gathered.values.insert(key, Given { place, raw });
            }
            // The value is not shown: a misspelt secret is still a secret.
            None => {
                let meant = meant(name, self.names.iter().map(|key| (*key).to_owned()));
                let problem = format!("is not a key{meant}");
                self.gathered.findings.push(Finding {
                    place,
                    key: Some(name.to_owned()),
                    value: None,
                    problem,
                });
            }
        }
    }

    fn is_key(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    fn is_section(&self, name: &str) -> bool {
        self.names.iter().any(|key| {
            key.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }
}

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    broken_lines: BTreeSet<usize>,
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

// A quoted key with a dot in it is another key than the path it looks like, and control characters stay out of terminals.
fn bare_or_quoted(key: &str) -> String {
    let bare = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

// Kubernetes puts variables such as LATCHKEY_PORT=tcp://… into every pod beside a Service called "latchkey" or
// "latchkey-…"; nobody wrote them, so they are no mistake. LATCHKEY_PORT=8080 was written by somebody.
fn is_service_link(variable: &str, value: &str) -> bool {
    let protocols = ["tcp", "udp", "sctp"];
    let is_url = || {
        let scheme = value.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| protocols.contains(&scheme))
    };
    let is_number = || value.parse::<u16>().is_ok();
    let is_address = || value.parse::<IpAddr>().is_ok();
    // What follows the number and the protocol in NAME_PORT_80_TCP and NAME_PORT_80_TCP_ADDR.
    let published = |rest: &str| {
        let mut parts = rest.split('_');
        let number = parts.next()?.parse::<u16>().ok();
        let protocol = parts.next()?.to_ascii_lowercase();
        (number.is_some() && protocols.contains(&protocol.as_str())).then(|| match parts.next() {
            None => is_url(),
            Some("ADDR") => is_address(),
            Some("PORT") => is_number(),
            Some("PROTO") => protocols.contains(&value),
            Some(_) => false,
        })
    };
    if variable.ends_with("_SERVICE_HOST") {
        return is_address();
    }
    if variable.ends_with("_SERVICE_PORT") || variable.contains("_SERVICE_PORT_") {
        return is_number();
    }
    let of_port = variable
        .match_indices("_PORT_")
        .find_map(|(at, separator)| {
            published(variable.get(at + separator.len()..).unwrap_or_default())
        });
    of_port.unwrap_or_else(|| variable.ends_with("_PORT") && is_url())
}

/// What was probably meant, as the end of a sentence; nothing when nothing known is near.
fn meant(name: &str, known: impl Iterator<Item = String>) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    // A key in the wrong section is nearer than one that merely looks alike.
    let distance = |candidate: &String| {
        (
            last(candidate) != last(name),
            strsim::damerau_levenshtein(candidate, name),
        )
    };
    let near = name.trim_start_matches(PREFIX).len() / 2;
    let nearest = known
        .map(|candidate| (distance(&candidate), candidate))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some(((is_elsewhere, distance), nearest)) if !is_elsewhere || distance <= near => {
            format!("; the nearest known one is {nearest}")
        }
        _ => "; `latchkey config reference` shows all of them".to_owned(),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other(number.to_string()),
        },
        DeValue::Float(number) => Raw::Other(number.to_string()),
        DeValue::Boolean(flag) => Raw::Other(flag.to_string()),
        DeValue::Datetime(time) => Raw::Other(time.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("(a table)".to_owned()),
    }
}
