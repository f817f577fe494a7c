//! What is written down for those who have to find out later. OWASP ASVS 5.0 §16.3.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use latchkey::audit::Kind;
use latchkey::hashing;
use latchkey::protocol::seal::TokenHash;
use latchkey::seed::{Seed, UserEntry};
use latchkey::store::audit_events::{self, Recorded};
use latchkey::store::users;
use serde_json::{Value, json};

use crate::refresh_token::{OFFLINE, connect, notes, refreshed};
use crate::support::installation::Installation;
use crate::support::invariants::count;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, SECRET};
use crate::support::race::race;
use crate::support::wait::{eventually, pause};
use crate::throttle::{attempt_in as attempt, hold};

const DAY: Duration = Duration::from_secs(86_400);
const QUICK: [(&str, &str); 3] = [
    ("password.memory_kib", "7168"),
    ("password.iterations", "1"),
    ("throttle.account_failures", "3"),
];

fn events(op: &Op) -> Vec<Recorded> {
    op.store
        .read_blocking(|conn| audit_events::list(conn, None, 1_000))
        .unwrap()
}

/// All of one name.
pub fn named(op: &Op, name: &str) -> Vec<Recorded> {
    let all = events(op);
    all.into_iter()
        .filter(|event| event.event == name)
        .collect()
}

/// The only one of a name.
fn only(op: &Op, name: &str) -> Recorded {
    let found = named(op, name);
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found.into_iter().next().unwrap()
}

fn alice(op: &Op) -> String {
    op.store
        .read_blocking(|conn| users::find_by_email(conn, EMAIL))
        .unwrap()
        .unwrap()
        .id
}

/// How many attempts are counted just now.
fn failures(op: &Op) -> i64 {
    let all = "SELECT CAST(COALESCE(SUM(failures), 0) AS BIGINT) AS n FROM throttles";
    op.store.read_blocking(|conn| count(conn, all)).unwrap()
}

on_both_databases! {
    fn a_sign_in_is_written_down_with_who_where_and_for_which_app(op) {
        let mut browser = op.browser();
        let email = [("scope", "openid email")];
        browser.complete(&op.rp().authorize(&email));
        let event = only(&op, "login.succeeded");
        let alice = alice(&op);
        assert_eq!(event.actor.as_deref(), Some(alice.as_str()));
        assert_eq!(event.target.as_deref(), Some(alice.as_str()));
        assert_eq!(event.client_id.as_deref(), Some("rp"));
        assert_eq!(event.address.as_deref(), Some("127.0.0.1"));
        assert_eq!(event.time, op.clock.now());
        assert_eq!(event.detail["method"], "pwd");
        assert!(event.request_id.is_some_and(|id| id.len() == 14));
        let consent = only(&op, "consent.given");
        assert_eq!(consent.actor.as_deref(), Some(alice.as_str()));
        assert_eq!((consent.client_id.as_deref(), &consent.detail["scope"]), (Some("rp"), &json!("email openid")));
        // Nothing new is allowed, so nothing is written.
        browser.complete(&op.rp().authorize(&email));
        only(&op, "consent.given");
    }

    fn a_request_and_its_event_have_the_same_id(op) {
        let page = attempt(&mut op.browser(), EMAIL, "not-the-password-of-anybody");
        let event = only(&op, "login.failed");
        assert_eq!(event.request_id.as_deref(), Some(page.header("x-request-id")));
    }

    fn a_failure_names_the_account_and_never_what_was_typed(op with QUICK) {
        let mut browser = op.browser();
        attempt(&mut browser, EMAIL, "not-the-password-of-anybody");
        attempt(&mut browser, "my-secret-in-the-wrong-field", "also-a-secret-of-mine");
        let failed = named(&op, "login.failed");
        let reasons: Vec<_> = failed.iter().map(|event| event.detail["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["wrong_password", "unknown_account"]);
        assert_eq!(failed[0].target, Some(alice(&op)));
        assert_eq!((&failed[1].target, &failed[1].actor), (&None, &None));
        let all = format!("{:?}", events(&op));
        for secret in ["my-secret-in-the-wrong-field", "also-a-secret-of-mine", "not-the-password-of-anybody"] {
            assert!(!all.contains(secret), "{all}");
        }
    }

    fn n8_a_flood_of_guesses_is_written_down_once_for_each_time_that_it_is_slowed(op with QUICK) {
        let mut browser = op.browser();
        for _ in 0..3 {
            assert_eq!(attempt(&mut browser, EMAIL, "not-the-password-of-anybody").status, 400);
        }
        for _ in 0..10 {
            assert_eq!(attempt(&mut browser, EMAIL, "not-the-password-of-anybody").status, 429);
        }
        assert_eq!(only(&op, "login.throttled").target, Some(alice(&op)));
        op.clock.advance(DAY);
        for _ in 0..4 {
            attempt(&mut browser, EMAIL, "not-the-password-of-anybody");
        }
        assert_eq!(named(&op, "login.throttled").len(), 2);
    }

    fn the_end_of_a_sign_in_is_written_down(op) {
        let mut browser = op.browser();
        browser.complete(&op.rp().authorize(&[]));
        let page = browser.get("/");
        browser.submit(&page, &[]);
        let event = only(&op, "session.ended");
        assert_eq!((event.actor, event.target), (Some(alice(&op)), Some(alice(&op))));
        assert_eq!(event.client_id, None, "no app asked for it");
    }

    fn an_app_that_signs_somebody_out_is_written_down(op) {
        let mut browser = op.browser();
        let code = browser.complete(&op.rp().authorize(&[])).code();
        let tokens = op.rp().exchange(&code, &[]);
        browser.get(&op.url(&format!("/end-session?id_token_hint={}", tokens.text("id_token"))));
        assert_eq!(only(&op, "session.ended").client_id.as_deref(), Some("rp"));
    }

    fn b5_a_replay_is_written_down_once_with_whose_family_ended(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        refreshed(&rp, refreshed(&rp, first.refresh_token()).refresh_token());
        race(8, |_| rp.refresh(first.refresh_token(), &[]).status);
        let event = only(&op, "refresh_token.replayed");
        assert_eq!(event.target, Some(alice(&op)));
        assert_eq!(event.client_id.as_deref(), Some("notes"));
        assert_eq!(event.actor, None, "nobody knows who it was");
        assert_eq!(event.address.as_deref(), Some("127.0.0.1"));
    }

    fn b1_a_code_that_comes_twice_is_written_down(op) {
        let rp = op.rp();
        let code = op.browser().complete(&rp.authorize(&[])).code();
        assert_eq!(rp.exchange(&code, &[]).status, 200);
        assert_eq!(rp.exchange(&code, &[]).status, 400);
        assert_eq!(only(&op, "code.replayed").target, Some(alice(&op)));
    }

    fn what_an_app_gives_back_and_its_wrong_secrets_are_written_down(op) {
        let rp = notes(&op, json!({}));
        let tokens = connect(&mut op.browser(), &rp, OFFLINE);
        for _ in 0..2 {
            rp.revoke(tokens.access_token());
            rp.revoke(tokens.refresh_token());
            rp.revoke("unknown");
        }
        let kinds: Vec<_> = named(&op, "token.revoked").iter().map(|event| event.detail["token_type"].clone()).collect();
        assert_eq!(kinds, ["access_token", "refresh_token"]);
        assert!(named(&op, "token.revoked").iter().all(|event| event.actor.as_deref() == Some("notes")));
        let wrong = rp.http().post(op.url("/token")).basic_auth("notes", Some("wrong"))
            .form(&[("grant_type", "refresh_token")]).send().unwrap();
        assert_eq!(wrong.status(), 401);
        assert_eq!(only(&op, "client.authentication_failed").client_id.as_deref(), Some("notes"));
    }

    fn what_a_file_changes_is_written_down_by_what_it_means(op) {
        assert_eq!(only(&op, "user.created").actor.as_deref(), Some("command"));
        let before = events(&op).len();
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": true, "password": "another-good-battery-horse" }] }));
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": false, "groups": ["staff"] }] }));
        let since: Vec<_> = events(&op).into_iter().skip(before).map(|event| (event.event, event.detail)).collect();
        for (name, detail) in [
            ("user.disabled", json!({})),
            ("password.changed", json!({})),
            ("user.enabled", json!({})),
            ("user.updated", json!({ "changed": ["groups"], "before": { "groups": [] }, "after": { "groups": ["staff"] } })),
        ] {
            let found: Vec<_> = since.iter().filter(|(event, _)| event == name).collect();
            assert_eq!(found.len(), 1, "{name}: {since:#?}");
            assert_eq!(json!(found[0].1), detail, "{name}");
        }
        assert_eq!(since.len(), 4, "{since:#?}");
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": false, "groups": ["staff"] }] }));
        assert_eq!(events(&op).len(), before + 4, "what changes nothing is no event");
    }

    fn who_may_do_more_is_told_from_who_is_called_otherwise(op) {
        let made = only(&op, "user.created").detail;
        assert_eq!(json!(made["after"]), json!({ "admin": false, "disabled": false, "email_verified": true, "groups": [] }));
        op.seed(json!({ "users": [{ "email": EMAIL, "admin": true, "claims": { "name": "Alice Smith", "phone_number": "+49 30 99" } }] }));
        let event = only(&op, "user.updated");
        assert_eq!(json!(event.detail), json!({
            "changed": ["admin", "claims"], "before": { "admin": false }, "after": { "admin": true }
        }));
        op.seed(json!({ "groups": [{ "name": "admins", "members": [EMAIL] }] }));
        let joined = named(&op, "user.updated").pop().unwrap();
        assert_eq!(json!(joined.detail["after"]), json!({ "groups": ["admins"] }));
        let all = format!("{:?}", events(&op));
        for personal in ["Archer", "Smith", "+49", "1990-02-03", "Bremen", EMAIL, "$argon2"] {
            assert!(!all.contains(personal), "{personal}: {all}");
        }
    }

    fn where_an_app_sends_people_and_what_it_need_not_do_is_written_down(op) {
        let made = only(&op, "client.created").detail;
        assert_eq!(made["after"]["token_endpoint_auth_method"], "client_secret_basic");
        assert_eq!(made["after"]["redirect_uris"], json!([CALLBACK]));
        op.seed(json!({ "clients": [{
            "client_id": "rp", "client_name": "Other Notes", "client_secret": SECRET, "skip_consent": true,
            "redirect_uris": [CALLBACK, "https://evil.example/cb"]
        }] }));
        let detail = only(&op, "client.updated").detail;
        assert_eq!(json!(detail), json!({
            "changed": ["client_name", "redirect_uris", "skip_consent"],
            "before": { "redirect_uris": [CALLBACK], "skip_consent": false },
            "after": { "redirect_uris": [CALLBACK, "https://evil.example/cb"], "skip_consent": true }
        }));
    }

    fn every_secret_that_begins_or_ends_is_written_down_by_its_id(op) {
        let secret = |event: &Recorded| event.detail["secret"].as_str().unwrap().to_owned();
        let with = |secret: &str| op.seed(json!({ "clients": [{ "client_id": "rp", "client_secret": secret, "redirect_uris": [CALLBACK] }] }));
        let first = secret(&only(&op, "client.secret_added"));
        with("another-secret-of-more-than-thirty-two");
        let second = secret(named(&op, "client.secret_added").last().unwrap());
        assert_ne!(first, second);
        assert_eq!(secret(&only(&op, "client.secret_revoked")), first, "the new one took its place");
        with("another-secret-of-more-than-thirty-two");
        assert_eq!(named(&op, "client.secret_added").len(), 2, "what changes nothing is no event");
        // A client that becomes public loses what it had.
        op.seed(json!({ "clients": [{ "client_id": "rp", "token_endpoint_auth_method": "none", "redirect_uris": [CALLBACK] }] }));
        let ended: Vec<_> = named(&op, "client.secret_revoked").iter().map(secret).collect();
        assert_eq!(ended.len(), 2);
        assert!(ended.contains(&first) && ended.contains(&second));
        let updated = named(&op, "client.updated");
        assert_eq!(updated.len(), 2, "its name before, and no word of what had ended: {updated:#?}");
        assert_eq!(updated[1].detail["after"]["token_endpoint_auth_method"], "none");
    }

    fn a_hash_that_a_file_names_no_more_is_an_end_and_no_beginning(op) {
        let hashes = |hashes: &[&str]| {
            let hashes: Vec<_> = hashes.iter().map(|text| json!({ "sha256": URL_SAFE_NO_PAD.encode(TokenHash::of(text).as_bytes()) })).collect();
            op.seed(json!({ "clients": [{ "client_id": "api", "client_secret_hashes": hashes, "redirect_uris": [CALLBACK] }] }));
        };
        hashes(&["one", "two"]);
        let of_api = |name: &str| named(&op, name).into_iter().filter(|event| event.target.as_deref() == Some("api")).count();
        assert_eq!((of_api("client.secret_added"), of_api("client.secret_revoked")), (2, 0));
        hashes(&["one"]);
        assert_eq!((of_api("client.secret_added"), of_api("client.secret_revoked")), (2, 1));
    }

    fn whom_a_file_takes_over_is_written_down_once(op) {
        let by_hand = Seed::of_new_user(UserEntry { email: "b@example.test".to_owned(), ..UserEntry::default() }, &op.config).unwrap();
        by_hand.apply(&op.store, &op.config, op.clock.now()).unwrap();
        for _ in 0..2 {
            op.seed(json!({ "users": [{ "email": "b@example.test" }] }));
        }
        let bob = op.store.read_blocking(|conn| users::find_by_email(conn, "b@example.test")).unwrap().unwrap();
        assert_eq!(only(&op, "user.managed").target, Some(bob.id));
    }

    fn who_entered_which_app_is_written_down_but_not_who_was_looked_for(op) {
        let mut browser = op.browser();
        browser.complete(&op.rp().authorize(&[])).code();
        browser.complete(&op.rp().authorize(&[])).code();
        let entered = named(&op, "app.entered");
        assert_eq!(entered.len(), 2);
        for event in &entered {
            assert_eq!((&event.actor, event.client_id.as_deref()), (&Some(alice(&op)), Some("rp")));
        }
        browser.get(&op.rp().authorize(&[("prompt", "none")]));
        assert_eq!(named(&op, "app.entered").len(), 2, "an app that renews silently is not entered");
    }

    fn who_refuses_an_app_is_written_down(op) {
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[("scope", "openid email")]));
        let consent = browser.sign_in(&page);
        let back = browser.submit(&consent, &[("action", "deny")]);
        assert_eq!(back.callback()["error"], "access_denied");
        let event = only(&op, "consent.refused");
        assert_eq!((event.actor, event.client_id.as_deref()), (Some(alice(&op)), Some("rp")));
        assert_eq!(named(&op, "app.entered").len() + named(&op, "consent.given").len(), 0);
    }

    fn a_slowed_app_and_the_counter_that_filled_are_written_down_once(op with QUICK) {
        let rp = op.rp();
        let wrong = || rp.http().post(op.url("/token")).basic_auth("rp", Some("wrong")).form(&[("grant_type", "x")]).send().unwrap().status();
        let statuses: Vec<_> = (0..6).map(|_| wrong().as_u16()).collect();
        assert_eq!(statuses, [401, 401, 401, 429, 429, 429]);
        let failed = named(&op, "client.authentication_failed");
        assert_eq!(failed.len(), 3);
        assert_eq!((failed[0].target.as_deref(), &failed[0].detail["reason"]), (Some("rp"), &json!("wrong_secret")));
        assert_eq!(only(&op, "client.throttled").target.as_deref(), Some("rp"));
        for _ in 0..4 {
            attempt(&mut op.browser(), EMAIL, "not-the-password-of-anybody");
        }
        assert_eq!(only(&op, "login.throttled").detail["bucket"], "account");
    }

    fn a_sign_in_that_is_overtaken_is_a_failure_with_its_reason(op with QUICK) {
        let alice = alice(&op);
        let seed = |change: Value| drop(op.seed(json!({ "users": [change] })));
        let cases: [(&str, &dyn Fn()); 3] = [
            ("password_changed", &|| seed(json!({ "email": EMAIL, "password": "another-good-battery-horse" }))),
            ("disabled", &|| seed(json!({ "email": EMAIL, "disabled": true }))),
            ("deleted", &|| {
                let id = alice.clone();
                assert!(op.store.write_blocking(move |tx| users::delete(tx, &id)).unwrap());
            }),
        ];
        let mut password = "correct-horse-battery";
        for (number, (reason, change)) in cases.into_iter().enumerate() {
            if reason == "deleted" {
                seed(json!({ "email": EMAIL, "disabled": false }));
            }
            // No hashing thread is free, so the password that was right at the look is judged after the change.
            let threads = hashing::threads_by_default().get();
            let held: Vec<_> = (0..threads).map(|_| hold(&op.hashing).expect("there is room")).collect();
            let counted = failures(&op);
            let status = thread::scope(|scope| {
                let trying = scope.spawn(|| attempt(&mut op.browser(), EMAIL, password).status);
                eventually("the attempt was counted", || (failures(&op) > counted).then_some(()));
                change();
                drop(held);
                trying.join().unwrap()
            });
            assert_eq!(status, 400, "{reason}");
            let failed = named(&op, "login.failed");
            assert_eq!(failed.len(), number + 1, "{failed:#?}");
            assert_eq!((&failed[number].target, &failed[number].detail["reason"]), (&Some(alice.clone()), &json!(reason)));
            assert_eq!(named(&op, "login.succeeded").len(), 0);
            password = "another-good-battery-horse";
        }
    }

    fn an_event_stays_as_long_as_the_configuration_says(op with [("audit.retention", "30d")]) {
        let recorded = events(&op).len();
        assert!(recorded > 0);
        op.clock.advance(29 * DAY);
        op.prune();
        assert_eq!(events(&op).len(), recorded);
        op.clock.advance(DAY);
        assert_eq!(op.prune().audit_events, recorded);
        let pruned = only(&op, "audit.pruned");
        assert_eq!((events(&op).len(), &pruned.detail["events"]), (1, &json!(recorded)));
        assert_eq!(pruned.actor.as_deref(), Some("server"));
        op.clock.advance(30 * DAY);
        assert_eq!(op.prune().audit_events, 1);
        assert_eq!(events(&op).len(), 0, "that others went is no news for ever");
    }

    fn events_are_read_page_by_page_without_a_gap(op) {
        for number in 0..5 {
            op.client(json!({ "client_id": format!("app{number}"), "redirect_uris": ["https://a.example/"] }));
        }
        let whole = events(&op);
        let mut read = Vec::new();
        loop {
            let behind = read.last().map(|event: &Recorded| (event.time, event.id.clone()));
            let page = op.store.read_blocking(move |conn| audit_events::list(conn, behind.as_ref(), 2)).unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        assert_eq!(read, whole);
        let created = read.iter().filter(|event| event.event == "client.created");
        let names: Vec<_> = created.filter_map(|event| event.target.as_deref()).collect();
        assert_eq!(names, ["rp", "app0", "app1", "app2", "app3", "app4"], "as it happened");
    }
}

#[test]
fn what_did_not_happen_is_not_written_down() {
    for database in Database::all() {
        let place = Installation::new(database);
        place.apply(&json!({ "users": [{ "email": EMAIL }] }));
        place.run(&["users", "unlock", EMAIL]);
        place.run(&["users", "end-sessions", EMAIL, "--apps"]);
        // Somebody is deleted while a password of theirs is typed.
        let mut setting = place.typing(&["users", "set-password", EMAIL]);
        pause(Duration::from_secs(3));
        place.run(&["users", "delete", EMAIL]);
        let mut line = setting.stdin.take().unwrap();
        let _looked_late = line.write_all(b"a-password-for-nobody\n");
        drop(line);
        assert_eq!(setting.wait().unwrap().code(), Some(1));
        let events = place.objects(&["audit", "export"]);
        let names: BTreeSet<_> = events
            .iter()
            .map(|event| event["event"].as_str().unwrap())
            .collect();
        let happened = BTreeSet::from(["user.created", "user.deleted", "data.exported"]);
        assert_eq!(names, happened);
    }
}

#[test]
fn who_takes_data_away_is_written_down() {
    let place = Installation::new(Database::Sqlite);
    place.apply(&json!({ "users": [{ "email": EMAIL }] }));
    place.run(&["export"]);
    place.run(&["users", "export", EMAIL]);
    let events = place.objects(&["audit", "export"]);
    let exported = events
        .iter()
        .filter(|event| event["event"] == "data.exported");
    let what: Vec<_> = exported
        .map(|event| event["detail"]["what"].as_str().unwrap())
        .collect();
    for kind in ["everything", "person", "audit_events"] {
        assert!(what.contains(&kind), "{kind}: {what:?}");
    }
}

#[test]
fn the_readme_names_every_event_and_no_other() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("Names are\n").expect("the list begins");
    let (list, _) = rest
        .split_once(" What a stranger typed")
        .expect("the list ends");
    let words = list
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('.'));
    let named: BTreeSet<String> = words.flat_map(spelt_out).collect();
    let known: BTreeSet<String> = Kind::ALL
        .iter()
        .map(|kind| kind.as_str().to_owned())
        .collect();
    assert_eq!(named, known);
}

/// `user.created|deleted` is two.
fn spelt_out(name: &str) -> Vec<String> {
    let (thing, happened) = name
        .split_once('.')
        .expect("a thing and what happened to it");
    happened
        .split('|')
        .map(|happened| format!("{thing}.{happened}"))
        .collect()
}
