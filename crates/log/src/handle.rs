//! The readers' side of the log: offsets, times and cursors.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::engine::{Chunk, Fetched, Read, ReadError, Start, Wait};
use crate::event::{FIRST_OFFSET, Offset};
use crate::fetch;
use crate::reader;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::since::{Since, SinceError};

/// Bytes of one read while a time is sought.
const SEEK_BYTES: usize = 256 << 10;
/// By how much the clocks of two logs may differ, in seconds.
const FOREIGN_SLACK_SECS: i64 = 300;

/// What readers hold of a log.
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Read for Handle {
    fn head(&self) -> Offset {
        self.0.head.load(Ordering::Acquire)
    }

    fn oldest(&self) -> Offset {
        self.0.segments().first().map_or(FIRST_OFFSET, |oldest| oldest.first)
    }

    fn epoch(&self) -> u32 {
        self.0.epoch
    }

    fn log_id(&self) -> u64 {
        self.0.log_id
    }

    fn read(&self, from: Offset, upto: Offset, bytes_max: usize, wait: Wait) -> Result<Chunk, ReadError> {
        reader::read(&self.0, from, upto, bytes_max, wait)
    }

    fn fetch(&self, offsets: &[Offset], wait: Wait) -> Result<Fetched, ReadError> {
        fetch::fetch(&self.0, offsets, wait)
    }

    fn kept(&self) -> Vec<Offset> {
        let Some(kept) = self.0.kept() else { return Vec::new() };
        let oldest = self.oldest();
        kept.offsets().take_while(|offset| *offset < oldest).collect()
    }

    fn seek_time(&self, time_us: i64) -> Result<Offset, ReadError> {
        let segments = self.0.segments().clone();
        for segment in &segments {
            if let Some(start) = self.seek_segment(segment, time_us)? {
                return self.seek_from(start, time_us);
            }
        }
        Ok(self.head() + 1)
    }

    fn resolve(&self, from: &Since, now_us: i64) -> Result<Start, SinceError> {
        let at = |time_us| {
            let next = self.seek_time(time_us).map_err(|error| SinceError::Io(error.0))?;
            Ok(Start { next: next.max(self.oldest()), gap: None, foreign: false })
        };
        match from {
            Since::Earliest => Ok(Start { next: self.oldest(), gap: None, foreign: false }),
            Since::At(time_us) => at(*time_us),
            Since::Ago(ago) => at(now_us.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))),
            Since::After(cursor) if cursor.log_id != self.0.log_id => {
                let secs = cursor.recorded_secs.saturating_sub(FOREIGN_SLACK_SECS);
                let start = at(secs.saturating_mul(1_000_000))?;
                Ok(Start { gap: Some((FIRST_OFFSET, start.next - 1)), foreign: true, ..start })
            }
            Since::After(cursor) => self.after(cursor),
        }
    }

    fn clock_is_held(&self) -> bool {
        self.0.clock_held.load(Ordering::Acquire)
    }

    fn damage(&self) -> Damage {
        let (oldest, kept) = (self.oldest(), self.0.kept());
        let is_there =
            |first, last| last >= oldest || kept.as_ref().is_some_and(|kept| kept.has_any(first, last));
        self.0.damaged.known(is_there)
    }

    fn read_only(&self) -> Option<String> {
        self.0.read_only.get().cloned()
    }

    fn cursor(&self, offset: Offset, time_us: i64) -> Cursor {
        Cursor {
            log_id: self.0.log_id,
            epoch: self.epoch_of(offset),
            offset,
            recorded_secs: time_us.div_euclid(1_000_000),
        }
    }
}

impl Handle {
    /// Where a cursor of this log starts.
    fn after(&self, cursor: &Cursor) -> Result<Start, SinceError> {
        let head = self.head();
        let above = || SinceError::AboveHead { offset: cursor.offset, head };
        let offset = match cursor.epoch.cmp(&self.0.epoch) {
            std::cmp::Ordering::Less => cursor.offset.min(self.epoch_end(cursor.epoch)?),
            std::cmp::Ordering::Equal if cursor.offset <= head => cursor.offset,
            _ => return Err(above()),
        };
        let (next, oldest) = (offset + 1, self.oldest());
        let gap = (next < oldest).then(|| (next, oldest - 1));
        Ok(Start { next: next.max(oldest), gap, foreign: false })
    }

    /// The last offset of an epoch before the present one: what the first segment of the next epoch says that is
    /// still there. From the newest backwards, since few cursors are of epochs long past.
    fn epoch_end(&self, epoch: u32) -> Result<Offset, SinceError> {
        let segments = self.0.segments().clone();
        let mut end = self.0.previous_epoch_end;
        for segment in segments.iter().rev() {
            let header = segment.header(&*self.0.disk);
            match header.map_err(|error| SinceError::Io(format!("{}: {error}", segment.path.display())))? {
                Some(header) if header.epoch > epoch => end = header.previous_epoch_end,
                Some(_) => break,
                None => {}
            }
        }
        Ok(end)
    }

    /// The epoch in which an event was recorded.
    fn epoch_of(&self, offset: Offset) -> u32 {
        if offset > self.0.previous_epoch_end {
            return self.0.epoch;
        }
        let segment = {
            let segments = self.0.segments();
            let after = segments.partition_point(|segment| segment.first <= offset);
            segments.get(after.saturating_sub(1)).cloned()
        };
        let header = segment.and_then(|segment| segment.header(&*self.0.disk).ok().flatten());
        match header {
            Some(header) if offset > header.previous_epoch_end => header.epoch,
            Some(header) => header.epoch.saturating_sub(1),
            // The end of the epoch before the present one lies behind every such event.
            None => self.0.epoch.saturating_sub(1),
        }
    }

    /// Where in a segment to look for the first record of `time_us` or later, if it has one.
    fn seek_segment(&self, segment: &Arc<Segment>, time_us: i64) -> Result<Option<Offset>, ReadError> {
        if segment.time_max_us().is_some_and(|latest| latest < time_us) {
            return Ok(None);
        }
        if let Some(found) = segment.look(|opened| opened.index.seek_time(time_us)) {
            return Ok(found);
        }
        match self.0.open(segment) {
            Ok(opened) => Ok(opened.index.seek_time(time_us)),
            // Retention took it just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError(format!("{}: {error}", segment.path.display()))),
        }
    }

    fn seek_from(&self, start: Offset, time_us: i64) -> Result<Offset, ReadError> {
        let mut next = start;
        loop {
            match self.read(next, Offset::MAX, SEEK_BYTES, Wait::Yes)? {
                Chunk::Batches(batches) => {
                    if let Some(found) = batches.iter().find(|batch| batch.time_us() >= time_us) {
                        return Ok(found.base());
                    }
                    next = batches.last().map_or(next, |batch| batch.last()) + 1;
                }
                Chunk::Gap { next: after, .. } => next = after,
                Chunk::Blocked | Chunk::End => return Ok(next.max(self.head() + 1)),
            }
        }
    }
}
