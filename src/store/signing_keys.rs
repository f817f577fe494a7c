//! Signing keys: one next, one current, any number retired for each algorithm. Private parts are encrypted.

use diesel::prelude::*;

use super::columns::to_time;
use super::query::one;
use super::schema::signing_keys as t;
use super::{AnyConnection, StoreError, migrations, on_each};
use crate::protocol::time::Timestamp;

/// A key as it lies in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub kid: String,
    pub algorithm: String,
    pub state: KeyState,
    pub public_jwk: String,
    /// PKCS #8, sealed; empty once the key is published no more.
    pub private_key: Vec<u8>,
    pub created_at: Timestamp,
    pub activated_at: Option<Timestamp>,
    pub retired_at: Option<Timestamp>,
}

impl StoredKey {
    /// Whether relying parties still need it.
    pub fn is_published(&self) -> bool {
        !self.private_key.is_empty()
    }
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, not yet signing.
    Next,
    /// Signing.
    Current,
    /// No longer signing; published until its last token has expired, then kept for hints.
    Retired,
}

impl KeyState {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Retired => "retired",
        }
    }

    fn slot(self, algorithm: &str) -> Option<String> {
        (self != Self::Retired).then(|| format!("{algorithm}/{}", self.as_str()))
    }
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// It signs from now on …
    pub kid: String,
    /// … and this one signed until now.
    pub retired: Option<String>,
}

type Columns = (
    String,
    String,
    Option<String>,
    String,
    Vec<u8>,
    i64,
    Option<i64>,
    Option<i64>,
);

/// Every key, oldest first.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<StoredKey>, StoreError> {
    let rows: Vec<Columns> = t::table.order((t::created_at, t::kid)).load(conn)?;
    let stored = rows.into_iter().map(
        |(kid, algorithm, slot, public_jwk, private_key, created_at, activated_at, retired_at)| {
            StoredKey {
                state: match slot.as_deref().and_then(|slot| slot.rsplit('/').next()) {
                    Some("next") => KeyState::Next,
                    Some("current") => KeyState::Current,
                    _ => KeyState::Retired,
                },
                kid,
                algorithm,
                public_jwk,
                private_key,
                created_at: to_time(created_at),
                activated_at: activated_at.map(to_time),
                retired_at: retired_at.map(to_time),
            }
        },
    );
    Ok(stored.collect())
}

/// Every key, in a schema of whatever age: none before the first migration, and the same columns since.
pub fn list_before_migration(conn: &mut AnyConnection) -> Result<Vec<StoredKey>, StoreError> {
    if migrations::has_table(conn, "signing_keys")? {
        list(conn)
    } else {
        Ok(Vec::new())
    }
}

/// Adds a key unless its place is taken: of any number that start at once, one key wins.
pub fn insert(conn: &mut AnyConnection, key: &StoredKey) -> Result<bool, StoreError> {
    let added = on_each!(conn, c => diesel::insert_into(t::table)
        .values((
            t::kid.eq(&key.kid),
            t::algorithm.eq(&key.algorithm),
            t::slot.eq(key.state.slot(&key.algorithm)),
            t::public_jwk.eq(&key.public_jwk),
            t::private_key.eq(&key.private_key),
            t::created_at.eq(key.created_at.seconds()),
            t::activated_at.eq(key.activated_at.map(Timestamp::seconds)),
            t::retired_at.eq(key.retired_at.map(Timestamp::seconds)),
        ))
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(added == 1)
}

/// Whether a key has signed since a time, or since one that is none: a clock that was wrong must not stop the rotation.
pub fn is_due(activated_at: Timestamp, activated_by: Timestamp, now: Timestamp) -> bool {
    activated_at <= activated_by || activated_at.is_far_ahead_of(now)
}

/// A next key that seems to have been published far ahead of now counts as published now; answers whether it was one.
pub fn put_right(
    conn: &mut AnyConnection,
    algorithm: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let next = t::table
        .filter(t::slot.eq(KeyState::Next.slot(algorithm)))
        .filter(t::created_at.gt(now.horizon().seconds()));
    let changed = diesel::update(next)
        .set(t::created_at.eq(now.seconds()))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Adds a next key, unless there is one or the current one is not due: who found it due may have
/// looked before another process finished a rotation, and must not begin a second one.
pub fn publish(
    conn: &mut AnyConnection,
    key: &StoredKey,
    activated_by: Timestamp,
) -> Result<bool, StoreError> {
    lock_current(conn, &key.algorithm)?;
    // Read again, because the lock may have waited for another key to take that place.
    let current: Option<Option<i64>> = one(
        conn,
        t::table
            .filter(t::slot.eq(KeyState::Current.slot(&key.algorithm)))
            .select(t::activated_at),
    )?;
    let is_due = |at: i64| is_due(to_time(at), activated_by, key.created_at);
    if !current.flatten().is_none_or(is_due) {
        return Ok(false);
    }
    insert(conn, key)
}

/// Whoever rotates an algorithm takes this lock first.
fn lock_current(conn: &mut AnyConnection, algorithm: &str) -> Result<(), StoreError> {
    // Whoever writes to SQLite is alone.
    if let AnyConnection::Postgres(c) = conn {
        let _moved_meanwhile: Option<String> = t::table
            .filter(t::slot.eq(KeyState::Current.slot(algorithm)))
            .select(t::kid)
            .for_update()
            .get_result(c)
            .optional()?;
    }
    Ok(())
}

/// The next key of an algorithm begins to sign and the current one retires. Nothing happens without a next key, or when
/// it was published after `published_by`.
pub fn promote(
    conn: &mut AnyConnection,
    algorithm: &str,
    published_by: Timestamp,
    now: Timestamp,
) -> Result<Option<Rotated>, StoreError> {
    lock_current(conn, algorithm)?;
    let next = KeyState::Next.slot(algorithm);
    let ready: Option<String> = one(
        conn,
        t::table
            .filter(t::slot.eq(&next))
            .filter(t::created_at.le(published_by.seconds()))
            .select(t::kid),
    )?;
    let Some(kid) = ready else { return Ok(None) };
    // Whoever takes the key out of its place goes on; a second process that promotes at the same moment waits here, finds
    // the place empty, and must not touch what is current by then.
    let key = t::table.filter(t::kid.eq(&kid));
    let taken = diesel::update(key.filter(t::slot.eq(next)))
        .set(t::slot.eq(format!("{algorithm}/promoting")))
        .execute(conn)?;
    if taken == 0 {
        return Ok(None);
    }
    let current = KeyState::Current.slot(algorithm);
    let retired: Option<String> = one(conn, t::table.filter(t::slot.eq(&current)).select(t::kid))?;
    diesel::update(t::table.filter(t::slot.eq(&current)))
        .set((t::slot.eq(None::<String>), t::retired_at.eq(now.seconds())))
        .execute(conn)?;
    diesel::update(key)
        .set((t::slot.eq(current), t::activated_at.eq(now.seconds())))
        .execute(conn)?;
    Ok(Some(Rotated { kid, retired }))
}

/// A key signs no more, and never will.
pub fn retire(conn: &mut AnyConnection, kid: &str, now: Timestamp) -> Result<bool, StoreError> {
    let key = t::table
        .filter(t::kid.eq(kid))
        .filter(t::slot.is_not_null());
    let changed = diesel::update(key)
        .set((t::slot.eq(None::<String>), t::retired_at.eq(now.seconds())))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Keys that retired at or before a time, and are still there.
pub fn retired_by(conn: &mut AnyConnection, at: Timestamp) -> Result<Vec<StoredKey>, StoreError> {
    let mut stored = list(conn)?;
    stored.retain(|key| key.state == KeyState::Retired);
    stored.retain(|key| key.retired_at.is_some_and(|retired| retired <= at));
    Ok(stored)
}

/// A retired key is published no more. Its private part goes; the public one still tells whether an ID token that an app
/// kept is ours. Of any number that try, one is told yes.
pub fn withdraw(conn: &mut AnyConnection, kid: &str) -> Result<bool, StoreError> {
    let nothing: &[u8] = &[];
    let key = t::table.filter(t::kid.eq(kid)).filter(t::slot.is_null());
    let changed = diesel::update(key.filter(t::private_key.ne(nothing)))
        .set(t::private_key.eq(nothing))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Forgets a retired key; of any number that try, one is told yes.
pub fn delete_retired(conn: &mut AnyConnection, kid: &str) -> Result<bool, StoreError> {
    let key = t::table.filter(t::kid.eq(kid)).filter(t::slot.is_null());
    Ok(diesel::delete(key).execute(conn)? == 1)
}
