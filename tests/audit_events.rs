//! What is written down for those who have to find out later. OWASP ASVS 5.0 §16.3.

use std::time::Duration;

use latchkey::store::audit_events::{self, Recorded};
use latchkey::store::users;
use serde_json::json;

use crate::refresh_token::{OFFLINE, connect, notes, refreshed};
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op};
use crate::support::race::race;
use crate::throttle::attempt_in as attempt;

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
fn named(op: &Op, name: &str) -> Vec<Recorded> {
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
        let wrong = rp.http().post(op.url("/token")).basic_auth("notes", Some("wrong"))
            .form(&[("grant_type", "refresh_token")]).send().unwrap();
        assert_eq!(wrong.status(), 401);
        assert_eq!(only(&op, "client.authentication_failed").client_id.as_deref(), Some("notes"));
    }

    fn what_a_file_changes_is_written_down_by_what_it_means(op) {
        let before = events(&op).len();
        assert_eq!(only(&op, "user.created").actor.as_deref(), Some("command"));
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": true, "password": "another-good-battery-horse" }] }));
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": false, "groups": ["staff"] }] }));
        op.seed(json!({ "clients": [{
            "client_id": "rp", "client_name": "Other Notes", "client_secret": "another-secret-of-more-than-thirty-two",
            "redirect_uris": ["https://rp.example/callback"]
        }] }));
        let mut names: Vec<_> = events(&op).into_iter().map(|event| event.event).collect();
        names.sort_unstable();
        assert_eq!(names, [
            "client.created", "client.secret_added", "client.secret_added", "client.updated",
            "password.changed", "user.created", "user.disabled", "user.enabled", "user.updated",
        ]);
        let count = before + 6;
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": false, "groups": ["staff"] }] }));
        assert_eq!(events(&op).len(), count, "what changes nothing is no event");
    }

    fn an_event_stays_as_long_as_the_configuration_says(op with [("audit.retention", "30d")]) {
        let recorded = events(&op).len();
        assert!(recorded > 0);
        op.clock.advance(29 * DAY);
        op.prune();
        assert_eq!(events(&op).len(), recorded);
        op.clock.advance(DAY);
        assert_eq!(op.prune().audit_events, recorded);
        assert_eq!(events(&op).len(), 0);
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
    }
}
