//! Who a request is from, when reverse proxies lie in between.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use evows_core::http::Peer;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The reverse proxies whose `X-Forwarded-For` is believed.
pub(super) struct Proxies(Vec<IpNet>);

// === impl Proxies ===

impl Proxies {
    pub(super) fn new(trusted: &[IpNet]) -> Self {
        Self(trusted.to_vec())
    }

    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request with `headers` over a connection from `tcp`.
    ///
    /// Every proxy appends the address that it saw, so the list is read from its end, and only as far as
    /// the hops are trusted: what lies further left may be the client's invention.
    pub(super) fn peer(&self, tcp: SocketAddr, headers: &HeaderMap) -> Peer {
        let mut client = tcp.ip();
        if !self.0.is_empty() {
            let mut hops = headers
                .get_all(X_FORWARDED_FOR)
                .iter()
                .rev()
                .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
                .filter(|hop| !hop.is_empty());
            while self.trust(client)
                && let Some(address) = hops.next().and_then(parse)
            {
                client = address;
            }
        }
        Peer { tcp, client }
    }
}

/// An address as proxies write it: with or without a port, IPv6 in brackets or not.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?;
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = hop
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(tcp: &str, forwarded: &[&'static str]) -> String {
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let tcp = SocketAddr::new(tcp.parse().unwrap(), 4711);
        let peer = proxies.peer(tcp, &headers);
        assert_eq!(peer.tcp, tcp);
        peer.client.to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_no_proxy_has() {
        let vectors: &[(&str, &[&'static str], &str)] = &[
            // Nobody to believe.
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            // One proxy, several proxies, several headers.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            // What the client put in front is not read.
            (
                "10.0.0.1",
                &["127.0.0.1", "203.0.113.9,10.0.0.2"],
                "203.0.113.9",
            ),
            ("10.0.0.1", &["10.0.0.9, 203.0.113.9"], "203.0.113.9"),
            // Proxies all the way.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ways to write an address.
            ("10.0.0.1", &["  203.0.113.9:1234 "], "203.0.113.9"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
            ("fd00::1", &["2001:db8::1, fd00::2"], "2001:db8::1"),
            // Garbage ends the walk at the last trusted hop.
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.256"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,,"], "203.0.113.9"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ];
        for (tcp, forwarded, expected) in vectors {
            assert_eq!(client(tcp, forwarded), *expected, "{tcp} {forwarded:?}");
        }
    }
}
