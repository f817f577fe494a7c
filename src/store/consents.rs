//! What people allowed apps to know.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
use super::query::one;
use super::schema::consents as t;
use super::{AnyConnection, StoreError, on_each};
use crate::protocol::client::ClientId;
use crate::protocol::interaction::Consent;
use crate::protocol::time::Timestamp;

#[derive(Queryable, Selectable)]
#[diesel(table_name = t)]
pub(super) struct Row {
    scope: String,
    claims: String,
}

/// What this person allowed this client.
pub fn find(
    conn: &mut AnyConnection,
    user_id: &str,
    client: &ClientId,
) -> Result<Option<Consent>, StoreError> {
    let row: Option<Row> = one(
        conn,
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::client_id.eq(client.as_str()))
            .select((t::scope, t::claims)),
    )?;
    row.map(Consent::try_from).transpose()
}

/// What this person allowed whom, and when.
pub fn of_user(
    conn: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<(ClientId, Consent, Timestamp)>, StoreError> {
    let rows: Vec<(String, i64, Row)> = t::table
        .filter(t::user_id.eq(user_id))
        .order(t::client_id)
        .select((t::client_id, t::given_at, (t::scope, t::claims)))
        .load(conn)?;
    rows.into_iter()
        .map(|(client, given_at, row)| {
            let consent = Consent::try_from(row)?;
            Ok((ClientId::from_request(&client), consent, to_time(given_at)))
        })
        .collect()
}

/// Writes down what is allowed now, in place of what was.
pub fn put(
    conn: &mut AnyConnection,
    user_id: &str,
    client: &ClientId,
    consent: &Consent,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (scope, claims) = (consent.scope.to_string(), to_json(&consent.claims));
    let row = (
        t::user_id.eq(user_id),
        t::client_id.eq(client.as_str()),
        t::scope.eq(&scope),
        t::claims.eq(&claims),
        t::given_at.eq(now.seconds()),
    );
    on_each!(conn, c => diesel::insert_into(t::table)
        .values(row)
        .on_conflict((t::user_id, t::client_id))
        .do_update()
        .set((t::scope.eq(&scope), t::claims.eq(&claims), t::given_at.eq(now.seconds())))
        .execute(c))?;
    Ok(())
}

impl TryFrom<Row> for Consent {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            scope: row.scope.parse().map_err(StoreError::fault)?,
            claims: from_json(&row.claims)?,
        })
    }
}
