//! Rotation on schedule: publish, wait until caches have seen the key, sign with it, publish the old one until its last
//! token has expired. OpenID Connect Core §10.1.1.

use std::time::Duration;

use crate::audit::{Kind, Trail};
use crate::config::Config;
use crate::keys::{self, KeyError, LONGEST_RETIREMENT, REMEMBERED};
use crate::protocol::client::Client;
use crate::protocol::seal::RootKey;
use crate::protocol::time::Timestamp;
use crate::store::signing_keys::{self, KeyState, StoredKey};
use crate::store::{Store, audit_events, clients};

/// A token may be checked a little after it expired, by clocks that differ.
const GRACE: Duration = Duration::from_secs(300);

/// What one run changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub published: usize,
    pub promoted: usize,
    /// Of algorithms that were switched off.
    pub retired: usize,
    /// Taken out of the key set, because their last token has expired.
    pub withdrawn: usize,
    pub forgotten: usize,
}

/// Does what is due. Any number of nodes may run it at once.
pub fn run(
    store: &Store,
    root: &RootKey,
    config: &Config,
    now: Timestamp,
) -> Result<Outcome, KeyError> {
    let settings = &config.keys;
    let trail = Trail::of_server(now);
    let stored = store.read_blocking(signing_keys::list)?;
    let lead = settings
        .rotate_every
        .saturating_sub(settings.publish_before);
    let switched_off: Vec<_> = stored
        .iter()
        .filter(|key| key.state != KeyState::Retired)
        .filter(|key| {
            !settings
                .algorithms
                .iter()
                .any(|on| on.as_str() == key.algorithm)
        })
        .cloned()
        .collect();
    let retired = retire(store, switched_off, &trail)?;
    let mut due = Vec::new();
    for algorithm in &settings.algorithms {
        let current = stored
            .iter()
            .find(|key| key.algorithm == algorithm.as_str() && key.state == KeyState::Current);
        let since = current.map(|key| key.activated_at.unwrap_or(key.created_at));
        if since.is_some_and(|since| signing_keys::is_due(since, now.minus(lead), now)) {
            due.push(*algorithm);
        }
    }
    put_right(store, stored, &trail)?;
    let published = keys::publish_next(store, root, &due, now.minus(lead), &trail)?.len();
    let promoted = keys::promote(
        store,
        &settings.algorithms,
        now.minus(settings.publish_before),
        &trail,
    )?;
    let keep = longest_token_life(config, &store.read_blocking(clients::list)?)
        .saturating_add(GRACE)
        .min(LONGEST_RETIREMENT);
    let (withdrawn, forgotten) = clear_away(store, now.minus(keep), trail)?;
    Ok(Outcome {
        published,
        promoted,
        retired,
        withdrawn,
        forgotten,
    })
}

/// Withdraws what retired by a time, and forgets what did so long ago; answers how many of each.
fn clear_away(store: &Store, by: Timestamp, trail: Trail) -> Result<(usize, usize), KeyError> {
    Ok(store.write_blocking(move |tx| {
        let (mut withdrawn, mut forgotten) = (0, 0);
        let long_ago = trail.now.minus(REMEMBERED);
        for key in signing_keys::retired_by(tx, by)? {
            if key.is_published() && signing_keys::withdraw(tx, &key.kid)? {
                let event = keys::event_of(Kind::KeyWithdrawn, &key.kid, &key.algorithm);
                audit_events::record(tx, &trail, &event)?;
                withdrawn += 1;
            }
            let is_old = key.retired_at.is_some_and(|at| at <= long_ago);
            if is_old && signing_keys::delete_retired(tx, &key.kid)? {
                let event = keys::event_of(Kind::KeyDeleted, &key.kid, &key.algorithm);
                audit_events::record(tx, &trail, &event)?;
                forgotten += 1;
            }
        }
        Ok((withdrawn, forgotten))
    })?)
}

fn put_right(store: &Store, mut stored: Vec<StoredKey>, trail: &Trail) -> Result<(), KeyError> {
    stored.retain(|key| key.state == KeyState::Next && key.created_at.is_far_ahead_of(trail.now));
    if stored.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "a signing key was published by a clock that was ahead; it waits again before it signs"
    );
    let trail = trail.clone();
    Ok(store.write_blocking(move |tx| {
        for key in &stored {
            if signing_keys::put_right(tx, &key.algorithm, trail.now)? {
                let event = keys::event_of(Kind::KeyPostponed, &key.kid, &key.algorithm);
                audit_events::record(tx, &trail, &event)?;
            }
        }
        Ok(())
    })?)
}

fn retire(store: &Store, off: Vec<StoredKey>, trail: &Trail) -> Result<usize, KeyError> {
    if off.is_empty() {
        return Ok(0);
    }
    let trail = trail.clone();
    Ok(store.write_blocking(move |tx| {
        let mut retired = 0;
        for key in &off {
            if signing_keys::retire(tx, &key.kid, trail.now)? {
                let event = keys::event_of(Kind::KeyRetired, &key.kid, &key.algorithm);
                audit_events::record(tx, &trail, &event)?;
                retired += 1;
            }
        }
        Ok(retired)
    })?)
}

fn longest_token_life(config: &Config, clients: &[Client]) -> Duration {
    let of_clients = clients
        .iter()
        .flat_map(|client| [client.tokens.access, client.tokens.id])
        .flatten();
    of_clients
        .chain([config.tokens.access, config.tokens.id])
        .max()
        .unwrap_or_default()
}
