//! Whether anybody is guessing clients' secrets just now. While nobody is, no request has to look into the database whether
//! its address was slowed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::identity::throttle::Limits;
use crate::protocol::time::Timestamp;
use crate::store::{Store, StoreError, throttles};

/// Seen here at once, and on other nodes when they look the next time.
#[derive(Debug, Default)]
pub(crate) struct Guessing {
    seen: AtomicBool,
    noted: AtomicU64,
}

impl Guessing {
    /// Whether some address may be slowed.
    pub(in crate::web) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// A wrong secret was counted.
    pub(in crate::web) fn note(&self) {
        self.noted.fetch_add(1, Ordering::SeqCst);
        self.seen.store(true, Ordering::SeqCst);
    }

    /// Looks whether any counter is full; all kinds are looked at, since their names are hashes.
    pub(crate) async fn look(
        &self,
        store: &Store,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let noted = self.noted.load(Ordering::SeqCst);
        let (failures, since) = (i64::from(limits.account_failures), now.minus(limits.window));
        let any = store
            .read(move |conn| throttles::any_full(conn, failures, since))
            .await?;
        // What was counted while we looked may not be in the answer.
        if any || self.noted.load(Ordering::SeqCst) == noted {
            self.seen.store(any, Ordering::SeqCst);
        }
        Ok(())
    }
}
