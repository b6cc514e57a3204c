//! The beginning of an epoch: its first segment, durable in all its parts, before anything is appended. On a full disk
//! it waits, and the log can be read meanwhile.

use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{Batch, BatchHeader};
use crate::disk::File;
use crate::event::Offset;
use crate::folder::remove_segment;
use crate::index::Index;
use crate::no_file::NoFile;
use crate::segment::{Opened, Segment, lock};
use crate::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::shared::{Shared, begun, write_fully};
use crate::window::Window;
use crate::writer::{NEXT, Writer};

/// Bytes of one write when what may not be durable is written again.
const SETTLE_BYTES: usize = 1 << 20;

/// An epoch that is about to begin.
pub(crate) struct Beginning {
    pub header: SegmentHeader,
    /// Whole records of a torn batch at the end of the last segment. They stand there too until they stand in the new
    /// one.
    pub carried: Option<Arc<Batch>>,
    pub unsettled: Vec<Unsettled>,
    /// The last segment, and where it is cut once the new one stands.
    pub torn: Option<(Arc<dyn File>, u64)>,
    /// Files that must be gone before anything is appended.
    pub leftover: Vec<PathBuf>,
    /// Files that get another name before anything is appended.
    pub aside: Vec<(PathBuf, PathBuf)>,
    /// Earlier generations of segments, which go.
    pub outdated: Vec<Arc<Segment>>,
    /// How many files were made.
    pub made: u64,
}

/// Bytes that were found and may not be durable: after a kill they may live in the page cache only.
pub(crate) struct Unsettled {
    pub first: Offset,
    pub file: Arc<dyn File>,
    pub from: u64,
    pub to: u64,
}

impl Beginning {
    pub(crate) fn new(header: SegmentHeader) -> Beginning {
        Beginning {
            header,
            carried: None,
            unsettled: Vec::new(),
            torn: None,
            leftover: Vec::new(),
            aside: Vec::new(),
            outdated: Vec::new(),
            made: 0,
        }
    }

    /// The last offset there is.
    pub(crate) fn head(&self) -> Offset {
        self.carried.as_ref().map_or(self.header.previous_end, |batch| batch.last())
    }

    /// What is durable whatever becomes of the rest.
    pub(crate) fn durable(&self) -> Offset {
        let first = self.unsettled.iter().map(|unsettled| unsettled.first).min();
        first.map_or(self.head(), |first| first.saturating_sub(1))
    }

    /// The writer as long as there is no segment to write into; it is set to refuse everything.
    pub(crate) fn writer(&self, named: PathBuf) -> Writer {
        let file: Arc<dyn File> = Arc::new(NoFile);
        let mut writer = Writer::new(begun(named, self.header, Arc::clone(&file)), file, self.head());
        writer.refusing = Some(crate::engine::Refusal::DiskFull);
        writer
    }

    /// Begins it. Can be tried again if it fails: then what there is of the log may be durable all the same, and who
    /// waits for that need not wait for room.
    pub(crate) fn attempt(&mut self, shared: &Shared) -> io::Result<()> {
        let begun = self.try_to_begin(shared);
        let durable = self.durable();
        // The name of its last file may not be.
        if begun.is_err()
            && durable > lock(&shared.tail).durable()
            && shared.disk.sync_dir(&shared.config.dir).is_ok()
        {
            lock(&shared.tail).set_durable(durable);
        }
        begun
    }

    fn try_to_begin(&mut self, shared: &Shared) -> io::Result<()> {
        while let Some(unsettled) = self.unsettled.last() {
            unsettled.settle()?;
            self.unsettled.pop();
        }
        while let Some((from, to)) = self.aside.last() {
            gone(shared.disk.rename(from, to))?;
            self.aside.pop();
        }
        let named = shared.path(&self.header.file_name());
        let file = self.write_first(shared, &named)?;
        self.remove_leftover(shared)?;
        self.install(shared, named, file);
        Ok(())
    }

    /// Only once the new segment says which epoch it is: what goes may be the last that knew of an epoch. And durably:
    /// a segment that came back after events of its offsets were recorded would hide them.
    fn remove_leftover(&mut self, shared: &Shared) -> io::Result<()> {
        if self.leftover.is_empty() {
            return Ok(());
        }
        for path in &self.leftover {
            gone(shared.disk.remove(path))?;
        }
        shared.disk.sync_dir(&shared.config.dir)?;
        self.leftover.clear();
        Ok(())
    }

    fn write_first(&mut self, shared: &Shared, named: &std::path::Path) -> io::Result<Arc<dyn File>> {
        let (path, file) = self.make_file(shared)?;
        let written = (|| {
            // A disk that is too full for all of it may have room for the next events.
            let _ = file.preallocate(shared.config.segment_bytes);
            if let Some(batch) = &self.carried {
                write_fully(&*file, &[IoSlice::new(batch.bytes())], SEGMENT_HEADER_BYTES as u64)?;
            }
            write_fully(&*file, &[IoSlice::new(&self.header.encode())], 0)?;
            file.sync_data()?;
            shared.disk.rename(&path, named)?;
            shared.disk.sync_dir(&shared.config.dir)
        })();
        if let Err(error) = written {
            // If it has its name already, that is given to another; what cannot be removed goes at the next start.
            let _ = shared.disk.remove(&path);
            return Err(error);
        }
        Ok(file)
    }

    fn make_file(&mut self, shared: &Shared) -> io::Result<(PathBuf, Arc<dyn File>)> {
        loop {
            let path = shared.path(&format!("{NEXT}{}.{}", self.header.epoch, self.made));
            self.made += 1;
            match shared.disk.create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.made < 1_000 => {}
                other => return Ok((path, other?)),
            }
        }
    }

    /// The new segment stands: it is the active one from now on, and what it replaces goes.
    fn install(&mut self, shared: &Shared, named: PathBuf, file: Arc<dyn File>) {
        let segment = begun(named, self.header, Arc::clone(&file));
        let mut position = SEGMENT_HEADER_BYTES as u64;
        if let Some(batch) = &self.carried {
            segment.with_index(|index| index.push(&BatchHeader::of_batch(batch), position));
            position += batch.bytes_len() as u64;
        }
        let replaced = {
            let mut writer = lock(&shared.writer);
            let mut segments = shared.segments_mut();
            let replaced = segments.pop_if(|last| last.first == self.header.first);
            segments.push(Arc::clone(&segment));
            drop(segments);
            shared.segments_end.store(Offset::MAX, Ordering::Release);
            *writer = Writer::new(segment, file, self.head());
            writer.position = position;
            writer.made = self.made;
            lock(&shared.tail).settle(self.head());
            replaced
        };
        if let Some((file, len)) = self.torn.take() {
            // The new header says where it ends, so that this only saves room.
            let _ = file.truncate(len);
        }
        for outdated in self.outdated.drain(..).chain(replaced) {
            shared.forget(&outdated);
            remove_segment(&*shared.disk, &outdated);
        }
    }
}

impl Unsettled {
    /// Writes them again and syncs them. A sync alone would not do: if one had failed before the kill, the system
    /// would believe that they are on the disk.
    fn settle(&self) -> io::Result<()> {
        let mut window = Window::new(Arc::clone(&self.file));
        let mut at = self.from;
        while at < self.to {
            let Some(data) = window.next_data(at)? else { break };
            at = at.max(data);
            let want = usize::try_from(self.to.saturating_sub(at))
                .map_or(SETTLE_BYTES, |left| left.min(SETTLE_BYTES));
            let bytes = window.get(at, want)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                write_fully(&*self.file, &[IoSlice::new(bytes)], at)?;
            }
            at += bytes.len() as u64;
        }
        self.file.sync_data()
    }
}

/// It does not matter if it was not there.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A segment that was recovered, as readers have it.
pub(crate) fn recovered(file: Arc<dyn File>, index: Index) -> Opened {
    Opened { file, index: Arc::new(index) }
}
