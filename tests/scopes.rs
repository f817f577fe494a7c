//! Scopes and groups that an operator defines: who may have them, what people are asked, what apps learn.
//! OpenID Connect Core §5.4; RFC 6749 §3.3.

use std::fs;

use serde_json::{Value, json};

use crate::support::installation::Installation;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, SECRET};

/// Two scopes, and an app that may ask for them.
fn define(op: &Op) {
    op.seed(json!({
        "users": [{ "email": EMAIL, "claims": { "name": "Alice", "phone_number": "+49 421 1" } }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
            "session_refresh_tokens": true, "scope": "openid contact calendar.read"
        }],
        "scopes": [
            { "name": "contact", "description": "How to reach <you>", "claims": ["email", "phone_number"] },
            { "name": "calendar.read", "description": "See your calendar" }
        ]
    }));
}

on_both_databases! {
    fn a_defined_scope_is_asked_for_like_any_other(op) {
        define(&op);
        let (mut browser, rp) = (op.browser(), op.rp().named("notes"));
        let page = browser.get(&rp.authorize(&[("scope", "openid contact calendar.read calendar.write")]));
        let consent = browser.sign_in(&page);
        let text = consent.text("ul.rows");
        for words in ["How to reach <you>", "alice@example.test, +49 421 1", "See your calendar"] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!consent.body.contains("<you>"), "it is text");
        assert!(!text.contains("calendar.write"), "nobody defined that");
        let answer = browser.submit(&consent, &[("action", "allow")]);
        let tokens = rp.exchange(&answer.code(), &[]);
        assert_eq!(tokens.json["scope"], "calendar.read contact openid");
        let told = rp.userinfo(tokens.access_token()).json;
        assert_eq!((&told["email"], &told["phone_number"]), (&json!(EMAIL), &json!("+49 421 1")));
        assert_eq!((told.get("name"), &told["email_verified"]), (None, &json!(true)));
        let refreshed = rp.refresh(tokens.refresh_token(), &[("scope", "openid calendar.read")]);
        assert_eq!(refreshed.json["scope"], "calendar.read openid");
    }

    fn a_claim_by_name_needs_a_scope_that_brings_it(op) {
        define(&op);
        let (mut browser, rp) = (op.browser(), op.rp().named("notes"));
        let claims = r#"{"userinfo":{"phone_number":null,"name":null}}"#;
        let code = browser.complete(&rp.authorize(&[("scope", "openid"), ("claims", claims)])).code();
        let told = rp.userinfo(rp.exchange(&code, &[]).access_token()).json;
        assert_eq!((&told["phone_number"], told.get("name")), (&json!("+49 421 1"), None));
    }

    fn b7_a_machine_gets_what_tells_nothing_about_people(op) {
        define(&op);
        let rp = op.rp().named("notes");
        assert_eq!(rp.client_credentials(&[]).json["scope"], "calendar.read");
        assert_eq!(rp.client_credentials(&[("scope", "contact")]).error(), (400, "invalid_scope"));
    }

    fn discovery_names_a_defined_scope_as_soon_as_it_is_there(op) {
        let supported = || op.rp().get("/.well-known/openid-configuration").json["scopes_supported"].clone();
        let before = supported();
        assert!(!before.as_array().unwrap().contains(&json!("contact")), "{before}");
        define(&op);
        let after = supported();
        for name in ["openid", "contact", "calendar.read"] {
            assert!(after.as_array().unwrap().contains(&json!(name)), "{after}");
        }
    }
}

fn refused(place: &Installation, seed: &Value, arguments: &[&str]) -> String {
    let file = place.path("seed.json");
    fs::write(&file, seed.to_string()).unwrap();
    let apply = ["apply", file.to_str().unwrap()];
    place.refused(&[&apply[..], arguments].concat())
}

#[test]
fn each_mistake_about_scopes_and_groups_is_told_with_its_place() {
    let place = Installation::new(Database::Sqlite);
    let said = refused(
        &place,
        &json!({
            "users": [{ "email": EMAIL, "groups": ["staff"] }],
            "clients": [{ "client_id": "notes", "redirect_uris": [CALLBACK], "scope": "openid nothing.such" }],
            "scopes": [
                { "name": "email" }, { "name": "two words" }, { "name": "a", "claims": ["shoe_size"] }, { "name": "a" },
                { "name": "b", "claim": ["email"] }
            ],
            "groups": [
                { "name": "" }, { "name": "staff", "members": [] }, { "name": "x", "members": ["nobody"] },
                { "name": "y", "description": "two\nlines" }, { "name": "y" }
            ]
        }),
        &[],
    );
    for line in [
        "clients[0].scope (notes): \"nothing.such\" is not among openid profile email address phone groups offline_access",
        "scopes[0].name: \"email\" is OpenID Connect's; choose another",
        "scopes[1].name: is at most",
        "scopes[2].claims[0] (a): \"shoe_size\" is not a standard claim",
        "scopes[3].name (a): \"a\" is in the file twice",
        "scopes[4].claim (b): is not known; did you mean claims?",
        "groups[0].name: a group's name is a text of one line",
        "groups[1].members (staff): says something else than users[0].groups",
        "groups[2].members[0] (x): ",
        "groups[3].description (y): is a text of one line",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert_eq!(place.objects(&["export"])[0]["users"], json!([]));
}

#[test]
fn a_file_says_who_is_in_a_group() {
    for database in Database::all() {
        let place = Installation::new(database);
        place.apply(&json!({ "users": [
            { "email": "a@example.test", "groups": ["other", "staff"] }, { "email": "b@example.test", "groups": ["staffx"] },
            { "email": "c@example.test" }
        ] }));
        let groups = || -> Vec<Value> {
            let people = place.objects(&["users", "list"]);
            people.iter().map(|one| one["groups"].clone()).collect()
        };
        let file = |members: Value| json!({ "groups": [{ "name": "staff", "members": members }] });
        place.apply(&file(json!(["B@example.test", "c@example.test"])));
        assert_eq!(
            groups(),
            [
                json!(["other"]),
                json!(["staffx", "staff"]),
                json!(["staff"])
            ]
        );
        let said = refused(
            &place,
            &file(json!(["c@example.test", "d@example.test"])),
            &[],
        );
        assert!(
            said.contains("groups[0].members[1] (staff): nobody has the address d@example.test"),
            "{said}"
        );
        assert_eq!(
            groups(),
            [
                json!(["other"]),
                json!(["staffx", "staff"]),
                json!(["staff"])
            ]
        );
        let difference = {
            fs::write(
                place.path("seed.json"),
                file(json!(["c@example.test"])).to_string(),
            )
            .unwrap();
            place.answer(&[
                "apply",
                place.path("seed.json").to_str().unwrap(),
                "--dry-run",
            ])
        };
        assert_eq!(difference.0, 1);
        assert!(
            difference
                .1
                .starts_with("updated group staff\n    members: without b@example.test\n"),
            "{}",
            difference.1
        );
        place.apply(&json!({ "users": [{ "email": "c@example.test" }] }));
        assert_eq!(
            groups()[2],
            json!(["staff"]),
            "a file that does not speak of groups leaves them"
        );
        let events = place.objects(&["audit", "export"]);
        let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
        assert_eq!((count("group.changed"), count("user.updated")), (1, 3));
    }
}

#[test]
fn a_scope_and_a_group_that_a_file_names_no_more_go_when_told_to() {
    for database in Database::all() {
        let place = Installation::new(database);
        let app = |scope: &str| json!({ "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "scope": scope });
        let person = json!({ "email": EMAIL });
        place.apply(&json!({
            "users": [person], "clients": [app("openid contact")], "scopes": [{ "name": "contact" }],
            "groups": [{ "name": "staff", "members": [EMAIL] }]
        }));
        place.apply(&json!({ "users": [person], "clients": [app("openid contact")] }));
        let kept = place.objects(&["export"]).remove(0);
        assert_eq!(
            (&kept["scopes"][0]["name"], &kept["groups"][0]["name"]),
            (&json!("contact"), &json!("staff"))
        );
        let said = refused(
            &place,
            &json!({ "users": [person], "clients": [app("openid contact")] }),
            &["--prune"],
        );
        assert!(
            said.contains(
                "clients[0].scope (notes): \"contact\" is not among scopes, so --prune removes it"
            ),
            "{said}"
        );
        assert_eq!(
            place.objects(&["export"]).remove(0),
            kept,
            "nothing was written"
        );
        let file = place.path("seed.json");
        fs::write(
            &file,
            json!({ "users": [person], "clients": [app("openid")] }).to_string(),
        )
        .unwrap();
        let (code, said) = place.answer(&["apply", file.to_str().unwrap(), "--prune"]);
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("deleted group staff\n    members: without alice@example.test\ndeleted scope contact\n"),
            "{said}"
        );
        let left = place.objects(&["export"]).remove(0);
        assert_eq!(
            (
                &left["scopes"],
                &left["groups"],
                &left["users"][0]["groups"]
            ),
            (&json!([]), &json!([]), &json!([]))
        );
    }
}
