//! Taking back an event on a running bus: out of the log, out of what is kept beside it, out of what is queued.

use crate::bus::{Bus, wall_us};
use crate::message::Message;
use crate::shard::Shard;
use firehose_log::{Offset, RedactError, Redacted};

/// Keeps something of events beside the log, and lets go of it when one is taken back.
pub trait Redacts: Send + Sync {
    /// The event at `offset` was taken back, and the log has a tombstone there. When this returns nothing of it is left
    /// here, durably. May be called twice for the same event.
    ///
    /// # Errors
    /// Why that did not work; the operator is told, and tries again.
    fn redacted(&self, offset: Offset) -> Result<(), String>;
}

impl Bus {
    /// Who else has to let go of an event that is taken back; called in the order in which they were added.
    pub fn add_redacts(&self, redacts: Box<dyn Redacts>) {
        self.redacts().push(redacts);
    }

    /// Takes an event back. When this returns the log has a tombstone in its place, durably; nobody who was added by
    /// [`Bus::add_redacts`] has it any more; and the shards were told to drop what they have queued of it. Waits for the
    /// disk. An event that was taken back before is made sure of again, and refused.
    ///
    /// # Errors
    /// [`RedactError`]: it is not there, or something failed and it has to be done again.
    pub fn redact(&self, offset: Offset) -> Result<Redacted, RedactError> {
        let done = self.on_commit_thread(move |commit| commit.redact(offset, wall_us()));
        let done = done.unwrap_or_else(|| Err(RedactError::Failed("the bus stops".into())));
        if !matches!(done, Ok(_) | Err(RedactError::Already { .. })) {
            return done;
        }
        self.tell_all(|| Message::Redacted { offset });
        for redacts in self.redacts().iter() {
            redacts.redacted(offset).map_err(RedactError::Failed)?;
        }
        done
    }
}

impl Shard {
    /// Drops what sessions have queued of events that were taken back: they read them, and find tombstones, in the log.
    /// A frame that is half out goes on.
    pub(crate) fn drop_redacted(&mut self) {
        for offset in std::mem::take(&mut self.redacted) {
            let queues = |it: &crate::session::Session| {
                it.connection.as_ref().is_some_and(|connection| connection.outbox.queues(offset))
            };
            let all = self.sessions.iter().filter(|(_, it)| queues(it));
            let all: Vec<u32> = all.map(|(session, _)| session as u32).collect();
            for session in all {
                self.fall_back(session);
                self.pump(session);
            }
        }
    }
}
