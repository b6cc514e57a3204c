use std::fmt;

use crate::{
    DecodeError, EncodeError, Property,
    property::{AUTH_DATA, AUTH_METHOD, SUBSCRIPTION_ID, USER_PROPERTY},
    reader::Reader,
    writer::{put_varint, remaining_length},
};

/// The properties of one packet, as they lie in it: validated when it was decoded, read when they are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

/// Where properties stand; each place allows its own (MQTT 5.0 table 2-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is named as the packet is")]
pub enum PropertyPlace {
    Connect,
    Will,
    ConnAck,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth,
}

impl<'a> Properties<'a> {
    /// None.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Decodes the properties of one place: their length and themselves, at the front of `input`. Gives them and how
    /// many bytes they took.
    pub fn decode(input: &'a [u8], place: PropertyPlace) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader(input);
        let properties = Self::read(&mut reader, place)?;
        Ok((properties, input.len() - reader.0.len()))
    }

    /// One after the other, in the packet's order.
    pub fn iter(&self) -> PropertyIter<'a> {
        PropertyIter(Reader(self.0))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they lie in the packet, without their length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>, place: PropertyPlace) -> Result<Self, DecodeError> {
        let len = reader.varint("property length")?;
        if len == 0 {
            return Ok(Self::EMPTY);
        }
        let bytes = reader.take(len as usize, "properties")?;
        validate(bytes, place)?;
        Ok(Self(bytes))
    }

    /// Whether this place may have them.
    pub(crate) fn check(&self, place: PropertyPlace) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { validate(self.0, place) }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, place: PropertyPlace) -> Result<(), EncodeError> {
        self.check(place)?;
        put_varint(out, remaining_length(self.0.len())?);
        out.extend_from_slice(self.0);
        Ok(())
    }
}

fn validate(bytes: &[u8], place: PropertyPlace) -> Result<(), DecodeError> {
    let mut reader = Reader(bytes);
    let mut seen = 0_u64;
    while let Some(&id) = reader.0.first() {
        // Identifiers are variable byte integers, and all of one byte.
        let bit = 1_u64.checked_shl(u32::from(id)).unwrap_or(0);
        if KNOWN & bit == 0 {
            return Err(DecodeError::PropertyUnknown(id));
        }
        if place.allowed() & bit == 0 {
            return Err(DecodeError::PropertyNotAllowed(id, place));
        }
        if seen & bit != 0 && !place.may_repeat(id) {
            return Err(DecodeError::PropertyTwice(id));
        }
        seen |= bit;
        Property::check_next(&mut reader)?;
    }
    if matches!(place, PropertyPlace::Connect | PropertyPlace::Auth)
        && seen & set(&[AUTH_DATA]) != 0
        && seen & set(&[AUTH_METHOD]) == 0
    {
        return Err(DecodeError::AuthMethodMissing);
    }
    Ok(())
}

/// The identifiers as a set of bits.
const fn set(ids: &[u8]) -> u64 {
    let mut set = 0;
    let mut at = 0;
    while at < ids.len() {
        set |= 1 << ids[at];
        at += 1;
    }
    set
}

const KNOWN: u64 = set(&[
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x1f,
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
]);

impl PropertyPlace {
    #[inline]
    fn allowed(self) -> u64 {
        const CONNECT: u64 = set(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
        const WILL: u64 = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
        const CONNACK: u64 = set(&[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
            0x2a,
        ]);
        const PUBLISH: u64 = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26]);
        const ANSWER: u64 = set(&[0x1f, 0x26]);
        const SUBSCRIBE: u64 = set(&[0x0b, 0x26]);
        const UNSUBSCRIBE: u64 = set(&[0x26]);
        const DISCONNECT: u64 = set(&[0x11, 0x1c, 0x1f, 0x26]);
        const AUTH: u64 = set(&[0x15, 0x16, 0x1f, 0x26]);
        match self {
            Self::Connect => CONNECT,
            Self::Will => WILL,
            Self::ConnAck => CONNACK,
            Self::Publish => PUBLISH,
            Self::Ack | Self::SubAck | Self::UnsubAck => ANSWER,
            Self::Subscribe => SUBSCRIBE,
            Self::Unsubscribe => UNSUBSCRIBE,
            Self::Disconnect => DISCONNECT,
            Self::Auth => AUTH,
        }
    }

    /// A PUBLISH to a subscriber carries the identifier of each subscription that it matched (3.3.2.3.8).
    #[inline]
    fn may_repeat(self, id: u8) -> bool {
        id == USER_PROPERTY || id == SUBSCRIPTION_ID && self == Self::Publish
    }
}

impl fmt::Display for PropertyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Will => "a will",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Ack => "an acknowledgement",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// Finders: the value of the one property of that name, `None` when it is not there.
macro_rules! finders {
    ($($(#[$doc:meta])* $name:ident $id:literal $variant:ident $type:ty;)*) => {
        impl<'a> Properties<'a> {
            $($(#[$doc])*
            pub fn $name(&self) -> Option<$type> {
                match self.find($id) {
                    Some(Property::$variant(value)) => Some(value),
                    _ => None,
                }
            })*
        }
    };
}

finders! {
    /// Payload format indicator: 1 when the payload is UTF-8.
    payload_format 0x01 PayloadFormat u8;
    /// Message expiry interval in seconds.
    message_expiry 0x02 MessageExpiry u32;
    /// Content type.
    content_type 0x03 ContentType &'a str;
    /// Response topic.
    response_topic 0x08 ResponseTopic &'a str;
    /// Correlation data.
    correlation_data 0x09 CorrelationData &'a [u8];
    /// Subscription identifier: the first, where there are several (see [`Properties::subscription_ids`]).
    subscription_id 0x0b SubscriptionId u32;
    /// Session expiry interval in seconds.
    session_expiry 0x11 SessionExpiry u32;
    /// Assigned client identifier.
    assigned_client_id 0x12 AssignedClientId &'a str;
    /// Server keep alive in seconds.
    server_keep_alive 0x13 ServerKeepAlive u16;
    /// Authentication method.
    auth_method 0x15 AuthMethod &'a str;
    /// Authentication data.
    auth_data 0x16 AuthData &'a [u8];
    /// Request problem information: 0 or 1.
    request_problem_information 0x17 RequestProblem u8;
    /// Will delay interval in seconds.
    will_delay 0x18 WillDelay u32;
    /// Request response information: 0 or 1.
    request_response_information 0x19 RequestResponse u8;
    /// Response information.
    response_information 0x1a ResponseInformation &'a str;
    /// Server reference.
    server_reference 0x1c ServerReference &'a str;
    /// Reason string.
    reason_string 0x1f ReasonString &'a str;
    /// Receive maximum, never 0.
    receive_maximum 0x21 ReceiveMaximum u16;
    /// Topic alias maximum.
    topic_alias_maximum 0x22 TopicAliasMaximum u16;
    /// Topic alias, never 0.
    topic_alias 0x23 TopicAlias u16;
    /// Maximum QoS: 0 or 1.
    maximum_qos 0x24 MaximumQos u8;
    /// Retain available: 0 or 1.
    retain_available 0x25 RetainAvailable u8;
    /// Maximum packet size in bytes, never 0.
    maximum_packet_size 0x27 MaximumPacketSize u32;
    /// Wildcard subscription available: 0 or 1.
    wildcard_available 0x28 WildcardAvailable u8;
    /// Subscription identifiers available: 0 or 1.
    subscription_ids_available 0x29 SubscriptionIdsAvailable u8;
    /// Shared subscription available: 0 or 1.
    shared_available 0x2a SharedAvailable u8;
}

impl<'a> Properties<'a> {
    /// The first with this identifier. Going over the others costs next to nothing, however many user properties there are.
    #[inline]
    fn find(&self, id: u8) -> Option<Property<'a>> {
        let mut reader = Reader(self.0);
        while *reader.0.first()? != id {
            Property::skip(&mut reader).ok()?;
        }
        Property::read(&mut reader).ok()
    }

    /// All user properties, in order, as name and value.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// All subscription identifiers.
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        })
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> PropertyIter<'a> {
        self.iter()
    }
}

/// See [`Properties::iter`].
#[derive(Clone, Debug)]
pub struct PropertyIter<'a>(Reader<'a>);

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    #[inline]
    fn next(&mut self) -> Option<Property<'a>> {
        if self.0.is_empty() {
            return None;
        }
        // They were validated: reading them again cannot fail.
        Property::read_checked(&mut self.0).ok()
    }
}

/// Properties to be encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. An error when its value is outside its range or longer than 65,535 bytes, or has U+0000 in a string; it
    /// was not added then. Whether the packet may have it is checked when that is encoded.
    pub fn push(&mut self, property: &Property<'_>) -> Result<(), EncodeError> {
        property.check()?;
        let len = self.0.len();
        let written = property.write(&mut self.0);
        if written.is_err() {
            self.0.truncate(len);
        }
        written
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// For a packet.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_behind_others_and_what_is_not_there_is_not() {
        let mut list = PropertiesBuf::new();
        for _ in 0..3 {
            list.push(&Property::UserProperty("a", "b")).expect("fits");
            assert!(list.push(&Property::TopicAlias(0)).is_err());
        }
        assert_eq!(list.as_properties().topic_alias(), None, "what was not added is not there");
        list.push(&Property::TopicAlias(7)).expect("fits");
        let mut out = Vec::new();
        list.as_properties().write(&mut out, PropertyPlace::Publish).expect("may be there");
        let (decoded, len) = Properties::decode(&out, PropertyPlace::Publish).expect("was encoded");
        assert_eq!((decoded, len), (list.as_properties(), out.len()));
        assert_eq!((decoded.topic_alias(), decoded.message_expiry()), (Some(7), None));
        assert_eq!(decoded.user_properties().count(), 3);
        list.clear();
        assert_eq!(list.as_properties(), Properties::EMPTY);
    }
}
