//! How many connections one address may hold open, so that nobody alone takes all that there are.
//!
//! Nothing is read from a connection beyond the limit. A trusted proxy is not counted, since it is one address for
//! everybody; what it lets through of each is its own affair.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use rustix::net::{Shutdown, shutdown};

use super::extract::client_ip;
use crate::config::Config;
use crate::identity::throttle::network;
use crate::metrics::{Bucket, Metrics};

/// Far more than a browser or an app's pool opens, and a tenth of what the server takes.
const MOST_OF_ONE: usize = 1_000;

/// The connections of one server, shared by its threads.
#[derive(Clone)]
pub(crate) struct ConnectionLimit {
    open: Open,
    most: usize,
}

/// How many each network has open; one that has none is not in it.
type Open = Arc<Mutex<HashMap<String, usize>>>;

/// One connection's place, free again when the connection has ended.
struct Place {
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

    /// What becomes of a new connection: its place goes along with it, or it ends.
    pub(crate) fn admit(
        &self,
        connection: &dyn Any,
        belongings: &mut Extensions,
        config: &Config,
        metrics: &Metrics,
    ) {
        // Whoever connects to a Unix socket is a proxy of ours.
        let Some(stream) = connection.downcast_ref::<TcpStream>() else {
            return;
        };
        let Some(address) = stream.peer_addr().ok().map(|peer| peer.ip()) else {
            return;
        };
        if client_ip::is_trusted(address, &config.trusted_proxies) {
            return;
        }
        match self.take(address) {
            Some(place) => {
                belongings.insert(place);
            }
            None => {
                metrics.throttled(Bucket::Connections);
                tracing::debug!("an address opened too many connections");
                let _gone_already = shutdown(stream, Shutdown::Both);
            }
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
