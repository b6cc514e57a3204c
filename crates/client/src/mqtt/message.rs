//! A message as it came.

use firehose_log::Cursor;
use firehose_mqtt::{Property, Publish, QoS};

/// The user property in which a server tells a message's cursor.
pub const CURSOR: &str = "firehose-cursor";
/// The user property in which a server tells that events are gone.
pub const GAP: &str = "firehose-gap";

/// A message, with what came beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The quality of service it came with.
    pub qos: QoS,
    /// Whether it is a retained one.
    pub retain: bool,
    /// The packet id; 0 with QoS 0.
    pub packet_id: u16,
    /// Whether the payload is said to be UTF-8.
    pub payload_utf8: Option<bool>,
    /// After how many seconds it is of no use.
    pub message_expiry_secs: Option<u32>,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// Where an answer should go.
    pub response_topic: Option<String>,
    /// What an answer should carry.
    pub correlation_data: Option<Vec<u8>>,
    /// The identifiers of the subscriptions that it matches.
    pub subscription_ids: Vec<u32>,
    /// The user properties but the server's own.
    pub user_properties: Vec<(String, String)>,
    /// The place after it.
    pub cursor: Option<Cursor>,
    /// Events before it that are gone, in the server's words.
    pub gap: Option<String>,
}

impl Message {
    /// What a PUBLISH carries.
    pub(crate) fn from_publish(publish: &Publish<'_>) -> Self {
        let mut message = Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_owned(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id.map_or(0, |id| id.get()),
            ..Message::default()
        };
        for property in publish.properties.iter() {
            message.take(property);
        }
        message
    }

    fn take(&mut self, property: Property<'_>) {
        match property {
            Property::PayloadFormat(format) => self.payload_utf8 = Some(format == 1),
            Property::MessageExpiry(secs) => self.message_expiry_secs = Some(secs),
            Property::ContentType(text) => self.content_type = Some(text.to_owned()),
            Property::ResponseTopic(text) => self.response_topic = Some(text.to_owned()),
            Property::CorrelationData(bytes) => self.correlation_data = Some(bytes.to_owned()),
            Property::SubscriptionId(id) => self.subscription_ids.push(id),
            Property::UserProperty(CURSOR, text) => self.cursor = Cursor::parse(text).ok(),
            Property::UserProperty(GAP, text) => match &mut self.gap {
                Some(gap) => gap.extend([", ", text]),
                None => self.gap = Some(text.to_owned()),
            },
            Property::UserProperty(name, value) => {
                self.user_properties.push((name.to_owned(), value.to_owned()))
            }
            _ => {}
        }
    }
}
