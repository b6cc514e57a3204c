//! A group of sessions under random steps: shards and state take their turns in any order, members come and go, leave the
//! group and come back to it, acknowledge or do not, and the process dies.

use crate::client::{self, unsubscribe_packet};
use crate::session::arrive;
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::sequencer::Role;
use firehose_mqtt::{PacketKind, Property, Version};
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "$share/g/t/#";
const SHARDS: usize = 3;
const MEMBERS: usize = 5;
const STEPS: usize = 300;

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}

/// One client, over all its connections.
#[derive(Default)]
struct Member {
    connection: Option<usize>,
    /// Those that were taken over: what they were sent may come yet.
    old: Vec<usize>,
    /// Packet ids of QoS 2 messages that were not released.
    unreleased: BTreeSet<u16>,
}

struct Play {
    world: World,
    dice: Dice,
    qos: u8,
    publisher: usize,
    published: u16,
    members: Vec<Member>,
    /// How often each number came.
    came: BTreeMap<u16, usize>,
}

impl Play {
    fn new(seed: u64, qos: u8) -> Play {
        let role = if seed.is_multiple_of(2) { Role::Thread } else { Role::Depositor };
        let limits = Limits { outbox_bytes_max: 3_000, replay_chunk_bytes: 2_000, ..Limits::default() };
        let tail_bytes = if seed.is_multiple_of(3) { 0 } else { 1 << 20 };
        let mut world = World::new(Setup { shards: SHARDS, role, limits, tail_bytes, ..Setup::default() });
        let publisher = world.client(Version::V311, "p");
        let members = (0..MEMBERS).map(|_| Member::default()).collect();
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut play = Play { world, dice, qos, publisher, published: 0, members, came: BTreeMap::new() };
        for member in 0..MEMBERS {
            play.come(member);
            play.world.settle();
            let client = play.members[member].connection.expect("it came");
            assert!(!play.world.subscribed(client, GROUP, qos).is_error());
            play.world.heard(client);
        }
        play.world.delays_reads = seed.is_multiple_of(5);
        play.world.has_section_thread = false;
        play
    }

    fn come(&mut self, member: usize) {
        let window = [Property::ReceiveMaximum(1 + self.dice.below(6) as u16)];
        let client = arrive(&mut self.world, Version::V5, false, &format!("member {member}"), &window);
        self.world.clients[client].acknowledges = true;
        self.world.clients[client].holds_acks = self.dice.below(3) == 0;
        self.members[member].connection = Some(client);
    }

    /// Notes what came so far.
    fn hear(&mut self) {
        for member in &mut self.members {
            let all = member.old.iter().copied().chain(member.connection);
            for packet in all.flat_map(|client| self.world.heard(client)) {
                match packet.kind {
                    PacketKind::Publish if packet.qos == 2 && !member.unreleased.insert(packet.id) => {
                        assert!(packet.dup, "{packet:?}");
                    }
                    PacketKind::Publish => {
                        *self.came.entry(packet.payload.trim().parse().expect("a number")).or_default() += 1;
                    }
                    PacketKind::PubRel => drop(member.unreleased.remove(&packet.id)),
                    PacketKind::ConnAck => {
                        assert!(packet.session_present, "its session is there");
                    }
                    _ => {}
                }
            }
        }
    }

    fn publish(&mut self) {
        for _ in 0..self.dice.below(8) {
            self.published += 1;
            let filler = " ".repeat(self.dice.below(400) as usize);
            let payload = format!("{}{filler}", self.published);
            self.world.publish(self.publisher, "t/x", &payload, 2, self.published);
        }
    }

    /// The process dies. What nobody saw may be lost with the power; what the publisher sent is safe.
    fn die(&mut self) {
        self.world.has_section_thread = true;
        self.world.exchange(self.world.clients[self.publisher].host);
        self.world.sequencer.run_section();
        self.world.commit();
        self.hear();
        let loses_power = self.dice.below(2) == 0;
        let delays_reads = self.world.delays_reads;
        self.world.crash(loses_power);
        self.members.iter_mut().for_each(|member| (member.connection, member.old) = (None, Vec::new()));
        self.publisher = self.world.client(Version::V311, "p");
        self.world.delays_reads = delays_reads;
        self.world.has_section_thread = false;
    }

    /// A member that is not the first leaves the group and comes back, perhaps in one breath.
    fn leave_and_return(&mut self) {
        let member = 1 + self.dice.below(MEMBERS as u64 - 1) as usize;
        let Some(client) = self.members[member].connection else { return };
        self.world.send(client, &unsubscribe_packet(Version::V5, 5, &[GROUP]));
        let host = self.world.clients[client].host;
        for _ in 0..self.dice.below(3) {
            self.world.exchange(host);
        }
        self.world.subscribe(client, &[(GROUP, client::options(self.qos))], &[]);
    }

    fn step(&mut self) {
        let host = self.dice.below(SHARDS as u64) as usize;
        let member = self.dice.below(MEMBERS as u64) as usize;
        let connection = self.members[member].connection;
        match self.dice.below(40) {
            0..4 => self.publish(),
            4..16 => drop(self.world.exchange(host)),
            16..22 => drop(self.world.flush(host)),
            22..27 => drop(self.world.turn_of_state()),
            27..30 => drop(self.world.sequencer.run_section()),
            30..32 if !self.world.questions.is_empty() => {
                let place = self.dice.below(self.world.questions.len() as u64) as usize;
                self.world.answer(place);
            }
            32..34 => match connection {
                // Its shard has not looked at it yet.
                Some(client) if self.world.clients[client].session.is_none() => {}
                Some(client) => {
                    self.hear();
                    self.world.cut(client);
                    self.members[member].connection = None;
                }
                None => self.come(member),
            },
            34 if connection.is_some() => {
                // A takeover.
                self.members[member].old.extend(connection);
                self.come(member);
            }
            35 => self.leave_and_return(),
            36 => {
                if let Some(client) = connection {
                    let count = self.dice.below(3) as usize;
                    self.world.release_acks(client, count);
                    self.world.clients[client].holds_acks ^= self.dice.below(2) == 0;
                }
            }
            37 => {
                if let Some(client) = connection {
                    self.world.clients[client].room = self.dice.below(400) as usize;
                }
            }
            38 if self.dice.below(8) == 0 => self.world.pass(1_000),
            39 if self.dice.below(8) == 0 => self.die(),
            _ => {
                if let Some(client) = connection {
                    self.world.drain_wire(client, 10_000);
                }
            }
        }
    }

    /// Everybody comes back and takes all there is.
    fn end(&mut self) {
        self.world.has_section_thread = true;
        self.world.settle();
        for member in 0..MEMBERS {
            if self.members[member].connection.is_none() {
                self.come(member);
            }
        }
        self.world.let_go();
        for _ in 0..50 {
            self.world.pass(1_000);
            self.world.let_go();
        }
        self.hear();
    }
}

fn play(seed: u64, qos: u8) {
    let mut play = Play::new(seed, qos);
    for _ in 0..STEPS {
        play.step();
    }
    play.end();
    let lost: Vec<u16> = (1..=play.published).filter(|number| !play.came.contains_key(number)).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?} of {}", play.published);
    let twice: Vec<_> = play.came.iter().filter(|(_, times)| **times > 1).collect();
    assert!(qos < 2 || twice.is_empty(), "seed {seed}: twice {twice:?}");
}

#[test]
fn nothing_is_lost_whatever_happens_and_qos_2_comes_once() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("SHARED_SEED").unwrap_or(1);
    let seeds = first..first + number("SHARED_SEEDS").unwrap_or(60);
    for seed in seeds {
        for qos in [1, 2] {
            play(seed, qos);
        }
    }
}
