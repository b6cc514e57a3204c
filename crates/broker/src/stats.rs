//! Counters of one shard. The shard alone writes them; `$SYS`, metrics and tests read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and all may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owner calls it, so that a plain load and store do.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes off.
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one shard, or of all together ([`ShardStats::sum`]).
        #[derive(Debug, Default)]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl ShardStats {
            /// All shards together.
            pub fn sum<'a>(shards: impl IntoIterator<Item = &'a ShardStats>) -> ShardStats {
                let sum = ShardStats::default();
                for shard in shards {
                    $(sum.$name.add(shard.$name.get());)*
                }
                sum
            }
        }
    };
}

counters! {
    /// Clients connected now.
    connections,
    /// Clients that ever connected.
    connections_total,
    /// Subscriptions held now.
    subscriptions,
    /// PUBLISH packets received.
    messages_received,
    /// PUBLISH packets queued for clients.
    messages_sent,
    /// Bytes read from sockets.
    received_bytes,
    /// Publications that are in no log and were dropped for a slow reader.
    messages_dropped,
    /// Publications refused: not allowed.
    messages_refused,
    /// Publications that were allowed and that the log did not take, at any QoS: its disk is full, or failed.
    messages_refused_disk,
    /// Connections closed for a malformed packet or a protocol error.
    protocol_errors,
    /// Connections closed since they, and others of their user or address, made the bus keep too much.
    connections_over_budget,
    /// Times a live lane went on from the log, since its reader was slow.
    lanes_fallen_back,
    /// Times a session began to follow the log, since its filters made it long to match messages.
    sessions_set_aside,
    /// Times the shard's mailbox was full.
    mailbox_overflows,
    /// Ranges of the log that a lane wanted and that are gone.
    gaps_declared,
}
