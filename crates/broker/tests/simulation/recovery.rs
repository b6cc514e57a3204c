//! What a bus finds on the disk when it starts, and what its log has at any time, held against the ledger.

use crate::bus::{Bus, Unstarted};
use crate::engine::lock;
use crate::world::World;
use firehose_log::{Chunk, Fetched, Offset, OpenError, Wait};

/// Bytes asked of the log at a time when it is checked.
const CHECK_BYTES: usize = 64 << 10;

impl World {
    /// Starts the bus, if the disk lets it, and holds what it found against the ledger.
    pub fn start(&mut self) {
        let started = Bus::start(&self.plan, &self.disk, &self.witness, &self.ledger, &self.mood, self.now);
        match started {
            Ok(bus) => {
                let (head, epoch) = (bus.head(), bus.read.epoch());
                self.note(|| format!("started: head {head}, epoch {epoch}"));
                self.bus = Some(bus);
                self.recovered(head, epoch);
                self.hear_state();
            }
            Err(error) => {
                self.note(|| format!("not started: {error}"));
                let broken = matches!(error, Unstarted::Log(OpenError::NewerFormat { .. }));
                assert!(!broken || self.is_flipped, "{error}");
                self.is_over = broken;
                self.doubtful = self.head();
            }
        }
    }

    fn recovered(&mut self, head: Offset, epoch: u32) {
        // One that found no room to begin, or whose first segment the power took, is given out again: nothing is of it.
        let before = lock(&self.ledger).epoch;
        assert!(epoch > before || self.is_flipped, "epoch {epoch}, and events were recorded in {before}");
        lock(&self.ledger).cut(head);
        self.redactions.crashed(head);
        for client in &mut self.clients {
            client.reader.cut(head);
            if let Some((_, offset)) = &mut client.cursor {
                *offset = (*offset).min(head);
            }
        }
        self.check_log();
        lock(&self.ledger).check_taken_back(&self.disk);
        self.check_kept();
        if !self.is_flipped {
            lock(&self.ledger).check_acknowledged();
        }
    }

    /// Reads the whole log: it is what was placed.
    pub fn check_log(&mut self) {
        let Some(bus) = &self.bus else { return };
        let mut ledger = lock(&self.ledger);
        ledger.oldest = bus.read.oldest();
        let head = ledger.head();
        assert_eq!(bus.head(), head, "the log's head is not the newest event that was placed");
        let mut next = ledger.oldest;
        while next <= head {
            match bus.read.read(next, head, CHECK_BYTES, Wait::Yes) {
                Ok(Chunk::Batches(batches)) => {
                    assert!(
                        batches.iter().any(|batch| batch.last() >= next),
                        "nothing of {next}: {batches:?}"
                    );
                    for batch in &batches {
                        assert!(batch.base() <= next, "{next} is left out: {}", batch.base());
                        ledger.compare(batch, next, head);
                        next = batch.last() + 1;
                    }
                }
                Ok(Chunk::Gap { next: after, why }) => {
                    assert!(after > next, "a gap from {next} to before {after}: {why}");
                    let may = after > ledger.durable || ledger.is_damaged(next) || self.is_flipped;
                    let may = may || after - 1 <= self.doubtful;
                    assert!(may, "events {next} to {} are gone: {why}", after - 1);
                    ledger.lose(next, after - 1);
                    next = after;
                }
                other => panic!("event {next} of {head} cannot be read: {other:?}"),
            }
        }
    }

    /// What turned bits have damaged of the side file: what was in it at the last look, or is now, and cannot be read. What
    /// was retained among it is gone: upkeep and the next start tell the operator how many, and nobody subscribed would
    /// know what to do with a gap of events that retention had taken long before.
    pub fn check_kept(&mut self) {
        let Some(bus) = self.bus.as_ref().filter(|_| self.is_flipped) else { return };
        let mut ledger = lock(&self.ledger);
        let mut kept = bus.read.kept();
        kept.append(&mut self.kept);
        kept.sort_unstable();
        kept.dedup();
        kept.retain(|offset| *offset < ledger.oldest);
        let Ok(Fetched::Events(events)) = bus.read.fetch(&kept, Wait::Yes) else { return };
        let is_there = |offset: &Offset| events.iter().any(|(known, _)| known == offset);
        let is_gone = |offset: &&Offset| !is_there(offset) && !ledger.taken_back.has(**offset);
        let gone: Vec<Offset> = kept.iter().filter(is_gone).copied().collect();
        gone.iter().for_each(|offset| ledger.lose(*offset, *offset));
        self.kept = bus.read.kept();
    }
}
