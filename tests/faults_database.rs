//! What a database may do to a server beyond going away: rows R3, R7, R9 and R29.
//!
//! `cargo test` kills a few migrations. Forty on each database take half a minute:
//! `cargo test --test flows -- --ignored --nocapture r3_`

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};
use latchkey::random;
use latchkey::store::{AnyConnection, Store, properties};
use tempfile::TempDir;

use crate::faults::{AT_MOST, assert_unharmed, base, connect, prepared, well_again};
use crate::migrations::{POSTGRES, SQLITE};
use crate::support::disk::Immutable;
use crate::support::installation::Installation;
use crate::support::invariants::{assert_sound, count, rows};
use crate::support::op::Database;
use crate::support::postgres;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::{pause, within};
use crate::support::way::Way;

/// Of what each person did.
const ROWS: i64 = 50_000;
/// The version that a database of the past stopped at.
const OLD: usize = 2;

#[test]
fn r3_a_migration_that_is_killed_happens_as_a_whole_or_not_at_all() {
    kill_migrations(&OldDatabase::sqlite(), 8);
}

#[test]
fn r3_a_migration_of_postgresql_that_is_killed_happens_as_a_whole_or_not_at_all() {
    if postgres::cluster().is_some() {
        kill_migrations(&OldDatabase::postgres(), 8);
    }
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r3_forty_migrations_that_are_killed_happen_as_a_whole_or_not_at_all() {
    kill_migrations(&OldDatabase::sqlite(), 40);
    if postgres::cluster().is_some() {
        kill_migrations(&OldDatabase::postgres(), 40);
    }
}

/// A database as an early version left it, to be copied.
enum OldDatabase {
    Sqlite(TempDir),
    Postgres(String),
}

impl OldDatabase {
    fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("old.db");
        let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA journal_mode=WAL").unwrap();
        migrate_to(&mut conn, SQLITE);
        conn.batch_execute(&fill("BLOB")).unwrap();
        Self::Sqlite(folder)
    }

    fn postgres() -> Self {
        let url = postgres::cluster().unwrap().create_database(None);
        let mut conn = PgConnection::establish(&url).unwrap();
        migrate_to(&mut conn, POSTGRES);
        conn.batch_execute(&fill("BYTEA")).unwrap();
        Self::Postgres(url)
    }

    fn copy(&self) -> Installation {
        match self {
            Self::Sqlite(folder) => {
                let installation = Installation::new(Database::Sqlite);
                let file = installation.path("latchkey.db");
                fs::copy(folder.path().join("old.db"), file).unwrap();
                installation
            }
            Self::Postgres(url) => {
                let cluster = postgres::cluster().unwrap();
                Installation::on_postgres(cluster.create_database(Some(url)))
            }
        }
    }
}

fn migrate_to<DB: diesel::backend::Backend>(
    conn: &mut impl MigrationHarness<DB>,
    all: EmbeddedMigrations,
) {
    let pending = conn.pending_migrations(all).unwrap();
    for migration in pending.iter().take(OLD) {
        conn.run_migration(migration).unwrap();
    }
}

/// One app, a thousand people, and fifty thousand tokens of theirs.
fn fill(bytes: &str) -> String {
    format!(
        "INSERT INTO clients VALUES ('notes', '{{}}', FALSE, 1, 1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO users SELECT 'u' || i, 'u' || i || '@example.test', 'u' || i || '@example.test', TRUE, NULL, FALSE, FALSE,
         '[]', '{{}}', 1, 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO sessions SELECT 's' || i, CAST('s' || i AS {bytes}), 'u' || (i % 1000 + 1), 1, NULL, 'a', '[]', FALSE, 1, 1, NULL
         FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO grants SELECT 'g' || i, 'notes', 'u' || (i % 1000 + 1), 's' || i, 'openid', '{{}}', '[]', 1, 'a', '[]', TRUE, 1, NULL
         FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO access_tokens SELECT CAST('a' || i AS {bytes}), 'g' || i, 'openid', 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO refresh_tokens SELECT CAST('r' || i AS {bytes}), 'g' || i, 1, 1, NULL, NULL, FALSE, 0 FROM n"
    )
}

/// The schema as the database tells it, and which migrations ran.
fn schema(store: &Store) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text)]
        line: String,
    }
    let sqlite = "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') AS line FROM sqlite_master
        UNION ALL SELECT version FROM __diesel_schema_migrations ORDER BY 1";
    let postgres = "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT version FROM __diesel_schema_migrations ORDER BY 1";
    let lines: Vec<Line> = store
        .read_blocking(move |conn| {
            let query = match conn {
                AnyConnection::Sqlite(_) => sqlite,
                AnyConnection::Postgres(_) => postgres,
            };
            Ok(sql_query(query).load(conn)?)
        })
        .unwrap();
    lines.into_iter().map(|line| line.line).collect()
}

/// PostgreSQL finishes a statement before it notices that nobody waits for it.
fn wait_for_the_dead(store: &Store) {
    let busy = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    within(
        Duration::from_secs(30),
        "the killed one's session ends",
        || {
            let alive = store.read_blocking(move |conn| match conn {
                AnyConnection::Sqlite(_) => Ok(0),
                AnyConnection::Postgres(_) => count(conn, busy),
            });
            (alive.unwrap() == 0).then_some(())
        },
    );
}

fn kill_migrations(old: &OldDatabase, rounds: usize) {
    let clean = old.copy();
    let before = schema(&clean.store());
    let began = Instant::now();
    clean.run(&["migrate", "up"]);
    let whole = began.elapsed();
    let after = schema(&clean.store());
    assert_ne!(before, after);
    let mut unfinished = 0;
    for round in 0..rounds {
        let installation = old.copy();
        let mut migrating = installation.spawn(&["migrate", "up"]);
        // Evenly over the whole time and a little more, and by chance within its part of that.
        let chance = f64::from(u32::from_be_bytes(random::bytes())) / f64::from(u32::MAX);
        let part = u32::try_from(rounds).unwrap();
        let begins = u32::try_from(round).unwrap();
        pause((whole * begins / part + (whole / part).mul_f64(chance)).mul_f64(1.3));
        migrating.kill().unwrap();
        migrating.wait().unwrap();
        let store = installation.store();
        wait_for_the_dead(&store);
        let left = schema(&store);
        drop(store);
        assert!(left == before || left == after, "a half: {left:#?}");
        unfinished += usize::from(left == before);
        // As an operator would who knows nothing of it.
        installation.run(&["migrate", "up"]);
        let store = installation.store();
        assert_eq!(schema(&store), after);
        for table in ["sessions", "grants", "access_tokens", "refresh_tokens"] {
            assert_eq!(rows(&store, table), ROWS, "{table}");
        }
        if round % 4 == 0 {
            assert_sound(&store);
            drop(installation.start());
        }
    }
    assert!(unfinished > 0, "every kill came too late");
    eprintln!(
        "{rounds} migrations of {whole:.1?} were killed in {:.0?}, {unfinished} of them before they were done",
        began.elapsed()
    );
}

/// Nothing is written, nobody is told that it was, and whoever watches sees it.
fn assert_fails_closed(rp: &Rp, tokens: &Answer) {
    let refused = rp.refresh(tokens.refresh_token(), &[]);
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    // What was found last may be told for a moment.
    let unready = within(Duration::from_secs(1) + AT_MOST, "it is not ready", || {
        Some(rp.get("/readyz")).filter(|ready| ready.status == 503)
    });
    assert!(unready.headers.contains_key("retry-after"));
    for path in ["/jwks", "/.well-known/openid-configuration", "/livez"] {
        assert_eq!(rp.get(path).status, 200, "{path}");
    }
}

#[test]
fn r7_a_database_file_that_is_replaced_or_gone_is_used_no_more_until_it_is_back() {
    let (installation, rp) = prepared(Installation::new(Database::Sqlite));
    let server = installation.start();
    let tokens = connect(&rp);
    let base = base(&server, &rp);
    let file = installation.path("latchkey.db");
    let (away, other) = (installation.path("away.db"), installation.path("other.db"));
    installation.run(&["backup", other.to_str().unwrap()]);
    fs::rename(&file, &away).unwrap();
    assert_fails_closed(&rp, &tokens);
    assert!(!file.exists(), "no empty one takes its place");
    fs::rename(&other, &file).unwrap();
    assert_fails_closed(&rp, &tokens);
    assert_eq!(rp.userinfo(tokens.access_token()).status, 503);
    fs::rename(&away, &file).unwrap();
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

#[test]
fn r7_a_folder_that_the_server_may_not_enter_any_more_is_a_database_that_is_away() {
    let (installation, rp) = prepared(Installation::new(Database::Sqlite));
    let server = installation.start_without_privileges();
    let tokens = connect(&rp);
    let base = base(&server, &rp);
    let folder = installation.path("latchkey.db");
    let folder = folder.parent().unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o000)).unwrap();
    assert_fails_closed(&rp, &tokens);
    fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

#[test]
fn r7_while_the_disk_is_read_only_what_can_be_read_is_and_afterwards_everything_goes_on() {
    let (installation, rp) = prepared(Installation::new(Database::Sqlite));
    let server = installation.start();
    let mut tokens = connect(&rp);
    let base = base(&server, &rp);
    let files = ["latchkey.db", "latchkey.db-wal"].map(|name| installation.path(name));
    for _ in 0..2 {
        let Some(read_only) = Immutable::new(&files) else {
            return;
        };
        // Again and again: connections that are opened meanwhile must be no trap for later.
        for _ in 0..3 {
            assert_fails_closed(&rp, &tokens);
            assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        }
        drop(read_only);
        tokens = well_again(&rp, &tokens);
    }
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

#[test]
fn r7_a_postgresql_that_takes_no_writes_is_not_ready() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let (installation, rp) = prepared(Installation::on_postgres(url.clone()));
    let server = installation.start();
    let mut tokens = connect(&rp);
    let base = base(&server, &rp);
    let mut operator = PgConnection::establish(&cluster.create_database(None)).unwrap();
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    let mut read_only = |on: &str| {
        operator
            .batch_execute(&format!(
                "ALTER DATABASE {name} SET default_transaction_read_only = {on};
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ))
            .unwrap();
    };
    for _ in 0..2 {
        read_only("on");
        assert_fails_closed(&rp, &tokens);
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        read_only("off");
        tokens = well_again(&rp, &tokens);
    }
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

/// What is in the write-ahead log's head: another number when the log began anew.
fn log_generation(log: &Path) -> [u8; 4] {
    let mut head = [0; 16];
    fs::File::open(log).unwrap().read_exact(&mut head).unwrap();
    [head[12], head[13], head[14], head[15]]
}

#[test]
fn r9_a_long_reader_makes_nobody_wait_and_the_log_begins_anew_after_it() {
    let (installation, rp) = prepared(Installation::new(Database::Sqlite));
    let server = installation.start();
    let chains: Vec<_> = (0..8).map(|_| connect(&rp)).collect();
    let base = base(&server, &rp);
    let file = installation.path("latchkey.db");
    let log = installation.path("latchkey.db-wal");
    let size = || fs::metadata(&log).unwrap().len();
    let mut reader = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    let begins = "BEGIN; SELECT COUNT(*) FROM grants";
    reader.batch_execute(begins).unwrap();
    let generation = log_generation(&log);
    // More than SQLite would ever let it become without the reader: 1000 pages.
    let refresh_until = |tokens: Answer, over: &(dyn Fn() -> bool + Sync)| {
        let (mut tokens, began) = (tokens, Instant::now());
        let rp = rp.clone().on_connections_of_its_own();
        while !over() {
            tokens = rp.refresh(tokens.refresh_token(), &[]);
            assert_eq!(tokens.status, 200, "{}", tokens.json);
            assert!(began.elapsed() < Duration::from_secs(60), "{}", size());
        }
        tokens
    };
    let all_refresh_until = |chains: Vec<Answer>, over: &(dyn Fn() -> bool + Sync)| {
        thread::scope(|scope| {
            let working: Vec<_> = chains
                .into_iter()
                .map(|tokens| scope.spawn(move || refresh_until(tokens, over)))
                .collect();
            let working = working.into_iter().map(|worker| worker.join().unwrap());
            working.collect::<Vec<_>>()
        })
    };
    let chains = all_refresh_until(chains, &|| size() > 6_000_000);
    assert_eq!(log_generation(&log), generation, "the reader is in the way");
    reader.batch_execute("ROLLBACK").unwrap();
    drop(reader);
    let grown = size();
    // While everybody goes on, it is written back and begins at its start.
    let chains = all_refresh_until(chains, &|| log_generation(&log) != generation);
    assert!(size() < grown + 4_000_000, "{grown} became {}", size());
    assert_unharmed(&installation, &rp, server, &base, &chains);
}

#[test]
fn r9_a_log_that_a_reader_let_grow_gives_its_space_back() {
    let (installation, _rp) = prepared(Installation::new(Database::Sqlite));
    let store = installation.store();
    let file = installation.path("latchkey.db");
    let log = installation.path("latchkey.db-wal");
    let size = || fs::metadata(&log).unwrap().len() / 1024 / 1024;
    let write = |number: usize| {
        let value = number.to_string().repeat(1024 * 1024);
        let written = store.write_blocking(move |tx| {
            let known = properties::find(tx, "large")?;
            properties::replace(tx, "large", known.as_deref(), &value)
        });
        assert!(written.unwrap());
    };
    let mut reader = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    let begins = "BEGIN; SELECT COUNT(*) FROM grants";
    reader.batch_execute(begins).unwrap();
    for number in 0..80 {
        write(number % 10);
    }
    assert!(size() > 72, "{} MiB", size());
    reader.batch_execute("ROLLBACK").unwrap();
    for number in 0..4 {
        write(number);
    }
    assert!(size() <= 64, "{} MiB", size());
}

#[test]
fn r29_while_postgresql_takes_its_time_nobody_waits_without_end_and_everybody_has_a_turn() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let way = Way::to(&cluster.directory);
    let url = way.url(&cluster.create_database(None));
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let server = installation.start();
    let chains: Vec<_> = (0..60).map(|_| connect(&rp)).collect();
    let base = base(&server, &rp);
    way.delay_by(Duration::from_millis(100));
    let (rp, longest) = (&rp, &Mutex::new(Duration::ZERO));
    let timed = |ask: &dyn Fn() -> Answer| {
        let began = Instant::now();
        let answer = ask();
        let took = began.elapsed();
        let mut longest = longest.lock().unwrap();
        *longest = took.max(*longest);
        answer
    };
    let shed = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        // What needs no database does not wait for it.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for path in ["/livez", "/jwks", "/.well-known/openid-configuration"] {
                    let began = Instant::now();
                    assert_eq!(rp.get(path).status, 200, "{path}");
                    let took = began.elapsed();
                    assert!(took < Duration::from_secs(3), "{path}: {took:?}");
                }
                pause(Duration::from_millis(20));
            }
        });
        let working: Vec<_> = chains
            .iter()
            .map(|tokens| {
                scope.spawn(|| {
                    let rp = rp.clone().on_connections_of_its_own();
                    within(Duration::from_secs(60), "everybody has a turn", || {
                        let answer = timed(&|| rp.refresh(tokens.refresh_token(), &[]));
                        if answer.status == 200 {
                            return Some(answer);
                        }
                        assert_eq!(answer.error(), (503, "temporarily_unavailable"));
                        assert!(answer.headers.contains_key("retry-after"));
                        shed.fetch_add(1, Ordering::Relaxed);
                        None
                    })
                })
            })
            .collect();
        let working = working.into_iter().map(|worker| worker.join());
        let last: Vec<_> = working.collect();
        over.store(true, Ordering::Relaxed);
        last
    });
    let longest = *longest.lock().unwrap();
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    way.delay_by(Duration::ZERO);
    let last: Vec<_> = last.into_iter().map(Result::unwrap).collect();
    assert_unharmed(&installation, rp, server, &base, &last);
    eprintln!(
        "60 refreshes at once, each answer of the database 100 ms late: {longest:.1?} for the slowest, {} refused for now",
        shed.into_inner()
    );
}
