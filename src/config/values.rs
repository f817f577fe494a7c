//! Types of single settings: addresses to listen on, the database, the secret key, words to choose from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
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

/// Why a text names no database; it is never repeated, since it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    #[error("must be {}", DatabaseUrl::ALLOWED)]
    Form,
    #[error(
        "must name a file: sqlite://PATH, which holds neither ? nor #, and begins with no colon"
    )]
    Path,
    #[error(
        "must be postgres://USER:PASSWORD@HOST/DATABASE, where a character of the user's name or password that means \
         something is percent-encoded: % as %25, @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, a space as %20"
    )]
    Encoding,
}

/// A type written as one text, with the words that describe what is allowed.
pub(super) trait Described: FromStr<Err: fmt::Display> {
    const ALLOWED: &'static str;
}

/// A type with few values, each with its own word.
pub(super) trait Words: Copy + 'static {
    const ALL: &'static [Self];
    fn word(self) -> &'static str;
}

impl Listen {
    /// Whether both cannot be listened on at once. Port 0 is a different free port each time.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let (one, two) = (a.ip(), b.ip());
                // On Linux `[::]` takes every address of IPv4 too.
                let covers = |wide: IpAddr, narrow: IpAddr| {
                    wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
                };
                let same = one == two || covers(one, two) || covers(two, one);
                a.port() == b.port() && a.port() != 0 && same
            }
            _ => self == other,
        }
    }
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
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if text.contains(char::is_control) {
            return Err(DatabaseUrlError::Form);
        }
        if let Some(path) = text.strip_prefix("sqlite://") {
            // ":memory:" would give each connection its own database; parameters after "?" could undo our pragmas.
            if path.is_empty()
                || path.ends_with('/')
                || path.contains(['?', '#'])
                || path.starts_with(':')
            {
                return Err(DatabaseUrlError::Path);
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        let after = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"));
        match after {
            None | Some("") => Err(DatabaseUrlError::Form),
            Some(after) if is_unambiguous(after) => Ok(Self::Postgres(text.to_owned())),
            Some(_) => Err(DatabaseUrlError::Encoding),
        }
    }
}

/// Whether libpq reads `user:password@host:port,host/database?name=value` as it was meant. A password with a character that
/// ends it too early becomes a host, a port or a database, and libpq's errors would print it as one.
fn is_unambiguous(after_scheme: &str) -> bool {
    let (authority, rest) = match after_scheme.find(['/', '?']) {
        Some(end) => after_scheme.split_at(end),
        None => (after_scheme, ""),
    };
    let hosts = match authority.split_once('@') {
        Some((_, hosts)) => hosts,
        None => authority,
    };
    let (_, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    !after_scheme.contains([' ', '#'])
        && is_percent_encoded(after_scheme)
        && !hosts.contains('@')
        && !rest.contains('@')
        && hosts.split(',').all(is_host)
        && parameters.all(|parameter| parameter.contains('='))
}

/// Every `%` begins a character.
fn is_percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        after.get(..2).is_some_and(|digits| {
            digits.bytes().all(|digit| digit.is_ascii_hexdigit()) && digits != "00"
        })
    })
}

/// `host`, `host:port`, `[::1]:port`; both parts may be missing.
fn is_host(text: &str) -> bool {
    let port = if text.starts_with('[') {
        let Some((_, port)) = text.split_once(']') else {
            return false;
        };
        port
    } else {
        text.find(':').and_then(|at| text.get(at..)).unwrap_or("")
    };
    match port.strip_prefix(':') {
        Some("") => true,
        Some(port) => port.parse::<u16>().is_ok(),
        None => port.is_empty(),
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
            "postgres://a:p%40ss:word@[::1]:5433,b:/x?sslmode=require&prepared_statements=off",
            "postgres://%2Frun%2Fpostgresql/x",
        ] {
            assert_eq!(text.parse(), Ok(DatabaseUrl::Postgres(text.to_owned())));
        }
        assert_eq!(
            "sqlite:///srv/my data/a.db".parse(),
            Ok(DatabaseUrl::Sqlite("/srv/my data/a.db".into()))
        );
        for text in [
            "",
            "latchkey.db",
            "sqlite:a.db",
            "sqlite://",
            "sqlite://:memory:",
            "sqlite://a.db?mode=ro",
            "sqlite://dir/",
            "postgres://",
            "sqlite://a\n.db",
            "mysql://a/b",
        ] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_that_postgresql_would_take_for_something_else_must_be_encoded() {
        for text in [
            "postgres://u:S3cr%t@h/d",
            "postgres://u:S3cr%@h/d",
            "postgres://u:a%00b@h/d",
            "postgres://u:hunter2/xyz@h",
            "postgres://u:1234/xyz@h",
            "postgres://u:hunter2?xyz@h",
            "postgres://u:1234?xyz@h",
            "postgres://u:hun@ter2@h",
            "postgres://u:hunter 2@h/d",
            "postgres://u:hunter2#x@h/d",
            "postgres://u:hunter2",
            "postgres://h:70000/d",
            "postgres://[::1/d",
            "postgres://[::1]x/d",
        ] {
            assert_eq!(
                text.parse::<DatabaseUrl>(),
                Err(DatabaseUrlError::Encoding),
                "{text}"
            );
        }
    }

    #[test]
    fn what_takes_every_address_takes_the_other_too() {
        for (one, two, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "127.0.0.1:80", false),
        ] {
            let (one, two): (Listen, Listen) =
                (one.parse().expect("valid"), two.parse().expect("valid"));
            assert_eq!(one.overlaps(&two), expected, "{one} {two}");
            assert_eq!(two.overlaps(&one), expected, "{two} {one}");
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
