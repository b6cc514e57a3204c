//! Pages that are being read or sent, and so hold events in memory: one that is taken back leaves them.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firehose_log::Offset;
use tokio::sync::Notify;

/// A client has so long to take a page with an event that is being taken back; then its connection ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long is waited for that to happen, and for pages that a disk is being read for: these are never sent.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module; clones share it.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    pages: Mutex<Pages>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    all: HashMap<u64, Step>,
}

#[derive(Debug)]
enum Step {
    /// It is being read. These were taken back since that began.
    Reading(Vec<Offset>),
    /// It holds these events, and is being sent by a connection.
    Sending(Vec<Offset>, Cut),
}

impl Step {
    fn holds(&self, offset: Offset) -> bool {
        match self {
            Step::Reading(offsets) | Step::Sending(offsets, _) => offsets.contains(&offset),
        }
    }
}

/// Ends one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<Notify>);

impl Cut {
    /// Ends it, with all that it has not written.
    fn end(&self) {
        self.0.notify_one();
    }

    /// Comes when the connection is to end.
    pub(crate) async fn ended(&self) {
        self.0.notified().await;
    }
}

/// A page that is under way, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Page {
    under_way: UnderWay,
    number: u64,
}

impl UnderWay {
    /// A page is about to be read.
    pub(crate) fn begin(&self) -> Page {
        let mut pages = self.lock();
        let number = pages.next;
        pages.next += 1;
        pages.all.insert(number, Step::Reading(Vec::new()));
        Page { under_way: self.clone(), number }
    }

    /// The event has left the log: waits until no page that was begun before holds it. One that is being read is read again;
    /// one that is being sent has two seconds to be taken, then its connection ends. Not for an async thread.
    pub fn take_back(&self, offset: Offset) {
        let mut pages = self.lock();
        for step in pages.all.values_mut() {
            if let Step::Reading(taken_back) = step {
                taken_back.push(offset);
            }
        }
        let holding = |pages: &Pages| {
            let all = pages.all.iter().filter(|(_, step)| step.holds(offset));
            all.map(|(number, _)| *number).collect::<Vec<u64>>()
        };
        let held = holding(&pages);
        for (timeout, then) in [(PATIENCE, true), (END_TIMEOUT, false)] {
            let deadline = Instant::now() + timeout;
            let is_held = |pages: &Pages| held.iter().any(|number| holding(pages).contains(number));
            while is_held(&pages) {
                let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                pages = match self.0.changed.wait_timeout(pages, left) {
                    Ok((pages, _)) => pages,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            }
            if !is_held(&pages) {
                return;
            }
            for step in pages.all.values().filter(|step| then && step.holds(offset)) {
                if let Step::Sending(_, cut) = step {
                    cut.end();
                }
            }
        }
        tracing::warn!(
            offset,
            "a page with an event that was taken back is still being read: it will not be sent"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    /// It was read, and holds these events: a connection will send it. False: one of them was taken back since it was begun;
    /// it must be dropped.
    pub(crate) fn send(&self, events: Vec<Offset>, cut: Cut) -> bool {
        let mut pages = self.under_way.lock();
        let Some(step) = pages.all.get_mut(&self.number) else { return false };
        if events.iter().any(|offset| step.holds(*offset)) {
            return false;
        }
        *step = Step::Sending(events, cut);
        drop(pages);
        self.under_way.0.changed.notify_all();
        true
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.under_way.lock().all.remove(&self.number);
        self.under_way.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_read_while_its_event_was_taken_back_is_not_sent() {
        let under_way = UnderWay::default();
        let (with, without) = (under_way.begin(), under_way.begin());
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| under_way.take_back(7));
            while !under_way.lock().all.values().all(|step| step.holds(7)) {
                std::thread::yield_now();
            }
            assert!(without.send(vec![5, 6], Cut::default()));
            assert!(!with.send(vec![6, 7], Cut::default()));
            drop(with);
            taking.join().expect("it ends");
        });
        let later = under_way.begin();
        assert!(later.send(vec![8], Cut::default()));
        under_way.take_back(7);
    }
}
