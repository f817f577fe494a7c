//! How values look in a row: lists and objects as JSON text, hashes as bytes, times as seconds.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types always have a JSON form")
}

/// A value from the JSON text of a row.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(StoreError::fault)
}

/// A hash from the bytes of a row.
pub(super) fn to_hash(bytes: &[u8]) -> Result<TokenHash, StoreError> {
    TokenHash::from_slice(bytes).ok_or_else(|| StoreError::fault(WrongLength))
}

/// A time from the seconds of a row.
pub(super) fn to_time(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

#[derive(Debug, thiserror::Error)]
#[error("a hash in the database is not 32 bytes long")]
struct WrongLength;
