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

/// A name that never collides: 22 characters of base64url from 128 bits. Not a secret. It doesn't begin with a hyphen,
/// which a command line would take for a flag.
pub fn id() -> String {
    let id = URL_SAFE_NO_PAD.encode(bytes::<16>());
    match id.strip_prefix('-') {
        Some(rest) => format!("_{rest}"),
        None => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_looks_like_a_flag() {
        let names: Vec<_> = (0..2_000).map(|_| id()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.len() == 22 && !name.starts_with('-'))
        );
    }
}
