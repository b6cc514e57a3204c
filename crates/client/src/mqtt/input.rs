//! What came from the server and was not decoded yet.

use std::io;
use std::time::Duration;

use crate::stream::Stream;

/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;

/// Bytes that came and were not decoded yet.
#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many of them were decoded.
    pub(super) fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once, waiting at most so long.
    pub(super) fn fill(&mut self, stream: &mut Stream, timeout: Duration) -> io::Result<Option<usize>> {
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // room that grows with the packet, so that a large one is not moved again and again
            let wanted = self.end * 2 + READ_BYTES;
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        let read = stream.read(&mut self.buffer[self.end..], timeout)?;
        self.end += read.unwrap_or(0);
        Ok(read)
    }
}
