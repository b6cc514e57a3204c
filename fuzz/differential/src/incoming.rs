//! A packet from a broker, as its client keeps it.

use firehose_mqtt::{Ack, Packet, PacketKind, Property};

use crate::seen::{Delivery, text};

/// What came. Reason codes as numbers.
pub enum Incoming {
    /// CONNACK.
    ConnAck { present: bool, reason: u8, aliases_max: u16, properties: Vec<String> },
    /// PUBLISH.
    Publish(Arrival),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack { kind: PacketKind, packet_id: u16, reason: u8 },
    /// SUBACK.
    SubAck { packet_id: u16, reasons: Vec<u8> },
    /// UNSUBACK.
    UnsubAck { packet_id: u16, reasons: Vec<u8> },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(u8),
    /// What only clients send, or who authenticates.
    Other(PacketKind),
}

/// A PUBLISH and what its delivery takes.
pub struct Arrival {
    /// What is seen of it; its topic may be empty, and comes by the alias then.
    pub delivery: Delivery,
    /// At QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// Whether it was sent before.
    pub dup: bool,
    /// Topic alias.
    pub alias: Option<u16>,
}

impl From<Packet<'_>> for Incoming {
    fn from(packet: Packet<'_>) -> Self {
        match packet {
            Packet::ConnAck(connack) => Self::ConnAck {
                present: connack.session_present,
                reason: connack.reason as u8,
                aliases_max: connack.properties.topic_alias_maximum().unwrap_or(0),
                properties: connack.properties.iter().map(announced).collect(),
            },
            Packet::Publish(publish) => Self::Publish(Arrival {
                delivery: Delivery::new(&publish, publish.topic.to_owned()),
                packet_id: publish.packet_id.map(|id| id.get()),
                dup: publish.dup,
                alias: publish.properties.topic_alias(),
            }),
            Packet::PubAck(ack) => acknowledged(PacketKind::PubAck, &ack),
            Packet::PubRec(ack) => acknowledged(PacketKind::PubRec, &ack),
            Packet::PubRel(ack) => acknowledged(PacketKind::PubRel, &ack),
            Packet::PubComp(ack) => acknowledged(PacketKind::PubComp, &ack),
            Packet::SubAck(suback) => Self::SubAck {
                packet_id: suback.packet_id.get(),
                reasons: suback.reasons.map(|reason| reason as u8).collect(),
            },
            Packet::UnsubAck(unsuback) => Self::UnsubAck {
                packet_id: unsuback.packet_id.get(),
                reasons: unsuback.reasons.map(|reason| reason as u8).collect(),
            },
            Packet::PingResp => Self::PingResp,
            Packet::Disconnect(disconnect) => Self::Disconnect(disconnect.reason as u8),
            other => Self::Other(other.kind()),
        }
    }
}

/// A property of CONNACK as text. A name that the server chose is any name.
fn announced(property: Property<'_>) -> String {
    match property {
        Property::AssignedClientId(_) => text(Property::AssignedClientId("…")),
        other => text(other),
    }
}

fn acknowledged(kind: PacketKind, ack: &Ack<'_>) -> Incoming {
    Incoming::Ack { kind, packet_id: ack.packet_id.get(), reason: ack.reason as u8 }
}
