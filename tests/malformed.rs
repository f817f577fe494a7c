//! Whatever is sent, the answer is a decent one: no 5xx, no broken connection, no row. OWASP ASVS 5.0 §4; RFC 9110; RFC 9112.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diesel::{QueryableByName, RunQueryDsl as _, sql_query};
use latchkey::web::routes::{Route, TABLE};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use serde_json::Value;

use crate::metrics;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, SECRET};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const QUICK: [(&str, &str); 4] = [
    ("password.memory_kib", "7168"),
    ("password.iterations", "1"),
    ("throttle.address_failures", "100000"),
    ("throttle.account_failures", "100"),
];
/// Tables that a request may never fill by being wrong. Failures are counted in `throttles`, which is their purpose.
const TABLES: [&str; 11] = [
    "properties",
    "users",
    "clients",
    "client_secrets",
    "client_origins",
    "signing_keys",
    "sessions",
    "consents",
    "grants",
    "authorization_codes",
    "access_tokens",
];

/// What came back over a connection of its own.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// Sends bytes as they are; a connection that is cut or silent fails the test.
fn raw(op: &Op, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(("127.0.0.1", port(op))).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // The server may answer, and close, before a body that it doesn't want is through.
    let _cut_short = stream.write_all(request);
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let text = text
        .trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n")
        .to_owned();
    let shown = String::from_utf8_lossy(&request[..request.len().min(300)]);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{end:?}, no answer to {shown}: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let _gone = stream.shutdown(Shutdown::Both);
    Reply {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn port(op: &Op) -> u16 {
    url::Url::parse(&op.issuer).unwrap().port().unwrap()
}

fn head(op: &Op, method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n{headers}\r\n",
        port(op)
    )
    .into_bytes()
}

fn get(op: &Op, target: &str) -> Reply {
    raw(op, &head(op, "GET", target, ""))
}

fn post(op: &Op, target: &str, headers: &str, body: &[u8]) -> Reply {
    let mut request = head(
        op,
        "POST",
        target,
        &format!("{headers}content-length: {}\r\n", body.len()),
    );
    request.extend_from_slice(body);
    raw(op, &request)
}

/// Programs get JSON, people get a page, and nobody gets a fault.
fn is_decent(reply: &Reply, route: &Route, what: &str) {
    assert!(reply.status < 500, "{what}: {} {}", reply.head, reply.body);
    let kind = reply.header("content-type").unwrap_or_default();
    if reply.status >= 400 && route.json {
        assert!(
            kind.starts_with("application/json"),
            "{what}: {} {}",
            reply.head,
            reply.body
        );
        assert!(reply.body.contains("\"error\""), "{what}: {}", reply.body);
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    } else if reply.status >= 400 && !route.path.starts_with("/static") {
        // (A file that is not there is asked for by a page, not by a person.)
        assert!(
            kind.starts_with("text/html"),
            "{what}: {} {}",
            reply.head,
            reply.body
        );
        assert!(
            reply.body.contains("op-error") || reply.body.contains("login-submit"),
            "{what}: {}",
            reply.body
        );
    }
    assert!(
        reply.header("x-request-id").is_some()
            && reply.header("x-content-type-options") == Some("nosniff"),
        "{what}: {}",
        reply.head
    );
}

fn path(route: &Route) -> String {
    route
        .path
        .replace("{hash}", "0")
        .replace("{file:.*}", "../../Cargo.toml")
}

fn takes(route: &Route, method: &str) -> bool {
    route.methods.iter().any(|known| known.as_str() == method)
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn rows(op: &Op) -> Vec<i64> {
    op.store
        .read_blocking(|conn| {
            TABLES
                .iter()
                .map(|table| {
                    let row: Number =
                        sql_query(format!("SELECT COUNT(*) AS n FROM {table}")).get_result(conn)?;
                    Ok(row.n)
                })
                .collect()
        })
        .unwrap()
}

/// The same cases in every run.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(7),
        ..Config::default()
    })
}

fn parameter() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        Just("client_id".to_owned()),
        Just("redirect_uri".to_owned()),
        Just("response_type".to_owned()),
        Just("scope".to_owned()),
        Just("state".to_owned()),
        Just("nonce".to_owned()),
        Just("prompt".to_owned()),
        Just("max_age".to_owned()),
        Just("claims".to_owned()),
        Just("ui_locales".to_owned()),
        Just("id_token_hint".to_owned()),
        Just("login_hint".to_owned()),
        Just("acr_values".to_owned()),
        Just("code_challenge".to_owned()),
        Just("code_challenge_method".to_owned()),
        Just("response_mode".to_owned()),
        Just("resource".to_owned()),
        Just("ticket".to_owned()),
        Just("csrf".to_owned()),
        Just("login".to_owned()),
        Just("password".to_owned()),
        Just("action".to_owned()),
        Just("grant_type".to_owned()),
        Just("code".to_owned()),
        Just("client_secret".to_owned()),
        Just("code_verifier".to_owned()),
        Just("access_token".to_owned()),
        Just("session".to_owned()),
        any::<String>(),
    ];
    let value = prop_oneof![
        any::<String>(),
        Just("rp".to_owned()),
        Just("https://rp.example/callback".to_owned()),
        Just("code".to_owned()),
        Just("openid".to_owned()),
        Just("authorization_code".to_owned()),
        Just("none".to_owned()),
        Just("-1".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("1e308".to_owned()),
        Just("{\"id_token\":{\"auth_time\":{\"essential\":\"x\"}}}".to_owned()),
        Just("[[[[[[[[".repeat(200)),
        Just("e30.e30.e30".to_owned()),
        Just("eyJhbGciOiJub25lIn0.e30.".to_owned()),
        Just("\u{0}".to_owned()),
        Just("a\r\nset-cookie: x=y".to_owned()),
    ];
    (name, value)
}

fn encode(parameters: &[(String, String)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

/// Sends a request, and another once the first is answered; what came back, and whether the server then closed.
fn two_after_another(op: &Op, first: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port(op))).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(first.as_bytes()).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed without an answer: {first}");
        bytes.extend_from_slice(&buffer[..count]);
    }
    let _closed_before = stream.write_all(&head(op, "GET", "/jwks", ""));
    let end = stream.read_to_end(&mut bytes);
    let is_closed = match end {
        Ok(_) => true,
        // What was sent to a connection that is closed is answered so.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    (String::from_utf8_lossy(&bytes).into_owned(), is_closed)
}

on_both_databases! {
    fn o10_a_method_that_a_path_does_not_take_is_405(op with QUICK) {
        let before = rows(&op);
        for route in TABLE {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
                if takes(route, method) {
                    continue;
                }
                let reply = raw(&op, &head(&op, method, &path(route), "x-http-method-override: GET\r\n"));
                let what = format!("{method} {}", route.path);
                if method == "CONNECT" {
                    assert!((400..500).contains(&reply.status), "{what}: {}", reply.head);
                    continue;
                }
                assert_eq!(reply.status, 405, "{what}: {}", reply.head);
                let allow: Vec<_> = route.methods.iter().map(|known| known.as_str()).collect();
                assert_eq!(reply.header("allow"), Some(allow.join(", ").as_str()), "{what}");
                if method != "HEAD" {
                    is_decent(&reply, route, &what);
                }
                assert!(!reply.body.contains("x-http-method-override"), "TRACE would show cookies to scripts");
            }
        }
        assert_eq!(rows(&op), before);
    }

    fn o9_garbage_in_queries_and_bodies_is_refused_decently(op with QUICK) {
        let before = rows(&op);
        let cases: [&[u8]; 16] = [
            b"a=%00", b"a=%0d%0aset-cookie:x=y", b"a=%ff", b"a=%c0%80", b"a=%", b"a=%4", b"a=%zz", b"=", b"&&&&", b"a&a", b"client_id=rp&client_id=rp",
            b"client_id=%ed%a0%80", b"code=a%00b&grant_type=authorization_code", b"login=%00&password=%00", b"ticket=....", b"client_id[]=rp",
        ];
        for route in TABLE {
            for case in cases {
                let text = String::from_utf8_lossy(case);
                if takes(route, "GET") {
                    let reply = get(&op, &format!("{}?{text}", path(route)));
                    is_decent(&reply, route, &format!("GET {} {text}", route.path));
                    assert_eq!(reply.header("set-cookie").filter(|cookie| cookie.starts_with("x=")), None);
                }
                if takes(route, "POST") {
                    is_decent(&post(&op, &path(route), FORM, case), route, &format!("POST {} {text}", route.path));
                }
            }
            if takes(route, "POST") {
                for case in [&b"a=\xff\xfe"[..], b"\x00\x01\x02", b"{\"client_id\":\"rp\"}", b"a=\r\nb=\r\n", &[b'&'; 5_000], &b"a=1&".repeat(5_000)] {
                    is_decent(&post(&op, &path(route), FORM, case), route, &format!("POST {} with bytes", route.path));
                }
            }
        }
        assert_eq!(rows(&op), before);
    }

    fn n5_only_a_plain_form_is_a_form(op with QUICK) {
        for route in TABLE.iter().filter(|route| takes(route, "POST")) {
            for headers in [
                "content-type: text/plain\r\n", "content-type: application/json\r\n", "content-type: multipart/form-data; boundary=x\r\n",
                "content-type: application/x-www-form-urlencoded; charset=utf-16\r\n", "content-type: application/x-www-form-urlencodedx\r\n",
                "content-type: application/x-www-form-urlencoded\r\ncontent-type: text/plain\r\n", "content-type: \u{1f600}\r\n", "",
                "content-type: application/x-www-form-urlencoded\r\ncontent-encoding: gzip\r\n",
                "content-type: application/x-www-form-urlencoded\r\ncontent-encoding: br\r\n",
            ] {
                let reply = post(&op, &path(route), headers, b"client_id=rp&grant_type=authorization_code&code=x");
                let what = format!("{} {headers}", route.path);
                is_decent(&reply, route, &what);
                if route.path == "/userinfo" {
                    assert_eq!(reply.status, 401, "{what}: what is no form holds no token");
                } else {
                    assert_eq!(reply.status, 415, "{what}");
                }
            }
            let reply = post(&op, &path(route), "content-type: application/x-www-form-urlencoded; charset=UTF-8\r\n", b"a=b");
            assert_ne!(reply.status, 415, "{}", route.path);
        }
    }

    fn n2_n5_large_bodies_are_refused_before_any_work(op with QUICK) {
        for route in TABLE.iter().filter(|route| takes(route, "POST")) {
            let large = [&b"password="[..], &vec![b'x'; 1024 * 1024]].concat();
            let reply = post(&op, &path(route), FORM, &large);
            is_decent(&reply, route, route.path);
            assert_eq!(reply.status, 413, "{}", route.path);
            let mut chunked = head(&op, "POST", &path(route), &format!("{FORM}transfer-encoding: chunked\r\n"));
            for _ in 0..20 {
                let mut length = String::new();
                write!(length, "{:x}\r\n", 8192).unwrap();
                chunked.extend_from_slice(length.as_bytes());
                chunked.extend_from_slice(&[b'y'; 8192]);
                chunked.extend_from_slice(b"\r\n");
            }
            chunked.extend_from_slice(b"0\r\n\r\n");
            let reply = raw(&op, &chunked);
            is_decent(&reply, route, route.path);
            assert_eq!(reply.status, 413, "{} in chunks", route.path);
        }
    }

    fn n4_what_is_too_large_or_too_deep_is_refused_in_so_many_words(op with QUICK) {
        const LARGEST: usize = 64 * 1024;
        let filled = |form: &str, size: usize| format!("{form}{}", "A".repeat(size - form.len()));
        let told = |reply: &Reply| {
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            (reply.status, body["error"].as_str().unwrap().to_owned(), body["error_description"].as_str().unwrap().to_owned())
        };
        let too_large = (413, "invalid_request".to_owned(), "the body is larger than 64 kB".to_owned());
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        let credentials = format!("client_id=rp&client_secret={SECRET}");
        for token in ["", "e30.", "e30.e30.", "%7B%22a%22%3A"] {
            let form = format!("{credentials}&token={token}");
            let reply = post(&op, "/introspect", FORM, filled(&form, LARGEST).as_bytes());
            assert_eq!((reply.status, reply.body.as_str()), (200, "{\"active\":false}"), "{token}");
            assert_eq!(told(&post(&op, "/introspect", FORM, filled(&form, LARGEST + 1).as_bytes())), too_large);
            let form = format!("grant_type=client_credentials&client_assertion_type={kind}&client_assertion={token}");
            let none = (401, "invalid_client".to_owned(), "the assertion is no JWT with a sub".to_owned());
            assert_eq!(told(&post(&op, "/token", FORM, filled(&form, LARGEST).as_bytes())), none, "{token}");
            assert_eq!(told(&post(&op, "/token", FORM, filled(&form, LARGEST + 1).as_bytes())), too_large);
        }
        // A good one that somebody made longer is not the good one.
        let tokens = op.rp().exchange(&op.browser().complete(&op.rp().authorize(&[])).code(), &[]);
        let good = format!("{credentials}&token={}", tokens.access_token());
        assert!(post(&op, "/introspect", FORM, good.as_bytes()).body.contains("\"active\":true"));
        assert_eq!(post(&op, "/introspect", FORM, filled(&good, LARGEST).as_bytes()).body, "{\"active\":false}");
        let nested = |depth: usize| format!("{{\"userinfo\":{{\"email\":{{\"value\":{}{}}}}}}}", "[".repeat(depth), "]".repeat(depth));
        let ask = |claims: &str| {
            let asked = [("client_id", "rp"), ("redirect_uri", CALLBACK), ("response_type", "code"), ("scope", "openid"), ("claims", claims)];
            op.browser().post("/authorize", &asked)
        };
        for deep in [nested(150), "[".repeat(1_000), format!("{{\"userinfo\":{}", "[".repeat(1_000))] {
            let refused = ask(&deep);
            assert_eq!(refused.status, 303, "{}", refused.body);
            assert_eq!(refused.callback()["error"], "invalid_request");
        }
        let read = ask(&nested(3));
        assert!(read.has("#login-submit"), "what is not deep is read: {:?} {}", read.location(), read.body);
        for long in [nested(4_000), "[".repeat(9_000)] {
            let refused = ask(&long);
            assert_eq!(refused.status, 400);
            assert!(refused.text("dd").contains("longer than 8000 characters"), "{}", refused.body);
        }
    }

    fn n7_large_heads_and_strange_cookies_are_borne(op with QUICK) {
        for route in TABLE.iter().filter(|route| takes(route, "GET")) {
            let many: String = (0..60).fold(String::new(), |mut all, number| { write!(all, "x-{number}: {number}\r\n").unwrap(); all });
            for headers in [
                format!("cookie: latchkey-session={}\r\n", "x".repeat(16_000)), "cookie: latchkey-browser=\u{1f600}; latchkey-session=\r\n".to_owned(),
                "cookie: ;;;=;=\r\n".to_owned(), "cookie: latchkey-known=....; latchkey-language=../../etc/passwd\r\n".to_owned(), many,
                "accept-language: \u{ff}, *;q=9, de;q=x\r\n".to_owned(), "authorization: Basic \r\n".to_owned(), "origin: \u{ff}\r\n".to_owned(),
                "x-forwarded-for: not an address\r\nforwarded: for=\"[\"\r\nx-forwarded-host: evil.example\r\n".to_owned(), "range: bytes=0-1,2-3,-9\r\n".to_owned(),
                "if-none-match: \u{ff}\r\n".to_owned(), "expect: 100-continue\r\n".to_owned(),
            ] {
                let reply = raw(&op, &head(&op, "GET", &path(route), &headers));
                let shown: String = headers.chars().take(60).collect();
                is_decent(&reply, route, &format!("{} {shown}", route.path));
                assert!(!reply.head.contains("evil.example") && !reply.body.contains("evil.example"), "{}", route.path);
            }
        }
        for headers in [format!("x: {}\r\n", "x".repeat(300_000)), (0..500).fold(String::new(), |mut all, number| { write!(all, "x-{number}: y\r\n").unwrap(); all })] {
            let status = raw(&op, &head(&op, "GET", "/login", &headers)).status;
            assert!((400..500).contains(&status), "{status}");
        }
        let status = get(&op, &format!("/authorize?state={}", "x".repeat(60_000))).status;
        assert!((400..500).contains(&status), "{status}");
    }

    fn o11_a_path_is_what_it_is(op with QUICK) {
        for target in [
            "//authorize", "/authorize/", "/authorize;x", "/../authorize", "/x/../authorize", "/./authorize", "/authorize/..;/token", "/AUTHORIZE",
            "/authorize%00", "/authorize%2f", "/authorize%3f", "/%2e%2e/authorize", "/login/", "//login", "/token/", "//token", "/jwks/", "/jwks.json",
            "/static/0/../../Cargo.toml", "/static/0/%2e%2e/%2e%2e/Cargo.toml", "/static/0/..%2f..%2fCargo.toml", "/static/../login", "/.git/config", "/debug", "/swagger",
            "/metrics", "/dev", "/dev/app", "/admin", "/%ff", "/\\authorize", "/.well-known/", "/.well-known/openid-configuration/",
        ] {
            let reply = get(&op, target);
            assert_eq!(reply.status, 404, "{target}: {}", reply.head);
            assert_eq!(reply.header("location"), None, "{target}");
            assert!(!reply.body.contains("[package]"), "{target}");
        }
        // An encoded letter is the letter (RFC 3986 §6.2.2.2), and what guards a path stands behind the router.
        assert_eq!(get(&op, "/%6awks").status, 200);
        assert_eq!(get(&op, "/%61uthorize").status, 400);
        assert_eq!(post(&op, "/%6cogin", FORM, b"login=x&password=y").status, post(&op, "/login", FORM, b"login=x&password=y").status);
    }

    fn o12_where_nobody_knows_how_a_request_ends_the_connection_does(op with QUICK) {
        let head = |headers: &str| format!("POST /token HTTP/1.1\r\nhost: localhost:{}\r\n{FORM}{headers}\r\n", port(&op));
        let (both, twice) = ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "content-length: 5\r\ncontent-length: 6\r\n");
        let empty = "0\r\n\r\n";
        for headers in [
            both, "transfer-encoding: chunked\r\ncontent-length: 5\r\n", "transfer-encoding: chunked\r\ncontent-length: 0\r\n", twice,
            "transfer-encoding: chunked, identity\r\n", "transfer-encoding: xchunked\r\n", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            let (answers, is_closed) = two_after_another(&op, &format!("{}{empty}", head(headers)));
            assert!(answers.starts_with("HTTP/1.1 400 "), "{headers}: {answers}");
            assert_eq!((answers.matches("HTTP/1.1 ").count(), is_closed), (1, true), "{headers}: {answers}");
        }
        // Over one where that is clear the next request is answered.
        for (headers, body) in [("content-length: 3\r\n", "a=b"), ("transfer-encoding: chunked\r\n", empty)] {
            let (answers, _) = two_after_another(&op, &format!("{}{body}", head(headers)));
            assert!(answers.starts_with("HTTP/1.1 401 ") && answers.contains("HTTP/1.1 200 "), "{headers}: {answers}");
        }
    }

    fn o12_one_request_can_not_be_read_as_two(op with QUICK) {
        let smuggled = "0\r\n\r\nGET /jwks HTTP/1.1\r\nhost: localhost\r\n\r\n";
        for headers in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n", "content-length: 5\r\ncontent-length: 6\r\n",
            "transfer-encoding: chunked, identity\r\n", "transfer-encoding: xchunked\r\n", "content-length: +5\r\n", "content-length: -1\r\n",
            "content-length: 99999999999999999999\r\n", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "host: evil.example\r\n",
        ] {
            let request = format!("POST /token HTTP/1.1\r\nhost: localhost:{}\r\n{FORM}{headers}\r\n{smuggled}", port(&op));
            let reply = raw(&op, request.as_bytes());
            assert_eq!(reply.status, 400, "{headers}: {}", reply.head);
            assert!(!reply.body.contains("HTTP/1.1 ") && !reply.body.contains("\"keys\""), "{headers}: a second answer {}", reply.body);
        }
        for request in ["GET /jwks\r\n\r\n", "GET  /jwks HTTP/1.1\r\n\r\n", "GET /jwks HTTP/9.9\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n", "GET /login HTTP/1.1\r\nhost : x\r\n\r\n",
                        "GET /jwks\u{0} HTTP/1.1\r\nhost: x\r\n\r\n", "GET /login HTTP/1.1\r\nx: a\u{0}b\r\nconnection: close\r\n\r\n"] {
            assert_eq!(raw(&op, request.as_bytes()).status, 400, "{request:?}");
        }
    }

    fn c8_basic_is_read_strictly(op with QUICK) {
        let route = TABLE.iter().find(|route| route.path == "/token").unwrap();
        for header in [
            "Basic", "Basic ", "Basic  cnA6c2VjcmV0", "Basic cnA", "Basic cnA6!!!", "Basic cnA6c2VjcmV0=", "Basic cnBzZWNyZXQ=", "Basic cnA6JXp6", "Basic /w==",
            "Bearer abc", "Negotiate abc", "basiccnA6c2VjcmV0", &format!("Basic {}", "QUJD".repeat(16_000)), "Basic cnA6AAA=",
        ] {
            let reply = post(&op, "/token", &format!("{FORM}authorization: {header}\r\n"), b"grant_type=authorization_code&code=x");
            let shown: String = header.chars().take(40).collect();
            is_decent(&reply, route, &shown);
            assert_eq!(reply.status, 401, "{shown}: {}", reply.body);
            assert!(reply.header("www-authenticate").unwrap().starts_with("Basic realm="), "{shown}");
            assert!(reply.body.contains("invalid_client"), "{shown}");
        }
    }

    fn n3_n4_no_token_is_decrypted_unfolded_or_followed_into_the_depth(op with QUICK) {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let rsa = part(r#"{"alg":"RSA-OAEP","enc":"A128GCM","zip":"DEF","kid":"x"}"#);
        let slow = part(r#"{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2s":"AAAAAAAAAAA","p2c":1000000}"#);
        let direct = part(r#"{"alg":"dir","enc":"A128GCM","zip":"DEF"}"#);
        let header = part(r#"{"alg":"ES256"}"#);
        let deep = |depth: usize| format!("{header}.{}.AAAA", part(&format!("{{\"sub\":\"rp\",\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth))));
        let deep_header = format!("{}.{}.AAAA", part(&format!("{{\"alg\":{}1{}}}", "{\"a\":".repeat(200), "}".repeat(200))), part("{}"));
        let tokens = [
            format!("{rsa}.{}.AAAA.{}.AAAA", "A".repeat(342), "A".repeat(5_000)), format!("{slow}.{}.AAAA.AAAA.AAAA", "A".repeat(32)), format!("{direct}..AAAA.AAAA.AAAA"),
            deep(128), deep(2_500), deep_header, format!("{header}.{}.AAAA", part(&format!("{{\"sub\":\"rp\",\"a\":\"{}\"}}", "x".repeat(8_000)))),
        ];
        let find = |path: &str| TABLE.iter().find(|route| route.path == path).unwrap();
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let asserting = |token: &str| encode(&[("grant_type", "client_credentials"), ("client_assertion_type", kind), ("client_assertion", token)]
            .map(|(name, value)| (name.to_owned(), value.to_owned())));
        let shallow = post(&op, "/token", FORM, asserting(&deep(3)).as_bytes());
        assert!(shallow.body.contains("invalid_client") && !shallow.body.contains("no JWT"), "one that is read: {}", shallow.body);
        for token in &tokens {
            let shown = &token[..60];
            let reply = post(&op, "/token", FORM, asserting(token).as_bytes());
            is_decent(&reply, find("/token"), shown);
            assert_eq!(reply.status, 401, "{shown}: {}", reply.body);
            // It never gets as far as anybody's keys: what is not read names nobody.
            assert!(reply.body.contains("the assertion is no JWT with a sub"), "{shown}: {}", reply.body);
            let reply = get(&op, &format!("/end-session?id_token_hint={token}"));
            assert_eq!(reply.status, 400, "{shown}: {}", reply.head);
            is_decent(&reply, find("/end-session"), shown);
            let reply = raw(&op, &head(&op, "GET", "/userinfo", &format!("authorization: Bearer {token}\r\n")));
            assert_eq!(reply.status, 401, "{shown}: {}", reply.head);
            is_decent(&reply, find("/userinfo"), shown);
            let named = encode(&[("token", token), ("client_id", &"rp".to_owned()), ("client_secret", &SECRET.to_owned())].map(|(name, value)| (name.to_owned(), value.clone())));
            let reply = post(&op, "/introspect", FORM, named.as_bytes());
            assert_eq!((reply.status, reply.body.as_str()), (200, "{\"active\":false}"), "{shown}");
        }
    }

    fn b11_b12_a_bearer_token_is_read_strictly(op with QUICK) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let token = tokens.access_token();
        let status = |target: &str, header: &str| raw(&op, &head(&op, "GET", target, &format!("authorization: {header}\r\n"))).status;
        assert_eq!(status("/userinfo", &format!("Bearer {token}")), 200);
        assert_eq!(status("/userinfo", &format!("bearer {token}")), 200, "schemes have no case");
        let cut = &token[..token.len() - 1];
        for altered in [cut, &token.to_uppercase(), &token.to_lowercase(), &format!("{token}="), &format!("{token}.")] {
            let status = status("/userinfo", &format!("Bearer {altered}"));
            assert!(status == 401 || status == 400, "{status}");
        }
        for header in [format!("Bearer  {token}"), format!("Bearer\t{token}"), format!("Bearer {token} x"), format!("Bearer {token},{token}"), token.to_owned(), format!("Token {token}")] {
            let status = status("/userinfo", &header);
            assert!(status == 401 || status == 400, "{status}");
        }
        assert_eq!(get(&op, &format!("/userinfo?access_token={token}")).status, 400);
        assert_eq!(status(&format!("/userinfo?access_token={token}"), &format!("Bearer {token}")), 400);
        let twice = raw(&op, &head(&op, "GET", "/userinfo", &format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n")));
        assert_eq!(twice.status, 400);
    }

    fn parameters_of_every_kind_are_answered_decently(op with QUICK) {
        let before = rows(&op);
        let routes: Vec<&Route> = TABLE.iter().filter(|route| !route.path.starts_with("/static")).collect();
        let request = (0..routes.len(), any::<bool>(), proptest::collection::vec(parameter(), 0..8));
        runner(250).run(&request, |(index, by_form, parameters)| {
            let (route, encoded) = (routes[index], encode(&parameters));
            let reply = if by_form && takes(route, "POST") {
                post(&op, route.path, FORM, encoded.as_bytes())
            } else if takes(route, "GET") {
                get(&op, &format!("{}?{encoded}", route.path))
            } else {
                return Ok(());
            };
            is_decent(&reply, route, &format!("{} {parameters:?}", route.path));
            Ok(())
        }).unwrap();
        assert_eq!(rows(&op), before);
    }

    fn bytes_of_every_kind_are_answered_decently(op with QUICK) {
        let before = rows(&op);
        let routes: Vec<&Route> = TABLE.iter().filter(|route| takes(route, "POST")).collect();
        let request = (0..routes.len(), proptest::collection::vec(any::<u8>(), 0..200));
        runner(150).run(&request, |(index, body)| {
            let route = routes[index];
            is_decent(&post(&op, route.path, FORM, &body), route, &format!("{} {body:?}", route.path));
            Ok(())
        }).unwrap();
        assert_eq!(rows(&op), before);
    }

    fn n8_an_authorization_request_that_nobody_answers_writes_nothing(op with QUICK) {
        let before = rows(&op);
        for _ in 0..10 {
            assert_eq!(op.browser().get(&op.rp().authorize(&[])).status, 200);
        }
        assert_eq!(rows(&op), before);
    }
}

#[test]
fn n2_a_password_of_a_megabyte_costs_no_hash() {
    // A hash that takes long enough to be seen.
    let costly = [
        ("password.memory_kib", "65536"),
        ("password.iterations", "3"),
    ];
    let op = Op::start(Database::Sqlite, &costly);
    let mut browser = op.browser();
    let (action, hidden) = browser.get("/login").form();
    let cookies = browser.cookies.iter();
    let cookies: Vec<_> = cookies
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let headers = format!("{FORM}cookie: {}\r\n", cookies.join("; "));
    let hashes = || metrics::count(&op, "latchkey_password_hash_seconds_count");
    let quickest = |password: &str, status: u16| {
        let typed = [("login", EMAIL), ("password", password)];
        let typed = typed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let form = encode(&[&hidden[..], &typed].concat());
        let tries = (0..3).map(|_| {
            let began = Instant::now();
            let reply = post(&op, &action, &headers, form.as_bytes());
            assert_eq!(reply.status, status, "{}", reply.head);
            began.elapsed()
        });
        tries.min().unwrap()
    };
    let before = hashes();
    let refused = quickest(&"x".repeat(1024 * 1024), 413);
    assert!((hashes() - before).abs() < 0.5, "some were hashed");
    let hashed = quickest("not-the-password-of-anybody", 400);
    assert!(
        (hashes() - before - 3.0).abs() < 0.5,
        "those that are hashed are counted"
    );
    // Where everything is slow it is still far less than a hash.
    let soon = Duration::from_millis(50).max(hashed / 2);
    assert!(refused < soon, "{refused:?}, a hash {hashed:?}");
}
