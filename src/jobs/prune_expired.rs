//! Clears away what is over, in small batches with pauses, so that nobody who signs in meanwhile notices.

use std::time::Duration;

use serde::Serialize;

use crate::audit::Trail;
use crate::config::Config;
use crate::identity::throttle;
use crate::protocol::time::Timestamp;
use crate::store::pruning::{self, Batch};
use crate::store::{AnyConnection, Store, StoreError, properties};

/// How often one of the nodes does it.
const EVERY: Duration = Duration::from_secs(300);
/// What is over stays for so long: clocks differ, and one that jumped ahead and comes back should not have cost much.
const GRACE: Duration = Duration::from_secs(3_600);
/// Between two batches, for those who wait.
const PAUSE: Duration = Duration::from_millis(20);
/// When somebody last began, in seconds since 1970.
const LAST_RUN: &str = "pruning.last_run";

/// A clock that went on by more than this since the last run is not believed at once: a minute under a wrong one must not
/// cost everybody's sign-ins and the audit events of a year.
const BELIEVED_AT_ONCE: Duration = Duration::from_secs(86_400);
/// But it is when it has gone on as time does for so long. Whoever starts a server that was off for weeks waits no longer.
const BELIEVED_AFTER: Duration = Duration::from_secs(3_600);

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub sessions: usize,
    /// Grants with all that was issued in them and had not gone before.
    pub grants: usize,
    pub access_tokens: usize,
    pub client_tokens: usize,
    pub client_assertions: usize,
    pub throttles: usize,
    pub audit_events: usize,
}

/// Does what is due, if no other node did so within the last five minutes. `steady_for` is how long the clock has gone on as
/// time does.
pub async fn run_if_due(
    store: &Store,
    config: &Config,
    now: Timestamp,
    steady_for: Duration,
) -> Result<Option<Outcome>, StoreError> {
    if !claim(store, now, steady_for).await? {
        return Ok(None);
    }
    run(store, config, now, Trail::of_server).await.map(Some)
}

/// Does what is due. Two at once do no harm, only the same work. `trail` says who does it.
pub async fn run(
    store: &Store,
    config: &Config,
    now: Timestamp,
    trail: fn(Timestamp) -> Trail,
) -> Result<Outcome, StoreError> {
    let over_by = now.minus(GRACE);
    let counters_by = now.minus(throttle::Limit::memory(config.throttle.window));
    let lifetimes = config.session_lifetimes();
    let recorded_by = now.minus(config.audit.retention);
    Ok(Outcome {
        access_tokens: in_batches(store, move |tx| pruning::access_tokens(tx, over_by)).await?,
        client_tokens: in_batches(store, move |tx| pruning::client_tokens(tx, over_by)).await?,
        client_assertions: in_batches(store, move |tx| pruning::client_assertions(tx, over_by))
            .await?,
        audit_events: in_batches(store, move |tx| {
            pruning::audit_events(tx, recorded_by, &trail(now))
        })
        .await?,
        throttles: in_batches(store, move |tx| pruning::throttles(tx, counters_by)).await?,
        // Before the grants, some of which wait for them.
        sessions: in_batches(store, move |tx| pruning::sessions(tx, &lifetimes, over_by)).await?,
        grants: in_batches(store, move |tx| pruning::grants(tx, over_by, now)).await?,
    })
}

async fn in_batches(
    store: &Store,
    batch: impl Fn(&mut AnyConnection) -> Result<Batch, StoreError> + Copy + Send + 'static,
) -> Result<usize, StoreError> {
    let mut deleted = 0;
    loop {
        let work = move |tx: &mut AnyConnection| {
            pruning::by_index(tx)?;
            batch(tx)
        };
        let done = store.write(work).await?;
        deleted += done.deleted;
        if !done.is_full {
            return Ok(deleted);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Of any number of nodes that try, one is told yes.
async fn claim(store: &Store, now: Timestamp, steady_for: Duration) -> Result<bool, StoreError> {
    let last = store.read(|conn| properties::find(conn, LAST_RUN)).await?;
    let began = last.as_deref().and_then(|last| last.parse().ok());
    // A time that lies ahead comes from a clock that was set back since.
    let is_due = began
        .map(Timestamp::from_seconds)
        .is_none_or(|began| began > now || now.since(began) >= EVERY);
    let has_leapt = began
        .map(Timestamp::from_seconds)
        .is_some_and(|began| now.since(began) > BELIEVED_AT_ONCE);
    if !is_due || (has_leapt && steady_for < BELIEVED_AFTER) {
        return Ok(false);
    }
    store
        .write(move |tx| {
            properties::replace(tx, LAST_RUN, last.as_deref(), &now.seconds().to_string())
        })
        .await
}
