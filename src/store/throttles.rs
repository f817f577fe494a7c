//! Counters of failures.

use diesel::prelude::*;

use super::query::one;
use super::schema::throttles as t;
use super::{AnyConnection, StoreError, on_each};
use crate::identity::throttle::{Bucket, Counter, Limit};
use crate::protocol::time::Timestamp;

/// Counts an attempt, unless the limit of this window is reached; then answers when the window ends.
/// The row is locked while it is judged, so parallel attempts can't slip past it.
pub fn count(
    conn: &mut AnyConnection,
    bucket: &Bucket,
    limit: Limit,
    now: Timestamp,
) -> Result<Result<(), Timestamp>, StoreError> {
    let key = bucket.0.as_slice();
    on_each!(conn, c => diesel::insert_into(t::table)
        .values((
            t::bucket.eq(key),
            t::failures.eq(0),
            t::earlier_failures.eq(0),
            t::window_started_at.eq(now.seconds()),
        ))
        .on_conflict_do_nothing()
        .execute(c))?;
    let row = t::table.filter(t::bucket.eq(key));
    let found = row.select((t::failures, t::earlier_failures, t::window_started_at));
    let (failures, earlier_failures, started): (i64, i64, i64) = match conn {
        AnyConnection::Postgres(c) => found.for_update().get_result(c)?,
        // Whoever writes is alone.
        AnyConnection::Sqlite(c) => found.get_result(c)?,
    };
    let counter = Counter {
        failures,
        earlier_failures,
        window_started_at: Timestamp::from_seconds(started),
    };
    let counted = match counter.count(limit, now) {
        Ok(counted) => counted,
        Err(until) => return Ok(Err(until)),
    };
    diesel::update(row)
        .set((
            t::failures.eq(counted.failures),
            t::earlier_failures.eq(counted.earlier_failures),
            t::window_started_at.eq(counted.window_started_at.seconds()),
        ))
        .execute(conn)?;
    Ok(Ok(()))
}

/// When the next attempt may be made, where the limit of this window is reached. Nothing is counted.
pub fn full_until(
    conn: &mut AnyConnection,
    bucket: &Bucket,
    limit: Limit,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let row: Option<(i64, i64, i64)> = one(
        conn,
        t::table.filter(t::bucket.eq(bucket.0.as_slice())).select((
            t::failures,
            t::earlier_failures,
            t::window_started_at,
        )),
    )?;
    Ok(row.and_then(|(failures, earlier_failures, started)| {
        let counter = Counter {
            failures,
            earlier_failures,
            window_started_at: Timestamp::from_seconds(started),
        };
        counter.count(limit, now).err()
    }))
}

/// Takes one count back: the answer was right.
pub fn take_back(conn: &mut AnyConnection, bucket: &Bucket) -> Result<(), StoreError> {
    diesel::update(
        t::table
            .filter(t::bucket.eq(bucket.0.as_slice()))
            .filter(t::failures.gt(0)),
    )
    .set(t::failures.eq(t::failures - 1))
    .execute(conn)?;
    Ok(())
}

/// Forgets what was counted, if anything was.
pub fn clear(conn: &mut AnyConnection, bucket: &Bucket) -> Result<bool, StoreError> {
    let counter = t::table
        .filter(t::bucket.eq(bucket.0.as_slice()))
        .filter(t::failures.gt(0).or(t::earlier_failures.gt(0)));
    Ok(diesel::delete(counter).execute(conn)? == 1)
}

/// Whether a counter has reached this many failures in a window that began after a time.
pub fn any_full(
    conn: &mut AnyConnection,
    failures: i64,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let found: Option<i64> = one(
        conn,
        t::table
            .filter(t::window_started_at.gt(since.seconds()))
            .filter(t::failures.ge(failures))
            .select(t::failures),
    )?;
    Ok(found.is_some())
}
