//! What crashes and traffic do to the signing keys: rows R4 and R15. OpenID Connect Core §10.1.1.
//!
//! `cargo test` kills a few times. A hundred first starts and fifty rotations on each database take about a minute:
//! `cargo test --test flows -- --ignored --nocapture faults_keys`

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::protocol::time::Timestamp;
use latchkey::random;
use latchkey::store::signing_keys::{self, KeyState};
use serde_json::{Value, json};

use crate::keys::{is_signed, rotate};
use crate::refresh_token::{OFFLINE, connect, notes, refreshed};
use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::assert_sound;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, PASSWORD, SECRET, free_port};
use crate::support::postgres::cluster;
use crate::support::race::at_once;
use crate::support::relying_party::{Rp, part};
use crate::support::wait::{eventually, pause};

/// As close together as a configuration may have it.
const DAILY: [(&str, &str); 2] = [("keys.rotate_every", "1d"), ("keys.publish_before", "1h")];
const MINUTE: Duration = Duration::from_secs(60);
const MAX_AGE: u64 = 600;

/// An app that keeps the key set for as long as it may, and asks for it no sooner.
struct Keeping {
    rp: Rp,
    refresh_token: String,
    keys: Vec<Value>,
    until: Timestamp,
    /// Tokens that have not expired, with the second in which they do.
    tokens: Vec<(String, i64)>,
    /// The keys with which its tokens were signed.
    signed_by: BTreeSet<String>,
}

impl Keeping {
    fn new(op: &Op, rp: &Rp) -> Self {
        let tokens = connect(&mut op.browser(), rp, OFFLINE);
        Self {
            rp: rp.clone(),
            refresh_token: tokens.refresh_token().to_owned(),
            keys: Vec::new(),
            until: Timestamp::from_seconds(0),
            tokens: Vec::new(),
            signed_by: BTreeSet::new(),
        }
    }

    /// Gets new tokens, and checks each that it has with the keys that it has.
    fn work(&mut self, now: Timestamp) {
        if now > self.until {
            let answer = self.rp.get("/jwks");
            let cached = answer.headers["cache-control"].to_str().unwrap();
            let age = cached.split_once("max-age=").unwrap().1.parse().unwrap();
            assert_eq!(age, MAX_AGE, "the test's steps are meant for this");
            self.keys = answer.json["keys"].as_array().unwrap().clone();
            self.until = now.plus(Duration::from_secs(age));
        }
        let answer = refreshed(&self.rp, &self.refresh_token);
        answer.refresh_token().clone_into(&mut self.refresh_token);
        for token in [answer.access_token(), answer.text("id_token")] {
            let expires = part(token, 1)["exp"].as_i64().unwrap();
            self.tokens.push((token.to_owned(), expires));
            let kid = part(token, 0)["kid"].as_str().unwrap().to_owned();
            self.signed_by.insert(kid);
        }
        self.tokens.retain(|(_, expires)| *expires > now.seconds());
        for (token, _) in &self.tokens {
            assert!(is_signed(token, &self.keys), "{}", part(token, 0));
        }
    }
}

/// Rotates, and lets no minute go by before the server has seen it: it looks more often than twice a second.
fn rotate_and_wait(op: &Op, other: &Mutex<Keeping>) {
    if rotate(op).promoted == 0 {
        return;
    }
    let stored = op.store.read_blocking(signing_keys::list).unwrap();
    let mut app = other.lock().unwrap();
    eventually("the server signs with the new keys", || {
        app.work(op.clock.now());
        let is_current = |token: &str| {
            let kid = &part(token, 0)["kid"];
            let mut current = stored.iter().filter(|key| key.state == KeyState::Current);
            current.any(|key| *kid == key.kid)
        };
        let mut newest = app.tokens.iter().rev().take(2);
        newest.all(|(token, _)| is_current(token)).then_some(())
    });
}

on_both_databases! {
    fn r15_an_app_that_keeps_the_key_set_as_long_as_it_may_can_check_every_token(op with DAILY) {
        let rp = notes(&op, json!({}));
        let mut apps: Vec<_> = (0..4).map(|_| Mutex::new(Keeping::new(&op, &rp))).collect();
        let other = Mutex::new(Keeping::new(&op, &rp));
        for _ in 0..2 {
            // Nothing happens before the next key is due, so the day is not waited for.
            op.clock.advance(22 * 60 * MINUTE);
            for minute in 0..150 {
                op.clock.advance(MINUTE);
                let now = op.clock.now();
                // One that begins later asks for the key set at other times.
                let working = apps.len().min(minute / 3 + 1);
                let working = apps.iter().take(working).map(|app| {
                    Box::new(move || app.lock().unwrap().work(now)) as Box<dyn FnOnce() + Send>
                });
                let rotating = Box::new(|| rotate_and_wait(&op, &other)) as Box<dyn FnOnce() + Send>;
                at_once(working.chain([rotating]));
            }
        }
        for app in &mut apps {
            let signed_by = &app.get_mut().unwrap().signed_by;
            assert_eq!(signed_by.len(), 6, "two rotations of two keys went by: {signed_by:?}");
        }
    }
}

#[test]
fn r4_a_first_start_that_is_killed_leaves_one_key_of_each_kind() {
    kill_first_starts(Database::Sqlite, 6);
}

#[test]
fn r4_a_first_start_on_postgresql_that_is_killed_leaves_one_key_of_each_kind() {
    if cluster().is_some() {
        kill_first_starts(Database::Postgres, 4);
    }
}

#[test]
fn r4_a_rotation_that_is_killed_leaves_one_key_of_each_kind() {
    kill_rotations(Database::Sqlite, 8);
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn r4_fifty_first_starts_that_are_killed_leave_one_key_of_each_kind() {
    for database in Database::all() {
        kill_first_starts(database, 50);
    }
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn r4_fifty_rotations_that_are_killed_leave_one_key_of_each_kind() {
    for database in Database::all() {
        kill_rotations(database, 50);
    }
}

/// A part of a duration, by chance.
fn some_of(whole: Duration) -> Duration {
    let chance = u32::from_be_bytes(random::bytes());
    whole.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// On SQLite it makes its root key by itself, as most first starts do.
fn fresh(database: Database) -> Installation {
    let installation = Installation::new(database);
    if database == Database::Sqlite {
        let file = installation.path("latchkey.toml");
        let text = fs::read_to_string(&file).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with("secret_key"));
        fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
    }
    installation
}

fn populate(installation: &Installation) -> Rp {
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{ "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK] }]
    }));
    Rp::new(&installation.issuer).named("notes")
}

/// Both algorithms have one key that signs, and with it tokens that an app can check.
fn assert_one_current_key(installation: &Installation, rp: &Rp) {
    let store = installation.store();
    let stored = store.read_blocking(signing_keys::list).unwrap();
    for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es256] {
        let of_state = |state| {
            let keys = stored.iter().filter(|key| key.state == state);
            keys.filter(|key| key.algorithm == algorithm.as_str())
                .count()
        };
        assert_eq!(of_state(KeyState::Current), 1, "{algorithm:?}");
        assert!(of_state(KeyState::Next) <= 1, "{algorithm:?}");
    }
    let published = rp.get("/jwks");
    assert_eq!(published.status, 200);
    let keys = published.json["keys"].as_array().unwrap();
    assert_eq!(
        keys.len(),
        stored.iter().filter(|key| key.is_published()).count()
    );
    let code = Browser::new(&rp.issuer).complete(&rp.authorize(&[])).code();
    let tokens = rp.exchange(&code, &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    assert!(is_signed(tokens.text("id_token"), keys));
    assert!(is_signed(tokens.access_token(), keys));
    assert_sound(&store);
}

fn kill_first_starts(database: Database, rounds: usize) {
    let began = Instant::now();
    fresh(database).start().kill();
    let whole = began.elapsed();
    let mut begun = 0;
    for _ in 0..rounds {
        let installation = fresh(database);
        for _ in 0..2 {
            let server = installation.launch(free_port());
            pause(some_of(whole));
            server.kill();
        }
        begun += usize::from(
            database == Database::Postgres || installation.path("latchkey.db").exists(),
        );
        let _server = installation.start();
        let rp = populate(&installation);
        assert_one_current_key(&installation, &rp);
    }
    assert!(begun > 0, "every kill came before anything was done");
    eprintln!(
        "{database:?}: {} first starts of {whole:.1?} were killed in {:.0?}",
        2 * rounds,
        began.elapsed()
    );
}

fn kill_rotations(database: Database, rounds: usize) {
    let began = Instant::now();
    let installation = fresh(database);
    let server = installation.start();
    let rp = populate(&installation);
    let rotation = Instant::now();
    installation.run(&["keys", "rotate", "--now"]);
    let whole = rotation.elapsed();
    for round in 0..rounds {
        let arguments: &[&str] = if round % 2 == 0 {
            &["keys", "rotate", "--now"]
        } else {
            &["keys", "rotate"]
        };
        let mut command = installation.spawn(arguments);
        pause(some_of(whole));
        command.kill().unwrap();
        command.wait().unwrap();
    }
    server.kill();
    let _server = installation.start();
    assert_one_current_key(&installation, &rp);
    let store = installation.store();
    let keys = store.read_blocking(signing_keys::list).unwrap().len();
    eprintln!(
        "{database:?}: {rounds} rotations of {whole:.1?} were killed in {:.0?}, {keys} keys",
        began.elapsed()
    );
}
