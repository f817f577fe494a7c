//! What is over is cleared away, and nothing else is. Rows B5, N8 and R25 of the threat model.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl as _, sql_query};
use latchkey::jobs::prune_expired::{self, Outcome};
use latchkey::store::AnyConnection;
use serde_json::json;

use crate::refresh_token::{OFFLINE, assert_ended, connect, notes, refreshed};
use crate::support::on_both_databases;
use crate::support::op::{Database, Op, waiting_for};
use crate::support::race::race;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// A clock that nobody moved for so long is believed.
const LONG: Duration = HOUR;
/// Of one person's use of an app, everything that can be over.
const OF_USE: [&str; 5] = [
    "sessions",
    "grants",
    "authorization_codes",
    "access_tokens",
    "refresh_tokens",
];

fn of_use(op: &Op) -> BTreeMap<String, i64> {
    let mut rows = op.rows();
    rows.retain(|table, _| OF_USE.contains(&table.as_str()));
    rows
}

fn count(op: &Op, table: &str) -> i64 {
    op.rows()[table]
}

/// A grant that was revoked at this moment, with what was issued in it.
fn long_used_family(op: &Op, refresh_tokens: usize, access_tokens: usize) {
    let now = op.clock.now().seconds();
    op.store
        .write_blocking(move |tx| {
            let bytes = match tx {
                AnyConnection::Postgres(_) => "BYTEA",
                AnyConnection::Sqlite(_) => "BLOB",
            };
            tx.batch_execute(&format!(
                "INSERT INTO grants (id, client_id, user_id, session_id, scope, claims, resources, auth_time, acr, amr, \
                 offline, created_at, revoked_at) SELECT 'old', client_id, user_id, 'gone', scope, claims, resources, \
                 auth_time, acr, amr, offline, created_at, {now} FROM grants;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {refresh_tokens})
                 INSERT INTO refresh_tokens (token_hash, grant_id, issued_at, expires_at, retried_elsewhere, elsewhere_before)
                 SELECT CAST('refresh' || i AS {bytes}), 'old', {now}, {now}, FALSE, 0 FROM n;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {access_tokens})
                 INSERT INTO access_tokens (token_hash, grant_id, scope, expires_at, resources)
                 SELECT CAST('access' || i AS {bytes}), 'old', 'openid', {now}, '[]' FROM n"
            ))?;
            Ok(())
        })
        .unwrap();
}

#[derive(QueryableByName)]
struct Read {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// How many rows PostgreSQL has read so far in going through whole tables.
fn read_by_the_table(op: &Op) -> i64 {
    let known = "SELECT pg_stat_force_next_flush()";
    op.store
        .write_blocking(|tx| Ok(tx.batch_execute(known)?))
        .unwrap();
    op.store
        .read_blocking(|conn| {
            let sum = "SELECT SUM(seq_tup_read)::BIGINT AS rows FROM pg_stat_user_tables";
            let read: Read = sql_query(sum).get_result(conn)?;
            Ok(read.rows)
        })
        .unwrap()
}

#[test]
fn r25_what_goes_is_found_by_its_index_whatever_postgresql_believes() {
    for database in Database::all().filter(|database| *database == Database::Postgres) {
        let op = Op::start(database, &[]);
        connect(&mut op.browser(), &notes(&op, json!({})), OFFLINE);
        long_used_family(&op, 20_000, 20_000);
        op.clock.advance(2 * HOUR);
        let before = read_by_the_table(&op);
        let gone = op.prune();
        assert_eq!((gone.access_tokens, gone.grants), (20_001, 20_001));
        let read = read_by_the_table(&op) - before;
        assert!(read < 2_000, "{read}");
    }
}

on_both_databases! {
    fn b5_a_spent_token_is_a_replay_after_a_clean_up_too(op) {
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let mut latest = refreshed(&rp, stolen.refresh_token());
        // Longer than any token of it would live unused: the family goes on by being used.
        for _ in 0..3 {
            op.clock.advance(20 * DAY);
            op.prune();
            latest = refreshed(&rp, latest.refresh_token());
        }
        op.clock.advance(2 * HOUR);
        op.prune();
        assert_eq!(count(&op, "refresh_tokens"), 5, "spent ones stay with their family");
        assert_eq!(rp.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&latest, &stolen]);
        op.clock.advance(2 * HOUR);
        op.prune();
        assert_ended(&rp, &[&latest, &stolen]);
    }

    fn n8_what_was_revoked_or_signed_out_goes_with_all_that_hung_on_it(op) {
        let rp = notes(&op, json!({}));
        let mut browser = op.browser();
        let revoked = connect(&mut browser, &rp, OFFLINE);
        let revoked = refreshed(&rp, revoked.refresh_token());
        assert_eq!(rp.revoke(revoked.refresh_token()).status, 200);
        browser.complete(&op.rp().authorize(&[])).code();
        let page = browser.get("/");
        browser.submit(&page, &[]);
        assert_eq!(op.prune(), Outcome::default(), "clocks differ, so nothing goes at once");
        op.clock.advance(2 * HOUR);
        let gone = op.prune();
        assert_eq!((gone.sessions, gone.access_tokens), (1, 2));
        assert!(of_use(&op).values().all(|rows| *rows == 0), "{:?}", of_use(&op));
        assert_ended(&rp, &[&revoked]);
    }

    fn n8_a_family_that_nobody_used_goes_when_its_last_token_has_expired(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let second = refreshed(&rp, first.refresh_token());
        op.clock.advance(30 * DAY);
        op.prune();
        assert_eq!((count(&op, "grants"), count(&op, "refresh_tokens")), (1, 2), "within the hour");
        op.clock.advance(2 * HOUR);
        op.prune();
        assert!(of_use(&op).values().all(|rows| *rows == 0), "{:?}", of_use(&op));
        assert_ended(&rp, &[&second, &first]);
    }

    fn a_refresh_token_outlives_the_sign_in_only_with_offline_access(op) {
        let rp = notes(&op, json!({ "session_refresh_tokens": true }));
        let offline = connect(&mut op.browser(), &rp, OFFLINE);
        let bound = connect(&mut op.browser(), &rp, "openid email");
        op.clock.advance(14 * DAY + 2 * HOUR);
        assert_eq!(op.prune().sessions, 2);
        let offline = refreshed(&rp, offline.refresh_token());
        assert_eq!(rp.userinfo(offline.access_token()).status, 200);
        assert_eq!(rp.refresh(bound.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    fn a_sign_in_that_is_used_stays_and_an_app_finds_its_account_again(op) {
        let mut browser = op.browser();
        for _ in 0..6 {
            browser.complete(&op.rp().authorize(&[])).code();
            op.clock.advance(11 * HOUR);
            op.prune();
        }
        assert_eq!(count(&op, "grants"), 3, "those that are looked at once a day, and the newest for as long as its sign-in");
        let silent = browser.get(&op.rp().authorize(&[("prompt", "none")]));
        assert!(silent.callback().contains_key("code"), "{:?}", silent.callback());
        op.clock.advance(13 * HOUR + DAY);
        assert_eq!(op.prune().sessions, 1);
        assert!(of_use(&op).values().all(|rows| *rows == 0), "{:?}", of_use(&op));
    }

    fn a_clock_that_was_wrong_for_an_hour_costs_nothing(op) {
        let rp = notes(&op, json!({}));
        let mut browser = op.browser();
        let tokens = connect(&mut browser, &rp, OFFLINE);
        let before = of_use(&op);
        op.clock.advance(12 * HOUR + Duration::from_secs(3_599));
        op.prune();
        let after = of_use(&op);
        assert_eq!((before["sessions"], before["refresh_tokens"]), (after["sessions"], after["refresh_tokens"]));
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    }

    fn counters_of_failures_go_when_they_say_nothing_any_more(op) {
        let mut browser = op.browser();
        let page = browser.get("/login");
        browser.sign_in_as(&page, "mallory@example.test", "wrong-horse-battery");
        let counted = count(&op, "throttles");
        assert!(counted > 0);
        op.clock.advance(DAY + 15 * HOUR);
        op.prune();
        assert_eq!(count(&op, "throttles"), counted, "a sixteen-hour window and a day may still matter");
        op.clock.advance(2 * HOUR);
        op.prune();
        assert_eq!(count(&op, "throttles"), 0);
    }

    fn r25_more_than_one_transaction_should_delete_goes_in_several(op) {
        let rp = notes(&op, json!({}));
        let alive = connect(&mut op.browser(), &rp, OFFLINE);
        long_used_family(&op, 1_700, 1_200);
        op.clock.advance(2 * HOUR);
        let commits = op.store.write_counters().commits();
        let gone = op.prune();
        let commits = op.store.write_counters().commits() - commits;
        assert_eq!((gone.access_tokens, gone.grants), (1_201, 1_701));
        assert!((60..=70).contains(&commits), "50 rows a transaction, {commits}");
        assert_eq!((count(&op, "grants"), count(&op, "refresh_tokens")), (1, 1));
        refreshed(&rp, alive.refresh_token());
    }

    fn r14_what_a_clock_says_that_leapt_is_believed_after_an_hour(op) {
        let rp = notes(&op, json!({}));
        connect(&mut op.browser(), &rp, OFFLINE);
        let run = |steady_for| {
            let (store, config) = (&op.store, &op.config);
            waiting_for(prune_expired::run_if_due(store, config, op.clock.now(), steady_for)).unwrap()
        };
        let minute = Duration::from_secs(60);
        assert!(run(minute).is_some(), "nobody knows of another time");
        op.clock.advance(DAY);
        assert!(run(minute).is_some());
        let before = of_use(&op);
        op.clock.advance(400 * DAY);
        for steady_for in [Duration::ZERO, minute, HOUR - minute] {
            assert_eq!(run(steady_for), None);
        }
        assert_eq!(of_use(&op), before);
        assert!(run(HOUR).is_some());
        assert_ne!(of_use(&op), before);
    }

    fn r25_of_many_nodes_one_clears_away(op) {
        let (store, config, clock) = (&op.store, &op.config, &op.clock);
        for _ in 0..3 {
            let claims = race(12, |_| {
                waiting_for(prune_expired::run_if_due(store, config, clock.now(), LONG)).unwrap()
            });
            assert_eq!(claims.iter().flatten().count(), 1);
            clock.advance(Duration::from_secs(299));
            let early = waiting_for(prune_expired::run_if_due(store, config, clock.now(), LONG));
            assert_eq!(early.unwrap(), None);
            clock.advance(Duration::from_secs(1));
        }
    }
}
