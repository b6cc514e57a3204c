//! A client on its way from the lobby to its home shard.

use firehose_auth::Identity;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::any::Any;
use std::hash::Hasher;
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The hash that names the home shard, finds the session in it, and stands in the log as `Origin::session`. The
    /// same in every run with the same secret, and nobody who does not know that can find two names with one hash.
    pub fn hash_with(&self, secret: &Secret, client_id: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&secret.hash_key());
        match &self.user {
            Some(user) => {
                hasher.write_u8(1);
                hasher.write_u64(user.len() as u64);
                hasher.write(user.as_bytes());
            }
            None => hasher.write_u8(0),
        }
        hasher.write_u8(u8::from(self.address.is_some()));
        hasher.write_u64(self.address.unwrap_or(0));
        hasher.write(client_id.as_bytes());
        hasher.finish()
    }
}

/// What only this bus knows, kept in the state: it keys the hashes of names, and the ids that the server draws.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From random bytes.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The half that keys the checks of drawn ids.
    pub fn id_key(&self) -> &[u8] {
        &self.0[16..]
    }

    /// The half that keys the hashes of names.
    pub(crate) fn hash_key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&self.0[..16]);
        key
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The home of a session: a takeover is always local to a shard.
pub fn home_shard(hash: u64, shards: usize) -> usize {
    (hash % shards.max(1) as u64) as usize
}
