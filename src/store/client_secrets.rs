//! The secrets of apps: hashes only. What has ended stays a month, so that its late users are told from guessers.

use std::time::Duration;

use diesel::prelude::*;

use super::columns::{to_hash, to_time};
use super::schema::client_secrets as t;
use super::{AnyConnection, StoreError, clients};
use crate::protocol::client::ClientId;
use crate::protocol::client_secret::{ClientSecret, MOST_SECRETS};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// Why a client got no further secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    #[error("there is no such client")]
    UnknownClient,
    #[error("it is public or signs assertions, and has no secret")]
    NoSecrets,
    #[error("it has {MOST_SECRETS} secrets already; revoke one first")]
    TooMany,
}

/// Which secrets a file changed, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They work from now on.
    pub added: Vec<String>,
    /// They worked until now.
    pub ended: Vec<String>,
    /// They work on, until another time or on the file's behalf now.
    pub kept: Vec<String>,
    /// Of those that had ended before something is different.
    pub others: bool,
}

impl Changes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.ended.is_empty() && self.kept.is_empty() && !self.others
    }

    fn note(&mut self, id: &str, worked: bool, works: bool) {
        let list = match (worked, works) {
            (false, true) => &mut self.added,
            (true, false) => &mut self.ended,
            (true, true) => &mut self.kept,
            (false, false) => {
                self.others = true;
                return;
            }
        };
        list.push(id.to_owned());
    }
}

const ENDED_ONES_STAY: Duration = Duration::from_secs(30 * 86_400);

#[derive(Queryable)]
struct Row {
    id: String,
    _client_id: String,
    secret_hash: Vec<u8>,
    created_at: i64,
    from_file: bool,
    prefix: String,
    last_used_at: Option<i64>,
    expires_at: Option<i64>,
}

/// A client's secrets, oldest first, those that have ended included.
pub fn list(conn: &mut AnyConnection, client: &ClientId) -> Result<Vec<ClientSecret>, StoreError> {
    let rows: Vec<Row> = t::table
        .filter(t::client_id.eq(client.as_str()))
        .order((t::created_at, t::id))
        .load(conn)?;
    rows.into_iter().map(ClientSecret::try_from).collect()
}

/// Adds a secret beside the others. The client is locked while they are counted.
pub fn add(
    conn: &mut AnyConnection,
    client: &ClientId,
    secret: &ClientSecret,
    now: Timestamp,
) -> Result<Result<(), NotAdded>, StoreError> {
    match clients::find_locked(conn, client)? {
        None => return Ok(Err(NotAdded::UnknownClient)),
        Some(client) if !client.has_secret() => return Ok(Err(NotAdded::NoSecrets)),
        Some(_) => {}
    }
    let known = list(conn, client)?;
    if known.iter().filter(|known| known.is_live(now)).count() >= MOST_SECRETS {
        return Ok(Err(NotAdded::TooMany));
    }
    insert(conn, client, secret, now)?;
    Ok(Ok(()))
}

/// Ends a secret; of any number that try, one is told yes.
pub fn revoke(
    conn: &mut AnyConnection,
    client: &ClientId,
    id: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let is_live = t::expires_at.is_null().or(t::expires_at.gt(now.seconds()));
    let revoked = diesel::update(
        t::table
            .filter(t::client_id.eq(client.as_str()))
            .filter(t::id.eq(id))
            .filter(is_live),
    )
    .set(t::expires_at.eq(now.seconds()))
    .execute(conn)?;
    clients::note_change(conn)?;
    Ok(revoked == 1)
}

/// Writes down that it was used, unless that was done lately.
pub fn note_use(conn: &mut AnyConnection, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let stale = ClientSecret::stale_use(now).seconds();
    diesel::update(
        t::table
            .filter(t::id.eq(id))
            .filter(t::last_used_at.is_null().or(t::last_used_at.le(stale))),
    )
    .set(t::last_used_at.eq(now.seconds()))
    .execute(conn)?;
    Ok(())
}

/// Whether a file's secrets have a place beside those that commands added.
pub fn has_room_for(
    conn: &mut AnyConnection,
    client: &ClientId,
    secrets: &[TokenHash],
    now: Timestamp,
) -> Result<bool, StoreError> {
    clients::find_locked(conn, client)?;
    let known = list(conn, client)?;
    let others = known
        .iter()
        .filter(|known| known.is_live(now) && !known.from_file && !secrets.contains(&known.hash));
    Ok(others.count() + secrets.len() <= MOST_SECRETS)
}

/// Makes a file's secrets the client's, in place of those that the file named before. What commands added stays.
pub fn put_from_file(
    conn: &mut AnyConnection,
    client: &ClientId,
    secrets: &[ClientSecret],
    now: Timestamp,
) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let all = list(conn, client)?;
    let is_named = |known: &ClientSecret| secrets.iter().any(|secret| secret.hash == known.hash);
    for known in all
        .iter()
        .filter(|known| known.from_file && !is_named(known))
    {
        diesel::update(t::table.filter(t::id.eq(&known.id)))
            .set((t::from_file.eq(false), t::expires_at.eq(now.seconds())))
            .execute(conn)?;
        changes.note(&known.id, known.is_live(now), false);
    }
    for secret in secrets {
        match all.iter().find(|known| known.hash == secret.hash) {
            Some(known) if known.from_file && known.expires_at == secret.expires_at => {}
            Some(known) => {
                let end = secret.expires_at.map(Timestamp::seconds);
                diesel::update(t::table.filter(t::id.eq(&known.id)))
                    .set((t::from_file.eq(true), t::expires_at.eq(end)))
                    .execute(conn)?;
                changes.note(&known.id, known.is_live(now), secret.is_live(now));
            }
            None => {
                let secret = ClientSecret {
                    from_file: true,
                    ..secret.clone()
                };
                insert(conn, client, &secret, now)?;
                changes.note(&secret.id, false, secret.is_live(now));
            }
        }
    }
    if !changes.is_empty() {
        clients::note_change(conn)?;
    }
    Ok(changes)
}

/// Removes every secret.
pub fn remove_all(
    conn: &mut AnyConnection,
    client: &ClientId,
    now: Timestamp,
) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    for known in list(conn, client)? {
        changes.note(&known.id, known.is_live(now), false);
    }
    diesel::delete(t::table.filter(t::client_id.eq(client.as_str()))).execute(conn)?;
    clients::note_change(conn)?;
    Ok(changes)
}

/// Adds a row, and removes those that ended long ago.
pub fn insert(
    conn: &mut AnyConnection,
    client: &ClientId,
    secret: &ClientSecret,
    now: Timestamp,
) -> Result<(), StoreError> {
    diesel::delete(
        t::table
            .filter(t::client_id.eq(client.as_str()))
            .filter(t::expires_at.le(now.minus(ENDED_ONES_STAY).seconds())),
    )
    .execute(conn)?;
    diesel::insert_into(t::table)
        .values((
            t::id.eq(&secret.id),
            t::client_id.eq(client.as_str()),
            t::secret_hash.eq(secret.hash.as_bytes().as_slice()),
            t::created_at.eq(secret.created_at.seconds()),
            t::from_file.eq(secret.from_file),
            t::prefix.eq(&secret.prefix),
            t::last_used_at.eq(secret.last_used_at.map(Timestamp::seconds)),
            t::expires_at.eq(secret.expires_at.map(Timestamp::seconds)),
        ))
        .execute(conn)?;
    clients::note_change(conn)
}

impl TryFrom<Row> for ClientSecret {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            hash: to_hash(&row.secret_hash)?,
            prefix: row.prefix,
            from_file: row.from_file,
            created_at: to_time(row.created_at),
            last_used_at: row.last_used_at.map(to_time),
            expires_at: row.expires_at.map(to_time),
        })
    }
}
