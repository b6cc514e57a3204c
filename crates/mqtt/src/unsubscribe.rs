use std::fmt;

use crate::{
    DecodeError, EncodeError, PacketId, PacketKind, Properties, PropertyPlace, Version,
    reader::Reader,
    writer::{put_binary, put_packet, put_u16},
};

/// UNSUBSCRIBE (MQTT 5.0 section 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Which UNSUBACK answers it.
    pub packet_id: PacketId,
    /// User properties; none before 5.0.
    pub properties: Properties<'a>,
    /// At least one. UTF-8 without U+0000; whether they are topic filters is not checked.
    pub filters: UnsubscribeItems<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id(PacketKind::Unsubscribe)?;
        let properties = match version {
            Version::V5 => Properties::read(&mut body, PropertyPlace::Unsubscribe)?,
            _ => Properties::EMPTY,
        };
        let filters = UnsubscribeItems(body);
        if body.is_empty() {
            return Err(DecodeError::NoFilters(PacketKind::Unsubscribe));
        }
        while !body.is_empty() {
            body.check_string("topic filter")?;
        }
        Ok(Self { packet_id, properties, filters })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        if self.filters.0.is_empty() {
            return Err(DecodeError::NoFilters(PacketKind::Unsubscribe).into());
        }
        put_packet(out, (PacketKind::Unsubscribe as u8) << 4 | 2, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                self.properties.write(out, PropertyPlace::Unsubscribe)?;
            }
            out.extend_from_slice(self.filters.0.0);
            Ok(())
        })
    }
}

/// The filters of an UNSUBSCRIBE, one after the other. A copy begins where this one stands.
#[derive(Clone, Copy)]
pub struct UnsubscribeItems<'a>(Reader<'a>);

impl<'a> Iterator for UnsubscribeItems<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        // They were validated: reading them again cannot fail.
        self.0.checked_string("topic filter").ok()
    }
}

impl PartialEq for UnsubscribeItems<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl Eq for UnsubscribeItems<'_> {}

impl fmt::Debug for UnsubscribeItems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Filters of an UNSUBSCRIBE to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsubscribeItemsBuf(Vec<u8>);

impl UnsubscribeItemsBuf {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. An error, and not added, when it is longer than 65,535 bytes or contains U+0000.
    pub fn push(&mut self, filter: &str) -> Result<(), EncodeError> {
        if filter.contains('\0') {
            return Err(DecodeError::Nul("topic filter").into());
        }
        put_binary(&mut self.0, filter.as_bytes(), "topic filter")
    }

    /// For a packet.
    pub fn as_items(&self) -> UnsubscribeItems<'_> {
        UnsubscribeItems(Reader(&self.0))
    }
}
