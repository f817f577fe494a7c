//! Row R31: whatever panics takes nobody else along. A line of the log is where these tests make it happen, so the product has
//! no way in for them.

use std::env;
use std::process::Command;
use std::thread;

use diesel::connection::SimpleConnection as _;
use latchkey::keys;
use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::protocol::time::Timestamp;
use serde_json::json;

use crate::refresh_token::{OFFLINE, connect, notes, refreshed};
use crate::support::invariants::assert_sound;
use crate::support::log::{self, PANICS};
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, Op, SECRET, waiting_for};
use crate::support::race::race;
use crate::support::resources::Base;
use crate::support::wait::eventually;

/// People and apps notice nothing of what happened to somebody else.
fn assert_lives(op: &Op) {
    let rp = notes(op, json!({}));
    let tokens = connect(&mut op.browser(), &rp, OFFLINE);
    let tokens = refreshed(&rp, tokens.refresh_token());
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_sound(&op.store);
}

/// The ids of what was answered.
fn handlers_panic(op: &Op) -> Vec<String> {
    let rp = op.rp();
    race(32, |_| {
        let request = rp.http().get(op.url("/login"));
        let request = request.header("host", format!("{PANICS}.example"));
        let answer = request.send().unwrap();
        assert_eq!(answer.status(), 500);
        let id = answer.headers()["x-request-id"].to_str().unwrap();
        let id = id.to_owned();
        let page = answer.text().unwrap();
        assert!(
            page.contains(&id) && !page.contains("as a test wants it"),
            "{page}"
        );
        id
    })
}

fn writes_panic(op: &Op) {
    op.client(json!({
        "client_id": PANICS, "client_secret": SECRET, "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"]
    }));
    let rp = op.rp().named(PANICS);
    let first = connect(&mut op.browser(), &rp, OFFLINE);
    let second = refreshed(&rp, first.refresh_token());
    let third = refreshed(&rp, second.refresh_token());
    let answers = race(32, |_| rp.refresh(first.refresh_token(), &[]));
    for answer in &answers {
        assert_eq!(answer.error(), (500, "server_error"));
        assert!(answer.headers.contains_key("x-request-id"));
    }
    // What the replay would have ended, it did not end by half.
    assert_eq!(rp.userinfo(third.access_token()).status, 200);
    refreshed(&rp, third.refresh_token());
}

fn hashing_panics(op: &Op) {
    for _ in 0..64 {
        let answer = op.hashing.submit(|| -> () { panic!("as a test wants it") });
        assert!(waiting_for(answer.unwrap()).is_err());
    }
}

/// Other tests of this process come and go with threads and files, so this one has a process to itself.
#[test]
fn r31_after_many_panics_no_thread_file_or_memory_is_held_for_them() {
    const ALONE: &str = "LATCHKEY_TEST_ALONE";
    if env::var_os(ALONE).is_none() {
        let test = thread::current().name().unwrap().to_owned();
        let done = Command::new(env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(ALONE, "1")
            // Neither what the standard library keeps to name the places of a backtrace, nor what an allocator keeps for each
            // thread that it has seen, is the server's.
            .env("RUST_BACKTRACE", "0")
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        return;
    }
    log::begin();
    for database in Database::all() {
        let op = Op::start(database, &[]);
        let panic = || {
            handlers_panic(&op);
            writes_panic(&op);
            hashing_panics(&op);
            assert_lives(&op);
            log::forget();
        };
        // What is opened at first use is no loss, nor is what an allocator keeps of the first times.
        for _ in 0..2 {
            panic();
        }
        let base = Base::of_this_process();
        for _ in 0..2 {
            panic();
        }
        base.assert_back();
    }
}

on_both_databases! {
    fn r31_a_handler_that_panics_answers_500_with_an_id_and_the_server_lives_on(op) {
        log::begin();
        let ids = handlers_panic(&op);
        let log = log::text();
        for id in ids {
            let told = log.lines().filter(|line| line.contains(&id));
            assert_eq!(told.filter(|line| line.contains("a handler panicked")).count(), 1, "{id}");
        }
        assert_lives(&op);
    }

    fn r31_a_write_that_panics_is_undone_and_no_other_waits_for_it(op) {
        log::begin();
        writes_panic(&op);
        assert_lives(&op);
    }

    fn r31_hashing_that_panics_leaves_every_thread_for_the_next_password(op) {
        hashing_panics(&op);
        assert_lives(&op);
    }

    fn r31_a_job_that_panics_begins_again(op) {
        log::begin();
        let begun = || log::text().matches("looking after the signing keys failed").count();
        let before = begun();
        op.store
            .write_blocking(|tx| {
                Ok(tx.batch_execute(&format!(
                    "INSERT INTO signing_keys (kid, algorithm, public_jwk, private_key, created_at) \
                     SELECT '{PANICS}', algorithm, 'garbled', private_key, created_at FROM signing_keys LIMIT 1"
                ))?)
            })
            .unwrap();
        eventually("the job has panicked more than once", || (begun() >= before + 2).then_some(()));
        assert_lives(&op);
        op.store
            .write_blocking(|tx| Ok(tx.batch_execute(&format!("DELETE FROM signing_keys WHERE kid = '{PANICS}'"))?))
            .unwrap();
        let root = "5a".repeat(32).parse().unwrap();
        let trail = latchkey::audit::Trail::of_server(op.clock.now());
        let always = Timestamp::from_seconds(i64::MAX);
        let fresh = keys::publish_next(&op.store, &root, &[SigningAlgorithm::Es256], always, &trail).unwrap();
        eventually("the job sees a new key", || {
            let published = op.rp().get("/jwks").json.to_string();
            fresh.iter().all(|kid| published.contains(kid)).then_some(())
        });
    }
}
