//! A conforming client of a session: what it remembers between its connections, as MQTT asks of it, both as a reader and
//! as a publisher.

use crate::client::{self, Got, publish};
use crate::world::World;
use firehose_auth::Identity;
use firehose_mqtt::{Ack, Packet, PacketKind, Property, Reason, Version};
use std::collections::{BTreeSet, VecDeque};

/// How far a message got that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Publish,
    Release,
}

#[derive(Clone, Debug)]
struct Sending {
    id: u16,
    payload: String,
    qos: u8,
    phase: Phase,
}

/// See the module.
pub struct SessionClient {
    pub name: String,
    /// Filters and their QoS, subscribed to once.
    filters: Vec<(String, u8)>,
    /// Its connection, if it has one.
    pub connection: Option<usize>,
    connections: usize,
    welcome: bool,
    ever: bool,
    pub subscribed: bool,
    receive_max: u16,
    /// QoS 2 messages that it got and whose PUBREL has not come.
    received: BTreeSet<u16>,
    /// What it was given: on which connection, the QoS, the payload.
    pub got: Vec<(usize, u8, String)>,
    /// Of the first so many the power has failed since: what was not QoS 2 may stand elsewhere in the log now.
    pub before_power_loss: usize,
    /// Acknowledgements that it has not sent.
    acks: VecDeque<Vec<u8>>,
    pub holds_acks: bool,
    sending: Vec<Sending>,
    next_id: u16,
    /// QoS 1 and 2 messages that were sent to it on this connection and that it has not acknowledged to the end.
    unacknowledged: usize,
}

impl SessionClient {
    pub fn new(name: &str, filters: &[(&str, u8)], receive_max: u16) -> SessionClient {
        SessionClient {
            name: name.into(),
            filters: filters.iter().map(|(filter, qos)| ((*filter).to_owned(), *qos)).collect(),
            connection: None,
            connections: 0,
            welcome: false,
            ever: false,
            subscribed: false,
            receive_max,
            received: BTreeSet::new(),
            got: Vec::new(),
            before_power_loss: 0,
            acks: VecDeque::new(),
            holds_acks: false,
            sending: Vec::new(),
            next_id: 0,
            unacknowledged: 0,
        }
    }

    /// Connects, unless it is; a connection that it has is taken over if `again`.
    pub fn connect(&mut self, world: &mut World, version: Version, again: bool) {
        if self.connection.is_some() && !again {
            return;
        }
        self.lose();
        self.connections += 1;
        let list = [Property::SessionExpiry(100_000), Property::ReceiveMaximum(self.receive_max)];
        let list = if version == Version::V5 { &list[..] } else { &[] };
        let packet = client::start_packet(version, false, &self.name, list);
        self.connection = Some(world.arrive(packet, Identity::anonymous(), &self.name, None));
    }

    /// Its connection is gone.
    pub fn lose(&mut self) {
        self.connection = None;
        self.welcome = false;
        self.acks.clear();
        self.unacknowledged = 0;
    }

    /// Publishes, if it may now.
    pub fn publish(&mut self, world: &mut World, payload: &str, qos: u8) {
        let id = self.next_id % 7 + 1;
        let Some(client) = self.connection.filter(|_| self.welcome) else { return };
        if self.sending.iter().any(|it| it.id == id) {
            return;
        }
        self.next_id += 1;
        self.sending.push(Sending { id, payload: payload.into(), qos, phase: Phase::Publish });
        world.send_packet(client, &Packet::Publish(publish("s", payload, qos, id)));
    }

    /// Whether everything that it published is through.
    pub fn is_through(&self) -> bool {
        self.sending.is_empty()
    }

    /// Takes what came.
    pub fn listen(&mut self, world: &mut World) {
        let Some(client) = self.connection else { return };
        for packet in world.heard(client) {
            self.look_at(world, client, packet);
        }
        if !self.holds_acks {
            self.release_acks(world, usize::MAX);
        }
        if world.clients[client].closed {
            self.lose();
        }
    }

    /// Sends so many acknowledgements, in order.
    pub fn release_acks(&mut self, world: &mut World, count: usize) {
        let Some(client) = self.connection else { return };
        let bytes: Vec<u8> = self.acks.drain(..count.min(self.acks.len())).flatten().collect();
        if !bytes.is_empty() {
            world.send(client, &bytes);
        }
    }

    fn look_at(&mut self, world: &mut World, client: usize, packet: Got) {
        let version = world.clients[client].version;
        let id = packet.id;
        match packet.kind {
            PacketKind::ConnAck => self.welcomed(world, client, &packet),
            PacketKind::SubAck => self.subscribed = true,
            PacketKind::Publish => {
                if packet.qos > 0 && version == Version::V5 {
                    self.unacknowledged += 1;
                    assert!(self.unacknowledged <= usize::from(self.receive_max), "above Receive Maximum");
                }
                if packet.qos != 2 || self.received.insert(id) {
                    self.got.push((self.connections, packet.qos, packet.payload));
                } else {
                    assert!(packet.dup, "a packet id that is in use");
                }
                match packet.qos {
                    1 => self.acknowledge(Packet::PubAck, id, version, true),
                    2 => self.acknowledge(Packet::PubRec, id, version, false),
                    _ => {}
                }
            }
            PacketKind::PubRel => {
                self.received.remove(&id);
                self.acknowledge(Packet::PubComp, id, version, true);
            }
            PacketKind::PubAck => self.sending.retain(|it| it.id != id),
            PacketKind::PubRec => {
                assert_eq!(packet.reason(), Reason::Success);
                let sending = self.sending.iter_mut().find(|it| it.id == id).expect("it sends that");
                sending.phase = Phase::Release;
                let bytes = client::ack(Packet::PubRel, id, version);
                world.send(client, &bytes);
            }
            PacketKind::PubComp => self.sending.retain(|it| it.id != id),
            PacketKind::Disconnect => {}
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(
        &mut self,
        make: fn(Ack<'static>) -> Packet<'static>,
        id: u16,
        version: Version,
        ends: bool,
    ) {
        self.acks.push_back(client::ack(make, id, version));
        if ends {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
    }

    /// What a client sends when its session goes on: what it has not got an answer for, in order.
    fn welcomed(&mut self, world: &mut World, client: usize, connack: &Got) {
        assert_eq!(connack.reason(), Reason::Success);
        let version = world.clients[client].version;
        assert!(
            !self.subscribed || version == Version::V31 || connack.session_present,
            "{} is gone",
            self.name
        );
        if !connack.session_present && version != Version::V31 && !self.ever {
            self.received.clear();
        }
        (self.welcome, self.ever) = (true, true);
        if !self.subscribed && !self.filters.is_empty() {
            let filters: Vec<_> =
                self.filters.iter().map(|(filter, qos)| (filter.as_str(), client::options(*qos))).collect();
            world.subscribe(client, &filters, &[]);
        }
        for it in &self.sending {
            match it.phase {
                Phase::Publish => {
                    let mut packet = publish("s", &it.payload, it.qos, it.id);
                    packet.dup = true;
                    world.send_packet(client, &Packet::Publish(packet));
                }
                Phase::Release => {
                    let bytes = client::ack(Packet::PubRel, it.id, version);
                    world.send(client, &bytes);
                }
            }
        }
    }
}
