//! A client of one broker, by the letter of the standard: it does what a step says, keeps what its session has to keep,
//! answers what comes, and writes down what it saw.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use firehose_mqtt::{
    Ack, Connect, Disconnect, Packet, PacketKind, Properties, PropertiesBuf, Property, Publish, QoS, Reason,
    Subscribe, SubscribeItemsBuf, Unsubscribe, UnsubscribeItemsBuf, Version, Will,
};
use firehose_topic::TopicName;

use crate::{
    connection::{Broken, Connection},
    seen::{Origin, Seen, payload},
    session::{Break, Ending, Filter, Holding, Message, Options, Role},
};

/// For how long a broker may be silent before that counts as what the client saw.
const ANSWER_SECS_MAX: Duration = Duration::from_secs(10);
const KEEP_ALIVE_SECS: u16 = 60;

/// A client. Its session outlives its connections.
pub struct Client {
    id: String,
    pub(crate) version: Version,
    asked_maximum: Option<u16>,
    address: SocketAddr,
    pub(crate) connection: Option<Connection>,
    last_id: u16,
    /// What the broker still has to answer, by packet identifier.
    pub(crate) awaited: BTreeMap<u16, PacketKind>,
    pub(crate) is_connecting: bool,
    pub(crate) is_pinging: bool,
    /// It sends nothing any more, and takes what comes until the end.
    pub(crate) is_draining: bool,
    /// Whether the broker went on with the session at the last CONNACK.
    pub(crate) present: bool,
    /// Whether the session ends with the connection (3.x).
    is_clean: bool,
    /// QoS 2 messages that came and whose PUBREL did not.
    pub(crate) receiving: BTreeSet<u16>,
    /// QoS 1 messages that came on earlier connections and were not acknowledged: identifier and payload.
    pub(crate) unanswered: Vec<(u16, Vec<u8>)>,
    pub(crate) holding: Option<Holding>,
    /// Acknowledgements that are held back, in their order, with the payload of a QoS 1 message.
    pub(crate) held: Vec<(PacketKind, u16, Vec<u8>)>,
    /// Messages of this connection whose acknowledgement is not complete.
    pub(crate) open: BTreeSet<u16>,
    pub(crate) receive_maximum: usize,
    pub(crate) packet_bytes_max: usize,
    pub(crate) aliases_taken_max: u16,
    pub(crate) aliases_received: HashMap<u16, String>,
    pub(crate) aliases_max: u16,
    aliases_sent: HashMap<&'static str, u16>,
    pub(crate) seen: Vec<Seen>,
}

/// A message with its name: what goes into a PUBLISH.
pub struct Named<'a> {
    /// The message.
    pub message: &'a Message,
    /// Client, step and place in it.
    pub name: (usize, usize, usize),
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(id: String, role: Role, address: SocketAddr) -> Self {
        Self {
            id,
            version: role.version,
            asked_maximum: role.receive_maximum,
            address,
            connection: None,
            last_id: 0,
            awaited: BTreeMap::new(),
            is_connecting: false,
            is_pinging: false,
            is_draining: false,
            present: false,
            is_clean: true,
            receiving: BTreeSet::new(),
            unanswered: Vec::new(),
            holding: None,
            held: Vec::new(),
            open: BTreeSet::new(),
            receive_maximum: usize::MAX,
            packet_bytes_max: usize::MAX,
            aliases_taken_max: 0,
            aliases_received: HashMap::new(),
            aliases_max: 0,
            aliases_sent: HashMap::new(),
            seen: Vec::new(),
        }
    }

    /// Connects, and waits for the answer. If it is connected, that connection is taken over.
    pub fn connect(&mut self, options: &Options, name: (usize, usize, usize)) {
        let old = self.connection.take();
        let opened = Connection::open(self.address, self.version);
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => return self.seen.push(Seen::Wrong(format!("it takes no connection: {error}"))),
        };
        if let Err(broken) = self.send_connect(&mut connection, options, name) {
            self.seen.push(Seen::Wrong(broken.to_string()));
        }
        if let Some(old) = old {
            self.connection = Some(old);
            self.drain();
        }
        self.begin(options);
        self.connection = Some(connection);
        self.finish();
        let was_clean = std::mem::replace(&mut self.is_clean, options.clean);
        if options.clean || !self.goes_on() || self.version == Version::V31 && was_clean {
            self.receiving.clear();
            self.unanswered.clear();
        }
    }

    /// One SUBSCRIBE, and its answer.
    pub fn subscribe(&mut self, filters: &[Filter], identifier: Option<u32>) {
        let mut items = SubscribeItemsBuf::new();
        for filter in filters {
            items.push(filter.filter, filter.options).expect("the generator's filters are short");
        }
        let properties = properties(identifier.map(Property::SubscriptionId).as_slice());
        let packet_id = self.next_id();
        self.awaited.insert(packet_id.get(), PacketKind::SubAck);
        let properties = properties.as_properties();
        self.send(&[Packet::Subscribe(Subscribe { packet_id, properties, filters: items.as_items() })]);
        self.finish();
    }

    /// One UNSUBSCRIBE, and its answer.
    pub fn unsubscribe(&mut self, filters: &[&str]) {
        let mut items = UnsubscribeItemsBuf::new();
        for filter in filters {
            items.push(filter).expect("the generator's filters are short");
        }
        let packet_id = self.next_id();
        self.awaited.insert(packet_id.get(), PacketKind::UnsubAck);
        let (properties, filters) = (Properties::EMPTY, items.as_items());
        self.send(&[Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters })]);
        self.finish();
    }

    /// Publishes in one piece, and goes through all handshakes.
    pub fn publish(&mut self, messages: &[Named<'_>]) {
        self.send_publish(messages);
        self.finish();
    }

    /// Publishes, loses its connection at that point, and takes the handshake up on the next one.
    pub fn publish_again(&mut self, named: &Named<'_>, broken: Break, reconnect: &Options) {
        let ids = self.send_publish(std::slice::from_ref(named));
        if broken == Break::Released && named.message.qos == QoS::ExactlyOnce {
            // PUBREL leaves when PUBREC has come; then nothing is awaited but PUBCOMP.
            while self.awaited.values().any(|kind| *kind == PacketKind::PubRec) && self.step().is_ok() {}
        }
        // On its way or not: what comes now is lost, and no difference.
        let awaited = std::mem::take(&mut self.awaited);
        self.break_off();
        self.connect(reconnect, named.name);
        let Some(&Some(packet_id)) = ids.first() else { return };
        let goes_on = self.goes_on();
        let Some(kind) = awaited.get(&packet_id.get()).filter(|_| goes_on) else { return };
        self.awaited.insert(packet_id.get(), *kind);
        if *kind == PacketKind::PubComp {
            self.send(&[ack(PacketKind::PubRel, packet_id)]);
        } else {
            let (payload, properties) = content(named, self.version);
            let again = Publish {
                dup: true,
                qos: named.message.qos,
                retain: named.message.retain,
                topic: named.message.topic,
                packet_id: Some(packet_id),
                properties: properties.as_properties(),
                payload: &payload,
            };
            self.send(&[Packet::Publish(again)]);
        }
        self.finish();
    }

    /// From now on holds acknowledgements back.
    pub fn hold(&mut self, holding: Holding) {
        self.holding = Some(holding);
    }

    /// Acknowledges what was held back.
    pub fn release(&mut self) {
        self.holding = None;
        for (kind, packet_id, _) in std::mem::take(&mut self.held) {
            self.answer(kind, packet_id);
        }
    }

    /// Ends its connection.
    pub fn end(&mut self, ending: Ending) {
        let v5 = self.version == Version::V5;
        let (reason, expiry) = match ending {
            Ending::Abrupt => return self.break_off(),
            Ending::WithWill if !v5 => return self.break_off(),
            Ending::WithWill => (Reason::DisconnectWithWill, None),
            Ending::NormalExpiring(secs) if v5 => (Reason::Success, Some(Property::SessionExpiry(secs))),
            Ending::Normal | Ending::NormalExpiring(_) => (Reason::Success, None),
        };
        let properties = properties(expiry.as_slice());
        self.send(&[Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() })]);
        self.drain();
    }

    /// Asks for PINGRESP and takes all that comes before it. Tells whether there was something.
    pub fn sweep(&mut self) -> bool {
        if self.connection.is_none() {
            return false;
        }
        self.is_pinging = true;
        self.send(&[Packet::PingReq]);
        let before = self.seen.len();
        let packets = self.finish();
        packets > 1 || self.seen.len() > before
    }

    /// Whether its connection stands.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Takes what it saw since the last time.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    pub(crate) fn answer(&mut self, kind: PacketKind, packet_id: u16) {
        let Some(packet_id) = NonZeroU16::new(packet_id) else { return };
        if matches!(kind, PacketKind::PubAck | PacketKind::PubComp) {
            self.open.remove(&packet_id.get());
        }
        self.send(&[ack(kind, packet_id)]);
    }

    pub(crate) fn deadline() -> Instant {
        Instant::now() + ANSWER_SECS_MAX
    }

    /// What a new connection begins with.
    fn begin(&mut self, options: &Options) {
        self.forget_connection();
        self.is_connecting = true;
        self.present = false;
        let v5 = self.version == Version::V5;
        let of_v5 = |limit: Option<usize>| limit.filter(|_| v5).unwrap_or(usize::MAX);
        self.receive_maximum = of_v5(self.asked_maximum.map(usize::from));
        self.packet_bytes_max = of_v5(options.packet_bytes_max.map(|bytes| bytes as usize));
        self.aliases_taken_max = options.aliases_max.filter(|_| v5).unwrap_or(0);
    }

    /// What ends with a connection. What was not acknowledged is owed by the session.
    pub(crate) fn forget_connection(&mut self) {
        self.holding = None;
        let held = std::mem::take(&mut self.held);
        let unanswered = held.into_iter().filter(|(kind, ..)| *kind == PacketKind::PubAck);
        self.unanswered.extend(unanswered.map(|(_, packet_id, payload)| (packet_id, payload)));
        self.open.clear();
        self.awaited.clear();
        self.is_connecting = false;
        self.is_pinging = false;
        self.aliases_received.clear();
        self.aliases_sent.clear();
        self.aliases_max = 0;
    }

    fn send_connect(
        &self,
        connection: &mut Connection,
        options: &Options,
        name: (usize, usize, usize),
    ) -> Result<(), Broken> {
        let expiry = (options.expiry_secs > 0).then_some(Property::SessionExpiry(options.expiry_secs));
        let mut all: Vec<Property<'static>> = expiry.into_iter().collect();
        all.extend(self.asked_maximum.map(Property::ReceiveMaximum));
        all.extend(options.packet_bytes_max.map(Property::MaximumPacketSize));
        all.extend(options.aliases_max.map(Property::TopicAliasMaximum));
        let v5 = self.version == Version::V5;
        let own = properties(if v5 { &all } else { &[] });
        let will = options.will.as_ref();
        let delay = will.filter(|will| v5 && will.delay_secs > 0);
        let (will_payload, will_properties) = match will {
            Some(will) => content(&Named { message: &will.message, name }, self.version),
            None => (Vec::new(), PropertiesBuf::new()),
        };
        let mut will_properties = will_properties;
        if let Some(will) = delay {
            push(&mut will_properties, &Property::WillDelay(will.delay_secs));
        }
        let will = will.map(|will| Will {
            qos: will.message.qos,
            retain: will.message.retain,
            topic: TopicName::new(will.message.topic).expect("the generator's topics are names"),
            payload: &will_payload,
            properties: will_properties.as_properties(),
        });
        connection.send(&[Packet::Connect(Connect {
            version: self.version,
            clean_start: options.clean,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id: &self.id,
            will,
            user_name: None,
            password: None,
            properties: own.as_properties(),
        })])
    }

    /// Gives the packet identifiers.
    fn send_publish(&mut self, messages: &[Named<'_>]) -> Vec<Option<NonZeroU16>> {
        let mut parts = Vec::new();
        for named in messages {
            let (payload, mut properties) = content(named, self.version);
            let mut topic = named.message.topic;
            if named.message.by_alias && self.version == Version::V5 {
                topic = self.by_alias(topic, &mut properties);
            }
            let packet_id = (named.message.qos != QoS::AtMostOnce).then(|| self.next_id());
            if let Some(packet_id) = packet_id {
                let one = named.message.qos == QoS::AtLeastOnce;
                let kind = if one { PacketKind::PubAck } else { PacketKind::PubRec };
                self.awaited.insert(packet_id.get(), kind);
            }
            parts.push((named, topic, payload, properties, packet_id));
        }
        let packets: Vec<Packet<'_>> = parts
            .iter()
            .map(|(named, topic, payload, properties, packet_id)| {
                Packet::Publish(Publish {
                    dup: false,
                    qos: named.message.qos,
                    retain: named.message.retain,
                    topic,
                    packet_id: *packet_id,
                    properties: properties.as_properties(),
                    payload,
                })
            })
            .collect();
        self.send(&packets);
        parts.iter().map(|part| part.4).collect()
    }

    /// The topic to send: none once the alias stands for it.
    fn by_alias(&mut self, topic: &'static str, properties: &mut PropertiesBuf) -> &'static str {
        if let Some(alias) = self.aliases_sent.get(topic) {
            push(properties, &Property::TopicAlias(*alias));
            return "";
        }
        let next = self.aliases_sent.len() as u16 + 1;
        if next <= self.aliases_max {
            self.aliases_sent.insert(topic, next);
            push(properties, &Property::TopicAlias(next));
        }
        topic
    }

    /// Its connection breaks: it sends nothing any more, and sees what had been sent to it.
    fn break_off(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.end_sending();
        }
        self.drain();
    }

    fn send(&mut self, packets: &[Packet<'_>]) {
        let Some(connection) = &mut self.connection else { return };
        match connection.send(packets) {
            // That it is closed is seen where it is read.
            Ok(()) | Err(Broken::Closed) => {}
            Err(broken) => self.seen.push(Seen::Wrong(broken.to_string())),
        }
    }

    fn next_id(&mut self) -> NonZeroU16 {
        self.last_id = self.last_id.wrapping_add(1);
        NonZeroU16::new(self.last_id).unwrap_or(NonZeroU16::MIN)
    }
}

/// Payload and properties of a message.
fn content(named: &Named<'_>, version: Version) -> (Vec<u8>, PropertiesBuf) {
    let (client, step, place) = named.name;
    let origin = Origin { client, step, place, qos: named.message.qos as u8 };
    let v5 = version == Version::V5;
    let properties = properties(if v5 { &named.message.properties } else { &[] });
    (payload(origin, named.message.payload_bytes), properties)
}

fn properties(all: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    all.iter().for_each(|property| push(&mut properties, property));
    properties
}

fn push(properties: &mut PropertiesBuf, property: &Property<'_>) {
    properties.push(property).expect("the generator's properties are valid");
}

fn ack(kind: PacketKind, packet_id: NonZeroU16) -> Packet<'static> {
    let ack = Ack { packet_id, reason: Reason::Success, properties: Properties::EMPTY };
    match kind {
        PacketKind::PubAck => Packet::PubAck(ack),
        PacketKind::PubRec => Packet::PubRec(ack),
        PacketKind::PubRel => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }
}
