//! Several processes on one PostgreSQL behave as one: what may happen once happens once, and what one of them ends has ended
//! on the others within a second. RFC 9700 §4.14.2; RFC 6749 §4.1.2; OpenID Connect Core §10.1.1.
//!
//! `cargo test` runs a few rounds. The long races take about a minute:
//! `cargo test --test flows -- --ignored --nocapture nodes::`

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use latchkey::audit::Trail;
use latchkey::keys;
use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process, SECRET_KEY};
use crate::support::invariants::{assert_sound, rows};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET, free_port, now};
use crate::support::postgres;
use crate::support::race::at_once;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::within;

const SECOND: Duration = Duration::from_secs(1);
const OFFLINE: &str = "openid offline_access";

/// A second, which has begun.
struct Soon(Instant);

impl Soon {
    fn now() -> Self {
        Self(Instant::now())
    }

    fn is(&self, what: &str, ask: impl Fn() -> bool) {
        let left = SECOND.saturating_sub(self.0.elapsed());
        within(left, what, || ask().then_some(()));
    }
}

/// Two servers, and the app `notes` that reaches each of them.
pub struct Pair {
    installation: Installation,
    here: Rp,
    there: Rp,
    browser: Browser,
    _servers: [Process; 2],
}

impl Pair {
    /// `None` where PostgreSQL is not installed.
    fn start() -> Option<Self> {
        postgres::cluster()?;
        Some(Self::on(Installation::new(Database::Postgres)))
    }

    pub fn on(installation: Installation) -> Self {
        installation.apply(&json!({
            "users": [{ "email": EMAIL, "password": PASSWORD }],
            "clients": [notes(json!({}))]
        }));
        let servers = [installation.start(), installation.start_another()];
        let here = Rp::new(&installation.issuer).named("notes");
        let there = here.clone().by_way_of(&servers[1].url);
        Self {
            browser: Browser::new(&installation.issuer),
            here,
            there,
            installation,
            _servers: servers,
        }
    }

    fn both(&self) -> [&Rp; 2] {
        [&self.here, &self.there]
    }

    fn code(&mut self, scope: &str) -> String {
        let request = self.here.authorize(&[("scope", scope)]);
        self.browser.complete(&request).code()
    }

    fn connect(&mut self, scope: &str) -> Answer {
        let code = self.code(scope);
        let answer = self.here.exchange(&code, &[]);
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer
    }

    /// Within a second both tokens are refused everywhere, and they stay so.
    fn assert_ends(&self, ended: &Answer) {
        let soon = Soon::now();
        for rp in self.both() {
            soon.is("the access token is refused", || {
                rp.userinfo(ended.access_token()).status == 401
            });
            soon.is("the refresh token is refused", || {
                rp.refresh(ended.refresh_token(), &[]).status == 400
            });
        }
        for rp in self.both() {
            assert_eq!(rp.userinfo(ended.access_token()).status, 401);
            assert_eq!(rp.refresh(ended.refresh_token(), &[]).status, 400);
        }
    }
}

/// The app's metadata, with more on top.
fn notes(more: Value) -> Value {
    let mut client = json!({
        "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
        "session_refresh_tokens": true, "grant_types": ["authorization_code", "refresh_token"]
    });
    let more = more.as_object().unwrap().clone();
    client.as_object_mut().unwrap().extend(more);
    client
}

fn refreshed(rp: &Rp, token: &str) -> Answer {
    let answer = rp.refresh(token, &[]);
    assert_eq!(answer.status, 200, "{}", answer.json);
    answer
}

fn published(rp: &Rp) -> BTreeSet<String> {
    let keys = rp.get("/jwks").json;
    let keys = keys["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

/// Four to each server with one token: all of them get the same successor.
pub fn race_refreshes(mut pair: Pair, rounds: usize) {
    let began = Instant::now();
    let mut current = pair.connect(OFFLINE);
    for round in 0..rounds {
        let (racers, token) = (pair.both(), current.refresh_token());
        let answers = at_once((0..8).map(|racer| move || racers[racer % 2].refresh(token, &[])));
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200; 8], "round {round}");
        let successors: BTreeSet<_> = answers.iter().map(Answer::refresh_token).collect();
        assert_eq!(successors.len(), 1, "round {round}");
        current = answers.into_iter().next().unwrap();
    }
    refreshed(&pair.there, current.refresh_token());
    assert_sound(&pair.installation.store());
    eprintln!(
        "{rounds} races for a refresh token on two servers in {:.0?}",
        began.elapsed()
    );
}

/// One code to both servers: one of them at most brings tokens, and after the other's refusal those are no good.
pub fn race_codes(mut pair: Pair, rounds: usize) {
    let began = Instant::now();
    for round in 0..rounds {
        let code = pair.code(OFFLINE);
        let (racers, code) = (pair.both(), &code);
        let answers = at_once((0..4).map(|racer| move || racers[racer % 2].exchange(code, &[])));
        let good: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .collect();
        assert_eq!(good.len(), 1, "round {round}");
        pair.assert_ends(good[0]);
    }
    let store = pair.installation.store();
    assert_sound(&store);
    assert_eq!(rows(&store, "refresh_tokens"), rows(&store, "grants"));
    eprintln!(
        "{rounds} races for a code on two servers in {:.0?}",
        began.elapsed()
    );
}

/// Four servers start at once on nothing: one of them migrates, and all publish the same keys.
fn start_together(rounds: usize) {
    if postgres::cluster().is_none() {
        return;
    }
    let began = Instant::now();
    for round in 0..rounds {
        let installation = Installation::new(Database::Postgres);
        let ports = [(); 4].map(|()| free_port());
        let mut servers = ports.map(|port| installation.launch(port));
        servers.iter_mut().for_each(Process::wait_until_ready);
        let migrating = servers
            .iter()
            .filter(|server| server.log().contains("\"migrated\""));
        assert_eq!(migrating.count(), 1, "round {round}");
        let store = installation.store();
        let (current, all) = store
            .read_blocking(latchkey::store::signing_keys::list)
            .map(|keys| {
                (
                    keys.iter().filter(|key| key.is_published()).count(),
                    keys.len(),
                )
            })
            .unwrap();
        assert_eq!(
            (current, all),
            (2, 2),
            "round {round}: one for each algorithm"
        );
        let first = published(&Rp::new(&servers[0].url));
        for server in &servers {
            assert_eq!(published(&Rp::new(&server.url)), first, "round {round}");
        }
    }
    eprintln!(
        "{rounds} times four servers started together in {:.0?}",
        began.elapsed()
    );
}

#[test]
fn r16_a_refresh_token_brings_one_branch_on_two_servers() {
    if let Some(pair) = Pair::start() {
        race_refreshes(pair, 50);
    }
}

#[test]
fn r16_a_code_brings_tokens_once_on_two_servers() {
    if let Some(pair) = Pair::start() {
        race_codes(pair, 30);
    }
}

#[test]
fn r18_four_servers_that_start_together_become_one() {
    start_together(3);
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r16_two_hundred_races_for_a_refresh_token_on_two_servers() {
    if let Some(pair) = Pair::start() {
        race_refreshes(pair, 200);
    }
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r16_two_hundred_races_for_a_code_on_two_servers() {
    if let Some(pair) = Pair::start() {
        race_codes(pair, 200);
    }
}

#[test]
#[ignore = "takes its time; see the head of this file"]
fn r18_twenty_times_four_servers_that_start_together_become_one() {
    start_together(20);
}

#[test]
fn r17_a_replay_on_one_server_ends_the_family_on_the_other() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    for (one, other) in [(0, 1), (1, 0)] {
        let first = pair.connect(OFFLINE);
        let (one, other) = (pair.both()[one], pair.both()[other]);
        let second = refreshed(one, first.refresh_token());
        let third = refreshed(other, second.refresh_token());
        assert_eq!(one.refresh(first.refresh_token(), &[]).status, 400);
        // Nothing is remembered anywhere: it is refused at once.
        assert_eq!(other.userinfo(third.access_token()).status, 401);
        assert_eq!(other.refresh(third.refresh_token(), &[]).status, 400);
        pair.assert_ends(&third);
    }
}

#[test]
fn r17_a_lost_answer_of_one_server_is_repeated_by_the_other() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let first = pair.connect(OFFLINE);
    let lost = refreshed(&pair.here, first.refresh_token());
    let again = refreshed(&pair.there, first.refresh_token());
    assert_eq!(again.refresh_token(), lost.refresh_token());
    refreshed(&pair.here, again.refresh_token());
}

#[test]
fn r17_a_sign_out_on_one_server_counts_on_the_other() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let bound = pair.connect("openid");
    refreshed(&pair.there, bound.refresh_token());
    let page = pair.browser.get("/");
    let session = page.attribute("input[name=session]", "value").unwrap();
    pair.browser.submit(&page, &[("session", &session)]);
    pair.assert_ends(&bound);
}

#[test]
fn r17_a_person_who_is_switched_off_by_a_command_is_off_on_every_server() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let family = pair.connect(OFFLINE);
    refreshed(&pair.there, family.refresh_token());
    for disabled in [true, false] {
        let seed = json!({ "users": [{ "email": EMAIL, "disabled": disabled }] });
        pair.installation.apply(&seed);
        pair.assert_ends(&family);
    }
}

#[test]
fn r17_what_a_command_changes_of_an_app_counts_on_every_server() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let first = pair.connect(OFFLINE);
    let apply = |more| {
        let seed = json!({ "clients": [notes(more)] });
        pair.installation.apply(&seed);
        Soon::now()
    };
    // Both have seen it as it was.
    let second = refreshed(&pair.here, first.refresh_token());
    let third = refreshed(&pair.there, second.refresh_token());
    let answers = |rp: &Rp, status, error: &str| {
        let answer = rp.refresh(third.refresh_token(), &[]);
        answer.status == status && answer.json["error"] == error
    };
    let soon =
        apply(json!({ "grant_types": ["authorization_code"], "session_refresh_tokens": false }));
    for rp in pair.both() {
        soon.is("the app may not refresh any more", || {
            answers(rp, 400, "unauthorized_client")
        });
    }
    let soon =
        apply(json!({ "client_secret": "another-secret-of-more-than-thirty-two-characters" }));
    for rp in pair.both() {
        soon.is("the old secret is good no more", || {
            answers(rp, 401, "invalid_client")
        });
    }
    let soon = apply(json!({ "client_secret": SECRET }));
    for rp in pair.both() {
        soon.is("the first secret is good again", || {
            rp.refresh(third.refresh_token(), &[]).status == 200
        });
    }
}

#[test]
fn r17_an_app_that_is_gone_is_gone_on_every_server() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let family = pair.connect(OFFLINE);
    for rp in pair.both() {
        assert_eq!(rp.userinfo(family.access_token()).status, 200);
    }
    pair.installation.run(&["clients", "delete", "notes"]);
    let soon = Soon::now();
    for rp in pair.both() {
        soon.is("the app is unknown", || {
            rp.refresh(family.refresh_token(), &[]).json["error"] == "invalid_client"
        });
        soon.is("its access token is refused", || {
            rp.userinfo(family.access_token()).status == 401
        });
    }
    pair.installation
        .apply(&json!({ "clients": [notes(json!({}))] }));
    let soon = Soon::now();
    for rp in pair.both() {
        soon.is("the app is known again", || {
            rp.refresh("unknown", &[]).json["error"] == "invalid_grant"
        });
    }
}

#[test]
fn r17_keys_that_are_rotated_anywhere_are_published_everywhere_within_a_second() {
    let Some(pair) = Pair::start() else {
        return;
    };
    let store = pair.installation.store();
    let root = SECRET_KEY.parse().unwrap();
    let always = Timestamp::from_seconds(i64::MAX);
    let algorithms = [SigningAlgorithm::Es256];
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let fresh =
            keys::publish_next(&store, &root, &algorithms, always, &Trail::of_server(now()))
                .unwrap();
        let soon = Soon::now();
        for rp in pair.both() {
            soon.is("the new key is published", || {
                let keys = published(rp);
                fresh.iter().all(|kid| keys.contains(kid))
            });
        }
        slowest = slowest.max(soon.0.elapsed());
        keys::promote(&store, &algorithms, always, &Trail::of_server(now())).unwrap();
    }
    eprintln!("keys were seen after at most {slowest:.1?}");
    assert!(slowest < SECOND, "{slowest:?}");
}
