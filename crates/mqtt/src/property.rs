use crate::{
    DecodeError, EncodeError,
    reader::Reader,
    writer::{put_binary, put_u16, put_u32, put_varint, varint_len},
};

/// A property of MQTT 5.0 (section 2.2.2.2). The booleans among them are 0 or 1, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named as the property is")]
pub enum Property<'a> {
    PayloadFormat(u8),
    /// In seconds.
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    /// In seconds.
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    /// In seconds.
    ServerKeepAlive(u16),
    AuthMethod(&'a str),
    AuthData(&'a [u8]),
    RequestProblem(u8),
    /// In seconds.
    WillDelay(u32),
    RequestResponse(u8),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    UserProperty(&'a str, &'a str),
    /// In bytes.
    MaximumPacketSize(u32),
    WildcardAvailable(u8),
    SubscriptionIdsAvailable(u8),
    SharedAvailable(u8),
}

pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
pub(crate) const AUTH_METHOD: u8 = 0x15;
pub(crate) const AUTH_DATA: u8 = 0x16;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const USER_PROPERTY: u8 = 0x26;

/// The most that a subscription identifier can be, as a variable byte integer.
const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;

/// A property's value by its form on the wire.
enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Varint(u32),
    Bytes(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl<'a> Property<'a> {
    /// Its identifier on the wire.
    pub fn id(&self) -> u8 {
        self.parts().0
    }

    /// How many bytes it has on the wire, with its identifier.
    pub fn encoded_len(&self) -> usize {
        1 + match self.parts().1 {
            Value::Byte(_) => 1,
            Value::Two(_) => 2,
            Value::Four(_) => 4,
            Value::Varint(value) => varint_len(value as usize),
            Value::Bytes(bytes) => 2 + bytes.len(),
            Value::Pair(name, value) => 4 + name.len() + value.len(),
        }
    }

    /// Reads one, and checks its value.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id = reader.u8("property identifier")?;
        let what = name(id);
        let property = match id {
            0x01 => Self::PayloadFormat(reader.u8(what)?),
            0x02 => Self::MessageExpiry(reader.u32(what)?),
            0x03 => Self::ContentType(reader.string(what)?),
            0x08 => Self::ResponseTopic(reader.string(what)?),
            0x09 => Self::CorrelationData(reader.binary(what)?),
            0x0b => Self::SubscriptionId(reader.varint(what)?),
            0x11 => Self::SessionExpiry(reader.u32(what)?),
            0x12 => Self::AssignedClientId(reader.string(what)?),
            0x13 => Self::ServerKeepAlive(reader.u16(what)?),
            0x15 => Self::AuthMethod(reader.string(what)?),
            0x16 => Self::AuthData(reader.binary(what)?),
            0x17 => Self::RequestProblem(reader.u8(what)?),
            0x18 => Self::WillDelay(reader.u32(what)?),
            0x19 => Self::RequestResponse(reader.u8(what)?),
            0x1a => Self::ResponseInformation(reader.string(what)?),
            0x1c => Self::ServerReference(reader.string(what)?),
            0x1f => Self::ReasonString(reader.string(what)?),
            0x21 => Self::ReceiveMaximum(reader.u16(what)?),
            0x22 => Self::TopicAliasMaximum(reader.u16(what)?),
            0x23 => Self::TopicAlias(reader.u16(what)?),
            0x24 => Self::MaximumQos(reader.u8(what)?),
            0x25 => Self::RetainAvailable(reader.u8(what)?),
            0x26 => Self::UserProperty(reader.string(what)?, reader.string(what)?),
            0x27 => Self::MaximumPacketSize(reader.u32(what)?),
            0x28 => Self::WildcardAvailable(reader.u8(what)?),
            0x29 => Self::SubscriptionIdsAvailable(reader.u8(what)?),
            0x2a => Self::SharedAvailable(reader.u8(what)?),
            _ => return Err(DecodeError::PropertyUnknown(id)),
        };
        property.check_range()?;
        Ok(property)
    }

    /// Reads one only to check it. Of user properties there may be millions: nothing is made of them.
    #[inline]
    pub(crate) fn check_next(reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let Some((&USER_PROPERTY, rest)) = reader.0.split_first() else {
            return Self::read(reader).map(drop);
        };
        let what = name(USER_PROPERTY);
        reader.0 = rest;
        reader.check_string(what)?;
        reader.check_string(what)
    }

    /// Reads one that was checked before.
    #[inline]
    pub(crate) fn read_checked(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let Some((&USER_PROPERTY, rest)) = reader.0.split_first() else { return Self::read(reader) };
        let what = name(USER_PROPERTY);
        reader.0 = rest;
        Ok(Self::UserProperty(reader.checked_string(what)?, reader.checked_string(what)?))
    }

    /// Goes over one that was read before: neither its value nor its text is looked at.
    #[inline]
    pub(crate) fn skip(reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let what = "property";
        match reader.u8(what)? {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => reader.take(1, what)?,
            0x13 | 0x21 | 0x22 | 0x23 => reader.take(2, what)?,
            0x02 | 0x11 | 0x18 | 0x27 => reader.take(4, what)?,
            SUBSCRIPTION_ID => return reader.varint(what).map(|_| ()),
            USER_PROPERTY => reader.binary(what).and_then(|_| reader.binary(what))?,
            _ => reader.binary(what)?,
        };
        Ok(())
    }

    /// Appends it. Only lengths are checked here.
    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (id, value) = self.parts();
        out.push(id);
        match value {
            Value::Byte(value) => out.push(value),
            Value::Two(value) => put_u16(out, value),
            Value::Four(value) => put_u32(out, value),
            Value::Varint(value) if value > SUBSCRIPTION_ID_MAX => {
                return Err(EncodeError::TooLong(name(id)));
            }
            Value::Varint(value) => put_varint(out, value),
            Value::Bytes(bytes) => put_binary(out, bytes, name(id))?,
            Value::Pair(key, value) => {
                put_binary(out, key.as_bytes(), name(id))?;
                put_binary(out, value.as_bytes(), name(id))?;
            }
        }
        Ok(())
    }

    /// Checks a value that a caller made: its range, and no U+0000 in strings.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let (id, value) = self.parts();
        let binary = matches!(self, Self::CorrelationData(_) | Self::AuthData(_));
        let nul = match value {
            Value::Bytes(bytes) => !binary && bytes.contains(&0),
            Value::Pair(key, value) => key.contains('\0') || value.contains('\0'),
            _ => false,
        };
        if nul {
            return Err(DecodeError::Nul(name(id)));
        }
        self.check_range()
    }

    #[inline]
    fn check_range(&self) -> Result<(), DecodeError> {
        let valid = match *self {
            Self::PayloadFormat(value)
            | Self::RequestProblem(value)
            | Self::RequestResponse(value)
            | Self::MaximumQos(value)
            | Self::RetainAvailable(value)
            | Self::WildcardAvailable(value)
            | Self::SubscriptionIdsAvailable(value)
            | Self::SharedAvailable(value) => value <= 1,
            Self::SubscriptionId(value) => value != 0 && value <= SUBSCRIPTION_ID_MAX,
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => value != 0,
            Self::MaximumPacketSize(value) => value != 0,
            // MQTT-3.3.2-14; that a topic name is not empty is MQTT-4.7.3-1.
            Self::ResponseTopic(topic) => !topic.is_empty() && !topic.contains(['+', '#']),
            _ => true,
        };
        if valid { Ok(()) } else { Err(DecodeError::PropertyValue(self.id())) }
    }

    #[inline]
    fn parts(&self) -> (u8, Value<'a>) {
        match *self {
            Self::PayloadFormat(value) => (0x01, Value::Byte(value)),
            Self::MessageExpiry(value) => (0x02, Value::Four(value)),
            Self::ContentType(value) => (0x03, Value::Bytes(value.as_bytes())),
            Self::ResponseTopic(value) => (0x08, Value::Bytes(value.as_bytes())),
            Self::CorrelationData(value) => (0x09, Value::Bytes(value)),
            Self::SubscriptionId(value) => (0x0b, Value::Varint(value)),
            Self::SessionExpiry(value) => (0x11, Value::Four(value)),
            Self::AssignedClientId(value) => (0x12, Value::Bytes(value.as_bytes())),
            Self::ServerKeepAlive(value) => (0x13, Value::Two(value)),
            Self::AuthMethod(value) => (0x15, Value::Bytes(value.as_bytes())),
            Self::AuthData(value) => (0x16, Value::Bytes(value)),
            Self::RequestProblem(value) => (0x17, Value::Byte(value)),
            Self::WillDelay(value) => (0x18, Value::Four(value)),
            Self::RequestResponse(value) => (0x19, Value::Byte(value)),
            Self::ResponseInformation(value) => (0x1a, Value::Bytes(value.as_bytes())),
            Self::ServerReference(value) => (0x1c, Value::Bytes(value.as_bytes())),
            Self::ReasonString(value) => (0x1f, Value::Bytes(value.as_bytes())),
            Self::ReceiveMaximum(value) => (0x21, Value::Two(value)),
            Self::TopicAliasMaximum(value) => (0x22, Value::Two(value)),
            Self::TopicAlias(value) => (0x23, Value::Two(value)),
            Self::MaximumQos(value) => (0x24, Value::Byte(value)),
            Self::RetainAvailable(value) => (0x25, Value::Byte(value)),
            Self::UserProperty(name, value) => (0x26, Value::Pair(name, value)),
            Self::MaximumPacketSize(value) => (0x27, Value::Four(value)),
            Self::WildcardAvailable(value) => (0x28, Value::Byte(value)),
            Self::SubscriptionIdsAvailable(value) => (0x29, Value::Byte(value)),
            Self::SharedAvailable(value) => (0x2a, Value::Byte(value)),
        }
    }
}

/// What the specification calls the property with this identifier.
pub(crate) fn name(id: u8) -> &'static str {
    match id {
        0x01 => "payload format indicator",
        0x02 => "message expiry interval",
        0x03 => "content type",
        0x08 => "response topic",
        0x09 => "correlation data",
        0x0b => "subscription identifier",
        0x11 => "session expiry interval",
        0x12 => "assigned client identifier",
        0x13 => "server keep alive",
        0x15 => "authentication method",
        0x16 => "authentication data",
        0x17 => "request problem information",
        0x18 => "will delay interval",
        0x19 => "request response information",
        0x1a => "response information",
        0x1c => "server reference",
        0x1f => "reason string",
        0x21 => "receive maximum",
        0x22 => "topic alias maximum",
        0x23 => "topic alias",
        0x24 => "maximum QoS",
        0x25 => "retain available",
        0x26 => "user property",
        0x27 => "maximum packet size",
        0x28 => "wildcard subscription available",
        0x29 => "subscription identifiers available",
        0x2a => "shared subscription available",
        _ => "unknown property",
    }
}
