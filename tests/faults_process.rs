//! What a process is told and how much it is given: rows R27 and R28.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use latchkey::protocol::seal::TokenHash;
use latchkey::store::{Store, refresh_tokens};

use crate::faults::{FORM, address, assert_unharmed, base, connect, installation, prepared, rest};
use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::assert_sound;
use crate::support::op::{Database, SECRET};
use crate::support::postgres;
use crate::support::refreshing::{Network, Told, while_apps_refresh};
use crate::support::relying_party::Rp;
use crate::support::wait::{eventually, pause, within};

const APPS: usize = 8;

#[test]
fn r27_what_was_accepted_before_sigterm_is_answered() {
    let (installation, rp) = installation();
    let mut server = installation.start();
    let chains: Vec<_> = (0..8).map(|_| connect(&rp)).collect();
    let body = format!("token=unknown&client_id=notes&client_secret={SECRET}");
    let host = address(&installation.issuer);
    let head = format!(
        "POST /introspect HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{FORM}content-length: {}\r\n\r\n",
        body.len()
    );
    let files = server.open_files();
    let mut accepted = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address(&server.url)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        accepted.push(stream);
    }
    // Of each request the head has been read when the signal comes, so an answer is owed.
    eventually("all are accepted", || {
        (server.open_files() >= files + 100).then_some(())
    });
    pause(Duration::from_secs(1));
    server.signal("-TERM");
    eventually("it has heard of it", || {
        let ready = server.management("/readyz").unwrap();
        ready.starts_with("HTTP/1.1 503 ").then_some(())
    });
    // Whoever looks meanwhile sees a server that lives, takes nothing new, and still counts.
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 200)] {
        let answer = server.management(path).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    for stream in &mut accepted {
        stream.write_all(body.as_bytes()).unwrap();
    }
    let answered: Vec<_> = accepted.iter().map(rest).collect();
    let good = answered
        .iter()
        .filter(|answer| answer.starts_with("HTTP/1.1 200 "))
        .count();
    assert_eq!(good, 100, "{answered:?}");
    assert_eq!(server.wait(), Some(0));
    let _server = installation.start();
    for tokens in chains {
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    }
}

#[test]
fn r27_of_apps_that_refresh_all_the_time_none_loses_what_was_done_for_it() {
    for database in Database::all() {
        stop_under_load(Installation::new(database), |rp| rp);
    }
}

#[test]
fn r27_of_apps_with_a_connection_for_each_request_none_loses_what_was_done_for_it() {
    for database in Database::all() {
        stop_under_load(
            Installation::new(database),
            Rp::on_a_connection_for_each_request,
        );
    }
}

fn stop_under_load(installation: Installation, connected: impl Fn(Rp) -> Rp) {
    let (installation, rp) = prepared(installation);
    let rp = connected(rp);
    let mut server = installation.start();
    let chains = (0..APPS).map(|_| connect(&rp)).collect();
    let mut ended = None;
    let (last, story) = while_apps_refresh(&rp, chains, Network::Unreliable, |story| {
        let began = Instant::now();
        story.wait_until_all_are(Told::Tokens, began, Duration::from_secs(10));
        let told = Instant::now();
        server.signal("-TERM");
        ended = Some((server.wait(), told.elapsed()));
        story.wait_until_all_are(Told::Nothing, told, Duration::from_secs(10));
    });
    let (code, took) = ended.unwrap();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(story.count(Told::Later), 0, "whoever is heard is served");
    let store = installation.store();
    for tokens in &last {
        let token = tokens.refresh_token();
        assert!(!is_redeemed(&store, token), "done, and nobody was told");
    }
    drop(store);
    eprintln!("stopped after {took:.1?}");
    let _server = installation.start();
    for tokens in &last {
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        let next = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(next.status, 200, "{}", next.json);
    }
    assert_sound(&installation.store());
}

fn is_redeemed(store: &Store, token: &str) -> bool {
    let hash = TokenHash::of(token);
    let found = store.read_blocking(move |conn| refresh_tokens::find(conn, &hash, &hash));
    found.unwrap().expect("it was issued").redemption.is_some()
}

#[test]
fn r28_a_server_that_ran_out_of_files_goes_on_when_it_has_some_again() {
    for database in Database::all() {
        run_out_of_files(Installation::new(database));
    }
}

fn run_out_of_files(installation: Installation) {
    let (installation, rp) = prepared(installation);
    let server = installation.start_with_files(128);
    let tokens = connect(&rp);
    let base = base(&server, &rp);
    let url = address(&installation.issuer).to_owned();
    let held: Vec<_> = (0..300)
        .filter_map(|_| TcpStream::connect(&url).ok())
        .collect();
    assert!(held.len() > 128, "{}", held.len());
    let has_none_left = || (server.open_files() >= 127).then_some(());
    eventually("it has no files left", has_none_left);
    pause(Duration::from_secs(1));
    drop(held);
    let answer = within(Duration::from_secs(10), "it answers again", || {
        let answer = rp.try_refresh(tokens.refresh_token()).ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert_unharmed(&installation, &rp, server, &base, &[answer]);
}

#[test]
fn r28_a_server_that_is_out_of_memory_starts_again_as_if_nothing_had_been() {
    run_out_of_memory(Installation::new(Database::Sqlite));
}

#[test]
fn r28_a_server_on_postgresql_that_is_out_of_memory_starts_again_as_if_nothing_had_been() {
    if postgres::cluster().is_some() {
        run_out_of_memory(Installation::new(Database::Postgres));
    }
}

fn run_out_of_memory(installation: Installation) {
    let file = installation.path("latchkey.toml");
    let config = fs::read_to_string(&file).unwrap();
    let config = config.replace("memory_kib = 7168", "memory_kib = 65536");
    fs::write(&file, config).unwrap();
    let (installation, rp) = prepared(installation);
    let mut server = installation.start();
    let chains = (0..APPS).map(|_| connect(&rp)).collect();
    let (last, _) = while_apps_refresh(&rp, chains, Network::Unreliable, |story| {
        let began = Instant::now();
        story.wait_until_all_are(Told::Tokens, began, Duration::from_secs(10));
        server.allow_no_more_memory();
        let (began, mut ended) = (Instant::now(), None);
        // Hashing asks for its memory anew each time.
        let sign_in = || {
            let (issuer, url) = (rp.issuer.clone(), rp.authorize(&[]));
            let signing_in = thread::spawn(move || {
                Browser::new(&issuer).complete(&url);
            });
            let _nobody_may_answer = signing_in.join();
        };
        while ended.is_none() && began.elapsed() < Duration::from_secs(5) {
            sign_in();
            ended = server.ended();
        }
        // One that gets by with what it has is ended as the kernel would end it.
        let ended = ended.unwrap_or_else(|| {
            server.signal("-KILL");
            within(Duration::from_secs(10), "it ends", || server.ended())
        });
        assert_eq!(ended.code(), None, "by a signal");
        eprintln!(
            "without memory it lived for {:.1?}: {ended}",
            began.elapsed()
        );
    });
    let _server = installation.start();
    for tokens in &last {
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        let next = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(next.status, 200, "{}", next.json);
    }
    assert_sound(&installation.store());
}
