//! Secrets under one root key: sealing (authenticated encryption), keyed hashes, hashes of tokens.
//! RFC 2104 (HMAC); RFC 5869 (HKDF); NIST SP 800-38D (GCM).
//!
//! The root key is not in the database. Every use derives its own key from it, so that a value made for one purpose
//! means nothing to another.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::random;

const VERSION: u8 = 1;
const SALT_BYTES: usize = 12;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The one secret of an installation, from which all others follow.
#[derive(Clone)]
pub struct RootKey([u8; 32]);

/// The text is not a root key; the message does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a root key is 64 hexadecimal digits")]
pub struct InvalidRootKey;

/// A key that seals for one purpose.
#[derive(Clone)]
pub struct SealingKey([u8; 32]);

/// What the database holds of a random token: SHA-256, which suffices because nobody can guess 256 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl SealingKey {
    pub fn derive(root: &RootKey, purpose: &str) -> Self {
        Self(root.derive("seal", purpose))
    }

    /// Encrypts; `aad` says where the value belongs (table, column, row) and must be the same when it is opened.
    pub fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
        let salt: [u8; SALT_BYTES] = random::bytes();
        let iv: [u8; IV_BYTES] = random::bytes();
        let mut tag = [0; TAG_BYTES];
        let ciphertext = encrypt_aead(
            Cipher::aes_256_gcm(),
            &self.message_key(&salt),
            Some(&iv),
            &bound(aad),
            plaintext,
            &mut tag,
        )
        .expect("AES-256-GCM takes any plaintext when key and IV have their fixed sizes");
        [&[VERSION], &salt[..], &iv, &ciphertext, &tag].concat()
    }

    /// None for anything that was not sealed with this key for this place, unchanged.
    pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let (&version, rest) = sealed.split_first()?;
        if version != VERSION {
            return None;
        }
        let (salt, rest) = rest.split_at_checked(SALT_BYTES)?;
        let (iv, rest) = rest.split_at_checked(IV_BYTES)?;
        let (ciphertext, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
        let key = self.message_key(salt);
        decrypt_aead(
            Cipher::aes_256_gcm(),
            &key,
            Some(iv),
            &bound(aad),
            ciphertext,
            tag,
        )
        .ok()
    }

    /// [`Self::seal`] in base64url, for URLs, forms and cookies.
    pub fn seal_text(&self, plaintext: &[u8], aad: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.seal(plaintext, aad))
    }

    /// The reverse of [`Self::seal_text`].
    pub fn open_text(&self, sealed: &str, aad: &[u8]) -> Option<Vec<u8>> {
        self.open(&URL_SAFE_NO_PAD.decode(sealed).ok()?, aad)
    }

    // GCM breaks when one key meets one IV twice, which 96 random bits make likely after some 2^32 messages. Anyone may
    // ask for tickets without signing in, so each message has a key of its own: then 2^80 messages are safe.
    fn message_key(&self, salt: &[u8]) -> [u8; 32] {
        hmac(&self.0, &[salt])
    }
}

impl RootKey {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn derive(&self, use_: &str, purpose: &str) -> [u8; 32] {
        hkdf(
            &self.0,
            &[],
            format!("latchkey/{use_}/{purpose}").as_bytes(),
        )
    }
}

impl FromStr for RootKey {
    type Err = InvalidRootKey;

    fn from_str(text: &str) -> Result<Self, InvalidRootKey> {
        if text.len() != 64 {
            return Err(InvalidRootKey);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0, |high, digit| Some(high << 4 | hex_value(*digit)?))
                .ok_or(InvalidRootKey)?;
        }
        Ok(Self(bytes))
    }
}

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// As read from the database; None when it is not 32 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes in hexadecimal: tells documents apart (an `ETag`), and is no secret's fingerprint.
    pub fn short(&self) -> String {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Is this the hash of that token? Takes the same time either way.
    pub fn matches(&self, token: &str) -> bool {
        constant_time_eq(&self.0, &Self::of(token).0)
    }
}

/// HMAC-SHA256 under a key of its own for each purpose: a hash that only this installation can compute.
pub fn mac(root: &RootKey, purpose: &str, data: &[u8]) -> [u8; 32] {
    hmac(&root.derive("mac", purpose), &[data])
}

/// Compares secrets without telling by its time how many bytes agree; lengths are not secret.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The format's version is authenticated too, so that no later format can be passed off as this one.
fn bound(aad: &[u8]) -> Vec<u8> {
    [&[VERSION], aad].concat()
}

/// RFC 5869 with SHA-256 and one block of output.
fn hkdf(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let extracted = hmac(salt, &[secret]);
    hmac(&extracted, &[info, &[1]])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_place() {
        let key = key("totp");
        for plaintext in [&b""[..], b"x", &[7; 5000]] {
            let sealed = key.seal(plaintext, b"users.totp:1");
            assert_eq!(
                key.open(&sealed, b"users.totp:1").as_deref(),
                Some(plaintext)
            );
            let text = key.seal_text(plaintext, b"ticket");
            assert_eq!(key.open_text(&text, b"ticket").as_deref(), Some(plaintext));
        }
    }

    #[test]
    fn another_place_another_purpose_or_another_root_does_not_open_it() {
        let sealed = key("totp").seal(b"seed", b"users.totp:1");
        assert_eq!(key("totp").open(&sealed, b"users.totp:2"), None);
        assert_eq!(key("totp").open(&sealed, b""), None);
        assert_eq!(key("ticket").open(&sealed, b"users.totp:1"), None);
        let other_root = SealingKey::derive(&RootKey::from_bytes([2; 32]), "totp");
        assert_eq!(other_root.open(&sealed, b"users.totp:1"), None);
    }

    #[test]
    fn no_altered_or_truncated_byte_goes_unnoticed() {
        let sealed = key("totp").seal(b"seed", b"a");
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert_eq!(key("totp").open(&altered, b"a"), None, "byte {place}");
            assert_eq!(key("totp").open(&sealed[..place], b"a"), None);
        }
        assert_eq!(key("totp").open(&[&sealed[..], &[0]].concat(), b"a"), None);
    }

    #[test]
    fn a_text_has_one_spelling_only() {
        let sealed = key("ticket").seal_text(b"request", b"");
        for spelling in [
            format!("{sealed}="),
            format!("{sealed}\n"),
            format!("{sealed}A"),
            String::new(),
        ] {
            assert_eq!(key("ticket").open_text(&spelling, b""), None);
        }
    }

    #[test]
    fn sealing_twice_gives_two_values() {
        assert_ne!(
            key("totp").seal(b"seed", b"a"),
            key("totp").seal(b"seed", b"a")
        );
    }

    #[test]
    fn the_key_derivation_is_that_of_rfc_5869() {
        // Test case 1: the first of its two blocks.
        let salt: Vec<u8> = (0..=12).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let output = hkdf(&[0x0b; 22], &salt, &info);
        assert_eq!(
            hex(&output),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
        // Test case 3: without salt and info.
        let output = hkdf(&[0x0b; 22], &[], &[]);
        assert_eq!(
            hex(&output),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        );
    }

    #[test]
    fn a_keyed_hash_depends_on_root_purpose_and_data() {
        let root = RootKey::from_bytes([1; 32]);
        let hash = mac(&root, "successor", b"token");
        assert_eq!(hash, mac(&root, "successor", b"token"));
        assert_ne!(hash, mac(&root, "origin", b"token"));
        assert_ne!(hash, mac(&root, "successor", b"other"));
        assert_ne!(
            hash,
            mac(&RootKey::from_bytes([2; 32]), "successor", b"token")
        );
        assert_ne!(hash, SealingKey::derive(&root, "successor").0);
    }

    #[test]
    fn a_root_key_is_64_hexadecimal_digits_and_nothing_else() {
        let good = "00ff".repeat(16);
        assert_eq!(good.parse::<RootKey>().unwrap().0[..2], [0x00, 0xff]);
        assert_eq!(
            good.to_uppercase().parse::<RootKey>().unwrap().0[..2],
            [0x00, 0xff]
        );
        let short = "0".repeat(63);
        let (long, space) = (format!("{good}0"), format!("{short} "));
        for bad in [
            "",
            &short,
            &long,
            &space,
            &"zz".repeat(32),
            &"é".repeat(32),
            &"+f".repeat(32),
        ] {
            assert_eq!(bad.parse::<RootKey>().unwrap_err(), InvalidRootKey);
        }
    }

    #[test]
    fn keys_and_hashes_hide_themselves() {
        let root = RootKey::from_bytes([1; 32]);
        assert_eq!(format!("{root:?}"), "RootKey(..)");
        assert_eq!(format!("{:?}", key("totp")), "SealingKey(..)");
        assert_eq!(format!("{:?}", TokenHash::of("t")), "TokenHash(..)");
    }

    #[test]
    fn a_token_hash_is_sha_256_of_the_whole_token() {
        let hash = TokenHash::of("abc");
        assert_eq!(
            hex(hash.as_bytes()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(hash.matches("abc"));
        assert!(!hash.matches("ab") && !hash.matches("abcd") && !hash.matches(""));
        assert_eq!(TokenHash::from_slice(hash.as_bytes()), Some(hash));
        assert_eq!(TokenHash::from_slice(&[0; 31]), None);
    }

    #[test]
    fn constant_time_comparison_agrees_with_the_plain_one() {
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"sane"));
        assert!(!constant_time_eq(b"same", b"sam"));
    }

    fn key(purpose: &str) -> SealingKey {
        SealingKey::derive(&RootKey::from_bytes([1; 32]), purpose)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
