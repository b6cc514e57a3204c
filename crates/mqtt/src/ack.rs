use crate::{
    DecodeError, EncodeError, PacketId, PacketKind, Properties, PropertyPlace, Reason, Version,
    reader::Reader,
    writer::{put_packet, put_u16},
};

/// PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5.0 sections 3.4 to 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Of which PUBLISH.
    pub packet_id: PacketId,
    /// Always success before 5.0.
    pub reason: Reason,
    /// Reason string and user properties; none before 5.0.
    pub properties: Properties<'a>,
}

/// Which of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named as the packet is")]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckKind {
    /// As a packet kind.
    #[inline]
    pub fn packet_kind(self) -> PacketKind {
        match self {
            Self::PubAck => PacketKind::PubAck,
            Self::PubRec => PacketKind::PubRec,
            Self::PubRel => PacketKind::PubRel,
            Self::PubComp => PacketKind::PubComp,
        }
    }

    #[inline]
    fn first_byte(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }
}

/// Appends an acknowledgement without properties. Before 5.0 the reason cannot be said and is left out.
///
/// `packet_id` must be one that a PUBLISH had, so not zero, and `reason` one of this packet's.
#[inline]
pub fn encode_ack(out: &mut Vec<u8>, kind: AckKind, packet_id: u16, reason: Reason, version: Version) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V5 && reason != Reason::Success {
        out.extend_from_slice(&[kind.first_byte(), 3, high, low, reason as u8]);
    } else {
        out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
    }
}

impl<'a> Ack<'a> {
    #[inline]
    pub(crate) fn decode(
        kind: PacketKind,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id(kind)?;
        if body.is_empty() {
            return Ok(Self { packet_id, reason: Reason::Success, properties: Properties::EMPTY });
        }
        Self::decode_rest(packet_id, kind, body, version)
    }

    fn decode_rest(
        packet_id: PacketId,
        kind: PacketKind,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        if version != Version::V5 {
            return Err(DecodeError::TrailingBytes(kind));
        }
        let code = body.u8("reason code")?;
        let reason = Reason::from_u8(code)
            .filter(|reason| reason.is_for(kind))
            .ok_or(DecodeError::ReasonCode(kind, code))?;
        let properties = if body.is_empty() {
            Properties::EMPTY
        } else {
            Properties::read(&mut body, PropertyPlace::Ack)?
        };
        body.end(kind)?;
        Ok(Self { packet_id, reason, properties })
    }

    pub(crate) fn encode(
        &self,
        out: &mut Vec<u8>,
        kind: AckKind,
        version: Version,
    ) -> Result<(), EncodeError> {
        if version != Version::V5 || self.properties.is_empty() {
            if version == Version::V5 && !self.reason.is_for(kind.packet_kind()) {
                return Err(DecodeError::ReasonCode(kind.packet_kind(), self.reason as u8).into());
            }
            encode_ack(out, kind, self.packet_id.get(), self.reason, version);
            return Ok(());
        }
        put_packet(out, kind.first_byte(), |out| {
            if !self.reason.is_for(kind.packet_kind()) {
                return Err(DecodeError::ReasonCode(kind.packet_kind(), self.reason as u8).into());
            }
            put_u16(out, self.packet_id.get());
            out.push(self.reason as u8);
            self.properties.write(out, PropertyPlace::Ack)
        })
    }
}
