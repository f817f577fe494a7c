//! The algorithms we sign with. RFC 7518 §3.1; RFC 8037 §3.1; RFC 8725 §3.1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An asymmetric signature algorithm; `none` and the symmetric ones cannot be written down at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "ES256")]
    Es256,
    /// Always over Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The name is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signing algorithm: expected RS256, PS256, ES256 or EdDSA")]
pub struct UnknownAlgorithm;

impl SigningAlgorithm {
    /// In the order in which discovery lists them: the default of OpenID Connect first.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The name registered with IANA.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl FromStr for SigningAlgorithm {
    type Err = UnknownAlgorithm;

    // Names are case-sensitive (RFC 7515 §4.1.1): "NoNe" and "rs256" are other algorithms, and we have none such.
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_parsed_and_printed_under_its_registered_name() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert_eq!(
                serde_json::to_value(algorithm).unwrap(),
                algorithm.to_string()
            );
        }
    }

    #[test]
    fn none_and_symmetric_and_miscased_names_are_unknown() {
        for name in [
            "none", "None", "NONE", "", "HS256", "rs256", "EDDSA", "RS256 ", "RS1",
        ] {
            assert_eq!(
                name.parse::<SigningAlgorithm>(),
                Err(UnknownAlgorithm),
                "{name:?}"
            );
        }
    }
}
