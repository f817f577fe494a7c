//! Whoever changes the past in the database is found out. OWASP ASVS 5.0 §16.4.

use std::time::Duration;

use diesel::{RunQueryDsl as _, sql_query};
use latchkey::jobs::seal_audit;
use latchkey::seed::{Format, Seed};
use latchkey::store::audit_seals::{self, Verification};
use serde_json::json;

use crate::support::installation::{Installation, SECRET_KEY};
use crate::support::on_both_databases;
use crate::support::op::{Database, Op, now, waiting_for};
use crate::support::race::race;

fn seal(op: &Op) -> usize {
    let root = SECRET_KEY.parse().unwrap();
    waiting_for(seal_audit::run(&op.store, &root, op.clock.now())).unwrap()
}

fn verify(op: &Op) -> Verification {
    let root = SECRET_KEY.parse().unwrap();
    op.store
        .read_blocking(move |conn| audit_seals::verify(conn, &root))
        .unwrap()
}

fn execute(op: &Op, statement: &str) {
    let statement = statement.to_owned();
    op.store
        .write_blocking(move |tx| {
            sql_query(statement.clone()).execute(tx)?;
            Ok(())
        })
        .unwrap();
}

/// So many people, so many events, and all of them sealed.
fn events(op: &Op, name: &str, many: usize) {
    let people: Vec<_> = (0..many)
        .map(|number| json!({ "email": format!("{name}-{number}@example.test") }))
        .collect();
    op.seed(json!({ "users": people }));
    assert!(seal(op) >= many);
}

on_both_databases! {
    fn k10_what_was_sealed_is_whole_and_what_is_new_is_said(op) {
        events(&op, "first", 1_100);
        events(&op, "second", 3);
        op.seed(json!({ "users": [{ "email": "late@example.test" }] }));
        let found = verify(&op);
        assert_eq!(found.findings, [""; 0]);
        assert_eq!((found.seals, found.unsealed), (4, 1));
        assert!(found.events >= 1_103);
        assert_eq!(seal(&op), 1);
        assert_eq!(seal(&op), 0, "nothing is sealed twice");
        assert_eq!(verify(&op).unsealed, 0);
    }

    fn k10_r16_of_nodes_that_seal_at_once_none_takes_another_ones_events(op) {
        for round in 0..15 {
            race(6, |racer| match racer {
                0 | 1 => drop(op.seed(json!({ "users": [{ "email": format!("{round}-{racer}@example.test") }] }))),
                _ => drop(seal(&op)),
            });
        }
        seal(&op);
        let found = verify(&op);
        assert_eq!((found.findings, found.unsealed), (Vec::new(), 0));
    }

    fn k10_every_change_of_the_past_is_found(op) {
        events(&op, "first", 5);
        events(&op, "second", 5);
        events(&op, "third", 5);
        let one = "(SELECT id FROM audit_events WHERE seal = 2 ORDER BY id LIMIT 1)";
        for (change, undo, words) in [
            (format!("UPDATE audit_events SET actor = 'nobody' WHERE id = {one}"), format!("UPDATE audit_events SET actor = 'command' WHERE id = {one}"), "seal 2: one of its events was changed"),
            (format!("UPDATE audit_events SET time = time + 1 WHERE id = {one}"), format!("UPDATE audit_events SET time = time - 1 WHERE id = {one}"), "seal 2: one of its events was changed"),
            ("INSERT INTO audit_events (id, time, event, detail, seal) VALUES ('x', 1, 'login.succeeded', '{}', 2)".to_owned(), "DELETE FROM audit_events WHERE id = 'x'".to_owned(), "seal 2: covers 5 events, but 6 are there"),
            ("UPDATE audit_events SET seal = 9 WHERE seal = 2".to_owned(), "UPDATE audit_events SET seal = 2 WHERE seal = 9".to_owned(), "5 events name a seal that is not there"),
            ("UPDATE audit_seals SET newest = newest + 1 WHERE number = 2".to_owned(), "UPDATE audit_seals SET newest = newest - 1 WHERE number = 2".to_owned(), "seal 2: is not one of ours, or was changed"),
            ("UPDATE audit_seals SET number = 7 WHERE number = 3".to_owned(), "UPDATE audit_seals SET number = 3 WHERE number = 7".to_owned(), "seal 7: those before it are missing"),
        ] {
            execute(&op, &change);
            let found = verify(&op).findings;
            assert!(found.iter().any(|finding| finding == words), "{change}: {found:?}");
            execute(&op, &undo);
            assert_eq!(verify(&op).findings, [""; 0], "{undo}");
        }
        execute(&op, &format!("DELETE FROM audit_events WHERE id = {one}"));
        assert_eq!(verify(&op).findings, ["seal 2: covers 5 events, but 4 are there"]);
        execute(&op, "DELETE FROM audit_events WHERE seal = 2");
        execute(&op, "DELETE FROM audit_seals WHERE number = 2");
        assert_eq!(verify(&op).findings, ["seal 3: those before it are missing"]);
    }

    fn k10_what_is_old_goes_seal_by_seal_and_the_rest_stays_whole(op with [("audit.retention", "30d")]) {
        events(&op, "old", 700);
        op.clock.advance(Duration::from_secs(29 * 86_400));
        events(&op, "young", 5);
        op.clock.advance(Duration::from_secs(2 * 86_400));
        let gone = op.prune().audit_events;
        assert!(gone >= 700, "{gone}");
        let found = verify(&op);
        assert_eq!((found.findings.len(), found.seals, found.events), (0, 1, 5), "{found:?}");
    }

    fn an_event_of_a_clock_that_was_ahead_keeps_nothing_longer(op with [("audit.retention", "30d")]) {
        const YEARS: Duration = Duration::from_secs(3 * 365 * 86_400);
        events(&op, "old", 5);
        let ahead = op.clock.now().plus(YEARS);
        let wrong = json!({ "users": [{ "email": "ahead@example.test" }] }).to_string();
        let wrong = Seed::parse(&wrong, Format::Json, &op.config).unwrap();
        wrong.apply(&op.store, &op.config, ahead).unwrap();
        assert_eq!(seal(&op), 1);
        events(&op, "later", 5);
        op.clock.advance(Duration::from_secs(31 * 86_400));
        assert!(op.prune().audit_events >= 11);
        let found = verify(&op);
        assert_eq!((found.findings.len(), found.seals), (0, 0), "{found:?}");
    }

    fn a_seal_of_a_clock_that_was_ahead_goes_with_those_that_follow(op with [("audit.retention", "30d")]) {
        events(&op, "old", 5);
        let right = op.clock.now();
        op.clock.advance(Duration::from_secs(3 * 365 * 86_400));
        events(&op, "ahead", 5);
        op.clock.set(right);
        events(&op, "later", 5);
        op.clock.advance(Duration::from_secs(29 * 86_400));
        assert_eq!(op.prune().audit_events, 0, "none is old enough");
        op.clock.advance(Duration::from_secs(2 * 86_400));
        assert!(op.prune().audit_events >= 15);
        let found = verify(&op);
        assert_eq!((found.findings.len(), found.seals), (0, 0), "{found:?}");
    }
}

#[test]
fn a_server_seals_by_itself_and_the_command_finds_what_was_cut_off() {
    for database in Database::all() {
        let place = Installation::new(database);
        place.apply(&json!({ "users": [{ "email": "a@example.test" }] }));
        let root = SECRET_KEY.parse().unwrap();
        waiting_for(seal_audit::run(&place.store(), &root, now())).unwrap();
        let head = place.objects(&["audit", "verify"])[0]["head"]
            .as_str()
            .unwrap()
            .to_owned();
        place.apply(&json!({ "users": [{ "email": "b@example.test" }] }));
        waiting_for(seal_audit::run(&place.store(), &root, now())).unwrap();
        let (code, out) = place.answer(&["audit", "verify", "--head", &head]);
        assert_eq!(code, 0, "{out}");
        assert!(
            out.starts_with("2 events under 2 seals; 0 not sealed yet\nhead="),
            "{out}"
        );
        let last = place.objects(&["audit", "verify"])[0]["head"]
            .as_str()
            .unwrap()
            .to_owned();
        for statement in [
            "DELETE FROM audit_events WHERE seal = 2",
            "DELETE FROM audit_seals WHERE number = 2",
        ] {
            let cut = move |tx: &mut latchkey::store::AnyConnection| {
                sql_query(statement).execute(tx)?;
                Ok(())
            };
            place.store().write_blocking(cut).unwrap();
        }
        assert_eq!(
            place.answer(&["audit", "verify"]).0,
            0,
            "by itself nothing shows"
        );
        let (code, out) = place.answer(&["audit", "verify", "--head", &last]);
        assert_eq!(code, 1);
        assert!(
            out.starts_with("FINDING  the seal that --head names is gone"),
            "{out}"
        );
        let (code, _) = place.answer(&["audit", "verify", "--head", "no head!"]);
        assert_eq!(code, 2, "that is no head");
    }
}
