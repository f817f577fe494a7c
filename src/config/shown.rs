//! What every key is set to and who set it, for `config show`. A configuration with mistakes is shown too: that is when
//! people look.

use serde_json::Value;

use super::sources::gather;
use super::{HIDDEN, KEYS, Key, Presence, Reader, Source, Sources, shown_of};

/// One key as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub key: &'static str,
    /// As it would be written in the file; masked where it is secret, absent where nobody set it and nothing is assumed.
    pub text: Option<String>,
    /// The same for scripts.
    pub value: Value,
    /// `default`, `not set`, a file with its line, or a variable.
    pub source: String,
}

/// Every key, in the order of the reference.
pub fn shown(sources: &Sources) -> Vec<Shown> {
    let gathered = gather(sources, &KEYS);
    let reader = Reader {
        given: gathered.values,
        findings: Vec::new(),
        incomplete: gathered.incomplete,
    };
    KEYS.iter().map(|key| show(key, &reader)).collect()
}

fn show(key: &'static Key, reader: &Reader) -> Shown {
    let name = match reader.strongest(key) {
        Source::File => key.file_name,
        Source::Inline | Source::Twice | Source::Nothing => key.name,
    };
    let hidden = || (Some(HIDDEN.to_owned()), HIDDEN.into());
    let default = key.default();
    let ((text, value), source) = match reader.given.get(name) {
        Some(given) if name == key.file_name => {
            let path = shown_of(name, &given.raw);
            (hidden(), format!("{}, in {path}", given.place))
        }
        Some(given) => {
            let text = given.raw.show();
            // A file's name is no secret, unlike the address of a server, which may hold a password.
            let is_hidden = key.secret && !text.starts_with("\"sqlite:");
            let shown = if is_hidden {
                hidden()
            } else {
                (Some(text), given.raw.to_json(default.as_ref()))
            };
            (shown, given.place.to_string())
        }
        None => match (key.presence, default) {
            (Presence::Default(text), Some(default)) => (
                (Some(text.to_owned()), default.to_json(None)),
                "default".to_owned(),
            ),
            _ => ((None, Value::Null), "not set".to_owned()),
        },
    };
    Shown {
        key: key.name,
        text,
        value,
        source,
    }
}
