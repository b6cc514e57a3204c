//! The sequencer: gives every batch its place in the one order. A short critical section that nobody waits for
//! (DESIGN section 3, "Sequencer"; ADR 2). It runs on whichever thread deposits while nobody is inside.
//!
//! In the section: assign offsets and time, write once, push into the mailboxes, publish the head. Nothing in it is
//! proportional to bytes but the write itself: records and their checksums were made before.

pub use crate::deposit::Deposit;
pub use crate::sleepers::{SHARDS_MAX, Sleepers};

use crate::bell::Bell;
use crate::handoff::{Mailbox, Reader, Turnstile};
use crate::message::Message;
use crate::port::Ports;
use crate::state::Queue;
use firehose_log::{Append, Batch, Offset, Refusal, Submission};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A write that took longer than this moves the section to its own thread.
const SLOW_WRITE: Duration = Duration::from_millis(1);
/// So many quick writes in a row there, and it moves back.
const QUICK_WRITES: u32 = 32;

/// When an acknowledgement may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`.
    Sync,
    /// After `write`: survives kill -9, not a power cut.
    Os,
}

/// Who runs the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever deposits; the section's own thread while the disk is slow. The default.
    Depositor,
    /// Always the section's own thread, as `bench/` compares it with the default (ADR 2).
    Thread,
}

/// What the section works on.
struct Section {
    append: Box<dyn Append>,
    submissions: Vec<Submission>,
    after: Vec<(usize, Deposit)>,
    deferred: Vec<(usize, Deposit)>,
    quick_writes: u32,
}

/// One shard's side of the sequencer.
#[derive(Default)]
pub struct Desk {
    /// What the shard has to look at.
    pub mailbox: Mailbox<Message>,
    /// Bytes of batches in the mailbox.
    queued_bytes: AtomicUsize,
    /// Whether a client of the shard subscribes to anything.
    interest: AtomicBool,
    /// The newest offset of the shard's own deposits that an acknowledgement waits for.
    wants_durable: AtomicU64,
}

/// The sequencer and everything around its section.
pub struct Sequencer {
    turnstile: Turnstile<(usize, Deposit), Section>,
    desks: Box<[Desk]>,
    ports: Ports,
    head: AtomicU64,
    durable: AtomicU64,
    durability: Durability,
    role: Role,
    /// The section's thread has it because the disk is slow.
    slow: AtomicBool,
    section_bell: Bell,
    bell: Bell,
    /// The log can make nothing durable any more.
    commit_failed: AtomicBool,
    /// The log used up the segment that was made ahead.
    upkeep_wish: AtomicBool,
    mailbox_bytes_max: usize,
    clock: fn() -> i64,
    /// Gets the batches that matter to the state.
    state: OnceLock<Arc<Queue>>,
}

impl Sequencer {
    /// A sequencer for `shards` shards over the log's appending side. `clock` gives the wall clock in microseconds.
    pub fn new(
        shards: usize,
        append: Box<dyn Append>,
        durability: Durability,
        role: Role,
        mailbox_bytes_max: usize,
        clock: fn() -> i64,
    ) -> Sequencer {
        let (head, durable) = (append.head(), append.durable());
        let section = Section {
            append,
            submissions: Vec::new(),
            after: Vec::new(),
            deferred: Vec::new(),
            quick_writes: 0,
        };
        Sequencer {
            turnstile: Turnstile::new(shards + 1, section),
            desks: (0..shards).map(|_| Desk::default()).collect(),
            ports: Ports::default(),
            head: AtomicU64::new(head),
            durable: AtomicU64::new(durable),
            durability,
            role,
            slow: AtomicBool::new(false),
            section_bell: Bell::default(),
            bell: Bell::default(),
            commit_failed: AtomicBool::new(false),
            upkeep_wish: AtomicBool::new(false),
            mailbox_bytes_max,
            clock,
            state: OnceLock::new(),
        }
    }

    /// From now on the state gets every batch that matters to it, before anyone can know of its place: to be said before
    /// the first deposit.
    pub fn set_state(&self, queue: Arc<Queue>) {
        let _ = self.state.set(queue);
    }

    /// Leaves deposits in a slot (a shard's number, or [`Sequencer::port_slot`]), in order, and runs the section
    /// unless somebody else does. Gives the shards that have to be run or woken.
    pub fn deposit(&self, slot: usize, deposits: impl IntoIterator<Item = Deposit>) -> Sleepers {
        self.leave(slot, deposits);
        self.run()
    }

    /// Leaves deposits in a slot, in order; [`Sequencer::run`] has to follow.
    pub fn leave(&self, slot: usize, deposits: impl IntoIterator<Item = Deposit>) {
        self.turnstile.deposit(slot, deposits.into_iter().map(|deposit| (slot, deposit)));
    }

    /// Sees to it that what lies in the slots gets its place: runs the section, or leaves it to its own thread if
    /// that has it. Gives the shards that have to be run or woken.
    pub fn run(&self) -> Sleepers {
        if self.thread_has_section() {
            self.section_bell.ring();
            return Sleepers::default();
        }
        self.run_section()
    }

    /// Runs the section if it is free, until nothing lies in a slot; but not for another write once one was slow, since
    /// whoever calls has better to do: then the section's thread goes on.
    pub fn run_section(&self) -> Sleepers {
        self.run_while(|| !self.slow.load(Ordering::Acquire))
    }

    /// The section's thread, while it has it: one round. For what is left it finds its bell rung.
    pub(crate) fn run_round(&self) -> Sleepers {
        self.run_while(|| false)
    }

    fn run_while(&self, go_on: impl Fn() -> bool) -> Sleepers {
        let mut sleepers = Sleepers::default();
        let mut ring = false;
        let left = self.turnstile.run(|section, deposits| {
            ring |= self.place(section, deposits, &mut sleepers);
            if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if ring {
            self.bell.ring();
        }
        if left.is_break() && !self.turnstile.is_empty() {
            self.section_bell.ring();
        }
        // With `sync` too: the commit thread may have been quicker than the answer to a deposit.
        self.ports.complete(match self.durability {
            Durability::Os => Offset::MAX,
            Durability::Sync => self.durable(),
        });
        sleepers
    }

    /// The slot of everybody who is not a shard.
    pub fn port_slot(&self) -> usize {
        self.desks.len()
    }

    /// One shard's mailbox.
    pub fn mailbox(&self, shard: usize) -> &Mailbox<Message> {
        &self.desks[shard].mailbox
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.desks.len()
    }

    /// Says whether any client of the shard subscribes: set before its first SUBSCRIBE is sequenced.
    pub fn set_interest(&self, shard: usize, interest: bool) {
        self.desks[shard].interest.store(interest, Ordering::SeqCst);
    }

    /// The shard has looked at so many bytes of batches.
    pub fn drained(&self, shard: usize, bytes: usize) {
        self.desks[shard].queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The newest offset that has its place, and was pushed to every mailbox.
    pub fn head(&self) -> Offset {
        self.head.load(Ordering::Acquire)
    }

    /// When acknowledgements may leave.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// What wakes the commit thread.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Publishers that are not clients.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// What wakes the section's thread.
    pub fn section_bell(&self) -> &Bell {
        &self.section_bell
    }

    /// Whether the section's thread has it.
    pub fn thread_has_section(&self) -> bool {
        self.role == Role::Thread || self.slow.load(Ordering::Acquire)
    }

    /// Whether the log wants its upkeep before the next second; taken once.
    pub(crate) fn take_upkeep_wish(&self) -> bool {
        self.upkeep_wish.swap(false, Ordering::AcqRel)
    }

    /// The newest offset known to be durable.
    pub fn durable(&self) -> Offset {
        self.durable.load(Ordering::Acquire)
    }

    /// Whether an acknowledgement waits for a commit, or the state does.
    pub fn wants_commit(&self) -> bool {
        let durable = self.durable();
        if self.state.get().is_some_and(|state| state.wants_durable() > durable) {
            return true;
        }
        self.durability == Durability::Sync && self.waits_for_commit(durable)
    }

    fn waits_for_commit(&self, durable: Offset) -> bool {
        self.desks.iter().any(|desk| desk.wants_durable.load(Ordering::Acquire) > durable)
            || self.ports.wants_durable() > durable
    }

    /// The commit thread: everything up to `durable` is. Lets acknowledgements go; gives the shards to run or wake.
    pub fn set_durable(&self, durable: Offset) -> Sleepers {
        let before = self.durable.swap(durable, Ordering::SeqCst);
        let mut sleepers = Sleepers::default();
        for (shard, desk) in self.desks.iter().enumerate() {
            if desk.wants_durable.load(Ordering::SeqCst) > before
                && self.send(shard, Message::Durable(durable)) == Reader::Asleep
            {
                sleepers.insert(shard);
            }
        }
        self.ports.complete(durable);
        if let Some(state) = self.state.get().filter(|state| state.wants_durable() > before) {
            state.bell().ring();
        }
        sleepers
    }

    /// The commit thread: nothing that waits will ever be durable. It is refused, and whatever comes later is by the log.
    pub fn set_commit_failed(&self, why: &Refusal) -> Sleepers {
        self.commit_failed.store(true, Ordering::SeqCst);
        let durable = self.durable();
        let mut sleepers = Sleepers::default();
        for (shard, desk) in self.desks.iter().enumerate() {
            if desk.wants_durable.load(Ordering::SeqCst) > durable
                && self.send(shard, Message::CommitFailed) == Reader::Asleep
            {
                sleepers.insert(shard);
            }
        }
        self.ports.fail(durable, why);
        if let Some(state) = self.state.get() {
            state.log_failed(why);
        }
        sleepers
    }

    /// Puts a message into a shard's mailbox, outside the order of the section.
    pub fn send(&self, shard: usize, message: Message) -> Reader {
        self.desks[shard].mailbox.push(message)
    }

    /// The section. Marks with which a slot begins come first, so that who subscribes gets what others publish at that
    /// moment. Batches of all slots go to the log in one write; other marks and unlogged publications come behind them,
    /// and what the same slot deposited after those waits for the next round, so that a slot's order holds.
    /// Returns whether the commit thread has something to do.
    fn place(
        &self,
        section: &mut Section,
        deposits: &mut Vec<(usize, Deposit)>,
        sleepers: &mut Sleepers,
    ) -> bool {
        let mut ring = false;
        while !deposits.is_empty() {
            // Slots of which something has come, whose batches have to wait for the next round, and of which something does.
            let (mut begun, mut closed, mut waiting) = (0u128, 0u128, 0u128);
            for (slot, deposit) in deposits.drain(..) {
                let bit = 1u128 << slot;
                match deposit {
                    _ if waiting & bit != 0 => section.deferred.push((slot, deposit)),
                    Deposit::Mark { .. } if begun & bit == 0 => {
                        self.place_without_offset(slot, deposit, sleepers);
                    }
                    Deposit::Batch { .. } if closed & bit != 0 => {
                        waiting |= bit;
                        section.deferred.push((slot, deposit));
                    }
                    Deposit::Batch { ticket, draft, wants_sync } => {
                        begun |= bit;
                        ring |= wants_sync && self.durability == Durability::Sync;
                        section.submissions.push(Submission {
                            draft,
                            ticket,
                            from: slot_id(slot, wants_sync),
                        });
                    }
                    Deposit::Unlogged(_) | Deposit::Mark { .. } => {
                        begun |= bit;
                        closed |= bit;
                        section.after.push((slot, deposit));
                    }
                }
            }
            self.append(section, sleepers);
            for (slot, deposit) in section.after.drain(..) {
                self.place_without_offset(slot, deposit, sleepers);
            }
            std::mem::swap(deposits, &mut section.deferred);
        }
        if section.append.wants_upkeep() {
            self.upkeep_wish.store(true, Ordering::Release);
            ring = true;
        }
        ring || section.append.wants_commit()
    }

    fn append(&self, section: &mut Section, sleepers: &mut Sleepers) {
        if section.submissions.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut head = None;
        section.append.append((self.clock)(), &mut section.submissions, &mut |from, ticket, outcome| {
            if let Ok(batch) = &outcome {
                head = Some(batch.last());
            }
            self.placed(from, ticket, outcome, sleepers);
        });
        if let Some(head) = head {
            self.head.store(head, Ordering::Release);
        }
        self.weigh(section, began.elapsed());
    }

    /// Decides who has the section next, by how long the write took.
    fn weigh(&self, section: &mut Section, took: Duration) {
        if took > SLOW_WRITE {
            section.quick_writes = 0;
            self.slow.store(true, Ordering::Release);
        } else if section.quick_writes < QUICK_WRITES {
            section.quick_writes += 1;
            if section.quick_writes == QUICK_WRITES {
                self.slow.store(false, Ordering::Release);
            }
        }
    }

    fn placed(&self, from: u32, ticket: u64, outcome: Result<Arc<Batch>, Refusal>, sleepers: &mut Sleepers) {
        if let (Ok(batch), Some(state)) = (&outcome, self.state.get())
            && batch.is_marked()
        {
            state.mark(batch);
        }
        let (slot, wants_sync) = from_slot_id(from);
        if slot == self.port_slot() {
            self.ports.placed(ticket, outcome.as_ref().map(|batch| batch.last()).map_err(Refusal::clone));
        } else if wants_sync && let Ok(batch) = &outcome {
            self.wish_durable(slot, batch.last());
        }
        for (shard, desk) in self.desks.iter().enumerate() {
            let own = (shard == slot).then_some(ticket);
            let reader = match &outcome {
                Ok(batch) if desk.interest.load(Ordering::SeqCst) => self.push(desk, batch, own),
                Ok(batch) => own.map(|ticket| self.placed_alone(desk, ticket, Ok(batch.last()))),
                Err(refusal) => own.map(|ticket| self.placed_alone(desk, ticket, Err(refusal.clone()))),
            };
            if reader == Some(Reader::Asleep) {
                sleepers.insert(shard);
            }
        }
    }

    /// A shard waits for this offset to be durable. The commit thread may have made it so already, between the write
    /// and now: then it has not seen the wish, and the shard is told here (either this sees its `durable`, or it sees
    /// this wish).
    fn wish_durable(&self, shard: usize, offset: Offset) {
        self.desks[shard].wants_durable.store(offset, Ordering::SeqCst);
        let durable = self.durable.load(Ordering::SeqCst);
        if durable >= offset {
            // Its deposit's own message follows, and tells whether it sleeps.
            self.send(shard, Message::Durable(durable));
        } else if self.commit_failed.load(Ordering::SeqCst) {
            self.send(shard, Message::CommitFailed);
        }
    }

    fn placed_alone(&self, desk: &Desk, ticket: u64, outcome: Result<Offset, Refusal>) -> Reader {
        desk.mailbox.push(Message::Placed { ticket, outcome })
    }

    /// Pushes a batch, or notes that it was missed when the mailbox is full.
    fn push(&self, desk: &Desk, batch: &Arc<Batch>, own: Option<u64>) -> Option<Reader> {
        let bytes = batch.bytes_len();
        if desk.queued_bytes.load(Ordering::Relaxed) + bytes <= self.mailbox_bytes_max {
            desk.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Some(desk.mailbox.push(Message::Batch { batch: batch.clone(), ticket: own }));
        }
        if !batch.is_logged() {
            return None;
        }
        if let Some(ticket) = own {
            desk.mailbox.push(Message::Placed { ticket, outcome: Ok(batch.last()) });
        }
        let missed = Message::Missed { first: batch.base(), last: batch.last() };
        Some(desk.mailbox.push_or(missed, |messages, missed| match (messages.last_mut(), missed) {
            (Some(Message::Missed { last, .. }), Message::Missed { last: newest, .. }) => {
                *last = newest;
                None
            }
            (_, missed) => Some(missed),
        }))
    }

    fn place_without_offset(&self, slot: usize, deposit: Deposit, sleepers: &mut Sleepers) {
        match deposit {
            Deposit::Mark { token } => {
                if self.send(slot, Message::Mark { token, head: self.head() }) == Reader::Asleep {
                    sleepers.insert(slot);
                }
            }
            Deposit::Unlogged(draft) => {
                let batch = Arc::new(Batch::unlogged(draft, self.head(), (self.clock)()));
                for (shard, desk) in self.desks.iter().enumerate() {
                    if desk.interest.load(Ordering::SeqCst)
                        && self.push(desk, &batch, None) == Some(Reader::Asleep)
                    {
                        sleepers.insert(shard);
                    }
                }
            }
            Deposit::Batch { .. } => debug_assert!(false, "batches go through the log"),
        }
    }
}

/// A submission carries its slot, and in the highest bit whether an acknowledgement waits.
fn slot_id(slot: usize, wants_sync: bool) -> u32 {
    slot as u32 | (u32::from(wants_sync) << 31)
}

fn from_slot_id(id: u32) -> (usize, bool) {
    ((id & !(1 << 31)) as usize, id >> 31 == 1)
}
