//! The seam between what is retained and what comes live, under load: whatever happens in whatever order, a new
//! subscription gets what was retained when it began, each once, and everything later, in order.

use crate::client::{Got, options, publish};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_log::{Chunk, Cursor, Offset, Wait};
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Version};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::BTreeMap;

const READERS: usize = 4;
const PARKED_MAX: usize = 2_000;
const CHUNK: usize = 400;
/// No batch of these tests is larger, nor is what a turn encodes of it.
const BATCH_MAX: usize = 4_000;

#[derive(Clone, Debug)]
enum Op {
    Retain { topic: u8, qos: u8, size: usize },
    Clear(u8),
    Publish(u8),
    Exchange(usize),
    Flush(usize),
    Drain(usize, usize),
    Shut(usize),
    Answer(usize),
    HoldAcks(usize),
    Acks(usize, usize),
    Subscribe(usize, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..20u8, 0..3u8, 1..150usize).prop_map(|(topic, qos, size)| Op::Retain { topic, qos, size }),
        1 => (0..20u8).prop_map(Op::Clear),
        2 => (0..20u8).prop_map(Op::Publish),
        6 => (0..3usize).prop_map(Op::Exchange),
        6 => (0..3usize).prop_map(Op::Flush),
        6 => (0..READERS, 1..500usize).prop_map(|(reader, bytes)| Op::Drain(reader, bytes)),
        2 => (0..READERS).prop_map(Op::Shut),
        6 => (0..8usize).prop_map(Op::Answer),
        1 => (0..READERS).prop_map(Op::HoldAcks),
        3 => (0..READERS, 1..6usize).prop_map(|(reader, count)| Op::Acks(reader, count)),
        2 => (0..READERS, 0..3u8).prop_map(|(reader, qos)| Op::Subscribe(reader, qos)),
    ]
}

struct Bed {
    world: World,
    publisher: usize,
    readers: Vec<usize>,
    subscribed: [bool; READERS],
    sent: u16,
}

impl Bed {
    fn new(shards: usize, tail_bytes: usize, delays_reads: bool) -> Bed {
        let limits = Limits {
            outbox_bytes_max: 700,
            parked_bytes_max: PARKED_MAX,
            replay_chunk_bytes: CHUNK,
            mailbox_bytes_max: 1_500,
            inflight_max: 100,
            ..Limits::default()
        };
        let mut world = World::new(Setup { shards, limits, tail_bytes, ..Setup::default() });
        let publisher = world.client(Version::V311, "publisher");
        let readers = (0..READERS)
            .map(|number| {
                let on = Property::UserProperty("firehose-cursor", "on");
                let window = Property::ReceiveMaximum(number as u16 + 1);
                world.client_with(Version::V5, &format!("reader {number}"), &[on, window])
            })
            .collect();
        world.delays_reads = delays_reads;
        world.clients.iter_mut().for_each(|client| client.acknowledges = true);
        Bed { world, publisher, readers, subscribed: [false; READERS], sent: 0 }
    }

    fn step(&mut self, op: &Op) {
        let shards = self.world.sequencer.shards();
        match *op {
            Op::Retain { topic, qos, size } => self.publish(topic, &"x".repeat(size), qos, true),
            Op::Clear(topic) => self.publish(topic, "", 1, true),
            Op::Publish(topic) => self.publish(topic, "not retained", 1, false),
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
            Op::Shut(reader) => self.world.clients[self.readers[reader]].room = 0,
            Op::Answer(place) => {
                let waiting = self.world.questions.len();
                if waiting > 0 {
                    self.world.answer(place % waiting);
                }
            }
            Op::HoldAcks(reader) => self.world.clients[self.readers[reader]].holds_acks = true,
            Op::Acks(reader, count) => self.world.release_acks(self.readers[reader], count),
            Op::Subscribe(reader, qos) => {
                if !std::mem::replace(&mut self.subscribed[reader], true) {
                    self.world.subscribe(self.readers[reader], &[("t/+", options(qos))], &[]);
                }
            }
        }
        for host in 0..shards {
            let queued = self.world.shard(host).queued_bytes();
            assert!(queued <= 2 * PARKED_MAX + CHUNK + BATCH_MAX, "{queued} bytes are queued");
        }
    }

    fn publish(&mut self, topic: u8, payload: &str, qos: u8, retain: bool) {
        self.sent += 1;
        let topic = format!("t/{topic:02}");
        let packet = publish(&topic, payload, qos, if qos == 0 { 0 } else { self.sent });
        self.world.send_packet(self.publisher, &Packet::Publish(Publish { retain, ..packet }));
    }

    fn check(mut self) {
        self.world.let_go();
        let truth = self.truth();
        for reader in 0..READERS {
            let got = self.world.heard(self.readers[reader]);
            assert!(!self.world.clients[self.readers[reader]].closed);
            if self.subscribed[reader] {
                check_one(&truth, &got);
            }
        }
        for host in 0..self.world.sequencer.shards() {
            assert_eq!(self.world.shard(host).queued_bytes(), 0, "nothing stays queued");
        }
    }

    /// What the log has: offset, topic, whether it is retained, whether it clears.
    fn truth(&self) -> Vec<(Offset, String, bool, bool)> {
        let mut truth = Vec::new();
        while let Ok(Chunk::Batches(batches)) =
            self.world.read.read(truth.len() as Offset + 1, Offset::MAX, 1 << 20, Wait::Yes)
        {
            for (offset, record) in batches.iter().flat_map(|batch| batch.records()) {
                if offset as usize == truth.len() + 1 {
                    let event = record.event();
                    let clears = event.payload.is_empty();
                    truth.push((offset, event.topic.to_owned(), event.flags.retain(), clears));
                }
            }
        }
        assert_eq!(truth.len(), usize::from(self.sent), "every publish is in the log");
        truth
    }
}

fn check_one(truth: &[(Offset, String, bool, bool)], got: &[Got]) {
    let suback = got.iter().find(|it| it.kind == PacketKind::SubAck).expect("a SUBACK");
    let offset =
        |it: &Got| Cursor::parse(it.user("firehose-cursor").expect("a cursor")).expect("a cursor").offset;
    let head = offset(suback);
    let messages = || got.iter().filter(|it| it.kind == PacketKind::Publish);
    let live: Vec<Offset> = messages().filter(|it| !it.retain).map(offset).collect();
    assert_eq!(live, (head + 1..=truth.len() as Offset).collect::<Vec<_>>(), "everything later, in order");
    let mut retained: BTreeMap<&str, Offset> = BTreeMap::new();
    for (offset, topic, _, clears) in truth.iter().filter(|it| it.0 <= head && it.2) {
        match clears {
            true => retained.remove(&**topic),
            false => retained.insert(topic, *offset),
        };
    }
    let came: Vec<(&str, Offset)> =
        messages().filter(|it| it.retain).map(|it| (&*it.topic, offset(it))).collect();
    assert!(came.is_sorted_by(|one, next| one.0 < next.0), "each topic once, in their order: {came:?}");
    for (topic, offset) in &came {
        assert_eq!(retained.get(topic), Some(offset), "as of {head}: {topic}");
    }
    for (topic, offset) in &retained {
        let changed = truth.iter().any(|it| it.0 > head && it.2 && it.1 == **topic);
        assert!(changed || came.contains(&(topic, *offset)), "{topic} did not come");
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> Config {
    let default = Config::default();
    Config { cases: default.cases.max(400), max_shrink_iters: 20_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_retained_comes_once_and_the_rest_live_whatever_happens(
        ops in proptest::collection::vec(op(), 20..250),
        shards in 1..4usize,
        tail_bytes in prop_oneof![Just(0usize), Just(1 << 20)],
        delays_reads in any::<bool>(),
    ) {
        let mut bed = Bed::new(shards, tail_bytes, delays_reads);
        for op in &ops {
            bed.step(op);
        }
        bed.check();
    }
}
