//! A client's connection: what is left of its input, what it is to be sent, what it still has to be told.

use crate::kept::Keeping;
use crate::outbox::Outbox;
use crate::state::StoredWill;
use firehose_mqtt::{Reason, Version};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

/// What a packet id takes in a set of them, where they ascend.
const RECEIVED_BYTES: usize = 8;
/// Acknowledgements that a queue keeps room for once they have left.
const ACKS_ROOM_MAX: usize = 1024;

/// See the module. Idle, it holds no buffers.
#[derive(Debug)]
pub struct Connection {
    /// What the client speaks.
    pub version: Version,
    /// Where it comes from; none for unix sockets.
    pub address: Option<IpAddr>,
    /// The beginning of a packet that has not come whole.
    pub input: Vec<u8>,
    /// What it is to be sent.
    pub outbox: Outbox,
    /// What publishing needs, once it does.
    pub publisher: Option<Box<Publisher>>,
    /// Bytes of the topic aliases that it set.
    pub alias_bytes: usize,
    /// What it makes the bus keep, if that is enough to count.
    pub(crate) keeping: Option<Box<Keeping>>,
    /// Its will, which the state has too, and is given again if it loses its file; none: it has none, or left properly.
    pub will: Option<Box<StoredWill>>,
    /// The largest packet it takes (MQTT 5), in bytes.
    pub packet_bytes_max: u32,
    /// The largest packet it may send.
    pub sends_bytes_max: u32,
    /// The topic aliases it may set.
    pub aliases_max: u16,
    /// It stands in the shard's list of connections to flush.
    pub dirty: bool,
    /// Its socket takes no more for now.
    pub blocked: bool,
    /// Its client has to acknowledge something before it is sent more.
    pub window_shut: bool,
    /// Memory of its outbox that is counted as parked.
    pub parked_bytes: usize,
    /// Queued from the log since it was flushed last.
    pub fresh_bytes: usize,
    /// It waits for its turn to read the log.
    pub starving: bool,
    /// To find what its last answer of the log had for it took long.
    pub dear: bool,
    /// It is to be closed once its replies are out.
    pub closing: bool,
    /// Why it is not read for now.
    pub pauses: Pauses,
    /// Filters of its SUBSCRIBEs and UNSUBSCRIBEs that have no place in the order yet; one of very many levels counts as several.
    pub sequencing: usize,
    /// The bytes of those.
    pub sequencing_bytes: usize,
    /// MQTT 5: its CONNECT asked for a session expiry above 0.
    pub asked_for_expiry: bool,
    /// MQTT 5: reason strings and user properties are welcome on every packet.
    pub problem_information: bool,
}

impl Connection {
    /// A connection that has not been sent anything yet.
    pub fn new(version: Version, address: Option<IpAddr>, sends_bytes_max: usize) -> Connection {
        Connection {
            version,
            address,
            input: Vec::new(),
            outbox: Outbox::default(),
            publisher: None,
            alias_bytes: 0,
            keeping: None,
            will: None,
            packet_bytes_max: u32::MAX,
            sends_bytes_max: sends_bytes_max.min(u32::MAX as usize) as u32,
            aliases_max: 0,
            dirty: false,
            blocked: false,
            window_shut: false,
            parked_bytes: 0,
            fresh_bytes: 0,
            starving: false,
            dear: false,
            closing: false,
            pauses: Pauses::default(),
            sequencing: 0,
            sequencing_bytes: 0,
            asked_for_expiry: false,
            problem_information: true,
        }
    }

    /// What it makes the bus keep: of its input, of filters on their way, of replies that it does not read, of topic aliases, of what
    /// its publishes are owed, its will.
    pub(crate) fn kept_bytes(&self) -> usize {
        let unread = if self.blocked { self.outbox.control_bytes() } else { 0 };
        let owed = self.publisher.as_deref().map_or(0, Publisher::owed_bytes);
        let will = self.will.as_deref().map_or(0, StoredWill::bytes);
        self.input.len() + self.sequencing_bytes + self.alias_bytes + unread + owed + will
    }

    /// What it published that has no place in the log yet.
    pub(crate) fn unplaced_bytes(&self) -> usize {
        self.publisher.as_deref().map_or(0, |publisher| publisher.unplaced_bytes)
    }
}

/// Why a connection is not read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Too much of what it published has no place in the log yet.
    Unplaced = 1,
    /// It publishes more than `publish_bytes_per_sec_max`.
    Rate = 2,
    /// Its SUBSCRIBE waits for the log to say where it begins; what follows comes after it.
    Subscribing = 4,
    /// Many of its filters have no place in the order yet.
    Sequencing = 8,
    /// Too much of what clients of its user or address published has no place in the log yet.
    Budget = 16,
}

/// The reasons that hold at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses(u8);

impl Pauses {
    /// Adds a reason, or takes it away.
    pub fn set(&mut self, pause: Pause, on: bool) {
        if on { self.0 |= pause as u8 } else { self.0 &= !(pause as u8) }
    }

    /// Whether this one holds.
    pub fn has(self, pause: Pause) -> bool {
        self.0 & pause as u8 != 0
    }

    /// Whether any holds.
    pub fn any(self) -> bool {
        self.0 != 0
    }
}

/// Which acknowledgement a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// QoS 1.
    PubAck,
    /// QoS 2, first half.
    PubRec,
}

/// An acknowledgement that leaves when its deposit is stored, and those before it are.
#[derive(Clone, Copy, Debug)]
pub struct PendingAck {
    /// The deposit it waits for.
    pub ticket: u64,
    /// What it acknowledges.
    pub packet_id: u16,
    /// PUBACK or PUBREC.
    pub kind: AckKind,
    /// Success, or why it was refused: refusals stand behind earlier acknowledgements.
    pub reason: Reason,
    /// It only stands behind that deposit: what becomes of it is decided already.
    pub decided: bool,
}

/// A connection's side as a publisher.
#[derive(Debug, Default)]
pub struct Publisher {
    /// Acknowledgements to come, in the order of the publishes.
    pub acks: VecDeque<PendingAck>,
    /// How many of them are PUBACKs.
    pub pubacks: usize,
    /// QoS 2 packet ids between PUBLISH and PUBREL.
    pub received: BTreeSet<u16>,
    /// Topic aliases it set (MQTT 5), alias n at n - 1.
    pub aliases: Vec<Option<Box<str>>>,
    /// The last topic it may publish to, with the generation of the rules that said so.
    pub allowed: Option<(Box<str>, u64)>,
    /// Bytes it published that have no place in the log yet.
    pub unplaced_bytes: usize,
    /// Bytes it may still send in this second, when `publish_bytes_per_sec_max` is set.
    pub allowance_bytes: u64,
    /// The second that the allowance is of.
    pub allowance_secs: u32,
}

impl Publisher {
    /// All acknowledgements have left: room for very many is given back.
    pub(crate) fn give_room_back(&mut self) {
        if self.acks.is_empty() && self.acks.capacity() > ACKS_ROOM_MAX {
            self.acks = VecDeque::new();
        }
    }

    /// The memory of acknowledgements to come and of packet ids, which MQTT 3.x limits by their number alone.
    fn owed_bytes(&self) -> usize {
        self.acks.len() * size_of::<PendingAck>() + self.received.len() * RECEIVED_BYTES
    }
}
