//! What is written down of signing keys and of the schema, which nobody sees change. OWASP ASVS 5.0 §16.3.3.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::backend::Backend;
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};
use latchkey::config::DatabaseUrl;
use latchkey::jobs::rotate_keys;
use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::store::signing_keys::{self, KeyState};
use serde_json::{Value, json};

use crate::audit_events::named;
use crate::keys::{DAILY, rotate};
use crate::migrations::{POSTGRES, SQLITE};
use crate::support::installation::Installation;
use crate::support::on_both_databases;
use crate::support::op::{Database, Op};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
/// The version that a database of the past stopped at.
const OLD: usize = 2;

/// The keys in one state, with their algorithms.
fn in_state(op: &Op, state: KeyState) -> BTreeMap<String, Value> {
    let keys = op.store.read_blocking(signing_keys::list).unwrap();
    let keys = keys.into_iter().filter(|key| key.state == state);
    keys.map(|key| (key.kid, json!({ "algorithm": key.algorithm })))
        .collect()
}

/// To which keys something happened, with what is told of each; once each, and by the server.
fn told(op: &Op, name: &str) -> BTreeMap<String, Value> {
    let events = named(op, name);
    let by_key: BTreeMap<_, _> = events
        .iter()
        .map(|event| (event.target.clone().unwrap(), json!(event.detail)))
        .collect();
    assert_eq!(by_key.len(), events.len(), "{name} twice: {events:#?}");
    assert!(
        events
            .iter()
            .all(|event| event.actor.as_deref() == Some("server"))
    );
    by_key
}

on_both_databases! {
    fn the_end_of_every_signing_key_is_written_down_once(op with DAILY) {
        let first = in_state(&op, KeyState::Current);
        assert_eq!(first.len(), 2);
        op.clock.advance(DAY - HOUR);
        rotate(&op);
        op.clock.advance(HOUR);
        assert_eq!(rotate(&op).promoted, 2);
        assert_eq!(told(&op, "key.withdrawn").len(), 0, "tokens of theirs are good still");
        op.clock.advance(HOUR);
        for _ in 0..2 {
            rotate(&op);
            assert_eq!(told(&op, "key.withdrawn"), first);
        }
        assert_eq!(told(&op, "key.deleted").len(), 0, "hints of theirs are known still");
        op.clock.advance(400 * DAY);
        for _ in 0..2 {
            rotate(&op);
            assert_eq!(told(&op, "key.deleted"), first);
        }
        assert_eq!(told(&op, "key.retired").len(), 0, "their algorithms are on");
    }

    fn a_key_whose_algorithm_was_switched_off_is_written_down(op with DAILY) {
        let mut op = op;
        let signing = in_state(&op, KeyState::Current);
        op.restart(|config| config.keys.algorithms.retain(|on| *on == SigningAlgorithm::Rs256));
        let off: BTreeMap<_, _> = signing.into_iter().filter(|(_, detail)| detail["algorithm"] != "RS256").collect();
        assert_eq!(off.len(), 1);
        for _ in 0..2 {
            rotate(&op);
            assert_eq!(told(&op, "key.retired"), off);
        }
    }

    fn a_key_that_a_wrong_clock_published_is_written_down_when_it_waits_again(op with DAILY) {
        let root = "5a".repeat(32).parse().unwrap();
        let tomorrow = op.clock.now().plus(30 * DAY);
        rotate_keys::run(&op.store, &root, &op.config, tomorrow).unwrap();
        let next = in_state(&op, KeyState::Next);
        assert_eq!(next.len(), 2);
        assert_eq!(told(&op, "key.postponed").len(), 0);
        for _ in 0..2 {
            rotate(&op);
            assert_eq!(told(&op, "key.postponed"), next);
        }
    }
}

#[test]
fn a_schema_that_was_brought_further_is_written_down_with_what_was_run() {
    for database in Database::all() {
        let place = Installation::new(database);
        begin_in_the_past(&place);
        let before = place.answer(&["migrate", "status", "--output", "json"]).1;
        let pending: Vec<Value> = before
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["migration"].clone())
            .collect();
        assert!(!pending.is_empty());
        for _ in 0..2 {
            place.run(&["migrate", "up"]);
            let events = place.objects(&["audit", "export"]);
            let migrated: Vec<_> = events
                .iter()
                .filter(|event| event["event"] == "schema.migrated")
                .collect();
            assert_eq!(migrated.len(), 1, "what changes nothing is no event");
            assert_eq!(migrated[0]["actor"], "command");
            assert_eq!(migrated[0]["detail"], json!({ "migrations": pending }));
        }
        // Of a server that finds an old database the event is its own.
        let place = Installation::new(database);
        begin_in_the_past(&place);
        let _server = place.start();
        let events = place.objects(&["audit", "export"]);
        let migrated = events
            .iter()
            .find(|event| event["event"] == "schema.migrated");
        assert_eq!(migrated.unwrap()["actor"], "server");
    }
}

#[test]
fn the_first_schema_of_a_database_is_no_change() {
    let place = Installation::new(Database::Sqlite);
    place.run(&["migrate", "up"]);
    let events = place.objects(&["audit", "export"]);
    assert!(
        events
            .iter()
            .all(|event| event["event"] != "schema.migrated")
    );
}

/// A database as an early version left it.
fn begin_in_the_past(place: &Installation) {
    match place.database() {
        DatabaseUrl::Sqlite(file) => {
            let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
            conn.batch_execute("PRAGMA journal_mode=WAL").unwrap();
            run_the_oldest(&mut conn, SQLITE);
        }
        DatabaseUrl::Postgres(url) => {
            run_the_oldest(&mut PgConnection::establish(url).unwrap(), POSTGRES);
        }
    }
}

fn run_the_oldest<DB: Backend>(conn: &mut impl MigrationHarness<DB>, all: EmbeddedMigrations) {
    for migration in conn.pending_migrations(all).unwrap().iter().take(OLD) {
        conn.run_migration(migration).unwrap();
    }
}
