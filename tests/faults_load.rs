//! More than a machine can do, and more rows than anybody wants: rows R14, R25, R26, N1 and N4.
//!
//! The long one is left out of `cargo test`. A million expired rows under load, ten minutes:
//! `cargo test --release --test flows -- --ignored --nocapture r25_`

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use latchkey::hashing;
use latchkey::jobs::rotate_keys;
use latchkey::store::signing_keys::{self, KeyState};
use latchkey::store::{AnyConnection, StoreError};
use serde_json::{Value, json};

use crate::browser_session::{is_signed_in, signed_in};
use crate::keys::rotate;
use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::{assert_sound, rows};
use crate::support::log;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::race::race;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::{eventually, pause};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const DAILY: [(&str, &str); 2] = [("keys.rotate_every", "1d"), ("keys.publish_before", "1h")];

fn apps() -> Value {
    json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
            "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
        }]
    })
}

fn connect(installation: &Installation, rp: &Rp) -> Answer {
    let code = Browser::new(&installation.issuer)
        .complete(&rp.authorize(&[]))
        .code();
    let tokens = rp.exchange(&code, &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

on_both_databases! {
    fn r14_a_clock_that_jumps_locks_nobody_out_and_lets_nobody_in_for_ever(op with [("throttle.window", "15m")]) {
        let start = op.clock.now();
        let rp = op.rp();
        let sign_in = || rp.exchange(&op.browser().complete(&rp.authorize(&[("scope", "openid offline_access")])).code(), &[]);
        op.client(json!({
            "client_id": "rp", "client_secret": SECRET, "skip_consent": true, "grant_types": ["authorization_code", "refresh_token"]
        }));
        let mut tokens = sign_in();
        for (what, there) in [
            ("an hour on", start.plus(HOUR)),
            ("an hour back", start.minus(HOUR)),
            ("a day back", start.minus(DAY)),
            ("right again", start),
            ("after 2038", start.plus(DAY * 366 * 15)),
        ] {
            op.clock.set(there);
            let fresh = sign_in();
            assert_eq!(fresh.status, 200, "{what}: {}", fresh.json);
            assert_eq!(rp.userinfo(fresh.access_token()).status, 200, "{what}");
            let next = rp.refresh(fresh.refresh_token(), &[]);
            assert_eq!(next.status, 200, "{what}: {}", next.json);
            assert_eq!(next.id_token()["iat"], there.seconds(), "{what}");
            // What was issued in a future that turned out wrong is good until its own end, and no longer.
            op.clock.set(there.plus(Duration::from_secs(601)));
            assert_eq!(rp.userinfo(next.access_token()).status, 401, "{what}");
            if what == "after 2038" {
                break;
            }
            let later = rp.refresh(tokens.refresh_token(), &[]);
            assert_eq!(later.status, 200, "{what}: {}", later.json);
            tokens = later;
        }
    }

    fn r14_a_clock_that_jumps_is_in_the_log(op) {
        log::begin();
        // So far that no other server of these tests can have meant it.
        let port: u64 = op.issuer.rsplit(':').next().unwrap().parse().unwrap();
        let (start, thousands) = (op.clock.now(), 1_000_000 + port);
        for (moved, seconds) in [
            (start.plus(Duration::from_secs(thousands * 1_000 + 500)), format!("seconds={thousands}")),
            (start, format!("seconds=-{thousands}")),
        ] {
            op.clock.set(moved);
            eventually("an operator is told", || {
                log::text().lines().any(|line| line.contains("the clock was moved") && line.contains(&seconds)).then_some(())
            });
        }
    }

    fn r14_a_clock_that_was_years_ahead_leaves_no_sign_in_of_its_own_behind(op) {
        let start = op.clock.now();
        let rp = op.rp();
        let before = signed_in(&op);
        op.clock.set(start.plus(DAY * 400));
        let ahead = signed_in(&op);
        assert!(is_signed_in(&op, &ahead));
        op.clock.set(start.plus(HOUR));
        assert!(is_signed_in(&op, &before), "who signed in before stays so");
        assert!(!is_signed_in(&op, &ahead), "nobody signed in next year");
        let mut again = ahead;
        again.complete(&rp.authorize(&[])).code();
        assert!(is_signed_in(&op, &again));
        op.clock.set(start.plus(HOUR * 12 + HOUR));
        assert!(!is_signed_in(&op, &again), "the new one lasts as long as any");
        // Back by a day, or as much as the clocks of two machines may differ: everybody stays.
        let today = signed_in(&op);
        op.clock.set(start.plus(HOUR * 13).minus(DAY));
        assert!(is_signed_in(&op, &today));
    }

    fn r14_a_clock_that_was_years_ahead_stops_no_rotation(op with DAILY) {
        let start = op.clock.now();
        let kids = || {
            let keys = op.store.read_blocking(signing_keys::list).unwrap();
            let current = keys.into_iter().filter(|key| key.state == KeyState::Current);
            current.map(|key| key.kid).collect::<BTreeSet<_>>()
        };
        let mut last = kids();
        for (what, steps) in [("only a next key was published", 1), ("it has begun to sign", 2)] {
            op.clock.set(start.plus(DAY * 400));
            for _ in 0..steps {
                op.clock.advance(DAY);
                rotate(&op);
            }
            op.clock.set(start);
            let ahead = kids();
            rotate(&op);
            assert_eq!(kids(), ahead, "{what}: a key that signs too early is one that no app has seen");
            for hour in [23, 25, 26] {
                op.clock.set(start.plus(HOUR * hour));
                rotate(&op);
            }
            let now = kids();
            assert!(now.is_disjoint(&ahead) && now.is_disjoint(&last), "{what}");
            assert_eq!(rotate(&op), rotate_keys::Outcome::default(), "{what}: and then it is as regular as ever");
            last = now;
        }
    }
}

/// Tells whoever looks on that it is over, however it ended.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn n1_r26_more_sign_ins_than_the_machine_can_hash_are_told_so_at_once_and_the_rest_goes_on() {
    let installation = Installation::new(Database::Sqlite);
    installation.apply(&apps());
    // What a hash costs by default; all of the guesses are for different people, so no counter holds them up.
    let config = fs::read_to_string(installation.path("latchkey.toml")).unwrap();
    let config = config.replace(
        "{ memory_kib = 7168, iterations = 1 }",
        "{ memory_kib = 65536, iterations = 2 }",
    );
    fs::write(
        installation.path("latchkey.toml"),
        format!("throttle.address_failures = 100000\n{config}"),
    )
    .unwrap();
    let server = installation.start();
    let before = server.resident_kib();
    let threads = hashing::threads_by_default().get();
    let done = AtomicBool::new(false);
    let (pages, quick) = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let http = reqwest::blocking::Client::new();
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::SeqCst) {
                for path in ["/jwks", "/livez"] {
                    let began = Instant::now();
                    let answer = http.get(format!("{}{path}", installation.issuer)).send();
                    assert_eq!(answer.unwrap().status(), 200, "{path}");
                    slowest = slowest.max(began.elapsed());
                }
                pause(Duration::from_millis(20));
            }
            slowest
        });
        let over = Over(&done);
        let pages = race(55 * threads, |racer| {
            let mut browser = Browser::new(&installation.issuer);
            let page = browser.get(&format!("{}/login", installation.issuer));
            browser.sign_in_as(
                &page,
                &format!("stranger-{racer}@example.test"),
                "not the password at all",
            )
        });
        drop(over);
        (pages, looking.join().unwrap())
    });
    let told: Vec<_> = pages.iter().filter(|page| page.status == 503).collect();
    assert!(!told.is_empty(), "the queue has an end");
    for page in &told {
        assert!(!page.header("retry-after").is_empty());
        assert!(
            page.text("#problem").contains("Many people are signing in"),
            "{}",
            page.body
        );
    }
    assert!(told.len() < pages.len());
    assert!(
        pages.iter().all(|page| page.has("#login-submit")),
        "everybody may try again"
    );
    assert!(
        quick < Duration::from_secs(3),
        "who signs in is in nobody else's way: {quick:?}"
    );
    let after = server.resident_kib();
    assert!(
        after < before + threads as u64 * 200 * 1024,
        "memory: {before} kB, then {after} kB"
    );
    connect(&installation, &Rp::new(&installation.issuer).named("notes"));
}

#[test]
fn n4_what_is_too_large_or_too_deep_is_refused_before_it_is_read() {
    let op = crate::support::op::Op::start(Database::Sqlite, &[]);
    let (rp, deep) = (
        op.rp(),
        format!("{}{}", "[".repeat(9_000), "]".repeat(9_000)),
    );
    let claims = format!("{{\"userinfo\":{}}}", "{\"a\":".repeat(3_000));
    for claims in [deep.as_str(), &claims] {
        let form = [
            ("client_id", "rp"),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid"),
            ("claims", claims),
        ];
        let answer = op.browser().post_once("/authorize", &form);
        assert!((300..500).contains(&answer.status), "{}", answer.status);
        assert!(answer.status != 303 || answer.callback()["error"] == "invalid_request");
    }
    let token = format!("e30.{}.e30", "A".repeat(60_000));
    for form in [
        [("token", token.as_str()), ("x", "")],
        [("token", &deep), ("x", "")],
    ] {
        let began = Instant::now();
        let answer = rp.post("/introspect", &form);
        assert!(
            answer.status == 413 || answer.json["active"] == false,
            "{}",
            answer.json
        );
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let assertion = rp.clone().public().post(
        "/token",
        &[
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &token),
        ],
    );
    assert!(
        [400, 401, 413].contains(&assertion.status),
        "{}",
        assertion.json
    );
}

/// The slowest of the quickest 99 % of refreshes while something goes on, in milliseconds.
fn p99_while(rp: &Rp, tokens: &mut Answer, going_on: impl Fn() -> bool) -> f64 {
    let mut took = Vec::new();
    while going_on() || took.len() < 1_000 {
        let began = Instant::now();
        *tokens = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);
        took.push(began.elapsed());
        // Fifty a second.
        pause(Duration::from_millis(20).saturating_sub(began.elapsed()));
    }
    took.sort();
    took[took.len() * 99 / 100].as_secs_f64() * 1_000.0
}

/// What grows with every sign-in and every refresh.
const EXPIRING: [&str; 5] = [
    "sessions",
    "grants",
    "authorization_codes",
    "access_tokens",
    "refresh_tokens",
];
/// Each part has so many sign-ins, each with a session, a grant, a code, two access tokens and three refresh tokens.
const PARTS: usize = 26;
const SIGN_INS: usize = 5_000;
/// Twice of next to nothing is next to nothing: nobody notices less, and a busy machine alone may add as much. Without
/// optimization a batch alone takes several times as long.
const NOTICED_FROM_MS: f64 = if cfg!(debug_assertions) { 500.0 } else { 20.0 };

/// Sign-ins of long ago, of which nothing is good any more.
fn fill(conn: &mut AnyConnection, part: usize) -> Result<(), StoreError> {
    let bytes = |what: &str| match conn {
        AnyConnection::Sqlite(_) => format!("CAST('{what}-{part}-' || i AS BLOB)"),
        AnyConnection::Postgres(_) => format!("CONVERT_TO('{what}-{part}-' || i, 'UTF8')"),
    };
    let id = format!("'old-{part}-' || i");
    let user = "(SELECT id FROM users LIMIT 1)";
    let mut inserts = vec![
        format!(
            "sessions (id, token_hash, user_id, auth_time, acr, amr, remembered, created_at, last_seen_at, prune_after)
             SELECT {id}, {}, {user}, 1, 'a', '[]', FALSE, 1, 1, 2",
            bytes("s")
        ),
        format!(
            "grants (id, client_id, user_id, session_id, scope, claims, resources, auth_time, acr, amr, offline, created_at,
             prune_after)
             SELECT {id}, 'notes', {user}, {id}, 'openid', '{{}}', '[]', 1, 'a', '[]', FALSE, 1, 2"
        ),
        format!(
            "authorization_codes (code_hash, grant_id, redirect_uri, expires_at, consumed_at)
             SELECT {}, {id}, '{CALLBACK}', 1, 1",
            bytes("c")
        ),
    ];
    for number in 0..2 {
        inserts.push(format!(
            "access_tokens (token_hash, grant_id, scope, expires_at, issued_at) SELECT {}, {id}, 'openid', 1, 1",
            bytes(&format!("a{number}"))
        ));
    }
    for (number, redeemed) in ["1", "1", "NULL"].into_iter().enumerate() {
        inserts.push(format!(
            "refresh_tokens (token_hash, grant_id, issued_at, expires_at, redeemed_at, retried_elsewhere, elsewhere_before)
             SELECT {}, {id}, 1, 2, CAST({redeemed} AS BIGINT), FALSE, 0",
            bytes(&format!("r{number}"))
        ));
    }
    let numbers = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {SIGN_INS})"
    );
    for insert in inserts {
        conn.batch_execute(&format!("{numbers} INSERT INTO {insert} FROM n"))?;
    }
    Ok(())
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r25_a_million_expired_rows_go_beside_people_who_notice_nothing() {
    for database in Database::all() {
        let installation = Installation::new(database);
        installation.apply(&apps());
        let server = installation.start();
        let rp = Rp::new(&installation.issuer).named("notes");
        let mut tokens = connect(&installation, &rp);
        let began = Instant::now();
        let store = installation.store();
        let living: Vec<_> = EXPIRING.iter().map(|table| rows(&store, table)).collect();
        for part in 0..PARTS {
            store.write_blocking(move |conn| fill(conn, part)).unwrap();
        }
        let filled: i64 = EXPIRING.iter().map(|table| rows(&store, table)).sum();
        assert!(filled >= 1_000_000, "{filled}");
        eprintln!("{database:?}: {filled} rows in {:.0?}", began.elapsed());
        let quiet = p99_while(&rp, &mut tokens, || false);
        let mut cleaning = installation.spawn(&["gc"]);
        let began = Instant::now();
        let running = std::cell::RefCell::new(&mut cleaning);
        let busy = p99_while(&rp, &mut tokens, || {
            running.borrow_mut().try_wait().unwrap().is_none()
        });
        let left: Vec<_> = EXPIRING.iter().map(|table| rows(&store, table)).collect();
        eprintln!(
            "{database:?}: gone in {:.0?}, {left:?} left; refresh p99 {quiet:.1} ms before, {busy:.1} ms meanwhile, memory {} kB",
            began.elapsed(),
            server.resident_kib()
        );
        for (table, (left, living)) in EXPIRING.iter().zip(left.iter().zip(&living)) {
            // What the refreshes of the meantime brought is live.
            assert!(
                (*living..living + 20_000).contains(left),
                "{table}: {left} of {living}"
            );
        }
        assert!(
            busy < (2.0 * quiet).max(NOTICED_FROM_MS),
            "{busy:.1} ms instead of {quiet:.1} ms"
        );
        assert_sound(&store);
    }
}
