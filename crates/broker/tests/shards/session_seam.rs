//! Sessions under everything at once: connections end, the process dies, the power fails, the state is slow, wires and
//! windows are narrow. QoS 2 comes exactly once, both ways; QoS 1 at least once; in order; nothing is missing.

use crate::session_client::SessionClient;
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::sequencer::Durability;
use firehose_log::{Chunk, Offset, Wait};
use firehose_mqtt::Version;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::HashMap;

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    /// Somebody without a session publishes.
    Publish {
        topic: usize,
        qos: u8,
        count: usize,
        size: usize,
    },
    /// A client of a session does.
    Send {
        who: usize,
        qos: u8,
    },
    Exchange(usize),
    Flush(usize),
    State,
    StateWaits(bool),
    Settle,
    Drain(usize, usize),
    Open(usize),
    Shut(usize),
    Answer(usize),
    HoldAcks(usize, bool),
    Acks(usize, usize),
    Come {
        who: usize,
        version: usize,
        again: bool,
    },
    Lose(usize),
    Pass(u64),
    Commit,
    Crash {
        loses_power: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..CLIENTS;
    prop_oneof![
        10 => (0..3usize, 0..3u8, 1..6usize, 1..150usize)
            .prop_map(|(topic, qos, count, size)| Op::Publish { topic, qos, count, size }),
        6 => (who(), 1..3u8).prop_map(|(who, qos)| Op::Send { who, qos }),
        8 => (0..2usize).prop_map(Op::Exchange),
        6 => (0..2usize).prop_map(Op::Flush),
        6 => Just(Op::State),
        2 => any::<bool>().prop_map(Op::StateWaits),
        6 => Just(Op::Settle),
        6 => (who(), 1..500usize).prop_map(|(who, bytes)| Op::Drain(who, bytes)),
        1 => who().prop_map(Op::Open),
        1 => who().prop_map(Op::Shut),
        4 => (0..8usize).prop_map(Op::Answer),
        2 => (who(), any::<bool>()).prop_map(|(who, on)| Op::HoldAcks(who, on)),
        4 => (who(), 1..6usize).prop_map(|(who, count)| Op::Acks(who, count)),
        6 => (who(), 0..3usize, any::<bool>())
            .prop_map(|(who, version, again)| Op::Come { who, version, again }),
        3 => who().prop_map(Op::Lose),
        2 => (1..1_500u64).prop_map(Op::Pass),
        2 => Just(Op::Commit),
        2 => any::<bool>().prop_map(|loses_power| Op::Crash { loses_power }),
    ]
}

struct Bed {
    world: World,
    clients: Vec<SessionClient>,
    publisher: usize,
    sent: u32,
    packet_id: u16,
    delays_reads: bool,
}

impl Bed {
    fn new(shards: usize, tail_bytes: usize, delays_reads: bool) -> Bed {
        let limits = Limits {
            outbox_bytes_max: 1_500,
            parked_bytes_max: 3_000,
            replay_chunk_bytes: 600,
            mailbox_bytes_max: 3_000,
            inflight_max: 8,
            connect_timeout_secs: 1_000_000,
            ..Limits::default()
        };
        let durability = Durability::Sync;
        let setup =
            Setup { shards, limits, tail_bytes, durability, segment_bytes: 8 << 10, ..Setup::default() };
        let mut clients = vec![
            SessionClient::new("all", &[("#", 2)], 3),
            SessionClient::new("overlapping", &[("t/+", 1), ("t/1", 2)], 2),
            SessionClient::new("replay", &[("$replay/earliest/#", 2), ("t/0", 1)], 5),
            SessionClient::new("quiet", &[("t/2", 2)], 1),
        ];
        let mut world = World::new(setup);
        // Each one subscribes first, so that what it has to get is known: everything.
        for client in &mut clients {
            client.connect(&mut world, Version::V5, false);
            for _ in 0..3 {
                world.settle();
                client.listen(&mut world);
            }
            assert!(client.subscribed);
        }
        let publisher = world.client(Version::V311, "publisher");
        world.delays_reads = delays_reads;
        Bed { world, clients, publisher, sent: 0, packet_id: 0, delays_reads }
    }

    fn payload(&mut self, size: usize) -> String {
        self.sent += 1;
        format!("{}-{}", self.sent, "x".repeat(size))
    }

    fn wire(&self, who: usize) -> Option<usize> {
        self.clients[who].connection
    }

    fn step(&mut self, op: &Op) {
        let shards = self.world.sequencer.shards();
        match *op {
            Op::Publish { topic, qos, count, size } => {
                for _ in 0..count {
                    let payload = self.payload(size);
                    self.packet_id = self.packet_id % 60_000 + 1;
                    let (publisher, id) = (self.publisher, self.packet_id);
                    self.world.publish(publisher, &format!("t/{topic}"), &payload, qos, id);
                }
            }
            Op::Send { who, qos } => {
                let payload = self.payload(10);
                self.clients[who].publish(&mut self.world, &payload, qos);
            }
            Op::Exchange(host) => drop(self.world.exchange(host % shards)),
            Op::Flush(host) => drop(self.world.flush(host % shards)),
            Op::State => drop(self.world.turn_of_state()),
            Op::StateWaits(waits) => self.world.state.waits = waits,
            Op::Settle => self.world.settle(),
            Op::Drain(who, bytes) => {
                if let Some(wire) = self.wire(who).filter(|wire| self.world.clients[*wire].room < usize::MAX)
                {
                    self.world.drain_wire(wire, bytes);
                }
            }
            Op::Open(who) => self.wire(who).into_iter().for_each(|it| self.world.drain_wire(it, usize::MAX)),
            Op::Shut(who) => self.wire(who).into_iter().for_each(|it| self.world.clients[it].room = 0),
            Op::Answer(place) => {
                let waiting = self.world.questions.len();
                if waiting > 0 {
                    self.world.answer(place % waiting);
                }
            }
            Op::HoldAcks(who, on) => self.clients[who].holds_acks = on,
            Op::Acks(who, count) => self.clients[who].release_acks(&mut self.world, count),
            Op::Come { who, version, again } => {
                let version = [Version::V31, Version::V311, Version::V5][version];
                self.clients[who].connect(&mut self.world, version, again);
            }
            Op::Lose(who) => {
                if let Some(wire) = self.wire(who).filter(|it| self.world.clients[*it].session.is_some()) {
                    self.clients[who].lose();
                    self.world.hang_up(wire);
                }
            }
            Op::Pass(ms) => self.world.pass(ms),
            Op::Commit => drop(self.world.commit()),
            Op::Crash { loses_power } => self.crash(loses_power),
        }
        for client in &mut self.clients {
            client.listen(&mut self.world);
        }
    }

    fn crash(&mut self, loses_power: bool) {
        self.world.crash(loses_power);
        for client in &mut self.clients {
            client.lose();
            if loses_power {
                client.before_power_loss = client.got.len();
            }
        }
        self.publisher = self.world.client(Version::V311, "publisher");
        self.world.delays_reads = self.delays_reads;
    }

    /// Everybody comes, and everything goes.
    fn let_go(&mut self) {
        self.world.state.waits = false;
        for client in &mut self.clients {
            client.holds_acks = false;
            client.connect(&mut self.world, Version::V5, true);
        }
        for _ in 0..2_000 {
            let before: usize = self.clients.iter().map(|it| it.got.len()).sum();
            self.world.let_go();
            self.world.commit();
            self.world.settle();
            for client in &mut self.clients {
                client.listen(&mut self.world);
            }
            self.world.settle();
            // What the last acknowledgements let go may have asked the log.
            let idle = self.world.questions.is_empty()
                && self.clients.iter().all(SessionClient::is_through)
                && self.clients.iter().map(|it| it.got.len()).sum::<usize>() == before
                && self
                    .clients
                    .iter()
                    .all(|it| it.connection.is_some_and(|it| self.world.clients[it].packets.is_empty()));
            if idle {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn check(mut self) {
        self.let_go();
        let truth = self.truth();
        let mut of_payload: HashMap<&str, usize> = HashMap::new();
        for (topic, qos, payload) in &truth {
            let count = of_payload.entry(payload).or_default();
            *count += 1;
            assert!(*count == 1 || *qos < 2 && topic == "s", "{payload:.8} of QoS 2 stands twice in the log");
        }
        // What one of them has to get, with the QoS.
        let wanted: [fn(&str) -> Option<u8>; CLIENTS] = [
            |_| Some(2),
            |topic| if topic == "t/1" { Some(2) } else { topic.starts_with("t/").then_some(1) },
            |_| Some(2),
            |topic| (topic == "t/2").then_some(2),
        ];
        for (client, wanted) in self.clients.iter().zip(wanted) {
            let mine: Vec<(u8, &str)> = truth
                .iter()
                .filter_map(|(topic, qos, payload)| Some(((*qos).min(wanted(topic)?), payload.as_str())))
                .collect();
            check_one(client, &mine);
        }
    }

    /// What the log has: topic, QoS, payload.
    fn truth(&self) -> Vec<(String, u8, String)> {
        let mut truth = Vec::new();
        let mut next = 1;
        loop {
            match self.world.read.read(next, Offset::MAX, 1 << 20, Wait::Yes) {
                Ok(Chunk::Batches(batches)) => {
                    for batch in batches {
                        for (_, record) in batch.records() {
                            let event = record.event();
                            let payload = String::from_utf8_lossy(event.payload).into_owned();
                            truth.push((event.topic.to_owned(), event.flags.qos(), payload));
                        }
                        next = batch.last() + 1;
                    }
                }
                Ok(Chunk::End) => return truth,
                other => panic!("at {next}: {other:?}"),
            }
        }
    }
}

/// `mine`: QoS and payload of each event in the log that the client subscribes to. Of what an event is by overlapping
/// lanes (`replay` has two) the copies count by themselves.
fn check_one(client: &SessionClient, mine: &[(u8, &str)]) {
    let name = &client.name;
    let lanes = if name == "replay" { 2 } else { 1 };
    let place: HashMap<&str, usize> =
        mine.iter().enumerate().map(|(at, (_, payload))| (*payload, at)).collect();
    let mut counts = vec![0; mine.len()];
    let (mut newest, mut of_connection) = (None, (0, None));
    for (index, (connection, qos, payload)) in client.got.iter().enumerate() {
        let Some(at) = place.get(payload.as_str()).copied() else {
            // The power failed after it was seen: QoS 2 waits for the disk, the rest does not.
            assert!(*qos < 2, "{name}: {payload:.8} of QoS 2 is in no log");
            continue;
        };
        counts[at] += 1;
        // A publisher that published twice at QoS 1 has two events.
        let is_elsewhere = *qos < 2 && index < client.before_power_loss;
        if lanes > 1 || is_elsewhere || mine.iter().filter(|(_, other)| other == payload).count() > 1 {
            continue;
        }
        if of_connection.0 != *connection {
            of_connection = (*connection, None);
        }
        assert!(of_connection.1 < Some(at), "{name}: {payload:.8} comes late on its connection");
        of_connection.1 = Some(at);
        // QoS 0 may be lost with a connection, and come all the same after a crash.
        if *qos == 2 {
            assert!(newest < Some(at), "{name}: {payload:.8} comes late");
            newest = Some(at);
        }
    }
    for ((qos, payload), count) in mine.iter().map(|it| (it, counts[place[it.1]])) {
        // QoS 0 may be lost with its connection.
        assert!(count >= 1 || *qos == 0, "{name}: {payload:.8} of QoS {qos} is missing");
        assert!(count <= lanes || *qos < 2, "{name}: {payload:.8} of QoS 2 came {count} times");
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> Config {
    let default = Config::default();
    Config { cases: default.cases.max(100), max_shrink_iters: 20_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sessions_lose_nothing_and_qos_2_is_exactly_once_whatever_happens(
        ops in proptest::collection::vec(op(), 20..200),
        shards in 1..3usize,
        tail_bytes in prop_oneof![Just(0usize), Just(1_000), Just(1 << 20)],
        delays_reads in any::<bool>(),
    ) {
        let mut bed = Bed::new(shards, tail_bytes, delays_reads);
        for op in &ops {
            bed.step(op);
        }
        bed.check();
    }
}
