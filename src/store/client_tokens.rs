//! Access tokens that clients got for themselves. An opaque one is a row from its beginning; a JWT says itself what it is
//! worth and becomes a row only when it is revoked, so that machines cost no write for each token.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::{self, one};
use super::schema::client_tokens as t;
use super::{AnyConnection, StoreError, on_each};
use crate::protocol::client::ClientId;
use crate::protocol::grants::client_credentials::ClientToken;
use crate::protocol::resource::Audience;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
struct Row {
    client_id: String,
    scope: String,
    resources: String,
    issued_at: i64,
    expires_at: i64,
    revoked_at: Option<i64>,
}

/// What is known of a token; whether it was revoked is the second value.
pub fn find(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<(ClientToken, bool)>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .select(query::columns::<Row>()),
    )?;
    row.map(|row| {
        let resources: Vec<String> = from_json(&row.resources)?;
        let token = ClientToken {
            client_id: ClientId::from_request(&row.client_id),
            scope: row.scope.parse().map_err(StoreError::fault)?,
            audience: Audience {
                issuer: resources.is_empty(),
                resources,
            },
            issued_at: to_time(row.issued_at),
            expires_at: to_time(row.expires_at),
        };
        Ok((token, row.revoked_at.is_some()))
    })
    .transpose()
}

/// Adds an opaque token.
pub fn insert(
    conn: &mut AnyConnection,
    hash: &TokenHash,
    token: &ClientToken,
) -> Result<(), StoreError> {
    put(conn, hash, token, None)?;
    Ok(())
}

/// Ends a token, of which there may be no row yet; of any number that try, one is told yes.
pub fn revoke(
    conn: &mut AnyConnection,
    hash: &TokenHash,
    token: &ClientToken,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if put(conn, hash, token, Some(now))? {
        return Ok(true);
    }
    let of_token = t::table.filter(t::token_hash.eq(hash.as_bytes().as_slice()));
    let changed = diesel::update(of_token.filter(t::revoked_at.is_null()))
        .set(t::revoked_at.eq(now.seconds()))
        .execute(conn)?;
    Ok(changed == 1)
}

fn put(
    conn: &mut AnyConnection,
    hash: &TokenHash,
    token: &ClientToken,
    revoked_at: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let values = (
        t::token_hash.eq(hash.as_bytes().as_slice()),
        t::client_id.eq(token.client_id.as_str()),
        t::scope.eq(token.scope.to_string()),
        t::resources.eq(to_json(&token.audience.resources)),
        t::issued_at.eq(token.issued_at.seconds()),
        t::expires_at.eq(token.expires_at.seconds()),
        t::revoked_at.eq(revoked_at.map(Timestamp::seconds)),
    );
    // Two who revoke one token at once both find no row; the one that comes second finds it done.
    let added = on_each!(conn, c => {
        diesel::insert_into(t::table)
            .values(values)
            .on_conflict_do_nothing()
            .execute(c)
    })?;
    Ok(added == 1)
}
