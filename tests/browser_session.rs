//! The browser's side of a sign-in: cookies, forms, several tabs and accounts, and how long it all lasts.
//! OWASP ASVS 5.0 §3.3, §3.5, §7; RFC 9700 §4.7.

use std::time::Duration;

use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, PASSWORD, SECRET};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const SESSION: &str = "latchkey-session";

pub fn is_signed_in(op: &Op, browser: &Browser) -> bool {
    browser.clone().get("/").has("#logout-confirm") && silently(op, browser)
}

/// Whether an app gets a code without a page.
fn silently(op: &Op, browser: &Browser) -> bool {
    let answer = browser
        .clone()
        .get(&op.rp().authorize(&[("prompt", "none")]));
    answer.callback().contains_key("code")
}

/// A browser in which alice signed in and allowed `rp`.
pub fn signed_in(op: &Op) -> Browser {
    let mut browser = op.browser();
    browser.complete(&op.rp().authorize(&[])).code();
    browser
}

fn field(page: &Page, name: &str) -> String {
    page.attribute(&format!("input[name={name}]"), "value")
        .unwrap()
}

/// The fields of alice's sign-in, some of them replaced; an empty one is left out.
fn sign_in_fields<'a>(page: &Page, replaced: &[(&'a str, &'a str)]) -> Vec<(String, String)> {
    let usual = [
        ("ticket", field(page, "ticket")),
        ("csrf", field(page, "csrf")),
        ("login", EMAIL.to_owned()),
        ("password", PASSWORD.to_owned()),
    ];
    usual
        .into_iter()
        .map(|(name, value)| {
            let value = replaced
                .iter()
                .find(|(other, _)| *other == name)
                .map_or(value, |(_, value)| (*value).to_owned());
            (name.to_owned(), value)
        })
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn post(browser: &mut Browser, path: &str, fields: &[(String, String)]) -> Page {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    browser.post(path, &fields)
}

on_both_databases! {
    fn n9_one_sign_in_beyond_a_hundred_ends_the_one_that_was_used_longest_ago(op with [("password.memory_kib", "7168"), ("password.iterations", "1")]) {
        let mut first = signed_in(&op);
        op.clock.advance(Duration::from_secs(60));
        let mut second = op.browser();
        second.complete(&op.rp().authorize(&[])).code();
        op.clock.advance(Duration::from_secs(60));
        for _ in 0..98 {
            let mut browser = op.browser();
            let page = browser.get("/login");
            browser.sign_in(&page);
        }
        assert!(first.get("/").has("#logout-confirm"), "a hundred are borne");
        op.clock.advance(Duration::from_secs(60));
        let mut newest = signed_in(&op);
        assert!(!first.get("/").has("#logout-confirm"));
        assert!(second.get("/").has("#logout-confirm") && newest.get("/").has("#logout-confirm"));
        let events = op.store.read_blocking(|conn| latchkey::store::audit_events::list(conn, None, 1_000)).unwrap();
        let ended: Vec<_> = events.iter().filter(|event| event.event == "session.ended").collect();
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].detail["reason"], "too many");
    }

    fn e1_a_sign_in_never_adopts_an_id_that_the_browser_brought(op) {
        let planted = "A".repeat(43);
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        browser.cookies.insert(SESSION.to_owned(), planted.clone());
        browser.sign_in(&page);
        let value = browser.cookies[SESSION].clone();
        assert!(!value.contains(&planted), "{value}");
        let mut thief = op.browser();
        thief.cookies.insert(SESSION.to_owned(), planted.clone());
        assert!(!thief.get("/").has("#logout-confirm"));
        // Nor does one stay behind when the last account signs out.
        browser.cookies.insert(SESSION.to_owned(), format!("{value}.{planted}"));
        let home = browser.get("/");
        browser.submit(&home, &[]);
        assert!(!browser.cookies.contains_key(SESSION));
    }

    fn e1_a_new_proof_is_a_new_id_and_the_old_one_is_dead(op) {
        let mut browser = signed_in(&op);
        let old = browser.clone();
        let before = browser.cookies[SESSION].clone();
        let page = browser.get(&op.rp().authorize(&[("prompt", "login")]));
        browser.sign_in(&page).code();
        assert_ne!(browser.cookies[SESSION], before);
        assert!(is_signed_in(&op, &browser));
        assert!(!old.clone().get("/").has("#logout-confirm"), "a copy of the old cookie");
        assert!(!silently(&op, &old));
    }

    fn e1_signing_in_at_our_own_page_is_a_new_id_too(op) {
        let mut browser = signed_in(&op);
        let old = browser.clone();
        let page = browser.get("/login");
        let page = browser.sign_in(&page);
        assert!(page.has("#logout-confirm"));
        assert!(!silently(&op, &old));
        assert!(is_signed_in(&op, &browser));
    }

    fn e2_cookies_are_random_hidden_from_scripts_and_of_one_site(op) {
        let mut values = std::collections::BTreeSet::new();
        for _ in 0..5 {
            let browser = signed_in(&op);
            for cookie in &browser.set_cookies {
                for part in ["; HttpOnly", "; Path=/", "; SameSite=Lax"] {
                    assert!(cookie.contains(part), "{cookie}");
                }
                assert!(!cookie.contains("Domain") && !cookie.contains("alice"), "{cookie}");
            }
            assert_eq!(browser.cookies[SESSION].len(), 43, "256 bits in base64url");
            values.insert(browser.cookies[SESSION].clone());
        }
        assert_eq!(values.len(), 5);
    }

    fn e2_of_two_cookies_with_one_name_none_is_believed(op) {
        let browser = signed_in(&op);
        let mut tossed = op.browser();
        let cookies: Vec<_> = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tossed.headers.push(("cookie".to_owned(), format!("{}; {SESSION}={}", cookies.join("; "), "A".repeat(43))));
        assert!(!tossed.get("/").has("#logout-confirm"));
        assert_eq!(tossed.get(&op.rp().authorize(&[("prompt", "none")])).callback()["error"], "login_required");
    }

    fn e3_a_form_counts_only_from_the_browser_and_the_page_it_was_shown_on(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        let mut other = op.browser();
        let others = other.get(&rp.authorize(&[]));
        let second = browser.get(&rp.authorize(&[("state", "second")]));
        let altered = { let csrf = field(&page, "csrf"); format!("{}{}", if csrf.starts_with('A') { 'B' } else { 'A' }, &csrf[1..]) };
        for (why, csrf) in [("none", String::new()), ("altered", altered), ("another browser's", field(&others, "csrf")), ("another page's", field(&second, "csrf"))] {
            let mut attempt = browser.clone();
            let answer = post(&mut attempt, "/login", &sign_in_fields(&page, &[("csrf", &csrf)]));
            assert_eq!(answer.status, 400, "{why}");
            assert!(answer.has("#login-submit"), "{why}: one can go on from here");
            assert!(!attempt.cookies.contains_key(SESSION), "{why}");
            assert!(attempt.sign_in(&answer).has("#consent-allow"), "{why}");
        }
        for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")] {
            let mut attempt = browser.clone();
            attempt.headers.push((name.to_owned(), value.to_owned()));
            let answer = post(&mut attempt, "/login", &sign_in_fields(&page, &[]));
            assert_eq!(answer.status, 403, "{name}: {value}");
            assert!(!attempt.cookies.contains_key(SESSION));
        }
        let mut honest = browser.clone();
        honest.headers = vec![("origin".to_owned(), op.issuer.clone()), ("sec-fetch-site".to_owned(), "same-origin".to_owned())];
        assert!(post(&mut honest, "/login", &sign_in_fields(&page, &[])).has("#consent-allow"));
    }

    fn e3_consent_and_sign_out_need_their_own_token(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        let login_csrf = field(&page, "csrf");
        let consent = browser.sign_in(&page);
        for csrf in ["", "AAAA", login_csrf.as_str()] {
            let answer = browser.submit(&consent, &[("csrf", csrf), ("action", "allow")]);
            assert!(answer.has("#consent-allow"), "asked again: {csrf}");
        }
        let mut foreign = browser.clone();
        foreign.headers.push(("origin".to_owned(), "https://evil.example".to_owned()));
        assert_eq!(foreign.submit(&consent, &[("action", "allow")]).status, 403);
        assert_eq!(browser.get(&rp.authorize(&[("prompt", "none")])).callback()["error"], "consent_required");
        browser.submit(&consent, &[("action", "allow")]).code();

        let home = browser.get("/");
        let session = field(&home, "session");
        assert_eq!(browser.post("/sign-out", &[("session", &session)]).status, 403);
        assert_eq!(browser.post("/sign-out", &[("session", &session), ("csrf", &login_csrf)]).status, 403);
        assert_eq!(browser.get(&format!("/sign-out?session={session}&csrf={}", field(&home, "csrf"))).status, 405, "no change by GET");
        assert!(is_signed_in(&op, &browser));
        assert!(browser.submit(&home, &[]).text("main").to_lowercase().contains("signed out"));
    }

    fn e5_no_step_can_be_skipped(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        let ticket = field(&page, "ticket");
        assert!(browser.get(&format!("/consent?ticket={ticket}")).has("#login-submit"));
        assert!(browser.get(&format!("/select-account?ticket={ticket}")).has("#login-submit"));
        for path in ["/consent", "/select-account"] {
            for action in ["allow", "switch", ""] {
                let answer = browser.post(path, &[("ticket", &ticket), ("csrf", &field(&page, "csrf")), ("action", action)]);
                assert!(answer.has("#login-submit"), "{path} {action}: {}", answer.status);
            }
        }
        let answer = browser.post("/consent", &[]);
        assert_eq!((answer.status, answer.location()), (400, None), "an empty form skips nothing");
        let answer = post(&mut browser, "/login", &sign_in_fields(&page, &[("password", ""), ("login", "")]));
        assert!(answer.has("#login-submit") && answer.status == 400);
        assert!(!browser.cookies.contains_key(SESSION));
    }

    fn e6_a_session_ends_when_nobody_used_it(op with [("session.idle", "1h"), ("session.absolute", "1d")]) {
        let browser = signed_in(&op);
        // Every use counts anew …
        for _ in 0..4 {
            op.clock.advance(HOUR - Duration::from_secs(300));
            assert!(is_signed_in(&op, &browser));
        }
        // … until there is none.
        op.clock.advance(HOUR);
        assert!(!silently(&op, &browser));
        assert!(!browser.clone().get("/").has("#logout-confirm"));
        assert!(browser.clone().get(&op.rp().authorize(&[])).has("#login-submit"));
    }

    fn e6_a_session_ends_however_busy_it_is(op with [("session.idle", "1h"), ("session.absolute", "3h")]) {
        let browser = signed_in(&op);
        for _ in 0..3 {
            assert!(is_signed_in(&op, &browser));
            op.clock.advance(HOUR - Duration::from_secs(1));
        }
        assert!(silently(&op, &browser));
        op.clock.advance(Duration::from_secs(3));
        assert!(!silently(&op, &browser));
    }

    fn e6_a_browser_that_is_to_remember_keeps_the_cookie_and_only_for_so_long(op with [("session.remembered", "10d")]) {
        let mut forgetful = op.browser();
        let page = forgetful.get(&op.rp().authorize(&[]));
        forgetful.sign_in(&page);
        let of_session = |browser: &Browser| browser.set_cookies.iter().rfind(|cookie| cookie.starts_with(SESSION)).unwrap().clone();
        assert!(!of_session(&forgetful).contains("Max-Age"), "gone when the browser closes");

        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        let page = browser.submit(&page, &[("login", EMAIL), ("password", PASSWORD), ("remember", "on")]);
        browser.submit(&page, &[("action", "allow")]).code();
        assert!(of_session(&browser).contains("Max-Age=864000"), "{}", of_session(&browser));
        op.clock.advance(9 * DAY);
        assert!(is_signed_in(&op, &browser));
        assert!(!silently(&op, &forgetful));
        op.clock.advance(DAY);
        assert!(!silently(&op, &browser), "the server counts, not the cookie");
    }

    fn e6_sign_out_ends_the_session_on_the_server(op) {
        let mut browser = signed_in(&op);
        let (copy, phone) = (browser.clone(), signed_in(&op));
        let home = browser.get("/");
        browser.submit(&home, &[]);
        assert!(!browser.cookies.contains_key(SESSION));
        assert!(!silently(&op, &copy), "a copy of the cookie is worth nothing");
        assert!(silently(&op, &phone), "another browser is not concerned");
    }

    fn e7_a_malformed_cookie_is_nobody(op) {
        let browser = signed_in(&op);
        let good = browser.cookies[SESSION].clone();
        for value in [String::new(), "x".to_owned(), format!("{good}A"), good[..42].to_owned(), good.to_lowercase(), format!("{good}."), format!(".{good}"),
                      format!("\"{good}\""), good.repeat(2), format!("{good}.{}", "A".repeat(42)), [good.as_str(); 7].join("."), "%00".to_owned(), "' OR 1=1 --".to_owned()] {
            let mut forged = browser.clone();
            forged.cookies.insert(SESSION.to_owned(), value.clone());
            let home = forged.clone().get("/");
            assert_eq!(home.status, 200, "{value}");
            assert!(!home.has("#logout-confirm"), "{value}");
            assert_eq!(forged.get(&op.rp().authorize(&[("prompt", "none")])).callback()["error"], "login_required", "{value}");
        }
        for name in ["latchkey-browser", "latchkey-known", "latchkey-language"] {
            let mut forged = op.browser();
            forged.cookies.insert(name.to_owned(), "A.B\"<>".to_owned());
            let page = forged.get(&op.rp().authorize(&[]));
            assert!(!forged.sign_in(&page).code().is_empty(), "{name}: a fresh start");
        }
    }

    fn a11_a_pending_request_is_of_no_use_in_another_browser(op) {
        let (mut victim, mut thief, rp) = (op.browser(), op.browser(), op.rp());
        let page = victim.get(&rp.authorize(&[]));
        thief.get(&rp.authorize(&[]));
        // A browser that we know begins the same request for itself, as the app's own link would.
        let shown = thief.get(&page.url);
        assert!(shown.has("#login-submit") && shown.url != page.url);
        let posted = post(&mut thief, "/login", &sign_in_fields(&page, &[]));
        assert_eq!((posted.status, posted.has("[role]")), (400, true), "{}", posted.body);
        assert!(!thief.cookies.contains_key(SESSION));
        // One without a cookie of ours gets nothing at all.
        let mut stranger = op.browser();
        let shown = stranger.get(&page.url);
        assert_eq!(shown.status, 400);
        assert!(shown.has("#op-error") && !shown.has("form"));
        let posted = post(&mut stranger, "/login", &sign_in_fields(&page, &[]));
        assert_eq!((posted.status, posted.has("#op-error")), (400, true));
        assert!(!stranger.cookies.contains_key(SESSION));
        assert!(victim.sign_in(&page).has("#consent-allow"));
    }

    fn a11_an_altered_ticket_is_refused(op) {
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        let ticket = field(&page, "ticket");
        assert!(!ticket.contains("rp.example"));
        for at in [0, ticket.len() / 2, ticket.len() - 2] {
            let letter = if ticket[at..].starts_with('A') { "B" } else { "A" };
            let altered = format!("{}{letter}{}", &ticket[..at], &ticket[at + 1..]);
            for path in ["/login", "/consent", "/select-account"] {
                let shown = browser.get(&format!("{path}?ticket={altered}"));
                assert_eq!((shown.status, shown.has("#op-error")), (400, true), "{path} at {at}");
            }
            assert_eq!(post(&mut browser, "/login", &sign_in_fields(&page, &[("ticket", &altered)])).status, 400);
        }
        for ticket in ["x", "AAAA", &ticket[..ticket.len() - 4]] {
            assert_eq!(browser.get(&format!("/login?ticket={ticket}")).status, 400, "{ticket}");
        }
        assert!(!browser.cookies.contains_key(SESSION));
    }

    fn two_tabs_complete_in_any_order(op) {
        op.client(json!({ "client_id": "second", "client_name": "Second", "client_secret": SECRET }));
        for first_wins in [true, false] {
            let mut browser = op.browser();
            let ask = [op.rp().authorize_with_pkce(&[("state", "tab-1"), ("nonce", "n-1"), ("prompt", "consent")]),
                       op.rp().named("second").authorize_with_pkce(&[("state", "tab-2"), ("nonce", "n-2"), ("prompt", "consent")])];
            let pages = [browser.get(&ask[0]), browser.get(&ask[1])];
            let order = if first_wins { [0, 1] } else { [1, 0] };
            // Both tabs show the sign-in page, and both are filled in.
            let consents: Vec<_> = order.iter().map(|tab| (*tab, browser.sign_in(&pages[*tab]))).collect();
            for (tab, consent) in consents {
                assert!(consent.has("#consent-allow"), "{}", consent.body);
                let answer = browser.submit(&consent, &[("action", "allow")]);
                let (state, nonce, client) = [("tab-1", "n-1", "rp"), ("tab-2", "n-2", "second")][tab];
                assert_eq!(answer.callback()["state"], state);
                let tokens = op.rp().named(client).exchange_with_pkce(&answer.code());
                assert_eq!(tokens.id_token()["nonce"], nonce);
            }
        }
    }

    fn back_reload_and_double_submit_do_not_dead_end(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[]));
        assert!(browser.get(&page.url).has("#login-submit"), "reload");
        let consent = browser.sign_in(&page);
        assert!(browser.get(&consent.url).has("#consent-allow"), "reload");
        let again = browser.sign_in(&page);
        assert!(again.has("#consent-allow"), "the sign-in form sent twice");
        // The page that was shown before that second proof still leads on.
        let mut answer = browser.submit(&consent, &[("action", "allow")]);
        if answer.has("#consent-allow") {
            answer = browser.submit(&answer, &[("action", "allow")]);
        }
        let first = answer.code();
        let twice = browser.submit(&again, &[("action", "allow")]).code();
        assert_ne!(first, twice, "each answer has a code of its own");
        let back = browser.get(&page.url);
        assert!(back.status == 200 || back.callback().contains_key("code"), "back to the sign-in page: {}", back.status);
        assert_eq!(rp.exchange(&first, &[]).status, 200);
        assert_eq!(rp.exchange(&twice, &[]).status, 200);
    }

    fn a_page_that_lay_open_too_long_starts_the_same_request_again(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[("login_hint", EMAIL), ("ui_locales", "de"), ("nonce", "kept")]));
        op.clock.advance(HOUR);
        let reloaded = browser.get(&page.url);
        assert!(reloaded.has("#login-submit") && reloaded.url != page.url);
        // Posted instead: nothing was checked yet, the e-mail is kept, and the next try works.
        let posted = browser.sign_in(&page);
        assert!(posted.has("#login-submit") && !posted.body.contains(PASSWORD));
        assert_eq!((field(&posted, "login").as_str(), posted.attribute("html", "lang").as_deref()), (EMAIL, Some("de")));
        assert!(!browser.cookies.contains_key(SESSION));
        let consent = browser.sign_in(&posted);
        assert!(consent.has("#consent-allow"));
        op.clock.advance(HOUR);
        let late = browser.submit(&consent, &[("action", "allow")]);
        assert!(late.has("#consent-allow"), "asked again: {} {}", late.status, late.url);
        let code = browser.submit(&late, &[("action", "allow")]).code();
        assert_eq!(rp.exchange(&code, &[]).id_token()["nonce"], "kept");
    }

    fn several_accounts_are_signed_out_one_by_one(op) {
        op.seed(json!({ "users": [{ "email": "bob@example.test", "password": "a-horse-of-another-colour" }] }));
        let mut browser = signed_in(&op);
        let page = browser.get("/login");
        let home = browser.sign_in_as(&page, "bob@example.test", "a-horse-of-another-colour");
        let text = home.text("main");
        assert!(text.contains(EMAIL) && text.contains("bob@example.test"), "{text}");
        assert_eq!(browser.cookies[SESSION].len(), 43 * 2 + 1);
        let home = browser.submit(&home, &[]);
        let text = home.text("main");
        assert!(text.contains(EMAIL) && !text.contains("bob@example.test"), "the last one first: {text}");
        assert!(silently(&op, &browser), "alice is still here");
        let home = browser.submit(&home, &[]);
        assert!(!home.has("#logout-confirm"));
    }
}
