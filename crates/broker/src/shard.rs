//! A shard: connections, sessions, its own subscription trie, outboxes, timers. Sans-I/O: bytes, messages and time go
//! in, bytes and actions come out; there is no lock, no async and no file in it, so that a seeded simulation can drive
//! it. `net` runs one on each core; a helper may run it while it sleeps.
//!
//! One turn: [`Shard::go_on_with_filters`], [`Shard::receive`] for what sockets brought, [`Shard::take_outgoing`] to the sequencer, [`Shard::drain`]
//! of the mailbox, [`Shard::take_actions`], then [`Shard::flush`] of each dirty connection, once.
//!
//! # Invariants
//!
//! 1. `stand` is the newest offset that this shard has looked at. Live lanes have been given everything up to it; a
//!    lane that reads the log never reads beyond it, and turns live exactly where it has read up to it.
//! 2. An acknowledgement leaves after its deposit is stored, and behind those of earlier publishes of its connection.
//! 3. A frame is encoded once per turn and shape, whatever the number of subscribers.

pub use crate::action::{Action, Appetite, Now};

use crate::acks::Deposits;
use crate::arrival::Secret;
use crate::arrivals::Arrivals;
use crate::deliver::RunCache;
use crate::followers::Followers;
use crate::frames::TurnFrames;
use crate::groups::Groups;
use crate::inflight::Inflight;
use crate::kept::KeptBytes;
use crate::limits::Limits;
use crate::message::Message;
use crate::outbox::{Flushed, Scratch, Wire};
use crate::outgoing::{Outgoing, OutgoingBuilder};
use crate::pending::Pending;
use crate::replays::Replays;
use crate::session::{Interest, Session};
use crate::state::{Answer, GroupNames, StoredNames};
use crate::stats::ShardStats;
use crate::sys::LatestSys;
use firehose_auth::{Access, Auth};
use firehose_log::{Cursor, Offset};
use firehose_mqtt::Reason;
use firehose_topic::{TopicFilter, Trie};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;

/// A shard that runs looks every second for clients that were not heard.
const SWEEP_SECS_MAX: u32 = 1;

/// What every shard shares.
#[derive(Clone)]
pub struct Shared {
    /// `[limits]`.
    pub limits: Arc<Limits>,
    /// Who may do what.
    pub access: Access,
    /// Replays that run, of all shards.
    pub replays: Arc<Replays>,
    /// Filters of what is delivered but not stored.
    pub unlogged: Arc<[TopicFilter]>,
    /// Keys the hashes of names.
    pub secret: Secret,
    /// The last values of `$SYS`.
    pub sys: Arc<LatestSys>,
    /// Which sessions the state has.
    pub stored: Arc<StoredNames>,
    /// And which groups of shared subscriptions there are.
    pub groups: Arc<GroupNames>,
    /// How many shards there are.
    pub shards: usize,
    /// Bytes of CONNECTs that wait for the state, of all shards.
    pub connecting_bytes: Arc<AtomicUsize>,
    /// What clients make the bus keep, in all shards.
    pub kept: Arc<KeptBytes>,
    /// Names the log in cursors.
    pub log_id: u64,
    /// The log's present epoch.
    pub epoch: u32,
    /// Where the log stood when it was opened: what was recorded up to there is of an earlier epoch.
    pub recovered: Cursor,
    /// Whether an acknowledgement waits for `fdatasync`.
    pub acks_wait_for_sync: bool,
}

/// See the module.
pub struct Shard {
    /// Which of the shards it is.
    pub(crate) number: usize,
    pub(crate) shared: Shared,
    pub(crate) auth: Arc<Auth>,
    pub(crate) auth_generation: u64,
    pub(crate) now: Now,
    pub(crate) sessions: Slab<Session>,
    pub(crate) by_id: HashMap<u64, Vec<u32>, std::hash::BuildHasherDefault<IdentityHasher>>,
    pub(crate) next_generation: u32,
    pub(crate) trie: Trie<Interest>,
    pub(crate) followers: Followers,
    pub(crate) stand: Offset,
    pub(crate) durable: Offset,
    /// The log makes nothing durable any more.
    pub(crate) commit_has_failed: bool,
    pub(crate) outgoing: OutgoingBuilder,
    pub(crate) deposits: Deposits,
    pub(crate) pending: HashMap<u64, Pending>,
    /// Of those, with very many filters, whose turn is next.
    pub(crate) lined_up: VecDeque<u64>,
    /// Sessions that are read again in the next turn.
    pub(crate) resuming: Vec<u32>,
    pub(crate) questions: HashMap<u64, (u64, usize)>,
    pub(crate) next_token: u64,
    pub(crate) frames: TurnFrames,
    pub(crate) runs: RunCache,
    pub(crate) actions: Vec<Action>,
    pub(crate) dirty: VecDeque<u32>,
    pub(crate) throttled: Vec<u32>,
    pub(crate) parked_bytes: usize,
    /// Messages that are saved before they leave.
    pub(crate) held_bytes: usize,
    /// Sessions that wish something to be saved, with their generations.
    pub(crate) to_save: Vec<(u32, u32)>,
    /// Groups of shared subscriptions whose home it is.
    pub(crate) groups: Groups,
    /// Sessions that have something to tell their groups, with their generations.
    pub(crate) to_settle: Vec<(u32, u32)>,
    /// Clients that wait for the state.
    pub(crate) arrivals: Arrivals,
    /// The mark behind which the sessions are saved anew, since the state lost its file.
    pub(crate) rescue_mark: Option<u64>,
    /// Read from the log for lanes, and not flushed once.
    pub(crate) fresh_bytes: usize,
    /// Questions to the log that are not answered.
    pub(crate) reads: usize,
    /// Sessions whose lanes wait until those are fewer.
    pub(crate) starving: crate::starving::Starving,
    pub(crate) scratch: Scratch,
    pub(crate) attributes: firehose_log::AttributesBuf,
    /// Events that were taken back, until the turn's frames are sealed.
    pub(crate) redacted: Vec<(Offset, Option<Sender<Infallible>>)>,
    /// The last ones: another shard may still hand us one.
    pub(crate) redacted_lately: VecDeque<Offset>,
    /// Such events that answers of the log which are under way may still have.
    pub(crate) taken_back: Vec<Offset>,
    pub(crate) swept_secs: u32,
    pub(crate) stopping: bool,
    /// Counters; read by others through [`ShardStats`].
    pub stats: Arc<ShardStats>,
}

/// The keys of `by_id` are hashes already.
#[derive(Default)]
pub(crate) struct IdentityHasher(u64);

impl std::hash::Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Shard {
    /// The shard of that number, which stands at `head`.
    pub fn new(shared: Shared, number: usize, head: Offset, stats: Arc<ShardStats>) -> Shard {
        let auth = shared.access.current();
        let auth_generation = shared.access.generation();
        Shard {
            number,
            auth,
            auth_generation,
            shared,
            now: Now::default(),
            sessions: Slab::new(),
            by_id: HashMap::default(),
            next_generation: 1,
            trie: Trie::default(),
            followers: Followers::default(),
            stand: head,
            durable: head,
            commit_has_failed: false,
            outgoing: OutgoingBuilder::default(),
            deposits: Deposits::default(),
            pending: HashMap::new(),
            lined_up: VecDeque::new(),
            resuming: Vec::new(),
            questions: HashMap::new(),
            next_token: 1,
            frames: TurnFrames::default(),
            runs: RunCache::default(),
            actions: Vec::new(),
            dirty: VecDeque::new(),
            throttled: Vec::new(),
            parked_bytes: 0,
            held_bytes: 0,
            to_save: Vec::new(),
            groups: Groups::default(),
            to_settle: Vec::new(),
            arrivals: Arrivals::default(),
            rescue_mark: None,
            fresh_bytes: 0,
            reads: 0,
            starving: Default::default(),
            scratch: Scratch::default(),
            attributes: firehose_log::AttributesBuf::default(),
            redacted: Vec::new(),
            redacted_lately: VecDeque::new(),
            taken_back: Vec::new(),
            swept_secs: 0,
            stopping: false,
            stats,
        }
    }

    /// The time of the turn that begins.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// What goes to the sequencer: to be deposited, after setting the interest, before the mailbox is drained.
    pub fn take_outgoing(&mut self) -> Option<Outgoing> {
        let sealed = self.outgoing.take()?;
        self.deposits.sent(sealed.waiting);
        Some(sealed.outgoing)
    }

    /// Looks at messages, in order.
    pub fn drain(&mut self, messages: &mut Vec<Message>) {
        for message in messages.drain(..) {
            self.look_at(message);
        }
        self.wake_followers();
        self.frames.seal();
        self.drop_redacted();
    }

    /// What is asked of whoever runs the shard, in order.
    pub fn take_actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.settle_all();
        self.save_all();
        self.send_assigned();
        self.actions.drain(..)
    }

    /// Whether something waits to be deposited.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether actions wait to be taken.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
            || !self.to_save.is_empty()
            || !self.to_settle.is_empty()
            || self.groups.has_something()
    }

    /// The next connection to flush.
    pub fn next_dirty(&mut self) -> Option<u32> {
        self.dirty.pop_front()
    }

    /// How many connections are to be flushed.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Whether the turn left nothing to do that is not waiting for a socket, a message or the time.
    pub fn is_idle(&self) -> bool {
        let waits = !self.lined_up.is_empty() || !self.resuming.is_empty();
        self.dirty.is_empty() && !self.has_actions() && self.outgoing.is_empty() && !waits
    }

    /// Memory that queued messages keep alive: of connections that do not take more, and what lanes have just read.
    pub fn queued_bytes(&self) -> usize {
        self.parked_bytes + self.fresh_bytes
    }

    /// Whether nobody is connected, or about to be.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && !self.arrivals.is_any_entering()
    }

    /// The session's socket takes bytes again.
    pub fn writable(&mut self, session: u32) {
        if let Some(connection) =
            self.sessions.get_mut(session as usize).and_then(|it| it.connection.as_deref_mut())
            && connection.blocked
        {
            connection.blocked = false;
            mark_dirty(&mut self.dirty, session, &mut connection.dirty);
        }
    }

    /// Writes what the session's connection is to be sent.
    pub fn flush(&mut self, session: u32, wire: &mut dyn Wire) {
        self.flush_one(session, wire);
        self.feed();
    }

    fn flush_one(&mut self, session: u32, wire: &mut dyn Wire) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let (behind, has_more_lanes) = (it.is_behind(), !it.more_lanes.is_empty());
        let is_stored = it.persistence.is_some();
        let (scans, is_member) = (it.scans.is_some(), it.shares.is_some());
        let Some(connection) = it.connection.as_deref_mut() else { return };
        connection.dirty = false;
        self.fresh_bytes -= std::mem::take(&mut connection.fresh_bytes);
        if connection.closing {
            // Nothing may follow a DISCONNECT [MQTT-3.14.4-1]: what was delivered since is not sent.
            connection.outbox.keep_only_control();
        } else if connection.blocked {
            self.park(session);
            return self.count_kept(session);
        }
        if it.inflight.is_none() && connection.outbox.wants_window() {
            it.inflight = Some(Box::new(match it.keeps_places() {
                false => Inflight::new(it.inflight_max),
                true => Inflight::resumed(it.inflight_max, &[], 1),
            }));
        }
        let flushed = it.write(&mut self.scratch, wire);
        let Some(connection) = it.connection.as_deref_mut() else { return };
        if flushed == Flushed::Dead {
            return self.hang_up(session, "the socket failed");
        }
        if connection.closing {
            return self.end(session);
        }
        connection.blocked = flushed == Flushed::Blocked;
        connection.window_shut = flushed == Flushed::Window;
        if flushed == Flushed::More {
            mark_dirty(&mut self.dirty, session, &mut connection.dirty);
        }
        if flushed == Flushed::Empty {
            it.gaps_are_out();
        }
        let keeps_nothing = it.keeps_nothing();
        if is_stored {
            self.go_on_sending(session);
        }
        if is_member {
            self.settle_soon(session);
        }
        self.park(session);
        if has_more_lanes {
            self.merge_live(session);
        }
        if behind || scans {
            self.pump(session);
        }
        if !keeps_nothing {
            self.count_kept(session);
        }
    }

    /// The peer closed its side, or the socket failed.
    pub fn hang_up(&mut self, session: u32, why: &str) {
        if let Some(it) = self.sessions.get(session as usize) {
            tracing::debug!(client = %it.client_id, why, "connection lost");
            self.end(session);
        }
    }

    /// Once in a while: keep-alives, pauses, throttled replays. Returns after how many milliseconds it wants to be called.
    pub fn tick(&mut self) -> u64 {
        for session in std::mem::take(&mut self.throttled) {
            self.pump(session);
        }
        if self.swept_secs != self.now.secs() {
            self.sweep();
        }
        if self.throttled.is_empty() { 1000 - self.now.ms % 1000 } else { 50 }
    }

    fn look_at(&mut self, message: Message) {
        match message {
            Message::Batch { batch, ticket } => {
                if let Some(ticket) = ticket {
                    self.placed(ticket, Ok(batch.last()));
                }
                self.deliver(&batch);
            }
            Message::Placed { ticket, outcome } => self.placed(ticket, outcome),
            Message::Durable(durable) => {
                self.durable = self.durable.max(durable);
                self.release();
            }
            Message::CommitFailed => self.commit_failed(),
            Message::Mark { token, head } => {
                self.stand = self.stand.max(head);
                self.sequenced(token, head);
            }
            Message::Missed { first, last } => self.missed(first, last),
            Message::Arrival(arrival) => self.arrive(*arrival),
            Message::Read { lane, chunk } => self.answer(lane, chunk),
            Message::Resolved { token, start } => self.resolved(token, start),
            Message::Fetched { session, events } => self.fetched(session, events),
            Message::Group(message) => self.group_message(*message),
            Message::State(Answer::Saved { token }) => self.saved(token),
            Message::State(Answer::Orphaned { hash, offsets }) => self.orphaned(hash, &offsets),
            Message::State(Answer::Group { token, stored }) => self.group_opened(token, stored),
            Message::StateLost => self.state_lost(),
            Message::State(Answer::Opened { token, outcome }) => self.opened(token, outcome),
            Message::State(Answer::Entered { token }) => self.entered(token),
            Message::Retained { scan, page } => self.retained(scan, page),
            Message::Redacted { offset, seen } => self.redacted.push((offset, seen)),
            Message::OverBudget { session, generation } => self.over_budget(session, generation),
            Message::Reload => self.reload(),
            Message::Shutdown => self.shut_down(),
        }
    }

    /// The mailbox was full: every live lane reads the log from there.
    fn missed(&mut self, first: Offset, last: Offset) {
        self.stats.mailbox_overflows.add(1);
        self.stand = self.stand.max(last);
        let all: Vec<u32> = self.sessions.iter().map(|(session, _)| session as u32).collect();
        for session in all {
            let Some(it) = self.sessions.get_mut(session as usize) else { continue };
            if it.subscriptions.end() == 0 {
                continue;
            }
            for lane in it.lanes() {
                if let Some(lane) = it.lane_mut(lane).filter(|lane| lane.is_live()) {
                    lane.fall_back(first);
                }
            }
            self.pump(session);
        }
        self.groups_missed(first);
    }

    /// Disconnects who was not heard for too long. What time this shard did not run, because its thread was kept by a
    /// disk or the machine stood still, does not count: what was sent in it has not been read yet.
    fn sweep(&mut self) {
        let now = self.now.secs();
        let deaf_secs = now.saturating_sub(self.swept_secs.saturating_add(SWEEP_SECS_MAX));
        self.swept_secs = now;
        if deaf_secs > 0 {
            for (_, it) in &mut self.sessions {
                it.heard_secs = it.heard_secs.saturating_add(deaf_secs).min(now);
            }
        }
        let mut late = Vec::new();
        for (session, it) in &self.sessions {
            let patience = (u32::from(it.keep_alive_secs) * 3).div_ceil(2);
            if patience > 0 && now.saturating_sub(it.heard_secs) > patience {
                late.push(session as u32);
            }
        }
        for session in late {
            let paused = self.connection(session).is_some_and(|connection| connection.pauses.any());
            if !paused {
                self.disconnect(
                    session,
                    Reason::KeepAliveTimeout,
                    "nothing heard for one and a half keep-alives",
                );
            }
        }
        self.resume_paused();
        self.sweep_persistent();
        self.sweep_groups();
        self.sweep_arrivals();
        self.sweep_expiring();
    }

    fn shut_down(&mut self) {
        self.stopping = true;
        let all: Vec<u32> = self.sessions.iter().map(|(session, _)| session as u32).collect();
        for session in all {
            self.disconnect(session, Reason::ServerShuttingDown, "the bus stops");
        }
        self.sweep_arrivals();
    }

    pub(crate) fn connection(&mut self, session: u32) -> Option<&mut crate::connection::Connection> {
        self.sessions.get_mut(session as usize)?.connection.as_deref_mut()
    }

    /// Puts the connection on the list of those to flush.
    pub(crate) fn dirty(&mut self, session: u32) {
        if let Some(connection) =
            self.sessions.get_mut(session as usize).and_then(|it| it.connection.as_deref_mut())
        {
            mark_dirty(&mut self.dirty, session, &mut connection.dirty);
        }
    }
}

/// Puts a connection on the list of those to flush, once.
pub(crate) fn mark_dirty(list: &mut VecDeque<u32>, session: u32, dirty: &mut bool) {
    if !*dirty {
        *dirty = true;
        list.push_back(session);
    }
}
