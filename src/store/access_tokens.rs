//! Access tokens that were issued for people: hashes only.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::{self, one};
use super::schema::{self, access_tokens as t};
use super::{AnyConnection, StoreError, grants, users};
use crate::identity::user::User;
use crate::protocol::access_token::IssuedAccessToken;
use crate::protocol::grants::Grant;
use crate::protocol::resource::Audience;
use crate::protocol::scope::Scope;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// A token that is about to be issued.
#[derive(Clone, Debug)]
pub struct NewAccessToken {
    pub hash: TokenHash,
    pub scope: Scope,
    pub audience: Audience,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
struct Columns {
    scope: String,
    for_issuer: bool,
    resources: String,
    issued_at: i64,
    expires_at: i64,
    revoked_at: Option<i64>,
}

/// The token with its grant and its person, with each of which it counts as revoked.
pub fn find(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<(IssuedAccessToken, Grant, User)>, StoreError> {
    let row: Option<(Columns, grants::Row, Option<i64>, users::Row)> = one(
        conn,
        t::table
            .inner_join(schema::grants::table.inner_join(schema::users::table))
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .select((
                query::columns::<Columns>(),
                query::columns::<grants::Row>(),
                schema::grants::revoked_at,
                query::columns::<users::Row>(),
            )),
    )?;
    row.map(|(columns, grant, grant_revoked_at, user)| {
        let (grant, user) = (Grant::try_from(grant)?, User::try_from(user)?);
        let token = IssuedAccessToken {
            grant_id: grant.id.clone(),
            scope: columns.scope.parse().map_err(StoreError::fault)?,
            audience: Audience {
                issuer: columns.for_issuer,
                resources: from_json(&columns.resources)?,
            },
            issued_at: to_time(columns.issued_at),
            expires_at: to_time(columns.expires_at),
            revoked: columns.revoked_at.is_some() || grant_revoked_at.is_some() || user.disabled,
        };
        Ok((token, grant, user))
    })
    .transpose()
}

/// Adds a token.
pub fn insert(
    conn: &mut AnyConnection,
    token: &NewAccessToken,
    grant_id: &str,
) -> Result<(), StoreError> {
    query::insert(
        conn,
        diesel::insert_into(t::table).values((
            t::token_hash.eq(token.hash.as_bytes().as_slice()),
            t::grant_id.eq(grant_id),
            t::scope.eq(token.scope.to_string()),
            t::for_issuer.eq(token.audience.issuer),
            t::resources.eq(to_json(&token.audience.resources)),
            t::issued_at.eq(token.issued_at.seconds()),
            t::expires_at.eq(token.expires_at.seconds()),
        )),
    )
}

/// Ends this one token; its family goes on.
pub fn revoke(
    conn: &mut AnyConnection,
    token: &TokenHash,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let of_token = t::table.filter(t::token_hash.eq(token.as_bytes().as_slice()));
    let changed = diesel::update(of_token.filter(t::revoked_at.is_null()))
        .set(t::revoked_at.eq(now.seconds()))
        .execute(conn)?;
    Ok(changed == 1)
}
