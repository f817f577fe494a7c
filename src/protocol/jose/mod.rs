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

use std::error::Error;

pub use algorithm::SigningAlgorithm;
pub use client_key::ClientKey;
pub use jwk::{KeyPair, PublicJwk};
pub use jws::{Signer, Typ, VerificationKey, half_hash, unverified_claims, verify_own};

/// OpenSSL's words where it got no memory.
const NO_MEMORY: &str = "malloc failure";

/// A key or a token that cannot be used; the message is for the log, it never quotes the token.
#[derive(Debug, thiserror::Error)]
pub enum JoseError {
    /// A fault of ours: a key that OpenSSL or the JOSE crate does not take.
    #[error("{0}")]
    Key(&'static str, #[source] Box<dyn Error + Send + Sync>),
    /// A key of another type or strength than its algorithm needs.
    #[error("the key does not fit {0}")]
    WrongKey(SigningAlgorithm),
    #[error("signing failed")]
    Signing(#[source] Box<dyn Error + Send + Sync>),
    /// The token is not signed as it must be, or not of the kind that was asked for.
    #[error("the token was refused: {0}")]
    Refused(&'static str),
}

impl JoseError {
    /// Whether the same may work in a moment: there was no memory.
    pub fn is_passing(&self) -> bool {
        let mut cause = self.source();
        while let Some(inner) = cause {
            if inner.to_string().contains(NO_MEMORY) {
                return true;
            }
            cause = inner.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r28_what_failed_for_want_of_memory_may_be_tried_again() {
        let signing = |text: &str| JoseError::Signing(text.into());
        let out_of_memory =
            "error:078C0100:common libcrypto routines::malloc failure:crypto/bn/bn_exp.c:729:";
        assert!(signing(out_of_memory).is_passing());
        assert!(JoseError::Key("an RSA key", out_of_memory.into()).is_passing());
        assert!(!signing("error:0200007A:rsa routines::data too large for key size").is_passing());
        assert!(!JoseError::Refused("malloc failure").is_passing());
    }
}
