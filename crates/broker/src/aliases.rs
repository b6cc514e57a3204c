//! Topic aliases that the bus sets for a client which takes some (MQTT 5.0, 3.3.2.3.4): the first topics it is sent get one
//! each, for as long as its connection lives. Frames are shared by all subscribers, so they are rewritten in a copy; only
//! who asked for aliases pays for that.

use firehose_log::Offset;
use firehose_mqtt::{
    Decoded, Frame, Layout, Packet, Property, Publish, QoS, Version, decode, encode_publish, patch,
};
use std::collections::HashMap;

/// See the module.
#[derive(Debug)]
pub struct Aliases {
    topics: HashMap<Box<str>, u16>,
    count_max: u16,
    packet_bytes_max: u32,
    /// Offsets of the events that were rewritten last and may wait for the socket.
    pub(crate) portion: Vec<Offset>,
}

impl Aliases {
    /// None set yet, and at most `count_max` (at least 1) to come, for a client that takes packets of `packet_bytes_max`.
    pub fn new(count_max: u16, packet_bytes_max: u32) -> Aliases {
        Aliases { topics: HashMap::new(), count_max, packet_bytes_max, portion: Vec::new() }
    }

    /// Appends a PUBLISH to `out`, with an alias if its topic has one or can be given one.
    pub fn append(&mut self, publish: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        if self.rewrite(publish, out).is_none() {
            out.truncate(start);
            out.extend_from_slice(publish);
        }
    }

    fn rewrite(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Ok(Decoded::Packet(Packet::Publish(publish), _)) = decode(bytes, Version::V5, bytes.len()) else {
            return None;
        };
        let known = self.topics.get(publish.topic).copied();
        let next = u16::try_from(self.topics.len() + 1).ok().filter(|next| *next <= self.count_max);
        let alias = known.or(next)?;
        let topic = if known.is_some() { "" } else { publish.topic };
        let start = out.len();
        let frame = encode_with(&publish, topic, alias, out)?;
        if frame.len > self.packet_bytes_max {
            return None;
        }
        let packet_id_at = (frame.packet_id_at as usize).saturating_sub(start);
        let packet_id = publish.packet_id.map_or(0, |id| id.get());
        patch(&mut out[start..], packet_id_at, packet_id, publish.qos, publish.dup, publish.retain);
        if known.is_none() {
            self.topics.insert(publish.topic.into(), alias);
        }
        Some(())
    }
}

fn encode_with(publish: &Publish<'_>, topic: &str, alias: u16, out: &mut Vec<u8>) -> Option<Frame> {
    let layout = Layout { v5: true, ack: publish.qos != QoS::AtMostOnce };
    let properties = std::iter::once(Property::TopicAlias(alias)).chain(publish.properties.iter());
    encode_publish(out, layout, publish.qos, publish.retain, topic, properties, publish.payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_mqtt::{PacketId, PropertiesBuf, encode};

    fn publish(topic: &str, packet_id: u16) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        properties.push(&Property::UserProperty("a", "b")).unwrap();
        let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::ExactlyOnce };
        let packet = Publish {
            dup: false,
            qos,
            retain: true,
            topic,
            packet_id: PacketId::new(packet_id),
            properties: properties.as_properties(),
            payload: b"payload",
        };
        let mut out = Vec::new();
        encode(&Packet::Publish(packet), Version::V5, &mut out).unwrap();
        out
    }

    /// Topic, alias, packet id and payload of what is sent for a PUBLISH.
    fn sent(aliases: &mut Aliases, topic: &str, packet_id: u16) -> (String, Option<u16>, u16) {
        let mut out = b"before".to_vec();
        aliases.append(&publish(topic, packet_id), &mut out);
        let Ok(Decoded::Packet(Packet::Publish(publish), _)) = decode(&out[6..], Version::V5, 1000) else {
            panic!("not a PUBLISH: {out:?}");
        };
        assert_eq!((publish.payload, publish.retain), (&b"payload"[..], true));
        assert_eq!(publish.properties.user_properties().collect::<Vec<_>>(), [("a", "b")]);
        let packet_id = publish.packet_id.map_or(0, |id| id.get());
        (publish.topic.into(), publish.properties.topic_alias(), packet_id)
    }

    #[test]
    fn the_first_topics_get_an_alias_and_later_go_without_their_name() {
        let mut aliases = Aliases::new(2, 1000);
        assert_eq!(sent(&mut aliases, "one", 0), ("one".into(), Some(1), 0));
        assert_eq!(sent(&mut aliases, "two", 7), ("two".into(), Some(2), 7));
        assert_eq!(sent(&mut aliases, "three", 8), ("three".into(), None, 8));
        assert_eq!(sent(&mut aliases, "one", 9), (String::new(), Some(1), 9));
        assert_eq!(sent(&mut aliases, "two", 0), (String::new(), Some(2), 0));
    }

    #[test]
    fn a_packet_that_would_grow_too_large_goes_as_it_is() {
        let bytes_max = publish("one", 0).len() as u32;
        let mut aliases = Aliases::new(2, bytes_max);
        assert_eq!(sent(&mut aliases, "one", 0), ("one".into(), None, 0));
        assert_eq!(sent(&mut aliases, "on", 0), ("on".into(), None, 0));
    }
}
