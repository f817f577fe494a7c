//! Times as the specifications count them: whole seconds since 1970 (`NumericDate`, RFC 7519 §2).

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// Clocks of honest machines differ by less, and so does one that was put right.
const FAR: Duration = Duration::from_secs(86_400);

/// A point in time in seconds; arithmetic saturates instead of wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// As people and programs both read it (RFC 3339, UTC).
    pub fn to_rfc3339(self) -> String {
        DateTime::from_timestamp(self.0, 0)
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
            .unwrap_or_default()
    }

    /// From seconds since 1970.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Later by a duration.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_seconds(duration)))
    }

    /// Earlier by a duration.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_seconds(duration)))
    }

    /// The latest time that another honest clock may show now; what lies beyond was written down by a wrong one.
    pub fn horizon(self) -> Self {
        self.plus(FAR)
    }

    /// Whether it lies beyond the horizon of now.
    pub fn is_far_ahead_of(self, now: Self) -> bool {
        self > now.horizon()
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ahead_may_be_a_clock_that_was_put_right_and_more_may_not() {
        let now = Timestamp::from_seconds(1_000);
        assert!(!now.minus(FAR).is_far_ahead_of(now));
        assert!(!now.plus(FAR).is_far_ahead_of(now));
        assert!(now.plus(FAR + Duration::from_secs(1)).is_far_ahead_of(now));
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_seconds(i64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
        assert_eq!(
            Timestamp::from_seconds(5).since(Timestamp::from_seconds(9)),
            Duration::ZERO
        );
    }
}
