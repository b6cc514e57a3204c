//! The state of a bus, on the world's disk, and the turns that its thread would take.

use crate::bus::Bus;
use crate::engine::{Shared, lock};
use crate::plan::access;
use crate::witness::{STATE, Witness};
use firehose_broker::action::{Action, Now};
use firehose_broker::fetched::FetchedEvents;
use firehose_broker::limits::Limits;
use firehose_broker::message::Message;
use firehose_broker::sequencer::Deposit;
use firehose_broker::state::{DueWill, Firing, State, WillOutcome};
use firehose_log::Read;
use std::path::Path;
use std::sync::Arc;

/// Questions for retained messages whose view has come far enough: (shard, question).
type Ready = Shared<Vec<(usize, Action)>>;

/// See the module.
pub struct StateSide {
    pub state: State,
    /// What it told the operator.
    pub notes: Vec<String>,
    ready: Ready,
}

impl StateSide {
    /// None: it could not be opened, nor set aside.
    pub fn open(
        disk: &Witness,
        read: Arc<dyn Read>,
        limits: Arc<Limits>,
        now: Now,
    ) -> Result<StateSide, String> {
        let path = Path::new(STATE);
        let opened = State::open(Arc::new(disk.clone()), path, read, limits, now);
        let (state, report) = opened.map_err(|error| error.to_string())?;
        let notes = report.notes.iter().map(ToString::to_string).collect();
        Ok(StateSide { state, notes, ready: Ready::default() })
    }

    /// Puts a question for retained messages off until the view has come far enough.
    pub fn ask(&self, host: usize, question: Action) {
        let Action::Retained { as_of, .. } = question else { return };
        let ready = self.ready.clone();
        let job = Box::new(move || lock(&ready).push((host, question)));
        self.state.queue().when_applied(as_of, job);
    }
}

impl Bus {
    /// A turn of the state. False: nothing came of it.
    pub fn turn_of_state(&mut self) -> bool {
        let durable = self.sequencer.durable().min(self.sequencer.head());
        let mut turn = self.state.state.turn(durable, self.now);
        let mut worked = turn.again || !turn.wills.is_empty() || !turn.jobs.is_empty();
        for (shard, message) in turn.messages() {
            self.sequencer.send(shard, message);
            worked = true;
        }
        if turn.lost {
            (0..self.hosts.len()).for_each(|shard| _ = self.sequencer.send(shard, Message::StateLost));
            worked = true;
        }
        turn.jobs.drain(..).for_each(|job| job());
        self.state.notes.extend(turn.notes.iter().map(ToString::to_string));
        for will in turn.wills {
            self.fire(&will);
        }
        let ready = std::mem::take(&mut *lock(&self.state.ready));
        for (host, question) in ready {
            self.answer_retained(host, question);
        }
        worked
    }

    pub fn answer_fetch(&mut self, host: usize, question: Action) {
        let Action::Fetch { session, offsets } = question else { return };
        let events = FetchedEvents::read(&*self.read, &offsets);
        self.sequencer.send(host, Message::Fetched { session, events });
    }

    fn answer_retained(&mut self, host: usize, question: Action) {
        let Action::Retained { scan, filter, after, as_of, bytes_max } = question else { return };
        let reader = self.state.state.reader();
        let page = reader.page(&*self.read, &filter, after.as_deref(), as_of, bytes_max);
        self.sequencer.send(host, Message::Retained { scan, page });
    }

    fn fire(&mut self, due: &DueWill) {
        let (queue, slot) = (self.state.state.queue().clone(), self.sequencer.port_slot());
        match due.firing(&access().current(), &self.unlogged) {
            Firing::Refused => queue.will_done(due.key, WillOutcome::Refused),
            Firing::Unlogged(draft) => {
                self.sequencer.leave(slot, [Deposit::Unlogged(draft)]);
                self.place();
                queue.will_done(due.key, WillOutcome::Delivered);
            }
            Firing::Logged(draft) => {
                let key = due.key;
                let done = Box::new(move |outcome: Result<_, _>| {
                    let outcome = if outcome.is_ok() { WillOutcome::Published } else { WillOutcome::Later };
                    queue.will_done(key, outcome);
                });
                self.sequencer.ports().submit(done, |ticket| {
                    self.sequencer.leave(slot, [Deposit::Batch { ticket, draft, wants_sync: true }]);
                });
                self.place();
            }
        }
    }
}
