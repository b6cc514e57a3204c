//! A batch being built. Its records and their CRCs are made here, on the publisher's thread; offsets and time
//! come with the place in the log.

use crate::batch::BATCH_HEADER_BYTES;
use crate::event::{self, Event, Origin};
use crate::record::{self, TooLarge};

/// Most bytes of one draft: what a batch header's field can say, with room to spare.
pub const DRAFT_BYTES_MAX: usize = 1 << 30;

/// A draft that is fitted keeps less than this part of its bytes as room.
const SPARE_PART: usize = 8;

/// A batch being built. The header's bytes stand free at its front, so the whole moves into the batch, and to
/// the disk, as it is.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub(crate) bytes: Vec<u8>,
    /// Where the second and later records start in `bytes`; the first starts after the header.
    pub(crate) starts: Vec<u32>,
    pub(crate) len: usize,
    pub(crate) is_marked: bool,
}

impl Draft {
    /// Without a record yet; allocates nothing.
    pub fn new() -> Draft {
        Draft::default()
    }

    /// With room for `bytes` bytes of records.
    pub fn with_capacity(bytes: usize) -> Draft {
        Draft { bytes: Vec::with_capacity(BATCH_HEADER_BYTES + bytes), ..Draft::default() }
    }

    /// Adds an event at the end.
    ///
    /// # Errors
    /// [`TooLarge`] if the format cannot hold the event, or the draft has reached [`DRAFT_BYTES_MAX`]; the
    /// draft stays as it was.
    pub fn push(&mut self, event: &Event<'_>, origin: &Origin<'_>) -> Result<(), TooLarge> {
        if self.bytes.is_empty() {
            self.bytes.resize(BATCH_HEADER_BYTES, 0);
        }
        let start = self.bytes.len();
        record::encode(&mut self.bytes, event, origin)?;
        if self.bytes.len() > DRAFT_BYTES_MAX {
            self.bytes.truncate(start);
            return Err(TooLarge);
        }
        if self.len > 0 {
            self.starts.push(start as u32);
        }
        self.len += 1;
        self.is_marked |= event::is_marked(event.flags, origin);
        Ok(())
    }

    /// Adds a record as it stands in a batch.
    pub(crate) fn push_record(&mut self, bytes: &[u8], is_marked: bool) {
        if self.bytes.is_empty() {
            self.bytes.resize(BATCH_HEADER_BYTES, 0);
        }
        if self.len > 0 {
            self.starts.push(self.bytes.len() as u32);
        }
        self.bytes.extend_from_slice(bytes);
        self.len += 1;
        self.is_marked |= is_marked;
    }

    /// Gives back the room that it has beyond its records: what is handed in may stay in memory for a while.
    pub fn fit(&mut self) {
        if self.bytes.capacity() - self.bytes.len() > self.bytes.len() / SPARE_PART {
            self.bytes.shrink_to_fit();
        }
        if self.starts.capacity() - self.starts.len() > self.starts.len() / SPARE_PART {
            self.starts.shrink_to_fit();
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds an event that matters to the state beside the log: one to be retained, one whose packet id has
    /// to be remembered ([`Origin::packet_id`]), or a will ([`crate::WayIn::Will`]).
    pub fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// Bytes of the records and of the header they will get; 0 without a record.
    pub fn bytes_len(&self) -> usize {
        if self.len == 0 { 0 } else { self.bytes.len() }
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
