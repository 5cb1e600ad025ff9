//! How many connections may be open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The open connections, in all and per address.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

struct Inner {
    most: usize,
    most_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one open connection; given back on drop.
pub(crate) struct Slot {
    limits: Limits,
    address: Option<IpAddr>,
}

// === impl Limits ===

impl Limits {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            most_per_address,
            open: Mutex::default(),
        }))
    }

    /// A place for a connection from `address`, or without an address to count for one from a proxy.
    /// The error is the reason to count.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Result<Slot, &'static str> {
        let mut open = self.0.open.lock();
        if open.all >= self.0.most {
            return Err("too_many_connections");
        }
        if let Some(address) = address {
            let of_address = open.by_address.get(&address).copied().unwrap_or_default();
            if of_address >= self.0.most_per_address {
                return Err("too_many_connections_of_address");
            }
            open.by_address.insert(address, of_address + 1);
        }
        open.all += 1;
        Ok(Slot {
            limits: self.clone(),
            address,
        })
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limits.0.open.lock();
        open.all -= 1;
        if let Some(address) = self.address
            && let Some(of_address) = open.by_address.get_mut(&address)
        {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let limits = Limits::new(3, 1);
        let first = limits.take(Some(a)).ok().unwrap();
        assert_eq!(
            limits.take(Some(a)).err(),
            Some("too_many_connections_of_address")
        );
        let others = [limits.take(Some(b)), limits.take(None)];
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(limits.take(None).err(), Some("too_many_connections"));
        drop(first);
        drop(limits.take(Some(a)).ok().unwrap());
        drop(others);
        let open = limits.0.open.lock();
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }
}
