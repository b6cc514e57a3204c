//! The seam between replay and live, under load: whatever happens in whatever order, each subscription gets its events
//! without a gap, without a duplicate and in order, and memory stays within its limits.

use crate::client::{Got, options, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_log::{Cursor, Offset, Wait};
use firehose_mqtt::{PacketKind, Property, Version};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::HashMap;

const TOPICS: usize = 3;
const PARKED_MAX: usize = 3_000;
const CHUNK: usize = 600;
/// No batch of these tests is larger, nor is what a turn encodes of it.
const BATCH_MAX: usize = 4_000;

#[derive(Clone, Debug)]
enum From {
    Now,
    Earliest,
    /// `$replay` from the cursor of an offset: this share (of 256) of the head.
    Cursor(u8),
    /// `since`, from the same: MQTT 5 only.
    Since(u8),
}

#[derive(Clone, Debug)]
enum Op {
    Publish { publisher: usize, topic: usize, qos: u8, count: usize, size: usize },
    Exchange(usize),
    Flush(usize),
    Drain(usize, usize),
    Open(usize),
    Shut(usize),
    Answer(usize),
    HoldAcks(usize),
    Acks(usize, usize),
    Subscribe { reader: usize, topic: usize, qos: u8, from: From },
    Unsubscribe { reader: usize, topic: usize },
}

const READERS: usize = 5;

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => Just(From::Now),
        2 => Just(From::Earliest),
        2 => any::<u8>().prop_map(From::Cursor),
        2 => any::<u8>().prop_map(From::Since),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..2usize, 0..TOPICS, 0..3u8, 1..8usize, 1..150usize).prop_map(
            |(publisher, topic, qos, count, size)| Op::Publish { publisher, topic, qos, count, size }
        ),
        8 => (0..3usize).prop_map(Op::Exchange),
        6 => (0..3usize).prop_map(Op::Flush),
        6 => (0..READERS, 1..500usize).prop_map(|(reader, bytes)| Op::Drain(reader, bytes)),
        1 => (0..READERS).prop_map(Op::Open),
        2 => (0..READERS).prop_map(Op::Shut),
        6 => (0..8usize).prop_map(Op::Answer),
        1 => (0..READERS).prop_map(Op::HoldAcks),
        3 => (0..READERS, 1..6usize).prop_map(|(reader, count)| Op::Acks(reader, count)),
        4 => (0..READERS, 0..TOPICS, 0..3u8, from()).prop_map(
            |(reader, topic, qos, from)| Op::Subscribe { reader, topic, qos, from }
        ),
        2 => (0..READERS, 0..TOPICS).prop_map(|(reader, topic)| Op::Unsubscribe { reader, topic }),
    ]
}

/// What a subscription has to get, as far as the reader can know it.
#[derive(Clone, Debug)]
struct Expected {
    /// As the client wrote it.
    filter: String,
    /// The first offset: exactly, or at least and at most.
    from: (Offset, Offset),
    ended: bool,
}

struct Bed {
    world: World,
    publishers: Vec<usize>,
    readers: Vec<usize>,
    /// What each reader was sent.
    got: Vec<Vec<Got>>,
    /// Of each reader and topic: its one subscription, in the order of times.
    expected: HashMap<(usize, usize), Expected>,
    /// SUBACKs that have not come: (reader, topic).
    awaited: Vec<Vec<usize>>,
    sent: u32,
    packet_id: u16,
}

impl Bed {
    fn new(shards: usize, tail_bytes: usize, delays_reads: bool, cold: bool) -> Bed {
        let limits = Limits {
            outbox_bytes_max: 800,
            parked_bytes_max: PARKED_MAX,
            replay_chunk_bytes: CHUNK,
            mailbox_bytes_max: 1_500,
            unplaced_bytes_max: 2_000,
            inflight_max: 100,
            ..Limits::default()
        };
        let setup = Setup { shards, limits, tail_bytes, segment_bytes: 8 << 10, ..Setup::default() };
        let mut world = World::new(setup);
        world.disk.set_cold(cold);
        let publishers =
            (0..2).map(|number| world.client(Version::V311, &format!("publisher {number}"))).collect();
        let mut readers = Vec::new();
        for number in 0..READERS {
            let name = format!("reader {number}");
            readers.push(if number < 3 {
                let window = Property::ReceiveMaximum(number as u16 + 2);
                world.client_with(
                    Version::V5,
                    &name,
                    &[window, Property::UserProperty("firehose-cursor", "on")],
                )
            } else {
                world.client(Version::V311, &name)
            });
        }
        world.delays_reads = delays_reads;
        for client in 0..world.clients.len() {
            world.clients[client].acknowledges = true;
        }
        let (got, awaited) = (vec![Vec::new(); READERS], vec![Vec::new(); READERS]);
        Bed { world, publishers, readers, got, expected: HashMap::new(), awaited, sent: 0, packet_id: 0 }
    }

    fn version(&self, reader: usize) -> Version {
        self.world.clients[self.readers[reader]].version
    }

    fn step(&mut self, op: &Op) {
        let shards = self.world.sequencer.shards();
        match *op {
            Op::Publish { publisher, topic, qos, count, size } => {
                for _ in 0..count {
                    self.sent += 1;
                    self.packet_id = self.packet_id % 60_000 + 1;
                    let payload = format!("{}-{}", self.sent, "x".repeat(size));
                    let client = self.publishers[publisher];
                    self.world.publish(client, &format!("t/{topic}"), &payload, qos, self.packet_id);
                }
            }
            Op::Exchange(host) => {
                self.world.exchange(host % shards);
            }
            Op::Flush(host) => {
                self.world.flush(host % shards);
            }
            Op::Drain(reader, bytes) => {
                let client = self.readers[reader];
                if self.world.clients[client].room < usize::MAX {
                    self.world.drain_wire(client, bytes);
                }
            }
            Op::Open(reader) => self.world.drain_wire(self.readers[reader], usize::MAX),
            Op::Shut(reader) => self.world.clients[self.readers[reader]].room = 0,
            Op::Answer(place) => {
                let waiting = self.world.questions.len();
                if waiting > 0 {
                    self.world.answer(place % waiting);
                }
            }
            Op::HoldAcks(reader) => self.world.clients[self.readers[reader]].holds_acks = true,
            Op::Acks(reader, count) => self.world.release_acks(self.readers[reader], count),
            Op::Subscribe { reader, topic, qos, ref from } => self.subscribe(reader, topic, qos, from),
            Op::Unsubscribe { reader, topic } => self.unsubscribe(reader, topic),
        }
        self.listen();
        for host in 0..shards {
            let queued = self.world.shard(host).queued_bytes();
            assert!(queued <= 2 * PARKED_MAX + CHUNK + BATCH_MAX, "{queued} bytes are queued");
        }
    }

    /// A reader subscribes to a topic once in its life: so that what it has to get is known.
    fn subscribe(&mut self, reader: usize, topic: usize, qos: u8, from: &From) {
        if self.expected.contains_key(&(reader, topic)) {
            return;
        }
        let (head, oldest) = (self.world.read.head(), 1);
        let v5 = self.version(reader) == Version::V5;
        let filter = format!("t/{topic}");
        let cursor = |share: u8| {
            let offset = head * Offset::from(share) / 256;
            let (log_id, epoch) = (self.world.read.log_id(), self.world.read.epoch());
            (offset, Cursor { log_id, epoch, offset, recorded_secs: 0 }.encode())
        };
        let (written, since, exactly) = match from {
            From::Now => (filter, None, None),
            From::Earliest => (format!("$replay/earliest/{filter}"), None, Some(oldest)),
            From::Since(share) if v5 => {
                let (offset, cursor) = cursor(*share);
                (filter, Some(cursor), Some(offset + 1))
            }
            From::Cursor(share) | From::Since(share) => {
                let (offset, cursor) = cursor(*share);
                (format!("$replay/{cursor}/{filter}"), None, Some(offset + 1))
            }
        };
        let client = self.readers[reader];
        let since = since.as_deref().map(|since| Property::UserProperty("since", since));
        self.world.subscribe(client, &[(&written, options(qos))], since.as_slice());
        let from = exactly.map_or((head + 1, Offset::MAX), |exactly| (exactly, exactly));
        self.expected.insert((reader, topic), Expected { filter: written, from, ended: false });
        self.awaited[reader].push(topic);
    }

    fn unsubscribe(&mut self, reader: usize, topic: usize) {
        let Some(expected) = self.expected.get_mut(&(reader, topic)) else { return };
        expected.ended = true;
        let filter = expected.filter.clone();
        let packet = unsubscribe_packet(self.version(reader), 10, &[&filter]);
        self.world.send(self.readers[reader], &packet);
    }

    /// Takes what came over the wires, without a turn of any shard.
    fn listen(&mut self) {
        for reader in 0..READERS {
            let packets = self.world.heard(self.readers[reader]);
            for packet in packets {
                if packet.kind == PacketKind::SubAck {
                    self.granted(reader, &packet);
                }
                self.got[reader].push(packet);
            }
        }
    }

    /// SUBACKs come in the order of the SUBSCRIBEs; on MQTT 5 they say where the subscription begins.
    fn granted(&mut self, reader: usize, suback: &Got) {
        assert!((suback.reason() as u8) < 3, "granted: {suback:?}");
        let topic = self.awaited[reader].remove(0);
        let head = self.world.read.head();
        let expected = self.expected.get_mut(&(reader, topic)).expect("subscribed");
        if expected.from.1 == Offset::MAX {
            expected.from.1 = head + 1;
            if let Some(cursor) = suback.user("firehose-cursor") {
                let first = Cursor::parse(cursor).expect("a cursor").offset + 1;
                expected.from = (first, first);
            }
        }
    }

    fn check(mut self) {
        self.world.let_go();
        self.listen();
        for (number, client) in self.world.clients.iter().enumerate() {
            assert!(!client.closed, "client {number} was closed");
            assert!(!client.is_paused(), "client {number} is not read any more");
        }
        let truth = self.truth();
        for ((reader, topic), expected) in &self.expected {
            let name = format!("t/{topic}");
            let of_topic: Vec<&(Offset, String, String)> =
                truth.iter().filter(|(_, known, _)| *known == name).collect();
            let got: Vec<&Got> = self.got[*reader]
                .iter()
                .filter(|it| it.kind == PacketKind::Publish && it.topic == name)
                .collect();
            let who = format!("reader {reader}, {expected:?}");
            let (low, high) = expected.from;
            let first = match got.first() {
                None => of_topic.iter().position(|it| it.0 >= high).unwrap_or(of_topic.len()),
                Some(got) => of_topic.iter().position(|it| it.2 == got.payload).expect("a logged event"),
            };
            if let Some((offset, ..)) = of_topic.get(first).filter(|_| !got.is_empty()) {
                assert!(*offset >= low, "{who}: begins at {offset}");
                let before = first.checked_sub(1).map(|before| of_topic[before].0);
                assert!(before.is_none_or(|before| before < high), "{who}: begins late, at {offset}");
            }
            let wanted = &of_topic[first..];
            for (index, got) in got.iter().enumerate() {
                let (offset, _, payload) =
                    wanted.get(index).unwrap_or_else(|| panic!("{who}: {got:?} is extra"));
                assert_eq!(&got.payload, payload, "{who}: number {index} is another one");
                if let Some(cursor) = got.user("firehose-cursor") {
                    assert_eq!(Cursor::parse(cursor).expect("a cursor").offset, *offset);
                }
                assert_eq!(got.user("firehose-gap"), None);
            }
            if !expected.ended {
                assert_eq!(got.len(), wanted.len(), "{who}: does not get to the end");
            }
        }
        for host in 0..self.world.sequencer.shards() {
            assert_eq!(self.world.shard(host).queued_bytes(), 0, "nothing stays queued");
            assert_eq!(self.world.stats(host).messages_dropped.get(), 0);
        }
    }

    /// What the log has: offset, topic, payload.
    fn truth(&self) -> Vec<(Offset, String, String)> {
        let mut truth = Vec::new();
        let mut next = 1;
        loop {
            let batches = match self.world.read.read(next, Offset::MAX, 1 << 20, Wait::Yes) {
                Ok(firehose_log::Chunk::Batches(batches)) => batches,
                Ok(firehose_log::Chunk::End) => break,
                other => panic!("at {next}: {other:?}"),
            };
            for batch in batches {
                for (offset, record) in batch.records() {
                    let event = record.event();
                    let payload = String::from_utf8_lossy(event.payload).into_owned();
                    truth.push((offset, event.topic.to_owned(), payload));
                }
                next = batch.last() + 1;
            }
        }
        assert_eq!(truth.len(), self.sent as usize, "every publish is in the log");
        truth
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> Config {
    let default = Config::default();
    Config { cases: default.cases.max(600), max_shrink_iters: 20_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_subscription_gets_its_events_once_and_in_order_whatever_happens(
        ops in proptest::collection::vec(op(), 20..250),
        shards in 1..4usize,
        tail_bytes in prop_oneof![Just(0usize), Just(1_000), Just(1 << 20)],
        delays_reads in any::<bool>(),
        cold in any::<bool>(),
    ) {
        let mut bed = Bed::new(shards, tail_bytes, delays_reads, cold);
        for op in &ops {
            bed.step(op);
        }
        bed.check();
    }
}
