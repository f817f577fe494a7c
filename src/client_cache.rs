//! Clients and scopes as a running server sees them: read when they are first asked for, kept in memory, and read anew within a second
//! of a change, whichever process made it.
//!
//! Every change writes a new version beside it, in its own transaction. The server looks at the version a few times a
//! second and forgets what it knows when that differs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::protocol::client::{Client, ClientId};
use crate::protocol::client_secret::ClientSecret;
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::time::Timestamp;
use crate::store::{AnyConnection, Store, StoreError, client_secrets, clients, scopes};

/// The cache; every clone is the same one.
#[derive(Clone)]
pub struct ClientCache {
    store: Store,
    kept: Arc<RwLock<Kept>>,
}

/// A client that is switched on, with its secrets.
#[derive(Debug)]
pub struct KnownClient {
    pub client: Arc<Client>,
    pub created_at: Timestamp,
    pub secrets: Vec<ClientSecret>,
}

#[derive(Default)]
struct Kept {
    version: Option<String>,
    /// Grows whenever clients are forgotten, so that what was read before that is not kept after it.
    forgotten: u64,
    clients: HashMap<ClientId, Arc<KnownClient>>,
    scopes: Option<Arc<KnownScopes>>,
}

/// More are forgotten and read again; nobody who only asks can make this grow, since unknown ones are not kept.
const MOST_KEPT: usize = 10_000;

impl ClientCache {
    /// An empty one.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            kept: Arc::default(),
        }
    }

    /// The client, unless it is unknown or switched off.
    pub async fn find(&self, id: &ClientId) -> Result<Option<Arc<KnownClient>>, StoreError> {
        let forgotten = {
            let kept = self.reading();
            if let Some(known) = kept.clients.get(id) {
                return Ok(Some(known.clone()));
            }
            kept.forgotten
        };
        let wanted = id.clone();
        let found = self.store.read(move |conn| load(conn, &wanted)).await?;
        let found = found.map(Arc::new);
        if let Some(known) = &found {
            let mut kept = self.writing();
            if kept.clients.len() >= MOST_KEPT {
                kept.clients.clear();
            }
            if kept.forgotten == forgotten {
                kept.clients.insert(id.clone(), known.clone());
            }
        }
        Ok(found)
    }

    /// The client without its secrets.
    pub async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, StoreError> {
        Ok(self.find(id).await?.map(|known| known.client.clone()))
    }

    /// Every scope that there is.
    pub async fn scopes(&self) -> Result<Arc<KnownScopes>, StoreError> {
        let forgotten = {
            let kept = self.reading();
            if let Some(known) = &kept.scopes {
                return Ok(known.clone());
            }
            kept.forgotten
        };
        let found = Arc::new(self.store.read(scopes::known).await?);
        let mut kept = self.writing();
        if kept.forgotten == forgotten {
            kept.scopes = Some(found.clone());
        }
        Ok(found)
    }

    /// Reads this client anew when it is asked for next.
    pub fn forget(&self, id: &ClientId) {
        let mut kept = self.writing();
        kept.forgotten += 1;
        kept.clients.remove(id);
    }

    /// Looks whether anything was changed.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let version = self.store.read(clients::version).await?;
        if self.reading().version != version {
            let mut kept = self.writing();
            kept.version = version;
            kept.forgotten += 1;
            kept.clients.clear();
            kept.scopes = None;
        }
        Ok(())
    }

    // A panic while holding the lock would leave the map intact.
    fn reading(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(conn: &mut AnyConnection, id: &ClientId) -> Result<Option<KnownClient>, StoreError> {
    let Some((client, created_at)) = clients::find_with_age(conn, id)? else {
        return Ok(None);
    };
    Ok(Some(KnownClient {
        client: Arc::new(client),
        created_at,
        secrets: client_secrets::list(conn, id)?,
    }))
}
