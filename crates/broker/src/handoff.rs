//! How threads hand work to each other without waiting: [`Turnstile`] (slots in front of the sequencer's section)
//! and [`Mailbox`] (what a shard has to look at, with its sleep flag). Small on purpose: `tests/handoff_loom.rs`
//! checks every interleaving of it.
//!
//! # Invariants
//!
//! 1. *No deposit is left behind.* Who deposits and finds the section taken may go away: the one inside looks at the
//!    slots again after it has left the section. The slots' own locks order the two: either the look comes after the
//!    deposit and sees it, or it came before, and then the section was free when the depositor tried it. One who may
//!    not stay that long says so (`Break`), and is told that the look is somebody else's now.
//! 2. *No message sleeps.* The sleep flag lies under the mailbox's lock. A shard falls asleep only with an empty
//!    mailbox; who puts a message into a sleeping shard's mailbox is told so, and runs or wakes it. Who runs it looks
//!    at the mailbox again after letting go of the shard (the argument of 1).
//! 3. *One order.* Messages that the section pushes arrive in every mailbox in the order of the section.

use crate::sync::{Mutex, lock, try_lock};
use std::ops::ControlFlow;

/// A section that only one thread is in, with a slot in front of it for each depositor.
pub struct Turnstile<D, S> {
    slots: Box<[Mutex<Vec<D>>]>,
    section: Mutex<Section<D, S>>,
}

/// The section's state, and the memory in which it gets its deposits.
struct Section<D, S> {
    state: S,
    taken: Vec<D>,
}

impl<D, S> Turnstile<D, S> {
    /// `slots` depositors around the state of the section.
    pub fn new(slots: usize, state: S) -> Turnstile<D, S> {
        Turnstile {
            slots: (0..slots).map(|_| Mutex::new(Vec::new())).collect(),
            section: Mutex::new(Section { state, taken: Vec::new() }),
        }
    }

    /// Leaves deposits in a slot, behind those already there. Does not run the section: see [`Turnstile::run`].
    pub fn deposit(&self, slot: usize, deposits: impl IntoIterator<Item = D>) {
        lock(&self.slots[slot]).extend(deposits);
    }

    /// Runs the section until no slot holds anything, unless another thread is in it (which then does it for us).
    /// `section` gets all deposits there are, in order within a slot, and says whether to look for more after it.
    /// `Break`: it said no, and something may lie in the slots: the caller has to see to it that somebody looks.
    pub fn run(&self, mut section: impl FnMut(&mut S, &mut Vec<D>) -> ControlFlow<()>) -> ControlFlow<()> {
        loop {
            let Some(mut inside) = try_lock(&self.section) else { return ControlFlow::Continue(()) };
            let Section { state, taken } = &mut *inside;
            let mut more = ControlFlow::Continue(());
            if self.take(taken) {
                more = section(state, taken);
                taken.clear();
            }
            drop(inside);
            more?;
            if self.is_empty() {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Whether every slot is empty at the moment it is looked at.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| lock(slot).is_empty())
    }

    /// Waits for the section and works on its state. For start, stop and tests: nobody on the way of an event waits.
    pub fn with<R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        work(&mut lock(&self.section).state)
    }

    fn take(&self, into: &mut Vec<D>) -> bool {
        for slot in &self.slots {
            into.append(&mut lock(slot));
        }
        !into.is_empty()
    }
}

/// Whether the reader of a mailbox has to be run or woken by the one who pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It will look by itself before it sleeps.
    Awake,
    /// It sleeps: run it, or wake its thread.
    Asleep,
}

struct Inside<M> {
    messages: Vec<M>,
    asleep: bool,
}

/// Messages for one shard, and whether its thread sleeps.
pub struct Mailbox<M> {
    inside: Mutex<Inside<M>>,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Mailbox<M> {
        Mailbox { inside: Mutex::new(Inside { messages: Vec::new(), asleep: false }) }
    }
}

impl<M> Mailbox<M> {
    /// Appends a message. `merge` may fold it into the last one instead: it gives the message back if it did not.
    pub fn push_or(&self, message: M, merge: impl FnOnce(&mut [M], M) -> Option<M>) -> Reader {
        let mut inside = lock(&self.inside);
        if let Some(message) = merge(&mut inside.messages, message) {
            inside.messages.push(message);
        }
        if inside.asleep { Reader::Asleep } else { Reader::Awake }
    }

    /// Appends a message.
    pub fn push(&self, message: M) -> Reader {
        self.push_or(message, |_, message| Some(message))
    }

    /// Takes everything, in order; `into` must be empty (its room is given to the mailbox: no allocation at rest).
    pub fn take(&self, into: &mut Vec<M>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut lock(&self.inside).messages, into);
    }

    /// Marks the reader asleep if there is nothing to read; false: there is, do not sleep.
    pub fn fall_asleep(&self) -> bool {
        let mut inside = lock(&self.inside);
        inside.asleep = inside.messages.is_empty();
        inside.asleep
    }

    /// Marks the reader awake.
    pub fn wake_up(&self) {
        lock(&self.inside).asleep = false;
    }

    /// Whether the reader sleeps although there is something to read: a helper's last look.
    pub fn is_left_behind(&self) -> bool {
        let inside = lock(&self.inside);
        inside.asleep && !inside.messages.is_empty()
    }
}
