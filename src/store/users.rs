//! People.

use std::collections::BTreeSet;

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::{self, one};
use super::schema::users as t;
use super::{AnyConnection, StoreError, grants, sessions};
use crate::identity::user::User;
use crate::protocol::time::Timestamp;

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    id: String,
    email: String,
    email_key: String,
    email_verified: bool,
    password_hash: Option<String>,
    admin: bool,
    disabled: bool,
    group_names: String,
    claims: String,
    created_at: i64,
    updated_at: i64,
}

/// By `sub`.
pub fn find(conn: &mut AnyConnection, id: &str) -> Result<Option<User>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::id.eq(id))
            .select(query::columns::<Row>()),
    )?;
    row.map(User::try_from).transpose()
}

/// By `sub`, and until the transaction ends nobody else changes the row: what is decided by it stays true.
pub fn find_locked(conn: &mut AnyConnection, id: &str) -> Result<Option<User>, StoreError> {
    let found = t::table
        .filter(t::id.eq(id))
        .select(query::columns::<Row>());
    let row: Option<Row> = match conn {
        // A shared lock would deadlock two sign-ins that both make the hash stronger.
        AnyConnection::Postgres(c) => found.for_no_key_update().get_result(c).optional()?,
        // Whoever writes is alone.
        AnyConnection::Sqlite(c) => found.get_result(c).optional()?,
    };
    row.map(User::try_from).transpose()
}

/// By the normal form of an e-mail address.
pub fn find_by_email(
    conn: &mut AnyConnection,
    email_key: &str,
) -> Result<Option<User>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::email_key.eq(email_key))
            .select(query::columns::<Row>()),
    )?;
    row.map(User::try_from).transpose()
}

/// The ids of those whose e-mail address begins and ends so, and who were added at or before a time.
pub fn ids_between(
    conn: &mut AnyConnection,
    beginning: &str,
    end: &str,
    made_by: Timestamp,
) -> Result<Vec<String>, StoreError> {
    Ok(t::table
        .filter(t::email_key.like(format!("{beginning}%{end}")))
        .filter(t::created_at.le(made_by.seconds()))
        .select(t::id)
        .load(conn)?)
}

/// Everybody, by e-mail.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<User>, StoreError> {
    let mut rows: Vec<Row> = t::table.select(query::columns::<Row>()).load(conn)?;
    // Not by the database: each has an order of its own.
    rows.sort_by(|a, b| a.email_key.cmp(&b.email_key));
    rows.into_iter().map(User::try_from).collect()
}

/// Those who came from a file.
pub fn managed(conn: &mut AnyConnection) -> Result<Vec<User>, StoreError> {
    let mut rows: Vec<Row> = t::table
        .filter(t::managed.eq(true))
        .select(query::columns::<Row>())
        .load(conn)?;
    rows.sort_by(|a, b| a.email_key.cmp(&b.email_key));
    rows.into_iter().map(User::try_from).collect()
}

/// The ids of everybody in a group.
pub fn in_group(conn: &mut AnyConnection, group: &str) -> Result<BTreeSet<String>, StoreError> {
    // The pattern only keeps most rows out; the list that is read decides.
    let written = to_json(&group).replace(['\\', '%', '_'], "_");
    let rows: Vec<(String, String)> = t::table
        .filter(t::group_names.like(format!("%{written}%")))
        .select((t::id, t::group_names))
        .load(conn)?;
    let mut ids = BTreeSet::new();
    for (id, names) in rows {
        let names: Vec<String> = from_json(&names)?;
        if names.iter().any(|name| name == group) {
            ids.insert(id);
        }
    }
    Ok(ids)
}

/// A file names this person; answers whether that is new.
pub fn note_managed(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let changed = diesel::update(t::table.filter(t::id.eq(id)).filter(t::managed.eq(false)))
        .set(t::managed.eq(true))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Adds a person; the unique index on the e-mail's normal form refuses a second one.
pub fn insert(conn: &mut AnyConnection, user: &User) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::id.eq(&user.id),
            t::email.eq(&user.email),
            t::email_key.eq(&user.email_key),
            t::email_verified.eq(user.email_verified),
            t::password_hash.eq(&user.password_hash),
            t::admin.eq(user.admin),
            t::disabled.eq(user.disabled),
            t::group_names.eq(to_json(&user.groups)),
            t::claims.eq(to_json(&user.claims)),
            t::created_at.eq(user.created_at.seconds()),
            t::updated_at.eq(user.updated_at.seconds()),
            t::managed.eq(false),
        ))
        .execute(conn)?;
    Ok(())
}

/// Writes everything but the id and the time of creation.
pub fn update(conn: &mut AnyConnection, user: &User) -> Result<(), StoreError> {
    diesel::update(t::table.filter(t::id.eq(&user.id)))
        .set((
            t::email.eq(&user.email),
            t::email_key.eq(&user.email_key),
            t::email_verified.eq(user.email_verified),
            t::password_hash.eq(&user.password_hash),
            t::admin.eq(user.admin),
            t::disabled.eq(user.disabled),
            t::group_names.eq(to_json(&user.groups)),
            t::claims.eq(to_json(&user.claims)),
            t::updated_at.eq(user.updated_at.seconds()),
        ))
        .execute(conn)?;
    Ok(())
}

/// Replaces a hash by a stronger one of the same password, unless the password was changed meanwhile.
pub fn strengthen_hash(
    conn: &mut AnyConnection,
    id: &str,
    old: &str,
    new: &str,
) -> Result<bool, StoreError> {
    let changed = diesel::update(
        t::table
            .filter(t::id.eq(id))
            .filter(t::password_hash.eq(old)),
    )
    .set(t::password_hash.eq(new))
    .execute(conn)?;
    Ok(changed == 1)
}

/// Switches an account off or on again, and answers whether that changed anything. What was open ends with it: whoever is
/// let in again begins anew.
pub fn set_disabled(
    conn: &mut AnyConnection,
    id: &str,
    disabled: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let other = t::table
        .filter(t::id.eq(id))
        .filter(t::disabled.ne(disabled));
    let changed = diesel::update(other)
        .set((t::disabled.eq(disabled), t::updated_at.eq(now.seconds())))
        .execute(conn)?;
    if disabled {
        sessions::end_all(conn, id, now)?;
        grants::revoke_user(conn, id, now)?;
    }
    Ok(changed == 1)
}

/// Removes a person with everything that is theirs. The `sub` is never given to anybody again.
pub fn delete(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    Ok(diesel::delete(t::table.filter(t::id.eq(id))).execute(conn)? == 1)
}

/// Sets a new password, and ends what the old one opened and allowed.
pub fn change_password(
    conn: &mut AnyConnection,
    id: &str,
    hash: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // The person's row comes first. It makes us wait for sign-ins with the old password that are about to commit, so that
    // their sessions are seen below; those that come later wait for us and see the new password.
    let changed = diesel::update(t::table.filter(t::id.eq(id)))
        .set((t::password_hash.eq(hash), t::updated_at.eq(now.seconds())))
        .execute(conn)?;
    sessions::end_all(conn, id, now)?;
    grants::revoke_user(conn, id, now)?;
    Ok(changed == 1)
}

impl TryFrom<Row> for User {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            email: row.email,
            email_key: row.email_key,
            email_verified: row.email_verified,
            password_hash: row.password_hash,
            admin: row.admin,
            disabled: row.disabled,
            groups: from_json(&row.group_names)?,
            claims: from_json(&row.claims)?,
            created_at: to_time(row.created_at),
            updated_at: to_time(row.updated_at),
        })
    }
}
