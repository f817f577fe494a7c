//! Writing a file that was understood, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use serde::Serialize;
use serde_json::{Map, Value};

use super::export::metadata_of;
use super::fit::misfits;
use super::mistakes::Mistake;
use super::recorded;
use super::{
    CheckedClient, CheckedUser, Extent, FileSecret, Known, Seed, SeedError, Summary, UserSecret,
};
use crate::audit::{Event, Kind, Trail};
use crate::config::Config;
use crate::identity::password::{self, HashSettings};
use crate::identity::user::User;
use crate::protocol::client::ClientId;
use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS};
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::{
    AnyConnection, Store, StoreError, audit_events, client_secrets, clients, grants, groups,
    scopes, sessions, users,
};

/// Who changes the same people meanwhile makes us look again; more often than this it is not chance.
const ATTEMPTS: usize = 5;

impl Seed {
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
            let fresh: Vec<_> = seed.clients.iter().map(|_| Fresh::new()).collect();
            let written = {
                let (seed, trail) = (seed.clone(), trail.clone());
                let work = move |tx: &mut AnyConnection| {
                    write(tx, &seed, &judged, &fresh, extent.prune, &trail)
                };
                write_if_done(store, extent.dry_run, work)
            };
            match written {
                Ok(Written::Done(summary)) => return Ok(summary),
                Ok(Written::Exists(email)) => return Err(SeedError::Exists(email)),
                Ok(Written::ClientExists(id)) => return Err(SeedError::ClientExists(id)),
                Ok(Written::Mistakes(mut mistakes)) => {
                    seed.origin.locate(&mut mistakes);
                    return Err(SeedError::Mistakes(mistakes));
                }
                Ok(Written::Moved) => {}
                // Somebody else has just added one of them.
                Err(error) if error.is_duplicate() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SeedError::Busy)
    }
}

/// Does the work, and takes all of it back unless it came to its end: what a rehearsal would do is then no guess.
fn write_if_done(
    store: &Store,
    rehearsal: bool,
    mut work: impl FnMut(&mut AnyConnection) -> Result<Written, StoreError> + Send + 'static,
) -> Result<Written, StoreError> {
    let (told, outcome) = mpsc::channel();
    let written = store.write_blocking(move |tx| match work(tx) {
        Ok(Written::Done(summary)) if !rehearsal => Ok(summary),
        // Where another transaction was in the way, the store tries again.
        Err(error) => Err(error),
        Ok(outcome) => {
            // Whoever asked waits for it.
            let _heard = told.send(outcome);
            Err(StoreError::fault("this is not written"))
        }
    });
    match (written, outcome.try_iter().last()) {
        (Ok(summary), _) => Ok(Written::Done(summary)),
        (Err(_taken_back), Some(outcome)) => Ok(outcome),
        (Err(error), None) => Err(error),
    }
}

/// How a transaction ended.
enum Written {
    Done(Summary),
    /// Nothing was written: somebody has this address, and was not to be changed.
    Exists(String),
    /// Nothing was written: there is such an app, and it was not to be changed.
    ClientExists(ClientId),
    /// Nothing was written: the file does not fit to what is there.
    Mistakes(Vec<Mistake>),
    /// Nothing was written: a password was changed after it had been compared with the file's.
    Moved,
}

/// Random values for one client, made outside of the transaction.
struct Fresh {
    ids: [String; MOST_SECRETS],
    secret: String,
}

impl Fresh {
    fn new() -> Self {
        Self {
            ids: std::array::from_fn(|_| random::id()),
            secret: random::token(),
        }
    }
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
    fresh: &[Fresh],
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
    let mut mistakes = misfits(tx, seed, prune)?;
    let mut apps = Vec::new();
    for (app, fresh) in seed.clients.iter().zip(fresh) {
        let id = &app.client.client_id;
        let secrets = secrets_of(app, fresh, now);
        let hashes: Vec<_> = secrets.iter().map(|secret| secret.hash).collect();
        if !matches!(app.secret, FileSecret::Unsaid)
            && !client_secrets::has_room_for(tx, id, &hashes, now)?
        {
            let problem = format!(
                "with those of commands it would have more than {MOST_SECRETS} secrets; revoke one first"
            );
            mistakes.push(app.place.mistake(app.secret.field(), problem));
        }
        apps.push((app, fresh, secrets));
    }
    if !mistakes.is_empty() {
        return Ok(Written::Mistakes(mistakes));
    }
    let by_file = seed.known == Known::Updated;
    let mut summary = Summary::default();
    put_scopes(tx, seed, trail, &mut summary)?;
    for (checked, judged) in seed.users.iter().zip(judged) {
        let earlier = people.get(checked.email.key());
        let id = put_user(tx, checked, judged, earlier, trail, &mut summary)?;
        if by_file && users::note_managed(tx, &id)? && earlier.is_some() {
            let event = Event::new(Kind::UserManaged).target(&id);
            audit_events::record(tx, trail, &event)?;
        }
    }
    put_groups(tx, seed, trail, &mut summary)?;
    for (app, fresh, secrets) in apps {
        let is_new = clients::insert(tx, &app.client, now)?;
        if !is_new && seed.known == Known::OnlyNew {
            // Nothing stands before it: a seed that only adds has one entry.
            return Ok(Written::ClientExists(app.client.client_id.clone()));
        }
        let made = put_client(tx, app, is_new, &secrets, trail, &mut summary)?;
        let id = &app.client.client_id;
        if by_file && clients::note_managed(tx, id)? && !is_new {
            audit_events::record(tx, trail, &Event::of_client(Kind::ClientManaged, id))?;
        }
        if made {
            let shown = (app.client.client_id.to_string(), fresh.secret.clone());
            summary.new_secrets.push(shown);
        }
    }
    if prune {
        delete_unnamed(tx, seed, trail, &mut summary)?;
    }
    Ok(Written::Done(summary))
}

/// What a client is to have: what the file says, or the one that was made for it.
fn secrets_of(app: &CheckedClient, fresh: &Fresh, now: Timestamp) -> Vec<ClientSecret> {
    let new = |text: &str| vec![ClientSecret::new(&fresh.ids[0], text, now)];
    match &app.secret {
        FileSecret::Unsaid => new(&fresh.secret),
        FileSecret::Plain(secret) => new(secret),
        FileSecret::Hashes(secrets) => secrets
            .iter()
            .zip(&fresh.ids)
            .map(|(secret, id)| ClientSecret {
                id: id.clone(),
                created_at: now,
                ..secret.clone()
            })
            .collect(),
    }
}

fn put_scopes(
    tx: &mut AnyConnection,
    seed: &Seed,
    trail: &Trail,
    summary: &mut Summary,
) -> Result<(), StoreError> {
    let managed = scopes::managed(tx)?;
    for scope in &seed.scopes {
        let earlier = scopes::find(tx, &scope.name)?;
        let is_change = earlier.as_ref() != Some(scope);
        if is_change || !managed.contains(&scope.name) {
            scopes::put_from_file(tx, scope)?;
        }
        if is_change {
            let event = recorded::scope(earlier.as_ref(), scope);
            audit_events::record(tx, trail, &event)?;
        }
        let earlier = earlier.map(|earlier| to_value(&earlier));
        let name = format!("scope {}", scope.name);
        summary.note(name, earlier.as_ref(), &to_value(scope), Vec::new());
    }
    Ok(())
}

fn put_groups(
    tx: &mut AnyConnection,
    seed: &Seed,
    trail: &Trail,
    summary: &mut Summary,
) -> Result<(), StoreError> {
    for checked in &seed.groups {
        let group = &checked.group;
        let earlier = groups::find(tx, &group.name)?;
        groups::put_from_file(tx, group)?;
        let mut different = Vec::new();
        if let Some(members) = &checked.members {
            let mut ids = BTreeSet::new();
            for (_, email) in members {
                // Who was deleted just now is in no group.
                ids.extend(users::find_by_email(tx, email.key())?.map(|user| user.id));
            }
            different = set_members(tx, &group.name, &ids, trail)?;
        }
        if earlier.as_ref() != Some(group) {
            let event = Event::new(Kind::GroupChanged).target(&group.name);
            audit_events::record(tx, trail, &event)?;
        }
        let earlier = earlier.map(|earlier| to_value(&earlier));
        let name = format!("group {}", group.name);
        summary.note(name, earlier.as_ref(), &to_value(group), different);
    }
    Ok(())
}

/// Makes these and nobody else members; answers who came and went.
fn set_members(
    tx: &mut AnyConnection,
    group: &str,
    members: &BTreeSet<String>,
    trail: &Trail,
) -> Result<Vec<String>, StoreError> {
    let mut moves = Vec::new();
    let present: BTreeSet<_> = users::in_group(tx, group)?;
    // In the order of their ids, for everybody the same.
    for id in present.symmetric_difference(members) {
        let Some(mut user) = users::find_locked(tx, id)? else {
            continue;
        };
        let earlier = user.clone();
        if members.contains(id) {
            user.groups.push(group.to_owned());
            moves.push(format!("members: with {}", user.email));
        } else {
            user.groups.retain(|name| name != group);
            moves.push(format!("members: without {}", user.email));
        }
        user.updated_at = trail.now;
        users::update(tx, &user)?;
        for event in recorded::user_changes(&earlier, &user) {
            audit_events::record(tx, trail, &event)?;
        }
    }
    Ok(moves)
}

/// Removes what came from a file once and is in this one no more. A group takes along that people are in it, however they
/// came there: apps must not go on hearing of a group that is gone. Nothing else that came another way is touched.
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
    for name in groups::managed(tx)? {
        if !seed.groups.iter().any(|named| named.group.name == name) {
            let named_by_person = |user: &&CheckedUser| {
                let groups = user.entry.groups.as_ref();
                groups.is_some_and(|groups| groups.contains(&name))
            };
            let mut stay = BTreeSet::new();
            for user in seed.users.iter().filter(named_by_person) {
                stay.extend(users::find_by_email(tx, user.email.key())?.map(|user| user.id));
            }
            let left = set_members(tx, &name, &stay, trail)?;
            groups::delete(tx, &name)?;
            let event = Event::new(Kind::GroupDeleted).target(&name);
            audit_events::record(tx, trail, &event)?;
            let deleted = format!("group {name}");
            summary.differences.insert(deleted.clone(), left);
            summary.deleted.push(deleted);
        }
    }
    for name in scopes::managed(tx)? {
        if !seed.scopes.iter().any(|named| named.name == name) {
            scopes::delete(tx, &name)?;
            let event = Event::new(Kind::ScopeDeleted).target(&name);
            audit_events::record(tx, trail, &event)?;
            summary.deleted.push(format!("scope {name}"));
        }
    }
    Ok(())
}

fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("our own types always have a JSON form")
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
    let entry = &checked.entry;
    let base = earlier.cloned().unwrap_or_else(|| User {
        id: entry.sub.clone().unwrap_or_else(random::id),
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
    let mut different = Vec::new();
    match earlier {
        None => {
            users::insert(tx, &user)?;
            audit_events::record(tx, trail, &recorded::user_created(&user))?;
        }
        Some(earlier) if *earlier == user => {}
        Some(earlier) => {
            user.updated_at = now;
            users::update(tx, &user)?;
            for event in recorded::user_changes(earlier, &user) {
                audit_events::record(tx, trail, &event)?;
            }
            if user.disabled || earlier.password_hash != user.password_hash {
                sessions::end_all(tx, &user.id, now)?;
                grants::revoke_user(tx, &user.id, now)?;
            }
            if earlier.password_hash != user.password_hash {
                different.push("password: another one".to_owned());
            }
        }
    }
    let before = earlier.map(|earlier| Value::Object(recorded::fields(earlier)));
    let name = format!("user {}", user.email);
    let after = Value::Object(recorded::fields(&user));
    summary.note(name, before.as_ref(), &after, different);
    Ok(user.id)
}

/// Answers whether the secret was made for it just now.
fn put_client(
    tx: &mut AnyConnection,
    app: &CheckedClient,
    is_new: bool,
    secrets: &[ClientSecret],
    trail: &Trail,
    summary: &mut Summary,
) -> Result<bool, StoreError> {
    let (id, now) = (&app.client.client_id, trail.now);
    let earlier = if is_new { None } else { clients::find(tx, id)? };
    let is_same = is_new || earlier.as_ref() == Some(&app.client);
    if !is_same {
        clients::put(tx, &app.client, now)?;
    }
    let before = earlier.as_ref().map(metadata_of);
    // A client that had one before may have lost its last on purpose, so it gets none unasked.
    let needs_one = is_new
        || earlier
            .as_ref()
            .is_some_and(|earlier| !earlier.has_secret());
    let by_file = !matches!(app.secret, FileSecret::Unsaid);
    let (secrets_changed, made) = if !app.client.has_secret() {
        (client_secrets::remove_all(tx, id, now)?, false)
    } else if by_file {
        (client_secrets::put_from_file(tx, id, secrets, now)?, false)
    } else if needs_one {
        let mut added = client_secrets::Changes::default();
        for secret in secrets {
            client_secrets::insert(tx, id, secret, now)?;
            added.added.push(secret.id.clone());
        }
        (added, true)
    } else {
        (client_secrets::Changes::default(), false)
    };
    if is_new || !is_same {
        let kind = if is_new {
            Kind::ClientCreated
        } else {
            Kind::ClientUpdated
        };
        let event = recorded::client(kind, earlier.as_ref(), &app.client);
        audit_events::record(tx, trail, &event)?;
    }
    for event in recorded::secrets(id, &secrets_changed, by_file) {
        audit_events::record(tx, trail, &event)?;
    }
    let mut different = Vec::new();
    if !is_new && !secrets_changed.is_empty() {
        different.push("client_secret: another one".to_owned());
    }
    let after = metadata_of(&app.client);
    let before = if is_new { None } else { before };
    summary.note(format!("client {id}"), before.as_ref(), &after, different);
    Ok(made)
}
