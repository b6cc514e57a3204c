//! `[limits]`: every queue, rate and size. `firehose-broker` has the keys and their defaults; here is how they are written.

use serde::{Deserialize, Serialize};

use super::age::Age;
use super::network::Network;
use super::size::Size;

/// The bounds of what one client, one address and all together may take. Sizes and spans are written with or without a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all listeners together.
    pub connections_max: usize,
    /// Connections from one address (IPv4, or IPv6 /64); never applied to loopback and unix sockets.
    pub connections_per_address_max: usize,
    /// From accept to the end of CONNECT.
    pub connect_timeout_secs: Age,
    /// Password checks that may wait or run at once; more are answered "server busy".
    pub password_checks_max: usize,
    /// And so many of one address.
    pub password_checks_per_address_max: usize,
    /// Sent by all clients whose CONNECT has not come whole; beyond it those who sent the most are closed.
    pub connecting_bytes_max: Size,
    /// The largest packet a user may send.
    pub packet_bytes_max: Size,
    /// The largest packet an anonymous client may send (also before CONNECT is read).
    pub packet_anonymous_bytes_max: Size,
    /// Kept for all clients: packets that have not come whole, replies that nobody reads, topic aliases of publishers.
    pub kept_bytes_max: Size,
    /// Queued for one connection; beyond it the lane reads the log.
    pub outbox_bytes_max: Size,
    /// Queued for all connections of one shard whose sockets do not take more; beyond it their lanes read the log.
    pub parked_bytes_max: Size,
    /// Messages a shard has not looked at yet; beyond it all its live lanes read the log.
    pub mailbox_bytes_max: Size,
    /// Published by one connection and not yet placed in the log; beyond it that connection is not read.
    pub unplaced_bytes_max: Size,
    /// QoS 1 and 2 messages in flight, each way, for one client.
    pub inflight_max: u16,
    /// Topic aliases a publisher may set (MQTT 5).
    pub topic_aliases_max: u16,
    /// Subscriptions of one client.
    pub subscriptions_per_client_max: usize,
    /// Bytes of all filters of one client.
    pub subscription_bytes_per_client_max: Size,
    /// Groups of shared subscriptions, of all users.
    pub groups_max: usize,
    /// Groups of one user.
    pub groups_per_user_max: usize,
    /// Sessions live no longer than this after their connection (with persistent sessions; told in CONNACK).
    pub session_expiry_secs_max: Age,
    /// After a start wills of connections that the bus's end cut wait so long for their clients to come back.
    pub will_grace_secs: Age,
    /// Persistent anonymous sessions of one address.
    pub anonymous_sessions_per_address_max: usize,
    /// Persistent anonymous sessions of all addresses.
    pub anonymous_sessions_max: usize,
    /// Persistent sessions of all clients.
    pub sessions_max: usize,
    /// What one publisher may send; 0: no limit.
    pub publish_bytes_per_sec_max: Size,
    /// Replays that run at once, of all clients.
    pub replays_max: usize,
    /// Replays that run at once for one address.
    pub replays_per_address_max: usize,
    /// Replayed to one address; 0: no limit.
    pub replay_bytes_per_sec_per_address_max: Size,
    /// Bytes asked of the log at a time for one lane.
    pub replay_chunk_bytes: Size,
    /// The longest keep-alive; a client that asks for more, or for none, gets this one (MQTT 5: Server Keep Alive).
    pub keep_alive_secs_max: Age,
    /// Steps through the filters of all clients for one message; beyond it those with filters of many levels or many `+` follow the
    /// log.
    pub match_steps_max: usize,
    /// Connections that one helper flushes for a sleeping shard before it wakes that shard's thread.
    pub helping_flushes_max: usize,
    /// Addresses that are turned away at once.
    pub deny: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = firehose_broker::Limits::default();
        Limits {
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            connect_timeout_secs: Age::from_secs(limits.connect_timeout_secs),
            password_checks_max: limits.password_checks_max,
            password_checks_per_address_max: limits.password_checks_per_address_max,
            connecting_bytes_max: Size(limits.connecting_bytes_max as u64),
            packet_bytes_max: Size(limits.packet_bytes_max as u64),
            packet_anonymous_bytes_max: Size(limits.packet_anonymous_bytes_max as u64),
            kept_bytes_max: Size(limits.kept_bytes_max as u64),
            outbox_bytes_max: Size(limits.outbox_bytes_max as u64),
            parked_bytes_max: Size(limits.parked_bytes_max as u64),
            mailbox_bytes_max: Size(limits.mailbox_bytes_max as u64),
            unplaced_bytes_max: Size(limits.unplaced_bytes_max as u64),
            inflight_max: limits.inflight_max,
            topic_aliases_max: limits.topic_aliases_max,
            subscriptions_per_client_max: limits.subscriptions_per_client_max,
            subscription_bytes_per_client_max: Size(limits.subscription_bytes_per_client_max as u64),
            groups_max: limits.groups_max,
            groups_per_user_max: limits.groups_per_user_max,
            session_expiry_secs_max: Age::from_secs(limits.session_expiry_secs_max.into()),
            will_grace_secs: Age::from_secs(limits.will_grace_secs.into()),
            anonymous_sessions_per_address_max: limits.anonymous_sessions_per_address_max,
            anonymous_sessions_max: limits.anonymous_sessions_max,
            sessions_max: limits.sessions_max,
            publish_bytes_per_sec_max: Size(limits.publish_bytes_per_sec_max),
            replays_max: limits.replays_max,
            replays_per_address_max: limits.replays_per_address_max,
            replay_bytes_per_sec_per_address_max: Size(limits.replay_bytes_per_sec_per_address_max),
            replay_chunk_bytes: Size(limits.replay_chunk_bytes as u64),
            keep_alive_secs_max: Age::from_secs(limits.keep_alive_secs_max.into()),
            match_steps_max: limits.match_steps_max,
            helping_flushes_max: limits.helping_flushes_max,
            deny: limits.deny.into_iter().map(Network).collect(),
        }
    }
}

impl Limits {
    /// For the bus. What is more than its type can hold is as much as that can hold.
    pub fn to_broker(&self) -> firehose_broker::Limits {
        firehose_broker::Limits {
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            connect_timeout_secs: self.connect_timeout_secs.secs,
            password_checks_max: self.password_checks_max,
            password_checks_per_address_max: self.password_checks_per_address_max,
            connecting_bytes_max: usize::try_from(self.connecting_bytes_max.0).unwrap_or(usize::MAX),
            packet_bytes_max: usize::try_from(self.packet_bytes_max.0).unwrap_or(usize::MAX),
            packet_anonymous_bytes_max: usize::try_from(self.packet_anonymous_bytes_max.0)
                .unwrap_or(usize::MAX),
            kept_bytes_max: usize::try_from(self.kept_bytes_max.0).unwrap_or(usize::MAX),
            outbox_bytes_max: usize::try_from(self.outbox_bytes_max.0).unwrap_or(usize::MAX),
            parked_bytes_max: usize::try_from(self.parked_bytes_max.0).unwrap_or(usize::MAX),
            mailbox_bytes_max: usize::try_from(self.mailbox_bytes_max.0).unwrap_or(usize::MAX),
            unplaced_bytes_max: usize::try_from(self.unplaced_bytes_max.0).unwrap_or(usize::MAX),
            inflight_max: self.inflight_max,
            topic_aliases_max: self.topic_aliases_max,
            subscriptions_per_client_max: self.subscriptions_per_client_max,
            subscription_bytes_per_client_max: usize::try_from(self.subscription_bytes_per_client_max.0)
                .unwrap_or(usize::MAX),
            groups_max: self.groups_max,
            groups_per_user_max: self.groups_per_user_max,
            session_expiry_secs_max: u32::try_from(self.session_expiry_secs_max.secs).unwrap_or(u32::MAX),
            will_grace_secs: u32::try_from(self.will_grace_secs.secs).unwrap_or(u32::MAX),
            anonymous_sessions_per_address_max: self.anonymous_sessions_per_address_max,
            anonymous_sessions_max: self.anonymous_sessions_max,
            sessions_max: self.sessions_max,
            publish_bytes_per_sec_max: self.publish_bytes_per_sec_max.0,
            replays_max: self.replays_max,
            replays_per_address_max: self.replays_per_address_max,
            replay_bytes_per_sec_per_address_max: self.replay_bytes_per_sec_per_address_max.0,
            replay_chunk_bytes: usize::try_from(self.replay_chunk_bytes.0).unwrap_or(usize::MAX),
            keep_alive_secs_max: u16::try_from(self.keep_alive_secs_max.secs).unwrap_or(u16::MAX),
            match_steps_max: self.match_steps_max,
            helping_flushes_max: self.helping_flushes_max,
            deny: self.deny.iter().map(|network| network.0).collect(),
        }
    }
}
