//! The folder while the log is opened: which files are its segments, and what becomes of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::disk::{Disk, NotAFile};
use crate::event::Offset;
use crate::log::OpenError;
use crate::note::Note;
use crate::segment::{Segment, read_header};
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader, parse_file_name};
use crate::window::read_fully;
use crate::writer::NEXT;

/// What the name of a file ends with that is kept and not read.
const ASIDE: &str = ".damaged";
/// Segments that are asked which log this is.
const ASKED: usize = 3;

/// The folder while it is opened.
pub(crate) struct Folder<'a> {
    pub dir: &'a Path,
    pub disk: &'a dyn Disk,
    /// In order of their offsets.
    pub segments: Vec<Arc<Segment>>,
    pub notes: Vec<Note>,
    /// Earlier generations of segments. They go once the names of the later ones are durable.
    pub outdated: Vec<Arc<Segment>>,
    /// Files that must be gone before anything is appended, since they would stand in the way of what is: segments that
    /// were never begun.
    pub leftover: Vec<PathBuf>,
    /// Files that get another name before anything is appended: the old path and the new.
    pub aside: Vec<(PathBuf, PathBuf)>,
    /// The latest generation of each first offset for which there is or was a file.
    pub generations: BTreeMap<Offset, u32>,
    names: BTreeSet<String>,
}

/// What all segments of a log have in common.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub log_id: u64,
    pub salt: u32,
}

impl<'a> Folder<'a> {
    /// Lists the segments, one for each first offset. The time it takes is that of the listing, unless something is
    /// left over.
    pub(crate) fn list(dir: &'a Path, disk: &'a dyn Disk) -> Result<Folder<'a>, OpenError> {
        let names = disk.list(dir).map_err(|error| open_error(dir, error))?.into_iter().collect();
        let mut folder = Folder {
            dir,
            disk,
            segments: Vec::new(),
            notes: Vec::new(),
            outdated: Vec::new(),
            leftover: Vec::new(),
            aside: Vec::new(),
            generations: BTreeMap::new(),
            names,
        };
        let mut found: BTreeMap<Offset, Vec<u32>> = BTreeMap::new();
        for (first, generation) in folder.names.iter().filter_map(|name| parse_file_name(name)) {
            found.entry(first).or_default().push(generation);
        }
        for (first, mut generations) in found {
            generations.sort_unstable();
            folder.generations.insert(first, generations.last().copied().unwrap_or(0));
            let segment = folder.newest_generation(first, &generations)?;
            folder.segments.push(segment);
        }
        folder.adopt_next()?;
        folder.sweep();
        folder.remove_outdated();
        Ok(folder)
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(crate) fn header_of(&self, path: &Path) -> Result<Decoded, OpenError> {
        let read = self.disk.open(path).and_then(|file| read_header(&*file));
        match read.map_err(|error| file_error(path, error))? {
            Decoded::Newer(version) => Err(OpenError::NewerFormat { file: path.to_owned(), version }),
            other => Ok(other),
        }
    }

    /// Which log this is, by the newest segments that say so; if they do not agree, by most of them, and of two by
    /// the older.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let mut said: Vec<Identity> = Vec::new();
        for segment in self.segments.iter().rev() {
            if let Ok(Decoded::Header(header)) = self.header_if_file(segment)? {
                said.push(Identity { log_id: header.log_id, salt: header.salt });
            }
            if said.len() == ASKED {
                break;
            }
        }
        let twice = said.iter().find(|one| said.iter().filter(|other| other == one).count() > 1);
        Ok(twice.or(said.last()).copied())
    }

    /// The header of a segment's file; or what has its name and is no file.
    pub(crate) fn header_if_file(&self, segment: &Segment) -> Result<Result<Decoded, NotAFile>, OpenError> {
        match self.disk.open(&segment.path).as_ref().map_err(NotAFile::of) {
            Err(Some(what)) => Ok(Err(what)),
            _ => self.header_of(&segment.path).map(Ok),
        }
    }

    /// Keeps the last segment's file under a name that is not read.
    pub(crate) fn set_aside(&mut self, why: String) {
        let Some(segment) = self.segments.pop() else { return };
        let file = segment.name();
        let numbered = (2..).map(|n| format!("{file}{ASIDE}.{n}"));
        let mut free = std::iter::once(format!("{file}{ASIDE}")).chain(numbered);
        let to = free.find(|name| !self.has(name)).unwrap_or_default();
        self.aside.push((segment.path.clone(), self.dir.join(&to)));
        self.notes.push(Note::SetAside { file, to, why });
    }

    /// Takes the last segment, which was never begun, from the list.
    pub(crate) fn drop_unbegun(&mut self) {
        let Some(segment) = self.segments.pop() else { return };
        self.notes.push(Note::Unbegun { file: segment.name() });
        self.leftover.extend(segment.paths());
    }

    /// The latest epoch of which this log's files that were set aside are, now or earlier, and the number of those
    /// that do not say it.
    pub(crate) fn epochs_aside(&self, identity: Identity) -> (u32, u32) {
        let (mut latest, mut unknown) = (0, 0);
        let earlier = self.names.iter().filter(|name| name.contains(ASIDE)).map(|name| self.dir.join(name));
        for path in earlier.chain(self.aside.iter().map(|(from, _)| from.clone())) {
            match self.header_of(&path) {
                Ok(Decoded::Header(header)) if header.log_id == identity.log_id => {
                    latest = latest.max(header.epoch);
                }
                Ok(Decoded::None) | Err(_) => unknown += 1,
                _ => {}
            }
        }
        (latest, unknown)
    }

    pub(crate) fn error(&self, error: io::Error) -> OpenError {
        open_error(self.dir, error)
    }

    /// The latest generation that has a header; those that it replaced go.
    fn newest_generation(&mut self, first: Offset, generations: &[u32]) -> Result<Arc<Segment>, OpenError> {
        let mut chosen: Option<Segment> = None;
        for &generation in generations.iter().rev() {
            let segment = Segment::found(self.dir, first, generation);
            if chosen.is_some() {
                self.outdated.push(Arc::new(segment));
            } else if generations.len() == 1 || self.is_headed(&segment)? {
                chosen = Some(segment);
            }
        }
        let newest = generations.last().copied().unwrap_or(0);
        Ok(Arc::new(chosen.unwrap_or_else(|| Segment::found(self.dir, first, newest))))
    }

    fn is_headed(&self, segment: &Segment) -> Result<bool, OpenError> {
        let header = self.header_if_file(segment)?;
        Ok(matches!(header, Ok(Decoded::Header(header)) if segment.is_named(&header)))
    }

    /// Files that were to become segments do if they have a header and begin with a batch. The others go: nothing in
    /// them was ever durable, and one that has nothing could stand in the way of what its predecessor has.
    fn adopt_next(&mut self) -> Result<(), OpenError> {
        let next: Vec<_> = self.names.iter().filter(|name| name.starts_with(NEXT)).cloned().collect();
        if next.is_empty() {
            return Ok(());
        }
        let identity = self.identity()?;
        for name in next {
            let path = self.dir.join(&name);
            match self.segment_in(&path, identity)? {
                Some(header) if !self.names.contains(&header.file_name()) => self.adopt(&path, header)?,
                // What cannot be removed is in nobody's way.
                _ => drop(self.disk.remove(&path)),
            }
        }
        Ok(())
    }

    fn segment_in(
        &self,
        path: &Path,
        identity: Option<Identity>,
    ) -> Result<Option<SegmentHeader>, OpenError> {
        let Ok(file) = self.disk.open(path) else { return Ok(None) };
        let Decoded::Header(header) = self.header_of(path)? else { return Ok(None) };
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let read = read_fully(&*file, &mut bytes, SEGMENT_HEADER_BYTES as u64);
        let read = read.map_err(|error| file_error(path, error))?;
        let batch = BatchHeader::decode(&bytes[..read], header.salt);
        let is_ours = identity.is_none_or(|identity| identity.log_id == header.log_id);
        Ok((is_ours && batch.is_some_and(|batch| batch.base == header.first)).then_some(header))
    }

    fn adopt(&mut self, path: &Path, header: SegmentHeader) -> Result<(), OpenError> {
        match self.disk.rename(path, &self.dir.join(header.file_name())) {
            // Nothing in it was durable.
            Err(error) if is_full(&error) => {
                self.leftover.push(path.to_owned());
                return Ok(());
            }
            other => other.map_err(|error| self.error(error))?,
        }
        self.names.insert(header.file_name());
        let latest = self.generations.entry(header.first).or_default();
        *latest = (*latest).max(header.generation);
        let at = self.segments.partition_point(|segment| segment.first < header.first);
        let adopted = Arc::new(Segment::found(self.dir, header.first, header.generation));
        match self.segments.get_mut(at).filter(|segment| segment.first == header.first) {
            Some(other) if other.generation < header.generation => {
                self.outdated.push(std::mem::replace(other, adopted));
            }
            Some(_) => self.outdated.push(adopted),
            None => self.segments.insert(at, adopted),
        }
        Ok(())
    }

    /// Removes earlier generations. If the folder cannot be synced now they go when the epoch has begun.
    fn remove_outdated(&mut self) {
        if !self.outdated.is_empty() && self.disk.sync_dir(self.dir).is_ok() {
            self.outdated.drain(..).for_each(|segment| remove_segment(self.disk, &segment));
        }
    }

    /// Removes side files that were not finished, and those whose segment is gone.
    fn sweep(&self) {
        for name in &self.names {
            let of = [".index", ".point"].into_iter().find_map(|end| name.strip_suffix(end));
            let is_orphan = of.is_some_and(|of| parse_file_name(of).is_some() && !self.names.contains(of));
            if is_orphan || name.ends_with(".index.new") || name.ends_with(".point.new") {
                let _ = self.disk.remove(&self.dir.join(name));
            }
        }
    }
}

/// Removes a segment and its side files. What cannot be removed is replaced by name or by generation, and goes at a
/// later start.
pub(crate) fn remove_segment(disk: &dyn Disk, segment: &Segment) {
    for path in segment.paths() {
        let _ = disk.remove(&path);
    }
}

/// Whether the disk has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Why a file of the log cannot be opened.
pub(crate) fn file_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::PermissionDenied => OpenError::NotReadable(path.to_owned(), error),
        _ => open_error(path, error),
    }
}

/// Why the folder cannot be used.
pub(crate) fn open_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            OpenError::NotWritable(path.to_owned(), error)
        }
        _ => OpenError::Io(path.to_owned(), error),
    }
}
