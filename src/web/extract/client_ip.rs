//! Where a request really comes from. Forwarded headers are believed from trusted proxies only, and read from the right:
//! the leftmost value is whatever the sender wrote.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

/// The address of whoever sent this request, if anybody tells it: behind a Unix socket only the proxy can.
pub(in crate::web) fn client_ip(request: &HttpRequest, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|address| address.ip());
    resolve(peer, request.headers(), trusted)
}

/// Whether the request came through one of our own proxies. Only they can sit at the other end of a Unix socket.
pub(in crate::web) fn through_trusted_proxy(request: &HttpRequest, trusted: &[IpNet]) -> bool {
    request
        .peer_addr()
        .is_none_or(|address| is_trusted(address.ip(), trusted))
}

/// The /24 or /48 around an address: what a provider moves one subscriber about in.
pub(in crate::web) fn neighbourhood(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// The same from its parts: who sent it to us, what it says, and whom we believe.
pub fn resolve(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut address = peer.map(|peer| peer.to_canonical());
    if address.is_some_and(|address| !is_trusted(address, trusted)) {
        return address;
    }
    let hops: Vec<_> = headers
        .get_all("x-forwarded-for")
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    for hop in hops.into_iter().rev() {
        // Whatever can't be read was not written by a proxy of ours: what lies before it counts for nothing.
        let Some(hop) = str::from_utf8(hop).ok().and_then(|hop| parse(hop.trim())) else {
            return address;
        };
        address = Some(hop);
        if !is_trusted(hop, trusted) {
            return address;
        }
    }
    address
}

fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(hop, |(address, _)| address);
    let address = bare.parse::<IpAddr>().or_else(|_| {
        bare.parse::<std::net::SocketAddr>()
            .map(|socket| socket.ip())
    });
    address.ok().map(|address| address.to_canonical())
}

pub(in crate::web) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted
        .iter()
        .any(|network| network.contains(&address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let peer = Some(peer.parse().expect("an address"));
        resolved(peer, forwarded).expect("a peer").to_string()
    }

    fn resolved(peer: Option<IpAddr>, forwarded: &[&str]) -> Option<IpAddr> {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a header value"),
            );
        }
        resolve(peer, &headers, &trusted)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn behind_a_unix_socket_the_proxy_is_believed_or_nobody_is_known() {
        let seen = |forwarded: &[&str]| resolved(None, forwarded).map(|ip| ip.to_string());
        assert_eq!(
            seen(&["1.1.1.1, 198.51.100.7"]).as_deref(),
            Some("198.51.100.7")
        );
        assert_eq!(
            seen(&["198.51.100.7, 10.0.0.2"]).as_deref(),
            Some("198.51.100.7")
        );
        assert_eq!(seen(&[]), None);
        assert_eq!(seen(&["unknown"]), None);
    }

    #[test]
    fn the_header_is_read_from_the_right() {
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]),
            "198.51.100.7"
        );
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(seen("10.0.0.1", &["198.51.100.7, garbage"]), "10.0.0.1");
        // Bytes that are no text hide nobody who stands to their right.
        for forwarded in [&["\u{e4}, 198.51.100.7"][..], &["\u{e4}", "198.51.100.7"]] {
            assert_eq!(seen("10.0.0.1", forwarded), "198.51.100.7");
        }
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
    }
}
