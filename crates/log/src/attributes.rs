//! Attributes of an event: type (u8), length (LEB128, u32), value. Unknown types are kept, and skipped by readers.

use crate::varint;

const MESSAGE_EXPIRY: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 9;
const USER_PROPERTY: u8 = 38;
const CONTEXT: u8 = 64;

/// The longest value of an attribute, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 16 << 20;

/// One attribute. Types below 64 carry the numbers of MQTT 5's properties (section 2.2.2.2).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// Seconds after which it should no longer be delivered (type 2).
    MessageExpiry(u32),
    /// Content type (type 3).
    ContentType(&'a str),
    /// Response topic (type 8).
    ResponseTopic(&'a str),
    /// Correlation data (type 9).
    CorrelationData(&'a [u8]),
    /// A client's own name and value (type 38).
    UserProperty(&'a str, &'a str),
    /// A CloudEvents attribute that a source brought: name and value (type 64).
    Context(&'a str, &'a str),
    /// A type that this version does not know, or a known one with a value that does not fit it.
    Unknown(u8, &'a [u8]),
}

/// The attributes of an event, borrowed. Malformed bytes end the iteration, they never panic.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// No attributes.
    pub const EMPTY: Attributes<'static> = Attributes(&[]);

    /// Attributes over encoded bytes, as [`Attributes::raw`] gave them.
    pub fn from_raw(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }

    /// The attributes in the order in which they were pushed.
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.0 }
    }

    /// The encoded bytes.
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = Attribute<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Walks the attributes of an event.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let item = split_first(self.rest);
        match item {
            Some((attribute, rest)) => {
                self.rest = rest;
                Some(attribute)
            }
            None => {
                self.rest = &[];
                None
            }
        }
    }
}

/// Attributes being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributesBuf(Vec<u8>);

impl AttributesBuf {
    /// Without any attribute yet; allocates nothing.
    pub fn new() -> AttributesBuf {
        AttributesBuf::default()
    }

    /// Drops the attributes and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds one at the end. Gives false, and adds nothing, if a name is longer than 65,535 bytes or the value
    /// than [`ATTRIBUTE_BYTES_MAX`]; nothing that came in an MQTT packet is.
    pub fn push(&mut self, attribute: &Attribute<'_>) -> bool {
        match *attribute {
            Attribute::MessageExpiry(secs) => self.push_value(MESSAGE_EXPIRY, &secs.to_le_bytes()),
            Attribute::ContentType(text) => self.push_value(CONTENT_TYPE, text.as_bytes()),
            Attribute::ResponseTopic(text) => self.push_value(RESPONSE_TOPIC, text.as_bytes()),
            Attribute::CorrelationData(bytes) => self.push_value(CORRELATION_DATA, bytes),
            Attribute::UserProperty(name, value) => self.push_pair(USER_PROPERTY, name, value),
            Attribute::Context(name, value) => self.push_pair(CONTEXT, name, value),
            Attribute::Unknown(kind, bytes) => self.push_value(kind, bytes),
        }
    }

    /// The attributes so far.
    pub fn as_attributes(&self) -> Attributes<'_> {
        Attributes(&self.0)
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push_value(&mut self, kind: u8, value: &[u8]) -> bool {
        if value.len() > ATTRIBUTE_BYTES_MAX {
            return false;
        }
        self.0.push(kind);
        varint::push(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        true
    }

    fn push_pair(&mut self, kind: u8, name: &str, value: &str) -> bool {
        let Ok(name_len) = u16::try_from(name.len()) else { return false };
        let len = 2 + name.len() + value.len();
        if len > ATTRIBUTE_BYTES_MAX {
            return false;
        }
        self.0.push(kind);
        varint::push(&mut self.0, len as u64);
        self.0.extend_from_slice(&name_len.to_le_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(value.as_bytes());
        true
    }
}

fn split_first(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (len, rest) = varint::split(rest)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    Some((attribute(kind, value), rest))
}

fn attribute(kind: u8, value: &[u8]) -> Attribute<'_> {
    let known = match kind {
        MESSAGE_EXPIRY => {
            value.try_into().ok().map(|four| Attribute::MessageExpiry(u32::from_le_bytes(four)))
        }
        CONTENT_TYPE => std::str::from_utf8(value).ok().map(Attribute::ContentType),
        RESPONSE_TOPIC => std::str::from_utf8(value).ok().map(Attribute::ResponseTopic),
        CORRELATION_DATA => Some(Attribute::CorrelationData(value)),
        USER_PROPERTY => pair(value).map(|(name, value)| Attribute::UserProperty(name, value)),
        CONTEXT => pair(value).map(|(name, value)| Attribute::Context(name, value)),
        _ => None,
    };
    known.unwrap_or(Attribute::Unknown(kind, value))
}

fn pair(value: &[u8]) -> Option<(&str, &str)> {
    let (len, rest) = value.split_first_chunk::<2>()?;
    let (name, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Owned {
        Expiry(u32),
        Type(String),
        Response(String),
        Correlation(Vec<u8>),
        User(String, String),
        Context(String, String),
        Unknown(u8, Vec<u8>),
    }

    impl Owned {
        fn borrow(&self) -> Attribute<'_> {
            match self {
                Owned::Expiry(secs) => Attribute::MessageExpiry(*secs),
                Owned::Type(text) => Attribute::ContentType(text),
                Owned::Response(text) => Attribute::ResponseTopic(text),
                Owned::Correlation(bytes) => Attribute::CorrelationData(bytes),
                Owned::User(name, value) => Attribute::UserProperty(name, value),
                Owned::Context(name, value) => Attribute::Context(name, value),
                Owned::Unknown(kind, bytes) => Attribute::Unknown(*kind, bytes),
            }
        }
    }

    fn any_attribute() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            any::<u32>().prop_map(Owned::Expiry),
            any::<String>().prop_map(Owned::Type),
            any::<String>().prop_map(Owned::Response),
            bytes().prop_map(Owned::Correlation),
            any::<(String, String)>().prop_map(|(name, value)| Owned::User(name, value)),
            any::<(String, String)>().prop_map(|(name, value)| Owned::Context(name, value)),
            (100u8..=255, bytes()).prop_map(|(kind, value)| Owned::Unknown(kind, value)),
        ]
    }

    proptest! {
        #[test]
        fn pushed_attributes_are_read_back_in_order(all in proptest::collection::vec(any_attribute(), 0..20)) {
            let mut buf = AttributesBuf::new();
            for attribute in &all {
                prop_assert!(buf.push(&attribute.borrow()));
            }
            let read: Vec<_> = buf.as_attributes().iter().collect();
            let pushed: Vec<_> = all.iter().map(Owned::borrow).collect();
            prop_assert_eq!(read, pushed);
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let walked = Attributes::from_raw(&bytes).iter().count();
            prop_assert!(walked <= bytes.len());
        }
    }

    #[test]
    fn a_known_type_whose_value_does_not_fit_is_kept_as_unknown() {
        let bytes = [MESSAGE_EXPIRY, 1, 7, CONTENT_TYPE, 1, 0xff, USER_PROPERTY, 2, 9, 0];
        let read: Vec<_> = Attributes::from_raw(&bytes).iter().collect();
        assert_eq!(
            read,
            [
                Attribute::Unknown(MESSAGE_EXPIRY, &[7]),
                Attribute::Unknown(CONTENT_TYPE, &[0xff]),
                Attribute::Unknown(USER_PROPERTY, &[9, 0])
            ]
        );
    }

    #[test]
    fn a_name_too_long_to_be_written_is_not_pushed() {
        let mut buf = AttributesBuf::new();
        assert!(!buf.push(&Attribute::UserProperty(&"n".repeat(65_536), "")));
        assert!(buf.is_empty());
    }
}
