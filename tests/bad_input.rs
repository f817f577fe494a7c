//! Requests that are wrong in every way, at every path of the table, against the real binary: each is answered decently or
//! the connection is closed, nothing grows, and people sign in afterwards. OWASP ASVS 5.0 §4, §13.4, §15.3, §16.5; RFC 9112.
//!
//! The requests are the same at every run. `LATCHKEY_BAD_INPUT_SEED=7 LATCHKEY_BAD_INPUT_CASES=50000` tries others.

mod answer;
mod other_doors;
pub mod request;
mod samples;
mod strange;
mod throwing;

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use latchkey::web::routes::TABLE;

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::op::{Database, EMAIL, PASSWORD};
use crate::support::raw_http::{Extent, LONGEST, converse};
use crate::support::relying_party::Rp;
use crate::support::wait::within;
use answer::is_decent;
use throwing::{Door, Rounds};

const ROUNDS: Rounds = Rounds {
    cases: 600,
    each: 300,
};
/// Guesses are slowed by address and by account, and then nothing of them would be looked at.
const PATIENT: [(&str, &str); 2] = [
    ("LATCHKEY_THROTTLE__ADDRESS_FAILURES", "100000"),
    ("LATCHKEY_THROTTLE__ACCOUNT_FAILURES", "100"),
];

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
    // Where the issuer is; pages under any other name only say so.
    let host = installation.issuer.trim_start_matches("http://");
    let door = Door::new(&server, server.host(), host);
    let seen = door.throw_all(&ROUNDS, || {
        let samples = samples::collect(&installation, &key);
        assert_eq!(samples.len(), TABLE.len());
        samples
    });
    // Many do what they ask for, and some come back on a page.
    assert!(seen.of(200..400) > seen.of(0..600) / 10, "{seen:?}");
    assert!(seen.mirrored >= 5, "{seen:?}");
    sign_in(&installation);
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
