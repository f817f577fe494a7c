//! What happened. Rows are added and, when they are old enough, pruned; nothing changes one.

use diesel::prelude::*;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::columns::{from_json, to_json, to_time};
use super::schema::audit_events as t;
use super::{AnyConnection, StoreError, on_each};
use crate::audit::{Event, Kind, Trail};
use crate::protocol::time::Timestamp;

/// An event as it lies there.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub id: String,
    pub time: Timestamp,
    pub event: String,
    pub actor: Option<String>,
    pub target: Option<String>,
    pub client_id: Option<String>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub detail: Map<String, Value>,
}

#[derive(Insertable, Queryable)]
#[diesel(table_name = t)]
struct Row {
    id: String,
    time: i64,
    event: String,
    actor: Option<String>,
    target: Option<String>,
    client_id: Option<String>,
    address: Option<String>,
    request_id: Option<String>,
    detail: String,
    seal: Option<i64>,
}

/// Writes an event down, in the transaction of what it tells.
pub fn record(conn: &mut AnyConnection, trail: &Trail, event: &Event) -> Result<(), StoreError> {
    let told = format!("{:?}{:?}{:?}", event.target, event.client_id, event.detail);
    let id = format!("{}.{}", trail.id, short_hash(event.kind, told.as_bytes()));
    put(conn, row(id, trail, event))
}

/// Writes down what goes on for a while, once: `occasion` names which one it is.
pub fn record_once(
    conn: &mut AnyConnection,
    trail: &Trail,
    event: &Event,
    occasion: &[u8],
) -> Result<(), StoreError> {
    let id = format!("once.{}", short_hash(event.kind, occasion));
    put(conn, row(id, trail, event))
}

/// The oldest events from a place on: behind the given one, or from the beginning.
pub fn list(
    conn: &mut AnyConnection,
    behind: Option<&(Timestamp, String)>,
    most: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let mut found = t::table.into_boxed();
    if let Some((time, id)) = behind {
        let time = time.seconds();
        found = found.filter(t::time.gt(time).or(t::time.eq(time).and(t::id.gt(id))));
    }
    let rows: Vec<Row> = found.order((t::time, t::id)).limit(most).load(conn)?;
    rows.into_iter().map(Recorded::try_from).collect()
}

/// What a person did, and what was done to them, oldest first.
pub fn about(conn: &mut AnyConnection, user_id: &str) -> Result<Vec<Recorded>, StoreError> {
    let theirs = t::actor.eq(user_id).or(t::target.eq(user_id));
    let found = t::table.filter(theirs).order((t::time, t::id));
    let rows: Vec<Row> = found.load(conn)?;
    rows.into_iter().map(Recorded::try_from).collect()
}

/// Those that no seal covers yet, oldest first.
pub(super) fn unsealed(conn: &mut AnyConnection, most: i64) -> Result<Vec<Recorded>, StoreError> {
    let found = t::table.filter(t::seal.is_null());
    let rows: Vec<Row> = found.order((t::time, t::id)).limit(most).load(conn)?;
    rows.into_iter().map(Recorded::try_from).collect()
}

/// Those that a seal covers, in the order in which it was made.
pub(super) fn under_seal(conn: &mut AnyConnection, seal: i64) -> Result<Vec<Recorded>, StoreError> {
    let rows: Vec<Row> = t::table.filter(t::seal.eq(seal)).load(conn)?;
    let events: Result<Vec<_>, _> = rows.into_iter().map(Recorded::try_from).collect();
    let mut events = events?;
    events.sort_by(|a: &Recorded, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    Ok(events)
}

/// When this happened last.
pub fn last_of(conn: &mut AnyConnection, kind: Kind) -> Result<Option<Timestamp>, StoreError> {
    let last: Option<i64> = t::table
        .filter(t::event.eq(kind.as_str()))
        .select(diesel::dsl::max(t::time))
        .get_result(conn)?;
    Ok(last.map(to_time))
}

/// From where this happened to an app last.
pub fn address_of(
    conn: &mut AnyConnection,
    kind: Kind,
    client_id: &str,
) -> Result<Option<String>, StoreError> {
    let found: Vec<Option<String>> = t::table
        .filter(t::event.eq(kind.as_str()))
        .filter(t::client_id.eq(client_id).or(t::target.eq(client_id)))
        .order(t::time.desc())
        .select(t::address)
        .limit(1)
        .load(conn)?;
    Ok(found.into_iter().next().flatten())
}

fn row(id: String, trail: &Trail, event: &Event) -> Row {
    let actor = event.actor.clone();
    Row {
        id,
        time: trail.now.seconds(),
        event: event.kind.as_str().to_owned(),
        actor: actor.or_else(|| trail.actor.map(str::to_owned)),
        target: event.target.clone(),
        client_id: event.client_id.clone(),
        address: trail.address.clone(),
        request_id: trail.request_id.clone(),
        detail: to_json(&event.detail),
        seal: None,
    }
}

/// Told twice is told once.
fn put(conn: &mut AnyConnection, row: Row) -> Result<(), StoreError> {
    on_each!(conn, c => diesel::insert_into(t::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

fn short_hash(kind: Kind, told: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(kind.as_str())
        .chain_update([0])
        .chain_update(told)
        .finalize();
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Recorded {
    /// Everything that it says, as texts.
    pub(super) fn fields(&self) -> [Option<String>; 9] {
        [
            Some(self.id.clone()),
            Some(self.time.seconds().to_string()),
            Some(self.event.clone()),
            self.actor.clone(),
            self.target.clone(),
            self.client_id.clone(),
            self.address.clone(),
            self.request_id.clone(),
            Some(to_json(&self.detail)),
        ]
    }
}

impl TryFrom<Row> for Recorded {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            time: to_time(row.time),
            event: row.event,
            actor: row.actor,
            target: row.target,
            client_id: row.client_id,
            address: row.address,
            request_id: row.request_id,
            detail: from_json(&row.detail)?,
        })
    }
}
