//! Refresh tokens: good once, forgiving of a lost answer, fatal to a thief.
//! RFC 6749 §6; RFC 9700 §4.14.2; OpenID Connect Core §11, §12.

use std::collections::BTreeSet;
use std::time::Duration;

use latchkey::protocol::client::ClientId;
use latchkey::protocol::interaction::Consent;
use latchkey::store::consents;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::invariants::assert_sound;
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, SECRET};
use crate::support::race::at_once;
use crate::support::relying_party::{Answer, Rp, part};

pub const OFFLINE: &str = "openid email offline_access";
const DAY: Duration = Duration::from_secs(86_400);
const GRANTS: [&str; 2] = ["authorization_code", "refresh_token"];

/// A confidential client that may refresh; metadata of the test's own comes on top.
pub fn notes(op: &Op, metadata: Value) -> Rp {
    let mut client =
        json!({ "client_id": "notes", "client_secret": SECRET, "grant_types": GRANTS });
    client
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    op.client(client);
    op.rp().named("notes")
}

/// A public client that may refresh.
pub fn spa(op: &Op) -> Rp {
    op.client(
        json!({ "client_id": "spa", "token_endpoint_auth_method": "none", "grant_types": GRANTS }),
    );
    op.rp().named("spa").public().from("Browser/1 of the owner")
}

/// Alice signs in if she must, allows it, and the client has its first tokens.
pub fn connect(browser: &mut Browser, rp: &Rp, scope: &str) -> Answer {
    let code = browser
        .complete(&rp.authorize_with_pkce(&[("scope", scope), ("nonce", "a-nonce")]))
        .code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

pub fn refreshed(rp: &Rp, token: &str) -> Answer {
    let tokens = rp.refresh(token, &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// The family has ended: none of these refresh tokens is good, and none of these access tokens.
pub fn assert_ended(rp: &Rp, answers: &[&Answer]) {
    for answer in answers {
        assert_eq!(
            rp.refresh(answer.refresh_token(), &[]).error(),
            (400, "invalid_grant")
        );
        assert_eq!(
            rp.userinfo(answer.access_token()).error(),
            (401, "invalid_token")
        );
    }
}

pub fn sign_out(browser: &mut Browser) {
    let page = browser.get("/");
    let session = page
        .attribute("input[name=session]", "value")
        .expect("somebody is signed in");
    browser.submit(&page, &[("session", &session)]);
    assert!(!browser.get("/").has("#logout-confirm"));
}

on_both_databases! {
    fn b5_each_use_answers_with_fresh_tokens_and_a_successor(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        assert_eq!(first.refresh_token().len(), 43);
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(second.headers["cache-control"], "no-store");
        assert_eq!(second.json["token_type"], "Bearer");
        assert_eq!(second.json["expires_in"], 600);
        assert_eq!(second.json["scope"], "email offline_access openid");
        let third = refreshed(&rp, second.refresh_token());
        let tokens = [&first, &second, &third];
        assert_eq!(tokens.map(Answer::refresh_token).into_iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(tokens.map(Answer::access_token).into_iter().collect::<BTreeSet<_>>().len(), 3);
        for answer in tokens {
            assert_eq!(rp.userinfo(answer.access_token()).json["email"], EMAIL);
        }
    }

    fn a_new_id_token_is_about_the_same_sign_in(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        op.clock.advance(Duration::from_secs(400));
        let (before, after) = (first.id_token(), refreshed(&rp, first.refresh_token()).id_token());
        for claim in ["iss", "sub", "aud", "azp", "auth_time", "sid", "acr", "amr"] {
            assert!(!before[claim].is_null() && before[claim] == after[claim], "{claim}: {before} {after}");
        }
        assert_eq!(after["iat"].as_i64().unwrap() - before["iat"].as_i64().unwrap(), 400);
        assert_eq!(before["nonce"], "a-nonce");
        assert_eq!(after.get("nonce"), None);
        assert_ne!(before["at_hash"], after["at_hash"]);
    }

    fn b6_a_lost_answer_can_be_asked_for_again(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let lost = refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(60));
        let again = refreshed(&rp, first.refresh_token());
        assert_eq!(again.refresh_token(), lost.refresh_token());
        assert_ne!(again.access_token(), lost.access_token());
        let next = refreshed(&rp, again.refresh_token());
        assert_eq!(rp.userinfo(next.access_token()).status, 200);
    }

    fn b5_a_token_is_replayed_once_its_successor_was_used(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let second = refreshed(&rp, first.refresh_token());
        let third = refreshed(&rp, second.refresh_token());
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&third, &second, &first]);
    }

    fn b5_a_token_is_replayed_after_the_window(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let second = refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(61));
        assert_eq!(rp.userinfo(second.access_token()).status, 200);
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&second, &first]);
    }

    fn b5_a_replay_is_one_whatever_else_is_wrong_with_the_request(op) {
        let (rp, mut browser) = (notes(&op, json!({ "refresh_retry_window": 0 })), op.browser());
        for wrong in [("scope", "openid phone"), ("resource", "https://c.example/")] {
            let first = connect(&mut browser, &rp, OFFLINE);
            assert_eq!(rp.refresh(first.refresh_token(), &[wrong]).status, 400);
            let second = refreshed(&rp, first.refresh_token());
            assert_eq!(rp.refresh(first.refresh_token(), &[wrong]).status, 400);
            assert_ended(&rp, &[&second, &first]);
        }
    }

    fn b5_a_replay_ends_one_family_and_no_other(op) {
        let (rp, mut browser) = (notes(&op, json!({ "refresh_retry_window": 0 })), op.browser());
        let (first, other) = (connect(&mut browser, &rp, OFFLINE), connect(&mut browser, &rp, OFFLINE));
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"), "a window of 0 is strict");
        assert_ended(&rp, &[&second, &first]);
        assert_eq!(rp.userinfo(other.access_token()).status, 200);
        refreshed(&rp, other.refresh_token());
    }

    fn b5_a_replay_is_known_long_after_the_token_expired(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        op.clock.advance(20 * DAY);
        let second = refreshed(&rp, first.refresh_token());
        op.clock.advance(20 * DAY);
        let third = refreshed(&rp, second.refresh_token());
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&third, &second, &first]);
    }

    fn b5_families_and_replays_survive_a_restart(op) {
        let mut op = op;
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let (first, other) = (connect(&mut browser, &rp, OFFLINE), connect(&mut browser, &rp, OFFLINE));
        let (second, lost) = (refreshed(&rp, first.refresh_token()), refreshed(&rp, other.refresh_token()));
        op.restart(|_| {});
        assert_eq!(refreshed(&rp, other.refresh_token()).refresh_token(), lost.refresh_token());
        let third = refreshed(&rp, second.refresh_token());
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        op.restart(|_| {});
        assert_ended(&rp, &[&third, &second, &first]);
        refreshed(&rp, lost.refresh_token());
    }

    fn b6_of_many_at_once_one_branch_goes_on(op) {
        let rp = notes(&op, json!({}));
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for round in 0..50 {
            let answers = at_once((0..20).map(|_| || rp.refresh(current.refresh_token(), &[])));
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [200; 20], "round {round}");
            let successors: BTreeSet<_> = answers.iter().map(Answer::refresh_token).collect();
            assert_eq!(successors.len(), 1, "round {round}");
            current = answers.into_iter().next().unwrap();
            assert_eq!(rp.userinfo(current.access_token()).status, 200, "round {round}");
        }
        refreshed(&rp, current.refresh_token());
        assert_sound(&op.store);
    }

    fn b5_of_many_at_once_with_tokens_of_every_age_one_branch_goes_on_or_none(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        for round in 0..10 {
            // Some lost an answer, and some did not hear of the last rotation.
            let first = connect(&mut browser, &rp, OFFLINE);
            let second = refreshed(&rp, first.refresh_token());
            let tokens = [first.refresh_token(), second.refresh_token()];
            let (rp, tokens) = (&rp, &tokens);
            let answers = at_once((0..8).map(|racer| move || rp.refresh(tokens[racer % 2], &[])));
            let good = || answers.iter().filter(|answer| answer.status == 200);
            let successors: BTreeSet<_> = good().map(Answer::refresh_token).filter(|token| *token != second.refresh_token()).collect();
            assert!(successors.len() <= 1, "round {round}: never two branches");
            if answers.iter().all(|answer| answer.status == 200) {
                // Those with the older token came first: to each of them its successor was unused.
                refreshed(rp, successors.first().unwrap());
            } else {
                assert_ended(rp, &[&[&second, &first], &good().collect::<Vec<_>>()[..]].concat());
            }
        }
        assert_sound(&op.store);
    }

    fn b6_when_strict_of_many_at_once_none_goes_on(op) {
        let rp = notes(&op, json!({ "refresh_retry_window": 0 }));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let answers = at_once((0..20).map(|_| || rp.refresh(first.refresh_token(), &[])));
        let winners: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert!(winners.len() <= 1, "never two");
        assert_ended(&rp, &[&[&first], &winners[..]].concat());
    }

    fn b5_a_thief_who_comes_first_is_found_when_the_owner_comes(op) {
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let thief = refreshed(&rp, stolen.refresh_token());
        op.clock.advance(Duration::from_secs(300));
        assert_eq!(rp.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&thief, &stolen]);
    }

    fn b5_a_thief_who_comes_second_ends_the_family(op) {
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let owner = refreshed(&rp, stolen.refresh_token());
        op.clock.advance(Duration::from_secs(300));
        assert_eq!(rp.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&owner, &stolen]);
    }

    fn b5_a_thief_inside_the_window_shares_one_branch_until_either_moves_on(op) {
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let (owner, thief) = (refreshed(&rp, stolen.refresh_token()), refreshed(&rp, stolen.refresh_token()));
        assert_eq!(owner.refresh_token(), thief.refresh_token());
        let moved_on = refreshed(&rp, owner.refresh_token());
        op.clock.advance(Duration::from_secs(61));
        assert_eq!(rp.refresh(thief.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&moved_on, &owner, &stolen]);
    }

    fn b5_a_thief_in_step_with_a_public_client_is_found_at_the_third_rotation(op) {
        let owner = spa(&op);
        let thief = owner.clone().from("Tool/2 of the thief");
        let mut browser = op.browser();
        for thief_first in [false, true] {
            let (one, two) = if thief_first { (&thief, &owner) } else { (&owner, &thief) };
            let mut current = connect(&mut browser, &owner, OFFLINE);
            for _ in 0..2 {
                let next = refreshed(one, current.refresh_token());
                assert_eq!(refreshed(two, current.refresh_token()).refresh_token(), next.refresh_token());
                // However often: it is one rotation.
                refreshed(two, current.refresh_token());
                current = next;
            }
            let last = refreshed(one, current.refresh_token());
            assert_eq!(two.refresh(current.refresh_token(), &[]).error(), (400, "invalid_grant"));
            assert_ended(&owner, &[&last, &current]);
        }
    }

    fn b6_two_tabs_in_step_are_never_taken_for_a_thief(op) {
        let rp = spa(&op);
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for _ in 0..6 {
            let next = refreshed(&rp, current.refresh_token());
            assert_eq!(refreshed(&rp, current.refresh_token()).refresh_token(), next.refresh_token());
            current = next;
        }
    }

    fn b6_a_phone_that_changes_networks_now_and_then_is_no_thief(op) {
        let here = spa(&op);
        let there = here.clone().from("Browser/1 after an update");
        let mut current = connect(&mut op.browser(), &here, OFFLINE);
        for _ in 0..3 {
            for _ in 0..2 {
                let next = refreshed(&here, current.refresh_token());
                refreshed(&there, current.refresh_token());
                current = next;
            }
            // One rotation without a second place begins the count anew.
            current = refreshed(&here, current.refresh_token());
        }
    }

    fn b6_a_confidential_client_may_refresh_from_anywhere(op) {
        let rp = notes(&op, json!({}));
        let other = rp.clone().from("another of its servers");
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for _ in 0..5 {
            let next = refreshed(&rp, current.refresh_token());
            refreshed(&other, current.refresh_token());
            current = next;
        }
    }

    fn b2_another_client_is_refused_and_ends_nothing(op) {
        let (rp, other) = (notes(&op, json!({})), spa(&op));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let wrong_secret = { let mut rp = rp.clone(); rp.secret = Some("wrong".repeat(10)); rp };
        for token in [first.refresh_token().to_owned(), refreshed(&rp, first.refresh_token()).refresh_token().to_owned()] {
            assert_eq!(other.refresh(&token, &[]).error(), (400, "invalid_grant"));
            assert_eq!(wrong_secret.refresh(&token, &[]).error(), (401, "invalid_client"));
        }
        // Nor after the token was spent, which would be a replay of its owner's.
        op.clock.advance(Duration::from_secs(120));
        assert_eq!(other.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.userinfo(first.access_token()).status, 200);
    }

    fn b7_a_scope_narrows_and_never_widens(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, "openid email offline_access");
        let wider = rp.refresh(first.refresh_token(), &[("scope", "openid email profile")]);
        assert_eq!(wider.error(), (400, "invalid_scope"));
        let narrow = rp.refresh(first.refresh_token(), &[("scope", "openid")]);
        assert_eq!((narrow.status, &narrow.json["scope"]), (200, &json!("openid")), "the refusal spent nothing");
        let userinfo = rp.userinfo(narrow.access_token());
        assert_eq!((userinfo.status, userinfo.json.get("email")), (200, None));
        let whole = refreshed(&rp, narrow.refresh_token());
        assert_eq!(whole.json["scope"], "email offline_access openid", "the family keeps its scope");
        assert_eq!(rp.userinfo(whole.access_token()).json["email"], EMAIL);
    }

    fn b7_scopes_that_were_dropped_at_first_are_dropped_again(op) {
        let rp = notes(&op, json!({}));
        let sent = "openid email offline_access api:read";
        let first = connect(&mut op.browser(), &rp, sent);
        assert_eq!(first.json["scope"], "email offline_access openid");
        let again = rp.refresh(first.refresh_token(), &[("scope", sent)]);
        assert_eq!((again.status, &again.json["scope"]), (200, &json!("email offline_access openid")));
    }

    fn b7_what_the_client_may_no_longer_ask_for_is_left_out(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, "openid email offline_access");
        notes(&op, json!({ "scope": "openid offline_access" }));
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(second.json["scope"], "offline_access openid");
        assert_eq!(rp.userinfo(second.access_token()).json.get("email"), None);
    }

    fn b15_a_resource_can_be_chosen_at_each_refresh(op) {
        let rp = notes(&op, json!({ "allowed_resources": ["https://a.example/", "https://b.example/"] }));
        let url = format!("{}&resource=https://a.example/&resource=https://b.example/", rp.authorize(&[("scope", OFFLINE)]));
        let first = rp.exchange(&op.browser().complete(&url).code(), &[]);
        let one = rp.refresh(first.refresh_token(), &[("resource", "https://b.example/")]);
        assert_eq!(part(one.access_token(), 1)["aud"], "https://b.example/");
        let other = rp.refresh(one.refresh_token(), &[("resource", "https://c.example/")]);
        assert_eq!(other.error(), (400, "invalid_target"));
        refreshed(&rp, one.refresh_token());
    }

    fn only_a_client_with_the_grant_gets_one_and_only_if_it_asks(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        assert_eq!(connect(&mut browser, &rp, "openid").json.get("refresh_token"), None, "not asked for");
        let without = op.rp();
        let tokens = connect(&mut browser, &without, OFFLINE);
        assert_eq!(tokens.json.get("refresh_token"), None);
        assert_eq!(tokens.json["scope"], "email openid", "dropped like any scope that isn't allowed");
        assert_eq!(without.refresh("anything", &[]).error(), (400, "unauthorized_client"));
    }

    fn offline_access_asks_for_consent_and_says_what_it_means(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        connect(&mut browser, &rp, "openid email");
        let silent = browser.get(&rp.authorize(&[("scope", OFFLINE), ("prompt", "none")]));
        assert_eq!(silent.callback()["error"], "consent_required");
        let page = browser.get(&rp.authorize(&[("scope", OFFLINE)]));
        assert!(page.text(".rows").contains("Stay signed in while you’re away"), "{}", page.body);
        assert_eq!(browser.submit(&page, &[("action", "deny")]).callback()["error"], "access_denied");
        connect(&mut browser, &rp, OFFLINE);
        // An app of the house asks nobody.
        let rp = notes(&op, json!({ "skip_consent": true }));
        let code = browser.get(&rp.authorize(&[("scope", OFFLINE)])).code();
        refreshed(&rp, rp.exchange(&code, &[]).refresh_token());
    }

    fn b8_offline_access_outlives_the_sign_in(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let first = connect(&mut browser, &rp, OFFLINE);
        sign_out(&mut browser);
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(rp.userinfo(second.access_token()).status, 200);
        op.clock.advance(20 * DAY);
        refreshed(&rp, second.refresh_token());
    }

    fn b8_a_session_refresh_token_ends_with_the_sign_out(op) {
        let (rp, mut browser) = (notes(&op, json!({ "session_refresh_tokens": true })), op.browser());
        let first = connect(&mut browser, &rp, "openid");
        assert_eq!(first.json["scope"], "openid");
        let second = refreshed(&rp, first.refresh_token());
        sign_out(&mut browser);
        assert_ended(&rp, &[&second, &first]);
    }

    fn b8_a_session_refresh_token_ends_when_the_session_does(op) {
        let (rp, mut browser) = (notes(&op, json!({ "session_refresh_tokens": true })), op.browser());
        let first = connect(&mut browser, &rp, "openid");
        let offline = connect(&mut browser, &rp, OFFLINE);
        op.clock.advance(DAY / 2 - Duration::from_secs(60));
        let second = refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(60));
        assert_eq!(rp.refresh(second.refresh_token(), &[]).error(), (400, "invalid_grant"));
        refreshed(&rp, offline.refresh_token());
    }

    fn b8_a_new_password_ends_every_family(op) {
        let (rp, mut browser) = (notes(&op, json!({ "session_refresh_tokens": true })), op.browser());
        let (offline, bound) = (connect(&mut browser, &rp, OFFLINE), connect(&mut browser, &rp, "openid"));
        op.seed(json!({ "users": [{ "email": EMAIL, "password": "staple-battery-horse-9" }] }));
        assert_ended(&rp, &[&offline, &bound]);
    }

    fn b8_a_disabled_person_is_refused_and_stays_so(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        for disabled in [true, false] {
            op.seed(json!({ "users": [{ "email": EMAIL, "disabled": disabled }] }));
            assert_ended(&rp, &[&first]);
        }
    }

    fn b8_a_withdrawn_consent_is_refused(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let (subject, now) = (first.id_token()["sub"].as_str().unwrap().to_owned(), op.clock.now());
        let client = ClientId::from_request("notes");
        op.store.write_blocking(move |tx| consents::put(tx, &subject, &client, &Consent::default(), now)).unwrap();
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    fn b8_a_client_that_lost_the_grant_is_refused(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        notes(&op, json!({ "grant_types": ["authorization_code"] }));
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "unauthorized_client"));
        notes(&op, json!({}));
        refreshed(&rp, first.refresh_token());
    }

    fn b8_a_token_that_stands_idle_expires(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let (first, other) = (connect(&mut browser, &rp, OFFLINE), connect(&mut browser, &rp, OFFLINE));
        op.clock.advance(30 * DAY - Duration::from_secs(1));
        let second = refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rp.refresh(other.refresh_token(), &[]).error(), (400, "invalid_grant"));
        refreshed(&rp, second.refresh_token());
    }

    fn b8_a_family_ends_however_often_it_is_used(op) {
        let rp = notes(&op, json!({ "tokens": { "refresh_idle": "10d", "refresh_absolute": "25d" } }));
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for _ in 0..2 {
            op.clock.advance(9 * DAY);
            current = refreshed(&rp, current.refresh_token());
        }
        op.clock.advance(7 * DAY - Duration::from_secs(1));
        let last = refreshed(&rp, current.refresh_token());
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rp.refresh(last.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.refresh(current.refresh_token(), &[]).error(), (400, "invalid_grant"), "nor its lost answer");
    }

    fn b8_the_configuration_sets_the_lives_of_families(op with [("tokens.refresh_idle", "2m"), ("tokens.refresh_retry_window", "0")]) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let (first, other) = (connect(&mut browser, &rp, OFFLINE), connect(&mut browser, &rp, OFFLINE));
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&second]);
        op.clock.advance(Duration::from_secs(120));
        assert_eq!(rp.refresh(other.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    fn b1_a_replayed_code_ends_the_family_that_came_from_it(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let code = browser.complete(&rp.authorize(&[("scope", OFFLINE)])).code();
        let first = rp.exchange(&code, &[]);
        let second = refreshed(&rp, first.refresh_token());
        assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
        assert_ended(&rp, &[&second, &first]);
    }

    fn b11_an_altered_token_is_unknown(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        let token = first.refresh_token();
        let upper = token.to_uppercase();
        for altered in [&token[1..], &token[..42], &format!("{token}A"), &format!("{token} "), &format!(" {token}"), &upper, first.access_token()] {
            assert_eq!(rp.refresh(altered, &[]).error(), (400, "invalid_grant"), "{altered:?}");
        }
        for missing in [rp.refresh("", &[]), rp.refresh(token, &[("refresh_token", token)])] {
            assert_eq!(missing.error(), (400, "invalid_request"));
        }
        refreshed(&rp, token);
    }

    fn b9_a_refresh_token_opens_nothing_else(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        assert_eq!(rp.userinfo(first.refresh_token()).error(), (401, "invalid_token"));
        assert_eq!(rp.exchange(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    fn discovery_names_the_grant_and_the_scope(op) {
        let document = op.rp().get("/.well-known/openid-configuration").json;
        let grant_types = document["grant_types_supported"].as_array().unwrap();
        assert!(grant_types.contains(&json!("refresh_token")));
        assert!(document["scopes_supported"].as_array().unwrap().contains(&json!("offline_access")));
    }

    fn b6_a_retry_never_brings_a_token_that_has_expired(op) {
        let tokens = json!({ "refresh_idle": "60s", "refresh_retry_window": "300s" });
        let rp = notes(&op, json!({ "tokens": tokens }));
        let first = connect(&mut op.browser(), &rp, OFFLINE);
        refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(59));
        refreshed(&rp, first.refresh_token());
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rp.refresh(first.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }
}
