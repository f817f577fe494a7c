//! A server that is killed at any moment, again and again, while clients refresh and exchange codes: nobody honest is locked
//! out, nothing that was acknowledged is lost, and what was revoked stays so. RFC 9700 §4.14.2; RFC 6749 §4.1.2.
//!
//! `cargo test` runs a few rounds. The long loop takes about five minutes:
//! `cargo test --test flows -- --ignored --nocapture crash_loop`

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use latchkey::protocol::seal::TokenHash;
use latchkey::random;
use latchkey::store::{authorization_codes, grants};
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::{assert_sound, rows};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::pause;

const WORKERS: usize = 8;
/// Somebody is switched off as often as this.
const ROUNDS_PER_PERSON: usize = 5;
/// An honest client that hears nothing for so long has been locked out.
const PATIENCE: Duration = Duration::from_secs(45);

/// What an app holds of one sign-in.
#[derive(Clone)]
struct Family {
    code: String,
    refresh_token: String,
    access_token: String,
}

/// What the clients saw, for the checks at the end and for the reader.
#[derive(Default)]
struct Story {
    refreshes: AtomicUsize,
    exchanges: AtomicUsize,
    retries: AtomicUsize,
    recovered: AtomicUsize,
    /// Families that were put aside alive, after an answer.
    alive: Mutex<Vec<Family>>,
    /// Families whose end was acknowledged.
    dead: Mutex<Vec<Family>>,
    /// Codes whose answer was lost, and whose second use was refused.
    lost_codes: Mutex<Vec<String>>,
}

/// An app with one chain, on its own connections.
struct Worker<'a> {
    rp: Rp,
    cookies: String,
    family: Family,
    story: &'a Story,
}

#[test]
fn r1_r2_a_few_crashes_on_sqlite_harm_nobody() {
    crash(Database::Sqlite, 5);
}

#[test]
fn r1_r2_a_few_crashes_on_postgres_harm_nobody() {
    if postgres::cluster().is_some() {
        crash(Database::Postgres, 5);
    }
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn r1_r2_crash_loop_on_sqlite() {
    crash(Database::Sqlite, 200);
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn r1_r2_crash_loop_on_postgres() {
    if postgres::cluster().is_some() {
        crash(Database::Postgres, 50);
    }
}

fn crash(database: Database, rounds: usize) {
    let began = Instant::now();
    let installation = Installation::new(database);
    let people = rounds / ROUNDS_PER_PERSON;
    populate(&installation, people);
    let server = installation.start();
    let rp = Rp::new(&installation.issuer).named("notes");
    let mut others: Vec<_> = (0..people)
        .map(|number| (person(number), connect(&rp, &person(number)).1))
        .collect();
    let story = Story::default();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| Worker::new(&installation.issuer, &story))
        .collect();
    server.kill();

    let over = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| worker.work(&over));
        }
        for round in 1..=rounds {
            let server = installation.start();
            story.check_the_dead(&rp, 3);
            if round % ROUNDS_PER_PERSON == 0
                && let Some((email, family)) = others.pop()
            {
                switch_off(&installation, &email);
                story.dead.lock().unwrap().push(family);
            }
            let [random] = random::bytes::<1>();
            pause(Duration::from_millis(50 + u64::from(random) * 750 / 255));
            server.kill();
        }
        let last = installation.start();
        over.store(true, Ordering::SeqCst);
        last
    });

    // The last crash is over: everything has to be as the clients remember it.
    story.check_the_dead(&rp, usize::MAX);
    story.check_the_living(&rp);
    last.kill();
    story.check_the_lost_codes(&installation);
    let store = installation.store();
    assert_sound(&store);
    // Each answer brought an access token, whether somebody heard it or not.
    let answers = rows(&store, "access_tokens");
    let heard = i64::try_from(people + WORKERS + story.heard()).unwrap();
    eprintln!(
        "{database:?}: {rounds} kills in {:.0?}, {story}, {} answers lost after their commit; {} families, {} refresh tokens",
        began.elapsed(),
        answers - heard,
        rows(&store, "grants"),
        rows(&store, "refresh_tokens"),
    );
    assert!(answers >= heard, "what was acknowledged is in the database");
    assert!(story.recovered.load(Ordering::SeqCst) > 0, "nobody was hit");
}

/// Alice works all the time; the others are there to be switched off.
fn populate(installation: &Installation, people: usize) {
    let mut users = vec![json!({ "email": EMAIL, "password": PASSWORD })];
    users.extend((0..people).map(|n| json!({ "email": person(n), "password": PASSWORD })));
    installation.apply(&json!({
        "users": users,
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
            "grant_types": ["authorization_code", "refresh_token"]
        }]
    }));
}

fn person(number: usize) -> String {
    format!("person{number}@example.test")
}

/// Off and on again: what was ended stays so.
fn switch_off(installation: &Installation, email: &str) {
    for disabled in [true, false] {
        installation.apply(&json!({ "users": [{ "email": email, "disabled": disabled }] }));
    }
}

/// Signs in with a browser of their own, whose cookies go on working.
fn connect(rp: &Rp, email: &str) -> (Browser, Family) {
    let mut browser = Browser::new(&rp.issuer);
    let page = browser.get(&request(rp));
    let code = browser.sign_in_as(&page, email, PASSWORD).code();
    let family = Family::new(&code, &rp.exchange(&code, &[]));
    (browser, family)
}

fn request(rp: &Rp) -> String {
    rp.authorize(&[("scope", "openid offline_access")])
}

impl Family {
    fn new(code: &str, answer: &Answer) -> Self {
        Self {
            code: code.to_owned(),
            refresh_token: answer.refresh_token().to_owned(),
            access_token: answer.access_token().to_owned(),
        }
    }
}

impl<'a> Worker<'a> {
    fn new(issuer: &str, story: &'a Story) -> Self {
        let rp = Rp::new(issuer).named("notes");
        let (browser, family) = connect(&rp, EMAIL);
        let cookies: Vec<_> = browser
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Self {
            rp,
            cookies: cookies.join("; "),
            family,
            story,
        }
    }

    fn work(mut self, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            let [chance] = random::bytes::<1>();
            match chance {
                0..210 => self.refresh(),
                210..240 => {
                    let before = self.family.clone();
                    if self.begin_another() {
                        self.story.alive.lock().unwrap().push(before);
                    }
                }
                240..248 => self.replay_the_code(),
                248.. => self.replay_a_token(),
            }
        }
        self.story.alive.lock().unwrap().push(self.family);
    }

    /// With the last token that was acknowledged, until there is an answer: which must be tokens.
    fn refresh(&mut self) {
        let token = &self.family.refresh_token;
        let (answer, failures) = self.insist(|| self.rp.try_refresh(token));
        assert_eq!(answer.status, 200, "locked out: {}", answer.json);
        if failures > 0 {
            self.story.recovered.fetch_add(1, Ordering::Relaxed);
            let (before, _) = self.insist(|| self.rp.try_userinfo(&self.family.access_token));
            assert_eq!(before.status, 200, "an acknowledged token is gone");
        }
        self.story.refreshes.fetch_add(1, Ordering::Relaxed);
        self.family = Family::new(&self.family.code, &answer);
    }

    /// A code for tokens; false when the code was lost with the answer.
    fn begin_another(&mut self) -> bool {
        let code = self.authorize();
        let (answer, failures) = self.insist(|| self.rp.try_exchange(&code));
        if answer.status == 200 {
            self.story.exchanges.fetch_add(1, Ordering::Relaxed);
            self.family = Family::new(&code, &answer);
            return true;
        }
        assert_eq!(answer.error(), (400, "invalid_grant"));
        assert!(failures > 0, "a fresh code was refused");
        self.story.lost_codes.lock().unwrap().push(code);
        false
    }

    fn authorize(&self) -> String {
        let ask = || {
            let request = self.rp.http().get(request(&self.rp));
            let response = request.header("cookie", &self.cookies).send()?;
            Ok(Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                json: serde_json::Value::Null,
            })
        };
        let (answer, _) = self.insist(ask);
        let location = answer.headers.get("location");
        let location = location.unwrap_or_else(|| panic!("no redirect: {}", answer.status));
        let url = url::Url::parse(location.to_str().unwrap()).unwrap();
        let code = url.query_pairs().find(|(name, _)| name == "code");
        code.unwrap_or_else(|| panic!("no code in {url}"))
            .1
            .into_owned()
    }

    fn replay_the_code(&mut self) {
        let code = &self.family.code;
        let (answer, _) = self.insist(|| self.rp.try_exchange(code));
        assert_eq!(answer.error(), (400, "invalid_grant"));
        self.bury();
    }

    fn replay_a_token(&mut self) {
        let old = self.family.refresh_token.clone();
        self.refresh();
        self.refresh();
        let (answer, _) = self.insist(|| self.rp.try_refresh(&old));
        assert_eq!(answer.error(), (400, "invalid_grant"));
        self.bury();
    }

    /// Its end was acknowledged; the app signs in again.
    fn bury(&mut self) {
        self.story.dead.lock().unwrap().push(self.family.clone());
        while !self.begin_another() {}
    }

    /// Asks until there is an answer, and how often there was none.
    fn insist(&self, ask: impl Fn() -> reqwest::Result<Answer>) -> (Answer, usize) {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            match ask() {
                Ok(answer) if answer.status < 500 => return (answer, failures),
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.json),
                Err(_) => {}
            }
            assert!(began.elapsed() < PATIENCE, "no answer");
            failures += 1;
            self.story.retries.fetch_add(1, Ordering::Relaxed);
            pause(Duration::from_millis(10));
        }
    }
}

impl Story {
    /// The last ones and, of the rest, some.
    fn check_the_dead(&self, rp: &Rp, most: usize) {
        let dead = self.dead.lock().unwrap().clone();
        for family in dead.iter().rev().take(most) {
            assert_eq!(
                rp.refresh(&family.refresh_token, &[]).error(),
                (400, "invalid_grant")
            );
            assert_eq!(
                rp.userinfo(&family.access_token).error(),
                (401, "invalid_token")
            );
        }
    }

    /// Answers that arrived.
    fn heard(&self) -> usize {
        let alive = self.alive.lock().unwrap().len();
        alive + self.refreshes.load(Ordering::SeqCst) + self.exchanges.load(Ordering::SeqCst)
    }

    /// Refreshes each once more.
    fn check_the_living(&self, rp: &Rp) {
        for family in self.alive.lock().unwrap().iter() {
            assert_eq!(rp.userinfo(&family.access_token).status, 200);
            let answer = rp.refresh(&family.refresh_token, &[]);
            assert_eq!(answer.status, 200, "locked out: {}", answer.json);
        }
    }

    /// Spent, and nothing came of it.
    fn check_the_lost_codes(&self, installation: &Installation) {
        let store = installation.store();
        for code in self.lost_codes.lock().unwrap().iter() {
            let hash = TokenHash::of(code);
            let (spent, grant) = store
                .read_blocking(move |conn| {
                    let code = authorization_codes::find(conn, &hash)?.expect("it was issued");
                    let grant = grants::find(conn, &code.grant_id)?;
                    Ok((code.consumed_at, grant))
                })
                .unwrap();
            assert!(spent.is_some() && grant.is_none());
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        write!(
            f,
            "{} refreshes, {} exchanges, {} retries for {} of the refreshes, {} codes lost with their answer, {} families ended",
            count(&self.refreshes),
            count(&self.exchanges),
            count(&self.retries),
            count(&self.recovered),
            self.lost_codes.lock().unwrap().len(),
            self.dead.lock().unwrap().len(),
        )
    }
}
