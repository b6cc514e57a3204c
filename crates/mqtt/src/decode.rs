use crate::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Packet, PacketKind, Publish, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version,
    fixed_header::{FixedHeader, Header},
    reader::Reader,
};

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The beginning of a packet.
    Incomplete {
        /// How many bytes there must be before it is worth trying again: the whole packet's when its length is known,
        /// else one more than there are. Never more than the caller's limit.
        need: usize,
    },
    /// A packet, and how many bytes it took.
    Packet(Packet<'a>, usize),
}

/// Decodes the first packet of `input`, a packet of a connection whose CONNECT said `version`.
///
/// A packet of more than `packet_bytes_max` bytes (fixed header included) is an error as soon as its length is known,
/// before its content is there.
#[inline]
pub fn decode(input: &[u8], version: Version, packet_bytes_max: usize) -> Result<Decoded<'_>, DecodeError> {
    let header = match FixedHeader::read(input, Some(version), packet_bytes_max)? {
        Header::Whole(header) => header,
        Header::Incomplete(need) => return Ok(Decoded::Incomplete { need }),
    };
    let body = Reader(&input[header.len..header.total]);
    let packet = match header.kind {
        PacketKind::Publish => Packet::Publish(Publish::decode(header.flags, body, version)?),
        PacketKind::PubAck => Packet::PubAck(Ack::decode(header.kind, body, version)?),
        PacketKind::PubRec => Packet::PubRec(Ack::decode(header.kind, body, version)?),
        PacketKind::PubRel => Packet::PubRel(Ack::decode(header.kind, body, version)?),
        PacketKind::PubComp => Packet::PubComp(Ack::decode(header.kind, body, version)?),
        PacketKind::PingReq => Packet::PingReq,
        PacketKind::PingResp => Packet::PingResp,
        _ => decode_rare(&header, body, version)?,
    };
    Ok(Decoded::Packet(packet, header.total))
}

/// The packets that a connection sees once or a few times.
#[cold]
#[inline(never)]
fn decode_rare<'a>(
    header: &FixedHeader,
    body: Reader<'a>,
    version: Version,
) -> Result<Packet<'a>, DecodeError> {
    Ok(match header.kind {
        PacketKind::Connect => {
            Packet::Connect(Connect::decode(header.flags, header.minimal, body).map_err(|error| error.error)?)
        }
        PacketKind::ConnAck => Packet::ConnAck(ConnAck::decode(body, version)?),
        PacketKind::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketKind::SubAck => Packet::SubAck(SubAck::decode(body, version)?),
        PacketKind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketKind::UnsubAck => Packet::UnsubAck(UnsubAck::decode(body, version)?),
        PacketKind::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
        PacketKind::Auth => Packet::Auth(Auth::decode(body)?),
        other => return Err(DecodeError::PacketKind(other as u8)),
    })
}
