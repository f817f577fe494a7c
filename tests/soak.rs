//! Row R32: everything at a steady pace for hours, on both databases at once, and nothing grows but what is asked to be kept.
//!
//! Left out of `cargo test`. Ten minutes of it, or as many seconds as `LATCHKEY_SOAK_SECONDS` says (two hours are 7200):
//! `cargo test --release --test flows -- --ignored --nocapture r32_`

use std::env;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process};
use crate::support::invariants::assert_sound;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::relying_party::Rp;
use crate::support::wait::pause;

/// People at once, for each database.
const PEOPLE: usize = 4;
/// Each begins a round so often. A round is some 110 requests, so a database has about fifty a second.
const ROUND: Duration = Duration::from_secs(9);
const REFRESHES: usize = 20;
const REQUESTS: f64 = (REFRESHES * 5 + 15) as f64;
const SAMPLES: u32 = 24;
/// What each request may leave behind. SQLite's page caches fill slowly, up to what they may have; a leak goes on.
const LEFT_BY_REQUEST: f64 = 64.0;
/// In less, memory that comes and goes is more than what requests leave behind.
const TELLING: Duration = Duration::from_secs(3_600);
/// What may be written ahead into the log of SQLite, with a reader that holds it open for a moment.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// What an operator should look at: in hours of usual use there is nothing.
const LOUD: [&str; 2] = [r#""level":"WARN""#, r#""level":"ERROR""#];

fn apps() -> Value {
    json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
            "grant_types": ["authorization_code", "refresh_token"]
        }]
    })
}

/// What a person and an app do in a while, with the mistakes that they make.
fn round(installation: &Installation) {
    let rp = Rp::new(&installation.issuer).named("notes");
    let mut browser = Browser::new(&installation.issuer);
    let offline = rp.authorize(&[("scope", "openid offline_access")]);
    let mut tokens = rp.exchange(&browser.complete(&offline).code(), &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    for _ in 0..REFRESHES {
        tokens = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        assert_eq!(rp.introspect(tokens.access_token()).json["active"], true);
        assert_eq!(rp.get("/jwks").status, 200);
        assert_eq!(rp.refresh("nonsense", &[]).status, 400);
    }
    let silent = browser.get(&rp.authorize(&[("prompt", "none")]));
    assert_eq!(rp.exchange(&silent.code(), &[]).status, 200);
    assert_eq!(browser.get("/nowhere").status, 404);
    assert_eq!(rp.get("/.well-known/openid-configuration").status, 200);
    let page = browser.get("/");
    browser.submit(&page, &[]);
    let silent = browser.get(&rp.authorize(&[("prompt", "none")]));
    assert_eq!(silent.callback()["error"], "login_required");
    assert_eq!(rp.revoke(tokens.refresh_token()).status, 200);
    assert_eq!(
        rp.refresh(tokens.refresh_token(), &[]).error(),
        (400, "invalid_grant")
    );
}

/// One look at a server.
struct Sample {
    after: Duration,
    rounds: usize,
    resident_kib: u64,
    log_of_database: u64,
    log: u64,
}

impl Sample {
    fn of(server: &Process, installation: &Installation, began: Instant, rounds: usize) -> Self {
        // PostgreSQL looks after its own.
        let wal = fs::metadata(installation.path("latchkey.db-wal"));
        Self {
            after: began.elapsed(),
            rounds,
            resident_kib: server.resident_kib(),
            log_of_database: wal.map_or(0, |wal| wal.len()),
            log: server.log_bytes(),
        }
    }
}

/// How many bytes each request left in memory: the slope of a line through the samples, by least squares.
fn left_by_request(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|sample| {
            (
                sample.rounds as f64 * REQUESTS,
                sample.resident_kib as f64 * 1_024.0,
            )
        })
        .collect();
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (requests, bytes) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(at, _)| (at - requests).powi(2)).sum();
    let both: f64 = points
        .iter()
        .map(|(at, of)| (at - requests) * (of - bytes))
        .sum();
    both / spread
}

fn soak(database: Database, length: Duration) {
    let installation = Installation::new(database);
    installation.apply(&apps());
    let server = installation.start();
    let (rounds, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (began, mut samples) = (Instant::now(), Vec::new());
    thread::scope(|scope| {
        for _ in 0..PEOPLE {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let round_began = Instant::now();
                    round(&installation);
                    rounds.fetch_add(1, Ordering::SeqCst);
                    pause(ROUND.saturating_sub(round_began.elapsed()));
                }
            });
        }
        while began.elapsed() < length {
            pause(length / SAMPLES);
            // What an operator does meanwhile.
            installation.run(&["gc"]);
            let sample = Sample::of(&server, &installation, began, rounds.load(Ordering::SeqCst));
            eprintln!(
                "{database:?} {:.0?}: {} rounds, {} kB, log of the database {} kB, log {} kB",
                sample.after,
                sample.rounds,
                sample.resident_kib,
                sample.log_of_database / 1024,
                sample.log / 1024
            );
            samples.push(sample);
        }
        over.store(true, Ordering::SeqCst);
    });
    // Warm after a quarter; from then on nothing that was asked for stays in memory.
    let (early, late) = (
        samples[samples.len() / 4].resident_kib,
        samples[samples.len() - 1].resident_kib,
    );
    let left = left_by_request(&samples[samples.len() / 2..]);
    eprintln!(
        "{database:?}: from {early} kB to {late} kB; in the second half {left:.1} bytes a request"
    );
    assert!(late < early + early / 5, "{early} kB, then {late} kB");
    assert!(
        length < TELLING || left < LEFT_BY_REQUEST,
        "{left:.1} bytes a request"
    );
    assert!(
        samples
            .iter()
            .all(|sample| sample.log_of_database < LOG_BYTES)
    );
    let log = server.log();
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| LOUD.iter().any(|level| line.contains(level)))
        .collect();
    assert!(
        loud.is_empty(),
        "{} lines, first {:?}",
        loud.len(),
        loud.first()
    );
    let lines = log.lines().count() as f64 / (samples[samples.len() - 1].rounds as f64 * REQUESTS);
    assert!(lines < 2.0, "{lines:.1} lines a request");
    assert_sound(&installation.store());
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r32_hours_of_everything_leave_memory_and_log_files_as_they_were() {
    let seconds = env::var("LATCHKEY_SOAK_SECONDS").ok();
    let length = Duration::from_secs(seconds.map_or(600, |text| text.parse().unwrap()));
    thread::scope(|scope| {
        for database in Database::all() {
            scope.spawn(move || soak(database, length));
        }
    });
}
