//! What happens to a database under a server, or to a server in the middle of its work: rows R3, R4, R7, R9, R15 and R29.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use latchkey::config::DatabaseUrl;
use latchkey::jobs::rotate_keys;
use latchkey::store::{AnyConnection, signing_keys};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, SECRET_KEY};
use crate::support::invariants::assert_sound;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::race::race;
use crate::support::relying_party::{Answer, Rp, part};
use crate::support::slow_postgres::SlowPostgres;
use crate::support::wait::{eventually, pause, within};

fn apps() -> Value {
    json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
            "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
        }]
    })
}

fn prepared(database: Database) -> (Installation, Rp) {
    let installation = Installation::new(database);
    installation.apply(&apps());
    let rp = Rp::new(&installation.issuer).named("notes");
    (installation, rp)
}

fn connect(installation: &Installation, rp: &Rp) -> Answer {
    let code = Browser::new(&installation.issuer)
        .complete(&rp.authorize(&[]))
        .code();
    let tokens = rp.exchange(&code, &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// Ends a command after so long, as `kill -9` does, or finds that it has ended.
fn killed_after(installation: &Installation, arguments: &[&str], delay: Duration) -> bool {
    let mut child = installation.spawn(arguments);
    pause(delay);
    let was_running = child.try_wait().unwrap().is_none();
    let _ended_before = child.kill();
    child.wait().unwrap();
    was_running
}

/// Different from round to round, and the same in every run.
fn delay_of(round: u64, most_ms: u64) -> Duration {
    Duration::from_micros((round * 7_919) % (most_ms * 1_000))
}

#[derive(QueryableByName, Debug, PartialEq)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Every table, column and index.
fn schema(installation: &Installation) -> Vec<Line> {
    let read = |conn: &mut AnyConnection| {
        let lines = match conn {
            AnyConnection::Sqlite(conn) => sql_query(
                "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') AS line FROM sqlite_master WHERE name NOT LIKE '%diesel%' ORDER BY line",
            )
            .load(conn),
            AnyConnection::Postgres(conn) => sql_query(
                "SELECT CONCAT_WS(' ', table_name, column_name, data_type, is_nullable, column_default) AS line \
                 FROM information_schema.columns WHERE table_schema = 'public' \
                 UNION ALL SELECT COALESCE(indexdef, '') FROM pg_indexes WHERE schemaname = 'public' ORDER BY line",
            )
            .load(conn),
        };
        Ok(lines?)
    };
    installation.store().read_blocking(read).unwrap()
}

fn count(installation: &Installation, table: &str) -> i64 {
    let query = format!("SELECT COUNT(*) AS n FROM {table}");
    let read = move |conn: &mut AnyConnection| {
        let row: Count = sql_query(query).get_result(conn)?;
        Ok(row.n)
    };
    installation.store().read_blocking(read).unwrap()
}

/// What the first release left: its schema, and so many rows.
fn first_release(installation: &Installation, rows: usize) {
    let (kind, token) = match installation.database() {
        DatabaseUrl::Sqlite(_) => ("sqlite", "x'00'"),
        DatabaseUrl::Postgres(_) => ("postgres", "'\\x00'::bytea"),
    };
    let file = format!("migrations/{kind}/0001_first_sign_in/up.sql");
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let rows = format!(
        "{schema};
         CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
         INSERT INTO __diesel_schema_migrations (version) VALUES ('0001');
         INSERT INTO clients VALUES ('notes', '{{}}', FALSE, 0, 0);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO users SELECT 'u' || i, 'u' || i, 'u' || i, FALSE, NULL, FALSE, FALSE, '[]', '{{}}', 0, 0 FROM n;
         INSERT INTO sessions VALUES ('s', {token}, 'u1', 0, NULL, '1', '[]', FALSE, 0, 0, NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO grants SELECT 'g' || i, 'notes', 'u' || i, 's', 'openid', '{{}}', '[]', 0, '1', '[]', FALSE, 0, NULL FROM n;"
    );
    let write = move |conn: &mut AnyConnection| Ok(conn.batch_execute(&rows)?);
    installation.store().write_blocking(write).unwrap();
}

#[test]
fn r3_a_migration_that_is_killed_happened_whole_or_not_at_all() {
    for database in Database::all() {
        let clean = Installation::new(database);
        clean.run(&["migrate", "up"]);
        let new = schema(&clean);
        let mut cut_short = 0;
        for round in 0..4 {
            let old = Installation::new(database);
            first_release(&old, 20_000);
            let before = schema(&old);
            for attempt in 0..5 {
                let was_running =
                    killed_after(&old, &["migrate", "up"], delay_of(round * 5 + attempt, 150));
                cut_short += u32::from(was_running);
                // PostgreSQL may still be at it when the one who asked is gone.
                eventually("the schema is the old one or the new one", || {
                    let now = schema(&old);
                    (now == before || now == new).then_some(())
                });
            }
            old.run(&["migrate", "up"]);
            assert!(schema(&old) == new);
            assert_eq!(
                (count(&old, "users"), count(&old, "grants")),
                (20_000, 20_000)
            );
            assert_sound(&old.store());
        }
        assert!(cut_short > 0, "nothing was killed in time");
    }
}

#[test]
fn r4_a_first_start_and_a_rotation_that_are_killed_leave_one_key_that_signs() {
    for database in Database::all() {
        let mut cut_short = 0;
        for round in 0..6 {
            let (installation, rp) = prepared(database);
            cut_short += u32::from(killed_after(
                &installation,
                &["serve"],
                delay_of(round, 120),
            ));
            for attempt in 0..2 {
                let rotate = ["keys", "rotate", "--now"];
                cut_short += u32::from(killed_after(
                    &installation,
                    &rotate,
                    delay_of(round * 2 + attempt, 120),
                ));
            }
            let _server = installation.start();
            let keys = installation.objects(&["keys", "list"]);
            for algorithm in ["RS256", "ES256"] {
                let current = keys
                    .iter()
                    .filter(|key| key["algorithm"] == algorithm && key["state"] == "current");
                assert_eq!(current.count(), 1, "{keys:?}");
            }
            let tokens = connect(&installation, &rp);
            let header = part(tokens.text("id_token"), 0);
            assert!(published(&rp).contains(header["kid"].as_str().unwrap()));
            assert_eq!(rp.introspect(tokens.access_token()).json["active"], true);
        }
        assert!(cut_short > 0, "nothing was killed in time");
    }
}

fn published(rp: &Rp) -> BTreeSet<String> {
    let set = rp.get("/jwks").json;
    let keys = set["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

fn status(url: &str) -> u16 {
    reqwest::blocking::get(url).unwrap().status().as_u16()
}

#[test]
fn r7_a_database_that_is_moved_away_or_replaced_fails_closed() {
    let (installation, rp) = prepared(Database::Sqlite);
    let _server = installation.start();
    let tokens = connect(&installation, &rp);
    let (file, aside) = (
        installation.path("latchkey.db"),
        installation.path("aside.db"),
    );
    let ready = format!("{}/readyz", installation.issuer);
    fs::rename(&file, &aside).unwrap();
    eventually("it is not ready", || (status(&ready) == 503).then_some(()));
    for _ in 0..3 {
        assert_eq!(
            rp.refresh(tokens.refresh_token(), &[]).error(),
            (503, "temporarily_unavailable")
        );
        assert_eq!(rp.userinfo(tokens.access_token()).status, 503);
    }
    assert_eq!(status(&format!("{}/livez", installation.issuer)), 200);
    assert_eq!(status(&format!("{}/jwks", installation.issuer)), 200);
    assert!(!file.exists(), "nobody made an empty one");
    // Somebody puts another one there: its people and tokens are not these.
    let other = Installation::new(Database::Sqlite);
    other.apply(&apps());
    fs::copy(other.path("latchkey.db"), &file).unwrap();
    assert_eq!(rp.userinfo(tokens.access_token()).status, 503);
    fs::rename(&aside, &file).unwrap();
    within(Duration::from_secs(10), "it is well again", || {
        (rp.refresh(tokens.refresh_token(), &[]).status == 200).then_some(())
    });
    assert_eq!(status(&ready), 200);
    assert_sound(&installation.store());
}

#[test]
fn r9_a_long_reader_delays_the_checkpoint_and_no_write() {
    #[derive(QueryableByName)]
    struct Checkpoint {
        #[diesel(sql_type = BigInt)]
        busy: i64,
        #[diesel(sql_type = BigInt)]
        log: i64,
        #[diesel(sql_type = BigInt)]
        checkpointed: i64,
    }
    let (installation, rp) = prepared(Database::Sqlite);
    let _server = installation.start();
    let mut tokens = connect(&installation, &rp);
    let file = installation.path("latchkey.db");
    let mut reader = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    reader
        .batch_execute("BEGIN; SELECT COUNT(*) FROM users;")
        .unwrap();
    let wal = || {
        fs::metadata(installation.path("latchkey.db-wal"))
            .unwrap()
            .len()
    };
    let before = wal();
    for _ in 0..600 {
        tokens = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);
    }
    assert!(
        wal() > before + 4 * 1024 * 1024,
        "the reader holds the log: {}",
        wal()
    );
    reader.batch_execute("COMMIT").unwrap();
    let mut looking = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    looking.batch_execute("PRAGMA busy_timeout=5000").unwrap();
    let begun = within(
        Duration::from_secs(20),
        "the log is taken over by the server's own checkpoints",
        || {
            tokens = rp.refresh(tokens.refresh_token(), &[]);
            assert_eq!(tokens.status, 200, "{}", tokens.json);
            // Its first page is written again once nobody needs what it held.
            let state: Checkpoint = sql_query("PRAGMA wal_checkpoint(PASSIVE)")
                .get_result(&mut looking)
                .unwrap();
            (state.busy == 0 && state.log == state.checkpointed).then_some(wal())
        },
    );
    for _ in 0..200 {
        tokens = rp.refresh(tokens.refresh_token(), &[]);
    }
    assert!(wal() <= begun, "it grows no more: {begun} {}", wal());
    assert!(wal() < 64 * 1024 * 1024);
}

#[test]
fn r15_whoever_keeps_the_key_set_for_as_long_as_it_says_verifies_every_token() {
    for database in Database::all() {
        let daily = [("keys.rotate_every", "1d"), ("keys.publish_before", "1h")];
        let op = crate::support::op::Op::start(database, &daily);
        let root = SECRET_KEY.parse().unwrap();
        let (rp, mut browser) = (op.rp(), op.browser());
        let cache = rp.get("/jwks").headers["cache-control"]
            .to_str()
            .unwrap()
            .to_owned();
        let seconds = cache
            .split("max-age=")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        let kept_for = Duration::from_secs(seconds.parse().unwrap());
        let step = kept_for / 2;
        let (mut kept, mut fetched_at) = (published(&rp), op.clock.now());
        let mut signed_with = BTreeSet::new();
        // Two days: each second request for keys would have been an older set's last moment.
        for _ in 0..(2 * 86_400 / step.as_secs()) {
            op.clock.advance(step);
            let now = op.clock.now();
            let outcome = rotate_keys::run(&op.store, &root, &op.config, now).unwrap();
            if outcome != rotate_keys::Outcome::default() {
                eventually("the server has seen it", || {
                    let keys = op.store.read_blocking(signing_keys::list).unwrap();
                    let known = keys
                        .into_iter()
                        .filter(signing_keys::StoredKey::is_published);
                    let known: BTreeSet<_> = known.map(|key| key.kid).collect();
                    (published(&rp) == known).then_some(())
                });
            }
            if now.since(fetched_at) >= kept_for {
                (kept, fetched_at) = (published(&rp), now);
            }
            let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
            let kid = part(tokens.text("id_token"), 0)["kid"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                kept.contains(&kid),
                "whoever kept the set for {seconds} s does not know {kid}"
            );
            signed_with.insert(kid);
        }
        assert!(signed_with.len() >= 2, "keys were rotated: {signed_with:?}");
    }
}

#[test]
fn r29_on_a_slow_database_nothing_starves_and_nothing_hangs() {
    let Some(slow) = SlowPostgres::start() else {
        return;
    };
    let installation = Installation::on_postgres(slow.create_database());
    installation.apply(&apps());
    let rp = Rp::new(&installation.issuer).named("notes");
    let _server = installation.start();
    let tokens: Vec<_> = (0..40).map(|_| connect(&installation, &rp)).collect();
    slow.delay_each_answer(Duration::from_millis(100));
    let (quick, answers) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            race(tokens.len(), |racer| {
                let began = Instant::now();
                (
                    rp.refresh(tokens[racer].refresh_token(), &[]),
                    began.elapsed(),
                )
            })
        });
        let mut quick = Vec::new();
        for path in [
            "/jwks",
            "/livez",
            "/.well-known/openid-configuration",
            "/jwks",
        ] {
            let began = Instant::now();
            assert_eq!(
                status(&format!("{}{path}", installation.issuer)),
                200,
                "{path}"
            );
            quick.push(began.elapsed());
        }
        (quick, asking.join().unwrap())
    });
    assert!(
        quick.iter().all(|took| *took < Duration::from_secs(3)),
        "{quick:?}"
    );
    for (answer, took) in &answers {
        assert!([200, 503].contains(&answer.status), "{}", answer.json);
        assert!(answer.status == 200 || answer.headers.contains_key("retry-after"));
        assert!(*took < Duration::from_secs(10), "{took:?}");
    }
    let good = answers
        .iter()
        .filter(|(answer, _)| answer.status == 200)
        .count();
    assert!(good > 20, "most are served: {good} of 40");
    slow.delay_each_answer(Duration::ZERO);
    for (tokens, (answer, _)) in tokens.iter().zip(&answers) {
        let last = if answer.status == 200 { answer } else { tokens };
        assert_eq!(
            rp.refresh(last.refresh_token(), &[]).status,
            200,
            "nobody is locked out"
        );
    }
}
