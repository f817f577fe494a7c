//! Sign-ins. The cookie's value is never stored, only its hash.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::{self, one};
use super::schema::{sessions as t, users};
use super::{AnyConnection, StoreError};
use crate::identity::session::Session;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    id: String,
    user_id: String,
    auth_time: i64,
    proved_for: Option<String>,
    acr: String,
    amr: String,
    remembered: bool,
    created_at: i64,
    last_seen_at: i64,
    ended_at: Option<i64>,
}

/// The session that a cookie's value opens, alive or not.
pub fn find_by_token(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<Session>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .select(query::columns::<Row>()),
    )?;
    row.map(Session::try_from).transpose()
}

/// Whether it was not ended and its person not switched off; its times are not judged.
pub fn is_open(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let found: Option<String> = one(
        conn,
        t::table
            .inner_join(users::table)
            .filter(t::id.eq(id))
            .filter(t::ended_at.is_null())
            .filter(users::disabled.eq(false))
            .select(t::id),
    )?;
    Ok(found.is_some())
}

/// A person's sign-ins that nobody ended, latest first; their times are not judged.
pub fn of_user(conn: &mut AnyConnection, user_id: &str) -> Result<Vec<Session>, StoreError> {
    let rows: Vec<Row> = t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::ended_at.is_null())
        .order((t::last_seen_at.desc(), t::id))
        .select(query::columns::<Row>())
        .load(conn)?;
    rows.into_iter().map(Session::try_from).collect()
}

/// Adds a sign-in.
pub fn insert(
    conn: &mut AnyConnection,
    session: &Session,
    token: &TokenHash,
) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::id.eq(&session.id),
            t::token_hash.eq(token.as_bytes().as_slice()),
            t::user_id.eq(&session.user_id),
            t::auth_time.eq(session.auth_time.seconds()),
            t::proved_for.eq(&session.proved_for),
            t::acr.eq(&session.acr),
            t::amr.eq(to_json(&session.amr)),
            t::remembered.eq(session.remembered),
            t::created_at.eq(session.created_at.seconds()),
            t::last_seen_at.eq(session.last_seen_at.seconds()),
            t::ended_at.eq(None::<i64>),
            t::prune_after.eq(session.created_at.seconds()),
        ))
        .execute(conn)?;
    Ok(())
}

/// The person proved themselves again: the same sign-in under a new cookie value, so that a planted or copied one dies.
pub fn renew(
    conn: &mut AnyConnection,
    session: &Session,
    token: &TokenHash,
) -> Result<bool, StoreError> {
    let changed = diesel::update(
        t::table
            .filter(t::id.eq(&session.id))
            .filter(t::ended_at.is_null()),
    )
    .set((
        t::token_hash.eq(token.as_bytes().as_slice()),
        t::auth_time.eq(session.auth_time.seconds()),
        t::proved_for.eq(&session.proved_for),
        t::acr.eq(&session.acr),
        t::amr.eq(to_json(&session.amr)),
        t::remembered.eq(session.remembered),
        t::last_seen_at.eq(session.last_seen_at.seconds()),
    ))
    .execute(conn)?;
    Ok(changed == 1)
}

/// Writes down that it was used. Another node may have written a later time, unless no clock shows that for long.
pub fn touch(conn: &mut AnyConnection, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let is_earlier = t::last_seen_at.lt(now.seconds());
    let is_no_time = t::last_seen_at.gt(now.horizon().seconds());
    diesel::update(
        t::table
            .filter(t::id.eq(id))
            .filter(is_earlier.or(is_no_time)),
    )
    .set(t::last_seen_at.eq(now.seconds()))
    .execute(conn)?;
    Ok(())
}

/// Ends it.
pub fn end(conn: &mut AnyConnection, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let changed = diesel::update(t::table.filter(t::id.eq(id)).filter(t::ended_at.is_null()))
        .set((
            t::ended_at.eq(now.seconds()),
            t::prune_after.eq(now.seconds()),
        ))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Ends all of a person's.
pub fn end_all(
    conn: &mut AnyConnection,
    user_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    Ok(diesel::update(
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::ended_at.is_null()),
    )
    .set((
        t::ended_at.eq(now.seconds()),
        t::prune_after.eq(now.seconds()),
    ))
    .execute(conn)?)
}

/// Ends what a new sign-in of a person leaves beyond so many, longest unused first; answers which.
pub fn end_oldest(
    conn: &mut AnyConnection,
    newest: &Session,
    most: usize,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let ids: Vec<String> = t::table
        .filter(t::user_id.eq(&newest.user_id))
        .filter(t::id.ne(&newest.id))
        .filter(t::ended_at.is_null())
        .order((t::last_seen_at.desc(), t::created_at.desc(), t::id))
        .offset(i64::try_from(most.saturating_sub(1)).unwrap_or(i64::MAX))
        .limit(i64::from(u16::MAX))
        .select(t::id)
        .load(conn)?;
    for id in &ids {
        end(conn, id, now)?;
    }
    Ok(ids)
}

impl TryFrom<Row> for Session {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            user_id: row.user_id,
            auth_time: to_time(row.auth_time),
            proved_for: row.proved_for,
            acr: row.acr,
            amr: from_json(&row.amr)?,
            remembered: row.remembered,
            created_at: to_time(row.created_at),
            last_seen_at: to_time(row.last_seen_at),
            ended_at: row.ended_at.map(to_time),
        })
    }
}
