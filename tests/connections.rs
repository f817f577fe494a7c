//! How many connections one address may hold open, how long one may keep the server waiting, and what it may cost: rows N6
//! and R28, trap 13 of what the libraries do by themselves.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::installation::{Installation, Process};
use crate::support::op::Database;
use crate::support::raw_http;
use crate::support::wait::{pause, within};

const MOST: usize = 1_000;
const LONGEST: Duration = Duration::from_secs(10);

/// A connection from another address of this machine.
fn connect_from(from: [u8; 4], server: &Process) -> TcpStream {
    let stream = raw_http::connect_from(from, server.host());
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    stream
}

/// Asks over this connection, keeps it, and says whether it was answered.
fn is_served(mut stream: &TcpStream) -> bool {
    let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut answer = [0; 12];
    asked
        .and_then(|()| stream.read_exact(&mut answer))
        .is_ok_and(|()| &answer == b"HTTP/1.1 200")
}

/// One that waits for its next request. Asked at once, since whoever says nothing for long is ended.
fn served_connection(from: [u8; 4], server: &Process, number: usize) -> TcpStream {
    let stream = connect_from(from, server);
    assert!(is_served(&stream), "connection {number}");
    stream
}

/// As many as the limit, all of them waiting for their next request.
fn hold_all(from: [u8; 4], server: &Process) -> Vec<TcpStream> {
    // Test runners of some systems may open no more than 1,024 files.
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    (0..MOST)
        .map(|number| served_connection(from, server, number))
        .collect()
}

#[test]
fn n6_one_address_cant_take_the_connections_of_all() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    let files = server.open_files();
    let held = hold_all([127, 0, 0, 1], &server);
    for _ in 0..5 {
        let one_more = connect_from([127, 0, 0, 1], &server);
        assert!(
            !is_served(&one_more),
            "it was ended before anything was read"
        );
    }
    assert!(is_served(&connect_from([127, 0, 0, 2], &server)));
    drop(held);
    within(LONGEST, "who has closed them may open others", || {
        is_served(&connect_from([127, 0, 0, 1], &server)).then_some(())
    });
    within(LONGEST, "nothing is left of those that were ended", || {
        (server.open_files() <= files + 4).then_some(())
    });
}

#[test]
fn n6_a_trusted_proxy_holds_as_many_as_it_has_people() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start_with(&[("LATCHKEY_TRUSTED_PROXIES", "127.0.0.9/32")]);
    let _held = hold_all([127, 0, 0, 9], &server);
    assert!(is_served(&connect_from([127, 0, 0, 9], &server)));
}

#[test]
fn r28_a_server_asks_for_the_files_that_its_connections_need() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start_with_files_at_first(64);
    let served = |number| served_connection([127, 0, 0, 1], &server, number);
    let _held: Vec<_> = (0..200).map(served).collect();
}

/// The smallest request there is. Whoever sends many of them at once and reads nothing costs the most.
const SMALL: &str = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

/// A connection over which as much was sent as goes, and nothing is read.
fn deaf(server: &Process) -> TcpStream {
    let stream = connect_from([127, 0, 0, 1], server);
    set_socket_recv_buffer_size(&stream, 4_096).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let _stuck = (&stream).write_all(SMALL.repeat(40_000).as_bytes());
    stream
}

#[test]
fn n6_requests_that_are_sent_ahead_cost_neither_memory_nor_time() {
    const CONNECTIONS: usize = 12;
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    assert!(is_served(&connect_from([127, 0, 0, 1], &server)));
    let before = server.resident_kib();
    let _deaf: Vec<_> = (0..CONNECTIONS).map(|_| deaf(&server)).collect();
    within(LONGEST * 3, "the server has nothing to do", || {
        let used = server.cpu_time();
        pause(Duration::from_secs(1));
        (server.cpu_time() - used < Duration::from_millis(300)).then_some(())
    });
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < CONNECTIONS as u64 * 1_024, "{grown} KiB");
    assert!(is_served(&connect_from([127, 0, 0, 1], &server)));
}

#[test]
fn n6_requests_that_are_sent_ahead_are_answered_one_after_the_other() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    let stream = connect_from([127, 0, 0, 1], &server);
    let body =
        "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let requests = [
        SMALL.to_owned(),
        format!("{body}content-length: 12\r\n\r\ngrant_type=x"),
        format!("{body}transfer-encoding: chunked\r\n\r\n5\r\ngrant\r\n7\r\n_type=x\r\n0\r\n\r\n"),
        "GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
    ];
    (&stream).write_all(requests.concat().as_bytes()).unwrap();
    let mut answers = String::new();
    (&stream).read_to_string(&mut answers).unwrap();
    let statuses: Vec<_> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer.get(..3).unwrap())
        .collect();
    assert_eq!(statuses, ["200", "401", "401", "200", "200"], "{answers}");
}

/// How long a connection lasts over which this is sent, and a byte every second from then on.
fn lasts(server: &Process, sent: &str) -> Duration {
    let stream = connect_from([127, 0, 0, 1], server);
    let began = Instant::now();
    (&stream).write_all(sent.as_bytes()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut answer = [0; 16_384];
    while began.elapsed() < Duration::from_secs(60) {
        match (&stream).read(&mut answer) {
            Ok(0) => break,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            _ => {}
        }
        let _ended = (&stream).write_all(b"x");
    }
    began.elapsed()
}

#[test]
fn n6_no_request_keeps_a_connection_for_ever() {
    let installation = Installation::new(Database::Sqlite);
    let server = installation.start();
    let second = format!("{SMALL}GET /login HTTP/1.1\r\nhost: a\r\nx-slow: ");
    let chunked = "POST /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n";
    let unwanted = "GET /livez HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n";
    thread::scope(|scope| {
        let tried = [second.as_str(), chunked, unwanted]
            .map(|sent| (sent, scope.spawn(|| lasts(&server, sent))));
        for (sent, lasted) in tried {
            let lasted = lasted.join().unwrap();
            assert!(lasted < Duration::from_secs(40), "{lasted:?}: {sent:?}");
        }
    });
}
