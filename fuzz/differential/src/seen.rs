//! What a client saw: the only thing that is compared.

use std::fmt;

use firehose_mqtt::{PacketKind, Property, Publish};

/// One thing that a client saw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// CONNACK. The properties as text, those that say a limit or a name of the server's choice too.
    Connected { present: bool, reason: u8, properties: Vec<String> },
    /// SUBACK: a code for each filter.
    Subscribed(Vec<u8>),
    /// UNSUBACK: a code for each filter (5.0).
    Unsubscribed(Vec<u8>),
    /// PUBACK, PUBREC or PUBCOMP for what the client published.
    Acknowledged { kind: PacketKind, packet_id: u16, reason: u8 },
    /// A PUBLISH that came for the first time.
    Delivered(Delivery),
    /// DISCONNECT.
    Told(u8),
    /// The end of a connection.
    Closed,
    /// More messages at once than Receive Maximum allows [MQTT-3.3.4-9].
    TooMany(usize),
    /// What no server may do.
    Wrong(String),
}

/// A PUBLISH as its subscriber sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// In full, where it came by an alias too.
    pub topic: String,
    /// It begins with the message's name: see [`Delivery::name`].
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// As received.
    pub retain: bool,
    /// Subscription Identifiers, in ascending order.
    pub identifiers: Vec<u32>,
    /// What is left of the Message Expiry Interval.
    pub expiry_secs: Option<u32>,
    /// The other properties as text: user properties in their order, the rest before them in ascending order.
    pub properties: Vec<String>,
}

/// The place of a will in its step.
pub const WILL: usize = 99;

/// The character after a message's name in its payload.
const NAME_END: u8 = b'|';

impl Delivery {
    /// Of a PUBLISH, on the topic that it means.
    pub fn new(publish: &Publish<'_>, topic: String) -> Self {
        let mut identifiers: Vec<u32> = publish.properties.subscription_ids().collect();
        identifiers.sort_unstable();
        let is_other = |property: &Property<'_>| {
            let elsewhere = [0x02, 0x0b, 0x23, 0x26];
            !elsewhere.contains(&property.id())
        };
        let mut properties: Vec<String> = publish.properties.iter().filter(is_other).map(text).collect();
        properties.sort_unstable();
        properties
            .extend(publish.properties.user_properties().map(|(name, value)| format!("{name}: {value}")));
        Self {
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            identifiers,
            expiry_secs: publish.properties.message_expiry(),
            properties,
        }
    }

    /// Whether both may be copies of one publication, by different subscriptions.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        self.topic == other.topic
            && self.payload == other.payload
            && self.expiry_secs == other.expiry_secs
            && self.properties == other.properties
    }

    /// The name of the message: `<client>.<step>.<place>.<QoS>` in decimal; empty for one without payload.
    pub fn name(&self) -> &str {
        let end = self.payload.iter().position(|&byte| byte == NAME_END).unwrap_or(0);
        std::str::from_utf8(&self.payload[..end]).unwrap_or_default()
    }

    /// Which message it is; `None` for one without payload.
    pub fn origin(&self) -> Option<Origin> {
        let mut parts = self.name().split('.').map(|part| part.parse().ok());
        let mut next = || parts.next().flatten();
        Some(Origin { client: next()?, step: next()?, place: next()?, qos: next()? as u8 })
    }
}

/// Which message it is: who published it, by which step, as the how manieth of it, at which QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whose place in the session.
    pub client: usize,
    /// Its number.
    pub step: usize,
    /// From 0; [`WILL`] for the will of a connection that the step opened.
    pub place: usize,
    /// 0, 1 or 2.
    pub qos: u8,
}

/// The payload of a message: its name, and about as many bytes as wanted; none when none are.
pub fn payload(origin: Origin, bytes: usize) -> Vec<u8> {
    if bytes == 0 {
        return Vec::new();
    }
    let Origin { client, step, place, qos } = origin;
    let mut payload = format!("{client}.{step}.{place}.{qos}").into_bytes();
    payload.push(NAME_END);
    let len = bytes.max(payload.len());
    payload.resize(len, b'.');
    payload
}

/// A property as text.
pub fn text(property: Property<'_>) -> String {
    format!("{property:?}")
}

impl Seen {
    /// What is seen apart from messages; `None` for a message.
    pub fn message(&self) -> Option<&Delivery> {
        match self {
            Self::Delivered(delivery) => Some(delivery),
            _ => None,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { present, reason, properties } => {
                write!(f, "CONNACK {reason:#04x}, session present {}, {properties:?}", u8::from(*present))
            }
            Self::Subscribed(codes) => write!(f, "SUBACK {codes:02x?}"),
            Self::Unsubscribed(codes) => write!(f, "UNSUBACK {codes:02x?}"),
            Self::Acknowledged { kind, packet_id, reason } => write!(f, "{kind} {packet_id}, {reason:#04x}"),
            Self::Delivered(delivery) => delivery.fmt(f),
            Self::Told(reason) => write!(f, "DISCONNECT {reason:#04x}"),
            Self::Closed => f.write_str("closed"),
            Self::TooMany(count) => write!(f, "{count} messages at once, more than Receive Maximum"),
            Self::Wrong(what) => write!(f, "wrong: {what}"),
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, qos, payload, .. } = self;
        write!(f, "PUBLISH {topic:?} {:?} ({} bytes), QoS {qos}", self.name(), payload.len())?;
        if self.retain {
            f.write_str(", retained")?;
        }
        if !self.identifiers.is_empty() {
            write!(f, ", identifiers {:?}", self.identifiers)?;
        }
        if let Some(secs) = self.expiry_secs {
            write!(f, ", expires in {secs} s")?;
        }
        if !self.properties.is_empty() {
            write!(f, ", {:?}", self.properties)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_name() {
        let delivery = |payload: Vec<u8>| Delivery {
            topic: "a".into(),
            payload,
            qos: 0,
            retain: false,
            identifiers: Vec::new(),
            expiry_secs: None,
            properties: Vec::new(),
        };
        let origin = Origin { client: 1, step: 22, place: 3, qos: 2 };
        assert_eq!(delivery(payload(origin, 1)).origin(), Some(origin));
        assert_eq!(delivery(payload(origin, 100)).payload.len(), 100);
        assert_eq!(delivery(payload(origin, 0)).origin(), None);
    }
}
