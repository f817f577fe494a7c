//! Apps that refresh all the time, whatever happens to the server meanwhile, and what each of them is told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::relying_party::{Answer, Rp};
use super::wait::{pause, within};

/// Nobody waits longer, whatever the answer (I7).
const LONGEST: Duration = Duration::from_secs(10);
/// Apps are not there to keep the machine busy.
const BETWEEN: Duration = Duration::from_millis(10);

/// What an app was told when it asked for new tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Tokens,
    /// 503, with all that belongs to it.
    Later,
    /// There was no answer.
    Nothing,
}

/// Whether an answer may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Reliable,
    /// Where servers come and go.
    Unreliable,
}

/// One request.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    app: usize,
    began: Instant,
    took: Duration,
    told: Told,
}

/// What all of them were told so far.
pub struct Story {
    network: Network,
    apps: usize,
    attempts: Mutex<Vec<Attempt>>,
    over: AtomicBool,
}

/// An app for each of these tokens refreshes them until `during` has ended; then each has its last answer with tokens.
pub fn while_apps_refresh(
    rp: &Rp,
    chains: Vec<Answer>,
    network: Network,
    during: impl FnOnce(&Story),
) -> (Vec<Answer>, Story) {
    let story = Story {
        network,
        apps: chains.len(),
        attempts: Mutex::default(),
        over: AtomicBool::new(false),
    };
    let last = thread::scope(|scope| {
        let working: Vec<_> = chains
            .into_iter()
            .enumerate()
            .map(|(app, tokens)| {
                let (story, rp) = (&story, rp.clone().on_connections_of_its_own());
                scope.spawn(move || story.refresh(app, &rp, tokens))
            })
            .collect();
        let ending = Ending(&story.over);
        during(&story);
        drop(ending);
        let last = working.into_iter().map(|app| app.join().unwrap());
        last.collect()
    });
    (last, story)
}

/// Lets the apps end even when what happens meanwhile fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Story {
    fn refresh(&self, app: usize, rp: &Rp, mut tokens: Answer) -> Answer {
        while !self.over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let answer = rp.try_refresh(tokens.refresh_token());
            let took = began.elapsed();
            assert!(took < LONGEST, "{took:?} for {answer:?}");
            let told = match answer {
                Ok(answer) if answer.status == 200 => {
                    tokens = answer;
                    Told::Tokens
                }
                Ok(answer) => {
                    assert_eq!(answer.error(), (503, "temporarily_unavailable"));
                    assert!(answer.headers.contains_key("retry-after"));
                    Told::Later
                }
                Err(error) => {
                    assert_eq!(self.network, Network::Unreliable, "{error:?}");
                    Told::Nothing
                }
            };
            let attempt = Attempt {
                app,
                began,
                took,
                told,
            };
            self.attempts.lock().unwrap().push(attempt);
            pause(BETWEEN);
        }
        tokens
    }

    /// Waits until each of them has asked since this moment and was told this, and answers how long that took.
    pub fn wait_until_all_are(&self, told: Told, since: Instant, limit: Duration) -> Duration {
        within(limit, &format!("each app is told {told:?}"), || {
            self.all_are(told, since).then(|| since.elapsed())
        })
    }

    pub fn all_are(&self, told: Told, since: Instant) -> bool {
        let attempts = self.attempts.lock().unwrap();
        (0..self.apps).all(|app| {
            let mut those = attempts.iter().rev().filter(|it| it.began >= since);
            those.any(|it| it.app == app && it.told == told)
        })
    }

    /// How often anybody was told this.
    pub fn count(&self, told: Told) -> usize {
        let attempts = self.attempts.lock().unwrap();
        attempts.iter().filter(|it| it.told == told).count()
    }

    /// How long the slowest of such answers took.
    pub fn slowest(&self, told: Told) -> Duration {
        let attempts = self.attempts.lock().unwrap();
        let took = attempts
            .iter()
            .filter(|it| it.told == told)
            .map(|it| it.took);
        took.max().unwrap_or_default()
    }
}
