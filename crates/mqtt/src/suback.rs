use std::fmt;

use crate::{
    DecodeError, EncodeError, PacketId, PacketKind, Properties, PropertyPlace, Reason, Version,
    reader::Reader,
    writer::{put_packet, put_u16},
};

/// SUBACK (MQTT 5.0 section 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of which SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties; none before 5.0.
    pub properties: Properties<'a>,
    /// One for each filter. Before 5.0 all failures are [`Reason::UnspecifiedError`] (0x80).
    pub reasons: Reasons<'a>,
}

/// UNSUBACK (MQTT 5.0 section 3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of which UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties; none before 5.0.
    pub properties: Properties<'a>,
    /// One for each filter; none before 5.0.
    pub reasons: Reasons<'a>,
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let kind = PacketKind::SubAck;
        let packet_id = body.packet_id(kind)?;
        let properties = match version {
            Version::V5 => Properties::read(&mut body, PropertyPlace::SubAck)?,
            _ => Properties::EMPTY,
        };
        let reasons = Reasons::decode(body, kind)?;
        // 3.1 knows no failure, yet servers send 3.1.1's to its clients.
        let failure = |code: &&u8| version != Version::V5 && **code > 0x80;
        if let Some(&code) = reasons.0.iter().find(failure) {
            return Err(DecodeError::ReasonCode(kind, code));
        }
        Ok(Self { packet_id, properties, reasons })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        let kind = PacketKind::SubAck;
        self.reasons.check(kind)?;
        put_packet(out, (kind as u8) << 4, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                self.properties.write(out, PropertyPlace::SubAck)?;
                out.extend_from_slice(self.reasons.0);
            } else {
                out.extend(self.reasons.0.iter().map(|&code| code.min(0x80)));
            }
            Ok(())
        })
    }
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let kind = PacketKind::UnsubAck;
        let packet_id = body.packet_id(kind)?;
        if version != Version::V5 {
            body.end(kind)?;
            return Ok(Self { packet_id, properties: Properties::EMPTY, reasons: Reasons(&[]) });
        }
        let properties = Properties::read(&mut body, PropertyPlace::UnsubAck)?;
        Ok(Self { packet_id, properties, reasons: Reasons::decode(body, kind)? })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        let kind = PacketKind::UnsubAck;
        put_packet(out, (kind as u8) << 4, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                self.reasons.check(kind)?;
                self.properties.write(out, PropertyPlace::UnsubAck)?;
                out.extend_from_slice(self.reasons.0);
            }
            Ok(())
        })
    }
}

/// Reason codes, one after the other. A copy begins where this one stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reasons<'a>(&'a [u8]);

impl<'a> Reasons<'a> {
    /// None: for an UNSUBACK before 5.0.
    pub const EMPTY: Reasons<'static> = Reasons(&[]);

    fn decode(body: Reader<'a>, kind: PacketKind) -> Result<Self, DecodeError> {
        let reasons = Self(body.0);
        reasons.check(kind)?;
        Ok(reasons)
    }

    fn check(&self, kind: PacketKind) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            return Err(DecodeError::NoReasonCodes(kind));
        }
        let known = |&code: &u8| Reason::from_u8(code).is_some_and(|reason| reason.is_for(kind));
        match self.0.iter().find(|code| !known(code)) {
            Some(&code) => Err(DecodeError::ReasonCode(kind, code)),
            None => Ok(()),
        }
    }
}

impl Iterator for Reasons<'_> {
    type Item = Reason;

    fn next(&mut self) -> Option<Reason> {
        let (&code, rest) = self.0.split_first()?;
        self.0 = rest;
        // They were validated: the code is known.
        Reason::from_u8(code)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for Reasons<'_> {}

impl fmt::Debug for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Reason codes to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonsBuf(Vec<u8>);

impl ReasonsBuf {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. Whether the packet may have it is checked when that is encoded.
    pub fn push(&mut self, reason: Reason) {
        self.0.push(reason as u8);
    }

    /// For a packet.
    pub fn as_reasons(&self) -> Reasons<'_> {
        Reasons(&self.0)
    }
}

impl FromIterator<Reason> for ReasonsBuf {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        Self(reasons.into_iter().map(|reason| reason as u8).collect())
    }
}
