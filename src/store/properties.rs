//! Facts about the database itself, such as which mode it was served in.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::query::one;
use super::schema::properties as t;
use super::{AnyConnection, StoreError, on_each};

/// The value, if it was ever set.
pub fn find(conn: &mut AnyConnection, name: &str) -> Result<Option<String>, StoreError> {
    one(conn, t::table.filter(t::name.eq(name)).select(t::value))
}

/// Counts a value up. Whoever else does so waits, so that no two changes look like one.
pub fn increment(conn: &mut AnyConnection, name: &str) -> Result<(), StoreError> {
    let next = sql::<Text>("CAST(CAST(properties.value AS BIGINT) + 1 AS TEXT)");
    on_each!(conn, c => diesel::insert_into(t::table)
        .values((t::name.eq(name), t::value.eq("1")))
        .on_conflict(t::name)
        .do_update()
        .set(t::value.eq(next))
        .execute(c))?;
    Ok(())
}

/// Puts a value in the place of the one that was read, unless somebody was quicker.
pub fn replace(
    conn: &mut AnyConnection,
    name: &str,
    old: Option<&str>,
    new: &str,
) -> Result<bool, StoreError> {
    let changed = match old {
        Some(old) => diesel::update(t::table.filter(t::name.eq(name)).filter(t::value.eq(old)))
            .set(t::value.eq(new))
            .execute(conn)?,
        None => on_each!(conn, c => diesel::insert_into(t::table)
            .values((t::name.eq(name), t::value.eq(new)))
            .on_conflict_do_nothing()
            .execute(c))?,
    };
    Ok(changed == 1)
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
        .get_result(conn)?)
}
