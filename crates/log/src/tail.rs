//! The recent batches, in memory: what readers near the head get, and what is written anew after a failed sync.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::Batch;
use crate::event::Offset;

/// Bytes of memory for batches that are kept because they are not durable yet. Beyond it the oldest are let go: should
/// the sync then fail, they are read back from the file that failed. An allocator may keep as much for each shard.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// The newest batches of the log, without a hole.
pub(crate) struct Tail {
    batches: VecDeque<Arc<Batch>>,
    /// As [`Batch::memory_bytes`] has it, so that small batches count for what they take.
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
        self.bytes += batch.memory_bytes();
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
            self.bytes -= place.memory_bytes();
            self.bytes += redacted.memory_bytes();
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
            self.bytes -= front.memory_bytes();
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use crate::draft::Draft;
    use crate::event::{Event, Flags, Origin};

    fn batch(offset: Offset, payload: &[u8], room: usize) -> Arc<Batch> {
        let event = Event { flags: Flags::default(), topic: "t", attributes: Attributes::EMPTY, payload };
        let mut draft = Draft::with_capacity(room);
        draft.push(&event, &Origin::default()).expect("fits");
        Arc::new(Batch::placed(draft, offset, 0, 1, 0))
    }

    fn memory(tail: &Tail) -> usize {
        tail.batches.iter().map(|batch| batch.memory_bytes()).sum()
    }

    #[test]
    fn batches_count_for_the_memory_that_they_take() {
        for (payload, room) in [(&b"small"[..], 0), (b"small", 5_000), (&[b'x'; 3_000], 0)] {
            let mut tail = Tail::new(100_000, Offset::MAX);
            for offset in 1..2_000 {
                tail.push(batch(offset, payload, room));
            }
            assert_eq!(memory(&tail), tail.bytes);
            assert!((80_000..=100_000).contains(&tail.bytes), "{} with room for {room}", tail.bytes);
        }
    }

    #[test]
    fn what_is_not_durable_is_kept_up_to_a_bound() {
        let mut tail = Tail::new(100_000, 0);
        for offset in 1..20_000 {
            tail.push(batch(offset, &[b'x'; 1_000], 0));
        }
        assert!((UNSYNCED_BYTES_MAX - 2_000..=UNSYNCED_BYTES_MAX).contains(&tail.bytes), "{}", tail.bytes);
        tail.set_durable(19_990);
        assert!(memory(&tail) <= 100_000);
    }
}
