use firehose_topic::{TopicError, TopicName};

use crate::{
    DecodeError, EncodeError, PacketId, PacketKind, Properties, PropertyPlace, QoS, Version,
    frame::{Layout, encode_publish, patch},
    reader::Reader,
};

/// PUBLISH (MQTT 5.0 section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it was, or may have been, sent before.
    pub dup: bool,
    /// How surely it is delivered.
    pub qos: QoS,
    /// To be retained; to a subscriber: it was retained.
    pub retain: bool,
    /// A valid [`TopicName`]; empty only in 5.0 and with a topic alias.
    pub topic: &'a str,
    /// There at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// None before 5.0.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(flags: u8, mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let qos = QoS::from_u8(flags >> 1 & 3).ok_or(DecodeError::QoS("PUBLISH"))?;
        let mut dup = flags & 8 != 0;
        if dup && qos == QoS::AtMostOnce {
            if version != Version::V31 {
                return Err(DecodeError::DupWithoutQoS);
            }
            // 3.1 gives the flag no meaning here, but does not forbid it.
            dup = false;
        }
        let topic = match TopicName::from_bytes(body.binary("topic name")?) {
            Ok(topic) => topic.as_str(),
            Err(TopicError::Empty) if version == Version::V5 => "",
            Err(error) => return Err(DecodeError::Topic(error)),
        };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(body.packet_id(PacketKind::Publish)?),
        };
        let mut properties = Properties::EMPTY;
        if version == Version::V5 {
            properties = Properties::read(&mut body, PropertyPlace::Publish)?;
            if topic.is_empty() && properties.topic_alias().is_none() {
                return Err(DecodeError::TopicMissing);
            }
        }
        Ok(Self { dup, qos, retain: flags & 1 != 0, topic, packet_id, properties, payload: body.0 })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        let ack = self.qos != QoS::AtMostOnce;
        if ack != self.packet_id.is_some() {
            return Err(EncodeError::PacketId);
        }
        if self.dup && !ack {
            return Err(DecodeError::DupWithoutQoS.into());
        }
        let v5 = version == Version::V5;
        match TopicName::new(self.topic) {
            Ok(_) => {}
            Err(TopicError::Empty) if v5 && self.properties.topic_alias().is_some() => {}
            Err(TopicError::TooLong) => return Err(EncodeError::TooLong("topic name")),
            Err(error) => return Err(DecodeError::Topic(error).into()),
        }
        if v5 {
            self.properties.check(PropertyPlace::Publish)?;
        }
        let layout = Layout { v5, ack };
        let properties = self.properties.iter();
        let frame = encode_publish(out, layout, self.qos, self.retain, self.topic, properties, self.payload)?;
        if let Some(packet_id) = self.packet_id {
            let start = frame.start as usize;
            let packet_id_at = (frame.packet_id_at - frame.start) as usize;
            patch(&mut out[start..], packet_id_at, packet_id.get(), self.qos, self.dup, self.retain);
        }
        Ok(())
    }
}
