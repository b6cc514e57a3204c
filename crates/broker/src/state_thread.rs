//! The state's thread: one more cursor in the log. It takes what shards ask, has the log made durable up to there, and
//! gives the state its turns; publishes wills that are due.

use crate::action::Now;
use crate::bus::{Bus, wall_us};
use crate::handoff::Reader;
use crate::message::Message;
use crate::sequencer::{Deposit, Sleepers};
use crate::state::{DueWill, Firing, State, StateNote, Turn, WillOutcome};
use firehose_log::{Draft, Offset, Refusal};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// With nothing to do it looks this often, so that the file does not stay far behind the log.
const IDLE: Duration = Duration::from_secs(10);
/// When the bus stops: how long the log may take to make the last of it durable.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(10);
/// Meanwhile it looks this often.
const LAST_COMMIT_LOOK: Duration = Duration::from_millis(20);

/// Starts the thread; none if the system has no thread to give (then no session is ever stored).
pub(crate) fn spawn(bus: Bus, state: State) -> Option<JoinHandle<()>> {
    let side = StateThread { bus, state, started: Instant::now() };
    match std::thread::Builder::new().name("state".into()).spawn(move || side.run()) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!(%error, "cannot start the state's thread");
            None
        }
    }
}

struct StateThread {
    bus: Bus,
    state: State,
    started: Instant,
}

impl StateThread {
    fn run(mut self) {
        while !self.bus.state_is_stopping() {
            self.ask_for_commit();
            let turn = self.state.turn(self.durable(), self.now());
            let (again, next_ms) = (turn.again, turn.next_ms);
            self.carry_out(turn);
            if !again {
                let at_most = next_ms.map_or(IDLE, Duration::from_millis).min(IDLE);
                self.state.queue().bell().wait(at_most);
            }
        }
        self.finish();
    }

    /// Shards have asked their last.
    fn finish(mut self) {
        let head = self.bus.sequencer().head();
        self.state.queue().want_durable(head);
        let until = Instant::now() + LAST_COMMIT_MAX;
        let has_failed = || self.state.queue().log_failure().is_some();
        while self.durable() < head && !has_failed() && Instant::now() < until {
            self.bus.sequencer().bell().ring();
            self.state.queue().bell().wait(LAST_COMMIT_LOOK);
        }
        let turn = self.state.finish(self.durable(), self.now());
        self.carry_out(turn);
        self.state.queue().close();
    }

    fn ask_for_commit(&self) {
        if self.state.queue().wants_durable() > self.bus.sequencer().durable() {
            self.bus.sequencer().bell().ring();
        }
    }

    /// What is durable and was handed to everyone.
    fn durable(&self) -> Offset {
        self.bus.sequencer().durable().min(self.bus.sequencer().head())
    }

    fn now(&self) -> Now {
        Now { ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), wall_us: wall_us() }
    }

    fn carry_out(&self, mut turn: Turn) {
        let mut sleepers = Sleepers::default();
        for (shard, message) in turn.messages() {
            if self.bus.sequencer().send(shard, message) == Reader::Asleep {
                sleepers.insert(shard);
            }
        }
        self.bus.rouse(sleepers);
        if turn.lost {
            self.bus.tell_all(|| Message::StateLost);
        }
        for note in &turn.notes {
            match note {
                StateNote::Bad(line) => tracing::error!("{line}"),
                StateNote::Good(line) => tracing::info!("{line}"),
            }
        }
        turn.jobs.into_iter().for_each(|job| job());
        turn.wills.iter().for_each(|will| self.fire(will));
    }

    fn fire(&self, due: &DueWill) {
        let queue = self.state.queue();
        match due.firing(&self.bus.access().current(), self.bus.unlogged()) {
            Firing::Refused => {
                let (client, topic) = (&due.client_id, &due.will.topic);
                tracing::debug!(%client, topic, "a will was refused by the access rules");
                queue.will_done(due.key, WillOutcome::Refused);
            }
            Firing::Unlogged(draft) => {
                let sequencer = self.bus.sequencer();
                let sleepers = sequencer.deposit(sequencer.port_slot(), [Deposit::Unlogged(draft)]);
                self.bus.rouse(sleepers);
                queue.will_done(due.key, WillOutcome::Delivered);
            }
            Firing::Logged(draft) => self.publish(due, draft),
        }
    }

    fn publish(&self, due: &DueWill, draft: Draft) {
        let (queue, key) = (self.state.queue().clone(), due.key);
        self.bus.publish_draft(draft, move |outcome: Result<Offset, Refusal>| {
            let outcome = if outcome.is_ok() { WillOutcome::Published } else { WillOutcome::Later };
            queue.will_done(key, outcome);
        });
    }
}
