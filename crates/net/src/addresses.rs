//! How many connections there are, of all and of each address. A connection's place is given back when it is dropped.

use firehose_broker::limits::{AddressKey, Limits};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    addresses: HashMap<AddressKey, usize>,
}

/// The counts, shared by everybody who holds a place.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Counts>>);

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Its address is in `[limits] deny`.
    Denied,
    /// `connections_max`.
    Full,
    /// `connections_per_address_max`.
    AddressFull,
}

/// One connection's place.
#[derive(Debug)]
pub struct Place {
    counts: Addresses,
    key: Option<AddressKey>,
}

impl Addresses {
    /// Gives a connection its place, or says why not.
    pub fn admit(&self, address: Option<IpAddr>, limits: &Limits) -> Result<Place, TurnedAway> {
        if address.is_some_and(|address| limits.deny.iter().any(|network| network.contains(address))) {
            return Err(TurnedAway::Denied);
        }
        let key = AddressKey::of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= limits.connections_max {
            return Err(TurnedAway::Full);
        }
        if let Some(key) = key {
            let of_address = counts.addresses.entry(key).or_default();
            if *of_address >= limits.connections_per_address_max {
                return Err(TurnedAway::AddressFull);
            }
            *of_address += 1;
        }
        counts.all += 1;
        Ok(Place { counts: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(key) = self.key
            && let Some(of_address) = counts.addresses.get_mut(&key)
        {
            *of_address -= 1;
            if *of_address == 0 {
                counts.addresses.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_its_connection_goes() {
        let limits = Limits { connections_max: 2, connections_per_address_max: 1, ..Limits::default() };
        let (addresses, who) = (Addresses::default(), "203.0.113.1".parse().ok());
        let place = addresses.admit(who, &limits).unwrap();
        assert_eq!(addresses.admit(who, &limits).unwrap_err(), TurnedAway::AddressFull);
        let local = addresses.admit("127.0.0.1".parse().ok(), &limits).unwrap();
        assert_eq!(addresses.admit("127.0.0.1".parse().ok(), &limits).unwrap_err(), TurnedAway::Full);
        drop((place, local));
        assert!(addresses.admit(who, &limits).is_ok());
    }

    #[test]
    fn a_denied_address_is_turned_away() {
        let limits = Limits { deny: vec!["203.0.113.0/24".parse().unwrap()], ..Limits::default() };
        let denied = Addresses::default().admit("203.0.113.9".parse().ok(), &limits);
        assert_eq!(denied.unwrap_err(), TurnedAway::Denied);
    }
}
