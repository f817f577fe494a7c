//! How many connections one address may hold open: row N6, trap 13 of what the libraries do by themselves.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::installation::{Installation, Process};
use crate::support::op::Database;
use crate::support::wait::within;

const MOST: usize = 1_000;
const LONGEST: Duration = Duration::from_secs(10);

/// A connection from another address of this machine.
fn connect_from(from: [u8; 4], server: &Process) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::from(from), 0)).unwrap();
    let port = server.host().rsplit(':').next().unwrap().parse().unwrap();
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    let stream = TcpStream::from(socket);
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

/// As many as the limit, all of them waiting for their next request.
fn hold_all(from: [u8; 4], server: &Process) -> Vec<TcpStream> {
    // Test runners of some systems may open no more than 1,024 files.
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let held: Vec<_> = (0..MOST).map(|_| connect_from(from, server)).collect();
    assert!(held.iter().all(is_served));
    held
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
    let held: Vec<_> = (0..200)
        .map(|_| connect_from([127, 0, 0, 1], &server))
        .collect();
    assert!(held.iter().all(is_served));
}
