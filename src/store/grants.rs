//! Grants: what a person allowed a client in one sign-in. Every token hangs on one and ends with it.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::schema::grants as t;
use super::{AnyConnection, StoreError};
use crate::protocol::client::ClientId;
use crate::protocol::grants::Grant;
use crate::protocol::time::Timestamp;

type Columns = (String, String, String, String, String, String, i64);

/// A grant that was not revoked.
pub fn find(conn: &mut AnyConnection, id: &str) -> Result<Option<Grant>, StoreError> {
    let row: Option<Columns> = t::table
        .filter(t::id.eq(id))
        .filter(t::revoked_at.is_null())
        .select((
            t::id,
            t::client_id,
            t::user_id,
            t::session_id,
            t::scope,
            t::claims,
            t::created_at,
        ))
        .first(conn)
        .optional()?;
    row.map(
        |(id, client_id, subject, session_id, scope, claims, created_at)| {
            Ok(Grant {
                id,
                client_id: ClientId::from_request(&client_id),
                subject,
                session_id,
                scope: scope.parse().map_err(StoreError::fault)?,
                claims: from_json(&claims)?,
                created_at: to_time(created_at),
            })
        },
    )
    .transpose()
}

/// Adds a grant.
pub fn insert(conn: &mut AnyConnection, grant: &Grant) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::id.eq(&grant.id),
            t::client_id.eq(grant.client_id.as_str()),
            t::user_id.eq(&grant.subject),
            t::session_id.eq(&grant.session_id),
            t::scope.eq(grant.scope.to_string()),
            t::claims.eq(to_json(&grant.claims)),
            t::created_at.eq(grant.created_at.seconds()),
            t::revoked_at.eq(None::<i64>),
        ))
        .execute(conn)?;
    Ok(())
}

/// The sign-in, of these, in which a client was last given something that still holds.
pub fn newest_session(
    conn: &mut AnyConnection,
    client: &ClientId,
    sessions: &[String],
) -> Result<Option<String>, StoreError> {
    Ok(t::table
        .filter(t::client_id.eq(client.as_str()))
        .filter(t::session_id.eq_any(sessions))
        .filter(t::revoked_at.is_null())
        .order(t::created_at.desc())
        .select(t::session_id)
        .first(conn)
        .optional()?)
}

/// Ends a grant and with it every token that came from it.
pub fn revoke(conn: &mut AnyConnection, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let changed = diesel::update(
        t::table
            .filter(t::id.eq(id))
            .filter(t::revoked_at.is_null()),
    )
    .set(t::revoked_at.eq(now.seconds()))
    .execute(conn)?;
    Ok(changed == 1)
}

/// Ends every grant of one sign-in.
pub fn revoke_session(
    conn: &mut AnyConnection,
    session_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    Ok(diesel::update(
        t::table
            .filter(t::session_id.eq(session_id))
            .filter(t::revoked_at.is_null()),
    )
    .set(t::revoked_at.eq(now.seconds()))
    .execute(conn)?)
}

/// Ends every grant of a person.
pub fn revoke_user(
    conn: &mut AnyConnection,
    user_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    Ok(diesel::update(
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::revoked_at.is_null()),
    )
    .set(t::revoked_at.eq(now.seconds()))
    .execute(conn)?)
}
