//! `selftest` goes the whole way through a running server, and says where it ends.

use std::process::Command;

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};

use crate::support::installation::Installation;
use crate::support::op::Database;
use crate::support::wait::eventually;

const STEPS: [&str; 9] = [
    "discovery",
    "jwks",
    "sign-in",
    "code",
    "token",
    "userinfo",
    "refresh",
    "revocation",
    "logout",
];

#[test]
fn a_healthy_server_passes_every_step_and_nothing_stays_behind() {
    for database in Database::all() {
        let installation = Installation::new(database);
        let _server = installation.start();
        let steps = installation.objects(&["selftest"]);
        let names: Vec<_> = steps
            .iter()
            .map(|step| step["step"].as_str().unwrap())
            .collect();
        assert_eq!(names, STEPS);
        for step in &steps {
            assert!(step["ok"] == true && step["ms"].is_number(), "{step}");
        }
        let (code, out) = installation.answer(&["selftest"]);
        assert_eq!((code, out.lines().count()), (0, STEPS.len()), "{out}");
        assert!(
            out.lines()
                .all(|line| line.starts_with("ok ") && line.ends_with(" ms")),
            "{out}"
        );
        let left = installation.objects(&["export"]).remove(0);
        assert_eq!(
            (&left["users"], &left["clients"]),
            (&serde_json::json!([]), &serde_json::json!([]))
        );
    }
}

#[test]
fn what_fails_is_named_and_ends_it() {
    let installation = Installation::new(Database::Sqlite);
    installation.run(&["migrate", "up"]);
    let (code, out) = installation.answer(&["selftest"]);
    assert_eq!(code, 1);
    assert!(
        out.starts_with("FAILED  discovery") && out.contains("could not be reached"),
        "{out}"
    );
    assert_eq!(out.lines().count(), 1);
    let _server = installation.start();
    let other = installation.issuer.replace("localhost", "127.0.0.1");
    let (code, out) = installation.answer(&["selftest", "--issuer", &other]);
    assert_eq!(code, 1);
    assert!(
        out.starts_with("FAILED  discovery") && out.contains("unexpected issuer"),
        "{out}"
    );
    // The server reads another database: what was made for the test is not there.
    let elsewhere = Installation::new(Database::Sqlite);
    elsewhere.run(&["migrate", "up"]);
    let (code, out) = elsewhere.answer(&["selftest", "--issuer", &installation.issuer]);
    assert_eq!(code, 1);
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[2].starts_with("FAILED  sign-in") && lines[2].contains("/authorize answers 400"),
        "{out}"
    );
    assert_eq!(lines.len(), 3);
    assert_eq!(
        elsewhere.objects(&["users", "list"]).len(),
        0,
        "it is removed all the same"
    );
}

#[test]
fn its_cookies_and_tokens_are_in_no_log_whatever_is_asked_for() {
    let installation = Installation::new(Database::Sqlite);
    let _server = installation.start();
    for level in [
        "debug",
        "trace",
        "cookie_store=trace",
        "latchkey=info,reqwest=trace",
    ] {
        let said = installation.errors_with(&["selftest"], "RUST_LOG", level);
        for secret in ["cookie", "Cookie", "eyJ", "access_token"] {
            assert!(!said.contains(secret), "{level}: {said}");
        }
    }
    let said = installation.errors_with(&["users", "list"], "RUST_LOG", "latchkey=debg");
    assert!(said.contains("RUST_LOG is not followed"), "{said}");
}

#[test]
fn the_longest_password_that_a_configuration_may_ask_for_is_met() {
    let installation = Installation::new(Database::Sqlite);
    let length = ("LATCHKEY_PASSWORD__MINIMUM_LENGTH", "128");
    let _server = installation.start_with(&[length]);
    let (code, out) = installation.answer_with(&["selftest"], length.0, length.1);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn nothing_stays_behind_when_it_is_ended_or_killed_in_the_middle() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    server.signal("-STOP");
    for signal in ["-INT", "-KILL"] {
        let mut test = installation.spawn(&["selftest"]);
        eventually("the app is there", || {
            (installation.objects(&["clients", "list"]).len() == 1).then_some(())
        });
        let id = test.id().to_string();
        Command::new("kill").args([signal, &id]).status().unwrap();
        test.wait().unwrap();
        let left = usize::from(signal == "-KILL");
        for list in ["users", "clients"] {
            assert_eq!(
                installation.objects(&[list, "list"]).len(),
                left,
                "{signal}"
            );
        }
    }
    server.signal("-CONT");
    let file = installation.path("latchkey.db");
    let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    for table in ["users", "clients"] {
        let earlier = format!("UPDATE {table} SET created_at = created_at - 3600");
        diesel::sql_query(earlier).execute(&mut connection).unwrap();
    }
    installation.run(&["selftest"]);
    for list in ["users", "clients"] {
        assert_eq!(installation.objects(&[list, "list"]).len(), 0);
    }
}
