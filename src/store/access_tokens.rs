//! Access tokens that were issued: of either kind only the hash, so that one read tells whether it is good.

use diesel::prelude::*;

use super::columns::to_time;
use super::grants::Row;
use super::schema::{access_tokens as t, grants, users};
use super::{AnyConnection, StoreError};
use crate::protocol::access_token::IssuedAccessToken;
use crate::protocol::grants::Grant;
use crate::protocol::scope::Scope;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// The token with its grant. It counts as revoked with its grant, and with its person.
pub fn find(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<(IssuedAccessToken, Grant)>, StoreError> {
    let row: Option<(i64, String, Row, Option<i64>, bool)> = t::table
        .inner_join(grants::table.inner_join(users::table))
        .filter(t::token_hash.eq(token.as_bytes().as_slice()))
        .select((
            t::expires_at,
            t::scope,
            Row::as_select(),
            grants::revoked_at,
            users::disabled,
        ))
        .first(conn)
        .optional()?;
    row.map(|(expires_at, scope, grant, revoked_at, disabled)| {
        let grant = Grant::try_from(grant)?;
        let token = IssuedAccessToken {
            grant_id: grant.id.clone(),
            scope: scope.parse().map_err(StoreError::fault)?,
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
    scope: &Scope,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::token_hash.eq(hash.as_bytes().as_slice()),
            t::grant_id.eq(grant_id),
            t::scope.eq(scope.to_string()),
            t::expires_at.eq(expires_at.seconds()),
        ))
        .execute(conn)?;
    Ok(())
}
