//! Walking through the batches of a segment, across damage.

use std::io;
use std::sync::Arc;

use crate::batch::{self, BATCH_HEADER_BYTES, BatchHeader, Piece};
use crate::disk::File;
use crate::event::Offset;
use crate::window::Window;

/// A record takes more bytes than this, so a damaged range cannot have held more records than its length over it.
pub(crate) const RECORD_BYTES_MIN: u64 = 9;
const SEARCH_BYTES: usize = 1 << 20;

/// Walks from batch to batch.
pub(crate) struct Walk {
    window: Window,
    salt: u32,
    /// Where the next batch should start.
    pub position: u64,
    /// The offset it should have.
    pub next: Offset,
    /// End of the file, or of the part that counts.
    pub end: u64,
    /// The last offset that counts.
    pub last_max: Offset,
}

/// What the walk met.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A batch whose header is whole, at this position. Its records were not looked at; the file may end in it.
    Batch(u64, BatchHeader),
    /// Bytes that are no batch, before the next one. The offsets from the first to the last of these are lost
    /// (none, if the second is below the first).
    Lost(Offset, Offset),
    /// No further batch.
    End,
}

impl Walk {
    pub(crate) fn new(file: Arc<dyn File>, salt: u32, position: u64, next: Offset, end: u64) -> Walk {
        Walk { window: Window::new(file), salt, position, next, end, last_max: Offset::MAX }
    }

    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if self.position >= self.end || self.next > self.last_max {
            return Ok(Step::End);
        }
        let head = self.window.get(self.position, BATCH_HEADER_BYTES)?;
        match BatchHeader::decode(head, self.salt) {
            Some(header) if header.base == self.next => {
                let position = self.position;
                self.position += header.total_bytes() as u64;
                self.next = header.last() + 1;
                Ok(Step::Batch(position, header))
            }
            _ => self.search(),
        }
    }

    /// Takes a batch apart into its whole and its bad records.
    pub(crate) fn pieces(&mut self, position: u64, header: &BatchHeader) -> io::Result<Vec<Piece>> {
        let len = header.total_bytes().min(usize::try_from(self.end - position).unwrap_or(usize::MAX));
        Ok(batch::split(self.window.get(position, len)?, header, self.salt))
    }

    /// Looks for the next batch behind damage, and goes there.
    fn search(&mut self) -> io::Result<Step> {
        let damaged_from = self.position;
        let mut at = self.position;
        while at + (BATCH_HEADER_BYTES as u64) <= self.end {
            let Some(data) = self.window.next_data(at)? else { break };
            at = at.max(data);
            let bytes = self.window.get(at, SEARCH_BYTES)?;
            let Some(found) = BatchHeader::find_magic(bytes, 0) else {
                if bytes.len() < SEARCH_BYTES {
                    break;
                }
                // A magic may begin in the last three bytes.
                at += bytes.len() as u64 - 3;
                continue;
            };
            at += found as u64;
            let header = BatchHeader::decode(self.window.get(at, BATCH_HEADER_BYTES)?, self.salt);
            let lost_max = (at - damaged_from) / RECORD_BYTES_MIN;
            let fits = |header: &BatchHeader| {
                header.base >= self.next
                    && header.base - self.next <= lost_max
                    && header.base <= self.last_max
            };
            if let Some(header) = header.filter(fits)
                && self.pieces(at, &header)?.iter().any(|piece| matches!(piece, Piece::Whole(_)))
            {
                let lost = Step::Lost(self.next, header.base - 1);
                self.position = at;
                self.next = header.base;
                return Ok(lost);
            }
            at += 1;
        }
        self.position = self.end;
        Ok(Step::End)
    }
}
