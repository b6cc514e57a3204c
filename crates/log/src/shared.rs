//! What the sequencer, the commit thread and the readers of one log share.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::damage::Damaged;
use crate::disk::{Disk, File};
use crate::engine::Upkeep;
use crate::event::Offset;
use crate::index::Index;
use crate::kept::Kept;
use crate::log::LogConfig;
use crate::segment::{Opened, Segment, lock};
use crate::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::tail::Tail;
use crate::writer::Writer;

/// Files of segments that are no longer written, kept open for readers.
const OPEN_FILES_MAX: usize = 16;

/// A log's common ground. Locks are taken in the order writer, segments, tail, never the other way.
pub(crate) struct Shared {
    pub config: LogConfig,
    pub disk: Arc<dyn Disk>,
    pub log_id: u64,
    pub salt: u32,
    pub epoch: u32,
    pub previous_epoch_end: Offset,
    /// Offset of the newest record that is written.
    pub head: AtomicU64,
    /// The last offset that the segments hold while the epoch waits for room to begin; what is above stands in the
    /// tail. `Offset::MAX` once it has begun.
    pub segments_end: AtomicU64,
    /// In order of their offsets, the active one last; empty only while the first epoch waits for room to begin.
    pub segments: RwLock<Vec<Arc<Segment>>>,
    /// The records that outlived their segments.
    pub kept: RwLock<Option<Arc<Kept>>>,
    pub tail: Mutex<Tail>,
    pub writer: Mutex<Writer>,
    pub wants_upkeep: AtomicBool,
    /// Whether the wall clock has jumped and is not trusted.
    pub clock_held: AtomicBool,
    /// Why the log is read-only until a restart.
    pub read_only: OnceLock<String>,
    /// Noticed outside of upkeep, told by the next one.
    pub notices: Mutex<Vec<Upkeep>>,
    /// Events that cannot be read.
    pub damaged: Damaged,
    /// The segments that were read last, the latest at the end.
    pub opened: Mutex<Vec<(Arc<Segment>, Opened)>>,
    /// Keeps other processes out of the folder.
    pub _lock: Box<dyn Send + Sync>,
}

impl Shared {
    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn kept_mut(&self) -> RwLockWriteGuard<'_, Option<Arc<Kept>>> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment's file and index, if it was read lately.
    pub(crate) fn opened_lately(&self, segment: &Arc<Segment>) -> Option<Opened> {
        let mut opened = lock(&self.opened);
        let at = opened.iter().position(|(other, _)| Arc::ptr_eq(other, segment))?;
        let entry = opened.remove(at);
        let found = entry.1.clone();
        opened.push(entry);
        Some(found)
    }

    /// The segment's file and index. May wait for the disk.
    pub(crate) fn open(&self, segment: &Arc<Segment>) -> io::Result<Opened> {
        if let Some(opened) = segment.live().or_else(|| self.opened_lately(segment)) {
            return Ok(opened);
        }
        let mut notes = Vec::new();
        let found = segment.open(&*self.disk, (self.log_id, self.salt), &mut notes)?;
        if !notes.is_empty() {
            lock(&self.notices).extend(notes.into_iter().map(Upkeep::Noticed));
        }
        let mut opened = lock(&self.opened);
        if opened.len() >= OPEN_FILES_MAX {
            opened.remove(0);
        }
        opened.push((Arc::clone(segment), found.clone()));
        drop(opened);
        // It may have gone meanwhile: then nobody closes it later.
        if !self.segments().iter().any(|other| Arc::ptr_eq(other, segment)) {
            self.forget(segment);
        }
        Ok(found)
    }

    /// A read found that the events from `first` to `last` are damaged.
    pub(crate) fn found_damaged(&self, first: Offset, last: Offset) {
        if let Some(note) = self.damaged.found(first, last) {
            lock(&self.notices).push(Upkeep::Noticed(note));
        }
    }

    /// Closes the files of a segment that is gone.
    pub(crate) fn forget(&self, segment: &Arc<Segment>) {
        lock(&self.opened).retain(|(other, _)| !Arc::ptr_eq(other, segment));
    }

    /// The header of a segment that begins behind `previous_end`.
    pub(crate) fn header(&self, previous_end: Offset, generation: u32, now_us: i64) -> SegmentHeader {
        SegmentHeader {
            log_id: self.log_id,
            salt: self.salt,
            epoch: self.epoch,
            generation,
            first: previous_end + 1,
            previous_end,
            previous_epoch_end: self.previous_epoch_end,
            created_us: now_us,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }
}

/// A segment that begins, with the header that its file has.
pub(crate) fn begun(path: PathBuf, header: SegmentHeader, file: Arc<dyn File>) -> Arc<Segment> {
    let index = Arc::new(Index::new(header.first, SEGMENT_HEADER_BYTES as u64));
    Arc::new(Segment::known(path, header, Opened { file, index }))
}

/// Writes all slices at `position`, or fails.
pub(crate) fn write_fully(file: &dyn File, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
    let len: usize = slices.iter().map(|slice| slice.len()).sum();
    let written = file.write_at(slices, position)?;
    if written < len {
        let why = format!("only {written} of {len} bytes were written");
        return Err(io::Error::new(io::ErrorKind::WriteZero, why));
    }
    Ok(())
}
