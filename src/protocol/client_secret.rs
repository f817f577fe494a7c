//! A client's secrets: several at once, so that one is changed without a gap. Add, roll out, see when the old one was used
//! last, revoke. RFC 6749 §2.3.1; RFC 6819 §5.1.4.1.

use std::time::Duration;

use super::seal::{TokenHash, constant_time_eq};
use super::time::Timestamp;

/// A secret of which only the hash and the beginning are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecret {
    pub id: String,
    pub hash: TokenHash,
    /// By which an operator recognises it; empty where it was not kept.
    pub prefix: String,
    /// It is the one that a file manages.
    pub from_file: bool,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// Live ones at once. Every one is compared at each request, and each is one more that can leak.
pub const MOST_SECRETS: usize = 10;

/// Six characters tell ten secrets apart. Of 256 random bits they leave 220 unknown, of the shortest secret that an
/// operator may choose 26 characters: still more than anybody guesses.
pub const PREFIX_LENGTH: usize = 6;

/// How exactly the last use is known. A write for every request would cost more than it tells.
const USE_IS_NOTED_EVERY: Duration = Duration::from_secs(3_600);

impl ClientSecret {
    /// A new one without an end.
    pub fn new(id: &str, secret: &str, now: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            hash: TokenHash::of(secret),
            prefix: secret.chars().take(PREFIX_LENGTH).collect(),
            from_file: false,
            created_at: now,
            last_used_at: None,
            expires_at: None,
        }
    }

    /// Whether it counts at authentication.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it is this one; takes the same time either way.
    pub fn matches(&self, secret: &TokenHash) -> bool {
        constant_time_eq(self.hash.as_bytes(), secret.as_bytes())
    }

    /// The last use that is old enough to be written anew, up to and including.
    pub fn stale_use(now: Timestamp) -> Timestamp {
        now.minus(USE_IS_NOTED_EVERY)
    }

    /// Whether a use now is worth writing down.
    pub fn should_note_use(&self, now: Timestamp) -> bool {
        self.last_used_at
            .is_none_or(|last| last <= Self::stale_use(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn secret() -> ClientSecret {
        ClientSecret::new("id", "abcdefghijklmnopqrstuvwxyz-0123456789", NOW)
    }

    #[test]
    fn c10_no_more_than_the_beginning_is_kept() {
        assert_eq!(secret().prefix, "abcdef");
        assert!(!format!("{:?}", secret()).contains("abcdefg"));
    }

    #[test]
    fn it_counts_until_its_end() {
        let ends = ClientSecret {
            expires_at: Some(NOW),
            ..secret()
        };
        assert!(ends.is_live(NOW.minus(Duration::from_secs(1))));
        assert!(!ends.is_live(NOW));
        assert!(secret().is_live(Timestamp::from_seconds(i64::MAX)));
    }

    #[test]
    fn its_use_is_noted_once_an_hour() {
        let used = |seconds_ago| ClientSecret {
            last_used_at: Some(NOW.minus(Duration::from_secs(seconds_ago))),
            ..secret()
        };
        assert!(secret().should_note_use(NOW));
        assert!(!used(3_599).should_note_use(NOW));
        assert!(used(3_600).should_note_use(NOW));
    }
}
