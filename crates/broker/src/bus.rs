//! The bus: the sequencer, the log and the access rules, as everybody shares them.

use crate::arrival::Secret;
use crate::commit;
use crate::errand::Errands;
use crate::kept::KeptBytes;
use crate::limits::Limits;
use crate::message::Message;
use crate::redaction::TakeBack;
use crate::replays::Replays;
use crate::section;
use crate::sequencer::{Deposit, Durability, Role, SHARDS_MAX, Sequencer, Sleepers};
use crate::shard::{Shard, Shared};
use crate::state::{Queue, State, StateReader};
use crate::state_thread;
use crate::stats::ShardStats;
use crate::sync::{Mutex, lock};
use firehose_auth::Access;
use firehose_log::{
    Attribute, AttributesBuf, Batch, Commit, Draft, Event, Flags, Log, Offset, Origin, Read, Refusal, WayIn,
};
use firehose_topic::TopicFilter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the bus is made with.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// How many shards; 0: one per core.
    pub shards: usize,
    /// When acknowledgements leave.
    pub durability: Durability,
    /// Who runs the sequencer's section.
    pub role: Role,
    /// Topic filters that are delivered live only.
    pub unlogged: Vec<TopicFilter>,
    /// `[limits]`.
    pub limits: Limits,
}

impl Default for BusConfig {
    fn default() -> BusConfig {
        BusConfig {
            shards: 0,
            durability: Durability::Sync,
            role: Role::Depositor,
            unlogged: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// An event that a port publishes.
#[derive(Clone, Debug, Default)]
pub struct PortEvent {
    /// A valid topic name; refused otherwise.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// MQTT 5's content type.
    pub content_type: Option<String>,
    /// CloudEvents attributes, in order.
    pub attributes: Vec<(String, String)>,
    /// The QoS it is delivered with at most.
    pub qos: u8,
    /// The retain flag it is stored with.
    pub retain: bool,
}

/// Runs or wakes shards that sleep although there is something for them; `net` provides it.
pub type Rouse = Box<dyn Fn(Sleepers) + Send + Sync>;

struct Inside {
    sequencer: Sequencer,
    read: Arc<dyn Read>,
    shared: Shared,
    stats: Box<[Arc<ShardStats>]>,
    rouse: OnceLock<Rouse>,
    take_back: OnceLock<TakeBack>,
    section_stopping: AtomicBool,
    stopping: AtomicBool,
    section_thread: Mutex<Option<JoinHandle<()>>>,
    commit_thread: Mutex<Option<JoinHandle<()>>>,
    errands: Errands,
    state: Arc<Queue>,
    state_reader: StateReader,
    state_stopping: AtomicBool,
    state_thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the bus; clones share it.
#[derive(Clone)]
pub struct Bus(Arc<Inside>);

impl Bus {
    /// Takes an open log and the state over it, and starts their threads. The shards are made by [`Bus::shard`], one each
    /// for `net` to run.
    pub fn start(config: BusConfig, log: Log, state: State, access: Access) -> Bus {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = if config.shards == 0 { cores } else { config.shards }.min(SHARDS_MAX);
        let mailbox_bytes_max = config.limits.mailbox_bytes_max;
        let shared = Shared {
            replays: Arc::new(Replays::new(&config.limits)),
            kept: Arc::new(KeptBytes::new(&config.limits)),
            limits: Arc::new(config.limits),
            access,
            unlogged: config.unlogged.into(),
            secret: state.secret().clone(),
            sys: Arc::default(),
            stored: state.names().clone(),
            groups: state.group_names().clone(),
            shards,
            connecting_bytes: Arc::default(),
            log_id: log.read.log_id(),
            epoch: log.read.epoch(),
            recovered: log.read.cursor(log.read.head(), wall_us()),
            acks_wait_for_sync: config.durability == Durability::Sync,
        };
        let sequencer =
            Sequencer::new(shards, log.append, config.durability, config.role, mailbox_bytes_max, wall_us);
        sequencer.set_state(state.queue().clone());
        let bus = Bus(Arc::new(Inside {
            sequencer,
            read: log.read,
            shared,
            stats: (0..shards).map(|_| Arc::default()).collect(),
            rouse: OnceLock::new(),
            take_back: OnceLock::new(),
            section_stopping: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            section_thread: Mutex::new(None),
            commit_thread: Mutex::new(None),
            errands: Errands::default(),
            state: state.queue().clone(),
            state_reader: state.reader(),
            state_stopping: AtomicBool::new(false),
            state_thread: Mutex::new(None),
        }));
        *lock(&bus.0.section_thread) = section::spawn(bus.clone());
        *lock(&bus.0.commit_thread) = commit::spawn(bus.clone(), log.commit, state.keep());
        *lock(&bus.0.state_thread) = state_thread::spawn(bus.clone(), state);
        bus
    }

    /// One of the shards, for whoever runs it.
    pub fn shard(&self, number: usize) -> Shard {
        Shard::new(self.0.shared.clone(), number, self.0.sequencer.head(), self.0.stats[number].clone())
    }

    /// The sequencer.
    pub fn sequencer(&self) -> &Sequencer {
        &self.0.sequencer
    }

    /// Reads the log.
    pub fn read(&self) -> &Arc<dyn Read> {
        &self.0.read
    }

    /// Where requests to the state are left.
    pub fn state(&self) -> &Arc<Queue> {
        &self.0.state
    }

    /// Reads the state.
    pub fn state_reader(&self) -> &StateReader {
        &self.0.state_reader
    }

    /// Filters of what is delivered but not stored.
    pub fn unlogged(&self) -> &[TopicFilter] {
        &self.0.shared.unlogged
    }

    /// The access rules.
    pub fn access(&self) -> &Access {
        &self.0.shared.access
    }

    /// `[limits]`.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.0.shared.limits
    }

    /// Keys the hashes of names.
    pub fn secret(&self) -> &Secret {
        &self.0.shared.secret
    }

    /// The counters of all shards together.
    pub fn stats(&self) -> ShardStats {
        ShardStats::sum(self.0.stats.iter().map(|stats| &**stats))
    }

    /// The counters of one shard.
    pub fn shard_stats(&self, shard: usize) -> &ShardStats {
        &self.0.stats[shard]
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.0.sequencer.shards()
    }

    /// Whether anyone runs the shards.
    pub(crate) fn has_rouse(&self) -> bool {
        self.0.rouse.get().is_some()
    }

    /// Says how shards that sleep are run or woken.
    pub fn set_rouse(&self, rouse: Rouse) {
        let _ = self.0.rouse.set(rouse);
    }

    /// Says what else is to be done about an event that is taken back; once.
    pub fn set_take_back(&self, take_back: TakeBack) {
        let _ = self.0.take_back.set(take_back);
    }

    pub(crate) fn take_back(&self) -> Option<&TakeBack> {
        self.0.take_back.get()
    }

    /// Runs or wakes them.
    pub fn rouse(&self, sleepers: Sleepers) {
        if let Some(rouse) = self.0.rouse.get().filter(|_| !sleepers.is_empty()) {
            rouse(sleepers);
        }
    }

    /// Puts a message into the mailbox of every shard.
    pub fn tell_all(&self, message: impl Fn() -> Message) {
        let mut sleepers = Sleepers::default();
        for shard in 0..self.shards() {
            self.0.sequencer.send(shard, message());
            sleepers.insert(shard);
        }
        self.rouse(sleepers);
    }

    /// Publishes events for `principal`, as one batch. `done` is called once they are stored at the configured
    /// durability (with the offset of the last one), or refused.
    ///
    /// # Errors
    /// The index of the first event that no log record can hold, or whose topic is no topic name: nothing is published.
    pub fn publish(
        &self,
        principal: &str,
        events: &[PortEvent],
        done: impl FnOnce(Result<Offset, Refusal>) + Send + 'static,
    ) -> Result<(), usize> {
        self.publish_by(WayIn::Source, principal, events, done)
    }

    /// Publishes what the bus itself has to say, as [`Bus::publish`].
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub fn publish_own(
        &self,
        events: &[PortEvent],
        done: impl FnOnce(Result<Offset, Refusal>) + Send + 'static,
    ) -> Result<(), usize> {
        self.publish_by(WayIn::Bus, "", events, done)
    }

    fn publish_by(
        &self,
        way_in: WayIn,
        principal: &str,
        events: &[PortEvent],
        done: impl FnOnce(Result<Offset, Refusal>) + Send + 'static,
    ) -> Result<(), usize> {
        let draft = draft_of(principal, way_in, events)?;
        if draft.is_empty() {
            done(Ok(self.0.sequencer.head()));
        } else {
            self.publish_draft(draft, done);
        }
        Ok(())
    }

    /// Publishes records that were made already, as one batch.
    pub(crate) fn publish_draft(
        &self,
        draft: Draft,
        done: impl FnOnce(Result<Offset, Refusal>) + Send + 'static,
    ) {
        let sequencer = &self.0.sequencer;
        let slot = sequencer.port_slot();
        sequencer.ports().submit(Box::new(done), |ticket| {
            sequencer.leave(slot, [Deposit::Batch { ticket, draft, wants_sync: true }]);
        });
        self.rouse(sequencer.run());
    }

    /// Publishes `$SYS`: it is delivered but not stored, and new subscriptions get the last values.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub fn publish_sys(&self, events: &[PortEvent]) -> Result<(), usize> {
        let draft = draft_of("", WayIn::Bus, events)?;
        let sequencer = &self.0.sequencer;
        self.0.shared.sys.set(&Batch::unlogged(draft.clone(), sequencer.head(), wall_us()));
        let sleepers = sequencer.deposit(sequencer.port_slot(), [Deposit::Unlogged(draft)]);
        self.rouse(sleepers);
        Ok(())
    }

    /// Ends the state's thread, which saves what it was asked, the section's thread, and the commit thread after a last
    /// commit. Shards and listeners are stopped by `net` before.
    pub fn stop(&self) {
        self.0.state_stopping.store(true, Ordering::Release);
        self.0.state.bell().ring();
        let thread = lock(&self.0.state_thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.0.section_stopping.store(true, Ordering::Release);
        self.0.sequencer.section_bell().ring();
        let thread = lock(&self.0.section_thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.0.stopping.store(true, Ordering::Release);
        self.0.sequencer.bell().ring();
        let thread = lock(&self.0.commit_thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    pub(crate) fn is_section_stopping(&self) -> bool {
        self.0.section_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn state_is_stopping(&self) -> bool {
        self.0.state_stopping.load(Ordering::Acquire)
    }

    /// Has the commit thread do something with the log's committing side, and waits for it. `None`: the bus has stopped.
    pub fn on_commit_thread<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut dyn Commit) -> T + Send + 'static,
    ) -> Option<T> {
        let result = self.0.errands.leave(errand);
        self.0.sequencer.bell().ring();
        result.recv().ok()
    }

    pub(crate) fn errands(&self) -> &Errands {
        &self.0.errands
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }
}

/// The wall clock, microseconds since 1970.
pub fn wall_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

fn draft_of(principal: &str, way_in: WayIn, events: &[PortEvent]) -> Result<Draft, usize> {
    let mut draft = Draft::new();
    let mut attributes = AttributesBuf::new();
    for (index, event) in events.iter().enumerate() {
        attributes.clear();
        let mut kept = true;
        if let Some(content_type) = &event.content_type {
            kept &= attributes.push(&Attribute::ContentType(content_type));
        }
        for (name, value) in &event.attributes {
            kept &= attributes.push(&Attribute::Context(name, value));
        }
        let topic = firehose_topic::TopicName::new(&event.topic).map_err(|_| index)?;
        let record = Event {
            flags: Flags::new(event.qos.min(2), event.retain, None),
            topic: topic.as_str(),
            attributes: attributes.as_attributes(),
            payload: &event.payload,
        };
        let origin = Origin { principal, session: 0, packet_id: 0, way_in };
        if !kept || draft.push(&record, &origin).is_err() {
            return Err(index);
        }
    }
    Ok(draft)
}
