//! Copies of the database, and what a copy from the past must not bring back. Rows R23, R24 and O15.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use latchkey::clock::Clock;
use latchkey::config::DatabaseUrl;
use latchkey::store::{Options, Store};
use serde_json::json;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::assert_sound;
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

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn r23_backups_under_load_are_each_whole() {
    let (installation, rp) = installation(Database::Sqlite);
    let _server = installation.start();
    let stop = AtomicBool::new(false);
    let mut latest = connect(&mut Browser::new(&installation.issuer), &rp);
    let mut refreshes = 0;
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                latest = rp.refresh(latest.refresh_token(), &[]);
                assert_eq!(latest.status, 200, "{}", latest.json);
                refreshes += 1;
            }
        });
        for number in 0..6 {
            let name = format!("backup-{number}.db");
            installation.run(&["backup", &name]);
            let file = installation.path(&name);
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600
            );
            assert_sound(&open(&file));
        }
        stop.store(true, Ordering::SeqCst);
        load.join().unwrap();
    });
    eprintln!("{refreshes} refreshes while six backups were made");
    assert!(refreshes > 6);
    let leftovers: Vec<_> = names_in(installation.path("").as_path())
        .into_iter()
        .filter(|name| name.contains(".part-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn r24_a_restore_brings_back_people_and_keys_and_nothing_that_was_used_or_revoked() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let mut browser = Browser::new(&installation.issuer);
    let first = connect(&mut browser, &rp);
    let machine = rp.client_credentials(&[("scope", "orders")]);
    assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
    let unused = browser
        .complete(&rp.authorize_with_pkce(&[("scope", OFFLINE)]))
        .code();
    let keys = rp.get("/jwks").json;
    installation.run(&["backup", "yesterday.db"]);
    let mut latest = rp.refresh(first.refresh_token(), &[]);
    for _ in 0..3 {
        latest = rp.refresh(latest.refresh_token(), &[]);
    }
    server.kill();
    installation.run(&["restore", "yesterday.db"]);
    let _server = installation.start();
    for token in [first.refresh_token(), latest.refresh_token()] {
        assert!(is_refused(&rp, token));
    }
    assert_eq!(
        rp.exchange_with_pkce(&unused).error(),
        (400, "invalid_grant")
    );
    for token in [
        first.access_token(),
        latest.access_token(),
        machine.access_token(),
    ] {
        assert_eq!(rp.introspect(token).json, json!({ "active": false }));
    }
    assert_eq!(rp.userinfo(latest.access_token()).status, 401);
    assert!(
        browser
            .get(&rp.authorize_with_pkce(&[]))
            .has("input[name=password]"),
        "nobody is signed in any more"
    );
    assert_eq!(
        rp.get("/jwks").json,
        keys,
        "what was signed before can be verified"
    );
    let again = connect(&mut Browser::new(&installation.issuer), &rp);
    assert_eq!(rp.refresh(again.refresh_token(), &[]).status, 200);
    let machine = rp.client_credentials(&[("scope", "orders")]);
    assert_eq!(rp.introspect(machine.access_token()).json["active"], true);
    assert_sound(&installation.store());
    let events = installation.objects(&["audit", "export"]);
    assert!(
        events
            .iter()
            .any(|event| event["event"] == "database.restored")
    );
}

#[test]
fn r24_the_database_of_before_is_kept_and_can_be_put_back() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    installation.run(&["backup", "before-bob.db"]);
    installation.apply(&json!({ "users": [{ "email": "bob@example.test" }] }));
    server.kill();
    let restored = installation.objects(&["restore", "before-bob.db"]);
    let everybody = || installation.objects(&["users", "list"]).len();
    assert_eq!(everybody(), 1);
    let kept = restored[0]["kept"].as_str().unwrap();
    installation.run(&["restore", kept]);
    assert_eq!(
        everybody(),
        2,
        "what was in the write-ahead log is in it too"
    );
    let _server = installation.start();
    connect(&mut Browser::new(&installation.issuer), &rp);
}

#[test]
fn r24_what_root_restores_belongs_to_the_account_of_the_server() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can give files away");
        return;
    }
    let folder = TempDir::new().unwrap();
    let installation = Installation::in_folder(folder.path());
    installation.run(&["migrate", "up"]);
    installation.run(&["backup", "copy.db"]);
    let database = folder.path().join("latchkey.db");
    let lock = folder.path().join("latchkey.db.lock");
    let owner = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    for path in [folder.path(), &database] {
        chown(path, Some(65_532), Some(65_533)).unwrap();
    }
    fs::remove_file(&lock).unwrap_or_default();
    installation.run(&["restore", "copy.db"]);
    assert_eq!(owner(&database), (65_532, 65_533), "as the one before");
    assert_eq!(owner(&lock), (65_532, 65_533));
    for path in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(path.unwrap().path()).unwrap();
    }
    installation.run(&["restore", "copy.db"]);
    assert_eq!(owner(&database), (65_532, 65_533), "as its folder");
    assert_eq!(owner(&lock), (65_532, 65_533));
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
        ("empty.db", "no tables of Latchkey"),
        ("cut.db", "no backup of Latchkey"),
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
    installation.apply(&json!({ "users": [{ "email": "bob@example.test" }] }));
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
        let people = installation.objects(&["users", "list"]).len();
        found[people - 1] += 1;
        assert_sound(&installation.store());
        if people == 1 {
            installation.apply(&json!({ "users": [{ "email": "bob@example.test" }] }));
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
    assert!(said.contains("file is not a database"), "{said}");
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
    let tokens = connect(&mut Browser::new(&installation.issuer), &rp);
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
    assert!(is_refused(&rp, tokens.refresh_token()));
    connect(&mut Browser::new(&installation.issuer), &rp);
}
