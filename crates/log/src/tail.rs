//! The recent batches, in memory: what readers near the head get, and what is written anew after a failed sync.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::Batch;
use crate::event::Offset;

/// Bytes of batches that are kept because they are not durable yet. Beyond it the oldest are let go: should the
/// sync then fail, they are read back from the file that failed.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 32 << 20;

/// The newest batches of the log, without a hole.
pub(crate) struct Tail {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    bytes_max: usize,
    durable: Offset,
    /// Whether nothing is let go: what is here stands nowhere yet from where it could be read.
    pinned: bool,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize, durable: Offset) -> Tail {
        Tail { batches: VecDeque::new(), bytes: 0, bytes_max, durable, pinned: false }
    }

    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        self.bytes += batch.bytes_len();
        self.batches.push_back(batch);
        self.trim();
    }

    /// Keeps a batch until the epoch has begun.
    pub(crate) fn pin(&mut self, batch: Arc<Batch>) {
        self.pinned = true;
        self.push(batch);
    }

    /// The epoch has begun, with all that is here in its segments.
    pub(crate) fn settle(&mut self, durable: Offset) {
        self.pinned = false;
        self.set_durable(durable);
    }

    pub(crate) fn set_durable(&mut self, durable: Offset) {
        self.durable = durable;
        self.trim();
    }

    pub(crate) fn durable(&self) -> Offset {
        self.durable
    }

    /// Batches from the one that holds `from`, if it is here.
    pub(crate) fn read(&self, from: Offset, upto: Offset, bytes_max: usize) -> Option<Vec<Arc<Batch>>> {
        if self.batches.front()?.base() > from || self.batches.back()?.last() < from {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.last() < from);
        let mut found = Vec::new();
        let mut bytes = 0;
        for batch in self.batches.range(first..) {
            let full = !found.is_empty() && bytes + batch.bytes_len() > bytes_max;
            if full || batch.base() > upto {
                break;
            }
            bytes += batch.bytes_len();
            found.push(Arc::clone(batch));
        }
        Some(found)
    }

    /// The first offset that is here.
    pub(crate) fn first(&self) -> Option<Offset> {
        self.batches.front().map(|batch| batch.base())
    }

    /// The batch that holds `offset`, if it is here.
    pub(crate) fn find(&self, offset: Offset) -> Option<Arc<Batch>> {
        let at = self.batches.partition_point(|batch| batch.last() < offset);
        self.batches.get(at).filter(|batch| batch.base() <= offset).cloned()
    }

    /// Puts a tombstone where the record at `offset` stands, if it is here.
    pub(crate) fn redact(&mut self, offset: Offset, salt: u32) {
        let at = self.batches.partition_point(|batch| batch.last() < offset);
        let Some(place) = self.batches.get_mut(at) else { return };
        if let Some(redacted) = place.redacted(offset, salt) {
            self.bytes -= place.bytes_len();
            self.bytes += redacted.bytes_len();
            *place = Arc::new(redacted);
        }
    }

    fn trim(&mut self) {
        if self.pinned {
            return;
        }
        while let Some(front) = self.batches.front() {
            let keep = if front.last() <= self.durable {
                self.bytes_max
            } else {
                self.bytes_max.max(UNSYNCED_BYTES_MAX)
            };
            if self.bytes <= keep {
                return;
            }
            self.bytes -= front.bytes_len();
            self.batches.pop_front();
        }
    }
}
