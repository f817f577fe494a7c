//! Anything that can happen to families of refresh tokens, in any order, compared with a small model of the rule.
//! RFC 9700 §4.14.2.
//!
//! The model is written from the rule and not from the code: every use spends a token and answers with its successor; the
//! same token again brings the same successor for a minute and while that is unused; any other second use ends the family.
//!
//! The sequences are the same at every run. `LATCHKEY_MODEL_SEED=7 LATCHKEY_MODEL_CASES=500` tries others.

use std::time::Duration;

use latchkey::clock::Clock;
use latchkey::identity::password::{self, Password};
use latchkey::protocol::time::Timestamp;
use latchkey::store::users;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::json;

use crate::refresh_token::{OFFLINE, sign_out};
use crate::support::browser::Browser;
use crate::support::op::{Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::postgres;
use crate::support::race::race;
use crate::support::relying_party::{Answer, Rp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WINDOW: i64 = MINUTE;
const IDLE: i64 = 30 * DAY;
const ABSOLUTE: i64 = 180 * DAY;
const ACCESS: i64 = 10 * MINUTE;
/// What clearing away leaves for clocks that were wrong.
const GRACE: i64 = HOUR;
/// Sign-ins outlast every family here; how they end by themselves is tested elsewhere.
const SETTINGS: [(&str, &str); 2] = [("session.idle", "365d"), ("session.absolute", "365d")];
const CASES: u32 = 10;
/// A second use of a token is always a replay (`refresh_retry_window = 0`).
const STRICT: &str = "strict";
const USUAL: &str = "usual";

/// One thing that happens. Families and tokens are counted back from the newest; a number beyond the oldest means that one.
#[derive(Clone, Debug)]
enum Step {
    SignIn {
        strict: bool,
        offline: bool,
    },
    ConnectAgainInTheBrowserOf {
        family: usize,
        offline: bool,
    },
    Refresh {
        family: usize,
        token: usize,
    },
    LoseTheAnswer {
        family: usize,
        asking_again_after: i64,
    },
    RefreshTwiceAtOnce {
        family: usize,
    },
    AskForLess {
        family: usize,
    },
    AskForTooMuch {
        family: usize,
        token: usize,
    },
    UseAsAnotherClient {
        family: usize,
        token: usize,
    },
    RevokeAsAnotherClient {
        family: usize,
    },
    Revoke {
        family: usize,
        token: usize,
    },
    RevokeAccessToken {
        family: usize,
        token: usize,
    },
    SignOut {
        family: usize,
    },
    SwitchThePersonOffAndOn,
    ChangeThePassword,
    Wait {
        seconds: i64,
    },
    SetTheClockBack {
        seconds: i64,
    },
    ClearAway,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let family = || 0..3usize;
    let token = || prop_oneof![4 => Just(0usize), 3 => Just(1), 2 => 2..5usize];
    let wait = proptest::sample::select(vec![
        1,
        30,
        60,
        61,
        599,
        600,
        HOUR,
        DAY,
        29 * DAY,
        IDLE - 1,
        IDLE,
        100 * DAY,
    ]);
    prop_oneof![
        4 => (prop::bool::weighted(0.2), prop::bool::weighted(0.7))
            .prop_map(|(strict, offline)| Step::SignIn { strict, offline }),
        1 => (family(), any::<bool>())
            .prop_map(|(family, offline)| Step::ConnectAgainInTheBrowserOf { family, offline }),
        14 => (family(), token()).prop_map(|(family, token)| Step::Refresh { family, token }),
        5 => (family(), proptest::sample::select(vec![0, 1, WINDOW - 1, WINDOW, WINDOW + 1, HOUR]))
            .prop_map(|(family, asking_again_after)| Step::LoseTheAnswer { family, asking_again_after }),
        3 => family().prop_map(|family| Step::RefreshTwiceAtOnce { family }),
        1 => family().prop_map(|family| Step::AskForLess { family }),
        2 => (family(), token()).prop_map(|(family, token)| Step::AskForTooMuch { family, token }),
        1 => (family(), token()).prop_map(|(family, token)| Step::UseAsAnotherClient { family, token }),
        1 => family().prop_map(|family| Step::RevokeAsAnotherClient { family }),
        1 => (family(), token()).prop_map(|(family, token)| Step::Revoke { family, token }),
        1 => (family(), token()).prop_map(|(family, token)| Step::RevokeAccessToken { family, token }),
        1 => family().prop_map(|family| Step::SignOut { family }),
        1 => Just(Step::SwitchThePersonOffAndOn),
        1 => Just(Step::ChangeThePassword),
        8 => wait.prop_map(|seconds| Step::Wait { seconds }),
        1 => proptest::sample::select(vec![1, 61, 20 * MINUTE])
            .prop_map(|seconds| Step::SetTheClockBack { seconds }),
        3 => Just(Step::ClearAway),
        1 => Just(Step::Restart),
    ]
}

/// The rule.
struct Family {
    strict: bool,
    offline: bool,
    browser: usize,
    began: i64,
    has_ended: bool,
    tokens: Vec<Token>,
    access: Vec<Access>,
}

struct Token {
    expires: i64,
    spent: Option<i64>,
}

struct Access {
    expires: i64,
    was_revoked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Fresh tokens, and this one as the successor.
    Successor(usize),
    Refusal,
}

impl Family {
    fn new(strict: bool, offline: bool, browser: usize, now: i64) -> Self {
        let mut family = Self {
            strict,
            offline,
            browser,
            began: now,
            has_ended: false,
            tokens: vec![],
            access: vec![],
        };
        family.issue(now);
        family
    }

    fn issue(&mut self, now: i64) {
        let expires = (now + IDLE).min(self.began + ABSOLUTE);
        self.tokens.push(Token {
            expires,
            spent: None,
        });
        self.access.push(Access {
            expires: now + ACCESS,
            was_revoked: false,
        });
    }

    fn newest(&self) -> usize {
        self.tokens.len() - 1
    }

    /// A token is presented, in a request that asks for what may be had or for too much.
    fn present(&mut self, token: usize, asks_too_much: bool, now: i64) -> Expected {
        if self.has_ended {
            return Expected::Refusal;
        }
        let may_go_on = !asks_too_much && now < self.began + ABSOLUTE;
        match self.tokens[token].spent {
            None if may_go_on && now < self.tokens[token].expires => {
                self.tokens[token].spent = Some(now);
                self.issue(now);
                Expected::Successor(self.newest())
            }
            None => Expected::Refusal,
            Some(at) if !self.strict && now - at <= WINDOW && token + 1 == self.newest() => {
                if !may_go_on {
                    return Expected::Refusal;
                }
                self.access.push(Access {
                    expires: now + ACCESS,
                    was_revoked: false,
                });
                Expected::Successor(self.newest())
            }
            Some(_) => {
                self.has_ended = true;
                Expected::Refusal
            }
        }
    }

    fn is_refreshable(&self, now: i64) -> bool {
        !self.has_ended && now < self.tokens[self.newest()].expires
    }

    fn is_usable(&self, access: usize, now: i64) -> bool {
        let access = &self.access[access];
        !self.has_ended && !access.was_revoked && now < access.expires
    }
}

/// The product, and what apps and browsers hold.
struct World {
    op: Op,
    now: i64,
    /// Nothing that was cleared away is alive again from here on.
    earliest: i64,
    families: Vec<Family>,
    held: Vec<Held>,
    browsers: Vec<Browser>,
}

/// What the app of a family got, in order.
struct Held {
    refresh: Vec<String>,
    access: Vec<String>,
}

type Outcome = Result<(), TestCaseError>;

impl World {
    fn new(database: Database) -> Self {
        let op = Op::start(database, &SETTINGS);
        let grants = ["authorization_code", "refresh_token"];
        for (id, more) in [
            (USUAL, json!({})),
            (STRICT, json!({ "refresh_retry_window": 0 })),
            ("other", json!({})),
        ] {
            let mut client = json!({
                "client_id": id, "client_secret": SECRET, "grant_types": grants, "skip_consent": true,
                "session_refresh_tokens": true
            });
            client
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            op.client(client);
        }
        let now = op.clock.now().seconds();
        Self {
            op,
            now,
            earliest: now - 30 * DAY,
            families: vec![],
            held: vec![],
            browsers: vec![],
        }
    }

    fn rp(&self, family: usize) -> Rp {
        self.op.rp().named(if self.families[family].strict {
            STRICT
        } else {
            USUAL
        })
    }

    fn connect(&mut self, strict: bool, offline: bool, browser: usize) -> Outcome {
        let family = Family::new(strict, offline, browser, self.now);
        self.families.push(family);
        let rp = self.rp(self.families.len() - 1);
        let scope = if offline { OFFLINE } else { "openid email" };
        let page = self.browsers[browser].complete(&rp.authorize_with_pkce(&[("scope", scope)]));
        let tokens = rp.exchange_with_pkce(&page.code());
        prop_assert_eq!(tokens.status, 200, "{}", tokens.json);
        self.held.push(Held {
            refresh: vec![tokens.refresh_token().to_owned()],
            access: vec![tokens.access_token().to_owned()],
        });
        Ok(())
    }

    /// Compares an answer with what the rule says, and keeps what the app got.
    fn compare(&mut self, family: usize, expected: Expected, answer: &Answer) -> Outcome {
        let held = &mut self.held[family];
        match expected {
            Expected::Refusal => prop_assert_eq!(answer.status, 400, "family {}", family),
            Expected::Successor(index) => {
                prop_assert_eq!(answer.status, 200, "family {}, {}", family, answer.json);
                held.access.push(answer.access_token().to_owned());
                let token = answer.refresh_token();
                if index == held.refresh.len() {
                    prop_assert!(
                        !held.refresh.iter().any(|known| known == token),
                        "an old token again"
                    );
                    held.refresh.push(token.to_owned());
                } else {
                    prop_assert_eq!(&held.refresh[index], token, "another branch");
                }
            }
        }
        Ok(())
    }

    fn refresh(&mut self, family: usize, token: usize, scope: Option<&str>) -> Outcome {
        let asks_too_much = scope.is_some_and(|scope| scope.contains("profile"));
        let expected = self.families[family].present(token, asks_too_much, self.now);
        let scope: Vec<_> = scope.map(|scope| ("scope", scope)).into_iter().collect();
        let answer = self
            .rp(family)
            .refresh(&self.held[family].refresh[token], &scope);
        if let (200, [(_, asked)]) = (answer.status, scope.as_slice()) {
            prop_assert_eq!(answer.text("scope"), *asked);
        }
        self.compare(family, expected, &answer)
    }

    fn refresh_twice_at_once(&mut self, family: usize) -> Outcome {
        let newest = self.families[family].newest();
        let (rp, token) = (self.rp(family), self.held[family].refresh[newest].clone());
        let mut answers = race(2, |_| rp.refresh(&token, &[]));
        // Whoever was first, the answers are those of one after the other.
        answers.sort_by_key(|answer| answer.status);
        for answer in answers {
            let expected = self.families[family].present(newest, false, self.now);
            self.compare(family, expected, &answer)?;
        }
        Ok(())
    }

    /// Family and token that a step means; none while there is no family.
    fn meant(&self, family: usize, token: usize) -> Option<(usize, usize)> {
        let family = self.families.len().checked_sub(1)?.saturating_sub(family);
        Some((family, self.families[family].newest().saturating_sub(token)))
    }

    fn end_everything(&mut self) {
        self.families
            .iter_mut()
            .for_each(|family| family.has_ended = true);
    }

    fn take(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::SignIn { strict, offline } => {
                self.browsers.push(self.op.browser());
                self.connect(strict, offline, self.browsers.len() - 1)?;
            }
            Step::ConnectAgainInTheBrowserOf { family, offline } => {
                if let Some((family, _)) = self.meant(family, 0) {
                    let Family {
                        strict, browser, ..
                    } = self.families[family];
                    let of_browser = self
                        .families
                        .iter()
                        .filter(|family| family.browser == browser);
                    let signed_in = of_browser.map(|family| family.began).min();
                    // Its sign-in must outlast a new family.
                    if signed_in.is_some_and(|at| self.now - at < ABSOLUTE) {
                        self.connect(strict, offline, browser)?;
                    }
                }
            }
            Step::Refresh { family, token } => {
                if let Some((family, token)) = self.meant(family, token) {
                    self.refresh(family, token, None)?;
                }
            }
            Step::LoseTheAnswer {
                family,
                asking_again_after,
            } => {
                if let Some((family, newest)) = self.meant(family, 0) {
                    // The app never saw it, but the server did: what it sends next is the old token.
                    self.refresh(family, newest, None)?;
                    self.wait(asking_again_after);
                    self.refresh(family, newest, None)?;
                }
            }
            Step::RefreshTwiceAtOnce { family } => {
                if let Some((family, _)) = self.meant(family, 0) {
                    self.refresh_twice_at_once(family)?;
                }
            }
            Step::AskForLess { family } => {
                if let Some((family, newest)) = self.meant(family, 0) {
                    self.refresh(family, newest, Some("openid"))?;
                }
            }
            Step::AskForTooMuch { family, token } => {
                if let Some((family, token)) = self.meant(family, token) {
                    self.refresh(family, token, Some("openid profile"))?;
                }
            }
            Step::UseAsAnotherClient { family, token } => {
                if let Some((family, token)) = self.meant(family, token) {
                    let answer = self
                        .op
                        .rp()
                        .named("other")
                        .refresh(&self.held[family].refresh[token], &[]);
                    prop_assert_eq!(answer.error(), (400, "invalid_grant"));
                }
            }
            Step::RevokeAsAnotherClient { family } => {
                if let Some((family, newest)) = self.meant(family, 0) {
                    let other = self.op.rp().named("other");
                    prop_assert_eq!(other.revoke(&self.held[family].refresh[newest]).status, 200);
                }
            }
            Step::Revoke { family, token } => {
                if let Some((family, token)) = self.meant(family, token) {
                    prop_assert_eq!(
                        self.rp(family)
                            .revoke(&self.held[family].refresh[token])
                            .status,
                        200
                    );
                    self.families[family].has_ended = true;
                }
            }
            Step::RevokeAccessToken { family, token } => {
                if let Some((family, _)) = self.meant(family, 0) {
                    let access = (self.held[family].access.len() - 1).saturating_sub(token);
                    prop_assert_eq!(
                        self.rp(family)
                            .revoke(&self.held[family].access[access])
                            .status,
                        200
                    );
                    self.families[family].access[access].was_revoked = true;
                }
            }
            Step::SignOut { family } => {
                if let Some((family, _)) = self.meant(family, 0) {
                    let browser = self.families[family].browser;
                    if self.browsers[browser].get("/").has("input[name=session]") {
                        sign_out(&mut self.browsers[browser]);
                    }
                    for family in self
                        .families
                        .iter_mut()
                        .filter(|family| family.browser == browser && !family.offline)
                    {
                        family.has_ended = true;
                    }
                }
            }
            Step::SwitchThePersonOffAndOn => {
                for disabled in [true, false] {
                    self.op
                        .seed(json!({ "users": [{ "email": EMAIL, "disabled": disabled }] }));
                }
                self.end_everything();
            }
            Step::ChangeThePassword => {
                self.change_password();
                self.end_everything();
            }
            Step::Wait { seconds } => self.wait(seconds),
            Step::SetTheClockBack { seconds } => self.set_the_clock_back(seconds),
            Step::ClearAway => {
                self.op.prune();
                self.earliest = self.earliest.max(self.now - GRACE);
            }
            Step::Restart => self.op.restart(|_| {}),
        }
        self.look_around()
    }

    fn wait(&mut self, seconds: i64) {
        self.now += seconds;
        self.op
            .clock
            .advance(Duration::from_secs(seconds.unsigned_abs()));
    }

    /// A clock only goes forward, so the server gets another one.
    fn set_the_clock_back(&mut self, seconds: i64) {
        self.now -= seconds.min(self.now - self.earliest);
        self.op.clock = Clock::manual(Timestamp::from_seconds(self.now));
        self.op.restart(|_| {});
    }

    fn change_password(&mut self) {
        let settings = self.op.config.password.hash_settings().unwrap();
        let hash = password::hash(&Password::parse(PASSWORD).unwrap(), [7; 16], &settings).unwrap();
        let now = self.op.clock.now();
        let changed = self.op.store.write_blocking(move |tx| {
            let alice = users::find_by_email(tx, EMAIL)?.unwrap();
            users::change_password(tx, &alice.id, &hash, now)
        });
        assert!(changed.unwrap());
    }

    /// Every family is as alive or dead as the rule says, whatever the last step was about.
    fn look_around(&self) -> Outcome {
        for (index, (family, held)) in self.families.iter().zip(&self.held).enumerate() {
            let rp = self.rp(index);
            let is_active = |token: &String| rp.introspect(token).json["active"] == true;
            let newest = held.refresh.last().unwrap();
            prop_assert_eq!(
                is_active(newest),
                family.is_refreshable(self.now),
                "family {}",
                index
            );
            let latest = held.access.len() - 1;
            prop_assert_eq!(
                is_active(&held.access[latest]),
                family.is_usable(latest, self.now),
                "family {}",
                index
            );
        }
        Ok(())
    }

    /// At the end each family either goes on, or is dead with everything that it ever had.
    fn probe(&mut self) -> Outcome {
        for index in 0..self.families.len() {
            for (at, token) in self.held[index].access.iter().enumerate() {
                let status = self.rp(index).userinfo(token).status;
                let expected = if self.families[index].is_usable(at, self.now) {
                    200
                } else {
                    401
                };
                prop_assert_eq!(status, expected, "access token {} of family {}", at, index);
            }
            self.refresh(index, self.families[index].newest(), None)?;
            self.refresh(index, 0, None)?;
            self.refresh(index, self.families[index].newest(), None)?;
        }
        Ok(())
    }
}

fn compare_with_model(database: Database) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let cases = number("LATCHKEY_MODEL_CASES").map_or(CASES, |cases| u32::try_from(cases).unwrap());
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(
        &number("LATCHKEY_MODEL_SEED")
            .unwrap_or_default()
            .to_le_bytes(),
    );
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&vec(step(), 4..28), |steps| {
        let mut world = World::new(database);
        world.take(&Step::SignIn {
            strict: false,
            offline: true,
        })?;
        for step in &steps {
            world.take(step)?;
        }
        world.probe()
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            let list: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{why}, after SignIn {{ strict: false, offline: true }} and\n{list}");
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn b5_b6_on_sqlite_the_product_does_what_the_model_says() {
    compare_with_model(Database::Sqlite);
}

#[test]
fn b5_b6_on_postgres_the_product_does_what_the_model_says() {
    if postgres::cluster().is_some() {
        compare_with_model(Database::Postgres);
    }
}
