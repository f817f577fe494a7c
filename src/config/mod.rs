//! File, environment and flags → one checked [`Config`], a struct a section.
//!
//! A key is declared once, in [`settings!`] below: its reason (the doc comment), name, type, default, kind, and whether it
//! is secret. Parsing, findings, variable names and the reference follow from that declaration.

mod ca_file;
mod findings;
mod issuer;
mod reference;
mod rules;
mod shown;
mod sources;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;

pub use self::ca_file::CaFile;
pub use self::findings::{Finding, Findings, Place};
pub use self::issuer::{Issuer, IssuerError};
pub use self::reference::{Entry, entries, reference};
use self::rules::{Network, Raw, Rule, lasting, list, number, one_of, text};
pub use self::shown::{Shown, shown};
pub use self::sources::Sources;
use self::sources::{Given, gather, may_be_a_secret, parse_value, read_secret};
pub use self::values::{
    DatabaseUrl, DatabaseUrlError, Listen, LogFormat, LogLevel, NotAllowed, SecretKey,
};
use crate::identity::password::{HashError, HashSettings, Policy};
use crate::identity::session::Lifetimes;
pub use crate::protocol::duration;
use crate::protocol::jose::algorithm::SigningAlgorithm;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// What a finding shows instead of a secret.
const HIDDEN: &str = "(hidden)";
/// The key file's name where none is configured.
const SECRET_KEY_FILE: &str = "secret.key";

/// One declared key, as data.
struct Key {
    name: &'static str,
    /// The name of the key that holds a secret's file instead, present for secrets only.
    file_name: &'static str,
    secret: bool,
    presence: Presence,
    allowed: String,
    reason: &'static [&'static str],
}

/// What happens when nobody sets a key. The texts are TOML values, except that of `Optional`, which is prose.
#[derive(Clone, Copy)]
enum Presence {
    Required(&'static str),
    Optional(&'static str),
    Default(&'static str),
}

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(keys);

macro_rules! settings {
    (
        top {
            $( $(#[doc = $reason:literal])+
               $key:ident: $type:ty = $presence:ident($text:tt), $rule:expr $(, $secret:ident)?; )+
        }
        $(
            $(#[doc = $about:literal])+
            $section:ident: $struct:ident {
                $( $(#[doc = $inner_reason:literal])+
                   $inner:ident: $inner_type:ty = $inner_presence:ident($inner_text:tt), $inner_rule:expr $(, $inner_secret:ident)?; )+
            }
        )+
    ) => {
        /// Everything an operator decides, parsed and checked.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[doc = $reason])+ pub $key: $type, )+
            $( $(#[doc = $about])+ pub $section: $struct, )+
            /// Whether `latchkey dev` runs: no key, so that no file can switch a production server into it.
            pub development: bool,
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug)]
            pub struct $struct {
                $( $(#[doc = $inner_reason])+ pub $inner: $inner_type, )+
            }
        )+

        /// A configuration in which each key may have failed, so that the checks between keys still see the others.
        struct Draft {
            $( $key: Option<$type>, )+
            $( $section: draft::$struct, )+
        }

        mod draft {
            use super::*;

            $( pub(super) struct $struct {
                $( pub(super) $inner: Option<$inner_type>, )+
            } )+
        }

        impl Draft {
            fn read(reader: &mut Reader) -> Self {
                Self {
                    $( $key: reader.$presence(stringify!($key), &$rule), )+
                    $( $section: draft::$struct {
                        $( $inner: reader.$inner_presence(concat!(stringify!($section), ".", stringify!($inner)), &$inner_rule), )+
                    }, )+
                }
            }

            fn finish(self) -> Option<Config> {
                Some(Config {
                    $( $key: self.$key?, )+
                    $( $section: $struct { $( $inner: self.$section.$inner?, )+ }, )+
                    development: false,
                })
            }
        }

        fn keys() -> Vec<Key> {
            vec![
                $( Key {
                    name: stringify!($key),
                    file_name: concat!(stringify!($key), "_file"),
                    secret: false $( || settings!(@is $secret) )?,
                    presence: presence::$presence(stringify!($text)),
                    allowed: $rule.allowed(),
                    reason: &[$( $reason ),+],
                }, )+
                $( $( Key {
                    name: concat!(stringify!($section), ".", stringify!($inner)),
                    file_name: concat!(stringify!($section), ".", stringify!($inner), "_file"),
                    secret: false $( || settings!(@is $inner_secret) )?,
                    presence: presence::$inner_presence(stringify!($inner_text)),
                    allowed: $inner_rule.allowed(),
                    reason: &[$( $inner_reason ),+],
                }, )+ )+
            ]
        }
    };
    (@is secret) => { true };
}

settings! {
    top {
        /// Where people and apps reach this server: the issuer of every token, compared byte for byte.
        /// A path is allowed. Changing it later breaks every app, so choose a name that can stay.
        issuer: Issuer = required("https://id.example.test"), text::<Issuer>();
        /// Where the server waits for requests, usually behind a proxy that ends TLS.
        /// A socket at a path has mode 0666: its folder says who may connect. Started by socket activation (systemd), the
        /// server takes the one socket that it is handed (`LISTEN_FDS`) instead.
        listen: Listen = default("127.0.0.1:8080"), text::<Listen>();
        /// Encrypts what must be read again: private signing keys, TOTP seeds, waiting mail. Keep it out of database backups.
        secret_key: Option<SecretKey> = optional("made at first start as secret.key beside the SQLite file; must be set with PostgreSQL"),
            text::<SecretKey>(), secret;
        /// Proxies whose forwarded headers are believed; from anybody else these headers could be forged.
        trusted_proxies: Vec<IpNet> = default([]), list(Network, 0);
    }

    /// Where everything is kept.
    database: DatabaseConfig {
        /// SQLite serves one process and needs nothing else; PostgreSQL serves many.
        url: DatabaseUrl = default("sqlite://latchkey.db"), text::<DatabaseUrl>(), secret;
    }

    /// What operators and monitoring see.
    management: ManagementConfig {
        /// Where /metrics, /livez and /readyz answer; apart from the main address, since metrics tell who signs in when.
        /// A socket at a path has mode 0660.
        listen: Listen = default("127.0.0.1:9464"), text::<Listen>();
    }

    /// What is written to standard error.
    log: LogConfig {
        /// How much is logged; `RUST_LOG`, where set, filters more finely.
        /// Libraries that send cookies and tokens say no more than info in either case.
        level: LogLevel = default("info"), one_of::<LogLevel>();
        /// How a line looks: auto is pretty on a terminal and JSON otherwise.
        format: LogFormat = default("auto"), one_of::<LogFormat>();
    }

    /// How long what we hand out is good for.
    tokens: TokensConfig {
        /// Lifetime of an authorization code, which an app redeems at once; a leaked one should be dead already.
        code: Duration = default("60s"), lasting(10, 10 * MINUTE);
        /// Lifetime of an access token; an app may accept it this long after the person was signed out.
        access: Duration = default("10m"), lasting(MINUTE, DAY);
        /// Lifetime of an ID token; an app reads it once, right after sign-in.
        id: Duration = default("10m"), lasting(MINUTE, DAY);
        /// A refresh token that was not used for this long has expired.
        refresh_idle: Duration = default("30d"), lasting(MINUTE, 3650 * DAY);
        /// A family of refresh tokens ends after this long, however often it is used.
        refresh_absolute: Duration = default("180d"), lasting(MINUTE, 3650 * DAY);
        /// An app that lost the answer to a refresh may ask again for this long; 0 means never.
        refresh_retry_window: Duration = default("60s"), lasting(0, 10 * MINUTE);
    }

    /// How long a browser stays signed in.
    session: SessionConfig {
        /// A session that nobody used for this long has ended.
        idle: Duration = default("12h"), lasting(5 * MINUTE, 365 * DAY);
        /// A session ends after this long, however busy it is.
        absolute: Duration = default("14d"), lasting(5 * MINUTE, 365 * DAY);
        /// How long a browser stays signed in where the person asked to be remembered.
        remembered: Duration = default("30d"), lasting(5 * MINUTE, 365 * DAY);
    }

    /// How much guessing is endured.
    throttle: ThrottleConfig {
        /// Failures of one account from unknown browsers before these are slowed down.
        account_failures: u32 = default(10), number::<u32>(1, 100);
        /// The time over which failures are counted.
        window: Duration = default("15m"), lasting(MINUTE, DAY);
        /// Failures from one address over all accounts, per window; higher where many people share an address.
        address_failures: u32 = default(50), number::<u32>(1, 100_000);
        /// Requests of one address to one kind of route (pages, documents, what apps ask) a minute; 0 is off.
        /// Apps that authenticate are served beyond it.
        address_requests: u32 = default(300), number::<u32>(0, 1_000_000);
    }

    /// What a password must be, and what guessing a stolen hash costs.
    password: PasswordConfig {
        /// Shortest password, in characters.
        minimum_length: usize = default(12), number::<usize>(8, 128);
        /// Lowest zxcvbn score, from 0 (guessed at once) to 4.
        minimum_score: u8 = default(3), number::<u8>(0, 4);
        /// Memory of one argon2id hash in KiB; hashes made with less are renewed at the next sign-in.
        memory_kib: u32 = default(19456), number::<u32>(7168, 1_048_576);
        /// Passes of one argon2id hash over its memory.
        iterations: u32 = default(2), number::<u32>(1, 20);
        /// Lanes of one argon2id hash.
        parallelism: u32 = default(1), number::<u32>(1, 16);
    }

    /// Whom the server and its commands call.
    egress: EgressConfig {
        /// Authorities of your own, trusted for outgoing calls beside the system's: by selftest and doctor, which open the
        /// issuer as people do, and where traces go.
        ca_file: Option<CaFile> = optional("only the system's authorities are trusted"), text::<CaFile>();
    }

    /// What is written down of what people, apps and operators did.
    audit: AuditConfig {
        /// An event is deleted after this long.
        retention: Duration = default("365d"), lasting(DAY, 3650 * DAY);
    }

    /// The keys that sign tokens.
    keys: KeysConfig {
        /// Algorithms that apps may choose. RS256 must be one: it is what every app understands and gets unless it chose.
        algorithms: Vec<SigningAlgorithm> = default(["RS256", "ES256"]), list(one_of::<SigningAlgorithm>(), 1);
        /// A signing key is replaced when it is this old.
        rotate_every: Duration = default("90d"), lasting(DAY, 3650 * DAY);
        /// The next key is published this long before it signs, so that caches of the key set have seen it.
        publish_before: Duration = default("1d"), lasting(HOUR, 30 * DAY);
    }
}

impl PasswordConfig {
    /// The price of one hash.
    pub fn hash_settings(&self) -> Result<HashSettings, HashError> {
        HashSettings::new(self.memory_kib, self.iterations, self.parallelism)
    }

    /// What a new password must be.
    pub fn policy(&self) -> Policy {
        Policy {
            minimum_length: self.minimum_length,
            minimum_score: self.minimum_score,
        }
    }
}

impl EgressConfig {
    /// A client that trusts whom the configuration says.
    pub fn trusting(&self, mut builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        for certificate in self.ca_file.iter().flat_map(CaFile::certificates) {
            builder = builder.add_root_certificate(certificate.clone());
        }
        builder
    }
}

impl Config {
    /// Reads and checks everything; the error holds every mistake, not the first.
    pub fn load(sources: Sources) -> Result<Self, Findings> {
        let gathered = gather(&sources, &KEYS);
        let mut reader = Reader {
            given: gathered.values,
            findings: gathered.findings,
            incomplete: gathered.incomplete,
        };
        let draft = Draft::read(&mut reader);
        judge(&draft, &mut reader);
        match draft.finish() {
            Some(config) if reader.findings.is_empty() => Ok(config),
            _ => Err(Findings::new(reader.findings)),
        }
    }

    /// How long sign-ins last.
    pub fn session_lifetimes(&self) -> Lifetimes {
        Lifetimes {
            idle: self.session.idle,
            absolute: self.session.absolute,
            remembered: self.session.remembered,
        }
    }

    /// The key file that is made at first start where no key is configured: beside the SQLite file.
    pub fn default_secret_key_file(&self) -> Option<PathBuf> {
        match &self.database.url {
            DatabaseUrl::Sqlite(path) => Some(path.with_file_name(SECRET_KEY_FILE)),
            DatabaseUrl::Postgres(_) => None,
        }
    }
}

impl SecretKey {
    /// Reads a key file; the error completes a sentence that begins with the file's name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let digits = read_secret(path)?;
        digits
            .parse()
            .map_err(|error: NotAllowed| format!("names a file whose content {error}"))
    }
}

// Rules between keys; each finding stands at the key that somebody wrote, since defaults fit each other.
fn judge(draft: &Draft, reader: &mut Reader) {
    let Draft {
        tokens,
        session,
        keys,
        ..
    } = draft;
    let lifetimes = [
        (
            ("tokens.refresh_idle", tokens.refresh_idle),
            ("tokens.refresh_absolute", tokens.refresh_absolute),
        ),
        (
            ("session.idle", session.idle),
            ("session.absolute", session.absolute),
        ),
    ];
    for ((idle_name, idle), (absolute_name, absolute)) in lifetimes {
        let (Some(idle), Some(absolute)) = (idle, absolute) else {
            continue;
        };
        if idle > absolute && reader.is_given(idle_name) {
            let absolute = duration::print(absolute);
            let problem = format!("must not be longer than {absolute_name}, which is {absolute}");
            reader.complain(idle_name, problem);
        } else if idle > absolute {
            let idle = duration::print(idle);
            let problem = format!("must not be shorter than {idle_name}, which is {idle}");
            reader.complain(absolute_name, problem);
        }
    }
    if let (Some(publish_before), Some(rotate_every)) = (keys.publish_before, keys.rotate_every)
        && publish_before >= rotate_every
    {
        let (key, problem) = if reader.is_given("keys.publish_before") {
            let rotate_every = duration::print(rotate_every);
            (
                "keys.publish_before",
                format!("must be shorter than keys.rotate_every, which is {rotate_every}"),
            )
        } else {
            let publish_before = duration::print(publish_before);
            (
                "keys.rotate_every",
                format!("must be longer than keys.publish_before, which is {publish_before}"),
            )
        };
        reader.complain(key, problem);
    }
    if let Some(algorithms) = &keys.algorithms
        && !algorithms.contains(&SigningAlgorithm::Rs256)
    {
        reader.complain(
            "keys.algorithms",
            "must name RS256 too, which OpenID Connect requires (Discovery 3)".to_owned(),
        );
    }
    if let (Some(listen), Some(management)) = (&draft.listen, &draft.management.listen)
        && listen.overlaps(management)
    {
        let (key, other, address) = if reader.is_given("management.listen") {
            ("management.listen", "listen", listen)
        } else {
            ("listen", "management.listen", management)
        };
        let problem = if listen == management {
            format!("must not be the same as {other}")
        } else {
            format!("must not take what {other} takes, which is {address}")
        };
        reader.complain(key, problem);
    }
    // Many processes may share a PostgreSQL; a key that one of them made beside itself would lock the others out.
    if let (Some(DatabaseUrl::Postgres(_)), Some(None)) = (&draft.database.url, &draft.secret_key) {
        let problem = format!(
            "is missing, required with PostgreSQL; {}",
            how_to_set("secret_key", true)
        );
        reader.missing("secret_key", problem);
    }
}

impl Key {
    /// Every name under which the key can be given.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [Some(self.name), self.secret.then_some(self.file_name)]
            .into_iter()
            .flatten()
    }

    /// What counts when nobody sets it.
    fn default(&self) -> Option<Raw> {
        match self.presence {
            Presence::Default(text) => {
                Some(parse_value(text).expect("a test parses every default"))
            }
            Presence::Required(_) | Presence::Optional(_) => None,
        }
    }
}

/// Constructors named like the words of a declaration.
mod presence {
    use super::Presence;

    pub(super) fn required(example: &'static str) -> Presence {
        Presence::Required(example)
    }

    pub(super) fn optional(form: &'static str) -> Presence {
        Presence::Optional(form)
    }

    pub(super) fn default(value: &'static str) -> Presence {
        Presence::Default(value)
    }
}

/// Turns raw values into typed ones and remembers every one that would not turn.
struct Reader {
    given: BTreeMap<&'static str, Given>,
    findings: Vec<Finding>,
    incomplete: bool,
}

impl Reader {
    fn required<R: Rule>(&mut self, name: &'static str, rule: &R) -> Option<R::Value> {
        match self.optional(name, rule) {
            Some(Some(value)) => Some(value),
            Some(None) => {
                self.missing(
                    name,
                    format!(
                        "is missing and required: {}; {}",
                        rule.allowed(),
                        how_to_set(name, false)
                    ),
                );
                None
            }
            None => None,
        }
    }

    fn default<R: Rule>(&mut self, name: &'static str, rule: &R) -> Option<R::Value> {
        match self.optional(name, rule) {
            Some(None) => Some(default_of(name, rule)),
            given => given.flatten(),
        }
    }

    /// Outer `None`: a finding. Inner `None`: nobody set it.
    fn optional<R: Rule>(&mut self, name: &'static str, rule: &R) -> Option<Option<R::Value>> {
        let key = find(name);
        match self.strongest(key) {
            Source::Nothing => Some(None),
            Source::Twice => {
                self.complain(
                    key.file_name,
                    format!("must not be set beside {name}: one of them, not both"),
                );
                // What is wrong with each is told too.
                let _either = (self.inline(key, rule), self.in_file(key, rule));
                None
            }
            Source::Inline => self.inline(key, rule).map(Some),
            Source::File => self.in_file(key, rule).map(Some),
        }
    }

    fn inline<R: Rule>(&mut self, key: &'static Key, rule: &R) -> Option<R::Value> {
        let read = rule.read(&self.given.get(key.name)?.raw);
        self.value_or_complaint(key.name, read)
    }

    fn in_file<R: Rule>(&mut self, key: &'static Key, rule: &R) -> Option<R::Value> {
        let raw = &self.given.get(key.file_name)?.raw;
        let read = match raw {
            // The likeliest mistake with such a key would otherwise print the secret as a path that is not there.
            Raw::Word(_) | Raw::Text(_) if rule.read(raw).is_ok() || may_be_a_secret(raw) => {
                Err("must be the path of a file, not the secret itself".to_owned())
            }
            Raw::Word(path) | Raw::Text(path) => read_secret(Path::new(path)).and_then(|content| {
                rule.read(&Raw::Word(content))
                    .map_err(|problem| format!("names a file whose content {problem}"))
            }),
            _ => Err("must be the path of a file".to_owned()),
        };
        self.value_or_complaint(key.file_name, read)
    }

    fn value_or_complaint<T>(&mut self, name: &'static str, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| self.complain(name, problem)).ok()
    }

    // A variable beats the file in either form, so that a container can replace what an image brings along.
    fn strongest(&self, key: &Key) -> Source {
        let rank = |name: &str| {
            self.given.get(name).map(|given| match given.place {
                Place::Absent => 0,
                Place::File { .. } => 1,
                Place::Variable(_) => 2,
                Place::CommandLine => 3,
            })
        };
        match (rank(key.name), rank(key.file_name)) {
            (None, None) => Source::Nothing,
            (inline, file) if inline > file => Source::Inline,
            (inline, file) if file > inline => Source::File,
            _ => Source::Twice,
        }
    }

    fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn complain(&mut self, name: &'static str, problem: String) {
        let (place, value) = match self.given.get(name) {
            Some(given) => (given.place.clone(), shown_of(name, &given.raw)),
            None => (Place::Absent, "(default)".to_owned()),
        };
        self.findings.push(Finding {
            place,
            key: Some(name.to_owned()),
            value: Some(value),
            problem,
        });
    }

    fn missing(&mut self, name: &'static str, problem: String) {
        // It may well stand in the part of the file that could not be read.
        if !self.incomplete {
            self.findings.push(Finding {
                place: Place::Absent,
                key: Some(name.to_owned()),
                value: None,
                problem,
            });
        }
    }
}

enum Source {
    Nothing,
    Inline,
    File,
    Twice,
}

/// A value as it may be shown: a secret never, and the place of its file only if it is one.
fn shown_of(name: &str, raw: &Raw) -> String {
    let is_secret = KEYS.iter().any(|key| {
        key.secret && (key.name == name || (key.file_name == name && may_be_a_secret(raw)))
    });
    if is_secret {
        HIDDEN.to_owned()
    } else {
        raw.show()
    }
}

fn find(name: &'static str) -> &'static Key {
    KEYS.iter()
        .find(|key| key.name == name)
        .expect("the macro declares each key that it reads")
}

fn default_of<R: Rule>(name: &'static str, rule: &R) -> R::Value {
    let Some(raw) = find(name).default() else {
        unreachable!("the macro reads a key as it declares it");
    };
    rule.read(&raw)
        .unwrap_or_else(|problem| unreachable!("a test reads every default, but {name} {problem}"))
}

fn how_to_set(name: &'static str, secret: bool) -> String {
    let variable = sources::variable_name(name);
    let file = if secret {
        format!(", {name}_file or {variable}_FILE")
    } else {
        String::new()
    };
    format!("set {name} in the file or {variable}{file}")
}
