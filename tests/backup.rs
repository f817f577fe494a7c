//! Copies of the database, and what a copy from the past must not bring back. Rows R23, R24 and O15.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use latchkey::clock::Clock;
use latchkey::config::DatabaseUrl;
use latchkey::protocol::jose::{KeyPair, Signer, SigningAlgorithm, Typ};
use latchkey::store::{AnyConnection, Options, Store};
use serde_json::json;
use tempfile::TempDir;

use crate::client_assertion::TYPE;
use crate::support::browser::Browser;
use crate::support::disk::Disk;
use crate::support::installation::{Installation, names_in};
use crate::support::invariants::{assert_sound, count};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::{eventually, pause};

const OFFLINE: &str = "openid offline_access";

/// With alice and an app that refreshes and acts for itself.
fn installation(database: Database) -> (Installation, Rp) {
    let installation = Installation::new(database);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "scope": "openid offline_access orders",
            "grant_types": ["authorization_code", "refresh_token", "client_credentials"]
        }]
    }));
    let rp = Rp::new(&installation.issuer).named("notes");
    (installation, rp)
}

fn connect(browser: &mut Browser, rp: &Rp) -> Answer {
    let code = browser
        .complete(&rp.authorize_with_pkce(&[("scope", OFFLINE)]))
        .code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

fn open(file: &Path) -> Store {
    Store::open(&DatabaseUrl::Sqlite(file.to_owned()), Options::default()).unwrap()
}

fn is_refused(rp: &Rp, refresh_token: &str) -> bool {
    rp.refresh(refresh_token, &[]).error() == (400, "invalid_grant")
}

fn add_bob(installation: &Installation) {
    installation.apply(&json!({ "users": [{ "email": "bob@example.test" }] }));
}

fn people(installation: &Installation) -> usize {
    installation.objects(&["users", "list"]).len()
}

/// As any program of SQLite's does, it keeps the database open until it is dropped.
fn reader_of(file: &Path) -> SqliteConnection {
    let mut reader = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    reader
        .batch_execute("BEGIN; SELECT COUNT(*) FROM users")
        .unwrap();
    reader
}

#[test]
fn r23_backups_under_load_are_each_whole_and_one_of_them_is_what_a_restore_brings() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let stop = AtomicBool::new(false);
    let chains = [(); 3].map(|()| connect(&mut Browser::new(&installation.issuer), &rp));
    let refreshes: usize = thread::scope(|scope| {
        let load = chains.map(|mut latest| {
            let (rp, stop) = (&rp, &stop);
            scope.spawn(move || {
                let mut refreshes = 0;
                while !stop.load(Ordering::SeqCst) {
                    latest = rp.refresh(latest.refresh_token(), &[]);
                    assert_eq!(latest.status, 200, "{}", latest.json);
                    refreshes += 1;
                }
                refreshes
            })
        });
        for number in 0..5 {
            let name = format!("backup-{number}.db");
            installation.run(&["backup", &name]);
            let file = installation.path(&name);
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600
            );
            assert_sound(&open(&file));
            pause(Duration::from_secs(2));
        }
        stop.store(true, Ordering::SeqCst);
        load.into_iter().map(|chain| chain.join().unwrap()).sum()
    });
    eprintln!("{refreshes} refreshes while five backups were made");
    assert!(refreshes > 6);
    let leftovers: Vec<_> = names_in(installation.path("").as_path())
        .into_iter()
        .filter(|name| name.contains(".part-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    server.kill();
    installation.run(&["restore", "backup-2.db"]);
    assert_sound(&installation.store());
    assert_has_all_of(&installation, "backup-2.db");
}

/// Of everything that an epoch does not end, no row is missing and none is new.
fn assert_has_all_of(installation: &Installation, backup: &str) {
    let attach = format!("ATTACH '{}' AS b", installation.path(backup).display());
    let lasting = [
        "users",
        "clients",
        "client_secrets",
        "signing_keys",
        "refresh_tokens",
        "access_tokens",
        "consents",
    ];
    let found = installation.store().read_blocking(move |conn| {
        let AnyConnection::Sqlite(sqlite) = &mut *conn else {
            unreachable!("it is SQLite's")
        };
        sqlite.batch_execute(&attach)?;
        let mut found = Vec::new();
        for table in lasting {
            for (one, other) in [("main", "b"), ("b", "main")] {
                let less = format!("SELECT COUNT(*) AS n FROM (SELECT * FROM {one}.{table} EXCEPT SELECT * FROM {other}.{table})");
                found.push((table, count(conn, &less)?));
            }
        }
        Ok(found)
    });
    for (table, different) in found.unwrap() {
        assert_eq!(different, 0, "{table}");
    }
}

#[test]
fn r23_on_a_full_disk_a_backup_to_another_succeeds_and_what_does_not_fit_changes_nothing() {
    let Some(disk) = Disk::new() else { return };
    let installation = Installation::in_folder(&disk.path(""));
    installation.apply(&json!({ "users": [{ "email": EMAIL }] }));
    let server = installation.start();
    installation.run(&["backup", "early.db"]);
    add_bob(&installation);
    disk.fill();
    installation.run(&["backup", "late.db"]);
    assert_sound(&open(&installation.path("late.db")));
    let full = disk.path("full.db");
    let before = names_in(&disk.path(""));
    installation.refused(&["backup", full.to_str().unwrap()]);
    server.kill();
    let said = installation.refused(&["restore", "early.db"]);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(names_in(&disk.path("")), before, "no draft is left behind");
    disk.empty();
    assert_eq!(people(&installation), 2);
    installation.run(&["restore", "early.db"]);
    assert_eq!(people(&installation), 1);
}

/// What a timeline has that ends with it.
struct Timeline {
    browser: Browser,
    tokens: Vec<Answer>,
    machine: Answer,
    unused: String,
    keys: serde_json::Value,
}

impl Timeline {
    fn begin(rp: &Rp) -> Self {
        let mut browser = Browser::new(&rp.issuer);
        let first = connect(&mut browser, rp);
        let machine = rp.client_credentials(&[("scope", "orders")]);
        assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
        let unused = browser
            .complete(&rp.authorize_with_pkce(&[("scope", OFFLINE)]))
            .code();
        Self {
            browser,
            tokens: vec![first],
            machine,
            unused,
            keys: rp.get("/jwks").json,
        }
    }

    fn go_on(&mut self, rp: &Rp) {
        for _ in 0..4 {
            let latest = self.tokens.last().unwrap().refresh_token();
            self.tokens.push(rp.refresh(latest, &[]));
        }
    }

    fn assert_is_over(&mut self, rp: &Rp) {
        let (first, latest) = (&self.tokens[0], self.tokens.last().unwrap());
        for token in [first.refresh_token(), latest.refresh_token()] {
            assert!(is_refused(rp, token));
        }
        assert_eq!(
            rp.exchange_with_pkce(&self.unused).error(),
            (400, "invalid_grant")
        );
        for token in [first, latest, &self.machine].map(Answer::access_token) {
            assert_eq!(rp.introspect(token).json, json!({ "active": false }));
        }
        assert_eq!(rp.userinfo(latest.access_token()).status, 401);
        assert!(
            self.browser
                .get(&rp.authorize_with_pkce(&[]))
                .has("input[name=password]"),
            "nobody is signed in any more"
        );
        assert_eq!(
            rp.get("/jwks").json,
            self.keys,
            "what was signed before can be verified"
        );
        let again = connect(&mut Browser::new(&rp.issuer), rp);
        assert_eq!(rp.refresh(again.refresh_token(), &[]).status, 200);
        let machine = rp.client_credentials(&[("scope", "orders")]);
        assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
    }
}

#[test]
fn r24_a_restore_brings_back_people_and_keys_and_nothing_that_was_used_or_revoked() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let mut timeline = Timeline::begin(&rp);
    installation.run(&["backup", "yesterday.db"]);
    timeline.go_on(&rp);
    server.kill();
    installation.run(&["restore", "yesterday.db"]);
    let _server = installation.start();
    timeline.assert_is_over(&rp);
    assert_sound(&installation.store());
    let events = installation.objects(&["audit", "export"]);
    assert!(
        events
            .iter()
            .any(|event| event["event"] == "database.restored")
    );
}

#[test]
fn r24_an_assertion_from_before_a_restore_is_refused_whether_it_was_used_or_not() {
    let (installation, rp) = installation(Database::Sqlite);
    let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
    installation.apply(&json!({ "clients": [{
        "client_id": "robot", "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [key.public_jwk()] },
        "grant_types": ["client_credentials"], "scope": "orders"
    }] }));
    let sign = || {
        let now = Clock::system().now().seconds();
        let claims = json!({
            "iss": "robot", "sub": "robot", "aud": installation.issuer, "exp": now + 60, "iat": now,
            "jti": latchkey::random::id()
        });
        let signer = Signer::new(&key).unwrap();
        signer
            .sign(Typ::IdToken, claims.as_object().unwrap())
            .unwrap()
    };
    let send = |assertion: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ];
        rp.answer(rp.http().post(format!("{}/token", rp.issuer)).form(&form))
    };
    let server = installation.start();
    installation.run(&["backup", "copy.db"]);
    let (used, unused) = (sign(), sign());
    assert_eq!(send(&used).status, 200);
    server.kill();
    installation.run(&["restore", "copy.db"]);
    let _server = installation.start();
    for assertion in [used, unused] {
        let refused = send(&assertion);
        assert_eq!(refused.error(), (401, "invalid_client"));
        let why = refused.text("error_description");
        assert!(why.contains("which was restored"), "{why}");
    }
    assert_eq!(send(&sign()).status, 200);
}

#[test]
fn r24_the_database_of_before_is_kept_and_can_be_put_back() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    installation.run(&["backup", "before-bob.db"]);
    add_bob(&installation);
    server.kill();
    let restored = installation.objects(&["restore", "before-bob.db"]);
    assert_eq!(people(&installation), 1);
    let kept = restored[0]["kept"].as_str().unwrap();
    installation.run(&["restore", kept]);
    assert_eq!(
        people(&installation),
        2,
        "what was in the write-ahead log is in it too"
    );
    let _server = installation.start();
    connect(&mut Browser::new(&installation.issuer), &rp);
}

#[test]
fn r24_a_log_whose_database_is_gone_is_never_read_into_the_restored_one() {
    let (installation, _rp) = installation(Database::Sqlite);
    let server = installation.start();
    installation.run(&["backup", "copy.db"]);
    add_bob(&installation);
    server.kill();
    let [file, log] = ["latchkey.db", "latchkey.db-wal"].map(|name| installation.path(name));
    let written = fs::read(&log).unwrap();
    assert!(!written.is_empty());
    fs::rename(file, installation.path("broken.db")).unwrap();
    let restored = installation.objects(&["restore", "copy.db"]);
    assert_eq!(people(&installation), 1);
    assert_sound(&installation.store());
    assert_eq!(restored[0]["kept"], json!(null));
    let beside = restored[0]["kept_beside"].as_array().unwrap();
    let mut kept = beside.iter().filter_map(|file| file.as_str());
    let kept = kept.find(|file| file.ends_with("-wal")).unwrap();
    assert_eq!(fs::read(kept).unwrap(), written);
}

#[test]
fn r24_a_broken_database_is_replaced_and_kept() {
    let (installation, _rp) = installation(Database::Sqlite);
    installation.run(&["backup", "copy.db"]);
    let text = "this is a text\n".repeat(500);
    fs::write(installation.path("latchkey.db"), &text).unwrap();
    let restored = installation.objects(&["restore", "copy.db"]);
    assert_eq!(people(&installation), 1);
    assert_sound(&installation.store());
    let kept = restored[0]["kept"].as_str().unwrap();
    assert_eq!(fs::read_to_string(kept).unwrap(), text);
}

#[test]
fn r24_nothing_is_restored_while_somebody_else_has_either_file_open() {
    let (installation, _rp) = installation(Database::Sqlite);
    let server = installation.start();
    installation.run(&["backup", "copy.db"]);
    add_bob(&installation);
    server.kill();
    for name in ["latchkey.db", "copy.db"] {
        let reader = reader_of(&installation.path(name));
        let before = names_in(installation.path("").as_path());
        let said = installation.refused(&["restore", "copy.db"]);
        assert!(said.contains("somebody else has"), "{said}");
        assert_eq!(names_in(installation.path("").as_path()), before);
        assert_eq!(people(&installation), 2);
        drop(reader);
    }
    installation.run(&["restore", "copy.db"]);
    assert_eq!(people(&installation), 1);
}

#[test]
fn r24_a_log_beside_a_backup_is_part_of_it() {
    let (installation, _rp) = installation(Database::Sqlite);
    let server = installation.start();
    add_bob(&installation);
    server.kill();
    for suffix in ["", "-wal"] {
        let [from, to] =
            ["latchkey.db", "moved.db"].map(|name| installation.path(&format!("{name}{suffix}")));
        fs::rename(from, to).unwrap();
    }
    installation.run(&["restore", "moved.db"]);
    assert_eq!(people(&installation), 2);
    assert_sound(&installation.store());
}

/// Only root can take a file away from another account.
#[test]
fn r24_what_root_makes_beside_a_database_belongs_to_the_databases_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const SOMEBODY: u32 = 65534;
    let installation = Installation::new(Database::Sqlite);
    let folder = installation.path("");
    chown(&folder, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let config = fs::read_to_string(installation.path("latchkey.toml")).unwrap();
    let own_key = config
        .lines()
        .filter(|line| !line.starts_with("secret_key"));
    let own_key = own_key.collect::<Vec<_>>().join("\n");
    fs::write(installation.path("latchkey.toml"), own_key).unwrap();
    let assert_given = || {
        let names = names_in(&folder);
        let ours = names
            .iter()
            .filter(|name| name.starts_with("latchkey.") && *name != "latchkey.toml");
        for name in ours {
            let metadata = fs::metadata(installation.path(name)).unwrap();
            assert_eq!(
                (metadata.uid(), metadata.gid()),
                (SOMEBODY, SOMEBODY),
                "{name} of {names:?}"
            );
        }
        names.len()
    };
    installation.apply(&json!({ "users": [{ "email": EMAIL }] }));
    let made = assert_given();
    let server = installation.start();
    assert_given();
    installation.run(&["backup", "copy.db"]);
    server.kill();
    fs::remove_file(installation.path("latchkey.db.lock")).unwrap();
    installation.run(&["restore", "copy.db"]);
    assert!(assert_given() > made);
}

#[test]
fn r19_nothing_is_restored_under_a_running_server() {
    let (installation, rp) = installation(Database::Sqlite);
    let _server = installation.start();
    let tokens = connect(&mut Browser::new(&installation.issuer), &rp);
    installation.run(&["backup", "copy.db"]);
    for arguments in [&["restore", "copy.db"][..], &["restore", "--epoch-only"]] {
        let said = installation.refused(arguments);
        assert!(said.contains("another Latchkey server is using"), "{said}");
    }
    assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
}

#[test]
fn r21_what_is_no_good_backup_changes_nothing() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let tokens = connect(&mut Browser::new(&installation.issuer), &rp);
    installation.run(&["backup", "good.db"]);
    server.kill();
    fs::write(
        installation.path("garbage.db"),
        "this is a text\n".repeat(500),
    )
    .unwrap();
    fs::write(installation.path("empty.db"), "").unwrap();
    let mut cut = fs::read(installation.path("good.db")).unwrap();
    cut.truncate(cut.len() / 2);
    fs::write(installation.path("cut.db"), cut).unwrap();
    let before = names_in(installation.path("").as_path());
    for (name, words) in [
        ("garbage.db", "no backup of Latchkey"),
        ("empty.db", "no backup of Latchkey: it is empty"),
        ("cut.db", "no backup of Latchkey: it breaks off"),
        ("missing.db", "No such file"),
    ] {
        let said = installation.refused(&["restore", name]);
        assert!(said.contains(words), "{name}: {said}");
    }
    let said = installation.refused_with(
        &["restore", "good.db"],
        "LATCHKEY_SECRET_KEY",
        &"77".repeat(32),
    );
    assert!(said.contains("the secret key is not the one"), "{said}");
    assert_eq!(
        names_in(installation.path("").as_path()),
        before,
        "no draft is left behind"
    );
    let _server = installation.start();
    assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
}

#[test]
fn r21_a_restore_says_what_is_wrong_with_the_file() {
    let (installation, _rp) = installation(Database::Sqlite);
    installation.run(&["backup", "good.db"]);
    let good = fs::read(installation.path("good.db")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(installation.path(name), bytes).unwrap();
    let changed = |from: usize, to: usize| {
        let mut bytes = good.clone();
        bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0x5a);
        bytes
    };
    let size = good.len();
    write("empty.db", b"");
    write("text.db", &b"this is a text\n".repeat(500));
    write("garbled.db", &changed(0, size));
    write("packed.db", b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
    write("dump.db", b"PGDMP\x01\x0e\0");
    write("half.db", &good[..size / 2]);
    write("less-one.db", &good[..size - 1]);
    write("header.db", &good[..50]);
    write("magic.db", &good[..7]);
    write("damaged.db", &changed(8_192, 60_000));
    write("newer.db", &good);
    write("foreign.db", b"");
    let run = |name: &str, statements: &str| {
        let file = installation.path(name);
        let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        conn.batch_execute(statements).unwrap();
    };
    run(
        "newer.db",
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')",
    );
    run("foreign.db", "CREATE TABLE others (name TEXT)");
    let half = format!("it breaks off: of its {size} bytes {} are there", size / 2);
    for (name, cause) in [
        ("empty.db", "it is empty"),
        (
            "text.db",
            "it is no SQLite database: it is encrypted, garbled or something else",
        ),
        (
            "garbled.db",
            "it is no SQLite database: it is encrypted, garbled or something else",
        ),
        ("packed.db", "it is packed with gzip; unpack it first"),
        (
            "dump.db",
            "it is a dump of PostgreSQL, which pg_restore reads",
        ),
        ("half.db", half.as_str()),
        ("less-one.db", "it breaks off: of its"),
        ("header.db", "it breaks off after 50 bytes"),
        ("magic.db", "it breaks off after 7 bytes"),
        ("damaged.db", "it is damaged ("),
        (
            "newer.db",
            "the database was written by a newer version of Latchkey",
        ),
        ("foreign.db", "it has no tables of Latchkey"),
    ] {
        let said = installation.refused(&["restore", name]);
        let begins = match name {
            "newer.db" => format!("latchkey: {name}: {cause}"),
            _ => format!("latchkey: {name} is no backup of Latchkey: {cause}"),
        };
        assert!(said.starts_with(&begins), "{name}: {said}");
        assert!(said.ends_with("; nothing was changed\n"), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
    }
}

/// SQLite would write the log into whatever lies there, and delete it.
#[test]
fn r24_a_log_beside_something_that_is_no_database_is_kept_as_it_is() {
    let (installation, _rp) = installation(Database::Sqlite);
    installation.run(&["backup", "copy.db"]);
    // One that holds a database from its first page on, and one that nobody can read.
    let logs = [log_of_a_new_database(), b"no log at all ".repeat(700)];
    for (log, text) in logs
        .iter()
        .flat_map(|log| ["", "S", "this is a text\n", "SQLite format 2\0"].map(|text| (log, text)))
    {
        let text = text.repeat(300);
        fs::write(installation.path("latchkey.db"), &text).unwrap();
        fs::write(installation.path("latchkey.db-wal"), log).unwrap();
        let restored = installation.objects(&["restore", "copy.db"]);
        assert_eq!(people(&installation), 1);
        let kept = restored[0]["kept"].as_str().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
        assert_eq!(fs::read(format!("{kept}-wal")).unwrap(), *log, "{text:.20}");
        assert_sound(&installation.store());
    }
}

fn log_of_a_new_database() -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("new.db");
    let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    conn.batch_execute("PRAGMA journal_mode=WAL; CREATE TABLE others (name TEXT)")
        .unwrap();
    let log = fs::read(file.with_extension("db-wal")).unwrap();
    assert!(!log.is_empty());
    log
}

#[test]
fn o15_a_backup_overwrites_nothing_and_holds_nothing_that_opens_anything() {
    let (installation, rp) = installation(Database::Sqlite);
    let _server = installation.start();
    let tokens = connect(&mut Browser::new(&installation.issuer), &rp);
    installation.run(&["backup", "copy.db"]);
    let copy = fs::read(installation.path("copy.db")).unwrap();
    let holds = |text: &str| {
        copy.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(holds(EMAIL), "it is what it should be");
    for secret in [
        tokens.refresh_token(),
        tokens.access_token(),
        PASSWORD,
        SECRET,
        "PRIVATE KEY",
    ] {
        assert!(!holds(secret), "{secret}");
    }
    let said = installation.refused(&["backup", "copy.db"]);
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(fs::read(installation.path("copy.db")).unwrap(), copy);
}

/// Between the two lies everything that a restore does.
#[test]
fn r24_a_restore_that_is_killed_leaves_one_of_the_two_databases_whole() {
    let (installation, rp) = installation(Database::Sqlite);
    installation.run(&["backup", "one.db"]);
    add_bob(&installation);
    let mut found = [0, 0];
    for round in 0..16 {
        let mut restoring = installation.spawn(&["restore", "one.db"]);
        // The draft is made at once, and takes its place when the second has ended.
        if round % 2 == 1 {
            let began = Clock::system().now();
            eventually("the second ends", || {
                (Clock::system().now() > began).then_some(())
            });
        }
        pause(Duration::from_millis(round * 4));
        let _ended_before = restoring.kill();
        restoring.wait().unwrap();
        let left = people(&installation);
        found[left - 1] += 1;
        assert_sound(&installation.store());
        if left == 1 {
            add_bob(&installation);
        }
    }
    eprintln!(
        "killed 16 times: {} times the new database was there, {} times the old",
        found[0], found[1]
    );
    let _server = installation.start();
    connect(&mut Browser::new(&installation.issuer), &rp);
}

#[test]
fn o15_a_backup_goes_where_its_name_says_or_leaves_nothing_behind() {
    let installation = Installation::new(Database::Sqlite);
    installation.run(&["migrate", "up"]);
    installation.run(&["backup", "file:copy.db"]);
    assert!(installation.path("file:copy.db").exists());
    let before = names_in(&installation.path(""));
    let said = installation.refused(&["backup", "nowhere/copy.db"]);
    assert!(said.contains("nowhere is no folder"), "{said}");
    assert_eq!(names_in(&installation.path("")), before);
    let said = installation.refused(&["restore", "latchkey.toml"]);
    assert!(said.contains("it is no SQLite database"), "{said}");
}

#[test]
fn r24_a_server_on_postgresql_sees_a_new_epoch_within_a_second() {
    if postgres::cluster().is_none() {
        return;
    }
    let (installation, rp) = installation(Database::Postgres);
    let _server = installation.start();
    let machine = rp.client_credentials(&[("scope", "orders")]);
    assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
    installation.run(&["restore", "--epoch-only"]);
    assert_eq!(
        rp.introspect(machine.access_token()).json,
        json!({ "active": false })
    );
    let machine = rp.client_credentials(&[("scope", "orders")]);
    assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
}

#[test]
fn r24_after_postgresqls_own_restore_an_epoch_begins_by_itself() {
    if postgres::cluster().is_none() {
        return;
    }
    let (installation, rp) = installation(Database::Postgres);
    let server = installation.start();
    let mut timeline = Timeline::begin(&rp);
    timeline.go_on(&rp);
    let said = installation.refused(&["backup", "copy.dump"]);
    assert!(said.contains("pg_dump"), "{said}");
    let said = installation.refused(&["restore", "copy.dump"]);
    assert!(
        said.contains("pg_restore") && said.contains("--epoch-only"),
        "{said}"
    );
    server.kill();
    installation.run(&["restore", "--epoch-only"]);
    let _server = installation.start();
    timeline.assert_is_over(&rp);
    assert_sound(&installation.store());
}
