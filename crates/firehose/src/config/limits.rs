//! `[limits]`: every queue, rate and size.

use serde::{Deserialize, Serialize};

use super::age::Age;
use super::network::Network;
use super::size::Size;

/// The bounds of what one client, one address and all together may take. Spans are whole seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one address (IPv6: of one /64).
    pub connections_per_address_max: usize,
    /// From the accept to a whole CONNECT, or the end of an HTTP request's head.
    pub connect_timeout_secs: Age,
    /// The largest MQTT packet.
    pub packet_bytes_max: Size,
    /// The largest MQTT packet of those without an account.
    pub packet_anonymous_bytes_max: Size,
    /// What is queued for one connection.
    pub outbox_bytes_max: Size,
    /// Publications in flight to one connection (and Receive Maximum of ours).
    pub inflight_max: u16,
    /// Subscriptions of one client.
    pub subscriptions_per_client_max: usize,
    /// The longest session expiry that is granted.
    pub session_expiry_secs_max: Age,
    /// Stored sessions of one address without an account.
    pub anonymous_sessions_per_address_max: usize,
    /// What one client may publish in a second; 0: no bound.
    pub publish_bytes_per_sec_max: Size,
    /// Replays at a time.
    pub replays_max: usize,
    /// Replays of one address at a time.
    pub replays_per_address_max: usize,
    /// What one address is replayed in a second; 0: no bound.
    pub replay_bytes_per_sec_per_address_max: Size,
    /// The longest keep-alive that is granted.
    pub keep_alive_secs_max: Age,
    /// Networks whose connections are closed at once.
    pub deny: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 20_000,
            connections_per_address_max: 200,
            connect_timeout_secs: Age::from_secs(10),
            packet_bytes_max: Size(16 << 20),
            packet_anonymous_bytes_max: Size(64 << 10),
            outbox_bytes_max: Size(256 << 10),
            inflight_max: 1_000,
            subscriptions_per_client_max: 1_000,
            session_expiry_secs_max: Age::from_days(7),
            anonymous_sessions_per_address_max: 20,
            publish_bytes_per_sec_max: Size(0),
            replays_max: 100,
            replays_per_address_max: 8,
            replay_bytes_per_sec_per_address_max: Size(20 << 20),
            keep_alive_secs_max: Age::from_secs(3_600),
            deny: Vec::new(),
        }
    }
}
