//! A sign-in in one browser, and how long it lasts. OWASP ASVS 5.0 §7.3.

use std::time::Duration;

use crate::protocol::time::Timestamp;

/// Live sign-ins of one person. One more ends the one that was used longest ago, so that no table grows without limit.
pub const MOST_OF_A_PERSON: usize = 100;

/// A sign-in in one browser. The id is the `sid` of its ID tokens and no secret; the cookie's value is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: String,
    pub user_id: String,
    pub auth_time: Timestamp,
    /// The authorization request for which the person last proved themselves.
    pub proved_for: Option<String>,
    pub acr: String,
    pub amr: Vec<String>,
    pub remembered: bool,
    pub created_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// How long sign-ins last.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub idle: Duration,
    pub absolute: Duration,
    /// Both limits of a sign-in that the person asked to keep.
    pub remembered: Duration,
}

impl Session {
    /// Whether it still counts: not ended, not idle for too long, not too old, and not from a future that never came, where
    /// no limit would end it.
    pub fn is_alive(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        let (idle, absolute) = self.limits(lifetimes);
        self.ended_at.is_none()
            && now.since(self.last_seen_at) < idle
            && now.since(self.auth_time) < absolute
            && !self.auth_time.is_far_ahead_of(now)
    }

    /// When it ends if nobody uses it, its person proves nothing again, and nobody ends it before.
    pub fn ends_at(&self, lifetimes: &Lifetimes) -> Timestamp {
        let (idle, absolute) = self.limits(lifetimes);
        self.last_seen_at
            .plus(idle)
            .min(self.auth_time.plus(absolute))
    }

    fn limits(&self, lifetimes: &Lifetimes) -> (Duration, Duration) {
        if self.remembered {
            (lifetimes.remembered, lifetimes.remembered)
        } else {
            (lifetimes.idle, lifetimes.absolute)
        }
    }

    /// Whether it is time to write down that it was used; not at every request, since each write costs a commit.
    pub fn should_be_touched(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        let after = (lifetimes.idle / 20).min(Duration::from_secs(300));
        now.since(self.last_seen_at) >= after || self.last_seen_at.is_far_ahead_of(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        idle: Duration::from_secs(12 * 3_600),
        absolute: Duration::from_secs(14 * 86_400),
        remembered: Duration::from_secs(30 * 86_400),
    };

    fn session(remembered: bool, last_seen_at: i64) -> Session {
        Session {
            id: "s".to_owned(),
            user_id: "alice".to_owned(),
            auth_time: Timestamp::from_seconds(0),
            proved_for: None,
            acr: "1".to_owned(),
            amr: vec!["pwd".to_owned()],
            remembered,
            created_at: Timestamp::from_seconds(0),
            last_seen_at: Timestamp::from_seconds(last_seen_at),
            ended_at: None,
        }
    }

    #[test]
    fn a_session_ends_when_it_is_idle_too_long_or_too_old() {
        let at = Timestamp::from_seconds;
        assert!(session(false, 0).is_alive(&LIFETIMES, at(12 * 3_600 - 1)));
        assert!(!session(false, 0).is_alive(&LIFETIMES, at(12 * 3_600)));
        assert!(!session(false, 14 * 86_400 - 1).is_alive(&LIFETIMES, at(14 * 86_400)));
    }

    #[test]
    fn a_remembered_session_has_its_own_limit() {
        let at = Timestamp::from_seconds;
        assert!(session(true, 0).is_alive(&LIFETIMES, at(29 * 86_400)));
        assert!(!session(true, 29 * 86_400).is_alive(&LIFETIMES, at(30 * 86_400)));
    }

    #[test]
    fn an_ended_session_is_dead_at_once() {
        let ended = Session {
            ended_at: Some(Timestamp::from_seconds(1)),
            ..session(true, 0)
        };
        assert!(!ended.is_alive(&LIFETIMES, Timestamp::from_seconds(1)));
    }
}
