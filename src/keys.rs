//! The signing keys of an installation: made at first start, published before they sign and until their last token is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};

use crate::audit::{Event, Kind, Trail};
use crate::compressed::Compressed;
use crate::protocol::jose::{
    self, JoseError, KeyPair, PublicJwk, Signer, SigningAlgorithm, Typ, VerificationKey,
};
use crate::protocol::seal::{RootKey, SealingKey, TokenHash};
use crate::protocol::time::Timestamp;
use crate::store::signing_keys::{self, KeyState, StoredKey};
use crate::store::{Store, StoreError, audit_events};

/// A token signed with a retired key lives at most this long, whatever the configuration says.
pub const LONGEST_RETIREMENT: Duration = Duration::from_secs(40 * 86_400);
/// Apps keep ID tokens to send them back as hints; older ones than this mean nothing to anybody.
pub const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// Why keys can't be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Jose(#[from] JoseError),
    #[error(
        "the signing key {0} can't be decrypted: secret_key is not the one that this database was made with"
    )]
    WrongSecretKey(String),
    #[error("the signing key {0} in the database can't be read")]
    Garbled(String),
}

impl KeyError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Jose(error) => error.is_passing(),
            Self::WrongSecretKey(_) | Self::Garbled(_) => false,
        }
    }
}

/// The keys as a running server sees them; every clone sees the same.
#[derive(Clone)]
pub struct KeyRing(Arc<ArcSwap<Keys>>);

/// One consistent view of all keys, ready to sign and to publish.
pub struct Keys {
    stored: Vec<StoredKey>,
    signers: BTreeMap<&'static str, Arc<Signer>>,
    for_access_tokens: Option<SigningAlgorithm>,
    verification: Vec<VerificationKey>,
    jwks: Compressed,
    jwks_etag: String,
}

impl KeyRing {
    /// Wraps what was loaded.
    pub fn new(keys: Keys) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys)))
    }

    /// The keys of this moment.
    pub fn load(&self) -> Arc<Keys> {
        self.0.load_full()
    }

    /// Takes over what another process or a rotation changed.
    pub fn refresh(
        &self,
        stored: Vec<StoredKey>,
        root: &RootKey,
        algorithms: &[SigningAlgorithm],
    ) -> Result<bool, KeyError> {
        if self.0.load().stored == stored {
            return Ok(false);
        }
        self.0
            .store(Arc::new(Keys::read(stored, root, algorithms)?));
        Ok(true)
    }
}

impl Keys {
    /// Decrypts and prepares what lies in the database. Only the algorithms that are switched on sign.
    pub fn read(
        stored: Vec<StoredKey>,
        root: &RootKey,
        algorithms: &[SigningAlgorithm],
    ) -> Result<Self, KeyError> {
        let sealing = sealing_key(root);
        let mut signers = BTreeMap::new();
        let mut verification = Vec::new();
        let mut published = Vec::new();
        for key in &stored {
            let garbled = || KeyError::Garbled(key.kid.clone());
            let jwk: PublicJwk =
                serde_json::from_str(&key.public_jwk).map_err(|_not_a_jwk| garbled())?;
            verification.push(VerificationKey::new(&jwk)?);
            let algorithm: SigningAlgorithm =
                key.algorithm.parse().map_err(|_unknown| garbled())?;
            if key.state == KeyState::Current && algorithms.contains(&algorithm) {
                let private = sealing
                    .open(&key.private_key, &associated_data(&key.kid))
                    .ok_or_else(|| KeyError::WrongSecretKey(key.kid.clone()))?;
                let pair = KeyPair::from_pkcs8_der(algorithm, &private)?;
                signers.insert(algorithm.as_str(), Arc::new(Signer::new(&pair)?));
            }
            if key.is_published() {
                published.push(jwk);
            }
        }
        let jwks = json!({ "keys": published }).to_string();
        let jwks_etag = TokenHash::of(&jwks).short();
        Ok(Self {
            stored,
            signers,
            for_access_tokens: algorithms
                .iter()
                .find(|algorithm| **algorithm == SigningAlgorithm::Es256)
                .or(algorithms.first())
                .copied(),
            verification,
            jwks: Compressed::new(jwks),
            jwks_etag,
        })
    }

    /// Signs with the current key of an algorithm.
    pub fn signer(&self, algorithm: SigningAlgorithm) -> Option<Arc<Signer>> {
        self.signers.get(algorithm.as_str()).cloned()
    }

    /// The algorithm for access tokens: ES256, quick and small, where it is switched on, or else the first.
    pub fn for_access_tokens(&self) -> Option<Arc<Signer>> {
        self.signer(self.for_access_tokens?)
    }

    /// The claims of an ID token that any of our keys signed, retired ones too; times are not judged.
    pub fn verify_id_token(&self, token: &str) -> Option<Map<String, Value>> {
        jose::verify_own(token, &self.verification, Typ::IdToken).ok()
    }

    /// The claims of an access token that any of our keys signed; times are not judged.
    pub fn verify_access_token(&self, token: &str) -> Option<Map<String, Value>> {
        jose::verify_own(token, &self.verification, Typ::AccessToken).ok()
    }

    /// The JWKS document (RFC 7517 §5).
    pub fn jwks(&self) -> &Compressed {
        &self.jwks
    }

    /// Changes when the document does.
    pub fn jwks_etag(&self) -> &str {
        &self.jwks_etag
    }

    /// What lies in the database.
    pub fn stored(&self) -> &[StoredKey] {
        &self.stored
    }
}

/// Refuses a root key that is not the database's: whatever was written with it nobody could read. One key that it opens is
/// proof enough, since a key that was damaged must not look like a wrong secret.
pub fn check_root_key(stored: &[StoredKey], root: &RootKey) -> Result<(), KeyError> {
    let published = stored.iter().filter(|key| key.is_published()).count();
    let closed = closed_to(stored, root);
    match closed.first() {
        Some(kid) if closed.len() == published => Err(KeyError::WrongSecretKey((*kid).to_owned())),
        _ => Ok(()),
    }
}

/// The published keys that a root key does not open.
pub fn closed_to<'a>(stored: &'a [StoredKey], root: &RootKey) -> Vec<&'a str> {
    let sealing = sealing_key(root);
    let closed = stored.iter().filter(|key| {
        key.is_published()
            && sealing
                .open(&key.private_key, &associated_data(&key.kid))
                .is_none()
    });
    closed.map(|key| key.kid.as_str()).collect()
}

/// Makes a current key for each algorithm that has none. Any number of processes may do this at once.
pub fn ensure(
    store: &Store,
    root: &RootKey,
    algorithms: &[SigningAlgorithm],
    now: Timestamp,
) -> Result<Vec<StoredKey>, KeyError> {
    let stored = store.read_blocking(signing_keys::list)?;
    for algorithm in algorithms {
        if !stored
            .iter()
            .any(|key| key.algorithm == algorithm.as_str() && key.state == KeyState::Current)
        {
            let key = generate(*algorithm, root, KeyState::Current, now)?;
            let trail = Trail::of_server(now);
            store.write_blocking(move |tx| {
                if signing_keys::insert(tx, &key)? {
                    let event = event_of(Kind::KeyCreated, &key.kid, &key.algorithm);
                    audit_events::record(tx, &trail, &event)?;
                }
                Ok(())
            })?;
        }
    }
    Ok(store.read_blocking(signing_keys::list)?)
}

/// Publishes the next key of every algorithm that has none yet, and whose current one became that at or before a time;
/// it signs after caches have seen it.
pub fn publish_next(
    store: &Store,
    root: &RootKey,
    algorithms: &[SigningAlgorithm],
    activated_by: Timestamp,
    trail: &Trail,
) -> Result<Vec<String>, KeyError> {
    let stored = store.read_blocking(signing_keys::list)?;
    let mut published = Vec::new();
    for algorithm in algorithms {
        if stored
            .iter()
            .any(|key| key.algorithm == algorithm.as_str() && key.state == KeyState::Next)
        {
            continue;
        }
        let key = generate(*algorithm, root, KeyState::Next, trail.now)?;
        let kid = key.kid.clone();
        let trail = trail.clone();
        let made = store.write_blocking(move |tx| {
            let made = signing_keys::publish(tx, &key, activated_by)?;
            if made {
                let event = event_of(Kind::KeyPublished, &key.kid, &key.algorithm);
                audit_events::record(tx, &trail, &event)?;
            }
            Ok(made)
        })?;
        if made {
            published.push(kid);
        }
    }
    Ok(published)
}

/// Lets next keys sign that were published at or before a time.
pub fn promote(
    store: &Store,
    algorithms: &[SigningAlgorithm],
    published_by: Timestamp,
    trail: &Trail,
) -> Result<usize, KeyError> {
    let (algorithms, trail) = (algorithms.to_vec(), trail.clone());
    Ok(store.write_blocking(move |tx| {
        let mut promoted = 0;
        for algorithm in &algorithms {
            let name = algorithm.as_str();
            if let Some(rotated) = signing_keys::promote(tx, name, published_by, trail.now)? {
                let event = event_of(Kind::KeyRotated, &rotated.kid, name);
                let event = event.noting("retired", rotated.retired);
                audit_events::record(tx, &trail, &event)?;
                promoted += 1;
            }
        }
        Ok(promoted)
    })?)
}

/// Something that happened to a key.
pub(crate) fn event_of(kind: Kind, kid: &str, algorithm: &str) -> Event {
    Event::new(kind).target(kid).noting("algorithm", algorithm)
}

fn generate(
    algorithm: SigningAlgorithm,
    root: &RootKey,
    state: KeyState,
    now: Timestamp,
) -> Result<StoredKey, KeyError> {
    let pair = KeyPair::generate(algorithm)?;
    let kid = pair.kid().to_owned();
    let private_key = sealing_key(root).seal(&pair.to_pkcs8_der()?, &associated_data(&kid));
    Ok(StoredKey {
        algorithm: algorithm.as_str().to_owned(),
        state,
        public_jwk: json!(pair.public_jwk()).to_string(),
        private_key,
        created_at: now,
        activated_at: (state == KeyState::Current).then_some(now),
        retired_at: None,
        kid,
    })
}

fn sealing_key(root: &RootKey) -> SealingKey {
    SealingKey::derive(root, "signing_keys")
}

/// Table, column and row, so that a sealed value is of no use anywhere else.
fn associated_data(kid: &str) -> Vec<u8> {
    format!("signing_keys.private_key.{kid}").into_bytes()
}
