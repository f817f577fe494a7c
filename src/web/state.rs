//! What handlers share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;

use crate::client_cache::ClientCache;
use crate::clock::Clock;
use crate::config::Config;
use crate::hashing::HashingQueue;
use crate::identity::password::HashSettings;
use crate::identity::{session, throttle};
use crate::keys::KeyRing;
use crate::metrics::Metrics;
use crate::protocol::client::Client;
use crate::protocol::jose::SigningAlgorithm;
use crate::protocol::seal::{RootKey, SealingKey};
use crate::protocol::time::Timestamp;
use crate::seed::DevApp;
use crate::store::{Store, StoreError, backup};
use crate::telemetry::Telemetry;
use crate::web::address_limit::AddressLimit;
use crate::web::extract::guessing::Guessing;
use crate::web::health::Readiness;
use crate::web::oidc::discovery::Discovery;

/// Everything a handler may need, made once at startup.
pub(crate) struct AppState {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clients: ClientCache,
    pub(crate) guessing: Guessing,
    pub(crate) address_limit: AddressLimit,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    /// Where traces go, if anywhere.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    pub(crate) clock: Clock,
    pub(crate) root: RootKey,
    /// When the database was last restored: what was issued before may have been used or revoked by then.
    pub(crate) epoch: Epoch,
    pub(crate) tickets: SealingKey,
    pub(crate) cookies: SealingKey,
    pub(crate) keys: KeyRing,
    /// The discovery document, once somebody has asked for it.
    pub(crate) discovery: ArcSwapOption<Discovery>,
    pub(crate) hashing: HashingQueue,
    pub(crate) hash_settings: HashSettings,
    /// What the built-in test app knows, in development mode.
    pub(crate) dev_app: Option<DevApp>,
    /// Set once SIGTERM came: no longer ready, though still answering.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// When a timeline began, which may change while a server runs: PostgreSQL is restored by its own tools.
#[derive(Default)]
pub(crate) struct Epoch(ArcSwapOption<Timestamp>);

impl Epoch {
    /// As far as the server has seen; nothing if the database was never restored. A restore under a clock that was far ahead
    /// must not keep every app out until that time.
    pub(crate) fn load(&self, now: Timestamp) -> Option<Timestamp> {
        self.last_seen().filter(|epoch| !epoch.is_far_ahead_of(now))
    }

    fn last_seen(&self) -> Option<Timestamp> {
        self.0.load().as_deref().copied()
    }

    /// Looks into the database.
    pub(crate) async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let began_at = store.read(backup::epoch).await?;
        if began_at != self.last_seen() {
            self.0.store(began_at.map(Arc::new));
        }
        Ok(())
    }
}

impl AppState {
    /// The issuer, byte for byte.
    pub(crate) fn issuer(&self) -> &str {
        self.config.issuer.as_str()
    }

    /// An absolute address of ours.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer())
    }

    /// The issuer's path, which every link on a page begins with.
    pub(crate) fn base(&self) -> &str {
        self.config.issuer.path()
    }

    /// How long sign-ins last.
    pub(crate) fn session_lifetimes(&self) -> session::Lifetimes {
        self.config.session_lifetimes()
    }

    /// How many failures are borne.
    pub(crate) fn throttle_limits(&self) -> throttle::Limits {
        let throttle = &self.config.throttle;
        throttle::Limits {
            account_failures: throttle.account_failures,
            address_failures: throttle.address_failures,
            window: throttle.window,
        }
    }

    /// The algorithm that a client's ID tokens are signed with; nothing while it is switched off, since the client would
    /// refuse a token in any other (OpenID Connect Core §3.1.3.7).
    pub(crate) fn id_token_algorithm(&self, client: &Client) -> Option<SigningAlgorithm> {
        let wish = client.id_token_signed_response_alg;
        self.config.keys.algorithms.contains(&wish).then_some(wish)
    }
}
