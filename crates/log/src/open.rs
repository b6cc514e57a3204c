//! Opening a log: find its segments, recover the last, begin a new epoch, and only then serve.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use crate::batch::{Batch, BatchHeader};
use crate::committer::Committer;
use crate::disk::{Disk, File};
use crate::event::Offset;
use crate::handle::Handle;
use crate::housekeeping::{HOLD_FILE, Housekeeping};
use crate::kept;
use crate::log::{Log, LogConfig, OpenError, RecoveryReport};
use crate::recovery::{self, Recovered};
use crate::segment::{Opened, Segment, read_header};
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader, parse_file_name};
use crate::shared::{Shared, begun, write_fully};
use crate::tail::Tail;
use crate::writer::{Appender, NEXT, Writer};

/// Opens the log in `config.dir`, or makes it; `now_us` is the wall clock in µs. The time it takes does not grow
/// with the log, only with its last segment.
///
/// # Errors
/// [`OpenError`]: the folder is in use, of a newer format, or cannot be written or read.
pub fn open(config: LogConfig, disk: Arc<dyn Disk>, now_us: i64) -> Result<Log, OpenError> {
    let started_us = disk.monotonic_us();
    let guard = take_folder(&config.dir, &*disk)?;
    let mut folder = Folder { dir: &config.dir, disk: &*disk, segments: Vec::new() };
    let names = disk.list(&config.dir).map_err(|error| folder.error(error))?;
    let held = names.iter().any(|name| name == HOLD_FILE);
    folder.find_segments(names)?;

    let mut report = RecoveryReport::default();
    let mut end = folder.recover_last(&mut report)?;
    report.created = end.created;
    report.epoch = end.epoch + 1;
    report.head = end.carried_last();
    let replaces = folder.segments.last().filter(|segment| segment.first == end.last + 1);
    let generation = replaces.map_or(0, |segment| segment.generation + 1);
    let previous_epoch_end = match replaces {
        // The header that said where the epoch before that one ended goes with its file, so the new one has to say
        // it; and what is carried over counts as of the new epoch.
        Some(_) => {
            end.carried = end.carried.map(|batch| batch.of_epoch(report.epoch, end.salt));
            end.last
        }
        None => end.carried_last(),
    };
    let header = SegmentHeader {
        log_id: end.log_id,
        salt: end.salt,
        epoch: report.epoch,
        generation,
        first: end.last + 1,
        previous_end: end.last,
        previous_epoch_end,
        created_us: now_us,
    };
    let begun = folder.begin_epoch(&config, header, end.carried.as_ref())?;
    let segments = folder.segments;
    let (kept, notes) = kept::load(&config.dir, &*disk, header.log_id, header.salt)
        .map_err(|error| open_error(&config.dir, error))?;
    report.kept = notes;
    report.duration_us = disk.monotonic_us().saturating_sub(started_us);

    let housekeeping = Housekeeping::new(held, disk.monotonic_us());
    let shared = Arc::new(Shared {
        log_id: header.log_id,
        salt: header.salt,
        epoch: header.epoch,
        previous_epoch_end: header.previous_epoch_end,
        head: AtomicU64::new(report.head),
        segments: RwLock::new(segments),
        kept: RwLock::new(kept.map(Arc::new)),
        tail: Mutex::new(Tail::new(config.tail_bytes, report.head)),
        writer: Mutex::new(begun),
        wants_upkeep: AtomicBool::new(true),
        notices: Mutex::new(Vec::new()),
        opened: Mutex::new(Vec::new()),
        _lock: guard,
        config,
        disk,
    });
    Ok(Log {
        append: Box::new(Appender::new(Arc::clone(&shared))),
        commit: Box::new(Committer::new(Arc::clone(&shared), housekeeping)),
        read: Arc::new(Handle(shared)),
        recovery: report,
    })
}

fn take_folder(dir: &Path, disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, OpenError> {
    disk.create_dir(dir).map_err(|error| open_error(dir, error))?;
    disk.lock(dir).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => OpenError::InUse(dir.to_owned()),
        _ => open_error(dir, error),
    })
}

fn open_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            OpenError::NotWritable(path.to_owned(), error)
        }
        _ => OpenError::Io(path.to_owned(), error),
    }
}

/// The folder while it is opened.
struct Folder<'a> {
    dir: &'a Path,
    disk: &'a dyn Disk,
    segments: Vec<Arc<Segment>>,
}

/// Where the log ends, and what it is.
struct End {
    created: bool,
    log_id: u64,
    salt: u32,
    /// The latest epoch there was.
    epoch: u32,
    /// The last offset that the segments hold.
    last: Offset,
    /// Whole records behind it that have to be written anew.
    carried: Option<Batch>,
}

impl End {
    fn carried_last(&self) -> Offset {
        self.carried.as_ref().map_or(self.last, Batch::last)
    }
}

impl Folder<'_> {
    fn error(&self, error: io::Error) -> OpenError {
        open_error(self.dir, error)
    }

    /// Lists the segments, one for each first offset. Files that were to become segments do, if they have a
    /// header, and go, if not.
    fn find_segments(&mut self, names: Vec<String>) -> Result<(), OpenError> {
        let mut found: BTreeMap<Offset, Vec<u32>> = BTreeMap::new();
        for name in names {
            let path = self.dir.join(&name);
            let segment = match parse_file_name(&name) {
                Some(segment) => Some(segment),
                None if name.starts_with(NEXT) => self.adopt(&path)?,
                None if name.ends_with(".index.new") => {
                    self.disk.remove(&path).map_err(|error| self.error(error))?;
                    None
                }
                None => None,
            };
            if let Some((first, generation)) = segment {
                found.entry(first).or_default().push(generation);
            }
        }
        for (first, mut generations) in found {
            generations.sort_unstable();
            generations.dedup();
            let segment = self.newest_generation(first, &generations)?;
            self.segments.push(segment);
        }
        Ok(())
    }

    fn adopt(&self, path: &Path) -> Result<Option<(Offset, u32)>, OpenError> {
        let header = match self.header_of(path)? {
            Decoded::Header(header) => header,
            _ => {
                self.disk.remove(path).map_err(|error| self.error(error))?;
                return Ok(None);
            }
        };
        self.disk.rename(path, &self.dir.join(header.file_name())).map_err(|error| self.error(error))?;
        Ok(Some((header.first, header.generation)))
    }

    /// The latest generation that has a header; those that it replaced go.
    fn newest_generation(&self, first: Offset, generations: &[u32]) -> Result<Arc<Segment>, OpenError> {
        let mut chosen: Option<Segment> = None;
        for &generation in generations.iter().rev() {
            let segment = Segment::found(self.dir, first, generation);
            let alone = generations.len() == 1;
            match &chosen {
                Some(_) => self.remove(&segment)?,
                None if alone || matches!(self.header_of(&segment.path)?, Decoded::Header(_)) => {
                    chosen = Some(segment);
                }
                None => {}
            }
        }
        let newest = generations.last().copied().unwrap_or(0);
        Ok(Arc::new(chosen.unwrap_or_else(|| Segment::found(self.dir, first, newest))))
    }

    fn header_of(&self, path: &Path) -> Result<Decoded, OpenError> {
        let file = self.disk.open(path).map_err(|error| open_error(path, error))?;
        match read_header(&*file).map_err(|error| open_error(path, error))? {
            Decoded::Newer(version) => Err(OpenError::NewerFormat { file: path.to_owned(), version }),
            other => Ok(other),
        }
    }

    fn remove(&self, segment: &Segment) -> Result<(), OpenError> {
        let _ = self.disk.remove(&segment.index_path());
        self.disk.remove(&segment.path).map_err(|error| self.error(error))
    }

    /// Looks through the last segment that holds anything, cuts its torn tail and makes the rest durable.
    fn recover_last(&mut self, report: &mut RecoveryReport) -> Result<End, OpenError> {
        while let Some(segment) = self.segments.last().cloned() {
            let header = match self.header_of(&segment.path)? {
                Decoded::Header(header) if header.first == segment.first => Some(header),
                _ => None,
            };
            let Some(SegmentHeader { log_id, salt, .. }) = header.or(self.any_header()?) else {
                self.set_aside(&segment)?;
                continue;
            };
            let file = self.disk.open(&segment.path).map_err(|error| open_error(&segment.path, error))?;
            let mut found = RecoveryReport::default();
            let recovered = recovery::check(&file, salt, segment.first, &mut found)
                .map_err(|error| open_error(&segment.path, error))?;
            let holds_any = recovered.index.last >= segment.first || recovered.carried.is_some();
            if header.is_none() && !holds_any {
                // Its header never came to be, nor anything behind it.
                self.remove(&segment)?;
                self.segments.pop();
                continue;
            }
            *report = found;
            self.make_durable(&segment, file, &recovered)
                .map_err(|error| open_error(&segment.path, error))?;
            let epoch = recovered.epoch_max.max(header.map_or(0, |header| header.epoch));
            let Recovered { index, carried, .. } = recovered;
            return Ok(End { created: false, log_id, salt, epoch, last: index.last, carried });
        }
        let (log_id, salt) = (self.disk.random(), (self.disk.random() >> 32) as u32);
        Ok(End { created: true, log_id, salt, epoch: 0, last: 0, carried: None })
    }

    /// The header of any segment, the newest first: for what they all have in common.
    fn any_header(&self) -> Result<Option<SegmentHeader>, OpenError> {
        for segment in self.segments.iter().rev() {
            if let Decoded::Header(header) = self.header_of(&segment.path)? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Nothing of it can be read without a header, neither its own nor another's: it is kept, under a name that
    /// is not read.
    fn set_aside(&mut self, segment: &Segment) -> Result<(), OpenError> {
        let aside = segment.path.with_extension("log.damaged");
        self.disk.rename(&segment.path, &aside).map_err(|error| self.error(error))?;
        self.segments.pop();
        Ok(())
    }

    /// After a kill what was written may live in the page cache only: in the last segment, and in those before it
    /// that were not yet closed with an index.
    fn make_durable(&self, segment: &Segment, file: Arc<dyn File>, recovered: &Recovered) -> io::Result<()> {
        if file.len()? != recovered.index.len {
            file.truncate(recovered.index.len)?;
        }
        file.sync_data()?;
        for earlier in self.segments.iter().rev().skip(1) {
            if self.disk.open(&earlier.index_path()).is_ok() {
                break;
            }
            self.disk.open(&earlier.path)?.sync_data()?;
        }
        segment.set_live(Opened { file, index: Arc::new(recovered.index.clone()) });
        Ok(())
    }

    /// Makes the first segment of the new epoch, durable in all its parts.
    fn begin_epoch(
        &mut self,
        config: &LogConfig,
        header: SegmentHeader,
        carried: Option<&Batch>,
    ) -> Result<Writer, OpenError> {
        let path = self.dir.join(format!("{NEXT}{}.0", header.epoch));
        let named = self.dir.join(header.file_name());
        let file =
            self.write_first(config, &header, carried, (&path, &named)).map_err(|error| self.error(error))?;
        let segment = begun(named, header, Arc::clone(&file));
        if let Some(batch) = carried {
            segment
                .with_index(|index| index.push(&BatchHeader::of_batch(batch), SEGMENT_HEADER_BYTES as u64));
        }
        if let Some(replaced) = self.segments.pop_if(|last| last.first == header.first) {
            self.remove(&replaced)?;
        }
        self.segments.push(Arc::clone(&segment));
        Ok(Writer {
            active: segment,
            file,
            position: (SEGMENT_HEADER_BYTES + carried.map_or(0, Batch::bytes_len)) as u64,
            head: carried.map_or(header.previous_end, Batch::last),
            prepared: None,
            made: 0,
            dirty: Vec::new(),
            dirty_bytes: 0,
            dir_dirty: false,
            refusing: None,
        })
    }

    fn write_first(
        &self,
        config: &LogConfig,
        header: &SegmentHeader,
        carried: Option<&Batch>,
        (path, named): (&PathBuf, &PathBuf),
    ) -> io::Result<Arc<dyn File>> {
        let file = self.disk.create(path)?;
        // A disk that is too full for it is still good for reading.
        let _ = file.preallocate(config.segment_bytes);
        if let Some(batch) = carried {
            write_fully(&*file, &[IoSlice::new(batch.bytes())], SEGMENT_HEADER_BYTES as u64)?;
        }
        write_fully(&*file, &[IoSlice::new(&header.encode())], 0)?;
        file.sync_data()?;
        self.disk.rename(path, named)?;
        self.disk.sync_dir(self.dir)?;
        Ok(file)
    }
}
