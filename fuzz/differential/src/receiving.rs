//! What a client does with what comes.

use firehose_mqtt::{PacketKind, Version};

use crate::{
    client::Client,
    connection::Broken,
    incoming::{Arrival, Incoming},
    seen::Seen,
    session::Holding,
};

impl Client {
    /// Takes what comes until nothing is awaited any more, or the broker does not go on. Gives how many packets came.
    pub(crate) fn finish(&mut self) -> usize {
        let mut packets = 0;
        while self.is_connecting || self.is_pinging || !self.awaited.is_empty() {
            if self.step().is_err() {
                break;
            }
            packets += 1;
        }
        packets
    }

    /// Takes what comes until the broker has closed the connection; nothing is answered any more.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.is_connecting = false;
        self.is_pinging = false;
        while self.connection.is_some() && self.step().is_ok() {}
        self.is_draining = false;
        self.lose_connection();
    }

    /// Takes the next packet. An error, written down, when none comes.
    pub(crate) fn step(&mut self) -> Result<(), ()> {
        let Some(connection) = &mut self.connection else {
            self.lose_connection();
            return Err(());
        };
        match connection.wait(Self::deadline()) {
            Ok(bytes) => {
                let incoming = connection.packet().map(Incoming::from);
                connection.take(bytes);
                incoming.into_iter().for_each(|incoming| self.take(incoming, bytes));
                Ok(())
            }
            Err(broken) => {
                self.write_down(&broken);
                self.lose_connection();
                Err(())
            }
        }
    }

    fn write_down(&mut self, broken: &Broken) {
        self.seen.push(match broken {
            Broken::Closed => Seen::Closed,
            Broken::Silent if self.is_draining => Seen::Wrong("the connection is not closed".into()),
            Broken::Silent => Seen::Wrong(format!("no answer; awaited: {:?}", self.awaited)),
            broken => Seen::Wrong(broken.to_string()),
        });
    }

    fn lose_connection(&mut self) {
        self.connection = None;
        self.forget_connection();
    }

    fn take(&mut self, incoming: Incoming, bytes: usize) {
        if bytes > self.packet_bytes_max {
            self.wrong(format!("a packet of {bytes} bytes, more than Maximum Packet Size [MQTT-3.1.2-24]"));
        }
        match incoming {
            Incoming::ConnAck { present, reason, aliases_max, properties } => {
                self.is_connecting = false;
                self.present = present;
                self.aliases_max = aliases_max;
                self.seen.push(Seen::Connected { present, reason, properties });
            }
            Incoming::Publish(arrival) => self.take_publish(arrival),
            Incoming::Ack { kind: PacketKind::PubRel, packet_id, .. } => self.take_pubrel(packet_id),
            Incoming::Ack { kind, packet_id, reason } => self.take_ack(kind, packet_id, reason),
            Incoming::SubAck { packet_id, reasons } => {
                self.take_answer(PacketKind::SubAck, packet_id, Seen::Subscribed(reasons));
            }
            Incoming::UnsubAck { packet_id, reasons } => {
                self.take_answer(PacketKind::UnsubAck, packet_id, Seen::Unsubscribed(reasons));
            }
            Incoming::PingResp => self.is_pinging = false,
            Incoming::Disconnect(reason) => self.seen.push(Seen::Told(reason)),
            Incoming::Other(kind) => self.wrong(format!("{kind} from a server")),
        }
    }

    /// The acknowledgement of what it published: at QoS 2 the handshake goes on.
    fn take_ack(&mut self, kind: PacketKind, packet_id: u16, reason: u8) {
        self.take_answer(kind, packet_id, Seen::Acknowledged { kind, packet_id, reason });
        if kind == PacketKind::PubRec && reason < 0x80 && !self.is_draining {
            self.awaited.insert(packet_id, PacketKind::PubComp);
            self.answer(PacketKind::PubRel, packet_id);
        }
    }

    fn take_answer(&mut self, kind: PacketKind, packet_id: u16, seen: Seen) {
        if self.awaited.get(&packet_id) == Some(&kind) {
            self.awaited.remove(&packet_id);
            self.seen.push(seen);
        } else if !self.is_draining {
            self.wrong(format!("{kind} {packet_id}, which nothing asked for"));
        }
    }

    fn take_publish(&mut self, mut arrival: Arrival) {
        if let Some(alias) = arrival.alias {
            if alias > self.aliases_taken_max {
                self.wrong(format!("topic alias {alias}, more than Topic Alias Maximum [MQTT-3.1.2-26]"));
            }
            let topic = &mut arrival.delivery.topic;
            if topic.is_empty() {
                *topic = self.aliases_received.get(&alias).cloned().unwrap_or_default();
            } else {
                self.aliases_received.insert(alias, topic.clone());
            }
        }
        match (arrival.delivery.qos, arrival.packet_id) {
            (1, Some(packet_id)) => self.take_once_or_more(packet_id, arrival),
            (2, Some(packet_id)) => self.take_once(packet_id, arrival),
            _ => self.seen.push(Seen::Delivered(arrival.delivery)),
        }
    }

    fn take_once_or_more(&mut self, packet_id: u16, arrival: Arrival) {
        let Arrival { delivery, dup, .. } = arrival;
        self.open(packet_id);
        let is_it = |(id, payload): &(u16, Vec<u8>)| *id == packet_id && *payload == delivery.payload;
        let again = self.unanswered.iter().position(is_it);
        if self.is_holding_all() || self.holding.is_some() {
            self.held.push((PacketKind::PubAck, packet_id, delivery.payload.clone()));
        } else {
            self.answer(PacketKind::PubAck, packet_id);
        }
        match again {
            Some(at) => {
                self.unanswered.remove(at);
                self.check_dup(dup, packet_id);
            }
            None => self.seen.push(Seen::Delivered(delivery)),
        }
    }

    fn take_once(&mut self, packet_id: u16, arrival: Arrival) {
        self.open(packet_id);
        if self.receiving.insert(packet_id) {
            self.seen.push(Seen::Delivered(arrival.delivery));
        } else {
            self.check_dup(arrival.dup, packet_id);
        }
        if self.is_holding_all() {
            self.held.push((PacketKind::PubRec, packet_id, Vec::new()));
        } else {
            self.answer(PacketKind::PubRec, packet_id);
        }
    }

    fn take_pubrel(&mut self, packet_id: u16) {
        self.receiving.remove(&packet_id);
        if self.is_draining || self.holding.is_some() {
            self.held.push((PacketKind::PubComp, packet_id, Vec::new()));
        } else {
            self.answer(PacketKind::PubComp, packet_id);
        }
    }

    /// A message of QoS 1 or 2 is on its way until its handshake is complete.
    fn open(&mut self, packet_id: u16) {
        if !self.open.insert(packet_id) {
            self.wrong(format!(
                "packet identifier {packet_id} twice on one connection [MQTT-4.4.0-1, 2.2.1-4]"
            ));
        }
        if self.open.len() > self.receive_maximum {
            self.seen.push(Seen::TooMany(self.open.len()));
        }
    }

    fn check_dup(&mut self, dup: bool, packet_id: u16) {
        if !dup {
            self.wrong(format!("{packet_id} is sent again without DUP [MQTT-3.3.1-1]"));
        }
    }

    fn is_holding_all(&self) -> bool {
        self.is_draining || self.holding == Some(Holding::All)
    }

    /// 3.1 tells nobody whether the session is an old one.
    pub(crate) fn goes_on(&self) -> bool {
        self.present || self.version == Version::V31
    }

    fn wrong(&mut self, what: String) {
        self.seen.push(Seen::Wrong(what));
    }
}
