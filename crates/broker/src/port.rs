//! Publishers that are not clients: sources, the HTTP ingest, the bus itself.

use crate::sync::{Mutex, lock};
use firehose_log::{Offset, Refusal};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Called once the events are stored at the configured durability, with the offset of the last one, or refused.
/// Runs on the thread that found out: it must be short and must not block.
pub type Completion = Box<dyn FnOnce(Result<Offset, Refusal>) + Send>;

struct Waiting {
    ticket: u64,
    outcome: Option<Result<Offset, Refusal>>,
    done: Completion,
}

#[derive(Default)]
struct Inside {
    next_ticket: u64,
    waiting: VecDeque<Waiting>,
    /// Why nothing behind this offset will be durable.
    failed: Option<(Offset, Refusal)>,
}

/// The deposits of all ports that are not complete yet.
#[derive(Default)]
pub struct Ports {
    inside: Mutex<Inside>,
    wants_durable: AtomicU64,
}

impl Ports {
    /// Registers a completion and leaves its deposit: `deposit` gets the ticket, under the lock that keeps tickets and
    /// deposits in one order.
    pub fn submit(&self, done: Completion, deposit: impl FnOnce(u64)) {
        let mut inside = lock(&self.inside);
        let ticket = inside.next_ticket;
        inside.next_ticket += 1;
        inside.waiting.push_back(Waiting { ticket, outcome: None, done });
        deposit(ticket);
    }

    /// In the section: a deposit took its place, or was refused.
    pub fn placed(&self, ticket: u64, outcome: Result<Offset, Refusal>) {
        if let Ok(offset) = outcome {
            self.wants_durable.fetch_max(offset, Ordering::AcqRel);
        }
        let mut inside = lock(&self.inside);
        let outcome = match (outcome, &inside.failed) {
            (Ok(offset), Some((durable, why))) if offset > *durable => Err(why.clone()),
            (outcome, _) => outcome,
        };
        if let Some(waiting) = inside.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
            waiting.outcome = Some(outcome);
        }
    }

    /// Nothing behind `durable` will be durable: who waits for it is refused, now and later.
    pub fn fail(&self, durable: Offset, why: &Refusal) {
        let mut inside = lock(&self.inside);
        inside.failed = Some((durable, why.clone()));
        for waiting in &mut inside.waiting {
            if waiting.outcome.as_ref().is_some_and(|it| it.as_ref().is_ok_and(|offset| *offset > durable)) {
                waiting.outcome = Some(Err(why.clone()));
            }
        }
        drop(inside);
        self.complete(durable);
    }

    /// The newest offset of any port.
    pub fn wants_durable(&self) -> Offset {
        self.wants_durable.load(Ordering::Acquire)
    }

    /// Completes, in order, what is durable up to here or was refused.
    pub fn complete(&self, durable: Offset) {
        loop {
            let mut inside = lock(&self.inside);
            match inside.waiting.front() {
                Some(Waiting { outcome: Some(Ok(offset)), .. }) if *offset <= durable => {}
                Some(Waiting { outcome: Some(Err(_)), .. }) => {}
                _ => return,
            }
            let Some(Waiting { outcome: Some(outcome), done, .. }) = inside.waiting.pop_front() else {
                return;
            };
            drop(inside);
            done(outcome);
        }
    }
}
