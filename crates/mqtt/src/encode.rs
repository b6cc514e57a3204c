use crate::{AckKind, EncodeError, Packet, PacketKind, Version};

/// A whole PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];

/// A whole PINGRESP.
pub const PINGRESP: [u8; 2] = [0xd0, 0];

/// Appends a packet. On an error nothing was appended.
///
/// What a version cannot say is left out or told as near as it can be: properties before 5.0, the reasons of the
/// acknowledgements, the subscription options besides the QoS; CONNACK's reason by [`crate::Reason::connack_v3`], and
/// every failure in SUBACK as 0x80. CONNECT is encoded in its own version, whatever `version` says.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => connect.encode(out),
        Packet::ConnAck(connack) => connack.encode(out, version),
        Packet::Publish(publish) => publish.encode(out, version),
        Packet::PubAck(ack) => ack.encode(out, AckKind::PubAck, version),
        Packet::PubRec(ack) => ack.encode(out, AckKind::PubRec, version),
        Packet::PubRel(ack) => ack.encode(out, AckKind::PubRel, version),
        Packet::PubComp(ack) => ack.encode(out, AckKind::PubComp, version),
        Packet::Subscribe(subscribe) => subscribe.encode(out, version),
        Packet::SubAck(suback) => suback.encode(out, version),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(out, version),
        Packet::UnsubAck(unsuback) => unsuback.encode(out, version),
        Packet::PingReq => {
            out.extend_from_slice(&PINGREQ);
            Ok(())
        }
        Packet::PingResp => {
            out.extend_from_slice(&PINGRESP);
            Ok(())
        }
        Packet::Disconnect(disconnect) => disconnect.encode(out, version),
        Packet::Auth(auth) if version == Version::V5 => auth.encode(out),
        Packet::Auth(_) => Err(EncodeError::NotInVersion(PacketKind::Auth, version)),
    }
}
