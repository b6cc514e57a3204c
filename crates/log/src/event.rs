//! An event as a publisher hands it in and as a reader gets it back.

use crate::attributes::Attributes;

/// Place of an event in the log. The first event is [`FIRST_OFFSET`]; offsets are dense, one per event.
/// As a head, 0 says that the log has never held an event.
pub type Offset = u64;

/// The offset of the first event of a log.
pub const FIRST_OFFSET: Offset = 1;

/// Longest topic of an event, in bytes (the limit of an MQTT string).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Largest payload of an event, in bytes (the limit of an MQTT packet).
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const QOS_MASK: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const PAYLOAD_UTF8: u8 = 0b0000_1000;
const PAYLOAD_BYTES: u8 = 0b0001_0000;

/// How an event was published: its QoS, RETAIN and payload format indicator, in one byte.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug, Hash)]
pub struct Flags(pub(crate) u8);

impl Flags {
    /// Flags of a publication; a `qos` above 2 counts as 2. `payload_utf8`: what its publisher said of the payload.
    pub fn new(qos: u8, retain: bool, payload_utf8: Option<bool>) -> Flags {
        let mut bits = qos.min(2);
        if retain {
            bits |= RETAIN;
        }
        bits |= match payload_utf8 {
            None => 0,
            Some(false) => PAYLOAD_BYTES,
            Some(true) => PAYLOAD_UTF8,
        };
        Flags(bits)
    }

    /// As they stand in a record (docs/adr/0001-format-v1.md).
    pub fn to_byte(self) -> u8 {
        self.0
    }

    /// From a record's byte; bits that this version does not know are kept.
    pub fn from_byte(byte: u8) -> Flags {
        Flags(byte)
    }

    /// The quality of service it was published with: 0, 1 or 2.
    pub fn qos(self) -> u8 {
        (self.0 & QOS_MASK).min(2)
    }

    /// Whether it was published to be retained.
    pub fn retain(self) -> bool {
        self.0 & RETAIN != 0
    }

    /// Whether its publisher said that the payload is UTF-8 (MQTT 5, 3.3.2.3.2: indicator 1), or that it is not known
    /// to be (0); none: it said nothing.
    pub fn payload_utf8(self) -> Option<bool> {
        match (self.0 & PAYLOAD_UTF8 != 0, self.0 & PAYLOAD_BYTES != 0) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// The public part of a record: all that ever leaves the bus.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// QoS, RETAIN and payload format.
    pub flags: Flags,
    /// The topic name, at most [`TOPIC_BYTES_MAX`] bytes.
    pub topic: &'a str,
    /// Metadata beside the payload.
    pub attributes: Attributes<'a>,
    /// The source's bytes, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
}

/// The private part of a record: where an event came from. It never leaves the bus.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    /// Who published it; empty for the anonymous. At most 65,000 bytes.
    pub principal: &'a str,
    /// The publishing session, 0 if none.
    pub session: u64,
    /// The packet id of its PUBLISH, 0 if none.
    pub packet_id: u16,
    /// The door it came in by.
    pub way_in: WayIn,
}

/// Whether an event matters to the state beside the log: it is to be retained, its packet id has to be remembered, or
/// it is the will of a session.
pub(crate) fn is_marked(flags: Flags, origin: &Origin<'_>) -> bool {
    flags.retain() || origin.packet_id != 0 || origin.way_in == WayIn::Will
}

/// The door an event came in by.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default, Hash)]
pub enum WayIn {
    /// An MQTT PUBLISH.
    #[default]
    Mqtt,
    /// HTTP ingest.
    Http,
    /// One of the bus's own sources.
    Source,
    /// The bus itself (status, gap and redaction notices).
    Bus,
    /// The will of a session that ended.
    Will,
    /// One that this version does not know.
    Other(u8),
}

impl WayIn {
    /// The byte that stands for it in a record.
    pub fn to_byte(self) -> u8 {
        match self {
            WayIn::Mqtt => 1,
            WayIn::Http => 2,
            WayIn::Source => 3,
            WayIn::Bus => 4,
            WayIn::Will => 5,
            WayIn::Other(byte) => byte,
        }
    }

    /// The door that a record's byte stands for.
    pub fn from_byte(byte: u8) -> WayIn {
        match byte {
            1 => WayIn::Mqtt,
            2 => WayIn::Http,
            3 => WayIn::Source,
            4 => WayIn::Bus,
            5 => WayIn::Will,
            other => WayIn::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_give_back_what_they_were_made_of() {
        for qos in 0..=2 {
            for retain in [false, true] {
                for utf8 in [None, Some(false), Some(true)] {
                    let flags = Flags::new(qos, retain, utf8);
                    assert_eq!((flags.qos(), flags.retain(), flags.payload_utf8()), (qos, retain, utf8));
                }
            }
        }
        assert_eq!(Flags(0xff).qos(), 2);
        assert_eq!(Flags(0b1000).payload_utf8(), Some(true), "as it always stood");
    }

    #[test]
    fn every_way_in_keeps_its_byte() {
        for byte in 0..=255 {
            assert_eq!(WayIn::from_byte(byte).to_byte(), byte);
        }
    }
}
