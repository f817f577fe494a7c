//! What every query may rely on: transactions, the writer, opening and migrating. Each runs on both databases.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use latchkey::audit::Trail;
use latchkey::config::DatabaseUrl;
use latchkey::store::{AnyConnection, MigrationError, OpenError, Options, Store, StoreError};

use crate::support::op::now;
use crate::support::postgres;

/// A database of a test's own; its files go with it.
struct Fixture {
    url: DatabaseUrl,
    _directory: Option<tempfile::TempDir>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

const SERVER: Options = Options {
    exclusive: true,
    threads: None,
};
const COMMAND: Options = Options {
    exclusive: false,
    threads: None,
};

fn sqlite() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    Fixture {
        url: DatabaseUrl::Sqlite(directory.path().join("latchkey.db")),
        _directory: Some(directory),
    }
}

fn both() -> Vec<Fixture> {
    let postgres = postgres::cluster().map(|cluster| Fixture {
        url: DatabaseUrl::Postgres(cluster.create_database(None)),
        _directory: None,
    });
    [Some(sqlite()), postgres].into_iter().flatten().collect()
}

impl Fixture {
    fn open(&self) -> Store {
        Store::open(&self.url, SERVER).unwrap()
    }

    /// A store with one table of counters, in which the counter `a` is 0.
    fn open_with_counters(&self) -> Store {
        let store = self.open();
        store.migrate(&Trail::of_command(now())).unwrap();
        store
            .write_blocking(|tx| {
                Ok(tx.batch_execute(
                    "CREATE TABLE engine_counters (id TEXT PRIMARY KEY, n BIGINT NOT NULL); \
                     INSERT INTO engine_counters VALUES ('a', 0)",
                )?)
            })
            .unwrap();
        store
    }

    fn file(&self) -> &Path {
        match &self.url {
            DatabaseUrl::Sqlite(path) => path,
            DatabaseUrl::Postgres(_) => panic!("PostgreSQL has no file"),
        }
    }
}

fn add(tx: &mut AnyConnection, amount: i64) -> Result<(), StoreError> {
    Ok(tx.batch_execute(&format!(
        "UPDATE engine_counters SET n = n + {amount} WHERE id = 'a'"
    ))?)
}

fn counter(tx: &mut AnyConnection) -> Result<i64, StoreError> {
    let row: Number = sql_query("SELECT n FROM engine_counters WHERE id = 'a'").get_result(tx)?;
    Ok(row.n)
}

fn value(store: &Store) -> i64 {
    store.read_blocking(counter).unwrap()
}

#[test]
fn a_refusal_commits() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        let refused: Result<(), &str> = store
            .write_blocking(|tx| {
                add(tx, 1)?;
                Ok(Err("replayed"))
            })
            .unwrap();
        assert_eq!(refused, Err("replayed"));
        assert_eq!(value(&store), 1);
    }
}

#[test]
fn a_fault_rolls_back() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        let fault = store.write_blocking(|tx| {
            add(tx, 1)?;
            Err::<(), _>(StoreError::fault("broken"))
        });
        assert!(matches!(fault, Err(StoreError::Fault(_))));
        assert_eq!(value(&store), 0);
    }
}

#[test]
fn a_closure_that_ignores_a_failed_statement_is_not_told_that_it_committed() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let fixture = Fixture {
        url: DatabaseUrl::Postgres(cluster.create_database(None)),
        _directory: None,
    };
    let store = fixture.open_with_counters();
    let outcome = store.write_blocking(|tx| {
        add(tx, 1)?;
        let _ = tx.batch_execute("INSERT INTO engine_counters VALUES ('a', 0)");
        Ok(())
    });
    // PostgreSQL rolled all of it back, and answers COMMIT as if it had not.
    assert!(outcome.is_err());
    assert_eq!(value(&store), 0);
}

#[test]
fn a_nested_transaction_may_fail_alone() {
    use diesel::Connection;
    for fixture in both() {
        let store = fixture.open_with_counters();
        store
            .write_blocking(|tx| {
                add(tx, 1)?;
                let inner = tx.transaction(|tx| {
                    add(tx, 10)?;
                    Err::<(), StoreError>(StoreError::fault("inner"))
                });
                assert!(inner.is_err());
                add(tx, 100)
            })
            .unwrap();
        assert_eq!(value(&store), 101);
    }
}

#[test]
fn r31_a_panic_in_one_closure_of_a_batch_harms_no_other() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        let gate = Gate::close(&store);
        let callers: Vec<_> = (0..20)
            .map(|number| {
                let store = store.clone();
                thread::spawn(move || {
                    store.write_blocking(move |tx| {
                        add(tx, 1)?;
                        match number {
                            7 => panic!("on purpose"),
                            11 => Err(StoreError::fault("on purpose")),
                            _ => Ok(()),
                        }
                    })
                })
            })
            .collect();
        gate.open_when(|| store.waiting() == 20);
        let outcomes: Vec<_> = callers.into_iter().map(|c| c.join().unwrap()).collect();
        for (number, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_ok(), number != 7 && number != 11, "{number}");
        }
        assert_eq!(value(&store), 18);
    }
}

#[test]
fn what_waits_shares_a_commit() {
    let (_fixture, store) = sqlite().open_with_counters_and_files();
    let before = store.write_counters().commits();
    let gate = Gate::close(&store);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            thread::spawn(move || store.write_blocking(|tx| add(tx, 1)))
        })
        .collect();
    gate.open_when(|| store.waiting() == 50);
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    assert_eq!(store.write_counters().commits() - before, 2);
    assert_eq!(store.write_counters().largest_batch(), 50);
}

#[test]
fn a_commit_that_fails_because_of_one_closure_fails_for_that_one_only() {
    let (_fixture, store) = sqlite().open_with_counters_and_files();
    store
        .write_blocking(|tx| {
            Ok(tx.batch_execute(
                "CREATE TABLE engine_children (parent TEXT NOT NULL \
                 REFERENCES engine_counters DEFERRABLE INITIALLY DEFERRED)",
            )?)
        })
        .unwrap();
    let gate = Gate::close(&store);
    let callers: Vec<_> = (0..5)
        .map(|number| {
            let store = store.clone();
            thread::spawn(move || {
                store.write_blocking(move |tx| {
                    if number == 3 {
                        tx.batch_execute("INSERT INTO engine_children VALUES ('nobody')")?;
                    }
                    add(tx, 1)
                })
            })
        })
        .collect();
    gate.open_when(|| store.waiting() == 5);
    let outcomes: Vec<_> = callers
        .into_iter()
        .map(|c| c.join().unwrap().is_ok())
        .collect();
    assert_eq!(outcomes, [true, true, true, false, true]);
    assert_eq!(value(&store), 4);
}

#[test]
fn nobody_is_answered_before_the_commit() {
    let (fixture, store) = sqlite().open_with_counters_and_files();
    let other = Store::open(&fixture.url, COMMAND).unwrap();
    for expected in 1..=50 {
        store.write_blocking(|tx| add(tx, 1)).unwrap();
        assert_eq!(value(&other), expected);
    }
}

/// For callers that wait as the server's do.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn what_nobody_waits_for_any_more_is_not_committed() {
    let runtime = runtime();
    for fixture in both() {
        let store = fixture.open_with_counters();
        let (begun, is_inside) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        runtime.block_on(async {
            let answer = store.write(move |tx| {
                let _ = (begun.send(()), goes_on.recv());
                add(tx, 1)
            });
            is_inside.recv().unwrap();
            drop(answer);
        });
        go_on.send(()).unwrap();
        assert!(is_inside.recv().is_err(), "the closure has gone");
        assert_eq!(value(&store), 0);
    }
}

#[test]
fn a_lone_write_waits_for_nobody() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        store.write_blocking(|tx| add(tx, 1)).unwrap();
        let start = Instant::now();
        store.write_blocking(|tx| add(tx, 1)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn increments_of_eight_threads_are_all_kept() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    for _ in 0..200 {
                        while !store.write_blocking(increment_when_unchanged).unwrap() {}
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(value(&store), 1600);
    }
}

/// Reads, then writes under the condition that what was read still holds. SQLite's one writer never needs a second try.
fn increment_when_unchanged(tx: &mut AnyConnection) -> Result<bool, StoreError> {
    let seen = counter(tx)?;
    let changed = sql_query(format!(
        "UPDATE engine_counters SET n = {} WHERE id = 'a' AND n = {seen}",
        seen + 1
    ))
    .execute(tx)?;
    Ok(changed == 1)
}

#[test]
fn a_transaction_that_ends_in_a_deadlock_runs_again() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let fixture = Fixture {
        url: DatabaseUrl::Postgres(cluster.create_database(None)),
        _directory: None,
    };
    let store = fixture.open_with_counters();
    store
        .write_blocking(|tx| Ok(tx.batch_execute("INSERT INTO engine_counters VALUES ('b', 0)")?))
        .unwrap();
    let both_hold_one = Arc::new(Barrier::new(2));
    let callers: Vec<_> = [["a", "b"], ["b", "a"]]
        .into_iter()
        .map(|order| {
            let (store, barrier) = (store.clone(), Arc::clone(&both_hold_one));
            thread::spawn(move || {
                let mut first_time = true;
                store.write_blocking(move |tx| {
                    for id in order {
                        tx.batch_execute(&format!(
                            "UPDATE engine_counters SET n = n + 1 WHERE id = '{id}'"
                        ))?;
                        if std::mem::take(&mut first_time) {
                            barrier.wait();
                        }
                    }
                    Ok(())
                })
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    assert_eq!(value(&store), 2);
}

#[test]
fn connections_that_the_server_closed_are_replaced_unseen() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let fixture = Fixture {
        url: DatabaseUrl::Postgres(url.clone()),
        _directory: None,
    };
    let store = fixture.open_with_counters();
    use diesel::{Connection, PgConnection};
    let mut outsider = PgConnection::establish(&url).unwrap();
    for _ in 0..3 {
        outsider
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .unwrap();
        for _ in 0..20 {
            store.write_blocking(|tx| add(tx, 1)).unwrap();
        }
    }
    assert_eq!(value(&store), 60);
}

#[test]
fn without_prepared_statements_everything_works_too() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = format!("{}&prepared_statements=off", cluster.create_database(None));
    let fixture = Fixture {
        url: DatabaseUrl::Postgres(url),
        _directory: None,
    };
    fixture.open().migrate(&Trail::of_command(now())).unwrap();
    let store = fixture.open_with_counters();
    store.write_blocking(|tx| add(tx, 1)).unwrap();
    assert_eq!(value(&store), 1);
    let written = store.read_blocking(|tx| add(tx, 1));
    assert!(written.is_err());
}

#[test]
fn a_read_on_sqlite_cannot_write() {
    let (_fixture, store) = sqlite().open_with_counters_and_files();
    assert!(store.read_blocking(|tx| add(tx, 1)).is_err());
    assert_eq!(value(&store), 0);
}

#[test]
fn r31_a_panic_in_a_read_harms_no_later_read() {
    for fixture in both() {
        let store = fixture.open_with_counters();
        let outcome = store.read_blocking(|_| -> Result<(), StoreError> { panic!("on purpose") });
        assert!(matches!(outcome, Err(StoreError::Fault(_))));
        for _ in 0..40 {
            assert_eq!(value(&store), 0);
        }
    }
}

#[test]
fn async_callers_get_the_same_answers() {
    let runtime = runtime();
    for fixture in both() {
        let store = fixture.open_with_counters();
        let seen = runtime.block_on(async {
            store.write(|tx| add(tx, 5)).await.unwrap();
            store.read(counter).await.unwrap()
        });
        assert_eq!(seen, 5);
    }
}

#[test]
fn an_overfull_queue_refuses_at_once() {
    let (_fixture, store) = sqlite().open_with_counters_and_files();
    let runtime = runtime();
    let gate = Gate::close(&store);
    let refused = runtime.block_on(async {
        let mut answers: Vec<_> = (0..1025).map(|_| store.write(|tx| add(tx, 1))).collect();
        answers.pop().unwrap().await
    });
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    gate.open_when(|| true);
}

#[test]
fn a_write_lock_held_by_another_process_leaves_reads_alone_and_answers_unavailable_in_time() {
    let (fixture, store) = sqlite().open_with_counters_and_files();
    use diesel::{Connection, SqliteConnection};
    let mut other = SqliteConnection::establish(fixture.file().to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let writer = {
        let store = store.clone();
        thread::spawn(move || store.write_blocking(|tx| add(tx, 1)))
    };
    assert_eq!(value(&store), 0);
    let start = Instant::now();
    assert!(matches!(
        writer.join().unwrap(),
        Err(StoreError::Unavailable(_))
    ));
    assert!(start.elapsed() < Duration::from_secs(9));
    other.batch_execute("COMMIT").unwrap();
    store.write_blocking(|tx| add(tx, 1)).unwrap();
    assert_eq!(value(&store), 1);
}

#[test]
fn a_command_finds_its_turn_beside_a_server_that_never_rests() {
    let (fixture, store) = sqlite().open_with_counters_and_files();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    store.write_blocking(|tx| add(tx, 1)).unwrap();
                }
            });
        }
        let mut turns: Vec<_> = (0..100)
            .map(|_| {
                let start = Instant::now();
                let written = Store::open(&fixture.url, COMMAND)
                    .unwrap()
                    .write_blocking(|tx| add(tx, 1));
                (start.elapsed(), written.is_ok())
            })
            .collect();
        over.store(true, Ordering::SeqCst);
        assert!(turns.iter().all(|(_, written)| *written));
        // A disk may stand still once; whoever never meets a gap waits five seconds, again and again.
        turns.sort();
        let (usual, slowest) = (turns[95].0, turns[99].0);
        assert!(usual < Duration::from_secs(1), "{usual:?}");
        assert!(slowest < Duration::from_millis(4_500), "{slowest:?}");
    });
}

#[test]
fn a_command_that_finds_nothing_to_migrate_waits_for_no_writer() {
    let fixture = sqlite();
    let store = fixture.open();
    store.migrate(&Trail::of_command(now())).unwrap();
    let gate = Gate::close(&store);
    let start = Instant::now();
    let command = Store::open(&fixture.url, COMMAND).unwrap();
    assert_eq!(command.migrate(&Trail::of_command(now())).unwrap(), [""; 0]);
    assert!(start.elapsed() < Duration::from_secs(2));
    gate.open_when(|| true);
}

#[test]
fn a_second_server_on_one_file_refuses_and_a_command_does_not() {
    let fixture = sqlite();
    let store = fixture.open();
    let second = Store::open(&fixture.url, SERVER);
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    Store::open(&fixture.url, COMMAND).unwrap();
    drop(store);
    fixture.open();
}

#[test]
fn a_second_name_of_the_file_is_no_way_around_the_lock() {
    let fixture = sqlite();
    let _store = fixture.open();
    let link = fixture.file().with_file_name("link.db");
    std::os::unix::fs::symlink(fixture.file(), &link).unwrap();
    let second = Store::open(&DatabaseUrl::Sqlite(link), SERVER);
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[test]
fn r19_by_a_hard_link_nobody_opens_a_database_a_second_time() {
    let fixture = sqlite();
    let store = fixture.open();
    let link = fixture.file().with_file_name("link.db");
    fs::hard_link(fixture.file(), &link).unwrap();
    for options in [SERVER, COMMAND] {
        let second = Store::open(&DatabaseUrl::Sqlite(link.clone()), options);
        assert!(matches!(second, Err(OpenError::SecondName { .. })));
    }
    drop(store);
    // As a restore leaves it that was interrupted.
    let kept = link.with_file_name("latchkey.db.before-restore-1");
    fs::rename(link, kept).unwrap();
    fixture.open();
}

/// Or closing it would write into whatever was put in its place, and delete that one's log.
#[test]
fn a_store_that_has_gone_has_no_file_open() {
    for _ in 0..40 {
        let fixture = sqlite();
        let store = fixture.open_with_counters();
        store.write_blocking(|tx| add(tx, 1)).unwrap();
        assert_eq!(value(&store), 1);
        drop(store);
        let open: Vec<_> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|file| file.starts_with(fixture.file().parent().unwrap()))
            .collect();
        assert!(open.is_empty(), "{open:?}");
    }
}

#[test]
fn the_files_are_for_their_owner_only() {
    let (fixture, _store) = sqlite().open_with_counters_and_files();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = fixture.file().as_os_str().to_owned();
        name.push(suffix);
        let metadata = fs::metadata(PathBuf::from(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
}

#[test]
fn a_path_may_hold_what_means_something_in_a_uri() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("50% of?it#all.db");
    let store = Store::open(&DatabaseUrl::Sqlite(file.clone()), SERVER).unwrap();
    store
        .write_blocking(|tx| Ok(tx.batch_execute("CREATE TABLE t (id TEXT)")?))
        .unwrap();
    assert!(file.exists());
    assert!(fs::metadata(file).unwrap().len() > 0);
}

#[test]
fn four_that_start_together_on_an_empty_database_migrate_once() {
    for fixture in both() {
        let together = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (url, together) = (fixture.url.clone(), Arc::clone(&together));
                thread::spawn(move || {
                    together.wait();
                    let store = Store::open(&url, COMMAND).unwrap();
                    store.migrate(&Trail::of_command(now())).unwrap()
                })
            })
            .collect();
        let runs: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(runs.iter().filter(|names| !names.is_empty()).count(), 1);
        assert!(fixture.open().pending_migrations().unwrap().is_empty());
    }
}

#[test]
fn asking_for_pending_migrations_writes_nothing() {
    for fixture in both() {
        let store = fixture.open();
        let pending = store.pending_migrations().unwrap();
        assert!(!pending.is_empty());
        assert_eq!(store.pending_migrations().unwrap(), pending);
        assert_eq!(store.migrate(&Trail::of_command(now())).unwrap(), pending);
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    for fixture in both() {
        let store = fixture.open();
        store.migrate(&Trail::of_command(now())).unwrap();
        store
            .write_blocking(|tx| {
                Ok(tx.batch_execute(
                    "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')",
                )?)
            })
            .unwrap();
        assert!(matches!(
            store.migrate(&Trail::of_command(now())),
            Err(MigrationError::NewerSchema { .. })
        ));
        drop(store);
        let Err(error) = Store::open(&fixture.url, SERVER) else {
            panic!("a newer schema was opened");
        };
        assert!(error.to_string().contains("newer version of Latchkey"));
    }
}

#[test]
fn a_file_that_was_moved_away_fails_closed_and_heals_when_it_is_back() {
    let (fixture, store) = sqlite().open_with_counters_and_files();
    let away = fixture.file().with_file_name("away.db");
    fs::rename(fixture.file(), &away).unwrap();
    let written = store.write_blocking(|tx| add(tx, 1));
    assert!(matches!(written, Err(StoreError::Unavailable(_))));
    let read = store.read_blocking(counter);
    assert!(matches!(read, Err(StoreError::Unavailable(_))));
    fs::rename(&away, fixture.file()).unwrap();
    store.write_blocking(|tx| add(tx, 1)).unwrap();
    assert_eq!(value(&store), 1);
}

#[test]
fn a_deleted_file_is_not_replaced_by_an_empty_one() {
    let (fixture, store) = sqlite().open_with_counters_and_files();
    fs::remove_file(fixture.file()).unwrap();
    let written = store.write_blocking(|tx| add(tx, 1));
    assert!(matches!(written, Err(StoreError::Unavailable(_))));
    assert!(!fixture.file().exists());
}

impl Fixture {
    fn open_with_counters_and_files(self) -> (Fixture, Store) {
        let store = self.open_with_counters();
        (self, store)
    }
}

/// Holds up SQLite's writer, so that what follows piles up behind it.
struct Gate {
    open: mpsc::Sender<()>,
    holding: thread::JoinHandle<Result<(), StoreError>>,
}

impl Gate {
    fn close(store: &Store) -> Gate {
        let (open, opened) = mpsc::channel();
        let (entered, inside) = mpsc::channel();
        let store = store.clone();
        let holding = thread::spawn(move || {
            store.write_blocking(move |_| {
                let _ = entered.send(());
                let _ = opened.recv();
                Ok(())
            })
        });
        inside.recv().unwrap();
        Gate { open, holding }
    }

    /// Opens when the condition holds, or soon where nothing piles up because there are many writers.
    fn open_when(self, condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(1);
        while !condition() && Instant::now() < until {
            thread::yield_now();
        }
        self.open.send(()).unwrap();
        self.holding.join().unwrap().unwrap();
    }
}
