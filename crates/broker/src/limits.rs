//! `[limits]`: every queue, rate and size has its key, with the unit in its name.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// All limits of the bus. The field names are the keys of `[limits]`; see `docs/reference` for what each one guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all listeners together.
    pub connections_max: usize,
    /// Connections from one address (IPv4, or IPv6 /64); never applied to loopback and unix sockets.
    pub connections_per_address_max: usize,
    /// From accept to the end of CONNECT.
    pub connect_timeout_secs: u64,
    /// Password checks that may wait or run at once; more are answered "server busy".
    pub password_checks_max: usize,
    /// And so many of one address.
    pub password_checks_per_address_max: usize,
    /// Sent by all clients whose CONNECT has not come whole; beyond it those who sent the most are closed. The same again for
    /// those that wait for the state.
    pub connecting_bytes_max: usize,
    /// The largest packet a user may send.
    pub packet_bytes_max: usize,
    /// The largest packet an anonymous client may send (also before CONNECT is read).
    pub packet_anonymous_bytes_max: usize,
    /// Kept for all clients: packets that have not come whole, filters that wait for their turn, replies that nobody reads, topic
    /// aliases of publishers, acknowledgements and packet ids that they wait for, wills. A user, or an anonymous address, may have a
    /// quarter of it; beyond that the connection that keeps the most is closed. With what has no place in the log yet, beyond
    /// that those who published it are not read.
    pub kept_bytes_max: usize,
    /// Queued for one connection; beyond it the lane reads the log.
    pub outbox_bytes_max: usize,
    /// Queued for all connections of one shard whose sockets do not take more; beyond it their lanes read the log.
    pub parked_bytes_max: usize,
    /// Messages a shard has not looked at yet; beyond it all its live lanes read the log.
    pub mailbox_bytes_max: usize,
    /// Published by one connection and not yet placed in the log; beyond it that connection is not read.
    pub unplaced_bytes_max: usize,
    /// QoS 1 and 2 messages in flight, each way, for one client.
    pub inflight_max: u16,
    /// Topic aliases a publisher may set (MQTT 5).
    pub topic_aliases_max: u16,
    /// Subscriptions of one client.
    pub subscriptions_per_client_max: usize,
    /// Bytes of all filters of one client, and 32 for each slash in them.
    pub subscription_bytes_per_client_max: usize,
    /// Groups of shared subscriptions, of all users, with those that are kept while their members are away.
    pub groups_max: usize,
    /// Groups of one user.
    pub groups_per_user_max: usize,
    /// Sessions live no longer than this after their connection (with persistent sessions; told in CONNACK).
    pub session_expiry_secs_max: u32,
    /// After a start clients have so long to come back before their wills are published: that the bus ended does not mean
    /// that they did.
    pub will_grace_secs: u32,
    /// Persistent anonymous sessions of one address.
    pub anonymous_sessions_per_address_max: usize,
    /// Persistent anonymous sessions of all addresses.
    pub anonymous_sessions_max: usize,
    /// Persistent sessions of all clients.
    pub sessions_max: usize,
    /// What one publisher may send; 0: no limit.
    pub publish_bytes_per_sec_max: u64,
    /// Replays that run at once, of all clients.
    pub replays_max: usize,
    /// Replays that run at once for one address.
    pub replays_per_address_max: usize,
    /// Replayed to one address; 0: no limit.
    pub replay_bytes_per_sec_per_address_max: u64,
    /// Bytes asked of the log at a time for one lane.
    pub replay_chunk_bytes: usize,
    /// The longest keep-alive; a client that asks for more, or for none, gets this one (MQTT 5: Server Keep Alive).
    pub keep_alive_secs_max: u16,
    /// Steps through the filters of all clients for one message: beyond it those with filters of many levels or many `+` follow the
    /// log, and look through their filters themselves.
    pub match_steps_max: usize,
    /// Connections that one helper flushes for a sleeping shard before it wakes that shard's thread.
    pub helping_flushes_max: usize,
    /// Addresses that are turned away at once.
    pub deny: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 20_000,
            connections_per_address_max: 200,
            connect_timeout_secs: 10,
            password_checks_max: 64,
            password_checks_per_address_max: 8,
            connecting_bytes_max: 8 << 20,
            packet_bytes_max: 16 << 20,
            packet_anonymous_bytes_max: 64 << 10,
            kept_bytes_max: 64 << 20,
            outbox_bytes_max: 256 << 10,
            parked_bytes_max: 2 << 20,
            mailbox_bytes_max: 8 << 20,
            unplaced_bytes_max: 4 << 20,
            inflight_max: 1_000,
            topic_aliases_max: 16,
            subscriptions_per_client_max: 1_000,
            subscription_bytes_per_client_max: 256 << 10,
            groups_max: 10_000,
            groups_per_user_max: 100,
            session_expiry_secs_max: 7 * 24 * 3600,
            will_grace_secs: 60,
            anonymous_sessions_per_address_max: 20,
            anonymous_sessions_max: 10_000,
            sessions_max: 100_000,
            publish_bytes_per_sec_max: 0,
            replays_max: 100,
            replays_per_address_max: 8,
            replay_bytes_per_sec_per_address_max: 20 << 20,
            replay_chunk_bytes: 64 << 10,
            keep_alive_secs_max: 3600,
            match_steps_max: 128,
            helping_flushes_max: 64,
            deny: Vec::new(),
        }
    }
}

/// An address range such as `203.0.113.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether the address lies in the range. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(of)) => {
                same_prefix(net.to_bits().into(), of.to_bits().into(), 32, self.prefix_bits)
            }
            (IpAddr::V6(net), IpAddr::V6(of)) => {
                same_prefix(net.to_bits(), of.to_bits(), 128, self.prefix_bits)
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("\"{text}\" is not an address range such as 203.0.113.0/24"))?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits =
            match prefix {
                None => bits_max,
                Some(bits) => bits.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(|| {
                    format!("\"{text}\": the part after / is a number from 0 to {bits_max}")
                })?,
            };
        Ok(Network { address, prefix_bits })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

fn same_prefix(one: u128, other: u128, width: u8, prefix_bits: u8) -> bool {
    let shift = u32::from(width - prefix_bits);
    one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
}

/// What limits per address count by: an IPv4 address, or an IPv6 /64. None for those that no such limit binds
/// (loopback, unix sockets).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressKey(u64, bool);

impl AddressKey {
    /// The key of a peer's address.
    pub fn of(address: Option<IpAddr>) -> Option<AddressKey> {
        match address?.to_canonical() {
            address if address.is_loopback() => None,
            IpAddr::V4(v4) => Some(AddressKey(v4.to_bits().into(), false)),
            IpAddr::V6(v6) => Some(AddressKey((v6.to_bits() >> 64) as u64, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_only() {
        let net: Network = "203.0.113.0/24".parse().unwrap();
        assert!(net.contains("203.0.113.7".parse().unwrap()));
        assert!(net.contains("::ffff:203.0.113.7".parse().unwrap()));
        assert!(!net.contains("203.0.114.7".parse().unwrap()));
        assert!(!net.contains("2001:db8::1".parse().unwrap()));
        let all: Network = "::/0".parse().unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
        assert!("203.0.113.0/33".parse::<Network>().is_err());
        assert!("here".parse::<Network>().is_err());
    }

    #[test]
    fn limits_per_address_spare_loopback_and_take_a_64_of_ipv6() {
        let key = |text: &str| AddressKey::of(Some(text.parse().unwrap()));
        assert_eq!(key("127.0.0.9"), None);
        assert_eq!(key("::1"), None);
        assert_eq!(AddressKey::of(None), None);
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("203.0.113.1"), key("203.0.113.2"));
    }
}
