use std::fmt;

use crate::{
    DecodeError, EncodeError, PacketId, PacketKind, Properties, PropertyPlace, QoS, Version,
    reader::Reader,
    writer::{put_binary, put_packet, put_u16},
};

/// SUBSCRIBE (MQTT 5.0 section 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Which SUBACK answers it.
    pub packet_id: PacketId,
    /// None before 5.0.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: SubscribeItems<'a>,
}

/// One subscription of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeItem<'a> {
    /// UTF-8 without U+0000; whether it is a topic filter is not checked yet, so that it can be refused by itself.
    pub filter: &'a str,
    /// How to subscribe.
    pub options: SubscribeOptions,
}

/// How to subscribe (MQTT 5.0 section 3.8.3.1). Before 5.0 there is the QoS only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The highest QoS of what is sent to the subscriber.
    pub qos: QoS,
    /// Not what the subscriber's own connection publishes.
    pub no_local: bool,
    /// Forwarded messages keep their retain flag.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a subscription gets retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Send = 0,
    /// Only when the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl SubscribeOptions {
    /// From the byte of a SUBSCRIBE.
    ///
    /// # Errors
    /// What the version does not know: a QoS of 3, bits that are reserved, a retain handling of 3.
    pub fn from_u8(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let qos = QoS::from_u8(byte & 3).ok_or(DecodeError::MaximumQoS)?;
        match version {
            // 3.1 does not use the other bits.
            Version::V31 => return Ok(Self { qos, ..Self::default() }),
            Version::V311 if byte > 3 => return Err(DecodeError::SubscribeOptionsReserved(byte)),
            Version::V5 if byte & 0xc0 != 0 => return Err(DecodeError::SubscribeOptionsReserved(byte)),
            _ => {}
        }
        let retain_handling = match byte >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::RetainHandling),
        };
        Ok(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }

    /// As the byte of a SUBSCRIBE of 5.0.
    pub fn to_u8(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id(PacketKind::Subscribe)?;
        let properties = match version {
            Version::V5 => Properties::read(&mut body, PropertyPlace::Subscribe)?,
            _ => Properties::EMPTY,
        };
        let filters = SubscribeItems { rest: body, version };
        if body.is_empty() {
            return Err(DecodeError::NoFilters(PacketKind::Subscribe));
        }
        while !body.is_empty() {
            SubscribeItem::check(&mut body, version)?;
        }
        Ok(Self { packet_id, properties, filters })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        if self.filters.rest.is_empty() {
            return Err(DecodeError::NoFilters(PacketKind::Subscribe).into());
        }
        put_packet(out, (PacketKind::Subscribe as u8) << 4 | 2, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                self.properties.write(out, PropertyPlace::Subscribe)?;
            }
            for item in self.filters {
                put_binary(out, item.filter.as_bytes(), "topic filter")?;
                out.push(if version == Version::V5 { item.options.to_u8() } else { item.options.qos as u8 });
            }
            Ok(())
        })
    }
}

impl<'a> SubscribeItem<'a> {
    fn check(body: &mut Reader<'a>, version: Version) -> Result<(), DecodeError> {
        body.check_string("topic filter")?;
        SubscribeOptions::from_u8(body.u8("subscription options")?, version).map(drop)
    }

    fn read_checked(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let filter = body.checked_string("topic filter")?;
        let options = SubscribeOptions::from_u8(body.u8("subscription options")?, version)?;
        Ok(Self { filter, options })
    }
}

/// The subscriptions of a SUBSCRIBE, one after the other. A copy begins where this one stands.
#[derive(Clone, Copy)]
pub struct SubscribeItems<'a> {
    rest: Reader<'a>,
    version: Version,
}

impl SubscribeItems<'_> {
    /// The options of each one. What the filters are is not looked at, so that very many cost little.
    pub fn options(mut self) -> impl Iterator<Item = SubscribeOptions> {
        std::iter::from_fn(move || {
            self.rest.binary("topic filter").ok()?;
            SubscribeOptions::from_u8(self.rest.u8("subscription options").ok()?, self.version).ok()
        })
    }
}

impl<'a> Iterator for SubscribeItems<'a> {
    type Item = SubscribeItem<'a>;

    fn next(&mut self) -> Option<SubscribeItem<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        // They were validated: reading them again cannot fail.
        SubscribeItem::read_checked(&mut self.rest, self.version).ok()
    }
}

impl PartialEq for SubscribeItems<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for SubscribeItems<'_> {}

impl fmt::Debug for SubscribeItems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Subscriptions to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeItemsBuf(Vec<u8>);

impl SubscribeItemsBuf {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. An error, and not added, when the filter is longer than 65,535 bytes or contains U+0000.
    pub fn push(&mut self, filter: &str, options: SubscribeOptions) -> Result<(), EncodeError> {
        if filter.contains('\0') {
            return Err(DecodeError::Nul("topic filter").into());
        }
        put_binary(&mut self.0, filter.as_bytes(), "topic filter")?;
        self.0.push(options.to_u8());
        Ok(())
    }

    /// For a packet.
    pub fn as_items(&self) -> SubscribeItems<'_> {
        SubscribeItems { rest: Reader(&self.0), version: Version::V5 }
    }
}
