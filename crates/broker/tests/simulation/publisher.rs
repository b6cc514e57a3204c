//! What a client publishes: messages in flight, which it keeps and sends again, and what became of them.

use crate::ledger::{Key, Ledger, Published};
use crate::packets::{self, Got, Outgoing};
use firehose_mqtt::{AckKind, Version};
use std::collections::VecDeque;

/// A message in flight.
#[derive(Clone, Debug)]
struct InFlight {
    packet_id: u16,
    key: Key,
    message: Outgoing,
    /// PUBREC came: waits for PUBCOMP.
    released: bool,
    /// It is sent for the first time on this session.
    first: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    client: u32,
    version: Version,
    next_number: u32,
    next_id: u16,
    flying: VecDeque<InFlight>,
}

impl Publisher {
    pub fn new(client: u32, version: Version) -> Publisher {
        Publisher { client, version, next_number: 1, next_id: 1, flying: VecDeque::new() }
    }

    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// What waits for an answer, for a message about it.
    pub fn waiting(&self) -> String {
        format!("{:?}", self.flying)
    }

    /// A number for the next message.
    pub fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// A packet id that is free.
    pub fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = if id == 200 { 1 } else { id + 1 };
            if self.flying.iter().all(|it| it.packet_id != id) {
                return id;
            }
        }
    }

    /// Publishes; gives the bytes. `text` follows the message's name in the payload; a message without payload clears
    /// what is retained.
    pub fn publish(&mut self, mut message: Outgoing, text: Option<&str>, ledger: &mut Ledger) -> Vec<u8> {
        let key = Key { kind: 'm', publisher: self.client, number: self.number(), attempt: 0 };
        name(&mut message, &key, text);
        let published = Published { qos: message.qos, ..Published::default() };
        ledger.published.insert(key.message(), published);
        if message.qos == 0 {
            return message.bytes(self.version, 0, false);
        }
        let packet_id = self.packet_id();
        let bytes = message.bytes(self.version, packet_id, false);
        self.flying.push_back(InFlight { packet_id, key, message, released: false, first: true });
        bytes
    }

    /// The session goes on: everything in flight again, in order [MQTT-4.4.0-1].
    pub fn send_again(&mut self, ledger: &mut Ledger) -> Vec<u8> {
        let mut bytes = Vec::new();
        for it in &mut self.flying {
            it.first = false;
            if it.released {
                bytes.extend(packets::ack(AckKind::PubRel, it.packet_id, self.version));
                continue;
            }
            it.transmit_as_next(ledger);
            bytes.extend(it.message.bytes(self.version, it.packet_id, true));
        }
        bytes
    }

    /// The session may be another one, unheard.
    pub fn doubt(&self, ledger: &mut Ledger) {
        for it in &self.flying {
            if let Some(published) = ledger.published.get_mut(&it.key.message()) {
                published.is_doubtful = true;
            }
        }
    }

    /// The session is gone, and with it what was in flight: QoS 1 messages are published anew, QoS 2 ones are given
    /// up, since nobody knows whether they arrived.
    pub fn start_anew(&mut self, ledger: &mut Ledger) -> Vec<u8> {
        self.flying.retain(|it| it.message.qos == 1);
        let mut bytes = Vec::new();
        for it in &mut self.flying {
            it.first = false;
            it.transmit_as_next(ledger);
            bytes.extend(it.message.bytes(self.version, it.packet_id, false));
        }
        bytes
    }

    /// PUBACK, PUBREC or PUBCOMP; gives the answer.
    pub fn answered(&mut self, got: &Got, kind: AckKind, ledger: &mut Ledger) -> Vec<u8> {
        let Some(place) = self.flying.iter().position(|it| it.packet_id == got.id) else {
            panic!("an answer to nothing: {got:?}, in flight {:?}", self.flying);
        };
        let it = &mut self.flying[place];
        let stage = match kind {
            AckKind::PubAck => it.message.qos == 1,
            AckKind::PubRec => it.message.qos == 2,
            _ => it.message.qos == 2 && it.released,
        };
        assert!(stage, "{got:?} does not answer {it:?}");
        let message = it.key.message();
        if kind == AckKind::PubComp {
            self.flying.remove(place);
            return Vec::new();
        }
        let (stored, has_failed) = (ledger.is_stored(message), ledger.has_failed);
        let published = ledger.published.get_mut(&message).expect("it was published");
        if got.reason.is_error() {
            published.refused |= it.first;
            assert!(!it.first || !stored || has_failed, "{:?} was refused, and is stored: {got:?}", it.key);
            self.flying.remove(place);
            return Vec::new();
        }
        // What is delivered only has no place in the log; a clear without a name cannot be found there.
        let is_logged = !it.message.topic.starts_with("live/");
        let is_named = !it.message.payload.is_empty() || self.version == Version::V5;
        // What a bit has damaged was stored; sent again, a QoS 2 message is known by its packet id.
        let was_stored = stored || published.is_damaged;
        assert!(was_stored || !is_logged || !is_named, "{:?} is acknowledged, and not stored", it.key);
        published.acknowledged |= is_logged && is_named;
        if kind == AckKind::PubAck {
            self.flying.remove(place);
            return Vec::new();
        }
        it.released = true;
        packets::ack(AckKind::PubRel, got.id, self.version)
    }
}

impl InFlight {
    fn transmit_as_next(&mut self, ledger: &mut Ledger) {
        self.key.attempt += 1;
        if let Some(published) = ledger.published.get_mut(&self.key.message()) {
            published.attempts = self.key.attempt;
        }
        let text = match self.message.payload.is_empty() {
            true => None,
            false => {
                let text = String::from_utf8_lossy(&self.message.payload);
                text.split_once(';').map(|(_, text)| text.to_owned())
            }
        };
        name(&mut self.message, &self.key, text.as_deref());
    }
}

fn name(message: &mut Outgoing, key: &Key, text: Option<&str>) {
    match text {
        Some(text) => message.payload = format!("{}{text}", key.text()).into_bytes(),
        None => message.name = Some(key.text()),
    }
}
