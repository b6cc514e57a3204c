//! Index points: the index of the segment that is written, up to a batch that is durable, stored now and then, so that
//! a start has only what follows to look through.

use std::io;
use std::sync::Arc;

use crate::index::Index;
use crate::segment::Segment;
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::shared::Shared;
use crate::writer::Writer;

/// What the commit thread knows of index points.
#[derive(Default)]
pub(crate) struct Points {
    /// The segment that is written, and the length of its index that was stored last.
    stored: Option<(Arc<Segment>, u64)>,
    /// Taken before a sync, worth nothing until it succeeds.
    taken: Option<(Arc<Segment>, Arc<Index>)>,
    /// Durable, and to be stored.
    durable: Option<(Arc<Segment>, Arc<Index>)>,
    /// Instead of the configured step.
    pub step_bytes: Option<u64>,
}

impl Points {
    /// Looks, before a sync, whether enough has come since the last point.
    pub(crate) fn look(&mut self, shared: &Shared, writer: &Writer) {
        let stored = self.stored.as_ref().filter(|(segment, _)| Arc::ptr_eq(segment, &writer.active));
        let from = stored.map_or(SEGMENT_HEADER_BYTES as u64, |(_, len)| *len);
        let step_bytes = self.step_bytes.unwrap_or(shared.config.index_point_bytes);
        let index = (writer.position >= from.saturating_add(step_bytes))
            .then(|| writer.active.look(|opened| Arc::clone(&opened.index)))
            .flatten();
        self.taken = index.map(|index| (Arc::clone(&writer.active), index));
    }

    /// The sync succeeded.
    pub(crate) fn set_durable(&mut self) {
        self.durable = self.taken.take().or(self.durable.take());
    }

    /// Stores the point that is durable, if its segment is still written.
    pub(crate) fn store(&mut self, shared: &Shared) -> io::Result<()> {
        let Some((segment, index)) = self.durable.take() else { return Ok(()) };
        // With its whole index stored it is of no use any more.
        if segment.live().is_none() {
            return Ok(());
        }
        self.stored = Some((Arc::clone(&segment), index.len));
        segment.store_point(&*shared.disk, &index)
    }
}
