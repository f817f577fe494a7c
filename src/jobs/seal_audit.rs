//! Seals over what was written down, every minute: who changes the past later is found by `audit verify`.

use crate::protocol::seal::RootKey;
use crate::protocol::time::Timestamp;
use crate::store::{Store, StoreError, audit_seals};

/// Seals everything that is there; answers how many events. Another node may do the same: then one of them does it.
pub async fn run(store: &Store, root: &RootKey, now: Timestamp) -> Result<usize, StoreError> {
    let mut sealed = 0;
    loop {
        let root = root.clone();
        let sealing = store.write(move |tx| audit_seals::seal(tx, &root, now));
        match sealing.await {
            Ok(0) => return Ok(sealed),
            Ok(more) => sealed += more,
            Err(error) if error.is_duplicate() => return Ok(sealed),
            Err(error) => return Err(error),
        }
    }
}
