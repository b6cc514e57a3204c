//! The state of a world, on the world's disk, and the turns that its thread would take.

use crate::retained_view;
use crate::world::World;
use firehose_broker::action::{Action, Now};
use firehose_broker::limits::Limits;
use firehose_broker::message::Message;
use firehose_broker::retained_page::RetainedPage;
use firehose_broker::sequencer::Deposit;
use firehose_broker::state::{DueWill, Firing, Queue, State, StateNote, WillOutcome};
use firehose_log::{MemDisk, Offset, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Questions for retained messages whose view has come far enough.
type Ready = Arc<Mutex<Vec<(usize, Action)>>>;

/// See the module.
pub struct StateSide {
    pub state: State,
    /// It takes no turn: what was asked waits.
    pub waits: bool,
    /// What it told the operator.
    pub notes: Vec<StateNote>,
    ready: Ready,
}

impl StateSide {
    pub fn open(disk: &MemDisk, read: Arc<dyn Read>, limits: Arc<Limits>, now: Now) -> StateSide {
        let path = Path::new("/state.redb");
        let (mut state, report) =
            State::open(Arc::new(disk.clone()), path, read, limits, now).expect("a state");
        state.set_patience_ms(0);
        StateSide { state, waits: false, notes: report.notes, ready: Ready::default() }
    }

    /// Puts a question for retained messages off until the view has come far enough.
    pub fn ask(&self, host: usize, question: Action) {
        let Action::Retained { as_of, .. } = question else { return };
        let ready = self.ready.clone();
        let job = Box::new(move || ready.lock().expect("a lock").push((host, question)));
        self.state.queue().when_applied(as_of, job);
    }
}

impl World {
    /// The process dies, with the power or without, and everything begins again with what is on the disk. Clients are
    /// gone.
    pub fn reopen(self, loses_power: bool) -> World {
        if loses_power {
            self.disk.lose_power();
        }
        let (disk, now, setup) = (self.disk.copy(), self.now, self.setup.clone());
        drop(self);
        World::on(disk, now, setup)
    }

    /// A step of the first shard, or of the state; false: there is nothing to do any more.
    pub fn step(&mut self) -> bool {
        self.exchange(0) || self.flush(0) || self.turn_of_state()
    }

    /// A turn of the state, after a commit of the log if it wants one; false: nothing came of it.
    pub fn turn_of_state(&mut self) -> bool {
        if self.state.waits {
            return false;
        }
        let wanted = self.state.state.queue().wants_durable();
        if wanted > self.sequencer.durable() && self.sequencer.durable() < self.sequencer.head() {
            self.commit();
        }
        let durable = self.sequencer.durable().min(self.sequencer.head());
        let mut turn = self.state.state.turn(durable, self.now);
        let mut worked = turn.again || !turn.wills.is_empty() || !turn.jobs.is_empty();
        for (shard, message) in turn.messages() {
            self.sequencer.send(shard, message);
            worked = true;
        }
        if turn.lost {
            (0..self.setup.shards).for_each(|shard| _ = self.sequencer.send(shard, Message::StateLost));
            worked = true;
        }
        turn.jobs.drain(..).for_each(|job| job());
        self.state.notes.append(&mut turn.notes);
        for will in turn.wills {
            self.fire(&will);
        }
        let ready = std::mem::take(&mut *self.state.ready.lock().expect("a lock"));
        for (host, question) in ready {
            self.answer_retained(host, question);
        }
        worked
    }

    fn answer_retained(&mut self, host: usize, question: Action) {
        let Action::Retained { scan, filter, after, as_of, bytes_max } = question else { return };
        let reader = self.state.state.reader();
        let page = reader.page(&*self.read, &filter, after.as_deref(), as_of, bytes_max);
        if let (Ok(page), true) = (&page, as_of == self.read.head()) {
            let slow = retained_view::page(&*self.read, &filter, after.as_deref(), as_of, bytes_max);
            let offsets = |page: &RetainedPage| page.messages().map(|it| it.offset).collect::<Vec<_>>();
            assert_eq!(offsets(page), offsets(&slow), "the view is not what the log says");
        }
        self.sequencer.send(host, Message::Retained { scan, page });
    }

    fn fire(&mut self, due: &DueWill) {
        let queue = self.state.state.queue().clone();
        let slot = self.sequencer.port_slot();
        match due.firing(&self.access.current(), &self.setup.unlogged) {
            Firing::Refused => queue.will_done(due.key, WillOutcome::Refused),
            Firing::Unlogged(draft) => {
                self.sequencer.deposit(slot, [Deposit::Unlogged(draft)]);
                queue.will_done(due.key, WillOutcome::Delivered);
            }
            Firing::Logged(draft) => {
                let (key, queue) = (due.key, queue);
                let done = move |outcome: Result<Offset, _>| {
                    let outcome = if outcome.is_ok() { WillOutcome::Published } else { WillOutcome::Later };
                    Queue::will_done(&queue, key, outcome);
                };
                self.sequencer.ports().submit(Box::new(done), |ticket| {
                    self.sequencer.leave(slot, [Deposit::Batch { ticket, draft, wants_sync: true }]);
                });
                self.sequencer.run();
            }
        }
    }
}
