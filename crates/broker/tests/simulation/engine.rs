//! The log behind the bus, watched: what it places goes into the ledger. And a second engine made of it, which takes
//! its time, tells late what is durable, and between whose answers another node's events appear: what a bus in front of
//! a remote log would see. `Append::append` answers before it returns, and marks stand behind what it answered; so an
//! engine that takes its time holds up the section, and deposits wait in their slots.

use crate::ledger::Ledger;
use firehose_log::{
    Append, Batch, Commit, CommitError, Draft, Keep, Offset, RedactError, Redacted, Refusal, Submission,
    Upkeep,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The slot that another node's events come from: it is no shard's, and not the ports'.
const FOREIGN: u32 = 0x7fff_0000;

pub type Shared<T> = Arc<Mutex<T>>;

pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the engine behaves now.
#[derive(Debug, Default)]
pub struct Mood {
    /// The section is held up: nothing gets its place before this ends.
    pub delays: bool,
    /// Events of another node that come with the next answer.
    pub foreign: Vec<Draft>,
    /// What is durable is not told before this ends.
    pub hides_durable: bool,
}

/// The sequencer's side.
pub struct Engine {
    pub inner: Box<dyn Append>,
    pub mood: Shared<Mood>,
    pub ledger: Shared<Ledger>,
}

impl Append for Engine {
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    ) {
        let foreign = std::mem::take(&mut lock(&self.mood).foreign);
        let of = |draft| Submission { draft, ticket: 0, from: FOREIGN };
        let mut all: Vec<Submission> = foreign.into_iter().map(of).collect();
        all.append(submissions);
        let ledger = &self.ledger;
        self.inner.append(now_us, &mut all, &mut |from, ticket, answer| {
            if let Ok(batch) = &answer
                && batch.is_logged()
            {
                lock(ledger).placed(batch);
            }
            placed(from, ticket, answer);
        });
    }

    fn head(&self) -> Offset {
        self.inner.head()
    }

    fn durable(&self) -> Offset {
        self.inner.durable()
    }

    fn wants_upkeep(&self) -> bool {
        self.inner.wants_upkeep()
    }

    fn wants_commit(&self) -> bool {
        self.inner.wants_commit()
    }
}

/// The commit thread's side.
pub struct LateCommit {
    pub inner: Box<dyn Commit>,
    pub mood: Shared<Mood>,
    pub told: Offset,
}

impl Commit for LateCommit {
    fn commit(&mut self) -> Result<Offset, CommitError> {
        let durable = self.inner.commit()?;
        if !lock(&self.mood).hides_durable {
            self.told = durable;
        }
        Ok(self.told)
    }

    fn upkeep(&mut self, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep> {
        self.inner.upkeep(now_us, keep)
    }

    fn redact(&mut self, offset: Offset, now_us: i64) -> Result<Redacted, RedactError> {
        self.inner.redact(offset, now_us)
    }
}
