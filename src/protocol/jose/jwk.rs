//! Signing keys, and what the world sees of them. RFC 7517 §4; RFC 7518 §6; RFC 7638; RFC 8037 §2.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{JoseError, SigningAlgorithm};

const RSA_BITS: u32 = 2048;
const P256_BYTES: i32 = 32;

/// A private key that is used with one algorithm only.
#[derive(Clone)]
pub struct KeyPair {
    algorithm: SigningAlgorithm,
    private: PKey<Private>,
    public: PublicJwk,
}

/// A public key as the JWKS document shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicJwk {
    #[serde(flatten)]
    pub material: PublicMaterial,
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    pub alg: SigningAlgorithm,
    pub kid: String,
}

/// The members that make the key, numbers in base64url without padding. No private member has a place here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum PublicMaterial {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Ec { crv: String, x: String, y: String },
    #[serde(rename = "OKP")]
    Okp { crv: String, x: String },
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyUse {
    #[serde(rename = "sig")]
    Signature,
}

impl KeyPair {
    /// RSA takes tenths of a second up to seconds: never inside a transaction or on an async thread.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, JoseError> {
        let private = generate_private(algorithm)
            .map_err(|error| JoseError::Key("a key cannot be generated", error.into()))?;
        Self::new(algorithm, private)
    }

    /// Reads a key that [`Self::to_pkcs8_der`] wrote, and refuses one that is of no use with the algorithm.
    pub fn from_pkcs8_der(algorithm: SigningAlgorithm, der: &[u8]) -> Result<Self, JoseError> {
        let private = PKey::private_key_from_pkcs8(der)
            .map_err(|error| JoseError::Key("a private key cannot be read", error.into()))?;
        Self::new(algorithm, private)
    }

    /// Secret and not encrypted: seal it before it goes anywhere.
    pub fn to_pkcs8_der(&self) -> Result<Vec<u8>, JoseError> {
        self.private
            .private_key_to_pkcs8()
            .map_err(|error| JoseError::Key("a private key cannot be written", error.into()))
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The RFC 7638 thumbprint: it follows from the key, so every node and every restore gives the same.
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    pub fn public_jwk(&self) -> &PublicJwk {
        &self.public
    }

    fn new(algorithm: SigningAlgorithm, private: PKey<Private>) -> Result<Self, JoseError> {
        let material = public_material(algorithm, &private)
            .map_err(|error| JoseError::Key("a public key cannot be derived", error.into()))?
            .ok_or(JoseError::WrongKey(algorithm))?;
        let public = PublicJwk {
            kid: material.thumbprint(),
            material,
            key_use: KeyUse::Signature,
            alg: algorithm,
        };
        Ok(Self {
            algorithm,
            private,
            public,
        })
    }
}

impl PublicMaterial {
    /// SHA-256 over the required members in lexicographic order, RFC 7638 §3.
    pub fn thumbprint(&self) -> String {
        // Base64url and curve names need no JSON escapes, so the canonical form can be written directly.
        let canonical = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { crv, x, y } => {
                format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{x}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, {}, ..)", self.algorithm, self.public.kid)
    }
}

fn generate_private(algorithm: SigningAlgorithm) -> Result<PKey<Private>, ErrorStack> {
    match algorithm {
        SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256 => {
            PKey::from_rsa(Rsa::generate(RSA_BITS)?)
        }
        SigningAlgorithm::Es256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)
        }
        SigningAlgorithm::EdDsa => PKey::generate_ed25519(),
    }
}

/// None when the key is of another type, curve or size than the algorithm needs.
fn public_material(
    algorithm: SigningAlgorithm,
    private: &PKey<Private>,
) -> Result<Option<PublicMaterial>, ErrorStack> {
    match (algorithm, private.id()) {
        (SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256, Id::RSA) => {
            let rsa = private.rsa()?;
            // RFC 7518 §3.3 and §3.5: 2048 bits or more.
            Ok((private.bits() >= RSA_BITS).then(|| PublicMaterial::Rsa {
                n: URL_SAFE_NO_PAD.encode(rsa.n().to_vec()),
                e: URL_SAFE_NO_PAD.encode(rsa.e().to_vec()),
            }))
        }
        (SigningAlgorithm::Es256, Id::EC) => p256_material(&*private.ec_key()?),
        (SigningAlgorithm::EdDsa, Id::ED25519) => Ok(Some(PublicMaterial::Okp {
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(private.raw_public_key()?),
        })),
        _ => Ok(None),
    }
}

fn p256_material(
    key: &openssl::ec::EcKeyRef<Private>,
) -> Result<Option<PublicMaterial>, ErrorStack> {
    if key.group().curve_name() != Some(Nid::X9_62_PRIME256V1) {
        return Ok(None);
    }
    let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
    let mut context = BigNumContext::new()?;
    key.public_key()
        .affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
    // RFC 7518 §6.2.1.2: the full size of a coordinate, leading zeros included.
    Ok(Some(PublicMaterial::Ec {
        crv: "P-256".to_owned(),
        x: URL_SAFE_NO_PAD.encode(x.to_vec_padded(P256_BYTES)?),
        y: URL_SAFE_NO_PAD.encode(y.to_vec_padded(P256_BYTES)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_7638() {
        let material = PublicMaterial::Rsa {
            n: concat!(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc",
                "_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ",
                "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF",
                "TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            )
            .to_owned(),
            e: "AQAB".to_owned(),
        };
        assert_eq!(
            material.thumbprint(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    #[test]
    fn the_thumbprint_of_an_ed25519_key_is_the_one_of_rfc_8037() {
        let material = PublicMaterial::Okp {
            crv: "Ed25519".to_owned(),
            x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned(),
        };
        assert_eq!(
            material.thumbprint(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_public_key_shows_what_a_relying_party_needs_and_nothing_else() {
        for algorithm in SigningAlgorithm::ALL {
            let key = KeyPair::generate(algorithm).unwrap();
            let shown = serde_json::to_value(key.public_jwk()).unwrap();
            let mut members: Vec<_> = shown
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            members.sort_unstable();
            let expected: &[&str] = match algorithm {
                SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256 => {
                    &["alg", "e", "kid", "kty", "n", "use"]
                }
                SigningAlgorithm::Es256 => &["alg", "crv", "kid", "kty", "use", "x", "y"],
                SigningAlgorithm::EdDsa => &["alg", "crv", "kid", "kty", "use", "x"],
            };
            assert_eq!(members, expected);
            assert_eq!(shown["alg"], algorithm.as_str());
            assert_eq!(shown["use"], "sig");
            assert_eq!(shown["kid"], key.kid());
            assert!(!shown.to_string().contains('='));
            let read_back: PublicJwk = serde_json::from_value(shown).unwrap();
            assert_eq!(&read_back, key.public_jwk());
        }
    }

    #[test]
    fn a_key_survives_being_written_and_read_with_the_same_kid() {
        for algorithm in SigningAlgorithm::ALL {
            let key = KeyPair::generate(algorithm).unwrap();
            let read = KeyPair::from_pkcs8_der(algorithm, &key.to_pkcs8_der().unwrap()).unwrap();
            assert_eq!(read.kid(), key.kid());
            assert_eq!(read.kid().len(), 43);
        }
    }

    #[test]
    fn a_key_of_another_type_is_refused() {
        let elliptic = KeyPair::generate(SigningAlgorithm::Es256)
            .unwrap()
            .to_pkcs8_der()
            .unwrap();
        for algorithm in [
            SigningAlgorithm::Rs256,
            SigningAlgorithm::Ps256,
            SigningAlgorithm::EdDsa,
        ] {
            assert!(matches!(
                KeyPair::from_pkcs8_der(algorithm, &elliptic),
                Err(JoseError::WrongKey(_))
            ));
        }
    }

    #[test]
    fn another_curve_and_a_short_rsa_key_are_refused() {
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        let p384 = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let short = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        for (algorithm, key) in [
            (SigningAlgorithm::Es256, p384),
            (SigningAlgorithm::Rs256, short),
        ] {
            let der = key.private_key_to_pkcs8().unwrap();
            assert!(matches!(
                KeyPair::from_pkcs8_der(algorithm, &der),
                Err(JoseError::WrongKey(_))
            ));
        }
    }

    #[test]
    fn garbage_is_not_a_key() {
        assert!(KeyPair::from_pkcs8_der(SigningAlgorithm::Es256, b"garbage").is_err());
    }

    #[test]
    fn a_coordinate_keeps_its_leading_zeros() {
        for _ in 0..600 {
            let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
            let PublicMaterial::Ec { x, y, .. } = &key.public_jwk().material else {
                unreachable!("an ES256 key is an EC key")
            };
            assert_eq!((x.len(), y.len()), (43, 43));
        }
    }

    #[test]
    fn a_key_pair_hides_itself() {
        let key = KeyPair::generate(SigningAlgorithm::EdDsa).unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("KeyPair(EdDSA, {}, ..)", key.kid())
        );
    }
}
