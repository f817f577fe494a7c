//! Types of single settings: addresses to listen on, the database, the secret key, words to choose from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::protocol::jose::algorithm::SigningAlgorithm;

/// Where the server waits for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Which database, by the scheme of its URL.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    /// The whole URL as libpq takes it; it may hold a password.
    Postgres(String),
}

/// The key that encrypts secrets at rest, as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(String);

/// How much is logged when `RUST_LOG` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

/// A text that is no value of its type; the type says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct NotAllowed(pub &'static str);

/// A type written as one text, with the words that describe what is allowed.
pub(super) trait Described: FromStr<Err: fmt::Display> {
    const ALLOWED: &'static str;
}

/// A type with few values, each with its own word.
pub(super) trait Words: Copy + 'static {
    const ALL: &'static [Self];
    fn word(self) -> &'static str;
}

impl FromStr for Listen {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            // A relative socket would move with the directory the service was started in, and its proxy would not.
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(NotAllowed(Self::ALLOWED))
            };
        }
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => Err(NotAllowed(Self::ALLOWED)),
        }
    }
}

impl Described for Listen {
    const ALLOWED: &'static str =
        "an IP address with a port (\"127.0.0.1:8080\", \"[::]:8080\") or \"unix:/absolute/path\"";
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let refused = Err(NotAllowed(Self::ALLOWED));
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return refused;
        }
        if let Some(path) = text.strip_prefix("sqlite://") {
            // ":memory:" would give each connection its own database; parameters after "?" could undo our pragmas.
            if path.is_empty()
                || path.ends_with('/')
                || path.contains(['?', '#'])
                || path.starts_with(':')
            {
                return refused;
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        let after = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"));
        match after {
            Some(after) if !after.is_empty() => Ok(Self::Postgres(text.to_owned())),
            _ => refused,
        }
    }
}

impl Described for DatabaseUrl {
    const ALLOWED: &'static str = "sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE";
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "Sqlite({path:?})"),
            Self::Postgres(_) => f.write_str("Postgres(..)"),
        }
    }
}

impl SecretKey {
    /// The digits, for the one place that derives keys from them.
    pub fn hexadecimal(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretKey {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAllowed(Self::ALLOWED));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Described for SecretKey {
    const ALLOWED: &'static str = "64 hexadecimal digits (32 random bytes)";
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl LogLevel {
    /// The word that log filters use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Words for LogLevel {
    const ALL: &'static [Self] = &[
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Words for LogFormat {
    const ALL: &'static [Self] = &[Self::Auto, Self::Pretty, Self::Json];
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

impl Words for SigningAlgorithm {
    const ALL: &'static [Self] = &SigningAlgorithm::ALL;
    fn word(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_with_a_port_or_an_absolute_socket() {
        assert_eq!(
            "unix:/run/latchkey.sock".parse(),
            Ok(Listen::Unix("/run/latchkey.sock".into()))
        );
        for text in ["127.0.0.1:8080", "[::]:0"] {
            assert_eq!(
                text.parse::<Listen>().map(|listen| listen.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "",
            ":8080",
            "8080",
            "127.0.0.1",
            "localhost:8080",
            "::1:80",
            "127.0.0.1:65536",
            "unix:",
            "unix:run/x",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_scheme_chooses_the_database() {
        assert_eq!(
            "sqlite://latchkey.db".parse(),
            Ok(DatabaseUrl::Sqlite("latchkey.db".into()))
        );
        assert_eq!(
            "sqlite:///var/lib/latchkey/a.db".parse(),
            Ok(DatabaseUrl::Sqlite("/var/lib/latchkey/a.db".into()))
        );
        for text in [
            "postgres://a:b@db.example.test/x",
            "postgresql://a,b:5433/x",
            "postgres:///x?host=/run/postgresql",
        ] {
            assert_eq!(text.parse(), Ok(DatabaseUrl::Postgres(text.to_owned())));
        }
        for text in [
            "",
            "latchkey.db",
            "sqlite:a.db",
            "sqlite://",
            "sqlite://:memory:",
            "sqlite://a.db?mode=ro",
            "sqlite://dir/",
            "postgres://",
            "mysql://a/b",
            "postgres://a b",
        ] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn neither_a_password_nor_the_key_prints_itself() {
        let url: DatabaseUrl = "postgres://a:hunter2@db.example.test/x"
            .parse()
            .expect("a url");
        let key: SecretKey = "5e".repeat(32).parse().expect("a key");
        assert_eq!(format!("{url:?} {key:?}"), "Postgres(..) SecretKey(..)");
    }
}
