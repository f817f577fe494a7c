//! Which files of an installation hold secrets, and whether anybody else may read or change them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, DatabaseUrl, Sources};
use crate::store::with_suffix;

/// A group may read what is configured, as service managers arrange it.
const FOR_A_GROUP_AT_MOST: u32 = 0o027;
const FOR_ITS_OWNER_ONLY: u32 = 0o077;
/// In a file without secrets others may read, but not say who is believed.
const CHANGED_BY_ITS_OWNER_ONLY: u32 = 0o022;

/// A file that is there, with its mode.
pub(super) struct Guarded {
    file: PathBuf,
    mode: u32,
    /// What the mode must not have.
    forbidden: u32,
}

impl Guarded {
    pub(super) fn is_open(&self) -> bool {
        self.mode & self.forbidden != 0
    }

    /// The file and its mode, for people.
    pub(super) fn describe(&self) -> String {
        format!("{} has mode {:04o}", self.file.display(), self.mode)
    }

    fn find(file: PathBuf, forbidden: u32) -> Option<Self> {
        let mode = fs::metadata(&file).ok()?.permissions().mode() & 0o777;
        Some(Self {
            file,
            mode,
            forbidden,
        })
    }
}

/// Those that are there.
pub(super) fn guarded(config: &Config, sources: &Sources) -> Vec<Guarded> {
    let mut files = Vec::new();
    if let DatabaseUrl::Sqlite(database) = &config.database.url {
        files.push((database.clone(), FOR_ITS_OWNER_ONLY));
        for suffix in ["-wal", "-shm"] {
            files.push((with_suffix(database, suffix), FOR_ITS_OWNER_ONLY));
        }
    }
    let made = config.default_secret_key_file();
    let made = made.filter(|_| config.secret_key.is_none());
    files.extend(made.map(|file| (file, FOR_ITS_OWNER_ONLY)));
    let written = sources.file.as_deref().map(Written::read);
    let named = written.iter().flat_map(|written| &written.secret_files);
    let named = named.cloned().chain(secret_files_of_variables(sources));
    files.extend(named.map(|file| (file, FOR_A_GROUP_AT_MOST)));
    if let (Some(file), Some(written)) = (&sources.file, &written) {
        let forbidden = if written.has_secrets {
            FOR_A_GROUP_AT_MOST
        } else {
            CHANGED_BY_ITS_OWNER_ONLY
        };
        files.push((file.clone(), forbidden));
    }
    let found = files.into_iter();
    found
        .filter_map(|(file, forbidden)| Guarded::find(file, forbidden))
        .collect()
}

/// What the configuration file says about secrets. It was read before, so it is TOML.
#[derive(Default)]
struct Written {
    has_secrets: bool,
    secret_files: Vec<PathBuf>,
}

impl Written {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let document: toml::Table = text.parse().unwrap_or_default();
        let database = document.get("database").and_then(toml::Value::as_table);
        let url = database.and_then(|section| section.get("url"));
        let url = url.and_then(toml::Value::as_str).unwrap_or_default();
        let named = [
            document.get("secret_key_file"),
            database.and_then(|section| section.get("url_file")),
        ];
        let named = named.into_iter().flatten().filter_map(toml::Value::as_str);
        Self {
            has_secrets: document.contains_key("secret_key") || may_hold_password(url),
            secret_files: named.map(PathBuf::from).collect(),
        }
    }
}

/// In front of the host, or among the parameters.
fn may_hold_password(url: &str) -> bool {
    let user = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    user.is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}

fn secret_files_of_variables(sources: &Sources) -> impl Iterator<Item = PathBuf> {
    let names = ["LATCHKEY_SECRET_KEY_FILE", "LATCHKEY_DATABASE__URL_FILE"];
    let set = sources.environment.iter();
    set.filter(move |(name, _)| names.contains(&name.as_str()))
        .map(|(_, file)| PathBuf::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_key_or_a_password_holds_secrets() {
        let with = [
            "secret_key = \"5e\"",
            "database.url = \"postgres://latchkey:hunter2@db/latchkey\"",
            "[database]\nurl = \"postgres://db/latchkey?password=hunter2\"",
        ];
        assert!(with.iter().all(|text| Written::parse(text).has_secrets));
        let without = [
            "issuer = \"https://id.example.test\"",
            "database.url = \"postgres://latchkey@db/latchkey\"",
            "database.url = \"sqlite:///var/lib/latchkey/latchkey.db\"",
            "secret_key_file = \"secret.key\"",
        ];
        assert!(!without.iter().any(|text| Written::parse(text).has_secrets));
    }

    #[test]
    fn files_that_hold_a_secret_each_are_known() {
        let text = "secret_key_file = \"a\"\ndatabase.url_file = \"b\"";
        let expected = [PathBuf::from("a"), PathBuf::from("b")];
        assert_eq!(Written::parse(text).secret_files, expected);
    }
}
