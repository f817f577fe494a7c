//! What is over and goes: a batch each, small enough that nobody who waits behind it notices.
//!
//! Spent refresh tokens stay as long as their family, so that a replayed one is never an unknown one. Whatever a replay
//! could still end, is there.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::dsl::max;
use diesel::prelude::*;

use super::query::{self, KeptUpdate};
use super::schema::{
    access_tokens, audit_events, client_assertions, client_tokens, grants, refresh_tokens,
    sessions as session_rows, throttles,
};
use super::{AnyConnection, StoreError, audit_seals, on_each, sessions};
use crate::audit::{Event, Kind, Trail};
use crate::identity::session::{Lifetimes, Session};
use crate::protocol::time::Timestamp;
use crate::store;

/// Rows that one transaction looks at, or deletes of one table.
const BATCH: i64 = 50;
/// A grant without live tokens stays for as long as its sign-in, by which an app finds its account again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(86_400);

/// What one batch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub deleted: usize,
    /// There may be more.
    pub is_full: bool,
}

impl Batch {
    fn with_more(self) -> Self {
        Self {
            is_full: true,
            ..self
        }
    }
}

macro_rules! delete_batch {
    ($conn:expr, $table:ident, $key:ident, $type:ty, $condition:expr) => {{
        let keys: Vec<$type> = $table::table
            .filter($condition)
            .select($table::$key)
            .limit(BATCH)
            .load($conn)?;
        let gone = diesel::delete($table::table.filter($table::$key.eq_any(&keys)));
        Batch {
            deleted: on_each!($conn, c => gone.execute(c))?,
            is_full: is_full(keys.len()),
        }
    }};
}

/// Begins each batch. PostgreSQL believes that the first rows it looks at will do where a limit is small and much is over. In
/// truth they are those that have just gone, or there is none any more, and it would read the whole table each time.
pub fn by_index(conn: &mut AnyConnection) -> Result<(), StoreError> {
    match conn {
        AnyConnection::Postgres(c) => Ok(c.batch_execute("SET LOCAL enable_seqscan = off")?),
        AnyConnection::Sqlite(_) => Ok(()),
    }
}

/// Access tokens that expired.
pub fn access_tokens(conn: &mut AnyConnection, expired_by: Timestamp) -> Result<Batch, StoreError> {
    let is_over = access_tokens::expires_at.le(expired_by.seconds());
    Ok(delete_batch!(
        conn,
        access_tokens,
        token_hash,
        Vec<u8>,
        is_over
    ))
}

/// Access tokens of clients that expired.
pub fn client_tokens(conn: &mut AnyConnection, expired_by: Timestamp) -> Result<Batch, StoreError> {
    let is_over = client_tokens::expires_at.le(expired_by.seconds());
    Ok(delete_batch!(
        conn,
        client_tokens,
        token_hash,
        Vec<u8>,
        is_over
    ))
}

/// Client assertions that expired: they could not be used again anyhow.
pub fn client_assertions(
    conn: &mut AnyConnection,
    expired_by: Timestamp,
) -> Result<Batch, StoreError> {
    let is_over = client_assertions::expires_at.le(expired_by.seconds());
    Ok(delete_batch!(
        conn,
        client_assertions,
        assertion_hash,
        Vec<u8>,
        is_over
    ))
}

/// Counters of windows that began so long ago that nobody asks for them.
pub fn throttles(conn: &mut AnyConnection, began_by: Timestamp) -> Result<Batch, StoreError> {
    let is_over = throttles::window_started_at.le(began_by.seconds());
    Ok(delete_batch!(conn, throttles, bucket, Vec<u8>, is_over))
}

/// Audit events that were kept for as long as they are to be, a seal with its events at a time. That they went is one itself.
pub fn audit_events(
    conn: &mut AnyConnection,
    recorded_by: Timestamp,
    trail: &Trail,
) -> Result<Batch, StoreError> {
    let mut names = audit_seals::prune(conn, recorded_by, trail.now)?;
    let mut is_full = !names.is_empty();
    if names.is_empty() {
        // Where no server runs nothing is sealed, and yet nothing is kept for ever.
        let over: Vec<(String, String)> = audit_events::table
            .filter(audit_events::time.le(recorded_by.seconds()))
            .filter(audit_events::seal.is_null())
            .select((audit_events::id, audit_events::event))
            .limit(BATCH)
            .load(conn)?;
        is_full = self::is_full(over.len());
        let (ids, found): (Vec<String>, Vec<String>) = over.into_iter().unzip();
        let of_them = audit_events::table.filter(audit_events::id.eq_any(ids));
        let gone = diesel::delete(of_them).execute(conn)?;
        // Another node may have been faster.
        names = if gone == 0 { Vec::new() } else { found };
    }
    // Of those that only say that others went nothing is said, or they would never get fewer.
    if names.iter().any(|name| name != Kind::AuditPruned.as_str()) {
        let event = Event::new(Kind::AuditPruned).noting("events", names.len());
        let event = event.noting("recorded_by", recorded_by.to_rfc3339());
        store::audit_events::record(conn, trail, &event)?;
    }
    Ok(Batch {
        deleted: names.len(),
        is_full,
    })
}

/// Sign-ins that ended, were idle for too long, or are too old.
pub fn sessions(
    conn: &mut AnyConnection,
    lifetimes: &Lifetimes,
    over_by: Timestamp,
) -> Result<Batch, StoreError> {
    enum LookAgain {}
    use session_rows as t;
    let due: Vec<sessions::Row> = t::table
        .filter(t::prune_after.le(over_by.seconds()))
        .order(t::prune_after)
        .limit(BATCH)
        .select(query::columns::<sessions::Row>())
        .load(conn)?;
    let is_full = is_full(due.len());
    let mut over = Vec::new();
    for row in due {
        let session = Session::try_from(row)?;
        if session.is_alive(lifetimes, over_by) {
            let ends_at = session.ends_at(lifetimes).seconds();
            let of_session = t::id.eq(session.id);
            let again = t::prune_after.eq(ends_at);
            KeptUpdate::<LookAgain, _, _, _>::run(conn, t::table, again, of_session)?;
        } else {
            over.push(session.id);
        }
    }
    let gone = diesel::delete(t::table.filter(t::id.eq_any(&over)));
    Ok(Batch {
        deleted: on_each!(conn, c => gone.execute(c))?,
        is_full,
    })
}

/// Grants that were revoked, or of which nothing is left that could be used, with all that was issued in them.
pub fn grants(
    conn: &mut AnyConnection,
    over_by: Timestamp,
    now: Timestamp,
) -> Result<Batch, StoreError> {
    enum LookAgain {}
    use grants as t;
    let due: Vec<Due> = t::table
        .filter(t::prune_after.le(over_by.seconds()))
        .order(t::prune_after)
        .limit(BATCH)
        .select(query::columns::<Due>())
        .load(conn)?;
    let again = look_again(conn, &due, over_by, now)?;
    let over: Vec<&str> = due
        .iter()
        .map(|grant| grant.id.as_str())
        .filter(|id| !again.contains_key(*id))
        .collect();
    // A family that was used for months has more tokens than one transaction should delete: they go first, then the grants
    // with nothing but a code each.
    let of_over = refresh_tokens::grant_id.eq_any(&over);
    let refresh_tokens = delete_batch!(conn, refresh_tokens, token_hash, Vec<u8>, of_over);
    if refresh_tokens.deleted > 0 {
        return Ok(refresh_tokens.with_more());
    }
    let of_over = access_tokens::grant_id.eq_any(&over);
    let access_tokens = delete_batch!(conn, access_tokens, token_hash, Vec<u8>, of_over);
    if access_tokens.deleted > 0 {
        return Ok(access_tokens.with_more());
    }
    let gone = diesel::delete(t::table.filter(t::id.eq_any(&over)));
    let deleted = on_each!(conn, c => gone.execute(c))?;
    for (id, at) in &again {
        let (at, of_grant) = (t::prune_after.eq(at), t::id.eq(id));
        KeptUpdate::<LookAgain, _, _, _>::run(conn, t::table, at, of_grant)?;
    }
    Ok(Batch {
        deleted,
        is_full: is_full(due.len()),
    })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = grants)]
struct Due {
    id: String,
    client_id: String,
    session_id: String,
    created_at: i64,
    revoked_at: Option<i64>,
}

/// Which of these grants are not over, and when it is worth looking again.
fn look_again(
    conn: &mut AnyConnection,
    due: &[Due],
    over_by: Timestamp,
    now: Timestamp,
) -> Result<HashMap<String, i64>, StoreError> {
    let unrevoked: Vec<&Due> = due
        .iter()
        .filter(|grant| grant.revoked_at.is_none())
        .collect();
    let ids: Vec<&str> = unrevoked.iter().map(|grant| grant.id.as_str()).collect();
    let refreshable: Vec<(String, Option<i64>)> = refresh_tokens::table
        .filter(refresh_tokens::grant_id.eq_any(&ids))
        .filter(refresh_tokens::redeemed_at.is_null())
        .filter(refresh_tokens::expires_at.gt(over_by.seconds()))
        .group_by(refresh_tokens::grant_id)
        .select((refresh_tokens::grant_id, max(refresh_tokens::expires_at)))
        .load(conn)?;
    let usable: Vec<(String, Option<i64>)> = access_tokens::table
        .filter(access_tokens::grant_id.eq_any(&ids))
        .filter(access_tokens::expires_at.gt(over_by.seconds()))
        .group_by(access_tokens::grant_id)
        .select((access_tokens::grant_id, max(access_tokens::expires_at)))
        .load(conn)?;
    let mut again: HashMap<String, i64> = HashMap::new();
    for (id, at) in refreshable.into_iter().chain(usable) {
        let latest = again.entry(id).or_default();
        *latest = at.unwrap_or_default().max(*latest);
    }
    let newest = newest_of_sessions(conn, &unrevoked)?;
    for grant in unrevoked {
        let place = (grant.session_id.clone(), grant.client_id.clone());
        if newest.get(&place) == Some(&grant.created_at) {
            let tomorrow = now.plus(LOOK_AGAIN_AFTER).seconds();
            again.entry(grant.id.clone()).or_insert(tomorrow);
        }
    }
    Ok(again)
}

/// When each client was last given something in the sign-ins of these grants that are still there.
fn newest_of_sessions(
    conn: &mut AnyConnection,
    due: &[&Due],
) -> Result<HashMap<(String, String), i64>, StoreError> {
    let ids: HashSet<&str> = due.iter().map(|grant| grant.session_id.as_str()).collect();
    let remaining: Vec<String> = session_rows::table
        .filter(session_rows::id.eq_any(&ids))
        .select(session_rows::id)
        .load(conn)?;
    let newest: Vec<(String, String, Option<i64>)> = grants::table
        .filter(grants::session_id.eq_any(&remaining))
        .filter(grants::revoked_at.is_null())
        .group_by((grants::session_id, grants::client_id))
        .select((
            grants::session_id,
            grants::client_id,
            max(grants::created_at),
        ))
        .load(conn)?;
    Ok(newest
        .into_iter()
        .map(|(session, client, at)| ((session, client), at.unwrap_or_default()))
        .collect())
}

fn is_full(rows: usize) -> bool {
    i64::try_from(rows).unwrap_or(i64::MAX) >= BATCH
}
