//! Signing out at an app's request: whom, after which question, and where the browser goes then.
//! OpenID Connect RP-Initiated Logout 1.0; OWASP ASVS 5.0 §7.4, §10.6.2.

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::keys::rotate;
use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::{Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::relying_party::{Answer, Rp, part};

const BYE: &str = "https://rp.example/bye";
const BYE_WITH_QUERY: &str = "https://rp.example/bye?lang=de";
const BOB: &str = "bob@example.test";
const PASSWORD_OF_BOB: &str = "a-horse-of-another-colour";
const SESSION: &str = "latchkey-session";
const DAILY: [(&str, &str); 2] = [("keys.rotate_every", "1d"), ("keys.publish_before", "1h")];
const WITH_PATH: [(&str, &str); 1] = [("issuer", "http://localhost:{port}/tenant/id")];
const SHORT: [(&str, &str); 2] = [("session.idle", "1h"), ("session.absolute", "1d")];

/// A client that has people come back after signing out.
fn notes(op: &Op) -> Rp {
    op.client(json!({
        "client_id": "notes", "client_name": "Acme Notes", "client_secret": SECRET, "client_uri": "https://rp.example/",
        "post_logout_redirect_uris": [BYE, BYE_WITH_QUERY],
        "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
    }));
    op.rp().named("notes")
}

/// Alice signs in if she must, and the client has its tokens.
fn connect(browser: &mut Browser, rp: &Rp, scope: &str) -> Answer {
    let code = browser.complete(&rp.authorize(&[("scope", scope)])).code();
    let tokens = rp.exchange(&code, &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// Alice's browser, the client and the ID token that it has of her.
fn signed_in(op: &Op) -> (Browser, Rp, String) {
    let (mut browser, rp) = (op.browser(), notes(op));
    let tokens = connect(&mut browser, &rp, "openid");
    (browser, rp, tokens.text("id_token").to_owned())
}

fn add_bob(op: &Op, browser: &mut Browser) {
    op.seed(json!({ "users": [{ "email": BOB, "password": PASSWORD_OF_BOB, "claims": { "name": "Bob Baker" } }] }));
    let page = browser.get(&op.url("/login"));
    browser.sign_in_as(&page, BOB, PASSWORD_OF_BOB);
}

fn leaving(op: &Op, parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    format!("{}/end-session?{}", op.issuer, query.finish())
}

/// Whom our first page shows as signed in; what a person sees, without changing anything.
fn present(browser: &Browser, op: &Op) -> Vec<String> {
    let page = browser.clone().get(&op.url("/"));
    page.all_attributes("input[name=session]", "value")
}

fn is_signed_in(browser: &Browser, op: &Op) -> bool {
    let answer = browser
        .clone()
        .get(&op.rp().named("notes").authorize(&[("prompt", "none")]));
    let here = answer.callback().contains_key("code");
    if !here {
        assert_eq!(answer.callback()["error"], "login_required");
    }
    assert_eq!(here, !present(browser, op).is_empty());
    here
}

fn assert_question(page: &Page) {
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.has("form[method=post] #logout-confirm") && page.has("#logout-cancel"),
        "{}",
        page.body
    );
}

fn assert_signed_out(page: &Page) {
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.text("main").contains("signed out") && page.has("a#logout-continue"),
        "{}",
        page.body
    );
    assert!(!page.has("form"));
}

/// Refused on a page, and whoever was signed in still is.
fn assert_refused(op: &Op, browser: &Browser, url: &str, why: &str) {
    let before = present(browser, op);
    let page = browser.clone().get(url);
    assert_eq!((page.status, page.location()), (400, None), "{why}");
    assert!(
        page.has("#op-error") && page.text("#op-error").contains("nobody was signed out"),
        "{why}: {}",
        page.body
    );
    assert!(page.text("main").contains("invalid_request"), "{why}");
    assert_eq!(
        page.attribute("main a.button", "href"),
        Some(format!("{}/", path_of(&op.issuer))),
        "{why}"
    );
    assert_eq!(present(browser, op), before, "{why}");
}

fn path_of(issuer: &str) -> String {
    url::Url::parse(issuer)
        .unwrap()
        .path()
        .trim_end_matches('/')
        .to_owned()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The same token with another payload.
fn with_payload(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut payload = part(token, 1);
    change(&mut payload);
    let parts: Vec<_> = token.split('.').collect();
    format!("{}.{}.{}", parts[0], encoded(&payload), parts[2])
}

on_both_databases! {
    fn l4_a_hint_of_this_sign_in_signs_out_and_leads_back_with_state(op) {
        let (mut browser, _, hint) = signed_in(&op);
        let copy = browser.clone();
        let url = leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE), ("state", "a b&c"), ("ui_locales", "se"), ("foo", "bar")]);
        let answer = browser.get_once(&url);
        assert_eq!((answer.status, answer.location().as_deref()), (303, Some("https://rp.example/bye?state=a+b%26c")));
        assert_eq!((answer.header("cache-control"), answer.header("referrer-policy")), ("no-store", "no-referrer"));
        assert!(!browser.cookies.contains_key(SESSION));
        assert!(!is_signed_in(&browser, &op));
        assert!(!is_signed_in(&copy, &op), "a copy of the cookie is worth nothing");
        // Logout requests may come twice, and the second time there is nobody left.
        assert_eq!(browser.get_once(&url).location(), answer.location());
    }

    fn l4_without_state_nothing_is_added_and_a_registered_query_is_kept(op) {
        for (uri, state, expected) in [(BYE, "", BYE), (BYE_WITH_QUERY, "", BYE_WITH_QUERY), (BYE_WITH_QUERY, "s", "https://rp.example/bye?lang=de&state=s")] {
            let (mut browser, _, hint) = signed_in(&op);
            let url = leaving(&op, &[("id_token_hint", &hint), ("client_id", "notes"), ("post_logout_redirect_uri", uri), ("state", state)]);
            assert_eq!(browser.get_once(&url).location().as_deref(), Some(expected));
            assert!(!is_signed_in(&browser, &op));
        }
    }

    fn l4_a_hint_alone_ends_on_the_page_that_says_so(op) {
        let (mut browser, _, hint) = signed_in(&op);
        let page = browser.get(&leaving(&op, &[("id_token_hint", &hint), ("state", "s")]));
        assert_signed_out(&page);
        assert_eq!(page.attribute("#logout-continue", "href").as_deref(), Some("https://rp.example/"), "back to the app");
        assert!(!page.url.contains(&hint));
        assert!(!is_signed_in(&browser, &op));
    }

    fn l4_what_is_bound_to_the_sign_in_dies_with_it_and_offline_access_goes_on(op) {
        let (mut browser, rp) = (op.browser(), notes(&op));
        let bound = connect(&mut browser, &rp, "openid email");
        let offline = connect(&mut browser, &rp, "openid email offline_access");
        let pending = browser.complete(&rp.authorize(&[])).code();
        let (mut phone, elsewhere) = { let mut phone = op.browser(); let tokens = connect(&mut phone, &rp, "openid email"); (phone, tokens) };
        browser.get_once(&leaving(&op, &[("id_token_hint", bound.text("id_token")), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(rp.userinfo(bound.access_token()).error(), (401, "invalid_token"), "at once");
        assert_eq!(rp.refresh(bound.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.exchange(&pending, &[]).error(), (400, "invalid_grant"), "a code that was on its way");
        assert_eq!(rp.userinfo(offline.access_token()).json["email"], EMAIL);
        let refreshed = rp.refresh(offline.refresh_token(), &[]);
        assert_eq!(refreshed.status, 200, "{}", refreshed.json);
        assert_eq!(rp.userinfo(elsewhere.access_token()).status, 200, "another browser is not concerned");
        assert_eq!(rp.refresh(elsewhere.refresh_token(), &[]).status, 200);
        assert_eq!(phone.get(&rp.authorize(&[("prompt", "none")])).code().len(), 43);
    }

    fn l4_no_refresh_that_runs_beside_the_sign_out_outlives_it(op) {
        let (mut browser, rp) = (op.browser(), notes(&op));
        for _ in 0..3 {
            let tokens = connect(&mut browser, &rp, "openid");
            let url = leaving(&op, &[("id_token_hint", tokens.text("id_token"))]);
            let issued: Vec<Answer> = thread::scope(|scope| {
                let racers: Vec<_> = (0..6).map(|_| scope.spawn(|| rp.refresh(tokens.refresh_token(), &[]))).collect();
                let leaver = scope.spawn(|| browser.clone().get_once(&url).status);
                assert_eq!(leaver.join().unwrap(), 303);
                racers.into_iter().map(|racer| racer.join().unwrap()).filter(|answer| answer.status == 200).collect()
            });
            for answer in &issued {
                assert_eq!(rp.userinfo(answer.access_token()).error(), (401, "invalid_token"));
                assert_eq!(rp.refresh(answer.refresh_token(), &[]).error(), (400, "invalid_grant"));
            }
            assert_eq!(rp.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"));
        }
    }

    fn l3_a_hint_may_have_expired(op) {
        let (mut browser, _, hint) = signed_in(&op);
        op.clock.advance(Duration::from_secs(6 * 3_600));
        assert!(part(&hint, 1)["exp"].as_i64().unwrap() < op.clock.now().seconds());
        let answer = browser.get_once(&leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(answer.location().as_deref(), Some(BYE));
        assert!(!is_signed_in(&browser, &op));
    }

    fn l3_a_hint_may_be_signed_with_a_key_that_is_published_no_more(op with DAILY) {
        notes(&op);
        op.clock.advance(Duration::from_secs(86_400 - 3_600));
        rotate(&op);
        let (mut browser, _, hint) = signed_in(&op);
        op.clock.advance(Duration::from_secs(3_600));
        assert_eq!(rotate(&op).promoted, 2);
        op.clock.advance(Duration::from_secs(900));
        assert_eq!(rotate(&op).withdrawn, 2);
        let answer = browser.get_once(&leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(answer.location().as_deref(), Some(BYE));
        assert!(!is_signed_in(&browser, &op));
    }

    fn l3_a_hint_that_we_did_not_sign_as_it_is_counts_for_nothing(op) {
        let (mut browser, rp, hint) = signed_in(&op);
        let elsewhere = Op::start(Database::Sqlite, &[]);
        let foreign = signed_in(&elsewhere).2;
        let access_token = connect(&mut browser, &rp, "openid").access_token().to_owned();
        let mut parts = hint.split('.');
        let (header, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let unsigned = |alg: &str| encoded(&json!({ "alg": alg, "kid": part(&hint, 0)["kid"], "typ": "JWT" }));
        for (why, token) in [
            ("another person", with_payload(&hint, |claims| claims["sub"] = json!("bob"))),
            ("another sign-in", with_payload(&hint, |claims| claims["sid"] = json!("x"))),
            ("another audience", with_payload(&hint, |claims| claims["aud"] = json!("rp"))),
            ("alg none", format!("{}.{payload}.", unsigned("none"))),
            ("alg none with a signature", format!("{}.{payload}.{signature}", unsigned("none"))),
            ("alg HS256", format!("{}.{payload}.{signature}", unsigned("HS256"))),
            ("no signature", format!("{header}.{payload}.")),
            ("padded", format!("{hint}=")),
            ("another server", foreign),
            ("an access token", access_token),
            ("garbage", "x".to_owned()),
            ("8 kB of it", "x".repeat(7_900)),
        ] {
            for more in [&[("post_logout_redirect_uri", BYE), ("state", "s")][..], &[("client_id", "notes"), ("post_logout_redirect_uri", BYE)], &[]] {
                let url = leaving(&op, &[&[("id_token_hint", token.as_str())], more].concat());
                assert_refused(&op, &browser, &url, why);
            }
        }
    }

    fn l3_a_hint_of_another_client_than_the_one_that_is_named_is_refused(op) {
        let (mut browser, _, hint) = signed_in(&op);
        let other = connect(&mut browser, &op.rp(), "openid");
        for (hint, client) in [(other.text("id_token"), "notes"), (&hint, "rp"), (&hint, "nobody")] {
            let url = leaving(&op, &[("id_token_hint", hint), ("client_id", client), ("post_logout_redirect_uri", BYE)]);
            assert_refused(&op, &browser, &url, client);
        }
        let url = leaving(&op, &[("id_token_hint", other.text("id_token")), ("post_logout_redirect_uri", BYE)]);
        assert_refused(&op, &browser, &url, "an address of another client");
    }

    fn l2_only_an_address_that_is_registered_byte_for_byte_is_gone_to(op) {
        let (browser, _, hint) = signed_in(&op);
        let nobody = op.browser();
        for uri in ["https://rp.example/bye/", "https://rp.example/bye?x=1", "https://rp.example/bye?lang=de&x=1", "https://rp.example/bye#x", "https://RP.example/bye",
                    "https://rp.example:443/bye", "https://rp.example/./bye", "https://rp.example.evil.example/bye", "https://rp.example@evil.example/bye",
                    "https://evil.example/", "//evil.example/", "javascript:alert(1)", "https://rp.example/callback", "/", "https://rp.example/bye "] {
            for browser in [&browser, &nobody] {
                for named in [("id_token_hint", hint.as_str()), ("client_id", "notes")] {
                    assert_refused(&op, browser, &leaving(&op, &[named, ("post_logout_redirect_uri", uri), ("state", "s")]), uri);
                }
            }
        }
        let page = browser.clone().get(&leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", "https://rp.example/bye/x")]));
        assert_eq!(page.text("details mark"), "/x", "the developer sees what differs");
    }

    fn l2_an_address_without_a_client_is_never_gone_to(op) {
        let (mut browser, ..) = signed_in(&op);
        for uri in [BYE, "https://evil.example/"] {
            let page = op.browser().get(&leaving(&op, &[("post_logout_redirect_uri", uri), ("state", "s")]));
            assert_signed_out(&page);
        }
        let page = browser.get(&leaving(&op, &[("post_logout_redirect_uri", BYE), ("state", "s")]));
        assert_question(&page);
        assert!(page.text("details").contains("id_token_hint"), "the developer is told why");
        assert_signed_out(&browser.submit(&page, &[]));
        assert!(!is_signed_in(&browser, &op));
    }

    fn l1_nothing_ends_without_a_hint_of_this_sign_in_until_the_person_agrees(op) {
        let (mut browser, rp, old) = signed_in(&op);
        browser.get_once(&leaving(&op, &[("id_token_hint", &old)]));
        connect(&mut browser, &rp, "openid");
        let phone = { let mut phone = op.browser(); connect(&mut phone, &rp, "openid").text("id_token").to_owned() };
        let mut of_bob = op.browser();
        add_bob(&op, &mut of_bob);
        let bob = connect(&mut of_bob, &rp, "openid").text("id_token").to_owned();
        let redirect = [("post_logout_redirect_uri", BYE), ("state", "s")];
        for (why, named) in [("nothing", None), ("a client", Some(("client_id", "notes"))), ("an earlier sign-in", Some(("id_token_hint", old.as_str()))),
                             ("another browser's", Some(("id_token_hint", &phone))), ("another person's", Some(("id_token_hint", &bob)))] {
            for more in [&[][..], &redirect] {
                let parameters = [named.as_slice(), more].concat();
                let page = browser.get(&leaving(&op, &parameters));
                assert_question(&page);
                assert!(page.text("main").contains(EMAIL), "{why}: {}", page.text("main"));
                assert_eq!(page.text("main").contains("Acme Notes"), named.is_some(), "{why}");
                assert!(page.header("content-security-policy").contains("form-action 'self'") == (named.is_none() || more.is_empty()), "{why}");
                assert!(is_signed_in(&browser, &op), "{why}");
                let answer = browser.clone().submit(&page, &[]);
                if named.is_some() && !more.is_empty() {
                    assert_eq!(answer.location().as_deref(), Some("https://rp.example/bye?state=s"), "{why}");
                } else {
                    assert_signed_out(&answer);
                }
                // For the next case.
                connect(&mut browser, &rp, "openid");
            }
        }
        assert!(is_signed_in(&of_bob, &op), "nor anybody elsewhere");
    }

    fn l1_the_question_needs_its_own_token_and_a_page_of_ours(op) {
        let (mut browser, ..) = signed_in(&op);
        let url = leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", BYE)]);
        let page = browser.get(&url);
        let other = browser.get(&url);
        let csrf_of_another = other.attribute("input[name=csrf]", "value").unwrap();
        for csrf in ["", "AAAA", &csrf_of_another] {
            let answer = browser.submit(&page, &[("csrf", csrf)]);
            assert_question(&answer);
            assert!(is_signed_in(&browser, &op), "{csrf}");
        }
        for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            let mut forged = browser.clone();
            forged.headers.push((name.to_owned(), value.to_owned()));
            assert_eq!(forged.submit(&page, &[]).status, 403, "{name}: {value}");
        }
        let (action, fields) = page.form();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&fields);
        assert_question(&browser.get(&format!("{action}?{}", query.finish())));
        assert!(is_signed_in(&browser, &op), "no change by GET");
        assert_eq!(browser.submit(&page, &[]).location().as_deref(), Some(BYE));
    }

    fn l2_the_question_can_not_be_altered_or_carried_elsewhere(op) {
        let (mut browser, ..) = signed_in(&op);
        let (mut victim, ..) = signed_in(&op);
        let page = browser.get(&leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", BYE)]));
        let ticket = page.attribute("input[name=ticket]", "value").unwrap();
        assert!(!ticket.contains("rp.example"));
        for at in [0, ticket.len() / 2, ticket.len() - 2] {
            let letter = if ticket[at..].starts_with('A') { "B" } else { "A" };
            let altered = format!("{}{letter}{}", &ticket[..at], &ticket[at + 1..]);
            for answer in [browser.get(&format!("/end-session/confirm?ticket={altered}")), browser.submit(&page, &[("ticket", &altered)])] {
                assert_eq!((answer.status, answer.has("#op-error")), (400, true), "at {at}");
            }
        }
        assert_eq!(browser.get("/end-session/confirm").status, 400);
        // In another browser it is no more than the link that began it.
        assert_question(&victim.submit(&page, &[]));
        assert_question(&victim.get(&page.url));
        assert!(is_signed_in(&victim, &op) && is_signed_in(&browser, &op));
        // Judged afresh when it is answered: what is registered no more is not gone to.
        op.client(json!({ "client_id": "notes", "client_secret": SECRET }));
        let answer = browser.submit(&page, &[]);
        assert_eq!((answer.status, answer.location()), (400, None));
        assert!(is_signed_in(&browser, &op));
    }

    fn a_question_that_lay_open_too_long_is_asked_again(op) {
        let (mut browser, ..) = signed_in(&op);
        let page = browser.get(&leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", BYE), ("state", "kept")]));
        op.clock.advance(Duration::from_secs(3_600));
        let again = browser.submit(&page, &[]);
        assert_question(&again);
        assert!(is_signed_in(&browser, &op));
        assert_eq!(browser.submit(&again, &[]).location().as_deref(), Some("https://rp.example/bye?state=kept"));
        // Sent twice, it leads to the same place.
        assert_eq!(browser.submit(&again, &[]).location().as_deref(), Some("https://rp.example/bye?state=kept"));
        assert_eq!(browser.get(&again.url).location().as_deref(), Some("https://rp.example/bye?state=kept"), "and so does going back");
    }

    fn nobody_signed_in_has_nothing_to_answer(op) {
        let (_, _, hint) = signed_in(&op);
        for named in [("id_token_hint", hint.as_str()), ("client_id", "notes")] {
            let mut browser = op.browser();
            let answer = browser.get_once(&leaving(&op, &[named, ("post_logout_redirect_uri", BYE), ("state", "s")]));
            assert_eq!((answer.status, answer.location().as_deref()), (303, Some("https://rp.example/bye?state=s")));
            let page = browser.get(&leaving(&op, &[named]));
            assert_signed_out(&page);
            assert_eq!(page.attribute("#logout-continue", "href").as_deref(), Some("https://rp.example/"));
        }
        let page = op.browser().get("/end-session");
        assert_signed_out(&page);
        assert_eq!(page.attribute("#logout-continue", "href").as_deref(), Some("/login"));
        assert_refused(&op, &op.browser(), &leaving(&op, &[("client_id", "nobody")]), "an unknown client");
    }

    fn a_sign_in_that_ran_out_is_nobody(op with SHORT) {
        let (mut browser, rp, hint) = signed_in(&op);
        op.clock.advance(Duration::from_secs(3_600));
        let answer = browser.get_once(&leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(answer.location().as_deref(), Some(BYE));
        assert!(browser.get(&rp.authorize(&[])).has("#login-submit"));
    }

    fn of_two_accounts_the_hint_signs_out_its_own(op) {
        let (mut browser, rp, hint) = signed_in(&op);
        add_bob(&op, &mut browser);
        let [bob, alice] = present(&browser, &op).try_into().unwrap();
        assert_eq!(part(&hint, 1)["sid"], alice);
        let page = browser.get(&leaving(&op, &[("id_token_hint", &hint)]));
        assert_signed_out(&page);
        assert!(page.text("main").contains("Other accounts are still signed in"), "{}", page.text("main"));
        assert_eq!(present(&browser, &op), [bob]);
        let silent = browser.get(&rp.authorize(&[("prompt", "none"), ("login_hint", EMAIL)]));
        assert!(!silent.callback().contains_key("code"), "alice is gone: {:?}", silent.callback());
    }

    fn of_two_accounts_the_person_chooses(op) {
        for (named, likely) in [
            (&[("client_id", "notes")][..], Some(EMAIL)),
            (&[("logout_hint", "Bob@Example.test")], Some(BOB)),
            (&[("client_id", "notes"), ("logout_hint", BOB)], Some(BOB)),
            (&[("logout_hint", "carol@example.test")], None),
            (&[], None),
        ] {
            let (mut browser, ..) = signed_in(&op);
            add_bob(&op, &mut browser);
            let [bob, alice] = present(&browser, &op).try_into().unwrap();
            let url = leaving(&op, &[named, &[("post_logout_redirect_uri", BYE)][..]].concat());
            let page = browser.get(&url);
            assert_question(&page);
            let text = page.text("main");
            assert!(text.contains(EMAIL) && text.contains(BOB) && text.contains("All accounts"), "{text}");
            let expected = match likely { Some(EMAIL) => &alice, Some(_) => &bob, None => "all" };
            assert_eq!(page.all_attributes("input[type=radio][checked]", "value"), [expected], "{named:?}");

            let mut one = browser.clone();
            let answer = one.submit(&page, &[("account", &alice)]);
            if named.contains(&("client_id", "notes")) {
                assert_eq!(answer.location().as_deref(), Some(BYE));
            } else {
                assert_signed_out(&answer);
            }
            assert_eq!(present(&one, &op), [bob.as_str()]);
            one.submit(&page, &[("account", "all")]);
            assert_eq!(present(&one, &op), [""; 0]);
            assert!(!one.cookies.contains_key(SESSION));
        }
    }

    fn an_answer_without_an_account_is_no_answer(op) {
        let (mut browser, ..) = signed_in(&op);
        add_bob(&op, &mut browser);
        let page = browser.get("/end-session");
        // The form's hidden fields name none when there are several.
        assert_question(&browser.submit(&page, &[]));
        assert_eq!(present(&browser, &op).len(), 2);
        let foreign = { let mut other = op.browser(); connect(&mut other, &op.rp(), "openid"); present(&other, &op) };
        assert_signed_out(&browser.submit(&page, &[("account", &foreign[0])]));
        assert_eq!(present(&browser, &op).len(), 2, "what is not here is not signed out here");
    }

    fn who_stays_signed_in_goes_back_to_the_app(op) {
        let (mut browser, ..) = signed_in(&op);
        let page = browser.get(&leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(page.attribute("a#logout-cancel", "href").as_deref(), Some("https://rp.example/"));
        let page = browser.get("/end-session");
        assert_eq!(page.attribute("a#logout-cancel", "href").as_deref(), Some("/"));
        assert!(is_signed_in(&browser, &op));
    }

    fn a_request_by_post_works_as_one_by_get(op) {
        let (mut browser, _, hint) = signed_in(&op);
        let form = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", BYE), ("state", "ü & x"), ("ui_locales", "de")];
        // From the app's site: no cookie of ours comes along, nor any token of a form.
        let mut without_cookies = op.browser();
        without_cookies.headers = vec![("origin".to_owned(), "https://rp.example".to_owned()), ("sec-fetch-site".to_owned(), "cross-site".to_owned())];
        let answer = without_cookies.post_once(&op.url("/end-session"), &form);
        let next = answer.location().unwrap();
        assert_eq!(answer.status, 303);
        for sent in [hint.as_str(), part(&hint, 1)["sub"].as_str().unwrap(), "rp.example"] {
            assert!(!next.contains(sent), "what was posted stays out of addresses: {next}");
        }
        assert!(is_signed_in(&browser, &op));
        assert_eq!(browser.get_once(&next).location().as_deref(), Some("https://rp.example/bye?state=%C3%BC+%26+x"));
        assert!(!is_signed_in(&browser, &op));

        let (mut browser, ..) = signed_in(&op);
        let page = browser.post(&op.url("/end-session"), &[("client_id", "notes"), ("post_logout_redirect_uri", BYE), ("ui_locales", "de")]);
        assert_question(&page);
        assert_eq!(page.attribute("html", "lang").as_deref(), Some("de"));
        assert_eq!(browser.submit(&page, &[]).location().as_deref(), Some(BYE));
        assert_signed_out(&op.browser().post(&op.url("/end-session"), &[]));
    }

    fn a6_what_comes_twice_is_refused(op) {
        let (mut browser, _, hint) = signed_in(&op);
        let url = leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)]);
        for more in ["&state=a&state=b", "&state=&state=b", "&client_id=notes&client_id=notes", "&post_logout_redirect_uri=https://evil.example/", "&x=1&x=2"] {
            assert_refused(&op, &browser, &format!("{url}{more}"), more);
        }
        for field in [("state", ""), ("state", "a"), ("id_token_hint", hint.as_str())] {
            let page = browser.post(&format!("{url}&state=b"), &[field]);
            assert_eq!((page.status, page.has("#op-error")), (400, true), "in the query and in the body: {field:?}");
        }
        assert!(is_signed_in(&browser, &op));
        for query in ["state=%ff", "state=%00", "state=%", &format!("state={}", "x".repeat(8_100))] {
            assert_refused(&op, &browser, &op.url(&format!("/end-session?{query}")), query.get(..10).unwrap_or(query));
        }
        assert_eq!(browser.post("/end-session", &[("state", &"x".repeat(9_000))]).status, 400);
    }

    fn the_last_page_is_told_by_nobody_else_that_somebody_is_signed_out(op) {
        let (mut browser, _, hint) = signed_in(&op);
        assert_signed_out(&op.browser().get("/signed-out"));
        let page = browser.get("/signed-out");
        assert!(page.has("#logout-confirm") && page.url.ends_with('/'), "who is signed in is told so: {}", page.url);
        let done = op.browser().get("/end-session").url;
        assert!(browser.get(&done).has("#logout-confirm"), "another browser's page");
        let done = browser.get(&leaving(&op, &[("id_token_hint", &hint)]));
        op.clock.advance(Duration::from_secs(3_600));
        let late = browser.get(&done.url);
        assert_signed_out(&late);
        assert_eq!(late.attribute("#logout-continue", "href").as_deref(), Some("/login"));
    }

    fn the_language_can_be_changed_without_losing_the_question(op) {
        let (mut browser, ..) = signed_in(&op);
        let page = browser.get(&leaving(&op, &[("client_id", "notes"), ("post_logout_redirect_uri", BYE), ("state", "s")]));
        let german = page.attribute("footer a[lang=de]", "href").unwrap();
        let page = browser.get(&format!("{}{german}", page.url.split('?').next().unwrap()));
        assert_question(&page);
        assert_eq!(page.text("h1"), "Möchten Sie sich abmelden?");
        assert_eq!(browser.submit(&page, &[]).location().as_deref(), Some("https://rp.example/bye?state=s"));
    }

    fn it_works_under_an_issuer_with_a_path(op with WITH_PATH) {
        let (mut browser, rp, hint) = signed_in(&op);
        let endpoint = rp.get("/.well-known/openid-configuration").json["end_session_endpoint"].clone();
        assert_eq!(endpoint, op.url("/end-session"));
        let page = browser.get(&leaving(&op, &[]));
        assert_question(&page);
        assert!(page.url.starts_with(&op.url("/end-session/confirm?")));
        let page = browser.post(endpoint.as_str().unwrap(), &[("id_token_hint", &hint)]);
        assert_signed_out(&page);
        assert_eq!(page.attribute("#logout-continue", "href").as_deref(), Some("https://rp.example/"));
        assert_refused(&op, &browser, &leaving(&op, &[("id_token_hint", "x")]), "garbage");
        assert_eq!(browser.get(&op.url("/end-session")).attribute("#logout-continue", "href").as_deref(), Some("/tenant/id/login"));
    }

    fn an_account_that_was_switched_off_meanwhile_is_nobody(op) {
        let (mut browser, _, hint) = signed_in(&op);
        op.seed(json!({ "users": [{ "email": EMAIL, "password": PASSWORD, "disabled": true }] }));
        let answer = browser.get_once(&leaving(&op, &[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)]));
        assert_eq!(answer.location().as_deref(), Some(BYE));
    }
}
