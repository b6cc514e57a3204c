//! One segment of the log, as readers and the writer share it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::disk::{Disk, File};
use crate::event::Offset;
use crate::index::Index;
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader, file_name};
use crate::walk::{Step, Walk};
use crate::window::read_fully;

/// Places that readers are about to go on from, kept per segment.
const HINTS_MAX: usize = 32;

/// A segment. What is not known of it is looked up when it is first asked for.
pub(crate) struct Segment {
    pub first: Offset,
    pub generation: u32,
    pub path: PathBuf,
    header: OnceLock<Option<SegmentHeader>>,
    time_max_us: OnceLock<i64>,
    bytes: OnceLock<u64>,
    /// File and index while it is written, and until its index stands in a side file.
    live: Mutex<Option<Opened>>,
    hints: Mutex<VecDeque<(Offset, u64)>>,
}

/// An open segment.
#[derive(Clone)]
pub(crate) struct Opened {
    pub file: Arc<dyn File>,
    pub index: Arc<Index>,
}

impl Segment {
    /// One that was found on the disk.
    pub(crate) fn found(dir: &std::path::Path, first: Offset, generation: u32) -> Segment {
        Segment {
            first,
            generation,
            path: dir.join(file_name(first, generation)),
            header: OnceLock::new(),
            time_max_us: OnceLock::new(),
            bytes: OnceLock::new(),
            live: Mutex::new(None),
            hints: Mutex::new(VecDeque::new()),
        }
    }

    /// One whose header and contents are known.
    pub(crate) fn known(path: PathBuf, header: SegmentHeader, opened: Opened) -> Segment {
        Segment {
            first: header.first,
            generation: header.generation,
            path,
            header: OnceLock::from(Some(header)),
            time_max_us: OnceLock::new(),
            bytes: OnceLock::new(),
            live: Mutex::new(Some(opened)),
            hints: Mutex::new(VecDeque::new()),
        }
    }

    /// File and index while it is written.
    pub(crate) fn live(&self) -> Option<Opened> {
        lock(&self.live).clone()
    }

    /// Changes the index while it is written. The sequencer calls it; a reader holds no more than a moment the
    /// index it got, so that it is copied seldom.
    pub(crate) fn with_index(&self, change: impl FnOnce(&mut Index)) {
        if let Some(opened) = &mut *lock(&self.live) {
            change(Arc::make_mut(&mut opened.index));
        }
    }

    /// Looks at the index while it is written.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Opened) -> T) -> Option<T> {
        lock(&self.live).as_ref().map(look)
    }

    /// Keeps file and index until the index stands in a side file.
    pub(crate) fn set_live(&self, opened: Opened) {
        *lock(&self.live) = Some(opened);
    }

    /// It is written no longer, and its file can be closed.
    pub(crate) fn close(&self) {
        *lock(&self.live) = None;
    }

    /// Its header; `None` if both copies are damaged.
    pub(crate) fn header(&self, disk: &dyn Disk) -> io::Result<Option<SegmentHeader>> {
        if let Some(header) = self.header.get() {
            return Ok(*header);
        }
        let header = match read_header(&*disk.open(&self.path)?)? {
            Decoded::Header(header) => Some(header),
            Decoded::Newer(_) | Decoded::None => None,
        };
        Ok(*self.header.get_or_init(|| header))
    }

    /// The latest time of its batches, if it is known without a look at the disk.
    pub(crate) fn time_max_us(&self) -> Option<i64> {
        self.look(|opened| opened.index.time_max_us).or_else(|| self.time_max_us.get().copied())
    }

    /// Bytes its file takes.
    pub(crate) fn bytes(&self, disk: &dyn Disk) -> io::Result<u64> {
        if let Some(len) = self.look(|opened| opened.index.len) {
            return Ok(len);
        }
        match self.bytes.get() {
            Some(bytes) => Ok(*bytes),
            None => {
                let len = disk.open(&self.path)?.len()?;
                Ok(*self.bytes.get_or_init(|| len))
            }
        }
    }

    /// Opens a segment that is no longer written. Its index comes from the side file; if that is missing or bad
    /// it is made anew, and written.
    pub(crate) fn open(&self, disk: &dyn Disk, salt: u32) -> io::Result<Opened> {
        let file = disk.open(&self.path)?;
        let len = file.len()?;
        let stored = self.stored_index(disk).filter(|index| index.len <= len && index.last >= self.first - 1);
        let index = match stored {
            Some(index) => index,
            None => {
                let index = self.build_index(Arc::clone(&file), salt, len)?;
                // Without the side file it is made anew the next time.
                let _ = self.store_index(disk, &index);
                index
            }
        };
        self.time_max_us.get_or_init(|| index.time_max_us);
        Ok(Opened { file, index: Arc::new(index) })
    }

    /// Keeps what is asked for most of an index that is about to be closed.
    pub(crate) fn keep_summary(&self, index: &Index) {
        self.time_max_us.get_or_init(|| index.time_max_us);
        self.bytes.get_or_init(|| index.len);
    }

    /// Writes the side file.
    pub(crate) fn store_index(&self, disk: &dyn Disk, index: &Index) -> io::Result<()> {
        let path = self.index_path();
        let written = path.with_extension("index.new");
        match disk.remove(&written) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&written)?;
        let bytes = index.encode();
        if file.write_at(&[io::IoSlice::new(&bytes)], 0)? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        file.sync_data()?;
        disk.rename(&written, &path)
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_extension("log.index")
    }

    /// Remembers where a reader will go on.
    pub(crate) fn remember(&self, offset: Offset, position: u64) {
        let mut hints = lock(&self.hints);
        if hints.len() >= HINTS_MAX {
            hints.pop_front();
        }
        hints.push_back((offset, position));
    }

    /// Where the batch that begins with `offset` starts, if a reader was about to go on there.
    pub(crate) fn remembered(&self, offset: Offset) -> Option<u64> {
        let mut hints = lock(&self.hints);
        let at = hints.iter().rposition(|(hint, _)| *hint == offset)?;
        hints.remove(at).map(|(_, position)| position)
    }

    fn stored_index(&self, disk: &dyn Disk) -> Option<Index> {
        let file = disk.open(&self.index_path()).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        let mut bytes = vec![0; len];
        let read = read_fully(&*file, &mut bytes, 0).ok()?;
        Index::decode(&bytes[..read])
    }

    fn build_index(&self, file: Arc<dyn File>, salt: u32, len: u64) -> io::Result<Index> {
        let start = SEGMENT_HEADER_BYTES as u64;
        let mut index = Index::new(self.first, start);
        let mut walk = Walk::new(file, salt, start, self.first, len);
        loop {
            match walk.step()? {
                Step::Batch(position, header) => index.push(&header, position),
                Step::Lost(..) => {}
                Step::End => return Ok(index),
            }
        }
    }
}

/// Reads the header of a segment file.
pub(crate) fn read_header(file: &dyn File) -> io::Result<Decoded> {
    let mut page = vec![0; SEGMENT_HEADER_BYTES];
    let read = read_fully(file, &mut page, 0)?;
    Ok(SegmentHeader::decode(&page[..read]))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
