//! The view of the log: how the state follows it.

use crate::action::Now;
use crate::state::change::WillKey;
use crate::state::core::{State, StateNote, Turn};
use crate::state::queue::Overflowed;
use crate::state::store::StoreError;
use firehose_log::{Batch, Chunk, Fetched, Kind, Offset, ReadError, Record, Wait, WayIn};

/// Bytes of the log that are looked through in one turn when the state is behind.
const BYTES_PER_TURN: usize = 1 << 20;
/// Marked batches in one turn.
const BATCHES_PER_TURN: usize = 1_024;
/// Records that outlived their segments, fetched at a time.
const KEPT_AT_A_TIME: usize = 256;
/// What the log brought and could not be written; beyond it the view stands still.
const VIEW_BYTES_MAX: usize = 8 << 20;

impl State {
    /// Comes nearer to `durable`, a bounded step.
    pub(super) fn follow(&mut self, durable: Offset, turn: &mut Turn) {
        if self.view_at >= durable {
            return;
        }
        if self.failing.is_some() && self.pending.view_bytes > VIEW_BYTES_MAX {
            return;
        }
        // Loaded before the batches are taken: what is marked from here on lies in the queue.
        let from = self.queue.marked_from();
        if self.view_at + 1 < from {
            let upto = durable.min(from - 1);
            if let Err(error) = self.catch_up(upto) {
                let line = format!("{error}; the state waits for it");
                turn.notes.push(StateNote::Bad(line));
                turn.next_ms = Some(1_000);
                return;
            }
            turn.again |= self.view_at < durable;
            return;
        }
        for _ in 0..BATCHES_PER_TURN {
            match self.queue.take_marked(from, durable) {
                Ok(Some(batch)) => self.fold(&batch),
                Ok(None) => {
                    self.view_at = durable;
                    return;
                }
                Err(Overflowed) => break,
            }
        }
        turn.again = true;
    }

    /// Reads the log up to `upto`, a bounded part of it.
    fn catch_up(&mut self, upto: Offset) -> Result<(), ReadError> {
        let oldest = self.read.oldest();
        if self.view_at + 1 < oldest {
            self.gather_kept(oldest.min(upto + 1))?;
        }
        let mut from = self.view_at + 1;
        match self.read.read(from, upto, BYTES_PER_TURN, Wait::Yes)? {
            Chunk::Batches(batches) => {
                for batch in batches.iter().take_while(|batch| batch.last() <= upto) {
                    self.fold(batch);
                    from = batch.last() + 1;
                }
                self.view_at = from - 1;
            }
            Chunk::Gap { next, .. } => self.view_at = (next - 1).min(upto),
            Chunk::End => self.view_at = upto,
            Chunk::Blocked => {}
        }
        Ok(())
    }

    /// Takes in what was kept of events that retention deleted, up to before `oldest`.
    fn gather_kept(&mut self, oldest: Offset) -> Result<(), ReadError> {
        let kept = self.read.kept();
        let kept: Vec<_> = kept.into_iter().filter(|at| *at > self.view_at && *at < oldest).collect();
        for some in kept.chunks(KEPT_AT_A_TIME) {
            let Fetched::Events(events) = self.read.fetch(some, Wait::Yes)? else { continue };
            for (offset, batch) in events {
                self.fold_record(offset, &batch.record((offset - batch.base()) as usize));
            }
        }
        self.view_at = oldest - 1;
        Ok(())
    }

    /// Takes in what matters of a batch.
    fn fold(&mut self, batch: &Batch) {
        let seen = self.view_at;
        for (offset, record) in batch.records().filter(|(offset, _)| *offset > seen) {
            self.fold_record(offset, &record);
        }
        self.view_at = self.view_at.max(batch.last());
    }

    fn fold_record(&mut self, offset: Offset, record: &Record<'_>) {
        if record.kind() == Kind::Event {
            let (flags, origin) = (record.flags(), record.origin());
            if flags.retain() {
                let event = record.event();
                self.pending.retain(event.topic, (!event.payload.is_empty()).then_some(offset));
            }
            if origin.way_in == WayIn::Will {
                let key = WillKey { session: origin.session, serial: origin.packet_id };
                self.pending.published(key);
                self.wills.remove(key);
            } else if origin.packet_id != 0 && self.known.contains(origin.session) {
                self.pending.receive(origin.session, origin.packet_id, offset);
            } else if origin.packet_id != 0 {
                self.rescued.receive(origin.session, origin.packet_id, offset);
            }
        }
    }

    /// Takes an event out of the file, which is written anew, and removes files that were set aside.
    ///
    /// # Errors
    /// Why it could not be done; it may be tried again.
    pub fn redact(&mut self, offset: Offset, now: Now, turn: &mut Turn) -> Result<(), String> {
        self.pending.forget_offset(offset);
        let Some(store) = self.shelf.store() else { return Err("the state file is not open".into()) };
        let rewritten = self.file.rewrite(&store, offset).and_then(|new| {
            self.shelf.put(Some(new));
            self.file.remove_set_aside()
        });
        rewritten.map_err(|error: StoreError| {
            self.fail(&error, now, turn);
            format!("the state file could not be written anew: {error}")
        })
    }
}
