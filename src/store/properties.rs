//! Facts about the database itself, such as which mode it was served in.

use diesel::prelude::*;

use super::schema::properties as t;
use super::{AnyConnection, StoreError, on_each};

/// The value, if it was ever set.
pub fn find(conn: &mut AnyConnection, name: &str) -> Result<Option<String>, StoreError> {
    Ok(t::table
        .filter(t::name.eq(name))
        .select(t::value)
        .first(conn)
        .optional()?)
}

/// Sets a value unless there is one, and answers the one that holds.
pub fn find_or_set(
    conn: &mut AnyConnection,
    name: &str,
    value: &str,
) -> Result<String, StoreError> {
    on_each!(conn, c => diesel::insert_into(t::table)
        .values((t::name.eq(name), t::value.eq(value)))
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(t::table
        .filter(t::name.eq(name))
        .select(t::value)
        .first(conn)?)
}
