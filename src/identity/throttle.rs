//! Failures are slowed, people are not locked out. NIST SP 800-63B §3.2.2; OWASP ASVS 5.0 §6.3.1.
//!
//! An attempt is counted before the password is looked at, so that parallel guesses can't slip past the counter; a right
//! answer takes its own count back and no other. Browsers that signed in to the account before have a budget of their
//! own, so that a stranger's guesses don't keep the owner out. Accounts that don't exist are counted like those that do.

use std::net::IpAddr;
use std::time::Duration;

use crate::protocol::client::ClientId;
use crate::protocol::seal::{RootKey, mac};
use crate::protocol::time::Timestamp;

/// How many failures are borne, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub account_failures: u32,
    pub address_failures: u32,
    pub window: Duration,
}

/// How many failures a counter bears, and how long its first window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub failures: u32,
    pub window: Duration,
    pub growth: Growth,
}

/// Whether those who go on failing wait longer and longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Twice as long for every time that the limit was used up, until nobody has tried for a day.
    Doubling,
    /// Many people may share an address, and the mistakes of some must not add up for the others.
    None,
}

/// What a counter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub failures: i64,
    /// Of the windows before. It grows with windows that were not filled too, or who stays just below the limit would
    /// never have to wait.
    pub earlier_failures: i64,
    pub window_started_at: Timestamp,
}

/// A counter's name: a keyed hash, since people type all sorts of things into the wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket(pub [u8; 32]);

/// Names the one time until which a counter is full: what goes on until then is written down once.
pub fn occasion(full: &Bucket, until: Timestamp) -> Vec<u8> {
    [full.0.as_slice(), &until.seconds().to_be_bytes()].concat()
}

/// At most 64 windows of a quarter of an hour: whoever guesses without a pause gets fifteen guesses a day.
const MOST_DOUBLINGS: u32 = 6;
/// After so long without an attempt everything is forgotten.
const QUIET: Duration = Duration::from_secs(86_400);

impl Limit {
    /// How long after the beginning of its last window a counter says nothing any more.
    pub fn memory(window: Duration) -> Duration {
        window
            .saturating_mul(1 << MOST_DOUBLINGS)
            .saturating_add(QUIET)
    }
}

impl Counter {
    /// Counts one attempt, or answers when the next one may be made.
    pub fn count(self, limit: Limit, now: Timestamp) -> Result<Self, Timestamp> {
        let ends_at = self.window_started_at.plus(self.window(limit));
        // A window that lies in the future comes from a clock that was set back; it must not hold anybody up for ever.
        let is_over = now >= ends_at || self.window_started_at > now;
        if !is_over {
            if self.failures >= i64::from(limit.failures) {
                return Err(ends_at);
            }
            let failures = self.failures.saturating_add(1);
            return Ok(Self { failures, ..self });
        }
        let earlier_failures = if now >= ends_at.plus(QUIET) {
            0
        } else {
            self.earlier_failures.saturating_add(self.failures)
        };
        Ok(Self {
            failures: 1,
            earlier_failures,
            window_started_at: now,
        })
    }

    fn window(self, limit: Limit) -> Duration {
        let doublings = match limit.growth {
            Growth::None => 0,
            Growth::Doubling => {
                let times = self.earlier_failures / i64::from(limit.failures.max(1));
                u32::try_from(times).map_or(MOST_DOUBLINGS, |times| times.min(MOST_DOUBLINGS))
            }
        };
        limit.window.saturating_mul(1 << doublings)
    }
}

/// The counters that one attempt falls into, each with its limit. Where nobody tells the address it counts for nothing:
/// one counter for everybody would let anyone keep everyone out.
pub fn buckets(
    key: &RootKey,
    limits: &Limits,
    account: &str,
    known_browser: Option<&str>,
    address: Option<IpAddr>,
) -> Vec<(Bucket, Limit)> {
    let of_account = Limit {
        failures: limits.account_failures,
        window: limits.window,
        growth: Growth::Doubling,
    };
    let of_address = Limit {
        failures: limits.address_failures,
        window: limits.window,
        growth: Growth::None,
    };
    let bucket =
        |kind: &str, name: &str| Bucket(mac(key, "throttle", format!("{kind}\0{name}").as_bytes()));
    match known_browser {
        Some(browser) => vec![(
            bucket("browser", &format!("{account}\0{browser}")),
            of_account,
        )],
        None => {
            let address = address.map(|address| bucket("address", &network(address)));
            // The address comes first: once it is full, a name that it makes up gets no counter of its own.
            [
                address.map(|address| (address, of_address)),
                Some((self::of_account(key, account), of_account)),
            ]
            .into_iter()
            .flatten()
            .collect()
        }
    }
}

/// The counter of an account's failures from browsers that nobody knows.
pub fn of_account(key: &RootKey, account: &str) -> Bucket {
    Bucket(mac(
        key,
        "throttle",
        format!("account\0{account}").as_bytes(),
    ))
}

/// The counter of wrong secrets that one address sent for one client. Only there is anybody slowed: a client is one program
/// for all of its users, and a stranger's guesses must not stop it. Its windows don't grow either, since several programs
/// of one client may share an address and one of them may have been left behind with a wrong secret.
pub fn of_client(
    key: &RootKey,
    limits: &Limits,
    client: &ClientId,
    address: IpAddr,
) -> (Bucket, Limit) {
    let limit = Limit {
        failures: limits.account_failures,
        window: limits.window,
        growth: Growth::None,
    };
    let name = format!("client\0{client}\0{}", network(address));
    (Bucket(mac(key, "throttle", name.as_bytes())), limit)
}

/// One address of IPv4, a /64 of IPv6: that is what one subscriber gets.
pub fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        account_failures: 10,
        address_failures: 50,
        window: Duration::from_secs(900),
    };

    const OF_ACCOUNT: Limit = Limit {
        failures: 10,
        window: Duration::from_secs(900),
        growth: Growth::Doubling,
    };

    /// How many guesses somebody makes in a time who makes at most so many in each window and then waits for the next.
    fn guesses(each_window: i64, limit: Limit, time: Duration) -> u32 {
        let start = Timestamp::from_seconds(1_000_000);
        let mut counter = Counter {
            failures: 0,
            earlier_failures: 0,
            window_started_at: start,
        };
        let (mut now, mut made) = (start, 0);
        while now.since(start) < time {
            if counter.failures == each_window {
                now = counter.window_started_at.plus(counter.window(limit));
            }
            match counter.count(limit, now) {
                Ok(counted) => (counter, made) = (counted, made + 1),
                Err(until) => now = until,
            }
        }
        made
    }

    #[test]
    fn each_full_window_is_followed_by_one_of_twice_the_length_up_to_a_day() {
        let window = |earlier_failures| {
            let counter = Counter {
                failures: 0,
                earlier_failures,
                window_started_at: Timestamp::from_seconds(0),
            };
            counter.window(OF_ACCOUNT).as_secs()
        };
        assert_eq!(
            [0, 9, 10, 20, 60, 70, i64::MAX].map(window),
            [900, 900, 1_800, 3_600, 57_600, 57_600, 57_600]
        );
    }

    #[test]
    fn nobody_makes_a_hundred_guesses_of_one_account_in_a_day() {
        let day = Duration::from_secs(86_400);
        for each_window in 1..=10 {
            assert!(guesses(each_window, OF_ACCOUNT, day) < 100, "{each_window}");
        }
        assert!(guesses(10, OF_ACCOUNT, 30 * day) < 600);
    }

    #[test]
    fn a_day_without_an_attempt_forgets_everything() {
        let counter = Counter {
            failures: 10,
            earlier_failures: 100,
            window_started_at: Timestamp::from_seconds(0),
        };
        let earlier = |now| counter.count(OF_ACCOUNT, Timestamp::from_seconds(now));
        assert_eq!(earlier(57_599), Err(Timestamp::from_seconds(57_600)));
        assert_eq!(earlier(57_600).unwrap().earlier_failures, 110);
        assert_eq!(earlier(57_600 + 86_400).unwrap().earlier_failures, 0);
    }

    #[test]
    fn an_address_that_many_share_waits_no_longer_than_one_window() {
        let limit = Limit {
            growth: Growth::None,
            ..OF_ACCOUNT
        };
        assert_eq!(guesses(10, limit, Duration::from_secs(86_400)), 961);
    }

    fn names(account: &str, browser: Option<&str>, address: &str) -> Vec<Bucket> {
        let key: RootKey = "00".repeat(32).parse().expect("a key");
        let address = Some(address.parse().expect("an address"));
        buckets(&key, &LIMITS, account, browser, address)
            .into_iter()
            .map(|(bucket, _)| bucket)
            .collect()
    }

    #[test]
    fn a_walk_through_one_ipv6_network_shares_one_counter() {
        let first = names("a", None, "2001:db8:1:2::1");
        assert_eq!(first, names("a", None, "2001:db8:1:2:ffff::9"));
        assert_ne!(first.first(), names("a", None, "2001:db8:1:3::1").first());
        assert_eq!(
            names("a", None, "::ffff:192.0.2.1"),
            names("a", None, "192.0.2.1")
        );
    }

    #[test]
    fn without_an_address_only_the_account_is_counted() {
        let key: RootKey = "00".repeat(32).parse().expect("a key");
        let counters = buckets(&key, &LIMITS, "a", None, None);
        assert_eq!(counters.len(), 1);
        assert_eq!(
            counters.first().map(|(bucket, _)| bucket),
            names("a", None, "192.0.2.1").last()
        );
    }

    #[test]
    fn c9_a_client_is_counted_by_its_name_and_network() {
        let key: RootKey = "00".repeat(32).parse().expect("a key");
        let name = |client: &str, address: &str| {
            let address = address.parse().expect("an address");
            of_client(&key, &LIMITS, &ClientId::from_request(client), address).0
        };
        let first = name("rp", "2001:db8:1:2::1");
        assert_eq!(first, name("rp", "2001:db8:1:2:ffff::9"));
        for (client, address) in [
            ("rp", "2001:db8:1:3::1"),
            ("other", "2001:db8:1:2::1"),
            ("rp", "192.0.2.1"),
        ] {
            assert_ne!(first, name(client, address), "{client} {address}");
        }
        assert!(!names("rp", None, "192.0.2.1").contains(&name("rp", "192.0.2.1")));
    }

    #[test]
    fn a_known_browser_shares_no_counter_with_strangers() {
        let known = names("a", Some("b"), "192.0.2.1");
        assert!(
            names("a", None, "192.0.2.1")
                .iter()
                .all(|bucket| !known.contains(bucket))
        );
        assert_ne!(known, names("a", Some("c"), "192.0.2.1"));
    }
}
