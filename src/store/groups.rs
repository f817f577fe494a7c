//! Groups that have a description; who is in them stands with each person.

use diesel::prelude::*;

use super::query::{self, one};
use super::schema::groups as t;
use super::{AnyConnection, StoreError};
use crate::identity::group::Group;

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    name: String,
    description: Option<String>,
}

/// All of them, by name.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<Group>, StoreError> {
    let rows: Vec<Row> = t::table.select(query::columns::<Row>()).load(conn)?;
    let mut groups: Vec<_> = rows.into_iter().map(Group::from).collect();
    // Not by the database: each has an order of its own.
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

/// One of them.
pub fn find(conn: &mut AnyConnection, name: &str) -> Result<Option<Group>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::name.eq(name))
            .select(query::columns::<Row>()),
    )?;
    Ok(row.map(Group::from))
}

/// The names of those that came from a file.
pub fn managed(conn: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = t::table
        .filter(t::managed.eq(true))
        .select(t::name)
        .load(conn)?;
    names.sort();
    Ok(names)
}

/// Describes a group as a file does.
pub fn put_from_file(conn: &mut AnyConnection, group: &Group) -> Result<(), StoreError> {
    let changed = diesel::update(t::table.filter(t::name.eq(&group.name)))
        .set((t::description.eq(&group.description), t::managed.eq(true)))
        .execute(conn)?;
    if changed == 0 {
        diesel::insert_into(t::table)
            .values((
                t::name.eq(&group.name),
                t::description.eq(&group.description),
                t::managed.eq(true),
            ))
            .execute(conn)?;
    }
    Ok(())
}

/// Removes the group itself.
pub fn delete(conn: &mut AnyConnection, name: &str) -> Result<(), StoreError> {
    diesel::delete(t::table.filter(t::name.eq(name))).execute(conn)?;
    Ok(())
}

impl From<Row> for Group {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            description: row.description,
        }
    }
}
