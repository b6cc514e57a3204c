use crate::{
    DecodeError, EncodeError, PacketKind, Properties, PropertyPlace, Reason, Version, reader::Reader,
    writer::put_packet,
};

/// DISCONNECT (MQTT 5.0 section 3.14). Before 5.0 only clients send it, and it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Always success (a normal disconnection) before 5.0.
    pub reason: Reason,
    /// None before 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let kind = PacketKind::Disconnect;
        if body.is_empty() || version != Version::V5 {
            body.end(kind)?;
            return Ok(Self { reason: Reason::Success, properties: Properties::EMPTY });
        }
        let code = body.u8("reason code")?;
        let reason = Reason::from_u8(code)
            .filter(|reason| reason.is_for(kind))
            .ok_or(DecodeError::ReasonCode(kind, code))?;
        let properties = match body.is_empty() {
            true => Properties::EMPTY,
            false => Properties::read(&mut body, PropertyPlace::Disconnect)?,
        };
        body.end(kind)?;
        Ok(Self { reason, properties })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        let kind = PacketKind::Disconnect;
        put_packet(out, (kind as u8) << 4, |out| {
            if version != Version::V5 || self.reason == Reason::Success && self.properties.is_empty() {
                return Ok(());
            }
            if !self.reason.is_for(kind) {
                return Err(DecodeError::ReasonCode(kind, self.reason as u8).into());
            }
            out.push(self.reason as u8);
            if self.properties.is_empty() {
                return Ok(());
            }
            self.properties.write(out, PropertyPlace::Disconnect)
        })
    }
}
