//! The log's answer for single offsets: what is to be sent again, or was given back to a group.

use firehose_log::{Batch, Chunk, Fetched, Offset, Read, ReadError, Wait};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct FetchedEvents {
    /// The events, ascending, each in the batch that holds it.
    pub events: Vec<(Offset, Arc<Batch>)>,
    /// What is gone from the log, ascending, and why. What was taken back is in neither list.
    pub gone: Vec<(Offset, &'static str)>,
}

impl FetchedEvents {
    /// Reads the events at these offsets, which ascend. May wait for the disk.
    ///
    /// # Errors
    /// [`ReadError`]: the disk cannot be read.
    pub fn read(read: &dyn Read, offsets: &[Offset]) -> Result<FetchedEvents, ReadError> {
        let Fetched::Events(events) = read.fetch(offsets, Wait::Yes)? else { return Err(waits()) };
        let mut gone = Vec::new();
        for &offset in offsets {
            if events.binary_search_by_key(&offset, |(offset, _)| *offset).is_err() {
                match read.read(offset, offset, 1, Wait::Yes)? {
                    Chunk::Gap { why, .. } => gone.push((offset, why)),
                    Chunk::Blocked => return Err(waits()),
                    // A tombstone.
                    Chunk::Batches(_) | Chunk::End => {}
                }
            }
        }
        Ok(FetchedEvents { events, gone })
    }

    /// The batch that holds an event.
    pub(crate) fn batch_of(&self, offset: Offset) -> Option<&Arc<Batch>> {
        let at = self.events.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(&self.events[at].1)
    }

    /// Why an event is gone, if it is.
    pub(crate) fn why_gone(&self, offset: Offset) -> Option<&'static str> {
        let at = self.gone.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(self.gone[at].1)
    }
}

fn waits() -> ReadError {
    ReadError("it would have to be waited for".into())
}
