//! Keys and signatures: the only place that names the JOSE crate. RFC 7515, 7517, 7518, 7519, 7638; RFC 8725.
//!
//! - `algorithm`: the algorithms we sign with, under their registered names
//! - `client_key`: the keys that clients register, and what they sign
//! - `jwk`: key pairs, the public keys a relying party sees, thumbprints
//! - `jws`: signing our tokens and recognising them again

pub mod algorithm;
pub mod client_key;
pub mod jwk;
pub mod jws;

pub use algorithm::SigningAlgorithm;
pub use client_key::ClientKey;
pub use jwk::{KeyPair, PublicJwk};
pub use jws::{Signer, Typ, VerificationKey, half_hash, unverified_claims, verify_own};

/// A key or a token that cannot be used; the message is for the log, it never quotes the token.
#[derive(Debug, thiserror::Error)]
pub enum JoseError {
    /// A fault of ours: a key that OpenSSL or the JOSE crate does not take.
    #[error("{0}")]
    Key(
        &'static str,
        #[source] Box<dyn std::error::Error + Send + Sync>,
    ),
    /// A key of another type or strength than its algorithm needs.
    #[error("the key does not fit {0}")]
    WrongKey(SigningAlgorithm),
    #[error("signing failed")]
    Signing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The token is not signed as it must be, or not of the kind that was asked for.
    #[error("the token was refused: {0}")]
    Refused(&'static str),
}
