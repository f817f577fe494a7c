//! More requests than the database can take: what would have to wait without end is refused at once (row N1), and
//! everything that needs no database goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};
use latchkey::config::DatabaseUrl;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::raw_http::{Extent, Reply, connect_from, converse_from};
use crate::support::relying_party::Rp;
use crate::support::wait::within;

/// More than wait for the database at most, those that it is at work on included.
const MORE_THAN_WAIT: usize = 1_200;
/// A request that waits for its turn is given up after five seconds; one that is refused never waits.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Whoever asks whether the server is ready may find it looking, which it does for five seconds at most.
const LOOKED: Duration = Duration::from_secs(7);
const SOON: Duration = Duration::from_secs(20);
/// Nobody may open more than 1,000 connections from one address.
const FROM_ONE_ADDRESS: usize = 500;

/// Asks over a connection of its own, and how long it took.
fn timed(address: &str, request: &str) -> (Reply, Duration) {
    let began = Instant::now();
    let replies = converse_from([127, 0, 0, 9], address, request.as_bytes(), Extent::Whole);
    (replies.unwrap().remove(0), began.elapsed())
}

/// A request for data of the person whose token this is.
fn userinfo(host: &str, token: &str) -> String {
    format!(
        "GET /userinfo HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

fn post(host: &str, path: &str, form: &str) -> String {
    let form = format!("client_id=rp&client_secret={SECRET}&{form}");
    let kind = "content-type: application/x-www-form-urlencoded";
    let length = form.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{form}"
    )
}

#[test]
fn n1_beyond_a_full_queue_requests_are_refused_at_once_and_nothing_else_waits() {
    if postgres::cluster().is_none() {
        return;
    }
    let installation = Installation::new(Database::Postgres);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD, "email_verified": true }],
        "clients": [{
            "client_id": "rp", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post", "redirect_uris": [CALLBACK]
        }]
    }));
    let server = installation.start();
    let (address, host) = (
        server.host(),
        installation.issuer.trim_start_matches("http://"),
    );
    let rp = Rp::new(&installation.issuer);
    let page = Browser::new(&installation.issuer).complete(&rp.authorize(&[]));
    let tokens = rp.exchange(&page.code(), &[]);
    let good = userinfo(host, tokens.access_token());
    assert_eq!(timed(address, &good).0.status, 200);

    let DatabaseUrl::Postgres(url) = installation.database() else {
        unreachable!("it is on PostgreSQL")
    };
    let mut locking = PgConnection::establish(url).unwrap();
    locking
        .batch_execute("BEGIN; LOCK TABLE access_tokens IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let waiting = wait_together(address, &good);

    let refused = within(SOON, "the queue is full", || {
        let (reply, took) = timed(address, &good);
        (took < AT_ONCE).then_some(reply)
    });
    is_refused_in_json(&refused);
    for request in [
        post(host, "/introspect", "token=x"),
        post(host, "/revoke", "token=x"),
        post(
            host,
            "/token",
            "grant_type=authorization_code&code=x&redirect_uri=https://rp.example/",
        ),
    ] {
        let (reply, took) = timed(address, &request);
        is_refused_in_json(&reply);
        assert!(took < AT_ONCE, "{took:?}");
    }
    for (path, status, limit) in [
        ("/livez", 200, AT_ONCE),
        ("/jwks", 200, AT_ONCE),
        ("/login", 200, AT_ONCE),
        ("/readyz", 503, LOOKED),
    ] {
        let (reply, took) = timed(address, &get(host, path));
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(took < limit, "{path}: {took:?}");
        assert_eq!(
            reply.header("retry-after").is_some(),
            status == 503,
            "{path}"
        );
    }
    locking.batch_execute("ROLLBACK").unwrap();

    // Whoever waited has an answer: theirs, or that it took too long.
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let decent = ["HTTP/1.1 200 ", "HTTP/1.1 503 "];
        assert!(
            decent.iter().any(|line| answer.starts_with(line)),
            "{answer}"
        );
    }
    within(SOON, "it is ready again", || {
        (timed(address, &get(host, "/readyz")).0.status == 200).then_some(())
    });
    let (reply, took) = timed(address, &good);
    assert_eq!(reply.status, 200);
    assert!(took < AT_ONCE, "{took:?}");
}

/// Sends the same request over many connections and reads no answer yet.
fn wait_together(address: &str, request: &str) -> Vec<TcpStream> {
    // Test runners of some systems may open no more than 1,024 files.
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let ask = |number: usize| {
        let last = u8::try_from(10 + number / FROM_ONE_ADDRESS).unwrap();
        let stream = connect_from([127, 0, 0, last], address);
        stream.set_read_timeout(Some(SOON)).unwrap();
        (&stream).write_all(request.as_bytes()).unwrap();
        stream
    };
    (0..MORE_THAN_WAIT).map(ask).collect()
}

/// For a program, with the time after which it may try again.
fn is_refused_in_json(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["error"], "temporarily_unavailable");
}
