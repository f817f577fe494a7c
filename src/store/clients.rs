//! Apps, their secrets, and the origins that their pages run on.

use diesel::prelude::*;

use super::columns::{from_json, to_hash, to_json};
use super::schema::{client_origins, client_secrets, clients as t};
use super::{AnyConnection, StoreError};
use crate::protocol::client::{Client, ClientId};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// A client that is switched on; one that is switched off is as good as unknown.
pub fn find(conn: &mut AnyConnection, id: &ClientId) -> Result<Option<Client>, StoreError> {
    let metadata: Option<String> = t::table
        .filter(t::client_id.eq(id.as_str()))
        .filter(t::disabled.eq(false))
        .select(t::metadata)
        .first(conn)
        .optional()?;
    metadata.map(|text| from_json(&text)).transpose()
}

/// Every client, by its id.
pub fn list(conn: &mut AnyConnection) -> Result<Vec<Client>, StoreError> {
    let rows: Vec<String> = t::table
        .order(t::client_id)
        .select(t::metadata)
        .load(conn)?;
    rows.iter().map(|text| from_json(text)).collect()
}

/// The hashes of a client's secrets.
pub fn secrets(conn: &mut AnyConnection, id: &ClientId) -> Result<Vec<TokenHash>, StoreError> {
    let rows: Vec<Vec<u8>> = client_secrets::table
        .filter(client_secrets::client_id.eq(id.as_str()))
        .select(client_secrets::secret_hash)
        .load(conn)?;
    rows.iter().map(|bytes| to_hash(bytes)).collect()
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

/// Adds a client or replaces what is known of it; its secrets stay.
pub fn put(conn: &mut AnyConnection, client: &Client, now: Timestamp) -> Result<(), StoreError> {
    let id = client.client_id.as_str();
    let changed = diesel::update(t::table.filter(t::client_id.eq(id)))
        .set((
            t::metadata.eq(to_json(client)),
            t::disabled.eq(false),
            t::updated_at.eq(now.seconds()),
        ))
        .execute(conn)?;
    if changed == 0 {
        diesel::insert_into(t::table)
            .values((
                t::client_id.eq(id),
                t::metadata.eq(to_json(client)),
                t::disabled.eq(false),
                t::created_at.eq(now.seconds()),
                t::updated_at.eq(now.seconds()),
            ))
            .execute(conn)?;
    }
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

/// Makes this the client's only secret; nothing is written when it is that already.
pub fn set_secret(
    conn: &mut AnyConnection,
    id: &ClientId,
    secret: Option<&TokenHash>,
    row_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let known = secrets(conn, id)?;
    if known.as_slice() == secret.map(std::slice::from_ref).unwrap_or_default() {
        return Ok(());
    }
    diesel::delete(client_secrets::table.filter(client_secrets::client_id.eq(id.as_str())))
        .execute(conn)?;
    if let Some(secret) = secret {
        diesel::insert_into(client_secrets::table)
            .values((
                client_secrets::id.eq(row_id),
                client_secrets::client_id.eq(id.as_str()),
                client_secrets::secret_hash.eq(secret.as_bytes().as_slice()),
                client_secrets::created_at.eq(now.seconds()),
            ))
            .execute(conn)?;
    }
    Ok(())
}
