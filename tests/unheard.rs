//! Commands whose output nobody reads, as after `| true`: what they found is in their exit code all the same.

use std::fs;

use serde_json::json;

use crate::support::installation::Installation;
use crate::support::op::Database;

const JSON: [&str; 2] = ["--output", "json"];

/// Its exit code, with and without a reader, whatever the format.
fn code(place: &Installation, arguments: &[&str]) -> i32 {
    let heard = place.answer(arguments).0;
    for format in [&[][..], &JSON] {
        let (unheard, said) = place.unheard(&[arguments, format].concat());
        assert_eq!(unheard, heard, "{arguments:?} {format:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert!(!said.contains("pipe"), "{arguments:?}: {said}");
    }
    heard
}

#[test]
fn a_check_of_the_configuration_fails_for_those_too_who_read_nothing() {
    let place = Installation::new(Database::Sqlite);
    let wrong = place.path("wrong.toml");
    fs::write(&wrong, "issuer = \"nowhere\"\nlog.level = \"loud\"\n").unwrap();
    let wrong = ["--config", wrong.to_str().unwrap()];
    for verb in [&["config", "check"][..], &["config", "show"]] {
        assert_eq!(code(&place, verb), 0);
        assert_eq!(code(&place, &[verb, &wrong].concat()), 1);
    }
}

#[test]
fn what_a_file_would_change_is_told_to_those_too_who_read_nothing() {
    let place = Installation::new(Database::Sqlite);
    let write =
        |seed: serde_json::Value| fs::write(place.path("a.json"), seed.to_string()).unwrap();
    write(json!({ "users": [{ "email": "alice@example.test" }] }));
    place.run(&["apply", "a.json"]);
    assert_eq!(code(&place, &["apply", "a.json", "--dry-run"]), 0);
    write(json!({ "users": [{ "email": "alice@example.test", "disabled": true }] }));
    assert_eq!(code(&place, &["apply", "a.json", "--dry-run"]), 1);
    // What is asked for happens, whoever listens.
    assert_eq!(place.unheard(&["apply", "a.json"]).0, 0);
    assert_eq!(code(&place, &["apply", "a.json", "--dry-run"]), 0);
    write(json!({ "users": [{ "email": 5 }] }));
    assert_eq!(code(&place, &["apply", "a.json"]), 1);
}

#[test]
fn a_list_of_which_nobody_reads_the_rest_is_no_failure() {
    let place = Installation::new(Database::Sqlite);
    place.run(&["migrate", "up"]);
    for arguments in [
        &["users", "list"][..],
        &["keys", "list"],
        &["migrate", "status"],
        &["audit", "verify"],
        &["config", "reference"],
        &["version"],
    ] {
        assert_eq!(code(&place, arguments), 0, "{arguments:?}");
    }
}
