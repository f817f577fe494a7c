//! People and apps from a file: what `apply` does, and what a development server begins with.
//!
//! A file is understood whole before anything is written, every mistake in it is listed, and all of it is written in one
//! transaction. Applying it twice is the same as applying it once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::audit::{Event, Kind, Trail};
use crate::config::Config;
use crate::identity::email::Email;
use crate::identity::password::{self, HashSettings, Password};
use crate::identity::user::User;
use crate::protocol::claims;
use crate::protocol::client::{Client, ClientId, ClientMetadata};
use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS};
use crate::protocol::seal::{RootKey, TokenHash, mac};
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::{
    AnyConnection, Store, StoreError, audit_events, client_secrets, clients, grants, sessions,
    users,
};

const USER_FIELDS: &[&str] = &[
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
    pub email: String,
    pub password: Option<String>,
    pub password_hash: Option<String>,
    pub email_verified: Option<bool>,
    pub admin: Option<bool>,
    pub disabled: Option<bool>,
    pub groups: Option<Vec<String>>,
    pub claims: Option<Map<String, Value>>,
}

/// A file that was understood: every value in it is good.
#[derive(Default)]
pub struct Seed {
    users: Vec<CheckedUser>,
    clients: Vec<CheckedClient>,
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
    client: Client,
    secret: Option<String>,
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

/// Who changes the same people meanwhile makes us look again; more often than this it is not chance.
const ATTEMPTS: usize = 5;

impl Seed {
    /// Understands a file, or lists everything that is wrong with it.
    pub fn parse(text: &str, format: Format, config: &Config) -> Result<Self, SeedError> {
        let root: Value = match format {
            Format::Toml => toml::from_str(text)
                .map_err(|error| SeedError::Mistakes(vec![error.to_string().trim().to_owned()]))?,
            Format::Json => serde_json::from_str(text)
                .map_err(|error| SeedError::Mistakes(vec![error.to_string()]))?,
        };
        let Some(root) = root.as_object() else {
            return Err(SeedError::Mistakes(vec![
                "the file is not an object with the lists users and clients".to_owned(),
            ]));
        };
        let mut mistakes = Vec::new();
        for key in root
            .keys()
            .filter(|key| !["users", "clients"].contains(&key.as_str()))
        {
            mistakes.push(format!("{key}: is not known; a file has users and clients"));
        }
        let users = entries::<UserEntry>(root, "users", USER_FIELDS, &mut mistakes);
        let clients = entries::<ClientMetadata>(root, "clients", CLIENT_FIELDS, &mut mistakes);
        let seed = Self::check(users, clients, config, &mut mistakes);
        if mistakes.is_empty() {
            Ok(seed)
        } else {
            Err(SeedError::Mistakes(mistakes))
        }
    }

    /// One person, who is not there yet.
    pub fn of_new_user(entry: UserEntry, config: &Config) -> Result<Self, SeedError> {
        let mut mistakes = Vec::new();
        let mut seed = Self::check(
            vec![("user".to_owned(), entry)],
            Vec::new(),
            config,
            &mut mistakes,
        );
        seed.known = Known::OnlyNew;
        if mistakes.is_empty() {
            Ok(seed)
        } else {
            Err(SeedError::Mistakes(mistakes))
        }
    }

    /// One app, which is not there yet.
    pub fn of_new_client(metadata: ClientMetadata, config: &Config) -> Result<Self, SeedError> {
        let mut mistakes = Vec::new();
        let mut seed = Self::check(
            Vec::new(),
            vec![("client".to_owned(), metadata)],
            config,
            &mut mistakes,
        );
        seed.known = Known::OnlyNew;
        if mistakes.is_empty() {
            Ok(seed)
        } else {
            Err(SeedError::Mistakes(mistakes))
        }
    }

    fn check(
        users: Vec<(String, UserEntry)>,
        clients: Vec<(String, ClientMetadata)>,
        config: &Config,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let mut seed = Self::default();
        for (place, entry) in users {
            if let Some(user) = check_user(&place, entry, config, mistakes) {
                if seed
                    .users
                    .iter()
                    .any(|other| other.email.key() == user.email.key())
                {
                    mistakes.push(format!(
                        "{place}.email: {:?} is in the file twice",
                        user.email.display()
                    ));
                }
                seed.users.push(user);
            }
        }
        for (place, metadata) in clients {
            let Some(id) = &metadata.client_id else {
                mistakes.push(format!("{place}.client_id: is missing"));
                continue;
            };
            match metadata.check(ClientId::from_request(id)) {
                Ok(client) => {
                    if seed
                        .clients
                        .iter()
                        .any(|other| other.client.client_id == client.client_id)
                    {
                        mistakes.push(format!("{place}.client_id: {id:?} is in the file twice"));
                    }
                    if !config
                        .keys
                        .algorithms
                        .contains(&client.id_token_signed_response_alg)
                    {
                        let algorithm = client.id_token_signed_response_alg;
                        mistakes.push(format!("{place}.id_token_signed_response_alg: {algorithm} is not among keys.algorithms"));
                    }
                    seed.clients.push(CheckedClient {
                        client,
                        secret: metadata.client_secret.clone(),
                    });
                }
                Err(problems) => mistakes.extend(
                    problems
                        .into_iter()
                        .map(|problem| format!("{place}.{problem}")),
                ),
            }
        }
        seed
    }

    /// Writes everything.
    pub fn apply(
        self,
        store: &Store,
        config: &Config,
        now: Timestamp,
    ) -> Result<Summary, SeedError> {
        self.apply_with(store, config, Extent::default(), now)
    }

    /// Writes everything in one transaction. Hashes are made before it, since argon2 has no place inside one.
    pub fn apply_with(
        self,
        store: &Store,
        config: &Config,
        extent: Extent,
        now: Timestamp,
    ) -> Result<Summary, SeedError> {
        let settings = config.password.hash_settings()?;
        let seed = Arc::new(self);
        let trail = Trail::of_command(now);
        for _ in 0..ATTEMPTS {
            let judged: Vec<_> = seed
                .users
                .iter()
                .map(|user| judge_hash(user, store, &settings))
                .collect::<Result<_, _>>()?;
            let fresh: Vec<_> = seed
                .clients
                .iter()
                .map(|_| (random::id(), random::token()))
                .collect();
            let written = {
                let (seed, trail) = (seed.clone(), trail.clone());
                let work = move |tx: &mut AnyConnection| {
                    write(tx, &seed, &judged, &fresh, extent.prune, &trail)
                };
                if extent.dry_run {
                    rehearse(store, work)
                } else {
                    store.write_blocking(work)
                }
            };
            match written {
                Ok(Written::Done(summary)) => return Ok(summary),
                Ok(Written::Exists(email)) => return Err(SeedError::Exists(email)),
                Ok(Written::ClientExists(id)) => return Err(SeedError::ClientExists(id)),
                Ok(Written::TooManySecrets(id)) => return Err(SeedError::TooManySecrets(id)),
                Ok(Written::Moved) => {}
                // Somebody else has just added one of them.
                Err(error) if error.is_duplicate() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SeedError::Busy)
    }
}

/// Does the work and takes all of it back: what it would do is then no guess.
fn rehearse(
    store: &Store,
    mut work: impl FnMut(&mut AnyConnection) -> Result<Written, StoreError> + Send + 'static,
) -> Result<Written, StoreError> {
    let (told, outcome) = mpsc::channel();
    let taken_back = store.write_blocking(move |tx| {
        // Whoever asked waits for it.
        let _heard = told.send(work(tx));
        Err::<Written, _>(StoreError::fault("a rehearsal is not written"))
    });
    match outcome.try_iter().last() {
        Some(outcome) => outcome,
        None => taken_back,
    }
}

/// How a transaction ended.
enum Written {
    Done(Summary),
    /// Nothing was written: somebody has this address, and was not to be changed.
    Exists(String),
    /// Nothing was written: there is such an app, and it was not to be changed.
    ClientExists(ClientId),
    /// Nothing was written: the file's secret would be one too many.
    TooManySecrets(ClientId),
    /// Nothing was written: a password was changed after it had been compared with the file's.
    Moved,
}

/// The hash that a person had, and the one that the file's password asks for.
struct JudgedHash {
    before: Option<String>,
    after: Option<String>,
}

/// A password that is right already keeps its hash, so that applying a file twice changes nothing.
fn judge_hash(
    checked: &CheckedUser,
    store: &Store,
    settings: &HashSettings,
) -> Result<JudgedHash, SeedError> {
    let key = checked.email.key().to_owned();
    let before = store
        .read_blocking(move |conn| users::find_by_email(conn, &key))?
        .and_then(|user| user.password_hash);
    let after = match &checked.secret {
        None => None,
        Some(UserSecret::Hash(hash)) => Some(hash.clone()),
        Some(UserSecret::Password(password)) => {
            let unchanged = match &before {
                Some(hash) => password::verify(password, hash, settings)?.matches,
                None => false,
            };
            if unchanged {
                before.clone()
            } else {
                Some(password::hash(password, random::bytes(), settings)?)
            }
        }
    };
    Ok(JudgedHash { before, after })
}

fn write(
    tx: &mut AnyConnection,
    seed: &Seed,
    judged: &[JudgedHash],
    fresh: &[(String, String)],
    prune: bool,
    trail: &Trail,
) -> Result<Written, StoreError> {
    let now = trail.now;
    // One order for everybody, or two files with the same people could lock each other out.
    let keys: BTreeSet<&str> = seed.users.iter().map(|user| user.email.key()).collect();
    let mut people = BTreeMap::new();
    for key in keys {
        if let Some(found) = users::find_by_email(tx, key)?
            && let Some(user) = users::find_locked(tx, &found.id)?
        {
            people.insert(key, user);
        }
    }
    for (checked, judged) in seed.users.iter().zip(judged) {
        let earlier = people.get(checked.email.key());
        if earlier.is_some() && seed.known == Known::OnlyNew {
            return Ok(Written::Exists(checked.email.display().to_owned()));
        }
        let hash = earlier.and_then(|user| user.password_hash.as_ref());
        if matches!(checked.secret, Some(UserSecret::Password(_))) && hash != judged.before.as_ref()
        {
            return Ok(Written::Moved);
        }
    }
    for app in &seed.clients {
        let id = &app.client.client_id;
        if let Some(secret) = &app.secret
            && !client_secrets::has_room_for(tx, id, &TokenHash::of(secret), now)?
        {
            return Ok(Written::TooManySecrets(id.clone()));
        }
    }
    let by_file = seed.known == Known::Updated;
    let mut summary = Summary::default();
    for (checked, judged) in seed.users.iter().zip(judged) {
        let earlier = people.get(checked.email.key());
        let id = put_user(tx, checked, judged, earlier, trail, &mut summary)?;
        if by_file {
            users::note_managed(tx, &id)?;
        }
    }
    for (app, (row_id, fresh_secret)) in seed.clients.iter().zip(fresh) {
        let is_new = clients::insert(tx, &app.client, now)?;
        if !is_new && seed.known == Known::OnlyNew {
            // Nothing stands before it: a seed that only adds has one entry.
            return Ok(Written::ClientExists(app.client.client_id.clone()));
        }
        let secret = app.secret.as_ref().unwrap_or(fresh_secret);
        let secret = ClientSecret::new(row_id, secret, now);
        let made = put_client(tx, app, is_new, &secret, trail, &mut summary)?;
        if by_file {
            clients::note_managed(tx, &app.client.client_id)?;
        }
        if made {
            let shown = (app.client.client_id.to_string(), fresh_secret.clone());
            summary.new_secrets.push(shown);
        }
    }
    if prune {
        delete_unnamed(tx, seed, trail, &mut summary)?;
    }
    Ok(Written::Done(summary))
}

/// Removes who came from a file once and is in this one no more. Nobody who came another way is touched.
fn delete_unnamed(
    tx: &mut AnyConnection,
    seed: &Seed,
    trail: &Trail,
    summary: &mut Summary,
) -> Result<(), StoreError> {
    for user in users::managed(tx)? {
        let is_named = |named: &CheckedUser| named.email.key() == user.email_key;
        if !seed.users.iter().any(is_named) {
            users::delete(tx, &user.id)?;
            let event = Event::new(Kind::UserDeleted).target(&user.id);
            audit_events::record(tx, trail, &event)?;
            summary.deleted.push(format!("user {}", user.email));
        }
    }
    for id in clients::managed(tx)? {
        let is_named = |named: &CheckedClient| named.client.client_id == id;
        if !seed.clients.iter().any(is_named) {
            clients::delete(tx, &id)?;
            audit_events::record(tx, trail, &Event::of_client(Kind::ClientDeleted, &id))?;
            summary.deleted.push(format!("client {id}"));
        }
    }
    Ok(())
}

/// What is different, field by field, in the words of a file.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else {
        return Vec::new();
    };
    let nothing = Value::Null;
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let old = before.get(name).unwrap_or(&nothing);
            let new = after.get(name).unwrap_or(&nothing);
            (old != new).then(|| format!("{name}: {old} -> {new}"))
        })
        .collect()
}

/// What a file can say of a person, without the secret.
fn told_of(user: &User) -> Value {
    serde_json::json!({
        "email": user.email,
        "email_verified": user.email_verified,
        "admin": user.admin,
        "disabled": user.disabled,
        "groups": user.groups,
        "claims": user.claims,
    })
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
    place: &str,
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
            mistakes.extend(
                problems
                    .into_iter()
                    .map(|problem| format!("{place}.{problem}")),
            );
            None
        }
    };
    for group in entry.groups.iter().flatten() {
        if group.is_empty() || group.len() > 200 || group.chars().any(char::is_control) {
            mistakes.push(format!(
                "{place}.groups: a group's name is a text of one line, at most 200 bytes"
            ));
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
        email,
        secret,
        entry,
        claims,
    })
}

/// Only what the file names is written over what the row holds now.
fn put_user(
    tx: &mut AnyConnection,
    checked: &CheckedUser,
    judged: &JudgedHash,
    earlier: Option<&User>,
    trail: &Trail,
    summary: &mut Summary,
) -> Result<String, StoreError> {
    let now = trail.now;
    let base = earlier.cloned().unwrap_or_else(|| User {
        id: random::id(),
        email: String::new(),
        email_key: String::new(),
        email_verified: false,
        password_hash: None,
        admin: false,
        disabled: false,
        groups: Vec::new(),
        claims: Map::new(),
        created_at: now,
        updated_at: now,
    });
    let entry = &checked.entry;
    let mut user = User {
        email: checked.email.display().to_owned(),
        email_key: checked.email.key().to_owned(),
        email_verified: entry.email_verified.unwrap_or(base.email_verified),
        password_hash: judged.after.clone().or(base.password_hash),
        admin: entry.admin.unwrap_or(base.admin),
        disabled: entry.disabled.unwrap_or(base.disabled),
        groups: entry.groups.clone().unwrap_or(base.groups),
        claims: checked.claims.clone().unwrap_or(base.claims),
        ..base
    };
    match earlier {
        None => {
            users::insert(tx, &user)?;
            let event = Event::new(Kind::UserCreated).target(&user.id);
            audit_events::record(tx, trail, &event)?;
            summary.created.push(format!("user {}", user.email));
        }
        Some(earlier) if *earlier == user => summary.unchanged += 1,
        Some(earlier) => {
            user.updated_at = now;
            users::update(tx, &user)?;
            for kind in changes(earlier, &user) {
                audit_events::record(tx, trail, &Event::new(kind).target(&user.id))?;
            }
            if user.disabled || earlier.password_hash != user.password_hash {
                sessions::end_all(tx, &user.id, now)?;
                grants::revoke_user(tx, &user.id, now)?;
            }
            let name = format!("user {}", user.email);
            let mut different = differences(&told_of(earlier), &told_of(&user));
            if earlier.password_hash != user.password_hash {
                different.push("password: another one".to_owned());
            }
            summary.differences.insert(name.clone(), different);
            summary.updated.push(name);
        }
    }
    Ok(user.id)
}

/// What a change of a person amounts to.
fn changes(earlier: &User, user: &User) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if earlier.disabled != user.disabled {
        let switched = [Kind::UserEnabled, Kind::UserDisabled];
        kinds.extend(switched.get(usize::from(user.disabled)));
    }
    if earlier.password_hash != user.password_hash {
        kinds.push(Kind::PasswordChanged);
    }
    let otherwise = User {
        disabled: earlier.disabled,
        password_hash: earlier.password_hash.clone(),
        updated_at: earlier.updated_at,
        ..user.clone()
    };
    if otherwise != *earlier {
        kinds.push(Kind::UserUpdated);
    }
    kinds
}

/// Answers whether the secret was made for it just now.
fn put_client(
    tx: &mut AnyConnection,
    app: &CheckedClient,
    is_new: bool,
    secret: &ClientSecret,
    trail: &Trail,
    summary: &mut Summary,
) -> Result<bool, StoreError> {
    let (id, now) = (&app.client.client_id, trail.now);
    let earlier = if is_new { None } else { clients::find(tx, id)? };
    let is_same = is_new || earlier.as_ref() == Some(&app.client);
    if !is_same {
        clients::put(tx, &app.client, now)?;
    }
    let before = earlier
        .as_ref()
        .and_then(|earlier| serde_json::to_value(earlier).ok());
    // A client that had one before may have lost its last on purpose, so it gets none unasked.
    let needs_one = is_new || earlier.is_some_and(|earlier| !earlier.has_secret());
    let (secret_changed, made) = if !app.client.has_secret() {
        (client_secrets::remove_all(tx, id)?, false)
    } else if app.secret.is_some() {
        (client_secrets::put_from_file(tx, id, secret, now)?, false)
    } else if needs_one {
        client_secrets::insert(tx, id, secret, now)?;
        (true, true)
    } else {
        (false, false)
    };
    let of_client = |kind| Event::of_client(kind, id);
    if is_new {
        audit_events::record(tx, trail, &of_client(Kind::ClientCreated))?;
    } else if !is_same {
        audit_events::record(tx, trail, &of_client(Kind::ClientUpdated))?;
    }
    if secret_changed && app.client.has_secret() {
        let added = of_client(Kind::ClientSecretAdded).noting("from_file", app.secret.is_some());
        audit_events::record(tx, trail, &added)?;
    }
    if is_new {
        summary.created.push(format!("client {id}"));
    } else if is_same && !secret_changed {
        summary.unchanged += 1;
    } else {
        let name = format!("client {id}");
        let before = before.unwrap_or_default();
        let after = serde_json::to_value(&app.client).unwrap_or_default();
        let mut different = differences(&before, &after);
        if secret_changed {
            different.push("client_secret: another one".to_owned());
        }
        summary.differences.insert(name.clone(), different);
        summary.updated.push(name);
    }
    Ok(made)
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

/// The built-in relying party's own credentials.
#[derive(Clone)]
pub struct DevApp {
    pub client_id: String,
    pub client_secret: String,
    /// The secret of `demo-web`, which the start prints.
    pub demo_secret: String,
}

/// The people and apps of a development server. Secrets follow from its key, so that they are the same after a restart.
pub(crate) fn development(
    store: &Store,
    root: &RootKey,
    config: &Config,
    now: Timestamp,
) -> Result<DevApp, SeedError> {
    let secret_of =
        |client: &str| URL_SAFE_NO_PAD.encode(mac(root, "development client", client.as_bytes()));
    let (web_secret, app_secret) = (secret_of("demo-web"), secret_of("dev-app"));
    let text = serde_json::json!({
        "users": [
            {
                "email": "alice@example.test", "password": "correct-horse-battery", "email_verified": true, "groups": ["members"],
                "claims": { "name": "Alice Archer", "given_name": "Alice", "family_name": "Archer", "locale": "en-GB" }
            },
            {
                "email": "admin@example.test", "password": "battery-staple-correct", "email_verified": true, "admin": true,
                "groups": ["admins", "members"], "claims": { "name": "Ada Admin" }
            }
        ],
        "clients": [
            {
                "client_id": "demo-web", "client_name": "Demo web app", "client_secret": web_secret,
                "redirect_uris": ["http://localhost:3000/callback"], "post_logout_redirect_uris": ["http://localhost:3000/"]
            },
            {
                "client_id": "demo-spa", "client_name": "Demo single-page app", "token_endpoint_auth_method": "none",
                "redirect_uris": ["http://localhost:5173/callback"], "post_logout_redirect_uris": ["http://localhost:5173/"],
                "allowed_cors_origins": ["http://localhost:5173"]
            },
            {
                "client_id": "dev-app", "client_name": "Test app", "client_secret": app_secret, "require_pkce": true,
                "redirect_uris": [format!("{}/dev/app/callback", config.issuer)],
                "post_logout_redirect_uris": [format!("{}/dev/app/signed-out", config.issuer)],
                "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
            }
        ]
    });
    Seed::parse(&text.to_string(), Format::Json, config)?.apply(store, config, now)?;
    Ok(DevApp {
        client_id: "dev-app".to_owned(),
        client_secret: app_secret,
        demo_secret: web_secret,
    })
}
