//! Walking through the batches of a segment, across damage.

use std::io;
use std::sync::Arc;

use crate::batch::{self, BATCH_HEADER_BYTES, BatchHeader, Piece};
use crate::disk::File;
use crate::event::Offset;
use crate::window::Window;

/// A record takes more bytes than this, so a damaged range cannot have held more records than its length over it.
pub(crate) const RECORD_BYTES_MIN: u64 = 9;

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
            let bytes = self.window.rest(at, BATCH_HEADER_BYTES)?;
            if bytes.len() < BATCH_HEADER_BYTES {
                break;
            }
            let Some(found) = BatchHeader::find_magic(bytes, 0) else {
                let behind = at + bytes.len() as u64;
                at = match self.window.next_data(behind)? {
                    // A magic may begin in the last three bytes.
                    Some(data) if data <= behind => behind - 3,
                    Some(data) => data,
                    None => break,
                };
                continue;
            };
            at += found as u64;
            if at + BATCH_HEADER_BYTES as u64 > self.end {
                break;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::sync::atomic::{AtomicU64, Ordering};

    const LEN: u64 = 128 << 20;

    /// A file that was preallocated and never written. What was read counts as data, as on a real disk.
    #[derive(Default)]
    struct Preallocated {
        read_to: AtomicU64,
    }

    impl File for Preallocated {
        fn len(&self) -> io::Result<u64> {
            Ok(LEN)
        }

        fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
            let read = buf.len().min(usize::try_from(LEN - position.min(LEN)).unwrap_or(0));
            buf[..read].fill(0);
            self.read_to.fetch_max(position + read as u64, Ordering::Relaxed);
            Ok(read)
        }

        fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
            self.read_at(buf, position)
        }

        fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
            Ok((position < self.read_to.load(Ordering::Relaxed)).then_some(position))
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn preallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_preallocated_is_not_read_to_its_end() {
        let file = Arc::new(Preallocated::default());
        let mut walk = Walk::new(Arc::clone(&file) as Arc<dyn File>, 0, 4096, 1, LEN);
        assert_eq!(walk.step().expect("reads"), Step::End);
        assert!(
            file.read_to.load(Ordering::Relaxed) <= 2 << 20,
            "{file_read} bytes",
            file_read = file.read_to.load(Ordering::Relaxed)
        );
    }
}
