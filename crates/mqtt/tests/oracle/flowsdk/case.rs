use std::fmt;

use ::flowsdk::mqtt_serde::{
    control_packet::MqttPacket,
    parser::{ParseError, leveled::packet_frame_len, stream::MqttParser},
};
use firehose_mqtt::{DecodeError, Decoded, Packet, PacketKind, REMAINING_BYTES_MAX, Version, decode};

use super::packet::as_flowsdk;

/// What the two make of the same bytes: a packet, the beginning of one (`None`), or a refusal.
pub struct Case<'a> {
    /// Of the connection; of the packet itself, if it is a CONNECT that we take.
    pub version: Version,
    pub bytes: &'a [u8],
    pub ours: Result<Option<Packet<'a>>, DecodeError>,
    pub theirs: Result<Option<MqttPacket>, String>,
    /// Of the packet that we decoded, in bytes.
    pub len: Option<usize>,
}

impl<'a> Case<'a> {
    /// Both decode the first packet.
    pub fn of_bytes(bytes: &'a [u8], version: Version) -> Self {
        let (ours, len) = match decode(bytes, version, REMAINING_BYTES_MAX + 5) {
            Ok(Decoded::Packet(packet, len)) => (Ok(Some(packet)), Some(len)),
            Ok(Decoded::Incomplete { .. }) => (Ok(None), None),
            Err(error) => (Err(error), None),
        };
        let version = match ours {
            Ok(Some(Packet::Connect(connect))) => connect.version,
            _ => version,
        };
        let theirs = match flowsdk_decodes(bytes, version) {
            Ok(Some((packet, their_len))) => {
                assert_eq!(len.unwrap_or(their_len), their_len, "the length of what begins {bytes:02x?}");
                Ok(Some(packet))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        Self { version, bytes, ours, theirs, len }
    }

    /// Whether they disagree, be it about one field.
    pub fn differs(&self) -> bool {
        match (&self.ours, &self.theirs) {
            (Ok(Some(ours)), Ok(Some(theirs))) => as_flowsdk(ours, self.version) != *theirs,
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => false,
            (Err(error), Ok(None)) => !is_of_fixed_header(error),
            _ => true,
        }
    }

    /// What flowsdk says against it, if only flowsdk refuses it.
    pub fn flowsdk_refuses(&self) -> Option<&str> {
        if self.ours.is_ok() { self.theirs.as_ref().err().map(String::as_str) } else { None }
    }

    /// What we say against it, if only we refuse it.
    pub fn we_refuse(&self) -> Option<DecodeError> {
        if self.theirs.is_ok() { self.ours.err() } else { None }
    }

    /// The packet that we take.
    pub fn packet(&self) -> Option<Packet<'a>> {
        self.ours.ok().flatten()
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, bytes, ours, theirs, len: _ } = self;
        write!(f, "MQTT {version}: {bytes:02x?}\n  ours: {ours:?}\n  flowsdk: {theirs:?}")
    }
}

/// What we may refuse before the packet is whole.
fn is_of_fixed_header(error: &DecodeError) -> bool {
    matches!(
        error,
        DecodeError::PacketKind(_)
            | DecodeError::Flags(..)
            | DecodeError::Length(..)
            | DecodeError::VarintTooLong(_)
            | DecodeError::VarintNotMinimal(_)
    )
}

/// The first packet and its length, by flowsdk's parser of streams, which takes the version from a CONNECT as ours does.
fn flowsdk_decodes(bytes: &[u8], version: Version) -> Result<Option<(MqttPacket, usize)>, ParseError> {
    if packet_frame_len(bytes)?.is_none() {
        return Ok(None);
    }
    let is_connect = bytes[0] >> 4 == PacketKind::Connect as u8;
    let mut parser = MqttParser::new(bytes.len(), if is_connect { 0 } else { version.level() });
    parser.feed(bytes);
    if parser.set_mqtt_vsn(0)? == 0 {
        // A fault of flowsdk's, which the test below shows: the next call would panic.
        return Err(ParseError::UnSuppProtoVsn);
    }
    let packet = parser.next_packet()?;
    Ok(packet.map(|packet| (packet, bytes.len() - parser.buffer_mut().len())))
}

/// A server answers such a CONNECT, or closes (MQTT-3.1.2-2). Once flowsdk does not panic, the exception above can go.
#[test]
#[should_panic(expected = "MQTT version must be set")]
fn flowsdk_panics_at_a_connect_of_level_0() {
    let mut parser = MqttParser::new(16, 0);
    parser.feed(b"\x10\x0d\0\x04MQTT\0\x02\0\0\0\x01a");
    assert!(matches!(parser.set_mqtt_vsn(0), Ok(0)));
    let _ = parser.next_packet();
}
