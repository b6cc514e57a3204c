//! A scripted client: what it sends, and what it was sent.

use firehose_mqtt::{
    Ack, Connect, Decoded, Packet, PacketId, PacketKind, PropertiesBuf, Property, Publish, QoS, Reason,
    Subscribe, SubscribeItemsBuf, SubscribeOptions, Unsubscribe, UnsubscribeItemsBuf, Version, decode,
    encode,
};

/// A packet that the broker sent, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: PacketKind,
    pub id: u16,
    pub reasons: Vec<Reason>,
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub user: Vec<(String, String)>,
    pub ids: Vec<u32>,
    pub session_present: bool,
    /// The other properties, as they print.
    pub properties: Vec<String>,
}

impl Got {
    pub fn user(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn reason(&self) -> Reason {
        self.reasons[0]
    }

    pub fn has(&self, property: &str) -> bool {
        self.properties.iter().any(|known| known == property)
    }
}

/// Takes whole packets off the front of `bytes`.
pub fn take_packets(bytes: &mut Vec<u8>, version: Version) -> Vec<Got> {
    let mut got = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match decode(&bytes[at..], version, usize::MAX).expect("the broker sends what conforms") {
            Decoded::Incomplete { .. } => break,
            Decoded::Packet(packet, len) => {
                got.push(own(&packet));
                at += len;
            }
        }
    }
    bytes.drain(..at);
    got
}

fn own(packet: &Packet<'_>) -> Got {
    let mut got = Got {
        kind: packet.kind(),
        id: 0,
        reasons: Vec::new(),
        topic: String::new(),
        payload: String::new(),
        qos: 0,
        dup: false,
        retain: false,
        user: Vec::new(),
        ids: Vec::new(),
        session_present: false,
        properties: Vec::new(),
    };
    let properties = match packet {
        Packet::ConnAck(connack) => {
            got.session_present = connack.session_present;
            got.reasons = vec![connack.reason];
            connack.properties
        }
        Packet::Publish(publish) => {
            got.id = publish.packet_id.map_or(0, PacketId::get);
            got.topic = publish.topic.into();
            got.payload = String::from_utf8_lossy(publish.payload).into_owned();
            (got.qos, got.dup, got.retain) = (publish.qos as u8, publish.dup, publish.retain);
            publish.properties
        }
        Packet::PubAck(it) | Packet::PubRec(it) | Packet::PubRel(it) | Packet::PubComp(it) => {
            (got.id, got.reasons) = (it.packet_id.get(), vec![it.reason]);
            it.properties
        }
        Packet::SubAck(suback) => {
            (got.id, got.reasons) = (suback.packet_id.get(), suback.reasons.collect());
            suback.properties
        }
        Packet::UnsubAck(unsuback) => {
            (got.id, got.reasons) = (unsuback.packet_id.get(), unsuback.reasons.collect());
            unsuback.properties
        }
        Packet::Disconnect(disconnect) => {
            got.reasons = vec![disconnect.reason];
            disconnect.properties
        }
        Packet::PingResp => firehose_mqtt::Properties::EMPTY,
        other => panic!("the broker sent {other:?}"),
    };
    for property in properties.iter() {
        match property {
            Property::UserProperty(name, value) => got.user.push((name.into(), value.into())),
            Property::SubscriptionId(id) => got.ids.push(id),
            other => got.properties.push(format!("{other:?}")),
        }
    }
    got
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

pub fn properties(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(property).expect("fits"));
    properties
}

pub fn bytes_of(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).expect("a packet that can be sent");
    out
}

pub fn connect_packet(version: Version, client_id: &str, list: &[Property<'_>]) -> Vec<u8> {
    start_packet(version, true, client_id, list)
}

/// A CONNECT that may ask for a session to go on.
pub fn start_packet(version: Version, clean_start: bool, client_id: &str, list: &[Property<'_>]) -> Vec<u8> {
    let properties = properties(list);
    let connect = Connect {
        version,
        clean_start,
        keep_alive_secs: 60,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: properties.as_properties(),
    };
    bytes_of(&Packet::Connect(connect), version)
}

/// A PUBLISH to be varied.
pub fn publish<'a>(topic: &'a str, payload: &'a str, qos: u8, packet_id: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::from_u8(qos).expect("a QoS"),
        retain: false,
        topic,
        packet_id: PacketId::new(packet_id),
        properties: firehose_mqtt::Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

pub fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions { qos: QoS::from_u8(qos).expect("a QoS"), ..SubscribeOptions::default() }
}

pub fn subscribe_packet(
    version: Version,
    packet_id: u16,
    filters: &[(&str, SubscribeOptions)],
    list: &[Property<'_>],
) -> Vec<u8> {
    let properties = properties(list);
    let mut items = SubscribeItemsBuf::new();
    filters.iter().for_each(|(filter, options)| items.push(filter, *options).expect("fits"));
    let filters = items.as_items();
    let subscribe = Subscribe { packet_id: id(packet_id), properties: properties.as_properties(), filters };
    bytes_of(&Packet::Subscribe(subscribe), version)
}

pub fn unsubscribe_packet(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut items = UnsubscribeItemsBuf::new();
    filters.iter().for_each(|filter| items.push(filter).expect("fits"));
    let properties = firehose_mqtt::Properties::EMPTY;
    let filters = items.as_items();
    bytes_of(&Packet::Unsubscribe(Unsubscribe { packet_id: id(packet_id), properties, filters }), version)
}

/// An acknowledgement, made by the variant of [`Packet`].
pub fn ack(make: fn(Ack<'static>) -> Packet<'static>, packet_id: u16, version: Version) -> Vec<u8> {
    let properties = firehose_mqtt::Properties::EMPTY;
    bytes_of(&make(Ack { packet_id: id(packet_id), reason: Reason::Success, properties }), version)
}
