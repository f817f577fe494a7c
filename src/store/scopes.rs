//! Scopes that an operator defined.

use diesel::prelude::*;

use super::clients::note_change;
use super::columns::{from_json, to_json};
use super::query::{self, one};
use super::schema::scopes as t;
use super::{AnyConnection, StoreError};
use crate::protocol::known_scopes::{DefinedScope, KnownScopes};

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    name: String,
    description: Option<String>,
    claims: String,
}

/// Everything that a request may ask for.
pub fn known(conn: &mut AnyConnection) -> Result<KnownScopes, StoreError> {
    Ok(list(conn)?.into_iter().collect())
}

/// Those that were defined, by name.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<DefinedScope>, StoreError> {
    let mut rows: Vec<Row> = t::table.select(query::columns::<Row>()).load(conn)?;
    // Not by the database: each has an order of its own.
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows.into_iter().map(DefinedScope::try_from).collect()
}

/// One of them.
pub fn find(conn: &mut AnyConnection, name: &str) -> Result<Option<DefinedScope>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::name.eq(name))
            .select(query::columns::<Row>()),
    )?;
    row.map(DefinedScope::try_from).transpose()
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

/// Defines a scope as a file does. Servers see it within a second.
pub fn put_from_file(conn: &mut AnyConnection, scope: &DefinedScope) -> Result<(), StoreError> {
    let (description, claims) = (&scope.description, to_json(&scope.claims));
    let changed = diesel::update(t::table.filter(t::name.eq(&scope.name)))
        .set((
            t::description.eq(description),
            t::claims.eq(&claims),
            t::managed.eq(true),
        ))
        .execute(conn)?;
    if changed == 0 {
        diesel::insert_into(t::table)
            .values((
                t::name.eq(&scope.name),
                t::description.eq(description),
                t::claims.eq(&claims),
                t::managed.eq(true),
            ))
            .execute(conn)?;
    }
    note_change(conn)
}

/// Nobody is given it any more.
pub fn delete(conn: &mut AnyConnection, name: &str) -> Result<(), StoreError> {
    diesel::delete(t::table.filter(t::name.eq(name))).execute(conn)?;
    note_change(conn)
}

impl TryFrom<Row> for DefinedScope {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.name,
            description: row.description,
            claims: from_json(&row.claims)?,
        })
    }
}
