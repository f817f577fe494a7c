//! Requests that are wrong in every way, at every path of the table, against the real binary: each is answered decently or
//! the connection is closed, nothing grows, and people sign in afterwards. OWASP ASVS 5.0 §4, §13.4, §15.3, §16.5; RFC 9112.
//!
//! The requests are the same at every run. `LATCHKEY_BAD_INPUT_SEED=7 LATCHKEY_BAD_INPUT_CASES=50000` tries others.

mod request;
mod samples;
mod strange;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use latchkey::web::routes::{Route, TABLE};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD};
use crate::support::raw_http::{Extent, LONGEST, Reply, converse};
use crate::support::relying_party::Rp;
use crate::support::wait::within;
use request::Request;
use strange::{MARK, changes, marks};

/// In a usual run; a round of its own comes before, after which the server has all the memory that it needs.
const CASES: u32 = 600;
const ROUND: u32 = 300;
/// What an allocator keeps, and not what leaks: a leak of 30 kB a request shows in a usual run, one of 1 kB in a long one.
const MOST_GROWTH_KIB: u64 = 16 * 1024;
/// Guesses are slowed by address and by account, and then nothing of them would be looked at.
const PATIENT: [(&str, &str); 2] = [
    ("LATCHKEY_THROTTLE__ADDRESS_FAILURES", "100000"),
    ("LATCHKEY_THROTTLE__ACCOUNT_FAILURES", "100"),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The same at every run, and in every round others.
fn runner(cases: u32, round: u32) -> TestRunner {
    let mut seed = [0; 32];
    let first = number("LATCHKEY_BAD_INPUT_SEED").unwrap_or_default();
    seed[..8].copy_from_slice(&first.to_le_bytes());
    seed[8..12].copy_from_slice(&round.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// What came back: that nothing bad was seen tells something only when enough was.
#[derive(Debug, Default)]
struct Seen {
    answers: BTreeMap<u16, u32>,
    /// Pages that show something that was sent.
    mirrored: u32,
}

impl Seen {
    fn note(&mut self, reply: &Reply) {
        *self.answers.entry(reply.status).or_default() += 1;
        let kind = reply.header("content-type").unwrap_or_default();
        if kind.starts_with("text/html") && reply.text().contains("i7q") {
            self.mirrored += 1;
        }
    }

    fn of(&self, kinds: Range<u16>) -> u32 {
        self.answers.range(kinds).map(|(_, count)| count).sum()
    }
}

/// Sends a round of wrong requests, and counts the answers by their status.
fn throw(
    installation: &Installation,
    server: &Process,
    samples: &[(&'static Route, Vec<Request>)],
    round: u32,
    seen: &mut Seen,
) {
    // Where the issuer is; pages under any other name only say so.
    let host = installation.issuer.trim_start_matches("http://");
    let strategy = (0..samples.len(), any::<usize>(), changes());
    let seen = RefCell::new(seen);
    let outcome = runner(ROUND, round).run(&strategy, |(route, sample, changes)| {
        let (route, right) = &samples[route];
        let mut request = right[sample % right.len()].clone();
        for change in &changes {
            change.apply(&mut request);
        }
        let bytes = request.bytes(host);
        let replies = converse(server.host(), &bytes, request.extent())
            .and_then(|replies| {
                replies.iter().try_for_each(is_decent)?;
                Ok(replies)
            })
            .map_err(|reason| TestCaseError::fail(format!("{}: {reason}", route.path)))?;
        replies
            .iter()
            .for_each(|reply| seen.borrow_mut().note(reply));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (route, sample, changes))) => {
            let (route, right) = &samples[route];
            let mut request = right[sample % right.len()].clone();
            changes.iter().for_each(|change| change.apply(&mut request));
            let sent = String::from_utf8_lossy(&request.bytes(host)).into_owned();
            panic!(
                "{reason}\n{} {changes:?}\n{sent:.3000}\n{}",
                route.path,
                server.log()
            );
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Sends a mark in every place from which it could come back on a page.
fn mark(
    installation: &Installation,
    server: &Process,
    samples: &[(&'static Route, Vec<Request>)],
    seen: &mut Seen,
) {
    let host = installation.issuer.trim_start_matches("http://");
    for right in samples.iter().flat_map(|(_, requests)| requests) {
        for change in marks() {
            let mut request = right.clone();
            change.apply(&mut request);
            let replies = converse(server.host(), &request.bytes(host), request.extent());
            let mut replies = replies.unwrap_or_else(|reason| panic!("{reason}: {request:?}"));
            let next = replies.first().and_then(following);
            if let Some(next) = next {
                let shown = converse(server.host(), &next.bytes(host), next.extent());
                replies.extend(shown.unwrap_or_else(|reason| panic!("{reason}: {next:?}")));
            }
            for reply in replies {
                is_decent(&reply).unwrap_or_else(|reason| panic!("{reason}: {request:?}"));
                seen.note(&reply);
            }
        }
    }
}

/// The page to which a redirect leads, as the browser asks for it.
fn following(reply: &Reply) -> Option<Request> {
    let location = reply.header("location").filter(|to| to.starts_with('/'))?;
    let cookies = reply
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    let cookies: Vec<_> = cookies
        .filter_map(|(_, cookie)| cookie.split(';').next())
        .collect();
    Some(Request::new("GET", location).header("cookie", &cookies.join("; ")))
}

/// What every answer is, whatever was asked.
fn is_decent(reply: &Reply) -> Result<(), String> {
    let shown = || format!("{} {:?} {}", reply.status, reply.headers, reply.text());
    let must = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}: {}", shown()))
        }
    };
    let is = |name: &str, value: &str| reply.header(name) == Some(value);
    let is_busy = reply.status == 503 && reply.header("retry-after").is_some();
    must(reply.status < 500 || is_busy, "a fault")?;
    let is_ours = |(name, value): &(String, String)| {
        !name.starts_with("i7q") && (name != "set-cookie" || !value.starts_with("i7q"))
    };
    must(
        reply.headers.iter().all(is_ours),
        "a header was smuggled in",
    )?;
    if reply.header("x-request-id").is_none() {
        // What no part of ours ever sees, as it can't be read as HTTP: the library says no more than that.
        must(
            matches!(reply.status, 400 | 408 | 413 | 414 | 431),
            "not by us",
        )?;
        return must(reply.body.is_empty(), "words that nobody protected");
    }
    must(is("x-content-type-options", "nosniff"), "sniffable")?;
    for name in ["referrer-policy", "permissions-policy", "cache-control"] {
        must(reply.header(name).is_some(), name)?;
    }
    must(
        reply.header("access-control-allow-credentials").is_none(),
        "with credentials",
    )?;
    let location = reply.header("location").unwrap_or("/");
    let leads_home = location.starts_with('/') && !location.starts_with("//");
    let leads_to_the_app = [CALLBACK, "http://localhost:"]
        .iter()
        .any(|known| location.starts_with(known));
    must(leads_home || leads_to_the_app, "leads to strangers")?;
    let kind = reply.header("content-type").unwrap_or_default();
    let text = reply.text();
    if kind.starts_with("text/html") {
        let policy = reply.header("content-security-policy").unwrap_or_default();
        let parts = [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ];
        must(parts.iter().all(|part| policy.contains(part)), "no policy")?;
        must(!policy.contains("unsafe"), "an unsafe policy")?;
        must(is("x-frame-options", "DENY"), "can be framed")?;
        must(
            is("cross-origin-opener-policy", "same-origin"),
            "has openers",
        )?;
        must(is("cache-control", "no-store"), "a page that is kept")?;
        let is_mirrored = text.contains("<i7q") || text.contains(&MARK[..5]);
        must(!is_mirrored, "input that is not escaped")?;
    }
    let is_readable = reply.header("content-encoding").is_none() && !text.is_empty();
    if kind.starts_with("application/json") && is_readable {
        let json = serde_json::from_str::<serde_json::Value>(&text);
        must(json.is_ok(), "JSON that is none")?;
    }
    if reply.status >= 400 && is_readable {
        let inside = ["panicked", "diesel", "rusqlite", "SELECT ", ".rs:"];
        must(
            !inside.iter().any(|word| text.contains(word)),
            "tells of our inside",
        )?;
    }
    Ok(())
}

fn sign_in(installation: &Installation) {
    let (mut browser, rp) = (
        Browser::new(&installation.issuer),
        Rp::new(&installation.issuer),
    );
    let page = browser.get(&rp.authorize_with_pkce(&[]));
    let mut page = browser.sign_in_as(&page, EMAIL, PASSWORD);
    if page.has("#consent-allow") {
        page = browser.submit(&page, &[("action", "allow")]);
    }
    let tokens = rp.exchange_with_pkce(&page.code());
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
}

fn nothing_wrong_does_harm(database: Database) {
    let key = samples::key();
    let installation = Installation::new(database);
    installation.apply(&samples::seed(&key));
    let server = installation.start_with(&PATIENT);
    let all =
        number("LATCHKEY_BAD_INPUT_CASES").map_or(CASES, |cases| u32::try_from(cases).unwrap());
    let rounds = all.div_ceil(ROUND);
    let (mut before, mut seen) = (None, Seen::default());
    for round in 0..=rounds {
        // Fresh ones: tokens expire in a long run, and a change may have spent some.
        let samples = samples::collect(&installation, &key);
        assert_eq!(samples.len(), TABLE.len());
        throw(&installation, &server, &samples, round, &mut seen);
        if round == 0 {
            mark(&installation, &server, &samples, &mut seen);
        }
        before.get_or_insert_with(|| (server.resident_kib(), server.open_files()));
    }
    // Not all of them fail at the first look, and some come back on a page.
    assert!(seen.of(200..600) > all / 2, "{seen:?}");
    assert!(seen.of(200..400) > all / 10, "{seen:?}");
    assert!(seen.mirrored >= 5, "{seen:?}");
    let (memory, files) = before.unwrap();
    let grown = server.resident_kib().saturating_sub(memory);
    eprintln!("{seen:?}; {memory} KiB, and {grown} KiB more");
    assert!(grown < MOST_GROWTH_KIB, "{memory} KiB grew by {grown} KiB");
    within(LONGEST, "every connection is closed again", || {
        (server.open_files() <= files + 16).then_some(())
    });
    sign_in(&installation);
    let log = server.log();
    let trouble = log
        .lines()
        .find(|line| line.contains("panicked") || line.contains("\"ERROR\""));
    assert_eq!(trouble, None);
}

#[test]
fn n7_o9_no_wrong_request_at_any_path_does_harm() {
    nothing_wrong_does_harm(Database::Sqlite);
}

#[test]
fn n7_o9_no_wrong_request_at_any_path_does_harm_on_postgresql() {
    if crate::support::postgres::cluster().is_some() {
        nothing_wrong_does_harm(Database::Postgres);
    }
}

/// One thread a request, since each of them waits as long as the server does.
#[test]
fn n6_no_request_that_never_ends_holds_a_line_at_any_path() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    let host = server.host();
    let halves: Vec<_> = TABLE
        .iter()
        .flat_map(|route| {
            let path = samples::path(route);
            let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-slow: ");
            let form = "content-type: application/x-www-form-urlencoded\r\n";
            let post = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{form}");
            [
                head,
                format!("{post}content-length: 60000\r\n\r\na=b"),
                format!("{post}transfer-encoding: chunked\r\n\r\n100\r\na=b"),
            ]
        })
        .collect();
    thread::scope(|scope| {
        let held: Vec<_> = halves
            .iter()
            .map(|half| scope.spawn(move || (half, converse(host, half.as_bytes(), Extent::Whole))))
            .collect();
        for waiting in held {
            let (half, said) = waiting.join().unwrap();
            let replies = said.unwrap_or_else(|reason| panic!("{half}: {reason}"));
            for reply in replies {
                is_decent(&reply).unwrap_or_else(|reason| panic!("{half}: {reason}"));
                assert!(
                    (400..500).contains(&reply.status),
                    "{half}: {}",
                    reply.status
                );
            }
        }
    });
}

#[test]
fn n13_no_other_protocol_is_spoken_whoever_asks_for_it() {
    let installation = Installation::new(Database::Sqlite);
    installation.apply(&samples::seed(&samples::key()));
    let server = installation.start();
    let host = installation.issuer.trim_start_matches("http://");
    let settings = b"\0\0\0\x04\0\0\0\0\0".repeat(100);
    let http_2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat();
    let tls = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03".repeat(20);
    for foreign in [
        http_2,
        tls,
        b"\r\n".repeat(1_000),
        b"SSH-2.0-x\r\n".to_vec(),
    ] {
        let replies = converse(server.host(), &foreign, Extent::Doubtful).unwrap();
        let refusals = replies
            .iter()
            .all(|reply| reply.status == 400 && reply.body.is_empty());
        assert!(refusals, "{replies:?}");
    }
    for upgrade in ["h2c", "websocket", "TLS/1.0"] {
        let request = format!(
            "GET /livez HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let replies = converse(server.host(), request.as_bytes(), Extent::Doubtful).unwrap();
        assert!(
            replies.iter().all(|reply| reply.status == 200),
            "{upgrade}: {replies:?}"
        );
    }
    sign_in(&installation);
}

/// Each asks for more than fits between the two, and takes nothing.
#[test]
fn n6_who_never_reads_is_not_worked_for_without_end() {
    const READERS: usize = 4;
    const REQUESTS: usize = 8_000;
    let installation = Installation::new(Database::Sqlite);
    installation.apply(&samples::seed(&samples::key()));
    let server = installation.start();
    let host = installation.issuer.trim_start_matches("http://");
    let files = server.open_files();
    let page = Browser::new(&installation.issuer).get("/");
    let style = page.attribute("link[rel=stylesheet]", "href").unwrap();
    let answer = Browser::new(&installation.issuer).get(&style).body;
    let request = format!("GET {style} HTTP/1.1\r\nhost: {host}\r\n\r\n").repeat(REQUESTS);
    let before = server.resident_kib();
    let deaf: Vec<_> = (0..READERS)
        .map(|_| {
            let stream = TcpStream::connect(server.host()).unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4_096).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            // What the server doesn't take stays with us.
            let _stuck = (&stream).write_all(request.as_bytes());
            stream
        })
        .collect();
    let served = || server.log().matches("/static/").count();
    let mut last = 0;
    let done = within(LONGEST, "nothing more is done for them", || {
        let now = served();
        let is_still = now == last && now > 0;
        last = now;
        is_still.then_some(now)
    });
    assert!(done < READERS * REQUESTS / 2, "{done} were answered");
    let grown = server.resident_kib().saturating_sub(before);
    // What a burst takes at all is taken for those who read, too; the answers that nobody takes would be far more.
    let all = u64::try_from(READERS * REQUESTS * answer.len() / 1024).unwrap();
    assert!(grown < all / 2, "{grown} of {all} KiB, {done} answers");
    sign_in(&installation);
    drop(deaf);
    within(LONGEST, "their connections are closed", || {
        (server.open_files() <= files + 16).then_some(())
    });
}
