//! What one address may take of something that all share. Loopback and unix sockets have no share: nothing but the whole
//! bounds them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use firehose_broker::limits::AddressKey;
use tokio::sync::Semaphore;

/// Where a request comes from; none: a unix socket. Each request has it among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub Option<IpAddr>);

/// See the module. An address is forgotten when it takes nothing.
#[derive(Debug)]
pub(crate) struct Shares {
    permits: usize,
    addresses: Mutex<HashMap<AddressKey, Weak<Semaphore>>>,
}

impl Shares {
    /// So many permits for each address.
    pub(crate) fn new(permits: usize) -> Self {
        Shares { permits, addresses: Mutex::default() }
    }

    /// The share of the peer's address; none: it has no bound.
    pub(crate) fn of(&self, peer: Peer) -> Option<Arc<Semaphore>> {
        let key = AddressKey::of(peer.0)?;
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        if addresses.len() == addresses.capacity() {
            addresses.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.permits));
        addresses.insert(key, Arc::downgrade(&share));
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer(text.parse().ok())
    }

    #[test]
    fn an_address_has_one_share_for_as_long_as_it_takes_some_of_it() {
        let shares = Shares::new(3);
        let taken = shares.of(peer("2001:db8::1")).expect("bounded").try_acquire_many_owned(2);
        let same = shares.of(peer("2001:db8::2")).expect("the same /64");
        assert_eq!(same.available_permits(), 1);
        assert_eq!(shares.of(peer("203.0.113.1")).expect("bounded").available_permits(), 3);
        drop((taken, same));
        assert_eq!(shares.of(peer("2001:db8::1")).expect("bounded").available_permits(), 3);
        assert!(shares.of(peer("127.0.0.1")).is_none() && shares.of(Peer(None)).is_none());
    }

    #[test]
    fn addresses_that_take_nothing_are_forgotten() {
        let shares = Shares::new(1);
        let held = shares.of(peer("203.0.113.1"));
        for number in 0..10_000u32 {
            let _ = shares.of(Peer(Some(IpAddr::V4((0x0a00_0000 + number).into()))));
        }
        assert!(shares.addresses.lock().expect("whole").len() < 100);
        assert!(held.is_some_and(|held| Arc::ptr_eq(&held, &shares.of(peer("203.0.113.1")).expect("known"))));
    }
}
