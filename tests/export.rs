//! What `export` prints is what `apply` reads: the same people and apps again, in another place.

use std::fs;

use latchkey::protocol::jose::{KeyPair, SigningAlgorithm};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::relying_party::Rp;

/// Something of every kind that a file can say.
fn everything() -> Value {
    let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
    json!({
        "users": [
            {
                "email": EMAIL, "password": PASSWORD, "email_verified": true, "admin": true, "groups": ["staff"],
                "claims": {
                    "address": { "locality": "Bremen", "country": "DE" }, "name": "Alice \"Al\" Archer", "birthdate": "1990-02-28", "phone_number": "+49 421 1", "phone_number_verified": true
                }
            },
            { "email": "Bob@Example.test", "disabled": true, "groups": ["staff", "it's \\ 100% \"ours\""] }
        ],
        "clients": [
            {
                "client_id": "notes", "client_name": "Notes ✎", "client_secret": SECRET, "redirect_uris": [CALLBACK],
                "post_logout_redirect_uris": ["https://rp.example/bye"], "client_uri": "https://rp.example/",
                "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "scope": "openid contact calendar.read machine.only",
                "default_max_age": 3600, "default_acr_values": ["1"], "access_token_format": "opaque", "require_pkce": true,
                "skip_consent": true, "allowed_resources": ["https://api.example/"], "protected_resources": ["https://api.example/"],
                "claims_in_id_token": true, "session_refresh_tokens": true, "refresh_retry_window": "0s",
                "tokens": { "access": "5m", "refresh_absolute": "90d" }
            },
            { "client_id": "page", "token_endpoint_auth_method": "none", "redirect_uris": ["http://localhost:5173/callback"],
              "allowed_cors_origins": ["http://localhost:5173"], "id_token_signed_response_alg": "RS256" },
            { "client_id": "phone", "application_type": "native", "token_endpoint_auth_method": "none",
              "redirect_uris": ["com.example.app:/callback", "http://127.0.0.1/callback"] },
            { "client_id": "robot", "token_endpoint_auth_method": "private_key_jwt", "redirect_uris": [],
              "grant_types": ["client_credentials"], "jwks": { "keys": [key.public_jwk()] }, "token_endpoint_auth_signing_alg": "ES256" }
        ],
        "scopes": [
            { "name": "contact", "description": "How to reach you", "claims": ["email", "phone_number"] },
            { "name": "calendar.read" }
        ],
        "groups": [
            { "name": "staff", "description": "Everybody who works here" },
            { "name": "empty" }
        ]
    })
}

fn exported(installation: &Installation) -> Value {
    installation.objects(&["export"]).remove(0)
}

#[test]
fn an_export_that_is_applied_to_an_empty_database_is_exported_the_same() {
    for (from, to) in [
        (Database::Sqlite, Database::Postgres),
        (Database::Postgres, Database::Sqlite),
    ] {
        let source = Installation::new(from);
        source.apply(&everything());
        for arguments in [
            &["clients", "add-secret", "notes"][..],
            &["clients", "add-secret", "notes", "--expires", "90d"],
        ] {
            source.run(arguments);
        }
        let before = exported(&source);
        assert_eq!(before["users"].as_array().unwrap().len(), 2);
        assert_eq!(before["clients"].as_array().unwrap().len(), 4);
        let hashes = &before["clients"][0]["client_secret_hashes"];
        assert_eq!(hashes.as_array().unwrap().len(), 3, "{hashes}");

        let target = Installation::new(to);
        target.apply(&before);
        assert_eq!(exported(&target), before);
        assert_eq!(target.answer(&["export"]), source.answer(&["export"]));
        let file = target.path("everything.toml");
        fs::write(&file, source.answer(&["export"]).1).unwrap();
        let file = file.to_str().unwrap();
        let (code, said) = target.answer(&["apply", file, "--dry-run", "--prune"]);
        assert_eq!(
            (code, said.starts_with("10 unchanged\n")),
            (0, true),
            "{said}"
        );
    }
}

#[test]
fn an_export_goes_through_toml_without_a_change() {
    let source = Installation::new(Database::Sqlite);
    source.apply(&everything());
    let (_, before) = source.answer(&["export"]);
    let target = Installation::new(Database::Sqlite);
    fs::write(target.path("everything.toml"), &before).unwrap();
    target.run(&["apply", "everything.toml"]);
    assert_eq!(target.answer(&["export"]).1, before);
}

#[test]
fn an_export_has_one_order_whatever_the_order_of_the_database() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let seed = json!({
        "users": [{ "email": "a-b@example.test" }, { "email": "aa@example.test" }, { "email": "a_c@example.test" }],
        "clients": [
            { "client_id": "B", "client_secret": SECRET, "redirect_uris": [CALLBACK] },
            { "client_id": "a", "client_secret": SECRET, "redirect_uris": [CALLBACK] }
        ],
        "scopes": [{ "name": "B" }, { "name": "a" }],
        "groups": [{ "name": "B" }, { "name": "a" }, { "name": "ä" }, { "name": "z" }]
    });
    let english = Installation::on_postgres(cluster.create_database_in_english());
    english.apply(&seed);
    let names = |list: &str, field: &str| -> Vec<String> {
        let export = exported(&english);
        let list = export[list].as_array().unwrap().iter();
        list.map(|one| one[field].as_str().unwrap().to_owned())
            .collect()
    };
    let emails = ["a-b@example.test", "a_c@example.test", "aa@example.test"];
    assert_eq!(names("users", "email"), emails);
    assert_eq!(names("clients", "client_id"), ["B", "a"]);
    assert_eq!(names("scopes", "name"), ["B", "a"]);
    assert_eq!(names("groups", "name"), ["B", "a", "z", "ä"]);
}

#[test]
fn who_was_exported_signs_in_with_the_same_password_as_the_same_person() {
    for database in Database::all() {
        let source = Installation::new(database);
        source.apply(&everything());
        let target = Installation::new(database);
        target.apply(&exported(&source));
        let _server = target.start();
        let rp = Rp::new(&target.issuer).named("notes");
        let mut browser = Browser::new(&target.issuer);
        let answer = browser.complete(&rp.authorize_with_pkce(&[("scope", "openid contact")]));
        let tokens = rp.exchange_with_pkce(&answer.code());
        assert_eq!(tokens.status, 200, "{}", tokens.json);
        let sub = exported(&source)["users"][0]["sub"].clone();
        assert_eq!(tokens.id_token()["sub"], sub);
    }
}

#[test]
fn an_export_holds_hashes_and_no_secret() {
    let source = Installation::new(Database::Sqlite);
    source.apply(&everything());
    for arguments in [&["export"][..], &["export", "--output", "json"]] {
        let (_, text) = source.answer(arguments);
        assert!(
            text.contains("$argon2id$") && text.contains("sha256"),
            "{text}"
        );
        for secret in [PASSWORD, SECRET, "client_secret\"", "\"d\""] {
            assert!(!text.contains(secret), "{secret}\n{text}");
        }
    }
}

#[test]
fn a_secret_that_ended_is_not_exported_and_none_is_made_in_its_place() {
    let source = Installation::new(Database::Sqlite);
    source.apply(&everything());
    let secrets = source.objects(&["clients", "show", "notes"])[0]["secrets"].clone();
    let id = secrets[0]["id"].as_str().unwrap();
    source.run(&["clients", "revoke-secret", "notes", id]);
    let before = exported(&source);
    assert_eq!(before["clients"][0]["client_secret_hashes"], json!([]));
    let target = Installation::new(Database::Sqlite);
    target.apply(&before);
    assert_eq!(exported(&target), before);
}

#[test]
fn a_person_keeps_the_sub_that_apps_know_them_by() {
    for database in Database::all() {
        let place = Installation::new(database);
        place.apply(&json!({ "users": [{ "email": EMAIL, "sub": "from-elsewhere" }, { "email": "bob@example.test" }] }));
        let before = exported(&place);
        assert_eq!(before["users"][0]["sub"], "from-elsewhere");
        for (users, said) in [
            (
                json!([{ "email": EMAIL, "sub": "another" }]),
                "users[0].sub (alice@example.test): alice@example.test has the sub \"from-elsewhere\", which never changes",
            ),
            (
                json!([{ "email": "new@example.test", "sub": "from-elsewhere" }]),
                "users[0].sub (new@example.test): \"from-elsewhere\" is alice@example.test",
            ),
            (
                json!([{ "email": "new@example.test", "sub": "with space" }]),
                "users[0].sub (new@example.test): is 1 to 255 printable",
            ),
            (
                json!([{ "email": "a@example.test", "sub": "x" }, { "email": "b@example.test", "sub": "x" }]),
                "users[1].sub (b@example.test): \"x\" is in the file twice",
            ),
        ] {
            let file = place.path("bad.json");
            fs::write(&file, json!({ "users": users }).to_string()).unwrap();
            let refused = place.refused(&["apply", file.to_str().unwrap()]);
            assert!(refused.contains(said), "{refused}");
            assert_eq!(exported(&place), before, "nothing was written");
        }
    }
}
