//! How many connections each client has, by its address.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;

use crate::route::ListenerId;

/// Counts by listener and client, for as long as a client has a connection.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<AHashMap<Client, usize>>);

type Client = (ListenerId, IpAddr);

/// One of a client's connections.
pub struct Guest {
    crowd: Arc<Crowd>,
    client: Client,
}

impl Crowd {
    /// Counts one more, unless the client has as many as `limit` already.
    pub fn enter(
        self: &Arc<Self>,
        listener: ListenerId,
        ip: IpAddr,
        limit: Option<NonZeroUsize>,
    ) -> Option<Guest> {
        let client = (listener, one_client(ip));
        // Counted without a limit too: a reload may bring one.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if limit.is_some_and(|limit| *count >= limit.get()) {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Guest { crowd: self.clone(), client })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.client);
            }
        }
    }
}

/// Who has one address of IPv6 has its whole /64.
fn one_client(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_counted_by_itself_and_forgotten_with_its_last_connection() {
        let crowd = Arc::new(Crowd::default());
        let enter = |listener, ip: &str| crowd.enter(listener, ip.parse().unwrap(), NonZeroUsize::new(2));
        let mut guests: Vec<_> = ["10.0.0.1", "10.0.0.1", "2001:db8::1", "2001:db8::ffff:2"]
            .iter()
            .map(|ip| enter(0, ip).unwrap())
            .collect();
        assert!(enter(0, "10.0.0.1").is_none() && enter(0, "2001:db8::3").is_none());
        guests.extend(["10.0.0.2", "2001:db8:0:1::1"].map(|ip| enter(0, ip).unwrap()));
        guests.push(enter(1, "10.0.0.1").unwrap());
        drop(guests.swap_remove(0));
        guests.push(enter(0, "10.0.0.1").unwrap());
        assert!(enter(0, "10.0.0.1").is_none());
        guests.clear();
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
