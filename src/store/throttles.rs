//! Counters of failures.

use std::time::Duration;

use diesel::prelude::*;

use super::schema::throttles as t;
use super::{AnyConnection, StoreError, on_each};
use crate::identity::throttle::Bucket;
use crate::protocol::time::Timestamp;

/// Counts an attempt, unless the limit of this window is reached; then answers when the window ends.
/// The count is one conditional statement, so parallel attempts can't slip past it.
pub fn count(
    conn: &mut AnyConnection,
    bucket: &Bucket,
    limit: u32,
    window: Duration,
    now: Timestamp,
) -> Result<Result<(), Timestamp>, StoreError> {
    let key = bucket.0.as_slice();
    on_each!(conn, c => diesel::insert_into(t::table)
        .values((t::bucket.eq(key), t::failures.eq(0), t::window_started_at.eq(now.seconds())))
        .on_conflict_do_nothing()
        .execute(c))?;
    // A window that lies in the future comes from a clock that was set back; it must not hold anybody up for ever.
    diesel::update(
        t::table.filter(t::bucket.eq(key)).filter(
            t::window_started_at
                .le(now.minus(window).seconds())
                .or(t::window_started_at.gt(now.seconds())),
        ),
    )
    .set((t::failures.eq(0), t::window_started_at.eq(now.seconds())))
    .execute(conn)?;
    let counted = diesel::update(
        t::table
            .filter(t::bucket.eq(key))
            .filter(t::failures.lt(i64::from(limit))),
    )
    .set(t::failures.eq(t::failures + 1))
    .execute(conn)?;
    if counted == 1 {
        return Ok(Ok(()));
    }
    let started: i64 = t::table
        .filter(t::bucket.eq(key))
        .select(t::window_started_at)
        .first(conn)?;
    Ok(Err(Timestamp::from_seconds(started).plus(window)))
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
