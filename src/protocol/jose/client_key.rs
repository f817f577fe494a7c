//! The keys that a client registered, and what it signed with them. RFC 7517 §4; RFC 8725 §3.1.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwk::{KeyUse, PublicMaterial};
use super::jws::{self, MAX_KID_CHARS, refused};
use super::{JoseError, PublicJwk, SigningAlgorithm};

const MOST_KEYS: usize = 32;
const LONGEST_SET: usize = 64 * 1024;
/// Longer ones cost more than they are worth to anyone.
const LONGEST_RSA_BITS: usize = 8 * 1024;
const SHORTEST_RSA_BITS: usize = 2048;
/// What no public key has (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key with which a client may sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    #[serde(flatten)]
    pub material: PublicMaterial,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The only algorithm that it is for; otherwise each that its type allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alg: Option<SigningAlgorithm>,
}

impl ClientKey {
    /// Reads a JWK set (RFC 7517 §5). Each error says what is wrong with which key.
    pub fn read_set(set: &Value) -> Result<Vec<Self>, String> {
        if set.to_string().len() > LONGEST_SET {
            return Err(format!("has more than {LONGEST_SET} bytes"));
        }
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("is an object with a list of keys")?;
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(format!("has 1 to {MOST_KEYS} keys"));
        }
        let mut read: Vec<Self> = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let key = Self::read(key).map_err(|reason| format!("keys[{index}] {reason}"))?;
            if key.kid.is_some() && read.iter().any(|other| other.kid == key.kid) {
                return Err(format!("keys[{index}] has the kid of another key"));
            }
            read.push(key);
        }
        Ok(read)
    }

    fn read(key: &Value) -> Result<Self, String> {
        let members = key.as_object().ok_or("is no object")?;
        if PRIVATE.iter().any(|name| members.contains_key(*name)) {
            return Err("holds a private or a symmetric key; register the public one".to_owned());
        }
        if members.get("use").is_some_and(|it| it != "sig") {
            return Err("is not for signatures (use)".to_owned());
        }
        let verifies = |operations: &Value| {
            operations
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == "verify"))
        };
        if members.get("key_ops").is_some_and(|it| !verifies(it)) {
            return Err("is not for verifying (key_ops)".to_owned());
        }
        let key: Self = serde_json::from_value(key.clone()).map_err(|_cause| {
            "is not a public RSA, EC or OKP key for RS256, PS256, ES256 or EdDSA".to_owned()
        })?;
        if let Some(kid) = &key.kid
            && !(1..=MAX_KID_CHARS).contains(&kid.chars().count())
        {
            return Err(format!("has a kid of more than {MAX_KID_CHARS} characters"));
        }
        if let PublicMaterial::Rsa { n, e } = &key.material {
            // With an exponent of one every number is its own signature.
            if !jws::decode(e).is_ok_and(|exponent| is_odd_and_above_one(&exponent)) {
                return Err("is an RSA key whose exponent is not odd and above one".to_owned());
            }
            let bits = jws::decode(n).map_or(0, |modulus| bits(&modulus));
            if !(SHORTEST_RSA_BITS..=LONGEST_RSA_BITS).contains(&bits) {
                return Err(format!(
                    "is an RSA key of {bits} bits; {SHORTEST_RSA_BITS} to {LONGEST_RSA_BITS} are taken"
                ));
            }
        }
        if key.algorithms().is_empty() {
            return Err("has an alg that its kty and crv do not fit".to_owned());
        }
        // The point may still not lie on the curve.
        for algorithm in key.algorithms() {
            key.verifier(algorithm)
                .map_err(|_cause| "cannot be read".to_owned())?;
        }
        Ok(key)
    }

    /// Under which it may verify.
    pub fn algorithms(&self) -> Vec<SigningAlgorithm> {
        let of_type: &[SigningAlgorithm] = match &self.material {
            PublicMaterial::Rsa { .. } => &[SigningAlgorithm::Rs256, SigningAlgorithm::Ps256],
            PublicMaterial::Ec { crv, .. } if crv == "P-256" => &[SigningAlgorithm::Es256],
            PublicMaterial::Okp { crv, .. } if crv == "Ed25519" => &[SigningAlgorithm::EdDsa],
            PublicMaterial::Ec { .. } | PublicMaterial::Okp { .. } => &[],
        };
        let wanted = |algorithm: &SigningAlgorithm| self.alg.is_none_or(|alg| alg == *algorithm);
        of_type.iter().copied().filter(wanted).collect()
    }

    fn verifier(&self, algorithm: SigningAlgorithm) -> Result<Box<jws::Verifier>, JoseError> {
        jws::josekit_verifier(&PublicJwk {
            material: self.material.clone(),
            key_use: KeyUse::Signature,
            alg: algorithm,
            kid: self.kid.clone().unwrap_or_default(),
        })
    }
}

/// The claims of a JWT that one of these keys signed, under this algorithm if one is named. The claims are not judged.
pub fn verify(
    token: &str,
    keys: &[ClientKey],
    only: Option<SigningAlgorithm>,
) -> Result<Map<String, Value>, JoseError> {
    let parts = jws::Parts::of(token)?;
    // A key that comes with the token proves nothing, and nothing is fetched.
    if ["jku", "jwk", "x5u", "x5c"]
        .iter()
        .any(|name| parts.header.contains_key(*name))
    {
        return Err(refused("a key, or an address of one, in the header"));
    }
    jws::check_kind(
        &parts.header,
        &["JWT", "client-authentication+jwt"],
        jws::MayBeAbsent::Yes,
    )?;
    let algorithm: SigningAlgorithm = jws::text(&parts.header, "alg")
        .and_then(|name| name.parse().ok())
        .filter(|algorithm| only.is_none_or(|only| only == *algorithm))
        .ok_or(refused("an alg that this client does not sign with"))?;
    let key = key_for(&parts.header, keys, algorithm)?;
    parts.verify(key.verifier(algorithm)?.as_ref())
}

fn key_for<'k>(
    header: &Map<String, Value>,
    keys: &'k [ClientKey],
    algorithm: SigningAlgorithm,
) -> Result<&'k ClientKey, JoseError> {
    let mut fitting = keys
        .iter()
        .filter(|key| key.algorithms().contains(&algorithm));
    match header.get("kid") {
        Some(kid) => {
            let kid = kid.as_str().ok_or(refused("a kid that is no text"))?;
            fitting
                .find(|key| key.kid.as_deref() == Some(kid))
                .ok_or(refused("unknown kid"))
        }
        None => match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(refused("no kid, and several keys that fit")),
            (None, _) => Err(refused("no key that fits its alg")),
        },
    }
}

fn is_odd_and_above_one(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last % 2 == 1) && bits(number) > 1
}

fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let first = significant
        .clone()
        .next()
        .map_or(0, |byte| byte.leading_zeros());
    (significant.count() * 8).saturating_sub(usize::try_from(first).unwrap_or(0))
}
