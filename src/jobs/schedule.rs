//! When each job runs, for as long as the server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::web;
use tokio::time::Instant;

use crate::causes::with_causes;
use crate::jobs::{prune_expired, rotate_keys, seal_audit};
use crate::protocol::time::Timestamp;
use crate::store::signing_keys;
use crate::web::health;
use crate::web::state::AppState;

/// Another node's rotation is seen within a second, even when a look takes its time.
const KEY_REFRESH: Duration = Duration::from_millis(400);
/// A changed client or a new epoch is seen within this time and that of three reads.
const CHANGE_REFRESH: Duration = Duration::from_millis(250);
const ROTATION_CHECK: Duration = Duration::from_secs(60);
const PRUNING_CHECK: Duration = Duration::from_secs(60);
/// Also without anybody's probes an outage stands in the log from when it began.
const DATABASE_CHECK: Duration = Duration::from_secs(1);
const CLOCK_CHECK: Duration = Duration::from_secs(1);
/// A clock that is set right by less than this hurts nothing.
const SMALL_STEP_SECONDS: u64 = 30;

/// Begins all of them.
pub(crate) fn begin(state: &web::Data<AppState>) {
    keep_going(state, "looking after the signing keys", keep_keys_fresh);
    keep_going(state, "looking after what commands change", watch_changes);
    keep_going(state, "deleting what is over", clear_away);
    keep_going(state, "watching the clock", watch_clock);
    keep_going(state, "watching the database", watch_database);
}

fn keep_going<J: Future<Output = ()> + 'static>(
    state: &web::Data<AppState>,
    what: &'static str,
    job: fn(web::Data<AppState>) -> J,
) {
    let (state, stopping) = (state.clone(), state.stopping.clone());
    let job = move || job(state.clone());
    actix_web::rt::spawn(again_after_a_panic(stopping, what, job));
}

/// A panic must not end a job for as long as the process lives.
async fn again_after_a_panic<J: Future<Output = ()> + 'static>(
    stopping: Arc<AtomicBool>,
    what: &'static str,
    job: impl Fn() -> J,
) {
    while !stopping.load(Ordering::SeqCst) {
        // The panic itself is in the log already; its message may hold what must not be there.
        if let Err(_panic) = actix_web::rt::spawn(job()).await {
            tracing::error!("{what} failed; it begins again");
        }
        tokio::time::sleep(KEY_REFRESH).await;
    }
}

/// Sees changes of clients, and a new epoch, within a second, whoever made them.
async fn watch_changes(state: web::Data<AppState>) {
    let mut ticks = tokio::time::interval(CHANGE_REFRESH);
    while !state.stopping.load(Ordering::SeqCst) {
        ticks.tick().await;
        let (limits, now) = (state.throttle_limits(), state.clock.now());
        let looked = state.clients.refresh().await;
        let guessing = state.guessing.look(&state.store, &limits, now).await;
        let epoch = state.epoch.look(&state.store).await;
        if let Err(error) = looked.and(guessing).and(epoch) {
            let error = with_causes(&error);
            tracing::debug!(
                error,
                "whether clients or the epoch changed could not be looked up"
            );
        }
    }
}

/// Deletes what is over, on one node at a time.
async fn clear_away(state: web::Data<AppState>) {
    let mut ticks = tokio::time::interval(PRUNING_CHECK);
    // The first one comes at once, and a start has better things to do.
    ticks.tick().await;
    let mut steady = Steady::begin((state.clock.now(), Instant::now()));
    while !state.stopping.load(Ordering::SeqCst) {
        ticks.tick().await;
        state.address_limit.forget_quiet();
        let now = state.clock.now();
        let steady_for = steady.look((now, Instant::now()));
        if let Err(error) = seal_audit::run(&state.store, &state.root, now).await {
            let error = with_causes(&error);
            tracing::warn!(
                error,
                "audit events could not be sealed; the next try is in a minute"
            );
        }
        match prune_expired::run_if_due(&state.store, &state.config, now, steady_for).await {
            Ok(Some(outcome)) if outcome != prune_expired::Outcome::default() => {
                tracing::info!(?outcome, "what is over was deleted")
            }
            Ok(_nothing_was_due) => {}
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(
                    error,
                    "what is over could not be deleted; the next try is in some minutes"
                )
            }
        }
    }
}

/// Sees other nodes' rotations within a second, and rotates when it is time.
async fn keep_keys_fresh(state: web::Data<AppState>) {
    let mut ticks = tokio::time::interval(KEY_REFRESH);
    let mut since_check = Duration::ZERO;
    let mut problem = None;
    while !state.stopping.load(Ordering::SeqCst) {
        ticks.tick().await;
        since_check += KEY_REFRESH;
        if since_check >= ROTATION_CHECK {
            since_check = Duration::ZERO;
            rotate(&state).await;
        }
        match state.store.read(signing_keys::list).await {
            Ok(stored) => {
                let algorithms = &state.config.keys.algorithms;
                let refreshed = state.keys.refresh(stored, &state.root, algorithms);
                let found = refreshed.err().map(|error| with_causes(&error));
                report_change(&mut problem, found);
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::debug!(error, "signing keys could not be looked up");
            }
        }
    }
}

/// Once, not every second: a key that can't be read stays so until somebody repairs it.
fn report_change(known: &mut Option<String>, found: Option<String>) -> bool {
    if *known == found {
        return false;
    }
    match &found {
        Some(error) => tracing::error!(
            %error,
            "signing keys could not be read; those that were read before stay in use"
        ),
        None => tracing::info!("signing keys can be read again"),
    }
    *known = found;
    true
}

async fn rotate(state: &AppState) {
    let (store, root, config, now) = (
        state.store.clone(),
        state.root.clone(),
        state.config.clone(),
        state.clock.now(),
    );
    match web::block(move || rotate_keys::run(&store, &root, &config, now)).await {
        Ok(Ok(outcome)) if outcome != rotate_keys::Outcome::default() => {
            tracing::info!(?outcome, "signing keys rotated")
        }
        Ok(Ok(_nothing_was_due)) => {}
        Ok(Err(error)) => {
            let (passing, error) = (error.is_passing(), with_causes(&error));
            if passing {
                tracing::warn!(
                    error,
                    "signing keys could not be rotated; the next try is in a minute"
                );
            } else {
                tracing::error!(error, "signing keys could not be rotated");
            }
        }
        Err(error) => tracing::error!(%error, "the rotation of signing keys was broken off"),
    }
}

/// Says in the log when the database is lost, why, and when it is back.
async fn watch_database(state: web::Data<AppState>) {
    let mut ticks = tokio::time::interval(DATABASE_CHECK);
    while !state.stopping.load(Ordering::SeqCst) {
        ticks.tick().await;
        health::look(&state).await;
    }
}

/// Sign-ins, tokens and keys keep the times that a clock showed when they were made, so an operator wants to know.
async fn watch_clock(state: web::Data<AppState>) {
    let mut ticks = tokio::time::interval(CLOCK_CHECK);
    let mut before = (state.clock.now(), Instant::now());
    while !state.stopping.load(Ordering::SeqCst) {
        ticks.tick().await;
        let after = (state.clock.now(), Instant::now());
        if let Some(seconds) = moved(before, after) {
            tracing::warn!(
                seconds,
                "the clock was moved, or the machine slept; what was made before keeps the times of then"
            );
        }
        before = after;
    }
}

/// Since when the clock has gone on as time does.
struct Steady {
    since: Instant,
    last: (Timestamp, Instant),
}

impl Steady {
    fn begin(now: (Timestamp, Instant)) -> Self {
        Self {
            since: now.1,
            last: now,
        }
    }

    /// For how long by now.
    fn look(&mut self, now: (Timestamp, Instant)) -> Duration {
        if moved(self.last, now).is_some() {
            self.since = now.1;
        }
        self.last = now;
        now.1.duration_since(self.since)
    }
}

/// By how many seconds the clock went on more than time did; less than none when it was put back.
fn moved(before: (Timestamp, Instant), after: (Timestamp, Instant)) -> Option<i64> {
    let passed = i64::try_from(after.1.duration_since(before.1).as_secs()).unwrap_or(i64::MAX);
    let shown = after.0.seconds().saturating_sub(before.0.seconds());
    let moved = shown.saturating_sub(passed);
    (moved.unsigned_abs() > SMALL_STEP_SECONDS).then_some(moved)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Sources};
    use crate::startup;

    fn config(folder: &TempDir) -> Config {
        let database = format!("sqlite://{}/latchkey.db", folder.path().display());
        let overrides = [
            ("issuer", "http://localhost:1"),
            ("database.url", &database),
            ("secret_key", &"5a".repeat(32)),
            ("throttle.address_requests", "6000"),
        ];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let sources = Sources {
            overrides: overrides.to_vec(),
            ..Sources::default()
        };
        Config::load(sources).unwrap_or_else(|findings| panic!("{findings}"))
    }

    #[test]
    fn n12_addresses_that_were_quiet_are_forgotten_every_minute() {
        let folder = TempDir::new().expect("a folder");
        let config = config(&folder);
        actix_web::rt::System::new().block_on(async {
            let state = startup::state_of(config, Clock::system()).await;
            let limit = state.address_limit.clone();
            limit.note(1_000);
            // From here on time is what this test says, except for the limiter, to whom a hundredth of a second is quiet.
            tokio::time::pause();
            let job = actix_web::rt::spawn(clear_away(state.clone()));
            tokio::time::sleep(PRUNING_CHECK - Duration::from_secs(1)).await;
            assert_eq!(limit.counters(), 1_000);
            let began = std::time::Instant::now();
            while limit.counters() > 0 {
                assert!(began.elapsed() < Duration::from_secs(20), "still known");
                tokio::time::sleep(PRUNING_CHECK).await;
            }
            job.abort();
        });
    }

    #[test]
    fn a_job_that_panics_begins_again_until_the_server_stops() {
        let (stopping, begun) = (Arc::<AtomicBool>::default(), Arc::new(AtomicUsize::new(0)));
        let job = {
            let (stopping, begun) = (Arc::clone(&stopping), Arc::clone(&begun));
            move || {
                let (stopping, begun) = (Arc::clone(&stopping), Arc::clone(&begun));
                async move {
                    let is_last = begun.fetch_add(1, Ordering::SeqCst) == 2;
                    stopping.store(is_last, Ordering::SeqCst);
                    assert!(is_last, "as this test wants it");
                }
            }
        };
        let watching = again_after_a_panic(stopping, "this test's job", job);
        actix_web::rt::System::new().block_on(watching);
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_clock_that_was_moved_is_told_from_time_that_passed() {
        let (at, began) = (Timestamp::from_seconds, Instant::now());
        let after_a_minute = began + Duration::from_secs(60);
        let cases = [
            (1_060, None),
            (1_090, None),
            (1_030, None),
            (1_091, Some(31)),
            (1_029, Some(-31)),
            (0, Some(-1_060)),
            (i64::MAX, Some(i64::MAX - 1_060)),
        ];
        for (shows, expected) in cases {
            let found = moved((at(1_000), began), (at(shows), after_a_minute));
            assert_eq!(found, expected, "{shows}");
        }
    }

    #[test]
    fn a_clock_is_steady_since_it_was_moved_last() {
        let (at, began) = (Timestamp::from_seconds, Instant::now());
        let mut steady = Steady::begin((at(1_000), began));
        for (after, shows, expected) in [
            (60, 1_060, 60),
            (120, 1_125, 120),
            (180, 50_000_000, 0),
            (240, 50_000_060, 60),
            (300, 1_300, 0),
            (3_900, 4_900, 3_600),
        ] {
            let steady_for = steady.look((at(shows), began + Duration::from_secs(after)));
            assert_eq!(steady_for, Duration::from_secs(expected), "{after}");
        }
    }

    #[test]
    fn what_keeps_keys_from_being_read_is_said_once_until_it_changes() {
        let mut known = None;
        let found = [
            None,
            Some("one"),
            Some("one"),
            Some("another"),
            None,
            None,
            Some("one"),
        ];
        let said = found.map(|found| report_change(&mut known, found.map(str::to_owned)));
        assert_eq!(said, [false, true, false, true, true, false, true]);
    }
}
