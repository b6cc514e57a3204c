//! One segment of the log, as readers and the writer share it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::disk::{Disk, File, NotAFile};
use crate::event::Offset;
use crate::index::Index;
use crate::no_file::NoFile;
use crate::note::Note;
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader, file_name};
use crate::shared::write_fully;
use crate::walk::{Step, Walk};
use crate::window::read_fully;

/// Places that readers are about to go on from, kept per segment.
const HINTS_MAX: usize = 32;
/// A side file is never larger: an index entry for every 64 KiB of a segment.
const SIDE_BYTES_MAX: usize = 64 << 20;

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
    /// Whether it was told what is wrong with it.
    told: AtomicBool,
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
            told: AtomicBool::new(false),
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
            told: AtomicBool::new(false),
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
        let header = match disk.open(&self.path) {
            Ok(file) => read_header(&*file)?,
            Err(error) if NotAFile::of(&error).is_some() => Decoded::None,
            Err(error) => return Err(error),
        };
        let header = match header {
            // That of another file says nothing about this one.
            Decoded::Header(header) if self.is_named(&header) => Some(header),
            _ => None,
        };
        Ok(*self.header.get_or_init(|| header))
    }

    /// Whether a file with this header has the name it should have.
    pub(crate) fn is_named(&self, header: &SegmentHeader) -> bool {
        (header.first, header.generation) == (self.first, self.generation)
    }

    /// Its file's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether this is the first time that something is said of it.
    pub(crate) fn tell_once(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
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
    /// it is made anew, and written. What is wrong with it is put into `notes`; of a file that is none of this log's
    /// nothing can be read, so that all its events lie in a gap.
    pub(crate) fn open(
        &self,
        disk: &dyn Disk,
        (log_id, salt): (u64, u32),
        notes: &mut Vec<Note>,
    ) -> io::Result<Opened> {
        let file = match disk.open(&self.path) {
            Ok(file) => file,
            Err(error) => match NotAFile::of(&error) {
                Some(what) => return Ok(self.unreadable(what.to_string(), notes)),
                None => return Err(error),
            },
        };
        let header = match read_header(&*file)? {
            Decoded::Header(header) => {
                if let Some(why) = self.foreign(&header, log_id) {
                    return Ok(self.unreadable(why, notes));
                }
                self.header.get_or_init(|| Some(header));
                self.mend_header(&*file, &header, notes);
                Some(header)
            }
            Decoded::Newer(version) => {
                return Ok(self.unreadable(format!("is of format {version}, of a later firehose"), notes));
            }
            Decoded::None => {
                if self.tell_once() {
                    notes.push(Note::HeaderDamaged { file: self.name() });
                }
                None
            }
        };
        let index = self.index_of(&file, disk, (header, salt), notes)?;
        self.time_max_us.get_or_init(|| index.time_max_us);
        Ok(Opened { file, index: Arc::new(index) })
    }

    /// Writes a damaged copy of the header anew, by the other one. What is not mended now is met again.
    pub(crate) fn mend_header(&self, file: &dyn File, header: &SegmentHeader, notes: &mut Vec<Note>) {
        let mut page = vec![0; SEGMENT_HEADER_BYTES];
        if read_fully(file, &mut page, 0).ok() != Some(SEGMENT_HEADER_BYTES) {
            return;
        }
        // Only its own bytes are written: a power cut meanwhile leaves the other copy as it is.
        if let Some((at, copy)) = header.lacks(&page) {
            let written = write_fully(file, &[io::IoSlice::new(&copy)], at as u64);
            let failed = written.and_then(|()| file.sync_data()).err().map(|error| error.to_string());
            notes.push(Note::HeaderCopyDamaged { file: self.name(), failed });
        }
    }

    /// Why a file with this header is not this segment, if it is not.
    pub(crate) fn foreign(&self, header: &SegmentHeader, log_id: u64) -> Option<String> {
        if header.log_id != log_id {
            return Some("belongs to another log".into());
        }
        (!self.is_named(header)).then(|| format!("has the contents of {}", header.file_name()))
    }

    fn unreadable(&self, why: String, notes: &mut Vec<Note>) -> Opened {
        if self.tell_once() {
            notes.push(Note::Unreadable { file: self.name(), why });
        }
        let index = Index::new(self.first, SEGMENT_HEADER_BYTES as u64);
        Opened { file: Arc::new(NoFile), index: Arc::new(index) }
    }

    /// The index in the side file, or one made anew.
    fn index_of(
        &self,
        file: &Arc<dyn File>,
        disk: &dyn Disk,
        (header, salt): (Option<SegmentHeader>, u32),
        notes: &mut Vec<Note>,
    ) -> io::Result<Index> {
        let len = file.len()?;
        let why = match self.stored(disk, &self.index_path(), header) {
            Ok(Some(index)) if index.len <= len && index.last >= self.first - 1 => return Ok(index),
            Ok(Some(_)) => Some("does not fit it"),
            Ok(None) => None,
            Err(why) => Some(why),
        };
        notes.extend(why.map(|why| Note::IndexMadeAnew { file: self.name(), why }));
        let index = self.build_index(Arc::clone(file), salt, len)?;
        // Without the side file it is made anew the next time.
        let _ = self.store_index(disk, &index);
        Ok(index)
    }

    /// Keeps what is asked for most of an index that is about to be closed.
    pub(crate) fn keep_summary(&self, index: &Index) {
        self.time_max_us.get_or_init(|| index.time_max_us);
        self.bytes.get_or_init(|| index.len);
    }

    /// Writes the side file; the index point has no use any more.
    pub(crate) fn store_index(&self, disk: &dyn Disk, index: &Index) -> io::Result<()> {
        self.store(disk, index, &self.index_path())?;
        let _ = disk.remove(&self.point_path());
        Ok(())
    }

    /// Writes the index up to a batch that is durable, as all before it.
    pub(crate) fn store_point(&self, disk: &dyn Disk, index: &Index) -> io::Result<()> {
        self.store(disk, index, &self.point_path())
    }

    /// The index up to a batch that was durable.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn stored_point(
        &self,
        disk: &dyn Disk,
        header: SegmentHeader,
    ) -> Result<Option<Index>, &'static str> {
        self.stored(disk, &self.point_path(), Some(header))
    }

    fn store(&self, disk: &dyn Disk, index: &Index, path: &std::path::Path) -> io::Result<()> {
        let written = path.with_added_extension("new");
        match disk.remove(&written) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&written)?;
        let bytes = index.encode(self.header(disk)?.map_or(0, |header| header.crc()));
        if file.write_at(&[io::IoSlice::new(&bytes)], 0)? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        file.sync_data()?;
        disk.rename(&written, path)
    }

    /// Its side files and its file.
    pub(crate) fn paths(&self) -> [PathBuf; 3] {
        [self.index_path(), self.point_path(), self.path.clone()]
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_extension("log.index")
    }

    pub(crate) fn point_path(&self) -> PathBuf {
        self.path.with_extension("log.point")
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

    fn stored(
        &self,
        disk: &dyn Disk,
        path: &std::path::Path,
        header: Option<SegmentHeader>,
    ) -> Result<Option<Index>, &'static str> {
        const UNREADABLE: &str = "cannot be read";
        let file = match disk.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(UNREADABLE),
        };
        let len =
            file.len().ok().and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= SIDE_BYTES_MAX);
        let mut bytes = vec![0; len.ok_or("is no index")?];
        let read = read_fully(&*file, &mut bytes, 0).map_err(|_| UNREADABLE)?;
        Index::decode(&bytes[..read], header.map_or(0, |header| header.crc())).map(Some)
    }

    fn build_index(&self, file: Arc<dyn File>, salt: u32, len: u64) -> io::Result<Index> {
        let start = SEGMENT_HEADER_BYTES as u64;
        let mut index = Index::new(self.first, start);
        let mut walk = Walk::new(file, salt, start, self.first, len);
        loop {
            match walk.step()? {
                Step::Batch(position, header) => index.push(&header, position),
                Step::Lost(..) => {}
                Step::End => break,
            }
        }
        // The file may be cut within its last batch.
        index.len = index.len.min(len);
        Ok(index)
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
