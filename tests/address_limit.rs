//! How many requests one address may send to one kind of route. OWASP ASVS 5.0 §2.4.1; RFC 6585 §4.

use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;

use crate::support::op::{Database, Op, SECRET};
use crate::support::wait::eventually;

const LIMIT: usize = 5;
const FEW: (&str, &str) = ("throttle.address_requests", "5");
const BEHIND_A_PROXY: [(&str, &str); 2] = [FEW, ("trusted_proxies", "127.0.0.1/32,::1/128")];

fn http() -> Client {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

fn send(request: RequestBuilder) -> Response {
    request.send().unwrap()
}

fn get(op: &Op, path: &str) -> Response {
    send(http().get(op.url(path)))
}

/// Uses up what an address may ask of one kind of route.
fn exhaust(request: impl Fn() -> RequestBuilder) {
    for time in 0..LIMIT {
        assert_ne!(send(request()).status(), 429, "request {time}");
    }
}

fn seconds_to_wait(response: &Response) -> u64 {
    let header = response.headers()["retry-after"].to_str().unwrap();
    header.parse().unwrap()
}

#[test]
fn n12_people_who_ask_too_often_see_a_page_that_says_so() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    exhaust(|| http().get(op.url("/login")));
    let response = get(&op, "/login");
    assert_eq!(response.status(), 429);
    assert!((1..=60).contains(&seconds_to_wait(&response)));
    assert!(response.headers().contains_key("x-request-id"));
    assert!(response.headers().contains_key("content-security-policy"));
    let body = response.text().unwrap();
    assert!(body.contains("id=\"op-error\""), "{body}");
    assert!(body.contains("That was a lot at once"), "{body}");
    // Any other page is one more of the same kind, and so is every path that is none of ours.
    assert_eq!(get(&op, "/authorize").status(), 429);
    assert_eq!(get(&op, "/nowhere").status(), 429);
}

#[test]
fn n12_programs_are_told_in_json() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    exhaust(|| http().get(op.url("/jwks")));
    for path in ["/jwks", "/.well-known/openid-configuration"] {
        let response = get(&op, path);
        assert_eq!(response.status(), 429, "{path}");
        assert!((1..=60).contains(&seconds_to_wait(&response)));
        let body: Value = serde_json::from_str(&response.text().unwrap()).unwrap();
        assert_eq!(body["error"], "temporarily_unavailable");
    }
}

#[test]
fn one_kind_of_route_does_not_use_up_another_and_probes_are_never_refused() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    exhaust(|| http().get(op.url("/jwks")));
    assert_eq!(get(&op, "/jwks").status(), 429);
    assert_eq!(get(&op, "/login").status(), 200);
    for _ in 0..3 * LIMIT {
        assert_eq!(get(&op, "/livez").status(), 200);
        assert_eq!(get(&op, "/readyz").status(), 200);
    }
}

#[test]
fn an_app_that_authenticates_is_served_beyond_the_limit() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    op.client(serde_json::json!({
        "client_id": "spa", "token_endpoint_auth_method": "none",
        "redirect_uris": ["https://spa.example/callback"], "allowed_cors_origins": ["https://spa.example"]
    }));
    let introspect = |secret: &str| {
        let form = [("token", "nothing")];
        http()
            .post(op.url("/introspect"))
            .basic_auth("rp", Some(secret))
            .form(&form)
    };
    for _ in 0..3 * LIMIT {
        assert_eq!(send(introspect(SECRET)).status(), 200);
    }
    let refused = send(introspect("wrong"));
    assert_eq!(refused.status(), 429);
    assert!((1..=60).contains(&seconds_to_wait(&refused)));
    // Who needs no secret has shown nothing; its pages may read why.
    let public = http()
        .post(op.url("/token"))
        .header("origin", "https://spa.example")
        .form(&[
            ("grant_type", "refresh_token"),
            ("client_id", "spa"),
            ("refresh_token", "x"),
        ]);
    let refused = send(public);
    assert_eq!(refused.status(), 429);
    assert_eq!(
        refused.headers()["access-control-allow-origin"],
        "https://spa.example"
    );
    assert_eq!(send(http().post(op.url("/token"))).status(), 429);
    assert_eq!(get(&op, "/userinfo").status(), 429);
    assert_eq!(send(introspect(SECRET)).status(), 200);
}

#[test]
fn a_good_access_token_is_served_beyond_the_limit() {
    let op = Op::start(Database::Sqlite, &[("throttle.address_requests", "12")]);
    let mut browser = op.browser();
    let rp = op.rp();
    let code = browser.complete(&rp.authorize(&[])).code();
    let tokens = rp.exchange(&code, &[]);
    let token = tokens.access_token().to_owned();
    let ask = |token: &str| send(http().get(op.url("/userinfo")).bearer_auth(token)).status();
    for _ in 0..30 {
        assert_eq!(ask(&token), 200);
    }
    assert_eq!(ask("not-a-token"), 429);
}

#[test]
fn f4_only_a_trusted_proxy_says_where_a_request_came_from() {
    let from = |op: &Op, address: &str| {
        send(
            http()
                .get(op.url("/jwks"))
                .header("x-forwarded-for", address),
        )
        .status()
    };
    let op = Op::start(Database::Sqlite, &[FEW]);
    exhaust(|| http().get(op.url("/jwks")));
    assert_eq!(from(&op, "198.51.100.7"), 429);

    let op = Op::start(Database::Sqlite, &BEHIND_A_PROXY);
    for last in 1..=LIMIT {
        assert_eq!(from(&op, &format!("2001:db8::{last}")), 200);
    }
    assert_eq!(from(&op, "2001:db8::ffff"), 429, "one /64 is one address");
    assert_eq!(from(&op, "2001:db8:0:1::1"), 200);
    assert_eq!(from(&op, "198.51.100.7"), 200);
}

#[test]
fn the_limit_comes_back_bit_by_bit_and_zero_is_off() {
    let op = Op::start(Database::Sqlite, &[("throttle.address_requests", "60")]);
    let http = http();
    let refused = || send(http.get(op.url("/jwks"))).status() == 429;
    assert!((0..1_000).any(|_| refused()), "the limit is met");
    eventually("one more is answered", || (!refused()).then_some(()));

    let op = Op::start(Database::Sqlite, &[("throttle.address_requests", "0")]);
    for _ in 0..400 {
        assert_eq!(get(&op, "/livez").status(), 200);
        assert_eq!(get(&op, "/jwks").status(), 200);
    }
}

#[test]
fn n12_what_no_app_proves_itself_for_is_limited_at_its_paths_too() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    let preflight = || http().request(reqwest::Method::OPTIONS, op.url("/token"));
    exhaust(preflight);
    assert_eq!(send(preflight()).status(), 429);
    assert_eq!(
        get(&op, "/token").status(),
        429,
        "a method that it does not take"
    );
}

#[test]
fn o11_a_path_counts_as_what_the_router_takes_it_for() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    // At the token endpoint errors are JSON, however its name is written.
    let refused = get(&op, "/%74oken");
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.headers()["content-type"], "application/json");
    exhaust(|| http().get(op.url("/%6Aw%6bs")));
    assert_eq!(get(&op, "/jwks").status(), 429);
}

#[test]
fn o7_whoever_takes_no_encoding_at_all_is_answered_and_counted_like_everybody() {
    let op = Op::start(Database::Sqlite, &[FEW]);
    let ask = || {
        http()
            .get(op.url("/jwks"))
            .header("accept-encoding", "identity;q=0, *;q=0")
    };
    for _ in 0..LIMIT {
        let answer = send(ask());
        assert_eq!(answer.status(), 200);
        for header in ["x-request-id", "x-content-type-options", "referrer-policy"] {
            assert!(answer.headers().contains_key(header), "{header}");
        }
    }
    assert_eq!(send(ask()).status(), 429);
}
