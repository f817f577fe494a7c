//! Guessing is slowed, people are not locked out, and nobody learns who has an account.
//! NIST SP 800-63B §3.2.2; OWASP ASVS 5.0 §6.3.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use latchkey::hashing::{self, HashingQueue};
use latchkey::store::users;
use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, PASSWORD};
use crate::support::wait::eventually;

/// What a hash costs is not what these tests are about.
const QUICK: [(&str, &str); 2] = [
    ("password.memory_kib", "7168"),
    ("password.iterations", "1"),
];
const FEW_OF_AN_ADDRESS: [(&str, &str); 3] =
    [QUICK[0], QUICK[1], ("throttle.address_failures", "5")];
const MANY_OF_AN_ADDRESS: [(&str, &str); 3] =
    [QUICK[0], QUICK[1], ("throttle.address_failures", "1000")];
const BEHIND_A_PROXY: [(&str, &str); 4] = [
    QUICK[0],
    QUICK[1],
    FEW_OF_AN_ADDRESS[2],
    ("trusted_proxies", "127.0.0.1/32,::1/128"),
];
const BEHIND_A_SOCKET: [(&str, &str); 4] = [
    QUICK[0],
    QUICK[1],
    FEW_OF_AN_ADDRESS[2],
    ("listen", "unix:{directory}/latchkey.sock"),
];
const ANY_PASSWORD: [(&str, &str); 3] = [QUICK[0], QUICK[1], ("password.minimum_score", "0")];
const WRONG: &str = "not-the-password-of-anybody";

/// One attempt from a browser that was never here before.
fn attempt(op: &Op, login: &str, password: &str) -> Page {
    attempt_in(&mut op.browser(), login, password)
}

pub fn attempt_in(browser: &mut Browser, login: &str, password: &str) -> Page {
    let page = browser.get("/login?other=1");
    assert!(page.has("#login-submit"), "{} {}", page.status, page.body);
    let (action, hidden) = page.form();
    let mut fields: Vec<(&str, &str)> = hidden
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    fields.extend([("login", login), ("password", password)]);
    browser.post_once(&action, &fields)
}

fn fail(op: &Op, times: usize) {
    for time in 0..times {
        assert_eq!(attempt(op, EMAIL, WRONG).status, 400, "attempt {time}");
    }
}

fn from_address(op: &Op, forwarded_for: &str) -> Browser {
    let mut browser = op.browser();
    browser
        .headers
        .push(("x-forwarded-for".to_owned(), forwarded_for.to_owned()));
    browser
        .headers
        .push(("forwarded".to_owned(), format!("for={forwarded_for}")));
    browser
        .headers
        .push(("x-real-ip".to_owned(), forwarded_for.to_owned()));
    browser
}

fn stored_hash(op: &Op) -> String {
    op.store
        .read_blocking(|conn| users::find_by_email(conn, EMAIL))
        .unwrap()
        .unwrap()
        .password_hash
        .unwrap()
}

/// What an answer tells, without what is random in every answer.
fn told(page: &Page, login: &str) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = page
        .headers
        .iter()
        .map(|(name, value)| {
            let value = match name.as_str() {
                "date" | "x-request-id" => "",
                // The browser's random name.
                "set-cookie" => value.to_str().unwrap().split('=').next().unwrap(),
                "content-length" => "",
                _ => value.to_str().unwrap(),
            };
            (name.as_str().to_owned(), value.to_owned())
        })
        .collect();
    headers.sort();
    let mut body = page.body.replace(login, "LOGIN");
    for field in ["ticket", "csrf"] {
        if let Some(value) = page
            .attribute(&format!("input[name={field}]"), "value")
            .filter(|value| !value.is_empty())
        {
            body = body.replace(&value, "RANDOM");
        }
    }
    (page.status, headers, body)
}

/// Takes a place in the queue until the answer is dropped.
pub fn hold(hashing: &HashingQueue) -> Option<(mpsc::Sender<()>, impl Sized + use<>)> {
    let (open, gate) = mpsc::channel::<()>();
    let waiting = hashing.submit(move || {
        let _opened = gate.recv();
    });
    waiting.ok().map(|waiting| (open, waiting))
}

on_both_databases! {
    fn f1_ten_failures_of_one_account_slow_unknown_browsers(op with QUICK) {
        fail(&op, 10);
        let slowed = attempt(&op, EMAIL, WRONG);
        assert_eq!(slowed.status, 429);
        assert_eq!(slowed.header("retry-after"), "900");
        assert!(slowed.header("content-type").starts_with("text/html"));
        assert!(slowed.has("#login-submit"), "the page can be used again later");
        assert!(slowed.text("[role=alert]").contains("15 minutes"), "{}", slowed.text("[role=alert]"));
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 429, "the right password is not looked at, or guessing would go on");
        op.clock.advance(Duration::from_secs(600));
        let slowed = attempt(&op, EMAIL, PASSWORD);
        assert_eq!((slowed.status, slowed.header("retry-after")), (429, "300"));
    }

    fn f1_the_window_ends_by_itself(op with QUICK) {
        fail(&op, 10);
        op.clock.advance(Duration::from_secs(900));
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 303);
    }

    fn f1_who_goes_on_failing_waits_twice_as_long(op with QUICK) {
        for wait in ["900", "1800", "3600"] {
            fail(&op, 10);
            let slowed = attempt(&op, EMAIL, WRONG);
            assert_eq!((slowed.status, slowed.header("retry-after")), (429, wait));
            op.clock.advance(Duration::from_secs(wait.parse().unwrap()));
        }
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 303);
    }

    fn f1_a_right_answer_takes_back_only_its_own_count(op with QUICK) {
        fail(&op, 9);
        for _ in 0..3 {
            assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 303);
        }
        fail(&op, 1);
        assert_eq!(attempt(&op, EMAIL, WRONG).status, 429);
    }

    fn f2_counters_survive_a_restart(op with QUICK) {
        let mut op = op;
        fail(&op, 10);
        op.restart(|_config| {});
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 429);
    }

    fn f3_every_spelling_of_an_address_meets_one_counter(op with QUICK) {
        let variants = [
            "ALICE@example.test", "  alice@example.test  ", "alice@EXAMPLE.TEST.", "ａｌｉｃｅ@example.test", "alice＠example.test",
            "alice@ｅｘａｍｐｌｅ.test", "\u{feff}alice@example.test", "alice@example.test\u{200b}", "Alice@Example.Test", "alice@example。test",
        ];
        for variant in variants {
            assert_eq!(attempt(&op, variant, WRONG).status, 400, "{variant:?}");
        }
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 429);

        op.seed(json!({ "users": [{ "email": "bob@bücher.example", "password": PASSWORD }] }));
        for variant in ["bob@bücher.example", "bob@xn--bcher-kva.example", "BOB@BÜCHER.example.", "bob@bu\u{308}cher.example"].iter().cycle().take(10) {
            assert_eq!(attempt(&op, variant, WRONG).status, 400, "{variant:?}");
        }
        assert_eq!(attempt(&op, "bob@bücher.example", PASSWORD).status, 429);
    }

    fn f3_an_account_that_is_not_there_is_counted_like_one_that_is(op with QUICK) {
        for _ in 0..10 {
            assert_eq!(attempt(&op, "nobody@example.test", WRONG).status, 400);
        }
        assert_eq!(attempt(&op, "NOBODY@example.test", WRONG).status, 429);
    }

    fn f4_a_stranger_can_not_choose_the_address_it_is_counted_under(op with FEW_OF_AN_ADDRESS) {
        for number in 0..5 {
            let mut browser = from_address(&op, &format!("198.51.100.{number}"));
            assert_eq!(attempt_in(&mut browser, &format!("user-{number}@example.test"), WRONG).status, 400);
        }
        let mut browser = from_address(&op, "203.0.113.9");
        assert_eq!(attempt_in(&mut browser, "user-6@example.test", WRONG).status, 429);
    }

    fn f4_a_trusted_proxy_tells_the_address(op with BEHIND_A_PROXY) {
        for number in 0..5 {
            // What stands to the left is the sender's own invention.
            let mut browser = from_address(&op, &format!("192.0.2.{number}, 198.51.100.7"));
            assert_eq!(attempt_in(&mut browser, &format!("user-{number}@example.test"), WRONG).status, 400);
        }
        assert_eq!(attempt_in(&mut from_address(&op, "198.51.100.7"), "user-6@example.test", WRONG).status, 429);
        assert_eq!(attempt_in(&mut from_address(&op, "198.51.100.8"), "user-6@example.test", WRONG).status, 400);
        for number in 1..=4 {
            let address = format!("2001:db8:1:2::{number:x}");
            assert_eq!(attempt_in(&mut from_address(&op, &address), &format!("six-{number}@example.test"), WRONG).status, 400);
        }
        let mut last = from_address(&op, "2001:db8:1:2:ffff::1");
        assert_eq!(attempt_in(&mut last, "six-5@example.test", WRONG).status, 400);
        assert_eq!(attempt_in(&mut from_address(&op, "2001:db8:1:2::beef"), "six-6@example.test", WRONG).status, 429, "one network, one counter");
    }

    fn e7_an_address_that_can_not_be_read_excuses_nobody(op with BEHIND_A_PROXY) {
        let unreadable = ["", "unknown", "198.51.100.7 198.51.100.8", "999.1.1.1", "::ffff:1.2.3", "198.51.100.7, _hidden", "[::1", ",,,", "\u{e4}", "127.0.0.1, x"];
        for (number, address) in unreadable.iter().cycle().take(5).enumerate() {
            let mut browser = from_address(&op, address);
            assert_eq!(attempt_in(&mut browser, &format!("user-{number}@example.test"), WRONG).status, 400, "{address:?}");
        }
        for (number, address) in unreadable.iter().enumerate() {
            let mut browser = from_address(&op, address);
            let login = format!("more-{number}@example.test");
            assert_eq!(attempt_in(&mut browser, &login, WRONG).status, 429, "{address:?}: all of them are the proxy");
        }
        assert_eq!(attempt_in(&mut from_address(&op, "198.51.100.9"), "last@example.test", WRONG).status, 400);
    }

    fn f4_behind_a_unix_socket_the_proxy_tells_the_address_or_none_is_counted(op with BEHIND_A_SOCKET) {
        let from = |address: Option<&str>, login: &str| {
            let mut browser = Browser::behind_socket(&op.issuer, &op.directory.path().join("latchkey.sock"));
            browser.headers.extend(address.map(|address| ("x-forwarded-for".to_owned(), address.to_owned())));
            attempt_in(&mut browser, login, WRONG).status
        };
        for number in 0..5 {
            assert_eq!(from(Some("1.1.1.1, 198.51.100.7"), &format!("{number}@example.test")), 400);
        }
        assert_eq!(from(Some("198.51.100.7"), "5@example.test"), 429);
        assert_eq!(from(Some("198.51.100.8"), "5@example.test"), 400);
        for number in 6..13 {
            assert_eq!(from(None, &format!("{number}@example.test")), 400, "strangers share no limit: {number}");
        }
    }

    fn f5_one_address_can_not_try_every_account(op with FEW_OF_AN_ADDRESS) {
        for number in 0..5 {
            assert_eq!(attempt(&op, &format!("user-{number}@example.test"), WRONG).status, 400);
        }
        assert_eq!(attempt(&op, EMAIL, WRONG).status, 429);
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 429);
    }

    fn n8_an_address_that_is_slowed_makes_no_counters_for_names_that_it_makes_up(op with FEW_OF_AN_ADDRESS) {
        let try_names = |names: std::ops::Range<usize>, expected| {
            for number in names {
                assert_eq!(attempt(&op, &format!("user-{number}@example.test"), WRONG).status, expected);
            }
        };
        try_names(0..5, 400);
        let before = op.rows()["throttles"];
        try_names(5..25, 429);
        assert_eq!(op.rows()["throttles"], before);
    }

    fn f6_parallel_guesses_can_not_slip_past_the_counter(op with QUICK) {
        let ready: Vec<_> = (0..20).map(|_| {
            let mut browser = op.browser();
            let page = browser.get("/login");
            (browser, page)
        }).collect();
        let statuses: Vec<u16> = thread::scope(|scope| {
            let guesses: Vec<_> = ready.into_iter()
                .map(|(mut browser, page)| scope.spawn(move || browser.sign_in_as(&page, EMAIL, WRONG).status))
                .collect();
            guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 10, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10, "{statuses:?}");
    }

    fn f7_a_browser_that_signed_in_before_has_a_budget_of_its_own(op with QUICK) {
        let mut known = op.browser();
        assert_eq!(attempt_in(&mut known, EMAIL, PASSWORD).status, 303);
        // The person signs out; the browser stays known.
        known.cookies.retain(|name, _| !name.ends_with("session"));
        fail(&op, 10);
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 429);
        assert_eq!(attempt_in(&mut known, EMAIL, WRONG).status, 400);
        assert_eq!(attempt_in(&mut known.clone(), EMAIL, PASSWORD).status, 303, "strangers can't lock the owner out");
        for _ in 1..10 {
            assert_eq!(attempt_in(&mut known, EMAIL, WRONG).status, 400);
        }
        assert_eq!(attempt_in(&mut known, EMAIL, PASSWORD).status, 429, "a stolen computer may not guess for ever either");
    }

    fn f7_the_mark_of_a_known_browser_can_not_be_carried_away(op with QUICK) {
        let mut known = op.browser();
        attempt_in(&mut known, EMAIL, PASSWORD);
        fail(&op, 10);
        let mut thief = op.browser();
        thief.get("/login");
        let own_name = thief.cookies.clone();
        thief.cookies.extend(known.cookies.clone().into_iter().filter(|(name, _)| name.ends_with("known")));
        assert_eq!(thief.cookies.len(), own_name.len() + 1);
        assert_eq!(attempt_in(&mut thief, EMAIL, PASSWORD).status, 429);
        let mut other = known.clone();
        assert_eq!(attempt_in(&mut other, "nobody@example.test", WRONG).status, 400, "known for one account only");
    }

    fn f9_no_answer_tells_who_has_an_account(op with MANY_OF_AN_ADDRESS) {
        op.seed(json!({ "users": [
            { "email": "without@example.test" },
            { "email": "disabled@example.test", "password": PASSWORD, "disabled": true }
        ] }));
        let cases = [
            ("unknown@example.test", WRONG), (EMAIL, WRONG), ("without@example.test", WRONG),
            ("disabled@example.test", PASSWORD), ("not an address", WRONG), ("nul\u{0}@example.test", WRONG),
        ];
        let answers: Vec<_> = cases.iter().map(|(login, password)| told(&attempt(&op, login, password), login)).collect();
        for (answer, (login, _)) in answers.iter().zip(cases) {
            if login.contains('\0') {
                assert_eq!(answer.0, 400);
            } else {
                assert_eq!(*answer, answers[0], "{login}");
            }
        }
        for (login, password) in cases.iter().filter(|(login, _)| !login.contains('\0')) {
            for _ in 1..10 {
                assert_eq!(attempt(&op, login, password).status, 400, "{login}");
            }
            assert_eq!(attempt(&op, login, password).status, 429, "{login}");
        }
    }

    fn n1_f9_every_attempt_waits_in_the_same_bounded_queue(op with QUICK) {
        op.seed(json!({ "users": [
            { "email": "without@example.test" },
            { "email": "disabled@example.test", "password": PASSWORD, "disabled": true }
        ] }));
        let mut held = Vec::new();
        // Full when every thread is busy and every place taken: a thread that just began makes room for one more.
        let all = 33 * hashing::threads_by_default().get();
        eventually("the queue is full", || {
            while let Some(gate) = hold(&op.hashing) {
                held.push(gate);
            }
            (held.len() == all).then_some(())
        });
        let cases = [
            ("unknown@example.test", WRONG), (EMAIL, WRONG), (EMAIL, PASSWORD), ("without@example.test", WRONG), ("disabled@example.test", PASSWORD),
        ];
        // More often than failures are borne: what nobody looked at doesn't count.
        for _ in 0..12 {
            let answers: Vec<_> = cases.iter().map(|(login, password)| told(&attempt(&op, login, password), login)).collect();
            assert_eq!(answers[0].0, 503);
            assert!(answers[0].1.contains(&("retry-after".to_owned(), "5".to_owned())));
            assert!(answers.iter().all(|answer| *answer == answers[0]));
        }
        assert_eq!(op.browser().get("/livez").status, 200, "what hashes nothing waits for nobody");
        drop(held);
        assert_eq!(eventually("the queue is empty again", || {
            Some(attempt(&op, EMAIL, PASSWORD).status).filter(|status| *status != 503)
        }), 303);
    }

    fn f10_a_password_is_taken_whole_and_as_it_is(op with ANY_PASSWORD) {
        let long: String = "Ä-long🗝".chars().cycle().take(256).collect();
        op.seed(json!({ "users": [
            { "email": "long@example.test", "password": long },
            { "email": "spaces@example.test", "password": "  two spaces and ﬁ  " }
        ] }));
        assert_eq!(attempt(&op, "long@example.test", &long).status, 303);
        let cut: String = long.chars().take(255).collect();
        assert_eq!(attempt(&op, "long@example.test", &cut).status, 400);
        assert_eq!(attempt(&op, "long@example.test", &format!("{long}x")).status, 400);
        assert_eq!(attempt(&op, "long@example.test", &long.replace('Ä', "A\u{308}")).status, 303, "composed or not");
        assert_eq!(attempt(&op, "spaces@example.test", "  two spaces and ﬁ  ").status, 303);
        assert_eq!(attempt(&op, "spaces@example.test", "  two spaces and fi  ").status, 303, "NFKC");
        assert_eq!(attempt(&op, "spaces@example.test", "two spaces and ﬁ").status, 400, "not trimmed");
        assert_eq!(attempt(&op, EMAIL, &PASSWORD.to_uppercase()).status, 400);
        let huge = attempt(&op, EMAIL, &"x".repeat(1024 * 1024));
        assert_eq!(huge.status, 413);
        assert!(huge.has("#op-error") || huge.header("content-type").starts_with("text/html"));
    }

    fn f13_a_hash_is_renewed_at_sign_in_when_the_settings_grew(op with [("password.memory_kib", "8192")]) {
        let mut op = op;
        assert!(stored_hash(&op).contains("m=8192"));
        op.restart(|config| config.password.memory_kib = 19_456);
        attempt(&op, EMAIL, WRONG);
        assert!(stored_hash(&op).contains("m=8192"), "a wrong password renews nothing");
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 303);
        let renewed = stored_hash(&op);
        assert!(renewed.contains("m=19456"), "{renewed}");
        assert_eq!(attempt(&op, EMAIL, PASSWORD).status, 303);
        assert_eq!(stored_hash(&op), renewed);
    }
}
