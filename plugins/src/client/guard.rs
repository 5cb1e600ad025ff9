//! Which addresses a URL that was set over the API may lead to.
//!
//! Whoever may set an instance's webhook could otherwise make evows post to its own machine and its neighbours. What is
//! checked is the very address that is dialled, so that neither a spelling of it nor a name that changes its mind gets by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What is let through although it is not public.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    cidrs: Vec<IpNet>,
    /// In lower case; one that begins with a dot stands for everything below.
    hosts: Vec<String>,
}

/// An address is not one that a URL set over the API may lead to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URL leads to {address}, which is not a public address: `allow_cidrs` or `allow_hosts` can allow it"
)]
pub(crate) struct Forbidden {
    address: IpAddr,
}

/// IPv4 networks that are not public (RFC 6890 and its successors): this network, private, shared, loopback, link-local,
/// protocol assignments, documentation, 6to4 relays, benchmarks, multicast, reserved.
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// The IPv6 addresses that are given out for use on the Internet. Loopback, private, link-local, multicast, mapped and
/// NAT64 addresses lie outside.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// What of them is not public: protocol assignments with Teredo, documentation, 6to4.
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

// === impl Guard ===

impl Guard {
    pub(crate) fn new(cidrs: Vec<IpNet>, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| {
            let host = host.strip_prefix('*').unwrap_or(host);
            host.trim_end_matches('.').to_ascii_lowercase()
        });
        let hosts = hosts.collect();
        Self { cidrs, hosts }
    }

    /// Whether this address, which `host` names or is, may be dialled.
    pub(crate) fn check(&self, host: &str, address: IpAddr) -> Result<(), Forbidden> {
        // A mapped address is dialled as the one that it maps.
        let dialled = address.to_canonical();
        let is_allowed = self
            .cidrs
            .iter()
            .any(|net| net.contains(&dialled) || net.contains(&address));
        if is_allowed || is_public(dialled) || self.trusts(host) {
            Ok(())
        } else {
            Err(Forbidden { address })
        }
    }

    /// Those of the addresses of `host` that may be dialled; the error when there are only others.
    pub(crate) fn filter(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Forbidden> {
        let mut forbidden = None;
        let mut kept = addresses;
        kept.retain(|address| match self.check(host, address.ip()) {
            Ok(()) => true,
            Err(error) => {
                forbidden = Some(error);
                false
            }
        });
        match forbidden {
            Some(error) if kept.is_empty() => Err(error),
            _ => Ok(kept),
        }
    }

    fn trusts(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|trusted| {
            if trusted.starts_with('.') {
                host.ends_with(trusted)
            } else {
                host == *trusted
            }
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(guard: &Guard, host: &str, address: &str) -> bool {
        guard.check(host, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_public_addresses_are_dialled() {
        let guard = Guard::default();
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(allows(&guard, "h", address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allows(&guard, "h", address), "{address}");
        }
    }

    #[test]
    fn networks_and_names_can_be_allowed() {
        let nets = ["172.18.0.0/16", "::1/128", "64:ff9b::/96"];
        let nets = nets.map(|net| net.parse().unwrap()).to_vec();
        let hosts = ["N8N".to_owned(), "*.internal".to_owned()];
        let guard = Guard::new(nets, &hosts);
        for (host, address, allowed) in [
            ("h", "172.18.0.5", true),
            ("h", "::ffff:172.18.0.5", true),
            ("h", "172.19.0.5", false),
            ("h", "::1", true),
            ("h", "64:ff9b::7f00:1", true),
            ("n8n", "10.0.0.1", true),
            ("n8n.", "10.0.0.1", true),
            ("n8n.evil.example", "10.0.0.1", false),
            ("a.internal", "10.0.0.1", true),
            ("internal", "10.0.0.1", false),
            ("notinternal", "10.0.0.1", false),
        ] {
            assert_eq!(allows(&guard, host, address), allowed, "{host} {address}");
        }
    }

    #[test]
    fn a_name_with_a_public_address_is_dialled_there_only() {
        let guard = Guard::default();
        let addresses = ["127.0.0.1:80", "1.1.1.1:80"].map(|it| it.parse().unwrap());
        let kept = guard.filter("h", addresses.to_vec()).unwrap();
        assert_eq!(kept, [addresses[1]]);
        let error = guard.filter("h", vec![addresses[0]]).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"));
        assert_eq!(guard.filter("h", Vec::new()), Ok(Vec::new()));
    }
}
