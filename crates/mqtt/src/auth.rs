use crate::{
    DecodeError, EncodeError, PacketKind, Properties, PropertyPlace, Reason, reader::Reader,
    writer::put_packet,
};

/// AUTH (MQTT 5.0 section 3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: Reason,
    /// An authentication method, unless the whole packet is empty; data, reason string, user properties.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let kind = PacketKind::Auth;
        if body.is_empty() {
            return Ok(Self { reason: Reason::Success, properties: Properties::EMPTY });
        }
        let code = body.u8("reason code")?;
        let reason = Reason::from_u8(code)
            .filter(|reason| reason.is_for(kind))
            .ok_or(DecodeError::ReasonCode(kind, code))?;
        let properties = Properties::read(&mut body, PropertyPlace::Auth)?;
        body.end(kind)?;
        if properties.auth_method().is_none() {
            return Err(DecodeError::AuthMethodMissing);
        }
        Ok(Self { reason, properties })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = PacketKind::Auth;
        put_packet(out, (kind as u8) << 4, |out| {
            if self.reason == Reason::Success && self.properties.is_empty() {
                return Ok(());
            }
            if !self.reason.is_for(kind) {
                return Err(DecodeError::ReasonCode(kind, self.reason as u8).into());
            }
            if self.properties.auth_method().is_none() {
                return Err(DecodeError::AuthMethodMissing.into());
            }
            out.push(self.reason as u8);
            self.properties.write(out, PropertyPlace::Auth)
        })
    }
}
