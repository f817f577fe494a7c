//! A file in git says who is there: what it would change, and what it names no more.

use std::fs;

use serde_json::{Value, json};

use crate::support::installation::Installation;
use crate::support::op::{Database, SECRET};

/// With a file as it was applied last.
fn applied(database: Database) -> Installation {
    let installation = Installation::new(database);
    write(&installation, &before());
    installation.run(&["apply", "people.json"]);
    installation
}

fn write(installation: &Installation, seed: &Value) {
    fs::write(installation.path("people.json"), seed.to_string()).unwrap();
}

fn before() -> Value {
    json!({
        "users": [
            { "email": "alice@example.test", "password": "correct-horse-battery", "groups": ["staff"] },
            { "email": "bob@example.test" }
        ],
        "clients": [
            { "client_id": "notes", "client_secret": SECRET, "redirect_uris": ["https://notes.example/callback"] },
            { "client_id": "old", "client_secret": SECRET, "redirect_uris": ["https://old.example/callback"] }
        ]
    })
}

fn after() -> Value {
    json!({
        "users": [{ "email": "alice@example.test", "password": "battery-staple-correct", "groups": ["staff", "admins"] }],
        "clients": [
            { "client_id": "notes", "client_secret": "another-secret-of-more-than-thirty-two",
              "redirect_uris": ["https://notes.example/callback", "https://notes.example/other"] },
            { "client_id": "new", "redirect_uris": ["https://new.example/callback"] }
        ]
    })
}

fn names(installation: &Installation, list: &str, field: &str) -> Vec<String> {
    let all = installation.objects(&[list, "list"]);
    all.iter()
        .map(|one| one[field].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_dry_run_prints_the_difference_and_changes_nothing() {
    for database in Database::all() {
        let installation = applied(database);
        let rehearse = || installation.answer(&["apply", "people.json", "--dry-run"]);
        let (code, out) = rehearse();
        assert_eq!(code, 0, "{out}");
        assert!(out.starts_with("4 unchanged\n"), "{out}");
        write(&installation, &after());
        let events = installation.objects(&["audit", "export"]).len();
        let (code, out) = rehearse();
        assert_eq!(code, 1, "{out}");
        for line in [
            "created client new",
            "updated user alice@example.test",
            "    groups: [\"staff\"] -> [\"staff\",\"admins\"]",
            "    password: another one",
            "updated client notes",
            "    client_secret: another one",
            "Nothing was written: this is what would be.",
        ] {
            assert!(out.lines().any(|found| found == line), "{line}\n{out}");
        }
        assert!(out.contains("https://notes.example/other"), "{out}");
        for secret in [
            "battery-staple-correct",
            "another-secret",
            "$argon2",
            "client_secret=",
        ] {
            assert!(!out.contains(secret), "{out}");
        }
        assert_eq!(installation.objects(&["audit", "export"]).len(), events);
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["notes", "old"]
        );
        assert_eq!(rehearse().0, 1, "it is as different as before");
        installation.run(&["apply", "people.json"]);
        assert_eq!(rehearse().0, 0);
    }
}

#[test]
fn only_what_came_from_a_file_goes_and_only_when_told_to() {
    for database in Database::all() {
        let installation = applied(database);
        installation.run(&[
            "clients",
            "create",
            "--id",
            "by-hand",
            "--redirect-uri",
            "https://hand.example/",
        ]);
        write(&installation, &after());
        installation.run(&["apply", "people.json"]);
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["by-hand", "new", "notes", "old"]
        );
        let (code, out) = installation.answer(&["apply", "people.json", "--prune", "--dry-run"]);
        assert_eq!(code, 1);
        assert!(
            out.contains("deleted user bob@example.test\ndeleted client old\n"),
            "{out}"
        );
        assert_eq!(names(&installation, "users", "email").len(), 2);
        installation.run(&["apply", "people.json", "--prune"]);
        assert_eq!(
            names(&installation, "users", "email"),
            ["alice@example.test"]
        );
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["by-hand", "new", "notes"]
        );
        assert_eq!(
            installation
                .answer(&["apply", "people.json", "--prune", "--dry-run"])
                .0,
            0
        );
        let events = installation.objects(&["audit", "export"]);
        let deleted = |name: &str| events.iter().filter(|event| event["event"] == name).count();
        assert_eq!((deleted("user.deleted"), deleted("client.deleted")), (1, 1));
    }
}
