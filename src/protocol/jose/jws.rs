//! Signing our tokens, and recognising them again. RFC 7515 §3.1, §5; RFC 8725 §3.1, §3.11; OpenID Connect Core §3.3.2.11.
//!
//! What comes back to us (`id_token_hint`, an access token at UserInfo) is judged in three steps: is it ours and of
//! this kind (here), is it meant for this use (the caller: iss, aud, sub), is it in time (the caller again). The JOSE
//! crate's own payload validator is not used: it accepts tokens without `aud` and `exp`, and panics on a huge `exp`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jws::alg::eddsa::EddsaJwsAlgorithm;
use josekit::jws::{ES256, JwsSigner, JwsVerifier, PS256, RS256};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::{JoseError, KeyPair, PublicJwk, SigningAlgorithm};

const MAX_TOKEN_BYTES: usize = 8 * 1024;
pub(super) const MAX_KID_CHARS: usize = 128;

/// The kind of a token, so that one kind is never taken for another. RFC 8725 §3.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typ {
    /// Also a signed UserInfo answer.
    IdToken,
    /// RFC 9068 §2.1.
    AccessToken,
    /// OpenID Connect Back-Channel Logout §2.4.
    LogoutToken,
}

/// A private key made ready once: keys parsed, headers encoded.
pub struct Signer {
    algorithm: SigningAlgorithm,
    kid: String,
    signer: Box<dyn JwsSigner>,
    id_token_header: String,
    access_token_header: String,
    logout_token_header: String,
}

/// A public key of ours made ready once, of an active or of a retired pair.
pub struct VerificationKey {
    kid: String,
    algorithm: SigningAlgorithm,
    verifier: Box<dyn JwsVerifier>,
}

impl Signer {
    pub fn new(key: &KeyPair) -> Result<Self, JoseError> {
        let algorithm = key.algorithm();
        Ok(Self {
            algorithm,
            kid: key.kid().to_owned(),
            signer: josekit_signer(algorithm, &key.to_pkcs8_der()?)?,
            id_token_header: encoded_header(algorithm, key.kid(), Typ::IdToken),
            access_token_header: encoded_header(algorithm, key.kid(), Typ::AccessToken),
            logout_token_header: encoded_header(algorithm, key.kid(), Typ::LogoutToken),
        })
    }

    /// The compact form of a signed token. Takes a quarter of a millisecond with RSA: not inside a transaction.
    pub fn sign<C: Serialize + ?Sized>(&self, typ: Typ, claims: &C) -> Result<String, JoseError> {
        let payload =
            serde_json::to_vec(claims).map_err(|error| JoseError::Signing(error.into()))?;
        let mut token = self.header(typ).to_owned();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self
            .signer
            .sign(token.as_bytes())
            .map_err(|error| JoseError::Signing(error.into()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    fn header(&self, typ: Typ) -> &str {
        match typ {
            Typ::IdToken => &self.id_token_header,
            Typ::AccessToken => &self.access_token_header,
            Typ::LogoutToken => &self.logout_token_header,
        }
    }
}

impl VerificationKey {
    pub fn new(jwk: &PublicJwk) -> Result<Self, JoseError> {
        Ok(Self {
            kid: jwk.kid.clone(),
            algorithm: jwk.alg,
            verifier: josekit_verifier(jwk)?,
        })
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The claims of a token that one of these keys of ours signed as this kind.
///
/// The claims themselves are not judged: neither presence nor times, since an `id_token_hint` may have expired.
pub fn verify_own(
    token: &str,
    keys: &[VerificationKey],
    expected: Typ,
) -> Result<Map<String, Value>, JoseError> {
    let parts = Parts::of(token)?;
    let key = key_for(&parts.header, keys)?;
    let may_be_absent = if expected == Typ::IdToken {
        MayBeAbsent::Yes
    } else {
        MayBeAbsent::No
    };
    check_kind(&parts.header, &[expected.as_str()], may_be_absent)?;
    parts.verify(key.verifier.as_ref())
}

/// The claims of a token that nobody has verified: good for nothing but finding the keys with which to do that.
pub fn unverified_claims(token: &str) -> Result<Map<String, Value>, JoseError> {
    decode_object(Parts::of(token)?.payload)
}

/// What checks signatures.
pub(super) type Verifier = dyn JwsVerifier;

/// A token in its compact form, taken apart.
pub(super) struct Parts<'t> {
    pub(super) header: Map<String, Value>,
    /// What is signed.
    message: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    pub(super) fn of(token: &'t str) -> Result<Self, JoseError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(refused("not three parts"))?;
        let (header, payload) = message.split_once('.').ok_or(refused("not three parts"))?;
        if payload.contains('.') {
            return Err(refused("not three parts"));
        }
        Ok(Self {
            header: decode_object(header)?,
            message,
            payload,
            signature,
        })
    }

    /// The claims, if the signature is good.
    pub(super) fn verify(&self, verifier: &Verifier) -> Result<Map<String, Value>, JoseError> {
        verifier
            .verify(self.message.as_bytes(), &decode(self.signature)?)
            .map_err(|_cause| refused("wrong signature"))?;
        decode_object(self.payload)
    }
}

/// The left half of a hash, for `at_hash` and `c_hash`. OpenID Connect Core §3.3.2.11.
pub fn half_hash(algorithm: SigningAlgorithm, value: &str) -> String {
    match algorithm {
        SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256 | SigningAlgorithm::Es256 => {
            left_half(&Sha256::digest(value))
        }
        // Ed25519 hashes with SHA-512 inside, and that is the hash that belongs to it.
        SigningAlgorithm::EdDsa => left_half(&Sha512::digest(value)),
    }
}

fn left_half(hash: &[u8]) -> String {
    let (half, _) = hash.split_at(hash.len() / 2);
    URL_SAFE_NO_PAD.encode(half)
}

fn josekit_signer(
    algorithm: SigningAlgorithm,
    der: &[u8],
) -> Result<Box<dyn JwsSigner>, JoseError> {
    let signer: Result<Box<dyn JwsSigner>, _> = match algorithm {
        SigningAlgorithm::Rs256 => RS256.signer_from_der(der).map(|s| Box::new(s) as _),
        SigningAlgorithm::Ps256 => PS256.signer_from_der(der).map(|s| Box::new(s) as _),
        SigningAlgorithm::Es256 => ES256.signer_from_der(der).map(|s| Box::new(s) as _),
        SigningAlgorithm::EdDsa => EddsaJwsAlgorithm::Eddsa
            .signer_from_der(der)
            .map(|s| Box::new(s) as _),
    };
    signer.map_err(|error| JoseError::Key("a signer cannot be made", error.into()))
}

pub(super) fn josekit_verifier(jwk: &PublicJwk) -> Result<Box<dyn JwsVerifier>, JoseError> {
    let members = serde_json::to_vec(jwk)
        .map_err(|error| JoseError::Key("a public key cannot be written", error.into()))?;
    let key = Jwk::from_bytes(members)
        .map_err(|error| JoseError::Key("a public key cannot be read", error.into()))?;
    // Each of these also checks that kty, crv, use and alg fit: a key made for one algorithm verifies no other.
    let verifier: Result<Box<dyn JwsVerifier>, _> = match jwk.alg {
        SigningAlgorithm::Rs256 => RS256.verifier_from_jwk(&key).map(|v| Box::new(v) as _),
        SigningAlgorithm::Ps256 => PS256.verifier_from_jwk(&key).map(|v| Box::new(v) as _),
        SigningAlgorithm::Es256 => ES256.verifier_from_jwk(&key).map(|v| Box::new(v) as _),
        SigningAlgorithm::EdDsa => EddsaJwsAlgorithm::Eddsa
            .verifier_from_jwk(&key)
            .map(|v| Box::new(v) as _),
    };
    verifier.map_err(|error| JoseError::Key("a verifier cannot be made", error.into()))
}

fn encoded_header(algorithm: SigningAlgorithm, kid: &str, typ: Typ) -> String {
    let header = json!({ "alg": algorithm, "kid": kid, "typ": typ.as_str() });
    URL_SAFE_NO_PAD.encode(header.to_string())
}

impl Typ {
    fn as_str(self) -> &'static str {
        match self {
            Self::IdToken => "JWT",
            Self::AccessToken => "at+jwt",
            Self::LogoutToken => "logout+jwt",
        }
    }
}

/// The key is looked up by its id, and then decides the algorithm: the header only may agree. RFC 8725 §3.1.
fn key_for<'k>(
    header: &Map<String, Value>,
    keys: &'k [VerificationKey],
) -> Result<&'k VerificationKey, JoseError> {
    let kid = text(header, "kid").ok_or(refused("no kid"))?;
    if kid.chars().count() > MAX_KID_CHARS {
        return Err(refused("kid too long"));
    }
    let key = keys
        .iter()
        .find(|key| key.kid == kid)
        .ok_or(refused("unknown kid"))?;
    if text(header, "alg") != Some(key.algorithm.as_str()) {
        return Err(refused("not the key's algorithm"));
    }
    Ok(key)
}

/// Whether a token may leave out which kind it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MayBeAbsent {
    Yes,
    No,
}

pub(super) fn check_kind(
    header: &Map<String, Value>,
    expected: &[&str],
    may_be_absent: MayBeAbsent,
) -> Result<(), JoseError> {
    // We never write an extension that must be understood, not even an empty list (RFC 7515 §4.1.11).
    if header.contains_key("crit") {
        return Err(refused("critical extension"));
    }
    match header.get("typ") {
        None if may_be_absent == MayBeAbsent::Yes => Ok(()),
        Some(Value::String(typ)) if expected.iter().any(|one| typ.eq_ignore_ascii_case(one)) => {
            Ok(())
        }
        _ => Err(refused("another kind of token")),
    }
}

pub(super) fn text<'h>(header: &'h Map<String, Value>, name: &str) -> Option<&'h str> {
    header.get(name).and_then(Value::as_str)
}

/// A part that must be a JSON object; `serde_json` gives up below 128 levels.
fn decode_object(part: &str) -> Result<Map<String, Value>, JoseError> {
    serde_json::from_slice(&decode(part)?).map_err(|_cause| refused("not a JSON object"))
}

/// Strict: no padding, no line breaks, no stray bits, so that a token has one spelling only.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, JoseError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_cause| refused("not base64url"))
}

// The cause is left out on purpose: it would quote parts of the token.
pub(super) fn refused(reason: &'static str) -> JoseError {
    JoseError::Refused(reason)
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {}, ..)", self.algorithm, self.kid)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({}, {})", self.algorithm, self.kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_signs_what_it_verifies_as_every_kind() {
        for algorithm in SigningAlgorithm::ALL {
            let (signer, keys) = signer_and_keys(algorithm);
            for typ in [Typ::IdToken, Typ::AccessToken, Typ::LogoutToken] {
                let token = signer.sign(typ, &json!({ "sub": "u1" })).unwrap();
                assert_eq!(verify_own(&token, &keys, typ).unwrap()["sub"], "u1");
            }
        }
    }

    #[test]
    fn the_header_names_algorithm_key_and_kind() {
        let (signer, _) = signer_and_keys(SigningAlgorithm::Es256);
        let token = signer.sign(Typ::AccessToken, &json!({})).unwrap();
        let header = decode_object(token.split('.').next().unwrap()).unwrap();
        assert_eq!(
            Value::Object(header),
            json!({ "alg": "ES256", "kid": signer.kid(), "typ": "at+jwt" })
        );
    }

    #[test]
    fn a_retired_key_still_verifies() {
        let (retired, mut keys) = signer_and_keys(SigningAlgorithm::Rs256);
        let (_, active) = signer_and_keys(SigningAlgorithm::Rs256);
        keys.splice(0..0, active);
        let token = retired.sign(Typ::IdToken, &json!({})).unwrap();
        assert!(verify_own(&token, &keys, Typ::IdToken).is_ok());
    }

    #[test]
    fn a_token_of_another_kind_is_refused() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        for made in [Typ::IdToken, Typ::AccessToken, Typ::LogoutToken] {
            let token = signer.sign(made, &json!({})).unwrap();
            for expected in [Typ::IdToken, Typ::AccessToken, Typ::LogoutToken] {
                assert_eq!(
                    verify_own(&token, &keys, expected).is_ok(),
                    made == expected
                );
            }
        }
    }

    #[test]
    fn the_kind_is_compared_without_case_and_may_be_absent_in_an_id_token_only() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let with = |typ: Value| header_with(&signer, "typ", typ);
        let verdict =
            |header: &Value, expected| verify_own(&signed(&signer, header, "{}"), &keys, expected);
        assert!(verdict(&with(json!("AT+JWT")), Typ::AccessToken).is_ok());
        assert!(verdict(&with(json!("jwt")), Typ::IdToken).is_ok());
        let mut absent = with(json!(""));
        absent.as_object_mut().unwrap().remove("typ");
        assert!(verdict(&absent, Typ::IdToken).is_ok());
        assert!(verdict(&absent, Typ::AccessToken).is_err());
        assert!(verdict(&absent, Typ::LogoutToken).is_err());
        for typ in [
            json!(null),
            json!(""),
            json!(["JWT"]),
            json!("application/at+jwt"),
            json!("JWT "),
        ] {
            assert!(verdict(&with(typ.clone()), Typ::IdToken).is_err(), "{typ}");
            assert!(
                verdict(&with(typ.clone()), Typ::AccessToken).is_err(),
                "{typ}"
            );
        }
    }

    #[test]
    fn alg_none_and_every_other_alg_is_refused() {
        for algorithm in SigningAlgorithm::ALL {
            let (signer, keys) = signer_and_keys(algorithm);
            for alg in [
                "none", "None", "HS256", "RS256", "PS256", "ES256", "EdDSA", "ES384", "",
            ] {
                if alg == algorithm.as_str() {
                    continue;
                }
                let header = header_with(&signer, "alg", json!(alg));
                let reason = refusal(&signed(&signer, &header, "{}"), &keys);
                assert_eq!(reason, "not the key's algorithm", "{algorithm} {alg}");
            }
            let none = header_with(&signer, "alg", json!("none"));
            let unsigned = format!("{}.{}.", encode(&none.to_string()), encode("{}"));
            assert!(verify_own(&unsigned, &keys, Typ::IdToken).is_err());
        }
    }

    #[test]
    fn a_public_key_is_no_hmac_secret() {
        let key = KeyPair::generate(SigningAlgorithm::Rs256).unwrap();
        let keys = [VerificationKey::new(key.public_jwk()).unwrap()];
        let header = json!({ "alg": "HS256", "kid": key.kid(), "typ": "JWT" });
        let message = format!("{}.{}", encode(&header.to_string()), encode("{}"));
        let secret = serde_json::to_vec(key.public_jwk()).unwrap();
        let forged = josekit::jws::HS256
            .signer_from_bytes(secret)
            .unwrap()
            .sign(message.as_bytes())
            .unwrap();
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(forged));
        assert_eq!(refusal(&token, &keys), "not the key's algorithm");
    }

    #[test]
    fn another_or_a_missing_or_an_endless_kid_is_refused() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::EdDsa);
        let (stranger, _) = signer_and_keys(SigningAlgorithm::EdDsa);
        let token = stranger.sign(Typ::IdToken, &json!({})).unwrap();
        assert_eq!(refusal(&token, &keys), "unknown kid");
        for (kid, reason) in [
            (json!("../../etc/passwd"), "unknown kid"),
            (json!(""), "unknown kid"),
            (json!("k".repeat(129)), "kid too long"),
            (json!(7), "no kid"),
            (json!(null), "no kid"),
        ] {
            let header = header_with(&signer, "kid", kid);
            assert_eq!(refusal(&signed(&signer, &header, "{}"), &keys), reason);
        }
    }

    #[test]
    fn a_key_that_claims_another_kid_does_not_verify() {
        let (stranger, _) = signer_and_keys(SigningAlgorithm::Es256);
        let (own, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let header = header_with(&own, "typ", json!("JWT"));
        assert_eq!(
            refusal(&signed(&stranger, &header, "{}"), &keys),
            "wrong signature"
        );
    }

    #[test]
    fn critical_extensions_are_refused_even_an_empty_list() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        for crit in [json!([]), json!(["b64"]), json!(null)] {
            let header = header_with(&signer, "crit", crit);
            assert_eq!(
                refusal(&signed(&signer, &header, "{}"), &keys),
                "critical extension"
            );
        }
    }

    #[test]
    fn no_altered_character_goes_unnoticed() {
        for algorithm in SigningAlgorithm::ALL {
            let (signer, keys) = signer_and_keys(algorithm);
            let token = signer
                .sign(Typ::IdToken, &json!({ "sub": "alice" }))
                .unwrap();
            for place in 0..token.len() {
                let mut altered = token.clone().into_bytes();
                altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
                let altered = String::from_utf8(altered).unwrap();
                assert!(
                    verify_own(&altered, &keys, Typ::IdToken).is_err(),
                    "{algorithm} at {place}"
                );
            }
        }
    }

    #[test]
    fn no_truncated_token_is_accepted() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let token = signer
            .sign(Typ::IdToken, &json!({ "sub": "alice" }))
            .unwrap();
        for length in 0..token.len() {
            assert!(verify_own(token.get(..length).unwrap(), &keys, Typ::IdToken).is_err());
        }
    }

    #[test]
    fn a_token_has_one_spelling_only() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let token = signer
            .sign(Typ::IdToken, &json!({ "sub": "alice" }))
            .unwrap();
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            unreachable!("a token has three parts")
        };
        for spelling in [
            format!("{token}="),
            format!("{token}=="),
            format!("{token}\n"),
            format!(" {token}"),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}=.{signature}"),
            format!("{token}."),
            format!(".{token}"),
            format!("{header}..{payload}.{signature}"),
            format!("{header}.{payload}"),
            format!("{header}.{payload}.{signature}AA"),
            "..".to_owned(),
        ] {
            assert!(
                verify_own(&spelling, &keys, Typ::IdToken).is_err(),
                "{spelling}"
            );
        }
        // 64 bytes leave four unused bits in the last character: only zeros are accepted there.
        let (rest, last) = signature.split_at(signature.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let index = alphabet.find(last).unwrap();
        let sibling = alphabet.get(index + 1..index + 2).unwrap();
        assert!(
            verify_own(
                &format!("{header}.{payload}.{rest}{sibling}"),
                &keys,
                Typ::IdToken
            )
            .is_err()
        );
    }

    #[test]
    fn an_oversized_token_is_refused_before_anything_is_decoded() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let claims = json!({ "filler": "x".repeat(9000) });
        let token = signer.sign(Typ::IdToken, &claims).unwrap();
        assert_eq!(refusal(&token, &keys), "too long");
    }

    #[test]
    fn claims_that_are_no_object_or_nest_too_deep_are_refused() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let header = header_with(&signer, "typ", json!("JWT"));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for payload in ["[]", "\"text\"", "null", "", "{", "{} {}", &deep] {
            assert_eq!(
                refusal(&signed(&signer, &header, payload), &keys),
                "not a JSON object"
            );
        }
    }

    #[test]
    fn a_header_that_is_no_object_or_nests_too_deep_is_refused() {
        let (_, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for header in ["[]", "null", "", &deep] {
            let token = format!(
                "{}.{}.{}",
                encode(header),
                encode("{}"),
                encode("signature")
            );
            assert_eq!(refusal(&token, &keys), "not a JSON object");
        }
    }

    #[test]
    fn an_endless_expiry_cannot_panic_us() {
        let (signer, keys) = signer_and_keys(SigningAlgorithm::Es256);
        let header = header_with(&signer, "typ", json!("JWT"));
        for exp in [
            "1e308",
            "18446744073709551615",
            "-1e308",
            "1.5",
            "\"soon\"",
            "1e400",
        ] {
            let _verdict = verify_own(
                &signed(&signer, &header, &format!("{{\"exp\":{exp}}}")),
                &keys,
                Typ::IdToken,
            );
        }
    }

    #[test]
    fn the_half_hash_is_the_one_of_openid_connect_core() {
        // OpenID Connect Core, appendix A.3 and A.4: the access token and the code with their hashes.
        assert_eq!(
            half_hash(
                SigningAlgorithm::Rs256,
                "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
            ),
            "77QmUPtjPfzWtF2AnpK9RQ"
        );
        assert_eq!(
            half_hash(
                SigningAlgorithm::Rs256,
                "Qcb0Orv1zh30vL1MPRsbm-diHiMwcLyZvn1arpZv-Jxf_11jnpEX3Tgfvk"
            ),
            "LDktKdoQak3Pk0cnXxCltA"
        );
    }

    #[test]
    fn the_half_hash_of_ed25519_is_half_of_sha_512() {
        assert_eq!(half_hash(SigningAlgorithm::EdDsa, "value").len(), 43);
        for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Es256] {
            assert_eq!(
                half_hash(algorithm, "value"),
                half_hash(SigningAlgorithm::Rs256, "value")
            );
        }
    }

    fn signer_and_keys(algorithm: SigningAlgorithm) -> (Signer, Vec<VerificationKey>) {
        let key = KeyPair::generate(algorithm).unwrap();
        let verification = VerificationKey::new(key.public_jwk()).unwrap();
        (Signer::new(&key).unwrap(), vec![verification])
    }

    fn header_with(signer: &Signer, name: &str, value: Value) -> Value {
        let mut header = json!({ "alg": signer.algorithm(), "kid": signer.kid(), "typ": "JWT" });
        header[name] = value;
        header
    }

    /// Rightly signed, whatever it says.
    fn signed(signer: &Signer, header: &Value, payload: &str) -> String {
        let message = format!("{}.{}", encode(&header.to_string()), encode(payload));
        let signature = signer.signer.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn encode(part: &str) -> String {
        URL_SAFE_NO_PAD.encode(part)
    }

    fn refusal(token: &str, keys: &[VerificationKey]) -> &'static str {
        match verify_own(token, keys, Typ::IdToken) {
            Err(JoseError::Refused(reason)) => reason,
            other => unreachable!("expected a refusal, got {other:?}"),
        }
    }
}
