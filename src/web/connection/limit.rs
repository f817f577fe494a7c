//! How many connections one address may hold open, so that nobody alone takes all that there are.
//!
//! Nothing is read from a connection beyond the limit: it is closed. A trusted proxy is not counted, since it is one address for
//! everybody; what it lets through of each is its own affair.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::identity::throttle::network;
use crate::web::extract::client_ip;

/// Far more than a browser or an app's pool opens, and a tenth of what the server takes.
const MOST_OF_ONE: usize = 1_000;

/// The connections of one server, shared by its threads.
#[derive(Clone)]
pub(crate) struct ConnectionLimit {
    open: Open,
    most: usize,
}

/// The address has as many connections as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address opened too many connections")]
pub(crate) struct TooMany;

/// How many each network has open; one that has none is not in it.
type Open = Arc<Mutex<HashMap<String, usize>>>;

/// One connection's place, free again when the connection has ended.
pub(crate) struct Place {
    open: Open,
    network: String,
}

impl ConnectionLimit {
    pub(crate) fn new() -> Self {
        Self {
            open: Open::default(),
            most: MOST_OF_ONE,
        }
    }

    /// A place for a connection from this address, if there is one: `None` for whom nobody counts.
    pub(crate) fn admit(
        &self,
        peer: Option<IpAddr>,
        trusted: &[IpNet],
    ) -> Result<Option<Place>, TooMany> {
        // Without an address it came by a Unix socket, from a proxy of ours.
        match peer {
            Some(peer) if !client_ip::is_trusted(peer, trusted) => {
                self.take(peer).map(Some).ok_or(TooMany)
            }
            _ => Ok(None),
        }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place {
            open: Arc::clone(&self.open),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(std::mem::take(&mut self.network)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_at_a_time_and_those_that_ended_count_no_more() {
        let limit = ConnectionLimit {
            most: 2,
            ..ConnectionLimit::new()
        };
        let take = |text: &str| limit.take(text.parse().expect("an address"));
        let (first, _second) = (take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_none());
        assert!(take("::ffff:192.0.2.1").is_none(), "the same address");
        let other = take("192.0.2.2");
        assert!(other.is_some());
        drop((first, other));
        assert!(take("192.0.2.1").is_some());
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let limit = ConnectionLimit {
            most: 1,
            ..ConnectionLimit::new()
        };
        let take = |text: &str| limit.take(text.parse().expect("an address"));
        let _first = take("2001:db8::1").unwrap();
        assert!(take("2001:db8::ffff:2").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let limit = ConnectionLimit::new();
        let places: Vec<_> = (0..50)
            .filter_map(|last| limit.take(IpAddr::from([192, 0, 2, last])))
            .collect();
        assert_eq!(limit.open.lock().unwrap().len(), 50);
        drop(places);
        assert_eq!(limit.open.lock().unwrap().len(), 0);
    }
}
