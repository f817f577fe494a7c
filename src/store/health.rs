//! How a database is.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;

use super::{AnyConnection, StoreError};
use crate::protocol::time::Timestamp;

#[derive(QueryableByName)]
struct Clock {
    #[diesel(sql_type = BigInt)]
    seconds: i64,
}

/// The time where the database runs; SQLite has no clock but ours.
pub fn clock(conn: &mut AnyConnection) -> Result<Option<Timestamp>, StoreError> {
    let AnyConnection::Postgres(conn) = conn else {
        return Ok(None);
    };
    let query = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT) AS seconds";
    let clock: Clock = sql_query(query).get_result(conn)?;
    Ok(Some(Timestamp::from_seconds(clock.seconds)))
}
