//! A client on its way from the lobby to its home shard.

use firehose_auth::Identity;
use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// A connection whose CONNECT was read and whose password was checked.
pub struct Arrival {
    /// What came over the wire so far: the CONNECT packet, whole, and whatever followed it.
    pub input: Vec<u8>,
    /// Who it is.
    pub identity: Identity,
    /// The client id: the client's own, or the one that the lobby drew.
    pub client_id: Box<str>,
    /// Whether the lobby drew the client id.
    pub assigned: bool,
    /// Where it comes from; none for unix sockets.
    pub address: Option<IpAddr>,
    /// The socket, opaque to the broker: it travels with the arrival, and `net` takes it out.
    pub socket: Option<Box<dyn Any + Send>>,
}

/// Under which name a session is found: MQTT's client id within the identity; for the anonymous within their
/// address, so that nobody can steal or evict another one's session (DESIGN section 4, "Anonymous").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The user, or none.
    pub user: Option<Box<str>>,
    /// The anonymous client's address (IPv4, or IPv6 /64), unless the id was drawn by a server.
    pub address: Option<u64>,
}

impl Scope {
    /// The scope of an arrival's client id.
    pub fn of(identity: &Identity, address: Option<IpAddr>, assigned: bool) -> Scope {
        let user = identity.name().map(Box::from);
        let address = match address.map(|address| address.to_canonical()) {
            _ if user.is_some() || assigned => None,
            None => Some(0),
            Some(IpAddr::V4(v4)) => Some(u64::from(v4.to_bits())),
            Some(IpAddr::V6(v6)) => Some((v6.to_bits() >> 64) as u64),
        };
        Scope { user, address }
    }

    /// The hash that names the home shard, and finds the session in it.
    pub fn hash_with(&self, client_id: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        client_id.hash(&mut hasher);
        hasher.finish()
    }
}

/// The home of a session: a takeover is always local to a shard.
pub fn home_shard(hash: u64, shards: usize) -> usize {
    (hash % shards.max(1) as u64) as usize
}
