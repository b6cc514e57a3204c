//! Random valid packets, owning what they borrow. They hold only what their version can say.

mod property;

use firehose_mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PropertiesBuf, PropertyPlace, Publish, QoS,
    Reason, ReasonsBuf, RetainHandling, SubAck, Subscribe, SubscribeItemsBuf, SubscribeOptions, UnsubAck,
    Unsubscribe, UnsubscribeItemsBuf, Version, Will, encode,
};
use firehose_topic::TopicName;
use proptest::prelude::*;

use property::{ids_of, property};

#[derive(Clone, Debug)]
pub struct Sample {
    pub version: Version,
    kind: u8,
    flags: [bool; 4],
    qos: QoS,
    packet_id: PacketId,
    number: u16,
    reason: Reason,
    reasons: ReasonsBuf,
    properties: PropertiesBuf,
    will_properties: PropertiesBuf,
    name: String,
    text: String,
    payload: Vec<u8>,
    subscribe_items: SubscribeItemsBuf,
    unsubscribe_items: UnsubscribeItemsBuf,
}

impl Sample {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&self.packet(), self.version, &mut bytes).expect("a sample can be encoded");
        bytes
    }

    pub fn packet(&self) -> Packet<'_> {
        let properties = self.properties.as_properties();
        let ack = Ack { packet_id: self.packet_id, reason: self.reason, properties };
        match self.kind {
            1 => Packet::Connect(self.connect()),
            2 => Packet::ConnAck(ConnAck {
                session_present: self.flags[0]
                    && self.reason == Reason::Success
                    && self.version != Version::V31,
                reason: self.reason,
                properties,
            }),
            3 => Packet::Publish(self.publish()),
            4 => Packet::PubAck(ack),
            5 => Packet::PubRec(ack),
            6 => Packet::PubRel(ack),
            7 => Packet::PubComp(ack),
            8 => Packet::Subscribe(Subscribe {
                packet_id: self.packet_id,
                properties,
                filters: self.subscribe_items.as_items(),
            }),
            9 => Packet::SubAck(SubAck {
                packet_id: self.packet_id,
                properties,
                reasons: self.reasons.as_reasons(),
            }),
            10 => Packet::Unsubscribe(Unsubscribe {
                packet_id: self.packet_id,
                properties,
                filters: self.unsubscribe_items.as_items(),
            }),
            11 => Packet::UnsubAck(UnsubAck {
                packet_id: self.packet_id,
                properties,
                reasons: self.reasons.as_reasons(),
            }),
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(Disconnect { reason: self.reason, properties }),
            _ => Packet::Auth(Auth { reason: self.reason, properties }),
        }
    }

    fn connect(&self) -> Connect<'_> {
        let [clean, will, user, password] = self.flags;
        let topic = TopicName::new(&self.name).expect("the samples' names are valid");
        Connect {
            version: self.version,
            clean_start: clean,
            keep_alive_secs: self.number,
            client_id: if clean && self.version != Version::V31 { &self.text } else { &self.name },
            will: will.then_some(Will {
                qos: self.qos,
                retain: user,
                topic,
                payload: &self.payload,
                properties: self.will_properties.as_properties(),
            }),
            user_name: user.then_some(&self.text),
            password: (password && (user || self.version == Version::V5)).then_some(&self.payload),
            properties: self.properties.as_properties(),
        }
    }

    fn publish(&self) -> Publish<'_> {
        let properties = self.properties.as_properties();
        let ack = self.qos != QoS::AtMostOnce;
        Publish {
            dup: self.flags[0] && ack,
            qos: self.qos,
            retain: self.flags[1],
            topic: if self.flags[2] && properties.topic_alias().is_some() { "" } else { &self.name },
            packet_id: ack.then_some(self.packet_id),
            properties,
            payload: &self.payload,
        }
    }
}

/// Any packet of this version.
pub fn sample(version: Version) -> impl Strategy<Value = Sample> {
    let last = if version == Version::V5 { 15_u8 } else { 14 };
    (1..=last).prop_flat_map(move |kind| sample_of(version, kind))
}

fn sample_of(version: Version, kind: u8) -> impl Strategy<Value = Sample> {
    let reason = prop::sample::select(reasons_of(version, kind));
    let numbers = (any::<[bool; 4]>(), qos(), (1..=u16::MAX), any::<u16>());
    let reasons = (reason.clone(), prop::collection::vec(reason, 1..5));
    let properties = (properties(version, place_of(kind)), properties(version, Some(PropertyPlace::Will)));
    // Some payloads make the remaining length longer than one byte.
    let payload =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 100..300),];
    let filters = prop::collection::vec((filter(), options(version)), 1..5);
    let texts = (name(), text(), payload, filters);
    (numbers, reasons, properties, texts).prop_map(move |(numbers, reasons, properties, texts)| {
        let (flags, qos, packet_id, number) = numbers;
        let (name, text, payload, filters) = texts;
        let mut subscribe_items = SubscribeItemsBuf::new();
        let mut unsubscribe_items = UnsubscribeItemsBuf::new();
        for (filter, options) in &filters {
            subscribe_items.push(filter, *options).expect("a valid item");
            unsubscribe_items.push(filter).expect("a valid item");
        }
        let reasons_empty = kind == 11 && version != Version::V5;
        Sample {
            version,
            kind,
            flags,
            qos,
            packet_id: PacketId::new(packet_id).expect("not zero"),
            number,
            reason: reasons.0,
            reasons: if reasons_empty { ReasonsBuf::new() } else { reasons.1.into_iter().collect() },
            properties: properties.0,
            will_properties: properties.1,
            name,
            text,
            payload,
            subscribe_items,
            unsubscribe_items,
        }
    })
}

fn qos() -> impl Strategy<Value = QoS> + Clone {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn name() -> impl Strategy<Value = String> {
    "[a-c$ /äß€𝄞\u{feff}]{1,12}"
}

fn text() -> impl Strategy<Value = String> {
    "[a-c+#$ /äß€𝄞\u{feff}]{0,12}"
}

/// Filters that are valid, so that the oracle takes them too.
fn filter() -> impl Strategy<Value = String> {
    "([a-c€]{1,4}|\\+)(/([a-c€]{0,4}|\\+)){0,3}(/#)?"
}

fn options(version: Version) -> impl Strategy<Value = SubscribeOptions> {
    let handling = prop::sample::select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (qos(), any::<[bool; 2]>(), handling).prop_map(
        move |(qos, [no_local, retain_as_published], retain_handling)| match version {
            Version::V5 => SubscribeOptions { qos, no_local, retain_as_published, retain_handling },
            _ => SubscribeOptions { qos, ..SubscribeOptions::default() },
        },
    )
}

/// The reason codes that a packet may have, as its own section lists them.
fn reasons_of(version: Version, kind: u8) -> Vec<Reason> {
    let codes: &[u8] = match (version, kind) {
        (Version::V5, 2) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
            0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
        ],
        (_, 2) => &[0, 0x84, 0x85, 0x86, 0x87, 0x88],
        (Version::V5, 4 | 5) => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        (Version::V5, 6 | 7) => &[0, 0x92],
        (Version::V5, 9) => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2],
        (_, 9) => &[0, 1, 2, 0x80],
        (Version::V5, 11) => &[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91],
        (Version::V5, 14) => &[
            0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96,
            0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
        ],
        (Version::V5, 15) => &[0, 0x18, 0x19],
        _ => &[0],
    };
    codes.iter().map(|code| Reason::from_u8(*code).expect("a known code")).collect()
}

fn place_of(kind: u8) -> Option<PropertyPlace> {
    Some(match kind {
        1 => PropertyPlace::Connect,
        2 => PropertyPlace::ConnAck,
        3 => PropertyPlace::Publish,
        4..=7 => PropertyPlace::Ack,
        8 => PropertyPlace::Subscribe,
        9 => PropertyPlace::SubAck,
        10 => PropertyPlace::Unsubscribe,
        11 => PropertyPlace::UnsubAck,
        14 => PropertyPlace::Disconnect,
        15 => PropertyPlace::Auth,
        _ => return None,
    })
}

fn properties(version: Version, place: Option<PropertyPlace>) -> BoxedStrategy<PropertiesBuf> {
    let Some(place) = place.filter(|_| version == Version::V5) else {
        return Just(PropertiesBuf::new()).boxed();
    };
    let row = (prop::sample::select(ids_of(place)), any::<u32>(), text(), name());
    let auth_always = place == PropertyPlace::Auth;
    prop::collection::vec(row, 0..6)
        .prop_map(move |mut rows| {
            if auth_always || rows.iter().any(|row| row.0 == 0x16) {
                rows.push((0x15, 0, "method".into(), "x".into()));
            }
            let mut properties = PropertiesBuf::new();
            let mut seen = Vec::new();
            for (id, number, text, name) in rows {
                let repeats = id == 0x26 || id == 0x0b && place == PropertyPlace::Publish;
                if repeats || !seen.contains(&id) {
                    seen.push(id);
                    properties.push(&property(id, number, &text, &name)).expect("a valid property");
                }
            }
            properties
        })
        .boxed()
}

/// Changes some bytes of a packet; most changes keep its length right.
pub fn mutate(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (at, kind, value) in changes {
        let at = at.index(bytes.len());
        match kind % 6 {
            0 => bytes[at] = *value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes[at] = 0,
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 if bytes.len() > 2 && bytes[1] < 0x7f => {
                bytes.insert(at.max(2), *value);
                bytes[1] += 1;
            }
            5 if bytes.len() > 3 && (1..0x80).contains(&bytes[1]) => {
                bytes.remove(at.max(2));
                bytes[1] -= 1;
            }
            _ => {}
        }
    }
    bytes
}
