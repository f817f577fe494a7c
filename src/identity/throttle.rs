//! Failures are slowed, people are not locked out. NIST SP 800-63B §3.2.2; OWASP ASVS 5.0 §6.3.1.
//!
//! An attempt is counted before the password is looked at, so that parallel guesses can't slip past the counter; a right
//! answer takes its own count back and no other. Browsers that signed in to the account before have a budget of their
//! own, so that a stranger's guesses don't keep the owner out. Accounts that don't exist are counted like those that do.

use std::net::IpAddr;
use std::time::Duration;

use crate::protocol::seal::{RootKey, mac};

/// How many failures are borne, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub account_failures: u32,
    pub address_failures: u32,
    pub window: Duration,
}

/// A counter's name: a keyed hash, since people type all sorts of things into the wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket(pub [u8; 32]);

/// The counters that one attempt falls into, each with its limit. Where nobody tells the address it counts for nothing:
/// one counter for everybody would let anyone keep everyone out.
pub fn buckets(
    key: &RootKey,
    limits: &Limits,
    account: &str,
    known_browser: Option<&str>,
    address: Option<IpAddr>,
) -> Vec<(Bucket, u32)> {
    let bucket =
        |kind: &str, name: &str| Bucket(mac(key, "throttle", format!("{kind}\0{name}").as_bytes()));
    match known_browser {
        Some(browser) => vec![(
            bucket("browser", &format!("{account}\0{browser}")),
            limits.account_failures,
        )],
        None => {
            let address = address.map(|address| bucket("address", &network(address)));
            [
                Some((bucket("account", account), limits.account_failures)),
                address.map(|address| (address, limits.address_failures)),
            ]
            .into_iter()
            .flatten()
            .collect()
        }
    }
}

/// One address of IPv4, a /64 of IPv6: that is what one subscriber gets.
fn network(address: IpAddr) -> String {
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
        assert_ne!(first.get(1), names("a", None, "2001:db8:1:3::1").get(1));
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
            names("a", None, "192.0.2.1").first()
        );
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
