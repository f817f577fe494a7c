//! `db copy`: everything to the other kind of database, and back.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};
use latchkey::config::DatabaseUrl;
use latchkey::jobs::seal_audit;
use latchkey::protocol::jose::{KeyPair, SigningAlgorithm, Typ};
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::installation::{Installation, SECRET_KEY};
use crate::support::invariants::assert_sound;
use crate::support::op::{
    CALLBACK, Database, EMAIL, Op, PASSWORD, SECRET, now, rows_of, waiting_for,
};
use crate::support::postgres;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::eventually;

fn url(installation: &Installation) -> String {
    match installation.database() {
        DatabaseUrl::Sqlite(file) => format!("sqlite://{}", file.display()),
        DatabaseUrl::Postgres(url) => url.clone(),
    }
}

fn rows(installation: &Installation) -> BTreeMap<String, i64> {
    rows_of(&installation.store())
}

/// An installation that has something in every table, and what an app holds of it.
fn lived_in(database: Database) -> (Installation, Answer) {
    let installation = Installation::new(database);
    let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD, "groups": ["staff"] }],
        "clients": [
            { "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
              "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "access_token_format": "opaque",
              "allowed_cors_origins": ["https://rp.example"] },
            { "client_id": "robot", "token_endpoint_auth_method": "private_key_jwt", "redirect_uris": [],
              "grant_types": ["client_credentials"], "jwks": { "keys": [key.public_jwk()] } }
        ],
        "scopes": [{ "name": "contact", "claims": ["email"] }],
        "groups": [{ "name": "staff" }]
    }));
    let (store, root) = (installation.store(), SECRET_KEY.parse().unwrap());
    assert!(waiting_for(seal_audit::run(&store, &root, now())).unwrap() > 0);
    drop(store);
    let _server = installation.start();
    let rp = Rp::new(&installation.issuer).named("notes");
    let mut browser = Browser::new(&installation.issuer);
    let page = browser.get(&rp.authorize(&[]));
    browser.sign_in_as(&page, EMAIL, "not the password");
    let scope = [("scope", "openid offline_access")];
    let code = browser.complete(&rp.authorize_with_pkce(&scope)).code();
    let first = rp.exchange_with_pkce(&code);
    let tokens = rp.refresh(first.refresh_token(), &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    assert_eq!(rp.client_credentials(&[]).status, 200);
    let now = now().seconds();
    let claims = json!({
        "iss": "robot", "sub": "robot", "aud": installation.issuer, "exp": now + 60, "iat": now, "jti": "once"
    });
    let assertion = latchkey::protocol::jose::Signer::new(&key)
        .unwrap()
        .sign(Typ::IdToken, claims.as_object().unwrap())
        .unwrap();
    let robot = Rp::new(&installation.issuer).named("robot").public();
    let answer = robot.post(
        "/token",
        &[
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &assertion),
        ],
    );
    assert_eq!(answer.status, 200, "{}", answer.json);
    (installation, tokens)
}

#[test]
fn r22_everything_goes_to_the_other_kind_of_database_and_goes_on_there() {
    for (from, to) in [
        (Database::Sqlite, Database::Postgres),
        (Database::Postgres, Database::Sqlite),
    ] {
        let (source, tokens) = lived_in(from);
        let before = rows(&source);
        let empty: Vec<_> = before.iter().filter(|(_, rows)| **rows == 0).collect();
        assert!(empty.is_empty(), "this test shows nothing for {empty:?}");

        let target = Installation::new(to);
        let arguments = ["db", "copy", "--from", &url(&source), "--to", &url(&target)];
        let copied = target.objects(&arguments);
        let told: BTreeMap<String, i64> = copied
            .iter()
            .map(|table| {
                (
                    table["table"].as_str().unwrap().to_owned(),
                    table["rows"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(told, before);
        let mut expected = before.clone();
        *expected.get_mut("audit_events").unwrap() += 1;
        assert_eq!(rows(&target), expected, "and the event of the copy itself");
        assert_eq!(
            target.objects(&["export"]),
            source.objects(&["export"]),
            "what a file can say is the same too"
        );
        assert_sound(&target.store());
        assert_eq!(
            target.answer(&["audit", "verify"]).0,
            0,
            "the seals still fit"
        );

        let _server = target.start();
        let rp = Rp::new(&target.issuer).named("notes");
        assert_eq!(rp.introspect(tokens.access_token()).json["active"], true);
        let next = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(next.status, 200, "{}", next.json);
        assert_eq!(
            rp.refresh(tokens.refresh_token(), &[]).json["refresh_token"],
            next.json["refresh_token"]
        );
        let code = Browser::new(&target.issuer)
            .complete(&rp.authorize_with_pkce(&[]))
            .code();
        assert_eq!(rp.exchange_with_pkce(&code).status, 200);
    }
}

#[test]
fn a_copy_there_and_back_is_the_same() {
    let (source, _) = lived_in(Database::Sqlite);
    let (middle, back) = (
        Installation::new(Database::Postgres),
        Installation::new(Database::Sqlite),
    );
    source.run(&["db", "copy", "--from", &url(&source), "--to", &url(&middle)]);
    source.run(&["db", "copy", "--from", &url(&middle), "--to", &url(&back)]);
    let mut expected = rows(&source);
    *expected.get_mut("audit_events").unwrap() += 2;
    assert_eq!(rows(&back), expected);
}

#[test]
fn many_rows_are_copied_page_by_page() {
    let source = Installation::new(Database::Sqlite);
    let people: Vec<_> = (0..2_500)
        .map(|n| json!({ "email": format!("person-{n}@example.test") }))
        .collect();
    source.apply(&json!({ "users": people }));
    let target = Installation::new(Database::Postgres);
    target.run(&["db", "copy", "--from", &url(&source), "--to", &url(&target)]);
    assert_eq!(rows(&target)["users"], 2_500);
    assert_eq!(
        target.objects(&["users", "list"]),
        source.objects(&["users", "list"])
    );
}

#[test]
fn nobody_writes_to_a_postgresql_that_is_being_copied() {
    if postgres::cluster().is_none() {
        return;
    }
    let (source, _) = lived_in(Database::Postgres);
    let target = Installation::new(Database::Postgres);
    target.run(&["migrate", "up"]);
    let execute =
        |connection: &mut PgConnection, statements: &str| connection.batch_execute(statements);
    // The copy waits in the middle.
    let mut held = PgConnection::establish(&url(&target)).unwrap();
    execute(
        &mut held,
        "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE",
    )
    .unwrap();
    let mut copying = source.spawn(&["db", "copy", "--from", &url(&source), "--to", &url(&target)]);
    let mut writing = PgConnection::establish(&url(&source)).unwrap();
    execute(&mut writing, "SET lock_timeout = '100ms'").unwrap();
    eventually("nothing can be written", || {
        execute(&mut writing, "UPDATE sessions SET acr = acr").err()
    });
    execute(&mut writing, "SELECT * FROM sessions").expect("who only reads is in nobody's way");
    execute(&mut held, "COMMIT").unwrap();
    assert!(copying.wait().unwrap().success());
    execute(&mut writing, "UPDATE sessions SET acr = acr").unwrap();
}

#[test]
fn nothing_is_copied_over_something_or_from_under_a_server() {
    for database in Database::all() {
        let (source, _) = lived_in(database);
        for other in Database::all() {
            let target = Installation::new(other);
            let server = target.start();
            let refused =
                source.refused(&["db", "copy", "--from", &url(&source), "--to", &url(&target)]);
            assert!(
                refused.contains("another Latchkey server") || refused.contains("a server uses"),
                "{refused}"
            );
            server.kill();
            let refused =
                source.refused(&["db", "copy", "--from", &url(&source), "--to", &url(&target)]);
            assert!(
                refused.contains("is not empty: it has rows in properties; nothing was copied"),
                "{refused}"
            );
        }
        let server = source.start();
        let target = Installation::new(Database::Sqlite);
        target.run(&["migrate", "up"]);
        let refused =
            source.refused(&["db", "copy", "--from", &url(&source), "--to", &url(&target)]);
        assert!(
            refused.contains("another Latchkey server") || refused.contains("a server uses"),
            "{refused}"
        );
        server.kill();
        assert_eq!(rows(&target).values().sum::<i64>(), 0);
    }
    let place = Installation::new(Database::Sqlite);
    let refused = place.refused(&[
        "db",
        "copy",
        "--from",
        "sqlite:///nowhere/latchkey.db",
        "--to",
        &url(&place),
    ]);
    assert!(
        refused.contains("/nowhere/latchkey.db does not exist"),
        "{refused}"
    );
    let text = format!("sqlite://{}", place.path("latchkey.toml").display());
    let refused = place.refused(&["db", "copy", "--from", &text, "--to", &url(&place)]);
    assert!(refused.contains("file is not a database"), "{refused}");
    assert!(!place.path("latchkey.toml.lock").exists());
    let (code, _) = place.answer(&["db", "copy", "--from", "mysql://db", "--to", &url(&place)]);
    assert_eq!(code, 2);
}

#[test]
fn a_server_is_seen_whatever_it_calls_itself() {
    if postgres::cluster().is_none() {
        return;
    }
    let plain = url(&Installation::new(Database::Postgres));
    let source = Installation::on_postgres(format!("{plain}&application_name=idp"));
    let server = source.start();
    let target = Installation::new(Database::Sqlite);
    let copy = ["db", "copy", "--from", &plain, "--to", &url(&target)];
    let refused = source.refused(&copy);
    assert!(refused.contains("a server uses"), "{refused}");
    server.kill();
    source.run(&copy);
}

#[test]
fn every_table_is_copied() {
    let op = Op::start(Database::Sqlite, &[]);
    let target = Installation::new(Database::Sqlite);
    let empty = Installation::new(Database::Sqlite);
    empty.run(&["migrate", "up"]);
    let copied = target.objects(&["db", "copy", "--from", &url(&empty), "--to", &url(&target)]);
    let names: Vec<_> = copied
        .iter()
        .map(|table| table["table"].as_str().unwrap())
        .collect();
    let rows = op.rows();
    for table in rows.keys() {
        assert!(names.contains(&table.as_str()), "{table} is left behind");
    }
    assert_eq!(names.len(), rows.len());
}
