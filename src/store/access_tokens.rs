//! Access tokens that were issued: of either kind only the hash, so that one read tells whether it is good.

use diesel::prelude::*;

use super::columns::{from_json, to_time};
use super::schema::{access_tokens as t, grants, users};
use super::{AnyConnection, StoreError};
use crate::protocol::access_token::IssuedAccessToken;
use crate::protocol::client::ClientId;
use crate::protocol::grants::Grant;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

type Columns = (
    i64,
    (String, String, String, String, String, String, i64),
    Option<i64>,
    bool,
);

/// The token with its grant. It counts as revoked with its grant, and with its person.
pub fn find(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<(IssuedAccessToken, Grant)>, StoreError> {
    let row: Option<Columns> = t::table
        .inner_join(grants::table.inner_join(users::table))
        .filter(t::token_hash.eq(token.as_bytes().as_slice()))
        .select((
            t::expires_at,
            (
                grants::id,
                grants::client_id,
                grants::user_id,
                grants::session_id,
                grants::scope,
                grants::claims,
                grants::created_at,
            ),
            grants::revoked_at,
            users::disabled,
        ))
        .first(conn)
        .optional()?;
    row.map(|(expires_at, grant, revoked_at, disabled)| {
        let (id, client_id, subject, session_id, scope, claims, created_at) = grant;
        let grant = Grant {
            id,
            client_id: ClientId::from_request(&client_id),
            subject,
            session_id,
            scope: scope.parse().map_err(StoreError::fault)?,
            claims: from_json(&claims)?,
            created_at: to_time(created_at),
        };
        let token = IssuedAccessToken {
            grant_id: grant.id.clone(),
            scope: grant.scope.clone(),
            expires_at: to_time(expires_at),
            revoked: revoked_at.is_some() || disabled,
        };
        Ok((token, grant))
    })
    .transpose()
}

/// Adds a token.
pub fn insert(
    conn: &mut AnyConnection,
    hash: &TokenHash,
    grant_id: &str,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::token_hash.eq(hash.as_bytes().as_slice()),
            t::grant_id.eq(grant_id),
            t::expires_at.eq(expires_at.seconds()),
        ))
        .execute(conn)?;
    Ok(())
}
