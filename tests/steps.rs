//! No step of a sign-in can be skipped, stretched or done for another account. OWASP ASVS 5.0 §2.3.1;
//! OpenID Connect Core §3.1.2.1, §3.1.2.3.

use std::time::Duration;

use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::Op;

const BOB: &str = "bob@example.test";
const PASSWORD_OF_BOB: &str = "another-long-passphrase";

fn add_bob(op: &Op) {
    op.seed(
        json!({ "users": [{ "email": BOB, "password": PASSWORD_OF_BOB, "email_verified": true }] }),
    );
}

/// Alice first, then bob: he is the current one.
fn both_signed_in(op: &Op) -> Browser {
    add_bob(op);
    let mut browser = op.browser();
    for (login, password) in [
        ("alice@example.test", "correct-horse-battery"),
        (BOB, PASSWORD_OF_BOB),
    ] {
        let page = browser.get(&op.url("/login"));
        browser.sign_in_as(&page, login, password);
    }
    browser
}

fn ticket(page: &Page) -> String {
    let (_, fields) = page.form();
    fields
        .into_iter()
        .find(|(name, _)| name == "ticket")
        .unwrap()
        .1
}

on_both_databases! {
    fn a14_a_fresh_proof_does_not_stay_fresh_while_a_page_lies_open(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[("max_age", "60")]));
        let consent = browser.sign_in(&page);
        op.clock.advance(Duration::from_secs(3_000));
        let page = browser.submit(&consent, &[("action", "allow")]);
        assert!(page.has("#login-submit"), "{} {:?}", page.status, page.location());
        let answer = browser.complete(&page.url);
        let id_token = rp.exchange(&answer.code(), &[]).id_token();
        assert_eq!(id_token["auth_time"], op.clock.now().seconds());
    }

    fn e5_a_used_ticket_brings_no_second_code_without_a_proof(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[("prompt", "login")]));
        let used = ticket(&page);
        let consent = browser.sign_in(&page);
        browser.submit(&consent, &[("action", "allow")]).code();
        op.clock.advance(Duration::from_secs(3_000));
        for path in ["/consent", "/select-account"] {
            let mut page = browser.get(&format!("{path}?ticket={used}"));
            if path == "/select-account" {
                let session = page.attribute("button[name=account]", "value").unwrap();
                page = browser.submit(&page, &[("account", &session)]);
            }
            assert!(page.has("#login-submit"), "{path}: {} {:?}", page.status, page.location());
        }
    }

    fn e5_consent_counts_only_where_it_is_asked_for(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[]));
        let page = browser.get(&rp.authorize(&[("scope", "openid email"), ("prompt", "login")]));
        let by_hand = browser.get(&format!("/consent?ticket={}", ticket(&page)));
        assert!(by_hand.has("#login-submit"), "the policy wants a sign-in first");
        let silent = browser.get(&rp.authorize(&[("scope", "openid email"), ("prompt", "none")]));
        assert_eq!(silent.callback()["error"], "consent_required");
    }

    fn a14_consent_by_hand_does_not_choose_the_account(op) {
        let mut browser = both_signed_in(&op);
        let rp = op.rp();
        let page = browser.get(&rp.authorize(&[("prompt", "select_account")]));
        let by_hand = browser.get(&format!("/consent?ticket={}", ticket(&page)));
        assert!(!by_hand.has("#consent-allow"), "the chooser comes first");
        assert!(by_hand.has("button[name=account]"));
    }

    fn who_is_asked_for_by_a_hint_is_asked_and_nobody_else(op) {
        add_bob(&op);
        let rp = op.rp();
        let mut bobs = op.browser();
        let page = bobs.get(&rp.authorize(&[]));
        let page = bobs.sign_in_as(&page, BOB, PASSWORD_OF_BOB);
        let code = bobs.submit(&page, &[("action", "allow")]).code();
        let hint = rp.exchange(&code, &[]).text("id_token").to_owned();

        let mut alices = op.browser();
        alices.complete(&rp.authorize(&[]));
        let page = alices.get(&rp.authorize(&[("id_token_hint", &hint)]));
        assert!(page.has("#login-submit"));
        assert!(!page.body.contains("alice@example.test"), "she is not the one who is asked for");
    }

    fn a_login_hint_picks_among_the_accounts_that_are_signed_in(op) {
        let mut browser = both_signed_in(&op);
        let rp = op.rp();
        for (hint, email) in [("Alice@Example.test", "alice@example.test"), (BOB, BOB)] {
            let page = browser.get(&rp.authorize(&[("login_hint", hint)]));
            assert!(page.has("#consent-allow") && page.body.contains(email), "{hint}");
        }
    }

    fn without_a_page_the_account_that_the_app_used_goes_on(op) {
        let mut browser = both_signed_in(&op);
        let rp = op.rp();
        let silent = rp.authorize(&[("prompt", "none")]);
        assert_eq!(browser.get(&silent).callback()["error"], "account_selection_required");
        let page = browser.get(&rp.authorize(&[("login_hint", "alice@example.test")]));
        let code = browser.submit(&page, &[("action", "allow")]).code();
        let alice = rp.exchange(&code, &[]).id_token()["sub"].clone();
        let again = rp.exchange(&browser.get(&silent).code(), &[]).id_token();
        assert_eq!(again["sub"], alice, "although bob signed in last");
    }

    fn two_tabs_of_a_first_visit_both_reach_the_app(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        // Neither request has a cookie of ours yet, and the second answer's cookie replaces the first one's.
        let mut other = browser.clone();
        let first = browser.get(&rp.authorize(&[("state", "first")]));
        let second = other.get(&rp.authorize(&[("state", "second")]));
        browser.cookies = other.cookies.clone();
        let answer = browser.complete(&first.url);
        assert_eq!(answer.callback()["state"], "first");
        assert_eq!(browser.complete(&second.url).callback()["state"], "second");
    }

    fn a_sign_in_that_is_alive_is_not_crowded_out_by_dead_ones(op with [("session.idle", "1h"), ("session.absolute", "2h")]) {
        let mut browser = op.browser();
        let sign_in = |browser: &mut Browser, login: &str, password: &str, remember: bool| {
            let page = browser.get(&op.url("/login"));
            let mut fields = vec![("login", login), ("password", password)];
            if remember {
                fields.push(("remember", "on"));
            }
            browser.submit(&page, &fields);
        };
        sign_in(&mut browser, "alice@example.test", "correct-horse-battery", true);
        for number in 0..6 {
            let email = format!("person{number}@example.test");
            op.seed(json!({ "users": [{ "email": email, "password": PASSWORD_OF_BOB }] }));
            sign_in(&mut browser, &email, PASSWORD_OF_BOB, false);
            op.clock.advance(Duration::from_secs(3_600));
        }
        assert!(browser.get(&op.url("/")).body.contains("alice@example.test"));
    }
}
