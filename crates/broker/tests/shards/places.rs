//! Who stands where in the trie: subscribers and groups of the same few filters come, go, change and go on with their sessions in
//! whatever order, and each message reaches whom it should, once, with what that one asked for last.

use crate::client::{Got, options, subscribe_packet, unsubscribe_packet};
use crate::session::connect;
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::Limits;
use firehose_mqtt::{PacketKind, Property, Version};
use firehose_topic::{TopicFilter, TopicName};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::BTreeMap;

const CLIENTS: usize = 5;
/// The last one makes whoever has it a follower, where the shards look for that.
const FILTERS: [&str; 6] = ["a", "a/#", "+", "a/b", "#", "+/+/+/#"];
const TOPICS: [&str; 2] = ["a", "a/b"];
/// What stands before a filter: nothing, a replay, two groups.
const PREFIXES: [&str; 4] = ["", "$replay/earliest/", "$share/g/", "$share/h/"];
/// Subscription identifiers of groups are above this.
const SHARED: u32 = 1_000;

#[derive(Clone, Debug)]
enum Op {
    Subscribe {
        client: usize,
        filters: Vec<(usize, usize)>,
        qos: u8,
        has_id: bool,
    },
    Unsubscribe {
        client: usize,
        filters: Vec<(usize, usize)>,
    },
    Leave {
        client: usize,
    },
    /// Takes over, if the client is connected.
    Come {
        client: usize,
        keeps: bool,
    },
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let filters = || proptest::collection::vec((0..PREFIXES.len(), 0..FILTERS.len()), 1..5);
    prop_oneof![
        6 => (0..CLIENTS, filters(), 0..2u8, any::<bool>())
            .prop_map(|(client, filters, qos, has_id)| Op::Subscribe { client, filters, qos, has_id }),
        4 => (0..CLIENTS, filters()).prop_map(|(client, filters)| Op::Unsubscribe { client, filters }),
        2 => (0..CLIENTS).prop_map(|client| Op::Leave { client }),
        2 => (0..CLIENTS, any::<bool>()).prop_map(|(client, keeps)| Op::Come { client, keeps }),
        1 => Just(Op::Reload),
    ]
}

#[derive(Default)]
struct Reader {
    /// Its connection.
    number: Option<usize>,
    keeps: bool,
    /// What it is subscribed to, as it wrote it: prefix, filter, QoS, identifier.
    subscriptions: BTreeMap<(usize, usize), (u8, u32)>,
}

struct Bed {
    world: World,
    publisher: usize,
    readers: Vec<Reader>,
    round: u32,
}

impl Bed {
    fn new(shards: usize, match_steps_max: usize) -> Bed {
        let limits = Limits { match_steps_max, ..Limits::default() };
        let setup = Setup { shards, anonymous: AnonymousMode::Full, limits, ..Setup::default() };
        let mut world = World::new(setup);
        let publisher = world.client(Version::V311, "publisher");
        world.clients[publisher].acknowledges = true;
        let mut bed = Bed { world, publisher, readers: Vec::new(), round: 0 };
        bed.readers.resize_with(CLIENTS, Reader::default);
        (0..CLIENTS).for_each(|client| bed.come(client, client % 2 == 0));
        bed
    }

    fn come(&mut self, client: usize, keeps: bool) {
        let name = format!("reader {client}");
        let went_on = self.readers[client].keeps && keeps;
        let number = match keeps {
            true => connect(&mut self.world, Version::V5, &name, &[]).0,
            false => self.world.client(Version::V5, &name),
        };
        self.world.clients[number].acknowledges = true;
        let it = &mut self.readers[client];
        (it.number, it.keeps) = (Some(number), keeps);
        if !went_on {
            it.subscriptions.clear();
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Subscribe { client, filters, qos, has_id } => {
                let Some(number) = self.readers[*client].number else { return };
                for (prefix, filter) in filters {
                    self.round += 1;
                    let shared = *prefix >= 2;
                    let id = self.round + if shared { SHARED * 1_000 } else { 0 };
                    let id = if *has_id || shared { id } else { 0 };
                    let written = format!("{}{}", PREFIXES[*prefix], FILTERS[*filter]);
                    let list = [Property::SubscriptionId(id)];
                    let list = if id == 0 { &[][..] } else { &list[..] };
                    let packet = subscribe_packet(Version::V5, 9, &[(&written, options(*qos))], list);
                    self.world.send(number, &packet);
                    self.readers[*client].subscriptions.insert((*prefix, *filter), (*qos, id));
                }
            }
            Op::Unsubscribe { client, filters } => {
                let Some(number) = self.readers[*client].number else { return };
                let written: Vec<String> = filters
                    .iter()
                    .map(|(prefix, filter)| format!("{}{}", PREFIXES[*prefix], FILTERS[*filter]))
                    .collect();
                let written: Vec<&str> = written.iter().map(String::as_str).collect();
                self.world.send(number, &unsubscribe_packet(Version::V5, 8, &written));
                for known in filters {
                    self.readers[*client].subscriptions.remove(known);
                }
            }
            Op::Leave { client } => {
                let it = &mut self.readers[*client];
                let Some(number) = it.number.take() else { return };
                if !it.keeps {
                    it.subscriptions.clear();
                }
                self.world.hang_up(number);
            }
            Op::Come { client, keeps } => self.come(*client, *keeps),
            Op::Reload => {
                self.world.access.reload().expect("reloads");
                for shard in 0..self.world.setup.shards {
                    self.world.sequencer.send(shard, firehose_broker::message::Message::Reload);
                }
            }
        }
    }

    /// Publishes to each topic, and looks who got it.
    fn check(&mut self) {
        self.world.settle();
        for topic in TOPICS {
            self.round += 1;
            let payload = format!("n{}", self.round);
            self.world.publish(self.publisher, topic, &payload, 1, 1);
            self.world.settle();
            let mut of_groups = 0;
            for client in 0..CLIENTS {
                let Some(number) = self.readers[client].number else { continue };
                assert!(!self.world.clients[number].closed, "reader {client} was closed");
                let got: Vec<Got> = self.world.take(number);
                let it = got.iter().filter(|it| it.kind == PacketKind::Publish && it.payload == payload);
                let is_shared = |it: &&Got| it.ids.iter().any(|id| *id >= SHARED * 1_000);
                let (shared, own): (Vec<&Got>, Vec<&Got>) = it.partition(is_shared);
                of_groups += shared.len();
                self.check_shared(client, topic, &shared);
                self.check_own(client, topic, &own);
            }
            assert_eq!(of_groups, self.groups(topic), "{topic} to groups");
        }
    }

    fn matching(&self, client: usize, topic: &str) -> Vec<((usize, usize), (u8, u32))> {
        let name = TopicName::new(topic).expect("a name");
        let matches = |filter: usize| TopicFilter::new(FILTERS[filter]).expect("a filter").matches(name);
        let all = self.readers[client].subscriptions.iter().map(|(known, options)| (*known, *options));
        all.filter(|((_, filter), _)| matches(*filter)).collect()
    }

    /// One copy, with the highest QoS and all identifiers.
    fn check_own(&self, client: usize, topic: &str, got: &[&Got]) {
        let of_it = self.matching(client, topic);
        let own: Vec<(u8, u32)> =
            of_it.into_iter().filter(|((prefix, _), _)| *prefix < 2).map(|(_, options)| options).collect();
        let mut ids: Vec<u32> = own.iter().map(|(_, id)| *id).filter(|id| *id != 0).collect();
        ids.sort_unstable();
        let who = format!("reader {client}, {topic}: {:?}", self.readers[client].subscriptions);
        assert_eq!(got.len(), usize::from(!own.is_empty()), "{who}");
        for it in got {
            let mut of_message = it.ids.clone();
            of_message.sort_unstable();
            assert_eq!(of_message, ids, "{who}");
            assert_eq!(Some(it.qos), own.iter().map(|(qos, _)| *qos).max(), "{who}");
        }
    }

    /// Of each group at most one copy, with the identifier and the QoS of the member.
    fn check_shared(&self, client: usize, topic: &str, got: &[&Got]) {
        let of_it = self.matching(client, topic);
        for it in got {
            let known = of_it.iter().filter(|((prefix, _), (_, id))| *prefix >= 2 && it.ids == [*id]);
            let qos: Vec<u8> = known.map(|(_, (qos, _))| *qos).collect();
            assert_eq!(qos, [it.qos], "reader {client}, {topic}, {:?}", it.ids);
        }
    }

    /// How many groups have somebody who is connected.
    fn groups(&self, topic: &str) -> usize {
        let connected = (0..CLIENTS).filter(|client| self.readers[*client].number.is_some());
        let of_client = connected.flat_map(|client| self.matching(client, topic));
        let mut groups: Vec<(usize, usize)> =
            of_client.map(|(known, _)| known).filter(|(prefix, _)| *prefix >= 2).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.len()
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> Config {
    let default = Config::default();
    Config { cases: default.cases.max(200), max_shrink_iters: 20_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn subscribers_and_groups_of_the_same_filters_come_and_go_and_each_message_finds_them(
        ops in proptest::collection::vec(op(), 5..80),
        shards in 1..4usize,
        match_steps_max in proptest::sample::select(vec![0, usize::MAX]),
    ) {
        let mut bed = Bed::new(shards, match_steps_max);
        for op in &ops {
            bed.step(op);
            bed.check();
        }
    }
}
