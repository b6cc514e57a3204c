//! A piece of a file in memory, read ahead: for walking through a segment from front to back.

use std::io;
use std::sync::Arc;

use crate::disk::File;

const READ_AHEAD_BYTES: usize = 1 << 20;

/// The part of a file that was last read.
pub(crate) struct Window {
    file: Arc<dyn File>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn File>) -> Window {
        // It reads ahead itself, and looks for what was preallocated and never written.
        file.set_read_ahead(false);
        Window { file, start: 0, bytes: Vec::new() }
    }

    /// Where, at or after `position`, a byte stands that may not be zero.
    pub(crate) fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        let ahead = position >= self.start + self.bytes.len() as u64;
        if ahead { self.file.next_data(position) } else { Ok(Some(position)) }
    }

    /// What is in memory from `position` on, which is `least` bytes or more; fewer only where the file ends.
    pub(crate) fn rest(&mut self, position: u64, least: usize) -> io::Result<&[u8]> {
        self.get(position, least)?;
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..).unwrap_or(&[]))
    }

    /// `len` bytes at `position`; fewer where the file ends.
    pub(crate) fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let inside = position >= self.start && position + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.bytes.resize(len.max(READ_AHEAD_BYTES), 0);
            let read = read_fully(&*self.file, &mut self.bytes, position)?;
            self.bytes.truncate(read);
            self.start = position;
        }
        let from = (position - self.start) as usize;
        let to = (from + len).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.file.set_read_ahead(true);
    }
}

/// Fills `buf` from `position`; gives how much there was.
pub(crate) fn read_fully(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
