//! The only reader of the operating system's randomness.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Fresh random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut buffer = [0; N];
    getrandom::fill(&mut buffer).expect("an operating system without randomness can't run a login");
    buffer
}

/// A secret that nobody guesses: 256 bits in 43 characters of base64url.
pub fn token() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>())
}

/// A name that never collides: 128 bits in 22 characters of base64url. Not a secret.
pub fn id() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<16>())
}
