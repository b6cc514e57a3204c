//! Packets as the clients of a simulation send them, and as they got them.

use firehose_mqtt::{
    Connect, Decoded, Disconnect, Packet, PacketId, PacketKind, PropertiesBuf, Property, Publish, QoS,
    Reason, Subscribe, SubscribeItemsBuf, SubscribeOptions, Unsubscribe, UnsubscribeItemsBuf, Version, Will,
    decode, encode,
};
use firehose_topic::TopicName;

/// A packet that the bus sent, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: PacketKind,
    /// Where it began in the bytes that it was taken off.
    pub at: usize,
    pub id: u16,
    pub reason: Reason,
    /// Session present, of a CONNACK.
    pub present: bool,
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// User properties.
    pub user: Vec<(String, String)>,
    /// Subscription identifiers.
    pub ids: Vec<u32>,
    pub receive_max: u16,
    pub expiry_secs: Option<u32>,
}

impl Got {
    pub fn user(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// In a line.
    pub fn brief(&self) -> String {
        let Got { kind, id, reason, topic, qos, retain, user, ids, .. } = self;
        if *kind != PacketKind::Publish {
            let present = if self.present { " present" } else { "" };
            return format!("{kind:?} {id} {reason:?}{present} {user:?}");
        }
        let text = String::from_utf8_lossy(&self.payload);
        let name = text.split(';').next().unwrap_or("").to_owned();
        let (dup, retain) = (if self.dup { " again" } else { "" }, if *retain { " retained" } else { "" });
        format!("{name} {topic} qos {qos} id {id}{dup}{retain} by {ids:?} {user:?}")
    }

    fn of(packet: &Packet<'_>) -> Got {
        let mut got = Got {
            kind: packet.kind(),
            at: 0,
            id: 0,
            reason: Reason::Success,
            present: false,
            topic: String::new(),
            payload: Vec::new(),
            qos: 0,
            dup: false,
            retain: false,
            user: Vec::new(),
            ids: Vec::new(),
            receive_max: u16::MAX,
            expiry_secs: None,
        };
        let properties = match packet {
            Packet::ConnAck(connack) => {
                (got.reason, got.present) = (connack.reason, connack.session_present);
                got.receive_max = connack.properties.receive_maximum().unwrap_or(u16::MAX);
                got.expiry_secs = connack.properties.session_expiry();
                connack.properties
            }
            Packet::Publish(publish) => {
                got.id = publish.packet_id.map_or(0, PacketId::get);
                got.topic = publish.topic.into();
                got.payload = publish.payload.to_vec();
                (got.qos, got.dup, got.retain) = (publish.qos as u8, publish.dup, publish.retain);
                publish.properties
            }
            Packet::PubAck(it) | Packet::PubRec(it) | Packet::PubRel(it) | Packet::PubComp(it) => {
                (got.id, got.reason) = (it.packet_id.get(), it.reason);
                it.properties
            }
            Packet::SubAck(suback) => {
                got.id = suback.packet_id.get();
                got.reason = suback.reasons.clone().next().unwrap_or(Reason::UnspecifiedError);
                suback.properties
            }
            Packet::UnsubAck(unsuback) => {
                got.id = unsuback.packet_id.get();
                unsuback.properties
            }
            Packet::Disconnect(disconnect) => {
                got.reason = disconnect.reason;
                disconnect.properties
            }
            Packet::PingResp => firehose_mqtt::Properties::EMPTY,
            other => panic!("the bus sent {other:?}"),
        };
        for (name, value) in properties.user_properties() {
            got.user.push((name.into(), value.into()));
        }
        got.ids.extend(properties.subscription_ids());
        got
    }
}

/// Takes whole packets off the front of `bytes`.
pub fn take_packets(bytes: &mut Vec<u8>, version: Version) -> Vec<Got> {
    let (mut got, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match decode(&bytes[at..], version, usize::MAX).expect("the bus sends what conforms") {
            Decoded::Incomplete { .. } => break,
            Decoded::Packet(packet, len) => {
                got.push(Got { at, ..Got::of(&packet) });
                at += len;
            }
        }
    }
    bytes.drain(..at);
    got
}

/// What a client asks for with CONNECT.
#[derive(Clone, Debug)]
pub struct ConnectWish<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub clean: bool,
    /// MQTT 5.
    pub expiry_secs: u32,
    /// MQTT 5.
    pub receive_max: u16,
    /// MQTT 5: every PUBLISH carries its cursor.
    pub cursors: bool,
    pub will: Option<WillWish<'a>>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug)]
pub struct WillWish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    /// MQTT 5.
    pub delay_secs: u32,
}

pub fn connect(wish: &ConnectWish<'_>) -> Vec<u8> {
    let v5 = wish.version == Version::V5;
    let mut properties = Vec::new();
    if v5 {
        properties.push(Property::ReceiveMaximum(wish.receive_max));
        if wish.expiry_secs > 0 {
            properties.push(Property::SessionExpiry(wish.expiry_secs));
        }
        if wish.cursors {
            properties.push(Property::UserProperty("firehose-cursor", "on"));
        }
    }
    let properties = list(&properties);
    let delay = wish.will.as_ref().map_or(0, |will| will.delay_secs);
    let of_will = if v5 && delay > 0 { list(&[Property::WillDelay(delay)]) } else { list(&[]) };
    let will = wish.will.as_ref().map(|will| Will {
        qos: qos(will.qos),
        retain: will.retain,
        topic: TopicName::trusted(will.topic),
        payload: will.payload,
        properties: of_will.as_properties(),
    });
    let connect = Connect {
        version: wish.version,
        clean_start: wish.clean,
        keep_alive_secs: 60,
        client_id: wish.client_id,
        will,
        user_name: None,
        password: None,
        properties: properties.as_properties(),
    };
    bytes_of(&Packet::Connect(connect), wish.version)
}

/// A PUBLISH as a client keeps it, to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// MQTT 5: names a message without payload.
    pub name: Option<String>,
}

impl Outgoing {
    pub fn bytes(&self, version: Version, packet_id: u16, dup: bool) -> Vec<u8> {
        let name = self.name.as_deref().filter(|_| version == Version::V5);
        let properties = match name {
            Some(name) => list(&[Property::UserProperty("name", name)]),
            None => list(&[]),
        };
        let publish = Publish {
            dup,
            qos: qos(self.qos),
            retain: self.retain,
            topic: &self.topic,
            packet_id: PacketId::new(packet_id).filter(|_| self.qos > 0),
            properties: properties.as_properties(),
            payload: &self.payload,
        };
        bytes_of(&Packet::Publish(publish), version)
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct SubscribeWish<'a> {
    pub packet_id: u16,
    pub filter: &'a str,
    pub options: SubscribeOptions,
    /// MQTT 5: subscription identifier, 0: none.
    pub id: u32,
    /// MQTT 5: where it begins.
    pub since: Option<&'a str>,
}

pub fn subscribe(version: Version, wish: &SubscribeWish<'_>) -> Vec<u8> {
    let mut properties = Vec::new();
    if wish.id != 0 {
        properties.push(Property::SubscriptionId(wish.id));
    }
    properties.extend(wish.since.map(|since| Property::UserProperty("since", since)));
    let properties = if version == Version::V5 { list(&properties) } else { list(&[]) };
    let mut items = SubscribeItemsBuf::new();
    items.push(wish.filter, wish.options).expect("fits");
    let (packet_id, filters) = (id(wish.packet_id), items.as_items());
    let subscribe = Subscribe { packet_id, properties: properties.as_properties(), filters };
    bytes_of(&Packet::Subscribe(subscribe), version)
}

pub fn unsubscribe(version: Version, packet_id: u16, filter: &str) -> Vec<u8> {
    let mut items = UnsubscribeItemsBuf::new();
    items.push(filter).expect("fits");
    let properties = firehose_mqtt::Properties::EMPTY;
    let filters = items.as_items();
    bytes_of(&Packet::Unsubscribe(Unsubscribe { packet_id: id(packet_id), properties, filters }), version)
}

pub fn disconnect(version: Version, reason: Reason) -> Vec<u8> {
    let properties = firehose_mqtt::Properties::EMPTY;
    bytes_of(&Packet::Disconnect(Disconnect { reason, properties }), version)
}

pub fn ping(version: Version) -> Vec<u8> {
    bytes_of(&Packet::PingReq, version)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(kind: firehose_mqtt::AckKind, packet_id: u16, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    firehose_mqtt::encode_ack(&mut out, kind, packet_id, Reason::Success, version);
    out
}

pub fn qos(number: u8) -> QoS {
    QoS::from_u8(number).expect("a QoS")
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

fn list(properties: &[Property<'_>]) -> PropertiesBuf {
    let mut list = PropertiesBuf::new();
    properties.iter().for_each(|property| list.push(property).expect("fits"));
    list
}

fn bytes_of(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).expect("a packet that can be sent");
    out
}
