//! People, apps, scopes and groups as a file describes them: what `apply` reads and `export` writes, and what a development
//! server begins with.
//!
//! A file is understood whole before anything is written, every mistake in it is listed, and all of it is written in one
//! transaction. Applying it twice is the same as applying it once.

mod development;
mod export;
mod secret_hash;
mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use self::development::DevApp;
pub(crate) use self::development::development;
pub use self::export::{export, metadata_of};
use crate::config::Config;
use crate::identity::email::Email;
use crate::identity::group::{self, Group};
use crate::identity::password::{self, Password};
use crate::protocol::claims;
use crate::protocol::client::{Client, ClientId, ClientMetadata};
use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS};
use crate::protocol::known_scopes::{DefinedScope, KnownScopes};
use crate::store::StoreError;

const LISTS: &[&str] = &["users", "clients", "scopes", "groups"];
const USER_FIELDS: &[&str] = &[
    "sub",
    "email",
    "password",
    "password_hash",
    "email_verified",
    "admin",
    "disabled",
    "groups",
    "claims",
];
const CLIENT_FIELDS: &[&str] = &[
    "client_id",
    "client_secret",
    "client_secret_hashes",
    "client_name",
    "client_uri",
    "policy_uri",
    "tos_uri",
    "application_type",
    "redirect_uris",
    "post_logout_redirect_uris",
    "response_types",
    "grant_types",
    "token_endpoint_auth_method",
    "token_endpoint_auth_signing_alg",
    "jwks",
    "id_token_signed_response_alg",
    "default_max_age",
    "default_acr_values",
    "scope",
    "require_pkce",
    "skip_consent",
    "access_token_format",
    "allowed_cors_origins",
    "allowed_resources",
    "protected_resources",
    "claims_in_id_token",
    "session_refresh_tokens",
    "refresh_retry_window",
    "tokens",
];

const SCOPE_FIELDS: &[&str] = &["name", "description", "claims"];
const GROUP_FIELDS: &[&str] = &["name", "description", "members"];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    Json,
}

/// A person, as a file describes them.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// Their id, if they are to keep one from elsewhere.
    pub sub: Option<String>,
    pub email: String,
    pub password: Option<String>,
    pub password_hash: Option<String>,
    pub email_verified: Option<bool>,
    pub admin: Option<bool>,
    pub disabled: Option<bool>,
    pub groups: Option<Vec<String>>,
    pub claims: Option<Map<String, Value>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    name: String,
    description: Option<String>,
    /// The e-mails of everybody who is in it; who is not named leaves it.
    members: Option<Vec<String>>,
}

/// A file that was understood: every value in it is good.
#[derive(Default)]
pub struct Seed {
    users: Vec<CheckedUser>,
    clients: Vec<CheckedClient>,
    scopes: Vec<DefinedScope>,
    groups: Vec<CheckedGroup>,
    known: Known,
}

/// What becomes of people and apps that are there already.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Updated,
    /// They are not touched, and neither is anything else.
    OnlyNew,
}

struct CheckedUser {
    place: String,
    email: Email,
    secret: Option<UserSecret>,
    entry: UserEntry,
    claims: Option<Map<String, Value>>,
}

enum UserSecret {
    Password(Password),
    Hash(String),
}

struct CheckedClient {
    place: String,
    client: Client,
    secret: FileSecret,
}

/// What a file says of a client's secret.
enum FileSecret {
    /// Nothing: one is made for a new client.
    Unsaid,
    Plain(String),
    /// All that the file manages, as hashes.
    Hashes(Vec<ClientSecret>),
}

struct CheckedGroup {
    place: String,
    group: Group,
    members: Option<Vec<Email>>,
}

/// What an application changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    /// What came from a file once and is in it no more.
    pub deleted: Vec<String>,
    pub unchanged: usize,
    /// What is different about each of the updated, field by field; secrets are only said to be other ones.
    pub differences: BTreeMap<String, Vec<String>>,
    /// Secrets that were made now: client id and secret, to be shown this once.
    pub new_secrets: Vec<(String, String)>,
}

/// How far an application goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Who came from a file once and is in it no more goes.
    pub prune: bool,
    /// Everything is done and then taken back.
    pub dry_run: bool,
}

/// Why a file was not applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{}", .0.join("\n"))]
    Mistakes(Vec<String>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("password hashing: {0}")]
    Hashing(#[from] password::HashError),
    #[error("{0} has an account already")]
    Exists(String),
    #[error("the client {0} exists already")]
    ClientExists(ClientId),
    #[error("the client {0} has {MOST_SECRETS} secrets beside the file's; revoke one first")]
    TooManySecrets(ClientId),
    #[error("the same people are being changed by somebody else; try again")]
    Busy,
}

impl Seed {
    /// Understands a file, or lists everything that is wrong with it.
    pub fn parse(text: &str, format: Format, config: &Config) -> Result<Self, SeedError> {
        Self::parse_beside(text, format, config, Vec::new())
    }

    /// The same where scopes are defined already.
    pub fn parse_beside(
        text: &str,
        format: Format,
        config: &Config,
        defined: Vec<DefinedScope>,
    ) -> Result<Self, SeedError> {
        let root: Value = match format {
            Format::Toml => toml::from_str(text)
                .map_err(|error| SeedError::Mistakes(vec![error.to_string().trim().to_owned()]))?,
            Format::Json => serde_json::from_str(text)
                .map_err(|error| SeedError::Mistakes(vec![error.to_string()]))?,
        };
        let Some(root) = root.as_object() else {
            return Err(SeedError::Mistakes(vec![format!(
                "the file is not an object with the lists {}",
                LISTS.join(", ")
            )]));
        };
        let mut mistakes = Vec::new();
        for key in root.keys().filter(|key| !LISTS.contains(&key.as_str())) {
            mistakes.push(format!(
                "{key}: is not known; a file has the lists {}",
                LISTS.join(", ")
            ));
        }
        let entries = Entries {
            users: entries(root, "users", USER_FIELDS, &mut mistakes),
            clients: entries(root, "clients", CLIENT_FIELDS, &mut mistakes),
            scopes: entries(root, "scopes", SCOPE_FIELDS, &mut mistakes),
            groups: entries(root, "groups", GROUP_FIELDS, &mut mistakes),
        };
        let seed = Self::check(entries, config, defined, &mut mistakes);
        if mistakes.is_empty() {
            Ok(seed)
        } else {
            Err(SeedError::Mistakes(mistakes))
        }
    }

    /// One person, who is not there yet.
    pub fn of_new_user(entry: UserEntry, config: &Config) -> Result<Self, SeedError> {
        let entries = Entries {
            users: vec![("user".to_owned(), entry)],
            ..Entries::default()
        };
        Self::of_new(entries, config, Vec::new())
    }

    /// One app, which is not there yet, where these scopes are defined.
    pub fn of_new_client(
        metadata: ClientMetadata,
        config: &Config,
        defined: Vec<DefinedScope>,
    ) -> Result<Self, SeedError> {
        let entries = Entries {
            clients: vec![("client".to_owned(), metadata)],
            ..Entries::default()
        };
        Self::of_new(entries, config, defined)
    }

    fn of_new(
        entries: Entries,
        config: &Config,
        defined: Vec<DefinedScope>,
    ) -> Result<Self, SeedError> {
        let mut mistakes = Vec::new();
        let mut seed = Self::check(entries, config, defined, &mut mistakes);
        seed.known = Known::OnlyNew;
        if mistakes.is_empty() {
            Ok(seed)
        } else {
            Err(SeedError::Mistakes(mistakes))
        }
    }

    fn check(
        entries: Entries,
        config: &Config,
        defined: Vec<DefinedScope>,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let mut seed = Self::default();
        for (place, scope) in entries.scopes {
            if seed.scopes.iter().any(|other| other.name == scope.name) {
                mistakes.push(twice(&place, "name", &scope.name));
            }
            mistakes.extend(located(&place, scope.problems()));
            seed.scopes.push(scope);
        }
        let known: KnownScopes = defined.into_iter().chain(seed.scopes.clone()).collect();
        for (place, entry) in entries.users {
            let Some(user) = check_user(place, entry, config, mistakes) else {
                continue;
            };
            let key = user.email.key();
            if seed.users.iter().any(|other| other.email.key() == key) {
                mistakes.push(twice(&user.place, "email", user.email.display()));
            }
            let sub = &user.entry.sub;
            if sub.is_some() && seed.users.iter().any(|other| other.entry.sub == *sub) {
                mistakes.push(twice(
                    &user.place,
                    "sub",
                    sub.as_deref().unwrap_or_default(),
                ));
            }
            seed.users.push(user);
        }
        for (place, entry) in entries.groups {
            let Some(group) = check_group(place, entry, &seed.users, mistakes) else {
                continue;
            };
            let name = &group.group.name;
            if seed.groups.iter().any(|other| other.group.name == *name) {
                mistakes.push(twice(&group.place, "name", name));
            }
            seed.groups.push(group);
        }
        for (place, metadata) in entries.clients {
            let Some(app) = check_client(place, &metadata, config, &known, mistakes) else {
                continue;
            };
            let id = &app.client.client_id;
            if seed
                .clients
                .iter()
                .any(|other| other.client.client_id == *id)
            {
                mistakes.push(twice(&app.place, "client_id", id.as_str()));
            }
            seed.clients.push(app);
        }
        seed
    }
}

#[derive(Default)]
struct Entries {
    users: Vec<(String, UserEntry)>,
    clients: Vec<(String, ClientMetadata)>,
    scopes: Vec<(String, DefinedScope)>,
    groups: Vec<(String, GroupEntry)>,
}

fn twice(place: &str, field: &str, value: &str) -> String {
    format!("{place}.{field}: {value:?} is in the file twice")
}

fn located<T: std::fmt::Display>(place: &str, problems: Vec<T>) -> Vec<String> {
    let problems = problems.into_iter();
    problems
        .map(|problem| format!("{place}.{problem}"))
        .collect()
}

/// Reads a list entry by entry, so that one bad entry hides no other.
fn entries<T: DeserializeOwned>(
    root: &Map<String, Value>,
    list: &str,
    fields: &[&str],
    mistakes: &mut Vec<String>,
) -> Vec<(String, T)> {
    let values = match root.get(list) {
        None => return Vec::new(),
        Some(Value::Array(values)) => values,
        Some(_) => {
            mistakes.push(format!("{list}: is a list ([[{list}]] in TOML)"));
            return Vec::new();
        }
    };
    let mut read = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let Some(object) = value.as_object() else {
            mistakes.push(format!("{place}: is not an object"));
            continue;
        };
        let mut known = object.clone();
        for key in object.keys().filter(|key| !fields.contains(&key.as_str())) {
            known.remove(key);
            let nearest = fields.iter().max_by(|a, b| {
                strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key))
            });
            mistakes.push(format!(
                "{place}.{key}: is not known; did you mean {}?",
                nearest.copied().unwrap_or_default()
            ));
        }
        match serde_json::from_value(Value::Object(known)) {
            Ok(entry) => read.push((place, entry)),
            Err(error) => mistakes.push(format!("{place}: {error}")),
        }
    }
    read
}

fn check_user(
    place: String,
    entry: UserEntry,
    config: &Config,
    mistakes: &mut Vec<String>,
) -> Option<CheckedUser> {
    let before = mistakes.len();
    let email = entry
        .email
        .parse::<Email>()
        .map_err(|problem| mistakes.push(format!("{place}.email: {problem}")))
        .ok();
    let claims = match entry.claims.as_ref().map(claims::check_attributes) {
        None => None,
        Some(Ok(claims)) => Some(claims),
        Some(Err(problems)) => {
            mistakes.extend(located(&place, problems));
            None
        }
    };
    if let Some(sub) = &entry.sub
        && !((1..=255).contains(&sub.len()) && sub.chars().all(|c| c.is_ascii_graphic()))
    {
        mistakes.push(format!(
            "{place}.sub: is 1 to 255 printable ASCII characters without spaces"
        ));
    }
    for name in entry.groups.iter().flatten() {
        if !group::is_name(name) {
            mistakes.push(format!("{place}.groups: {}", group::NAME_RULE));
        }
    }
    let secret = match (&entry.password, &entry.password_hash) {
        (Some(_), Some(_)) => {
            mistakes.push(format!(
                "{place}: has password and password_hash; one is enough"
            ));
            None
        }
        (Some(typed), None) => {
            let policy = config.password.policy();
            let name = claims
                .as_ref()
                .and_then(|claims| claims.get("name"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let judged = Password::parse(typed).and_then(|password| {
                policy
                    .judge(&password, &[&entry.email, name])
                    .map(|()| password)
            });
            judged
                .map_err(|problem| mistakes.push(format!("{place}.password: {problem}")))
                .ok()
                .map(UserSecret::Password)
        }
        (None, Some(hash)) => match password::check_stored(hash) {
            Ok(()) => Some(UserSecret::Hash(hash.clone())),
            Err(problem) => {
                mistakes.push(format!("{place}.password_hash: {problem}"));
                None
            }
        },
        (None, None) => None,
    };
    let email = email.filter(|_| mistakes.len() == before)?;
    Some(CheckedUser {
        place,
        email,
        secret,
        entry,
        claims,
    })
}

/// Members are told in one place or in both alike: else it would count which is read last.
fn check_group(
    place: String,
    entry: GroupEntry,
    users: &[CheckedUser],
    mistakes: &mut Vec<String>,
) -> Option<CheckedGroup> {
    let before = mistakes.len();
    let group = Group {
        name: entry.name,
        description: entry.description,
    };
    mistakes.extend(located(&place, group.problems()));
    let mut members = Vec::new();
    for (index, member) in entry.members.iter().flatten().enumerate() {
        match member.parse::<Email>() {
            Ok(email) => members.push(email),
            Err(problem) => mistakes.push(format!("{place}.members[{index}]: {problem}")),
        }
    }
    let members = entry.members.map(|_checked| members);
    for user in users {
        let (Some(members), Some(groups)) = (&members, &user.entry.groups) else {
            continue;
        };
        let key = user.email.key();
        let is_member = members.iter().any(|member| member.key() == key);
        if is_member != groups.contains(&group.name) {
            mistakes.push(format!(
                "{place}.members: says something else than {}.groups",
                user.place
            ));
        }
    }
    (mistakes.len() == before).then_some(CheckedGroup {
        place,
        group,
        members,
    })
}

fn check_client(
    place: String,
    metadata: &ClientMetadata,
    config: &Config,
    known: &KnownScopes,
    mistakes: &mut Vec<String>,
) -> Option<CheckedClient> {
    let Some(id) = &metadata.client_id else {
        mistakes.push(format!("{place}.client_id: is missing"));
        return None;
    };
    let secret = match (&metadata.client_secret, &metadata.client_secret_hashes) {
        (Some(_), Some(_)) => {
            mistakes.push(format!(
                "{place}: has client_secret and client_secret_hashes; one is enough"
            ));
            None
        }
        (Some(secret), None) => Some(FileSecret::Plain(secret.clone())),
        (None, Some(hashes)) => match secret_hash::read(hashes) {
            Ok(secrets) => Some(FileSecret::Hashes(secrets)),
            Err(problems) => {
                mistakes.extend(located(&place, problems));
                None
            }
        },
        (None, None) => Some(FileSecret::Unsaid),
    };
    let client = match metadata.check(ClientId::from_request(id), known) {
        Ok(client) => client,
        Err(problems) => {
            mistakes.extend(located(&place, problems));
            return None;
        }
    };
    let algorithm = client.id_token_signed_response_alg;
    if !config.keys.algorithms.contains(&algorithm) {
        mistakes.push(format!(
            "{place}.id_token_signed_response_alg: {algorithm} is not among keys.algorithms"
        ));
    }
    Some(CheckedClient {
        place,
        client,
        secret: secret?,
    })
}

impl Summary {
    /// Whether anything is not as it was.
    pub fn is_change(&self) -> bool {
        ![&self.created, &self.updated, &self.deleted]
            .iter()
            .all(|names| names.is_empty())
    }

    /// For people: a line a change.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let changes = [
            ("created", &self.created),
            ("updated", &self.updated),
            ("deleted", &self.deleted),
        ];
        for (verb, names) in changes {
            for name in names {
                let _infallible = writeln!(text, "{verb} {name}");
                for different in self.differences.get(name).into_iter().flatten() {
                    let _infallible = writeln!(text, "    {different}");
                }
            }
        }
        let _infallible = writeln!(text, "{} unchanged", self.unchanged);
        text
    }
}
