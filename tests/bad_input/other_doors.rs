//! What no table of people's paths holds: the test app of development mode, and the listener for the operator.

use latchkey::web::routes::OPERATOR_TABLE;

use super::request::Request;
use super::samples::of_page;
use super::throwing::{Door, Rounds, Samples};
use crate::support::browser::{Browser, Page};
use crate::support::installation::Installation;
use crate::support::op::{Database, free_port};

/// The test app's paths, with the method that each of them takes.
const TEST_APP: [(&str, &str); 6] = [
    ("/dev/app", "GET"),
    ("/dev/app/sign-in", "GET"),
    ("/dev/app/callback", "GET"),
    ("/dev/app/refresh", "POST"),
    ("/dev/app/sign-out", "GET"),
    ("/dev/app/signed-out", "GET"),
];
const CHOICES: [(&str, &str); 4] = [
    ("scope", "profile"),
    ("scope", "email"),
    ("prompt", ""),
    ("id_token_claims", "on"),
];

#[test]
fn n7_o9_no_wrong_request_to_the_test_app_does_harm() {
    let rounds = Rounds {
        cases: 120,
        each: 120,
    };
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start_development();
    let issuer = &installation.issuer;
    let door = Door::new(&server, server.host(), issuer.trim_start_matches("http://"));
    let seen = door.throw_all(&rounds, || of_test_app(issuer));
    assert!(seen.of(200..400) > seen.of(0..600) / 10, "{seen:?}");
    // It shows what came back to it.
    assert!(seen.mirrored >= 5, "{seen:?}");
    assert!(run(&mut Browser::new(issuer)).has("#dev-refresh"));
}

#[test]
fn n7_o9_no_wrong_request_to_the_operators_listener_does_harm() {
    let rounds = Rounds {
        cases: 200,
        each: 200,
    };
    let installation = Installation::new(Database::Sqlite);
    let address = format!("127.0.0.1:{}", free_port());
    let server = installation.start_with(&[("LATCHKEY_MANAGEMENT__LISTEN", &address)]);
    let door = Door::new(&server, &address, &address);
    let seen = door.throw_all(&rounds, for_operator);
    assert!(seen.of(200..400) > seen.of(0..600) / 10, "{seen:?}");
    let metrics = reqwest::blocking::get(format!("http://{address}/metrics"));
    let metrics = metrics.unwrap().text().unwrap();
    assert!(metrics.contains("\nlatchkey_ready 1\n"), "{metrics}");
}

#[test]
fn o10_a_refused_method_is_told_which_the_operators_listener_takes() {
    let installation = Installation::new(Database::Sqlite);
    let address = format!("127.0.0.1:{}", free_port());
    let server = installation.start_with(&[("LATCHKEY_MANAGEMENT__LISTEN", &address)]);
    let door = Door::new(&server, &address, &address);
    for route in OPERATOR_TABLE {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let replies = door.ask(&Request::new(method, route.path)).unwrap();
            let (what, reply) = (format!("{method} {}", route.path), &replies[0]);
            if route.methods.iter().any(|taken| taken.as_str() == method) {
                assert_eq!(reply.status, 200, "{what}");
                continue;
            }
            assert_eq!(reply.status, 405, "{what}");
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{what}");
        }
    }
}

/// Every path of the operator's, bare and with something in its query.
fn for_operator() -> Samples {
    let samples = OPERATOR_TABLE.iter().map(|route| {
        let requests = route.methods.iter().flat_map(|method| {
            let bare = Request::new(method.as_str(), route.path);
            [bare.clone().query(&[("name[]", "latchkey_ready")]), bare]
        });
        (route.path, requests.collect())
    });
    samples.collect()
}

/// Every path of the test app: bare, with a form, and what is right there.
fn of_test_app(issuer: &str) -> Samples {
    let right = right_ones(issuer);
    let samples = TEST_APP.iter().map(|(path, method)| {
        let of_path = right.iter().filter(|one| one.path == path.as_bytes());
        let mut requests: Vec<_> = of_path.cloned().collect();
        assert!(!requests.is_empty(), "nothing is right at {path}");
        let bare = Request::new(method, path);
        let anything = [
            ("state", "x"),
            ("code", "x"),
            ("csrf", "x"),
            ("iss", issuer),
        ];
        requests.push(match *method {
            "POST" => bare.clone().form(&anything),
            _ => bare.clone().query(&anything),
        });
        requests.push(bare);
        (*path, requests)
    });
    samples.collect()
}

fn right_ones(issuer: &str) -> Vec<Request> {
    let mut browser = Browser::new(issuer);
    let mut all = of_page(&browser, &browser.clone().get("/dev/app"), &[], issuer);
    let done = run(&mut browser);
    assert!(done.has("#dev-refresh"), "{}", done.body);
    // The form on it refreshes the tokens.
    all.extend(of_page(&browser, &done, &[], issuer));
    all.extend(of_page(
        &browser,
        &browser.clone().get_once("/dev/app/sign-out"),
        &[],
        issuer,
    ));
    let begun = browser.get_once(&sign_in_address());
    all.extend(of_page(&browser, &begun, &[], issuer));
    // Nobody has followed this redirect, so its code is still good.
    let back = browser.get_once(&begun.location().unwrap());
    all.extend(of_page(&browser, &redirected(back), &[], issuer));

    // Somebody else, whose sign-out leaves the tokens above alone.
    let mut leaving = Browser::new(issuer);
    run(&mut leaving);
    let begun = leaving.get_once("/dev/app/sign-out");
    let back = leaving.get_once(&begun.location().unwrap());
    all.extend(of_page(&leaving, &redirected(back), &[], issuer));
    all
}

fn run(browser: &mut Browser) -> Page {
    browser.complete(&sign_in_address())
}

fn sign_in_address() -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    format!("/dev/app/sign-in?{}", query.extend_pairs(CHOICES).finish())
}

/// The address to which a redirect leads, before anybody was there.
fn redirected(page: Page) -> Page {
    let location = page.location().unwrap_or_else(|| panic!("{}", page.body));
    Page {
        url: location,
        ..page
    }
}
