//! One life of the bus, from a start to a crash: shards, sequencer, log. No thread, no socket: the world takes every
//! step.

use crate::engine::{Engine, LateCommit, Mood, Shared as Guarded, lock};
use crate::ledger::Ledger;
use crate::plan::{Plan, UNLOGGED, access};
use crate::state::StateSide;
use crate::wire::Connection;
use crate::witness::Witness;
use firehose_broker::Durability;
use firehose_broker::kept::KeptBytes;
use firehose_broker::message::Message;
use firehose_broker::replays::Replays;
use firehose_broker::sequencer::{Role, Sequencer};
use firehose_broker::shard::{Action, Appetite, Now, Shard, Shared};
use firehose_broker::stats::ShardStats;
use firehose_log::{
    Chunk, Commit, MemDisk, Offset, OpenError, Read, RedactError, Redacted, Refusal, Wait, open,
};
use firehose_topic::TopicFilter;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

thread_local! {
    static WALL_US: Cell<i64> = const { Cell::new(0) };
}

/// The wall clock of this thread's world.
pub fn wall_us() -> i64 {
    WALL_US.get()
}

pub fn set_wall_us(now_us: i64) {
    WALL_US.set(now_us);
}

/// Why a bus did not start.
#[derive(Debug)]
pub enum Unstarted {
    Log(OpenError),
    State(String),
}

impl std::fmt::Display for Unstarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unstarted::Log(error) => error.fmt(f),
            Unstarted::State(why) => f.write_str(why),
        }
    }
}

/// A shard and its sockets.
pub struct Host {
    pub shard: Shard,
    /// Connections by session.
    connections: BTreeMap<u32, usize>,
}

/// See the module.
pub struct Bus {
    pub sequencer: Sequencer,
    pub read: Arc<dyn Read>,
    pub hosts: Vec<Host>,
    /// Questions to the log that wait: (shard, question).
    pub questions: VecDeque<(usize, Action)>,
    pub now: Now,
    pub state: StateSide,
    pub unlogged: Arc<[TopicFilter]>,
    /// Whether questions to the log wait for the world to have them answered.
    delays_reads: bool,
    mood: Guarded<Mood>,
    commit: Box<dyn Commit>,
}

impl Bus {
    pub fn start(
        plan: &Plan,
        disk: &MemDisk,
        witness: &Witness,
        ledger: &Guarded<Ledger>,
        mood: &Guarded<Mood>,
        now: Now,
    ) -> Result<Bus, Unstarted> {
        let log = open(plan.log_config(), Arc::new(disk.clone()), now.wall_us).map_err(Unstarted::Log)?;
        let limits = Arc::new(plan.limits.clone());
        let state =
            StateSide::open(witness, log.read.clone(), limits.clone(), now).map_err(Unstarted::State)?;
        let unlogged: Arc<[TopicFilter]> = [TopicFilter::new(UNLOGGED).expect("a filter")].into();
        let shared = Shared {
            replays: Arc::new(Replays::new(&plan.limits)),
            kept: Arc::new(KeptBytes::new(&plan.limits)),
            limits,
            access: access().clone(),
            unlogged: unlogged.clone(),
            secret: state.state.secret().clone(),
            sys: Arc::default(),
            stored: state.state.names().clone(),
            groups: state.state.group_names().clone(),
            shards: plan.shards,
            connecting_bytes: Arc::default(),
            log_id: log.read.log_id(),
            epoch: log.read.epoch(),
            recovered: log.read.cursor(log.read.head(), now.wall_us),
            acks_wait_for_sync: plan.durability == Durability::Sync,
        };
        let head = log.read.head();
        let told = log.append.durable();
        let commit = Box::new(LateCommit { inner: log.commit, mood: mood.clone(), told });
        let append = Box::new(Engine { inner: log.append, mood: mood.clone(), ledger: ledger.clone() });
        let sequencer = Sequencer::new(
            plan.shards,
            append,
            plan.durability,
            Role::Depositor,
            plan.limits.mailbox_bytes_max,
            wall_us,
        );
        sequencer.set_state(state.state.queue().clone());
        let host = |number| {
            let stats = Arc::<ShardStats>::default();
            Host { shard: Shard::new(shared.clone(), number, head, stats), connections: BTreeMap::new() }
        };
        Ok(Bus {
            sequencer,
            read: log.read,
            hosts: (0..plan.shards).map(host).collect(),
            questions: VecDeque::new(),
            now,
            state,
            unlogged,
            delays_reads: plan.delays_reads,
            mood: mood.clone(),
            commit,
        })
    }

    /// Bytes of a client reach its shard.
    pub fn receive(&mut self, number: usize, bytes_max: usize, net: &mut [Connection]) -> bool {
        let it = &mut net[number];
        let Some(session) = it.session.filter(|_| !it.paused && !it.to_bus.is_empty()) else { return false };
        let bytes: Vec<u8> = it.to_bus.drain(..bytes_max.min(it.to_bus.len())).collect();
        let shard = &mut self.hosts[it.host].shard;
        shard.set_now(self.now);
        it.paused = shard.receive(session, &bytes) == Appetite::Paused;
        true
    }

    /// The socket takes so many bytes more.
    pub fn make_room(&mut self, number: usize, bytes: usize, net: &mut [Connection]) {
        let it = &mut net[number];
        it.room = it.room.saturating_add(bytes);
        if let Some(session) = it.session {
            self.hosts[it.host].shard.writable(session);
        }
    }

    /// The shard finds out that the client is gone.
    pub fn hang_up(&mut self, number: usize, net: &mut [Connection]) {
        if let Some(session) = net[number].session {
            let shard = &mut self.hosts[net[number].host].shard;
            shard.set_now(self.now);
            shard.hang_up(session, "the client is gone");
        }
    }

    /// A turn of one shard, without its flushes. `places`: the section is free and runs. False: nothing moved.
    pub fn turn(&mut self, host: usize, places: bool, net: &mut [Connection]) -> bool {
        let it = &mut self.hosts[host];
        it.shard.set_now(self.now);
        let mut worked = it.shard.go_on_with_filters();
        if let Some(outgoing) = it.shard.take_outgoing() {
            worked = true;
            if let Some(interest) = outgoing.interest {
                self.sequencer.set_interest(host, interest);
            }
            self.sequencer.leave(host, outgoing.deposits);
        }
        if places {
            self.place();
        }
        let it = &mut self.hosts[host];
        let mut messages = Vec::new();
        self.sequencer.mailbox(host).take(&mut messages);
        worked |= !messages.is_empty();
        let bytes_of = |message: &Message| match message {
            Message::Batch { batch, .. } => batch.bytes_len(),
            _ => 0,
        };
        let bytes = messages.iter().map(bytes_of).sum();
        it.shard.drain(&mut messages);
        self.sequencer.drained(host, bytes);
        worked | self.act_all(host, net)
    }

    /// What a shard asks for. False: nothing.
    fn act_all(&mut self, host: usize, net: &mut [Connection]) -> bool {
        let actions: Vec<Action> = self.hosts[host].shard.take_actions().collect();
        let worked = !actions.is_empty();
        for action in actions {
            self.act(host, action, net);
        }
        worked
    }

    /// Runs the section, unless the engine holds it up.
    pub fn place(&self) {
        if !lock(&self.mood).delays {
            // Not `run`: that would look at how long a write took, and this world has no time but its own.
            self.sequencer.run_section();
        }
    }

    /// Flushes every connection of a shard that has something to write; false: there was none.
    pub fn flush(&mut self, host: usize, net: &mut [Connection]) -> bool {
        // Sessions get their sockets, and lose them, before anything is written.
        self.act_all(host, net);
        let it = &mut self.hosts[host];
        it.shard.set_now(self.now);
        let count = it.shard.dirty_count();
        for _ in 0..count {
            let Some(session) = it.shard.next_dirty() else { break };
            match it.connections.get(&session) {
                Some(number) => it.shard.flush(session, &mut net[*number]),
                None => it.shard.hang_up(session, "it has no socket"),
            }
        }
        count > 0
    }

    /// Timers of a shard; gives after how many milliseconds it wants to be called again.
    pub fn tick(&mut self, host: usize) -> u64 {
        let it = &mut self.hosts[host];
        it.shard.set_now(self.now);
        it.shard.tick()
    }

    /// The commit thread's turn; gives up to where the log is durable. None: it could not be made so.
    pub fn commit(&mut self) -> Option<Offset> {
        match self.commit.commit() {
            Ok(durable) => {
                self.sequencer.set_durable(durable);
                Some(durable)
            }
            Err(error) => {
                if self.sequencer.durability() == Durability::Sync {
                    self.sequencer.set_commit_failed(&Refusal::ReadOnly(error.0));
                }
                None
            }
        }
    }

    /// The commit thread takes an event out of the log.
    pub fn redact(&mut self, offset: Offset) -> Result<Redacted, RedactError> {
        self.commit.redact(offset, self.now.wall_us)
    }

    pub fn upkeep(&mut self) -> Vec<String> {
        let notes = self.commit.upkeep(self.now.wall_us, &mut self.state.state.keep());
        notes.iter().map(ToString::to_string).collect()
    }

    /// Answers the question that waits at a place in line.
    pub fn answer(&mut self, place: usize) {
        let Some((host, question)) = self.questions.remove(place) else { return };
        let message = match question {
            Action::Read { lane, from, upto, bytes_max } => {
                Message::Read { lane, chunk: self.read.read(from, upto, bytes_max, Wait::Yes) }
            }
            Action::Resolve { token, since } => {
                Message::Resolved { token, start: self.read.resolve(&since, self.now.wall_us) }
            }
            question @ Action::Retained { .. } => return self.state.ask(host, question),
            question => return self.answer_fetch(host, question),
        };
        self.sequencer.send(host, message);
    }

    fn act(&mut self, host: usize, action: Action, net: &mut [Connection]) {
        let it = &mut self.hosts[host];
        match action {
            Action::Attach { session, socket } => {
                let number = *socket.and_then(|it| it.downcast::<usize>().ok()).expect("its socket");
                net[number].session = Some(session);
                it.connections.insert(session, number);
            }
            Action::Close { session, .. } => {
                if let Some(number) = it.connections.remove(&session) {
                    net[number].closed_by_bus = true;
                    net[number].session = None;
                }
            }
            Action::Read { lane, from, upto, bytes_max } if !self.delays_reads => {
                match self.read.read(from, upto, bytes_max, Wait::No) {
                    Ok(Chunk::Blocked) => {
                        self.questions.push_back((host, Action::Read { lane, from, upto, bytes_max }));
                    }
                    chunk => it.shard.answer(lane, chunk),
                }
            }
            question @ (Action::Read { .. }
            | Action::Resolve { .. }
            | Action::Retained { .. }
            | Action::Fetch { .. }) => {
                self.questions.push_back((host, question));
            }
            Action::Resume { session } => {
                let appetite = it.shard.resume(session);
                if let Some(number) = it.connections.get(&session) {
                    net[*number].paused = appetite == Appetite::Paused;
                }
            }
            Action::ToShard { shard, message } => drop(self.sequencer.send(shard, message)),
            Action::State(request) => {
                self.state.state.queue().submit(host, request, self.sequencer.head());
            }
        }
    }

    pub fn head(&self) -> Offset {
        self.read.head()
    }
}
