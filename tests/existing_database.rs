//! Commands that use a database make none, migrate none, leave other programs' alone, and know its secret key.

use std::fs;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use serde_json::json;

use crate::support::installation::{Installation, names_in};
use crate::support::op::{Database, EMAIL};
use crate::support::postgres::cluster;

/// What people run beside a server, and scripts every night.
const COMMANDS: [&[&str]; 12] = [
    &["users", "list"],
    &["users", "show", "alice@example.test"],
    &["users", "disable", "alice@example.test"],
    &["clients", "list"],
    &["clients", "add-secret", "notes"],
    &["keys", "list"],
    &["keys", "rotate"],
    &["audit", "export"],
    &["audit", "verify"],
    &["backup", "nightly.db"],
    &["export"],
    &["gc"],
];

/// With the key file that a first start makes.
fn without_a_configured_key() -> Installation {
    let installation = Installation::new(Database::Sqlite);
    let file = installation.path("latchkey.toml");
    let text = fs::read_to_string(&file).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("secret_key"));
    fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
    installation
}

fn execute(installation: &Installation, statements: &str) {
    let file = installation.path("latchkey.db");
    SqliteConnection::establish(file.to_str().unwrap())
        .unwrap()
        .batch_execute(statements)
        .unwrap();
}

#[test]
fn what_uses_a_database_makes_none() {
    let installation = without_a_configured_key();
    let rest: [&[&str]; 3] = [
        &["selftest"],
        &["restore", "--epoch-only"],
        &["migrate", "status"],
    ];
    for arguments in COMMANDS.into_iter().chain(rest) {
        let said = installation.refused(arguments);
        let file = installation.path("latchkey.db");
        let words = format!("{} does not exist", file.display());
        assert!(said.contains(&words), "{arguments:?}: {said}");
        assert_eq!(
            names_in(&installation.path("")),
            ["latchkey.toml"],
            "{arguments:?}"
        );
    }
}

#[test]
fn what_uses_a_database_makes_no_key_for_it() {
    let installation = without_a_configured_key();
    installation.start().kill();
    fs::remove_file(installation.path("secret.key")).unwrap();
    for arguments in COMMANDS {
        let said = installation.refused(arguments);
        assert!(
            said.contains("secret.key is missing"),
            "{arguments:?}: {said}"
        );
    }
    assert!(!installation.path("secret.key").exists());
}

#[test]
fn an_older_schema_is_not_migrated_in_passing() {
    let installation = Installation::new(Database::Sqlite);
    fs::write(installation.path("latchkey.db"), "").unwrap();
    for arguments in COMMANDS {
        let said = installation.refused(arguments);
        assert!(
            said.contains("run `latchkey migrate up`"),
            "{arguments:?}: {said}"
        );
    }
    let (code, _) = installation.answer(&["migrate", "status"]);
    assert_eq!(code, 1, "all are still pending");
    installation.run(&["migrate", "up"]);
    installation.run(&["users", "list"]);
}

#[test]
fn an_empty_postgresql_database_is_not_migrated_in_passing() {
    if cluster().is_none() {
        return;
    }
    let installation = Installation::new(Database::Postgres);
    let said = installation.refused(&["users", "list"]);
    assert!(said.contains("run `latchkey migrate up`"), "{said}");
    assert_eq!(installation.answer(&["migrate", "status"]).0, 1);
}

#[test]
fn a_file_of_another_program_stays_as_it_was() {
    let installation = Installation::new(Database::Sqlite);
    execute(&installation, "CREATE TABLE theirs (id TEXT)");
    let before = fs::read(installation.path("latchkey.db")).unwrap();
    let makers: [&[&str]; 4] = [
        &["serve"],
        &["migrate", "up"],
        &["clients", "create", "--machine"],
        &["doctor"],
    ];
    for arguments in COMMANDS.into_iter().chain(makers) {
        let (code, out) = installation.answer(arguments);
        assert_eq!(code, 1, "{arguments:?}: {out}");
    }
    let said = installation.refused(&["users", "list"]);
    assert!(said.contains("tables of another program"), "{said}");
    assert_eq!(fs::read(installation.path("latchkey.db")).unwrap(), before);
}

#[test]
fn a_wrong_secret_key_changes_nothing_and_is_named() {
    for database in Database::all() {
        let installation = Installation::new(database);
        let server = installation.start();
        installation.apply(&json!({ "users": [{ "email": EMAIL }] }));
        let keys = installation.objects(&["keys", "list"]);
        let events = installation.objects(&["audit", "export"]).len();
        let wrong = "77".repeat(32);
        let rotations: [&[&str]; 3] = [
            &["keys", "rotate", "--now"],
            &["clients", "create", "--machine"],
            &["selftest"],
        ];
        for arguments in COMMANDS.into_iter().chain(rotations) {
            if database == Database::Postgres && arguments[0] == "backup" {
                continue;
            }
            let said = installation.refused_with(arguments, "LATCHKEY_SECRET_KEY", &wrong);
            let words = "secret_key is not the one that this database was made with";
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        assert_eq!(installation.objects(&["keys", "list"]), keys);
        // The export of above told of itself.
        let later = installation.objects(&["audit", "export"]).len();
        assert_eq!(later, events + 1);
        let (code, out) = installation.answer_with(&["doctor"], "LATCHKEY_SECRET_KEY", &wrong);
        assert_eq!(code, 1);
        assert!(out.contains("FINDING  secret key"), "{out}");
        server.kill();
        let _server = installation.start();
    }
}

#[test]
fn a_key_file_that_others_may_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let installation = without_a_configured_key();
    installation.start().kill();
    let file = installation.path("secret.key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let said = installation.refused(&["users", "list"]);
    let words = format!("{} names a file with mode 0644", file.display());
    assert!(said.contains(&words), "{said}");
}
