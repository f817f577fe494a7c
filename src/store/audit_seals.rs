//! Seals over audit events, by which it shows when somebody changed, added or removed one. OWASP ASVS 5.0 §16.4.
//!
//! A seal covers up to 500 events that no other covers, and names the seal before it. Its MAC is made with a key that is not in
//! the database, so whoever can only write there can't make one.

use diesel::prelude::*;
use sha2::{Digest as _, Sha256};

use super::audit_events::{self, Recorded};
use super::schema::{audit_events as e, audit_seals as t};
use super::{AnyConnection, StoreError};
use crate::protocol::seal::{RootKey, constant_time_eq, mac};
use crate::protocol::time::Timestamp;

/// Events under one seal: pruned together, in one transaction.
const MOST: i64 = 500;
/// What stands before the first seal.
const BEGINNING: [u8; 32] = [0; 32];

#[derive(Clone, Debug, Insertable, Queryable, PartialEq, Eq)]
#[diesel(table_name = t)]
struct Seal {
    number: i64,
    /// By when all of its events had been recorded.
    newest: i64,
    events: i64,
    digest: Vec<u8>,
    previous: Vec<u8>,
    mac: Vec<u8>,
}

/// What a look at all of it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    pub seals: usize,
    pub events: usize,
    /// Written down since the last seal.
    pub unsealed: i64,
    /// The last seal's MAC; whoever kept an earlier one can tell that nothing was cut off since.
    pub head: Option<Vec<u8>>,
    pub findings: Vec<String>,
}

/// Seals what is not sealed yet, at most so many events; answers how many.
pub fn seal(conn: &mut AnyConnection, root: &RootKey, now: Timestamp) -> Result<usize, StoreError> {
    // Before the events: if another node seals some in between, the number is taken, and not its events once more.
    let last: Option<Seal> = t::table.order(t::number.desc()).limit(1).load(conn)?.pop();
    let mut events = audit_events::unsealed(conn, MOST)?;
    // Databases compare texts in orders of their own.
    events.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let Some(newest) = events.iter().map(|event| event.time.seconds()).max() else {
        return Ok(0);
    };
    let number = last.as_ref().map_or(1, |last| last.number + 1);
    let previous = last.map_or(BEGINNING.to_vec(), |last| last.mac);
    let mut seal = Seal {
        number,
        // Nothing is recorded after it was sealed. What seems to be comes from a clock that was ahead, and would keep
        // everything behind it from ever being pruned.
        newest: newest.min(now.seconds()),
        events: i64::try_from(events.len()).unwrap_or(i64::MAX),
        digest: digest(&events),
        previous,
        mac: Vec::new(),
    };
    seal.mac = seal.expected_mac(root);
    // Of two nodes that seal at once, the second one finds the number taken and is rolled back.
    diesel::insert_into(t::table).values(&seal).execute(conn)?;
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    diesel::update(e::table.filter(e::id.eq_any(ids)))
        .set(e::seal.eq(number))
        .execute(conn)?;
    Ok(events.len())
}

/// Removes the oldest seal with its events, if all of them are this old; answers the names of what happened.
pub fn prune(
    conn: &mut AnyConnection,
    recorded_by: Timestamp,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let oldest: Option<Seal> = t::table.order(t::number).limit(1).load(conn)?.pop();
    let Some(oldest) = oldest else {
        return Ok(Vec::new());
    };
    let Some(newest) = credible(conn, &oldest, now)? else {
        return Ok(Vec::new());
    };
    if newest > recorded_by.seconds() {
        return Ok(Vec::new());
    }
    let of_seal = e::table.filter(e::seal.eq(oldest.number));
    let names = of_seal.select(e::event).load(conn)?;
    let gone = diesel::delete(of_seal).execute(conn)?;
    diesel::delete(t::table.filter(t::number.eq(oldest.number))).execute(conn)?;
    // Another node may have been faster.
    Ok(if gone == 0 { Vec::new() } else { names })
}

/// By when a seal's events had been recorded. Where it says a time that is none yet, the clock of who sealed it was wrong;
/// then it was before those of the first seal after it that says a time which was.
fn credible(
    conn: &mut AnyConnection,
    seal: &Seal,
    now: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let horizon = now.horizon().seconds();
    if seal.newest <= horizon {
        return Ok(Some(seal.newest));
    }
    let later = t::table
        .filter(t::number.gt(seal.number))
        .filter(t::newest.le(horizon));
    let next = later.order(t::number).select(t::newest).limit(1);
    Ok(next.load(conn)?.pop())
}

/// Compares every event with its seal and every seal with the one before it.
pub fn verify(conn: &mut AnyConnection, root: &RootKey) -> Result<Verification, StoreError> {
    let seals: Vec<Seal> = t::table.order(t::number).load(conn)?;
    let mut found = Verification {
        seals: seals.len(),
        unsealed: e::table
            .filter(e::seal.is_null())
            .count()
            .get_result(conn)?,
        head: seals.last().map(|last| last.mac.clone()),
        ..Verification::default()
    };
    let mut before: Option<&Seal> = None;
    for seal in &seals {
        let number = seal.number;
        let mut say = |what: &str| found.findings.push(format!("seal {number}: {what}"));
        if !constant_time_eq(&seal.mac, &seal.expected_mac(root)) {
            say("is not one of ours, or was changed");
        }
        match before {
            Some(before) if before.number + 1 != number => say("those before it are missing"),
            Some(before) if before.mac != seal.previous => say("does not follow the one before it"),
            None if number == 1 && seal.previous != BEGINNING => say("does not begin the chain"),
            _ => {}
        }
        let events = audit_events::under_seal(conn, number)?;
        // Others go on meanwhile, and the oldest may be pruned.
        if events.is_empty() && !contains(conn, &seal.mac)? {
            found.seals -= 1;
            before = Some(seal);
            continue;
        }
        if i64::try_from(events.len()) != Ok(seal.events) {
            let now = events.len();
            say(&format!(
                "covers {} events, but {now} are there",
                seal.events
            ));
        } else if digest(&events) != seal.digest {
            say("one of its events was changed");
        }
        found.events += events.len();
        before = Some(seal);
    }
    // One statement, since others make and prune seals meanwhile.
    let there = t::table.select(t::number.nullable());
    let strays: i64 = e::table
        .filter(e::seal.is_not_null())
        .filter(e::seal.ne_all(there))
        .count()
        .get_result(conn)?;
    if strays > 0 {
        let text = format!("{strays} events name a seal that is not there");
        found.findings.push(text);
    }
    Ok(found)
}

/// Whether there is a seal with this MAC.
pub fn contains(conn: &mut AnyConnection, mac: &[u8]) -> Result<bool, StoreError> {
    let found: i64 = t::table.filter(t::mac.eq(mac)).count().get_result(conn)?;
    Ok(found > 0)
}

impl Seal {
    fn expected_mac(&self, root: &RootKey) -> Vec<u8> {
        let numbers = [self.number, self.newest, self.events];
        let numbers: Vec<u8> = numbers.into_iter().flat_map(i64::to_be_bytes).collect();
        let data = [&numbers[..], &self.digest, &self.previous].concat();
        mac(root, "audit seal", &data).to_vec()
    }
}

fn digest(events: &[Recorded]) -> Vec<u8> {
    let mut whole = Sha256::new();
    for event in events {
        // The fields of a row in their order; the lengths keep one from reaching into the next.
        for field in event.fields() {
            let length = field.as_ref().map_or(u64::MAX, |text| text.len() as u64);
            whole.update(length.to_be_bytes());
            whole.update(field.unwrap_or_default());
        }
    }
    whole.finalize().to_vec()
}
