use crate::{
    DecodeError, EncodeError, PacketKind, Properties, PropertyPlace, Reason, Version, reader::Reader,
    writer::put_packet,
};

/// CONNACK (MQTT 5.0 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server goes on with a session it had. 3.1 cannot say so.
    pub session_present: bool,
    /// Before 5.0 a return code stands for it: [`Reason::connack_v3`].
    pub reason: Reason,
    /// None before 5.0.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let kind = PacketKind::ConnAck;
        // 3.1 calls the first byte reserved and not used.
        let flags = match (version, body.u8("acknowledge flags")?) {
            (Version::V31, _) => 0,
            (_, flags @ 0..=1) => flags,
            (_, flags) => return Err(DecodeError::ConnAckFlags(flags)),
        };
        let code = body.u8("reason code")?;
        let (reason, properties) = if version == Version::V5 {
            let reason = Reason::from_u8(code).filter(|reason| reason.is_for(kind));
            (reason, Properties::read(&mut body, PropertyPlace::ConnAck)?)
        } else {
            (Reason::from_connack_v3(code), Properties::EMPTY)
        };
        let reason = reason.ok_or(DecodeError::ReasonCode(kind, code))?;
        body.end(kind)?;
        let session_present = flags == 1;
        if session_present && reason != Reason::Success {
            return Err(DecodeError::SessionPresentWithError);
        }
        Ok(Self { session_present, reason, properties })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        if self.session_present && self.reason != Reason::Success {
            return Err(DecodeError::SessionPresentWithError.into());
        }
        if version == Version::V5 && !self.reason.is_for(PacketKind::ConnAck) {
            return Err(DecodeError::ReasonCode(PacketKind::ConnAck, self.reason as u8).into());
        }
        put_packet(out, (PacketKind::ConnAck as u8) << 4, |out| {
            out.push(u8::from(self.session_present && version != Version::V31));
            if version == Version::V5 {
                out.push(self.reason as u8);
                self.properties.write(out, PropertyPlace::ConnAck)
            } else {
                out.push(self.reason.connack_v3());
                Ok(())
            }
        })
    }
}
