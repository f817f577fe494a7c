//! Which pages an app may ask for, or forbid. OpenID Connect Core §3.1.2.1, §3.1.2.3; protocol items 8–11 and 16.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, PASSWORD, SECRET};

const BOB: &str = "bob@example.test";
const BOBS_PASSWORD: &str = "a-horse-of-another-colour";

fn add_bob(op: &Op) {
    op.seed(json!({ "users": [{ "email": BOB, "password": BOBS_PASSWORD, "claims": { "name": "Bob Baker" } }] }));
}

/// The ID token of a request that needs no page any more.
fn silent(op: &Op, browser: &mut Browser) -> Value {
    let rp = op.rp();
    let answer = browser.get(&rp.authorize(&[("prompt", "none")]));
    rp.exchange(&answer.code(), &[]).id_token()
}

fn error(page: &Page) -> String {
    page.callback()["error"].clone()
}

/// Signs bob in beside whoever is signed in already, and lets him agree to `rp`.
fn sign_bob_in_too(op: &Op, browser: &mut Browser) -> Page {
    let page = browser.get(&op.rp().authorize(&[("prompt", "select_account")]));
    let page = browser.submit(&page, &[("account", "other")]);
    let mut page = browser.sign_in_as(&page, BOB, BOBS_PASSWORD);
    if page.has("#consent-allow") {
        assert!(page.body.contains(BOB) && !page.body.contains(EMAIL));
        page = browser.submit(&page, &[("action", "allow")]);
    }
    page
}

/// The chooser's buttons: what a person reads, and what is sent.
fn accounts(page: &Page) -> BTreeMap<String, String> {
    let document = scraper::Html::parse_document(&page.body);
    document
        .select(&scraper::Selector::parse("button[name=account]").unwrap())
        .map(|button| {
            (
                button.text().collect::<String>(),
                button.attr("value").unwrap().to_owned(),
            )
        })
        .map(|(text, value)| {
            let who = [EMAIL, BOB]
                .into_iter()
                .find(|email| text.contains(email))
                .unwrap_or("other");
            (who.to_owned(), value)
        })
        .collect()
}

on_both_databases! {
    fn a14_prompt_none_answers_without_a_page_whatever_is_missing(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let ask = |browser: &mut Browser, more: &[(&str, &str)]| {
            let answer = browser.get_once(&rp.authorize(&[&[("prompt", "none")], more].concat()));
            assert_eq!((answer.status, answer.body.as_str()), (303, ""), "no page");
            answer
        };
        assert_eq!(error(&ask(&mut browser, &[])), "login_required");
        let page = browser.get(&rp.authorize(&[]));
        browser.sign_in(&page);
        assert_eq!(error(&ask(&mut browser, &[])), "consent_required");
        browser.complete(&rp.authorize(&[]));
        assert!(ask(&mut browser, &[]).callback().contains_key("code"));
        assert_eq!(error(&ask(&mut browser, &[("scope", "openid email")])), "consent_required", "more than was allowed");
        assert_eq!(error(&ask(&mut browser, &[("max_age", "0")])), "login_required");
        op.clock.advance(Duration::from_secs(11));
        assert_eq!(error(&ask(&mut browser, &[("max_age", "10")])), "login_required");
        assert_eq!(error(&ask(&mut browser, &[("id_token_hint", "not-a-token")])), "login_required");
    }

    fn consent_given_a_second_ago_is_remembered_by_prompt_none(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let first = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).id_token();
        op.clock.advance(Duration::from_secs(1));
        let second = silent(&op, &mut browser);
        assert_eq!((&first["sub"], &first["auth_time"]), (&second["sub"], &second["auth_time"]));
    }

    fn a14_prompt_login_asks_again_and_auth_time_grows(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let first = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).id_token();
        op.clock.advance(Duration::from_secs(1));
        let page = browser.get(&rp.authorize(&[("prompt", "login")]));
        assert!(page.has("#login-submit"));
        assert!(!page.has("input[name=login][readonly], input[name=login][disabled]"));
        assert_eq!(page.attribute("input[name=login]", "value").as_deref(), Some(EMAIL));
        // The page can't be walked round by opening the next one, nor by asking again.
        let consent = browser.get(&page.url.replace("/login", "/consent"));
        if consent.has("#consent-allow") {
            assert!(browser.submit(&consent, &[("action", "allow")]).has("#login-submit"), "e5_a step was skipped");
        }
        let chosen = browser.get(&page.url.replace("/login", "/select-account"));
        let alice = accounts(&chosen)[EMAIL].clone();
        assert!(browser.submit(&chosen, &[("account", &alice)]).has("#login-submit"), "e5_a step was skipped");
        let answer = browser.sign_in(&page);
        let second = rp.exchange(&answer.code(), &[]).id_token();
        assert_eq!(second["auth_time"].as_i64().unwrap(), first["auth_time"].as_i64().unwrap() + 1);
        assert_eq!(first["sub"], second["sub"]);
        assert!(browser.get(&rp.authorize(&[("prompt", "login")])).has("#login-submit"), "every time");
    }

    fn a14_max_age_asks_again_when_the_sign_in_is_older(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let first = rp.exchange(&browser.complete(&rp.authorize(&[("max_age", "15000")])).code(), &[]).id_token();
        op.clock.advance(Duration::from_secs(2));
        let within = rp.exchange(&browser.get(&rp.authorize(&[("max_age", "15000")])).code(), &[]).id_token();
        assert!(first["auth_time"].is_i64());
        assert_eq!(first["auth_time"], within["auth_time"]);
        for max_age in ["1", "0"] {
            op.clock.advance(Duration::from_secs(2));
            let page = browser.get(&rp.authorize(&[("max_age", max_age)]));
            assert!(page.has("#login-submit"), "{max_age}");
            let again = rp.exchange(&browser.sign_in(&page).code(), &[]).id_token();
            assert!(again["auth_time"].as_i64() > within["auth_time"].as_i64());
        }
        let huge = browser.get(&rp.authorize(&[("max_age", "99999999999999999999999")]));
        assert!(huge.callback().contains_key("code"), "a number too large is no limit");
    }

    fn a14_default_max_age_of_the_app_counts_like_a_parameter(op) {
        op.client(json!({ "client_id": "strict", "client_secret": SECRET, "default_max_age": 60 }));
        let (mut browser, rp) = (op.browser(), op.rp().named("strict"));
        browser.complete(&rp.authorize(&[]));
        assert!(browser.get(&rp.authorize(&[])).callback().contains_key("code"));
        op.clock.advance(Duration::from_secs(61));
        assert!(browser.get(&rp.authorize(&[])).has("#login-submit"));
        assert!(browser.get(&rp.authorize(&[("max_age", "600")])).callback().contains_key("code"), "the request decides");
    }

    fn an_auth_time_is_never_ahead_and_the_same_within_a_session(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let first = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).id_token();
        op.clock.advance(Duration::from_secs(100));
        for _ in 0..2 {
            let next = silent(&op, &mut browser);
            assert_eq!(next["auth_time"], first["auth_time"]);
            assert!(next["iat"].as_i64().unwrap() <= op.clock.now().seconds());
        }
    }

    fn prompt_consent_asks_every_time_even_where_the_app_skips_it(op) {
        op.client(json!({ "client_id": "own", "client_secret": SECRET, "skip_consent": true }));
        let mut browser = op.browser();
        let page = browser.get(&op.rp().named("own").authorize(&[]));
        assert!(browser.sign_in(&page).callback().contains_key("code"), "no question");
        browser.complete(&op.rp().authorize(&[]));
        for client in ["own", "rp"] {
            let page = browser.get(&op.rp().named(client).authorize(&[("prompt", "consent")]));
            assert!(page.has("#consent-allow") && page.has("#consent-deny"), "{client}");
            assert!(browser.submit(&page, &[("action", "allow")]).callback().contains_key("code"));
        }
    }

    fn a14_a_hint_of_the_person_who_is_signed_in_is_answered(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let hint = tokens.text("id_token");
        let parameters = [("prompt", "none"), ("id_token_hint", hint)];
        assert!(browser.get(&rp.authorize(&parameters)).callback().contains_key("code"));
        // It expired an hour ago, and still names the same person.
        op.clock.advance(Duration::from_secs(2 * 3_600));
        assert!(tokens.id_token()["exp"].as_i64().unwrap() < op.clock.now().seconds());
        let answer = browser.get(&rp.authorize(&parameters));
        assert_eq!(rp.exchange(&answer.code(), &[]).id_token()["sub"], tokens.id_token()["sub"]);
    }

    fn a14_a_hint_of_another_person_is_login_required_and_never_this_person(op) {
        add_bob(&op);
        let (mut alice, mut bob, rp) = (op.browser(), op.browser(), op.rp());
        alice.complete(&rp.authorize(&[]));
        let page = bob.get(&rp.authorize(&[]));
        let page = bob.sign_in_as(&page, BOB, BOBS_PASSWORD);
        let bobs = rp.exchange(&bob.submit(&page, &[("action", "allow")]).code(), &[]);
        let hint = bobs.text("id_token");
        assert_eq!(error(&alice.get(&rp.authorize(&[("prompt", "none"), ("id_token_hint", hint)]))), "login_required");
        let by_claims = json!({ "id_token": { "sub": { "value": bobs.id_token()["sub"] } } }).to_string();
        assert_eq!(error(&alice.get(&rp.authorize(&[("prompt", "none"), ("claims", &by_claims)]))), "login_required");
        for parameter in [("id_token_hint", hint), ("claims", by_claims.as_str())] {
            let page = alice.get(&rp.authorize(&[parameter]));
            assert!(page.has("#login-submit"), "{parameter:?}");
            let answer = alice.sign_in(&page);
            assert_eq!(error(&answer), "login_required", "alice proved to be alice");
        }
        // And when it really is bob, he gets in.
        let page = alice.get(&rp.authorize(&[("id_token_hint", hint)]));
        let answer = alice.sign_in_as(&page, BOB, BOBS_PASSWORD);
        assert_eq!(rp.exchange(&answer.code(), &[]).id_token()["sub"], bobs.id_token()["sub"]);
    }

    fn a14_a_forged_hint_names_nobody(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let hint = tokens.text("id_token");
        let (start, _) = hint.rsplit_once('.').unwrap();
        let payload = hint.split('.').nth(1).unwrap();
        for forged in [format!("{start}."), format!("eyJhbGciOiJub25lIn0.{payload}."), format!("{start}.AAAA"), tokens.access_token().to_owned(), "x".to_owned()] {
            assert_eq!(error(&browser.get(&rp.authorize(&[("prompt", "none"), ("id_token_hint", &forged)]))), "login_required");
            assert!(browser.get(&rp.authorize(&[("id_token_hint", &forged)])).has("#login-submit"));
        }
    }

    fn select_account_lets_a_person_choose_among_those_who_are_signed_in(op) {
        add_bob(&op);
        let (mut browser, rp) = (op.browser(), op.rp());
        let alice = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).id_token();
        let bob = rp.exchange(&sign_bob_in_too(&op, &mut browser).code(), &[]).id_token();
        assert_ne!(alice["sub"], bob["sub"]);
        assert_ne!(alice["sid"], bob["sid"]);
        for (email, expected) in [(EMAIL, &alice), (BOB, &bob), (EMAIL, &alice)] {
            let page = browser.get(&rp.authorize(&[("prompt", "select_account")]));
            let choices = accounts(&page);
            assert_eq!(choices.len(), 3, "alice, bob and another");
            let answer = browser.submit(&page, &[("account", &choices[email])]);
            let id_token = rp.exchange(&answer.code(), &[]).id_token();
            assert_eq!((&id_token["sub"], &id_token["sid"]), (&expected["sub"], &expected["sid"]), "{email}");
        }
        let cancelled = { let page = browser.get(&rp.authorize(&[("prompt", "select_account")])); browser.submit(&page, &[("action", "cancel")]) };
        assert_eq!(error(&cancelled), "access_denied");
    }

    fn select_account_with_nobody_signed_in_is_the_sign_in_page(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[("prompt", "select_account")]));
        assert!(page.has("#login-submit"));
        let page = browser.sign_in(&page);
        assert!(page.has("#consent-allow"), "who just typed a password has chosen");
    }

    fn a_hint_picks_the_right_one_of_two_accounts_without_a_page(op) {
        add_bob(&op);
        let (mut browser, rp) = (op.browser(), op.rp());
        let alice = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let bob = rp.exchange(&sign_bob_in_too(&op, &mut browser).code(), &[]);
        for tokens in [&alice, &bob, &alice] {
            let answer = browser.get(&rp.authorize(&[("prompt", "none"), ("id_token_hint", tokens.text("id_token"))]));
            assert_eq!(rp.exchange(&answer.code(), &[]).id_token()["sub"], tokens.id_token()["sub"]);
        }
    }

    fn cancel_is_access_denied_with_state_and_issuer_on_every_page(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let check = |answer: Page| {
            let callback = answer.callback();
            assert_eq!(answer.status, 303);
            assert_eq!((callback["error"].as_str(), callback["state"].as_str(), &callback["iss"]), ("access_denied", "a-state", &op.issuer));
            assert!(!callback.contains_key("code"));
        };
        let page = browser.get(&rp.authorize(&[]));
        assert_eq!(page.attribute("#login-cancel", "value").as_deref(), Some("cancel"));
        check(browser.submit(&page, &[("action", "cancel"), ("login", ""), ("password", "")]));
        let consent = { let page = browser.get(&rp.authorize(&[])); browser.sign_in(&page) };
        check(browser.submit(&consent, &[("action", "deny")]));
        assert_eq!(error(&browser.get(&rp.authorize(&[("prompt", "none")]))), "consent_required", "a refusal is no consent");
        // A person who cancelled by mistake can go back and allow.
        assert!(browser.submit(&consent, &[("action", "allow")]).callback().contains_key("code"));
    }

    fn acr_is_told_and_an_essential_one_out_of_reach_is_refused(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[]));
        let ask = |browser: &mut Browser, acr: Value| {
            let claims = json!({ "id_token": { "acr": acr } }).to_string();
            browser.get(&rp.authorize(&[("claims", &claims)]))
        };
        let unmet = ask(&mut browser, json!({ "essential": true, "values": ["urn:mace:incommon:iap:silver"] }));
        assert_eq!(error(&unmet), "unmet_authentication_requirements");
        for acr in [json!({ "essential": true, "values": ["urn:x", "1"] }), json!({ "values": ["urn:x"] }), Value::Null] {
            let answer = ask(&mut browser, acr);
            let answer = if answer.has("#consent-allow") { browser.submit(&answer, &[("action", "allow")]) } else { answer };
            assert_eq!(rp.exchange(&answer.code(), &[]).id_token()["acr"], "1");
        }
    }

    fn e8_another_person_signing_in_meanwhile_does_not_answer_the_consent_page(op) {
        add_bob(&op);
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        let alices = browser.sign_in(&page);
        assert!(alices.has("#consent-allow") && alices.body.contains(EMAIL));
        // In another tab bob signs in, and alice signs out.
        sign_bob_in_too(&op, &mut browser);
        let home = browser.get("/");
        let (action, hidden) = {
            let document = scraper::Html::parse_document(&home.body);
            let selector = scraper::Selector::parse("form").unwrap();
            let form = document.select(&selector).next_back().unwrap();
            let fields: Vec<_> = form.select(&scraper::Selector::parse("input").unwrap())
                .map(|input| (input.attr("name").unwrap().to_owned(), input.attr("value").unwrap().to_owned())).collect();
            (form.attr("action").unwrap().to_owned(), fields)
        };
        let fields: Vec<_> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        browser.post(&action, &fields);
        let answer = browser.submit(&alices, &[("action", "allow")]);
        if let Some(location) = answer.location() {
            panic!("alice's page was answered: {location}");
        }
        assert!(answer.has("#login-submit"), "her page can't be answered by bob: {}", answer.body);
        let stored = silent(&op, &mut browser);
        assert_eq!(rp.exchange(&browser.get(&rp.authorize(&[])).code(), &[]).id_token()["sub"], stored["sub"]);
    }

    fn passwords_of_the_other_account_are_needed_to_switch(op) {
        add_bob(&op);
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        let page = browser.sign_in(&page);
        let page = browser.submit(&page, &[("action", "switch")]);
        assert!(page.has("#login-submit"));
        assert_eq!(page.attribute("input[name=login]", "value").as_deref(), Some(""), "another account");
        let page = browser.sign_in_as(&page, BOB, PASSWORD);
        assert_eq!(page.status, 400);
        let page = browser.sign_in_as(&page, BOB, BOBS_PASSWORD);
        assert!(page.body.contains(BOB) && page.has("#consent-allow"));
    }
}
