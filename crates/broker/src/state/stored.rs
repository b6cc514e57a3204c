//! What is kept of a session, as it stands in the state file.

use crate::arrival::Scope;
use firehose_log::Offset;
use serde::{Deserialize, Serialize};

/// Names a session: its client id within its scope, and the hash that finds both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// [`Scope::hash_with`]: the home shard, and `Origin::session` in the log.
    pub hash: u64,
    /// Within which client ids are told apart.
    pub scope: Scope,
    /// MQTT's client id.
    pub client_id: Box<str>,
    /// The client id was drawn by a server: an anonymous session that is no address's own.
    pub assigned: bool,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSubscription {
    /// The filter as the trie has it (without `$replay/<from>/`).
    pub filter: String,
    /// For `$replay` and `$share`: the filter as the client wrote it.
    pub written: Option<String>,
    /// Its options, as the byte of a SUBSCRIBE: QoS, no-local, retain-as-published, retain handling.
    pub options: u8,
    /// The subscription identifier, 0: none.
    pub id: u32,
    /// Which of the lanes in [`Progress`] reads it.
    pub lane: u16,
    /// The first offset that counts for it.
    pub from: Offset,
}

/// How far a session got: everything below a lane's next offset was acknowledged, or is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its lanes, the main one first.
    pub lanes: Vec<StoredLane>,
    /// The packet id that the next message gets.
    pub next_id: u16,
    /// Messages that were sent, or are about to be, and not acknowledged, in the order in which they were sent.
    pub inflight: Vec<StoredInflight>,
    /// Retained messages that a subscription has still to get.
    pub scans: Vec<StoredScan>,
}

/// A lane of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLane {
    /// Its number in the session; 0: the main one.
    pub number: u16,
    /// The first offset it has not sent.
    pub next: Offset,
    /// Ranges that are gone, as far as its client is not known to have read of them: a line each.
    pub gap: Option<String>,
}

/// A message on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredInflight {
    /// Its packet id.
    pub packet_id: u16,
    /// How far the exchange got.
    pub state: StoredState,
    /// Its event; 0: it is not in the log.
    pub offset: Offset,
    /// It was sent as a retained message.
    pub retain: bool,
    /// The lane of the shared subscription that brought it; 0: none did.
    pub shared: u16,
}

/// How far the exchange of a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredState {
    /// PUBLISH at QoS 1: waits for PUBACK.
    Sent1,
    /// PUBLISH at QoS 2: waits for PUBREC.
    Sent2,
    /// PUBREL: waits for PUBCOMP.
    Released,
}

/// How far a group of a shared subscription is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGroup {
    /// The first offset that it has not looked at.
    pub next: Offset,
    /// Earlier ones that are to be given to somebody, as far as is known, ascending.
    pub pending: Vec<Offset>,
    /// Those from `next` on that some member's session has already.
    pub skipped: Vec<Offset>,
    /// Ranges that are gone, as far as no member is known to have read of them: a line each.
    pub gap: Option<Box<str>>,
}

/// Retained messages that a subscription has still to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredScan {
    /// The subscription's filter.
    pub filter: String,
    /// Entries newer than this come live.
    pub as_of: Offset,
    /// The last topic that was looked at; none: the scan has not begun.
    pub after: Option<String>,
    /// What comes before this topic was sent, although it comes behind `after`.
    pub from: Option<String>,
}

/// A will, stored at CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWill {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its attributes, encoded as in a record.
    pub attributes: Vec<u8>,
    /// QoS, retain, payload format: `firehose_log::Flags`.
    pub flags: u8,
    /// Will Delay Interval, in seconds.
    pub delay_secs: u32,
    /// The user it is published as; none: the anonymous (with `anonymous = "full"`).
    pub user: Option<String>,
}

impl StoredWill {
    /// The bytes of all that it says.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.attributes.len()
    }
}
