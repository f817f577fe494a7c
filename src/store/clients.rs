//! Apps, and the origins that their pages run on.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::one;
use super::schema::{client_origins, clients as t};
use super::{AnyConnection, StoreError, on_each, properties};
use crate::protocol::client::{Client, ClientId};
use crate::protocol::time::Timestamp;

/// Under this name the version of all clients together is kept.
const VERSION: &str = "clients.version";

/// Changes with every change of a client or of its secrets.
pub fn version(conn: &mut AnyConnection) -> Result<Option<String>, StoreError> {
    properties::find(conn, VERSION)
}

/// Tells every server, within a second, that it knows something old.
pub(super) fn note_change(conn: &mut AnyConnection) -> Result<(), StoreError> {
    properties::increment(conn, VERSION)
}

/// A client that is switched on; one that is switched off is as good as unknown.
pub fn find(conn: &mut AnyConnection, id: &ClientId) -> Result<Option<Client>, StoreError> {
    Ok(find_with_age(conn, id)?.map(|(client, _)| client))
}

/// The same with the time of its creation, after which everything of it was issued: an id may have been another's before.
pub fn find_with_age(
    conn: &mut AnyConnection,
    id: &ClientId,
) -> Result<Option<(Client, Timestamp)>, StoreError> {
    let row: Option<(String, i64)> = one(
        conn,
        t::table
            .filter(t::client_id.eq(id.as_str()))
            .filter(t::disabled.eq(false))
            .select((t::metadata, t::created_at)),
    )?;
    row.map(|(metadata, created_at)| Ok((from_json(&metadata)?, to_time(created_at))))
        .transpose()
}

/// The same, and until the transaction ends nobody else changes the client or counts its secrets.
pub fn find_locked(conn: &mut AnyConnection, id: &ClientId) -> Result<Option<Client>, StoreError> {
    let row = t::table.filter(t::client_id.eq(id.as_str()));
    if let AnyConnection::Postgres(c) = conn {
        let _locked: Option<String> = row
            .select(t::client_id)
            .for_no_key_update()
            .first(c)
            .optional()?;
    }
    find(conn, id)
}

/// Every client, by its id.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<Client>, StoreError> {
    let rows: Vec<String> = t::table.select(t::metadata).load(conn)?;
    let apps = rows.iter().map(|text| from_json(text));
    let mut apps = apps.collect::<Result<Vec<Client>, _>>()?;
    // Not by the database: each has an order of its own.
    apps.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    Ok(apps)
}

/// Those whose id begins so, and that were made at or before a time.
pub fn beginning_with(
    conn: &mut AnyConnection,
    prefix: &str,
    made_by: Timestamp,
) -> Result<Vec<Client>, StoreError> {
    let rows: Vec<String> = t::table
        .filter(t::client_id.like(format!("{prefix}%")))
        .filter(t::created_at.le(made_by.seconds()))
        .select(t::metadata)
        .load(conn)?;
    rows.iter().map(|text| from_json(text)).collect()
}

/// Those that came from a file.
pub fn managed(conn: &mut AnyConnection) -> Result<Vec<ClientId>, StoreError> {
    let mut ids: Vec<String> = t::table
        .filter(t::managed.eq(true))
        .select(t::client_id)
        .load(conn)?;
    ids.sort();
    Ok(ids.iter().map(|id| ClientId::from_request(id)).collect())
}

/// A file names this client; answers whether that is new.
pub fn note_managed(conn: &mut AnyConnection, id: &ClientId) -> Result<bool, StoreError> {
    let client = t::table.filter(t::client_id.eq(id.as_str()));
    let changed = diesel::update(client.filter(t::managed.eq(false)))
        .set(t::managed.eq(true))
        .execute(conn)?;
    Ok(changed == 1)
}

/// Whether any client's pages run on this origin.
pub fn any_with_origin(conn: &mut AnyConnection, origin: &str) -> Result<bool, StoreError> {
    let found: Option<String> = client_origins::table
        .inner_join(t::table.on(t::client_id.eq(client_origins::client_id)))
        .filter(client_origins::origin.eq(origin))
        .filter(t::disabled.eq(false))
        .select(client_origins::client_id)
        .first(conn)
        .optional()?;
    Ok(found.is_some())
}

/// Adds a client unless there is one of its id, switched off or not; of any number that try, one is told yes.
pub fn insert(
    conn: &mut AnyConnection,
    client: &Client,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = (
        t::client_id.eq(client.client_id.as_str()),
        t::metadata.eq(to_json(client)),
        t::disabled.eq(false),
        t::created_at.eq(now.seconds()),
        t::updated_at.eq(now.seconds()),
        t::managed.eq(false),
    );
    let added = on_each!(conn, c => diesel::insert_into(t::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?;
    if added == 1 {
        put_origins(conn, client)?;
        note_change(conn)?;
    }
    Ok(added == 1)
}

/// Adds a client or replaces what is known of it; its secrets stay.
pub fn put(conn: &mut AnyConnection, client: &Client, now: Timestamp) -> Result<(), StoreError> {
    if insert(conn, client, now)? {
        return Ok(());
    }
    diesel::update(t::table.filter(t::client_id.eq(client.client_id.as_str())))
        .set((
            t::metadata.eq(to_json(client)),
            t::disabled.eq(false),
            t::updated_at.eq(now.seconds()),
        ))
        .execute(conn)?;
    put_origins(conn, client)?;
    note_change(conn)
}

/// Removes a client with everything that was ever issued to it or allowed to it.
pub fn delete(conn: &mut AnyConnection, id: &ClientId) -> Result<bool, StoreError> {
    let removed = diesel::delete(t::table.filter(t::client_id.eq(id.as_str()))).execute(conn)?;
    note_change(conn)?;
    Ok(removed == 1)
}

fn put_origins(conn: &mut AnyConnection, client: &Client) -> Result<(), StoreError> {
    let id = client.client_id.as_str();
    diesel::delete(client_origins::table.filter(client_origins::client_id.eq(id))).execute(conn)?;
    for origin in &client.allowed_cors_origins {
        diesel::insert_into(client_origins::table)
            .values((
                client_origins::client_id.eq(id),
                client_origins::origin.eq(origin),
            ))
            .execute(conn)?;
    }
    Ok(())
}
