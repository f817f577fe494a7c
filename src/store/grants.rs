//! Grants: what a person allowed a client in one sign-in. Every token hangs on one and ends with it.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::{self, one};
use super::schema::{self, grants as t};
use super::{AnyConnection, StoreError, consents, sessions, users};
use crate::identity::session::Session;
use crate::identity::user::User;
use crate::protocol::client::ClientId;
use crate::protocol::grants::Grant;
use crate::protocol::interaction::Consent;
use crate::protocol::time::Timestamp;

/// A grant as it lies in the database.
#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    id: String,
    client_id: String,
    user_id: String,
    session_id: String,
    scope: String,
    claims: String,
    resources: String,
    auth_time: i64,
    acr: String,
    amr: String,
    offline: bool,
    created_at: i64,
}

/// A grant that was not revoked.
pub fn find(conn: &mut AnyConnection, id: &str) -> Result<Option<Grant>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::id.eq(id))
            .filter(t::revoked_at.is_null())
            .select(query::columns::<Row>()),
    )?;
    row.map(Grant::try_from).transpose()
}

/// A grant that was not revoked, with all that it depends on.
pub struct Family {
    pub grant: Grant,
    pub user: User,
    pub consent: Option<Consent>,
    /// The sign-in that it came from, alive or not.
    pub session: Option<Session>,
}

/// By the grant's id.
pub fn find_family(conn: &mut AnyConnection, id: &str) -> Result<Option<Family>, StoreError> {
    type Rows = (
        Row,
        users::Row,
        Option<consents::Row>,
        Option<sessions::Row>,
    );
    let of_both = schema::consents::user_id
        .eq(t::user_id)
        .and(schema::consents::client_id.eq(t::client_id));
    let rows: Option<Rows> = one(
        conn,
        t::table
            .inner_join(schema::users::table)
            .left_join(schema::consents::table.on(of_both))
            .left_join(schema::sessions::table.on(schema::sessions::id.eq(t::session_id)))
            .filter(t::id.eq(id))
            .filter(t::revoked_at.is_null())
            .select((
                query::columns::<Row>(),
                query::columns::<users::Row>(),
                query::columns::<consents::Row>().nullable(),
                query::columns::<sessions::Row>().nullable(),
            )),
    )?;
    rows.map(|(grant, user, consent, session)| {
        Ok(Family {
            grant: grant.try_into()?,
            user: user.try_into()?,
            consent: consent.map(Consent::try_from).transpose()?,
            session: session.map(Session::try_from).transpose()?,
        })
    })
    .transpose()
}

/// Whether it still holds: not revoked, its person not switched off, the sign-in that it came from not ended.
pub fn is_alive(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let found: Option<String> = one(
        conn,
        t::table
            .inner_join(schema::users::table)
            .inner_join(schema::sessions::table.on(schema::sessions::id.eq(t::session_id)))
            .filter(t::id.eq(id))
            .filter(t::revoked_at.is_null())
            .filter(schema::users::disabled.eq(false))
            .filter(schema::sessions::ended_at.is_null())
            .select(t::id),
    )?;
    Ok(found.is_some())
}

/// Adds a grant.
pub fn insert(conn: &mut AnyConnection, grant: &Grant) -> Result<(), StoreError> {
    query::insert(
        conn,
        diesel::insert_into(t::table).values((
            t::id.eq(&grant.id),
            t::client_id.eq(grant.client_id.as_str()),
            t::user_id.eq(&grant.subject),
            t::session_id.eq(&grant.session_id),
            t::scope.eq(grant.scope.to_string()),
            t::claims.eq(to_json(&grant.claims)),
            t::resources.eq(to_json(&grant.resources)),
            t::auth_time.eq(grant.auth_time.seconds()),
            t::acr.eq(&grant.acr),
            t::amr.eq(to_json(&grant.amr)),
            t::offline.eq(grant.offline),
            t::created_at.eq(grant.created_at.seconds()),
            t::revoked_at.eq(None::<i64>),
            t::prune_after.eq(grant.created_at.seconds()),
        )),
    )
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

/// Whose it is or was.
pub fn subject(conn: &mut AnyConnection, id: &str) -> Result<Option<String>, StoreError> {
    one(conn, t::table.filter(t::id.eq(id)).select(t::user_id))
}

/// Ends a grant and with it every token that came from it.
pub fn revoke(conn: &mut AnyConnection, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let changed = diesel::update(
        t::table
            .filter(t::id.eq(id))
            .filter(t::revoked_at.is_null()),
    )
    .set((
        t::revoked_at.eq(now.seconds()),
        t::prune_after.eq(now.seconds()),
    ))
    .execute(conn)?;
    Ok(changed == 1)
}

/// Ends every grant that is bound to one sign-in; what a person allowed for while they are away goes on.
pub fn revoke_session(
    conn: &mut AnyConnection,
    session_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let of_session = t::table
        .filter(t::session_id.eq(session_id))
        .filter(t::offline.eq(false));
    Ok(diesel::update(of_session.filter(t::revoked_at.is_null()))
        .set((
            t::revoked_at.eq(now.seconds()),
            t::prune_after.eq(now.seconds()),
        ))
        .execute(conn)?)
}

/// A person's grants that nobody ended, latest first.
pub fn of_user(conn: &mut AnyConnection, user_id: &str) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::revoked_at.is_null())
        .order((t::created_at.desc(), t::id))
        .select(query::columns::<Row>())
        .load(conn)?;
    rows.into_iter().map(Grant::try_from).collect()
}

/// Ends every grant that is bound to a sign-in of a person.
pub fn revoke_user_sessions(
    conn: &mut AnyConnection,
    user_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let bound = t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::offline.eq(false));
    Ok(diesel::update(bound.filter(t::revoked_at.is_null()))
        .set((
            t::revoked_at.eq(now.seconds()),
            t::prune_after.eq(now.seconds()),
        ))
        .execute(conn)?)
}

/// Ends every grant of a person.
pub fn revoke_user(
    conn: &mut AnyConnection,
    user_id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let of_user = t::table.filter(t::user_id.eq(user_id));
    Ok(diesel::update(of_user.filter(t::revoked_at.is_null()))
        .set((
            t::revoked_at.eq(now.seconds()),
            t::prune_after.eq(now.seconds()),
        ))
        .execute(conn)?)
}

impl TryFrom<Row> for Grant {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            client_id: ClientId::from_request(&row.client_id),
            subject: row.user_id,
            session_id: row.session_id,
            scope: row.scope.parse().map_err(StoreError::fault)?,
            claims: from_json(&row.claims)?,
            resources: from_json(&row.resources)?,
            auth_time: to_time(row.auth_time),
            acr: row.acr,
            amr: from_json(&row.amr)?,
            offline: row.offline,
            created_at: to_time(row.created_at),
        })
    }
}
