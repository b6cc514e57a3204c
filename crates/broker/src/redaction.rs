//! Taking back an event on a running bus: out of the log, out of what is kept beside it, out of what is queued.

use crate::bus::{Bus, wall_us};
use crate::message::Message;
use crate::shard::Shard;
use firehose_log::{Offset, RedactError, Redacted};
use std::sync::mpsc;
use std::time::Duration;

/// While the state does its part, how often is looked whether the bus stops.
const LOOK: Duration = Duration::from_millis(200);
/// A shard knows so many of the last ones.
const LATELY: usize = 64;

/// Drops what a reader of the log besides the shards holds of an event that was taken back, and returns when it has. It may
/// wait; not on a thread that the reader needs.
pub type TakeBack = Box<dyn Fn(Offset) + Send + Sync>;

impl Bus {
    /// Takes an event back. When this returns the log has a tombstone in its place, durably; the state has nothing of it any
    /// more; and the shards, and who else reads the log ([`Bus::set_take_back`]), have dropped what they had queued of it.
    /// Waits for the disk. An event that was taken back before is made sure of again, and refused.
    ///
    /// # Errors
    /// [`RedactError`]: it is not there, or something failed and it has to be done again.
    pub fn redact(&self, offset: Offset) -> Result<Redacted, RedactError> {
        if offset <= self.sequencer().head() {
            self.save_what_it_meant(offset)?;
        }
        let done = self.on_commit_thread(move |commit| commit.redact(offset, wall_us()));
        let done = done.unwrap_or_else(|| Err(stops()));
        // Of one that is gone from the log an attempt before may have left the rest.
        if matches!(done, Ok(_) | Err(RedactError::Already { .. } | RedactError::Gone { .. })) {
            // The shards come last: what they ask the state from then on has nothing of it.
            let state = self.redact_state(offset);
            self.tell_shards(offset);
            self.tell_others(offset);
            state?;
        }
        done
    }

    /// Waits until the state file has what follows from the event: that what was retained for its topic before is not any
    /// more, which packet id of its publisher is taken, that it was somebody's will. Nobody sees that in a tombstone.
    fn save_what_it_meant(&self, offset: Offset) -> Result<(), RedactError> {
        let (done, applied) = mpsc::channel();
        let state = self.state();
        state.when_applied(offset, Box::new(move || _ = done.send(())));
        self.wait_for(&applied, || {
            let why = state.stats().failure().or_else(|| state.log_failure().map(str::to_owned))?;
            Some(format!(
                "the state cannot be saved before it, and nothing was done ({why}): look at the disk, then do it again"
            ))
        })
    }

    /// Waits for an answer, as long as the bus does not stop and there is no reason to give up.
    fn wait_for<T>(
        &self,
        answer: &mpsc::Receiver<T>,
        gives_up: impl Fn() -> Option<String>,
    ) -> Result<T, RedactError> {
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(mpsc::RecvTimeoutError::Timeout) if !self.is_stopping() => {}
                Err(_) => return Err(stops()),
            }
            if let Some(why) = gives_up() {
                return Err(RedactError::Failed(why));
            }
        }
    }

    /// Waits until each shard has dropped what it had of the event; not on a bus of which nobody runs the shards.
    fn tell_shards(&self, offset: Offset) {
        let (seen, seen_by_all) = mpsc::channel();
        self.tell_all(|| Message::Redacted { offset, seen: Some(seen.clone()) });
        drop(seen);
        while self.has_rouse() && !self.is_stopping() {
            if seen_by_all.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Disconnected) {
                break;
            }
        }
    }

    /// Has whoever else reads the log drop what it holds of the event.
    fn tell_others(&self, offset: Offset) {
        if let Some(take_back) = self.take_back() {
            take_back(offset);
        }
    }

    fn redact_state(&self, offset: Offset) -> Result<(), RedactError> {
        let (done, outcome) = mpsc::channel();
        self.state().want_durable(offset);
        // Who asked may have gone.
        self.state().redact(offset, Box::new(move |outcome| drop(done.send(outcome))));
        self.wait_for(&outcome, || None)?.map_err(RedactError::Failed)
    }
}

fn stops() -> RedactError {
    RedactError::Failed("the bus stops".into())
}

impl Shard {
    /// Drops what sessions have queued of events that were taken back: they read them, and find tombstones, in the log.
    /// A frame that is half out goes on.
    pub(crate) fn drop_redacted(&mut self) {
        if self.redacted.is_empty() {
            return;
        }
        let redacted = std::mem::take(&mut self.redacted);
        let offsets: Vec<Offset> = redacted.iter().map(|(offset, _seen)| *offset).collect();
        self.redacted_lately.extend(&offsets);
        let too_many = self.redacted_lately.len().saturating_sub(LATELY);
        self.redacted_lately.drain(..too_many);
        self.redact_groups();
        for (offset, _seen) in redacted {
            self.cut_rewritten(offset);
            self.answered();
            if self.reads > 0 {
                self.taken_back.push(offset);
            }
            let queues = |it: &crate::session::Session| {
                it.connection.as_ref().is_some_and(|connection| connection.outbox.queues(offset))
            };
            let all = self.sessions.iter().filter(|(_, it)| queues(it));
            let all: Vec<u32> = all.map(|(session, _)| session as u32).collect();
            for session in all {
                self.fall_back(session);
                self.pump(session);
            }
            self.ask_again();
            let mut on_their_way = Vec::new();
            for (session, it) in &mut self.sessions {
                if let Some(held_bytes) = it.drop_redacted(offset) {
                    self.held_bytes -= held_bytes;
                    on_their_way.push(session as u32);
                }
            }
            on_their_way.into_iter().for_each(|session| self.dirty(session));
        }
    }

    /// Who takes topic aliases may have it in bytes of its own, which count as sent: its connection ends instead.
    fn cut_rewritten(&mut self, offset: Offset) {
        let holds = |it: &crate::session::Session| {
            it.connection.as_ref().is_some_and(|connection| connection.outbox.has_rewritten(offset))
        };
        let all = self.sessions.iter().filter(|(_, it)| holds(it));
        let all: Vec<u32> = all.map(|(session, _)| session as u32).collect();
        all.into_iter().for_each(|session| self.hang_up(session, "what it was being sent was taken back"));
    }

    /// With no answer of the log under way none brings what was taken back.
    pub(crate) fn answered(&mut self) {
        if self.reads == 0 {
            self.taken_back.clear();
        }
    }

    /// Pages of retained messages that are on their way may have been read before: they are asked for again.
    fn ask_again(&mut self) {
        let mut asking = Vec::new();
        for (session, it) in &mut self.sessions {
            if let Some(scans) = it.scans.as_deref_mut() {
                scans.forget_asked();
                asking.push(session as u32);
            }
        }
        asking.into_iter().for_each(|session| self.scan(session));
    }
}
