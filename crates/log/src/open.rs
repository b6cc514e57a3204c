//! Opening a log: find its segments, recover the last, begin a new epoch, and only then append.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use crate::batch::Batch;
use crate::clock::{Clock, HOLD_FILE};
use crate::committer::Committer;
use crate::damage::Damaged;
use crate::disk::{Disk, File, NotAFile};
use crate::epoch::{Beginning, Unsettled, recovered};
use crate::event::Offset;
use crate::folder::{Folder, Identity, file_error, is_full, open_error};
use crate::handle::Handle;
use crate::housekeeping::Housekeeping;
use crate::index::Index;
use crate::kept;
use crate::log::{Log, LogConfig, OpenError, RecoveryReport};
use crate::note::Note;
use crate::recovery::{self, Recovered};
use crate::segment::Segment;
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::shared::Shared;
use crate::tail::Tail;
use crate::writer::Appender;

/// Opens the log in `config.dir`, or makes it; `now_us` is the wall clock in µs. The time it takes does not grow
/// with the log: only what follows the last segment's last index point is looked through. On a full disk it opens
/// too, for reading; upkeep begins the epoch once there is room.
///
/// # Errors
/// [`OpenError`]: the folder is in use, of a newer format, or cannot be written or read.
pub fn open(config: LogConfig, disk: Arc<dyn Disk>, now_us: i64) -> Result<Log, OpenError> {
    let started_us = disk.monotonic_us();
    let guard = take_folder(&config.dir, &*disk)?;
    let mut report = RecoveryReport::default();
    let mut folder = Folder::list(&config.dir, &*disk)?;
    let end = recover_last(&mut folder, &mut report)?;
    report.created = end.created;
    let held = folder.has(HOLD_FILE);
    let Folder { segments, notes, generations, leftover, aside, outdated, .. } = folder;
    let mut beginning = beginning(end, &segments, &generations, now_us);
    (beginning.leftover, beginning.aside, beginning.outdated) = (leftover, aside, outdated);
    report.epoch = beginning.header.epoch;
    report.head = beginning.head();
    report.notes.extend(notes);

    let header = beginning.header;
    let kept = kept::load(&config.dir, &*disk, header.log_id, header.salt, &mut report.notes)
        .map_err(|error| open_error(&config.dir, error))?;
    let mut tail = Tail::new(config.tail_bytes, beginning.durable());
    if let Some(batch) = &beginning.carried {
        tail.pin(Arc::clone(batch));
    }
    let writer = beginning.writer(config.dir.join(header.file_name()));
    let clock = Clock::new(held, disk.monotonic_us());
    let shared = Arc::new(Shared {
        log_id: header.log_id,
        salt: header.salt,
        epoch: header.epoch,
        previous_epoch_end: header.previous_epoch_end,
        head: AtomicU64::new(report.head),
        segments_end: AtomicU64::new(header.previous_end),
        segments: RwLock::new(segments),
        kept: RwLock::new(kept.map(Arc::new)),
        tail: Mutex::new(tail),
        writer: Mutex::new(writer),
        wants_upkeep: AtomicBool::new(true),
        clock_held: AtomicBool::new(held),
        read_only: std::sync::OnceLock::new(),
        notices: Mutex::new(Vec::new()),
        damaged: Damaged::told(&report.gaps),
        opened: Mutex::new(Vec::new()),
        _lock: guard,
        config,
        disk,
    });
    let waiting = match beginning.attempt(&shared) {
        Ok(()) => None,
        Err(error) if is_full(&error) => {
            report.notes.push(Note::NoRoom { why: error.to_string() });
            Some(beginning)
        }
        Err(error) => return Err(open_error(&shared.config.dir, error)),
    };
    report.begun = waiting.is_none();
    let housekeeping = Housekeeping::new(clock, waiting, shared.disk.monotonic_us());
    report.duration_us = shared.disk.monotonic_us().saturating_sub(started_us);
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

/// Where the log ends, and what it is.
struct End {
    created: bool,
    identity: Identity,
    /// The epoch that follows all there were.
    epoch: u32,
    /// The last offset that the segments hold.
    last: Offset,
    /// Whole records behind it that have to be written anew.
    carried: Option<Batch>,
    unsettled: Vec<Unsettled>,
    torn: Option<(Arc<dyn File>, u64)>,
}

/// What the new epoch's first segment will be.
fn beginning(
    end: End,
    segments: &[Arc<Segment>],
    generations: &BTreeMap<Offset, u32>,
    now_us: i64,
) -> Beginning {
    let first = end.last + 1;
    let replaces = segments.last().is_some_and(|segment| segment.first == first);
    let carried_last = end.carried.as_ref().map_or(end.last, Batch::last);
    let (previous_epoch_end, carried) = match replaces {
        // The header that said where the epoch before that one ended goes with its file, so the new one has to say
        // it; and what is carried over counts as of the new epoch.
        true => (end.last, end.carried.map(|batch| batch.of_epoch(end.epoch, end.identity.salt))),
        false => (carried_last, end.carried),
    };
    let header = SegmentHeader {
        log_id: end.identity.log_id,
        salt: end.identity.salt,
        epoch: end.epoch,
        generation: generations.get(&first).map_or(0, |generation| generation + 1),
        first,
        previous_end: end.last,
        previous_epoch_end,
        created_us: now_us,
    };
    let torn = end.torn.filter(|_| !replaces);
    let (carried, unsettled) = (carried.map(Arc::new), end.unsettled);
    Beginning { carried, unsettled, torn, ..Beginning::new(header) }
}

/// Looks through the last segment that holds anything. Cuts nothing: what is torn stays until the new segment stands.
fn recover_last(folder: &mut Folder<'_>, report: &mut RecoveryReport) -> Result<End, OpenError> {
    // The epochs of segments without a header, and without a batch, are not known.
    let mut epochs_unknown = 0;
    let identity = folder.identity()?;
    while let (Some(segment), Some(identity)) = (folder.segments.last().cloned(), identity) {
        let Some(header) = header_of_last(folder, &segment, identity)? else { continue };
        let io = |error| file_error(&segment.path, error);
        let file = folder.disk.open(&segment.path).map_err(io)?;
        if let Some(header) = &header {
            segment.mend_header(&*file, header, &mut folder.notes);
        }
        let mut found = RecoveryReport::default();
        let point = stored_point(folder, &segment, header);
        let recovered =
            recovery::check(&file, identity.salt, segment.first, point.as_ref(), &mut found).map_err(io)?;
        let holds_any = recovered.index.last >= segment.first || recovered.carried.is_some();
        if header.is_none() && !holds_any {
            if recovered.end > SEGMENT_HEADER_BYTES as u64 || !recovery::is_blank(&*file).map_err(io)? {
                folder.set_aside("has no header, and nothing whole in it".into());
            } else {
                folder.drop_unbegun();
                epochs_unknown += 1;
            }
            continue;
        }
        *report = found;
        note_findings(folder, (&segment, header), point.as_ref(), &recovered);
        let (epoch_aside, unknown) = folder.epochs_aside(identity);
        let epoch = recovered.epoch_max.max(header.map_or(0, |header| header.epoch)).max(epoch_aside);
        let unsettled = unsettled(folder, &segment, &file, &recovered).map_err(io)?;
        return Ok(End {
            created: false,
            identity,
            epoch: epoch + 1 + unknown + epochs_unknown,
            last: recovered.index.last,
            unsettled,
            torn: Some((Arc::clone(&file), recovered.index.len)),
            carried: take_live(&segment, file, recovered),
        });
    }
    // Of segments of which none has a header nothing can be read.
    while !folder.segments.is_empty() {
        folder.set_aside("has no header, nor has any other segment".into());
    }
    let identity = Identity { log_id: folder.disk.random(), salt: (folder.disk.random() >> 32) as u32 };
    let (unsettled, torn) = (Vec::new(), None);
    Ok(End { created: true, identity, epoch: 1, last: 0, carried: None, unsettled, torn })
}

/// The header of the last segment, if it has one. `None` if it is none of this log's segments, and was set aside.
fn header_of_last(
    folder: &mut Folder<'_>,
    segment: &Segment,
    identity: Identity,
) -> Result<Option<Option<SegmentHeader>>, OpenError> {
    let why = match folder.header_if_file(segment)? {
        Ok(Decoded::Header(header)) => match segment.foreign(&header, identity.log_id) {
            Some(why) => why,
            None => return Ok(Some(Some(header))),
        },
        Ok(_) => return Ok(Some(None)),
        Err(what) => what.to_string(),
    };
    folder.set_aside(why);
    Ok(None)
}

fn stored_point(folder: &mut Folder<'_>, segment: &Segment, header: Option<SegmentHeader>) -> Option<Index> {
    match segment.stored_point(folder.disk, header?) {
        Ok(point) => point,
        Err(why) => {
            folder.notes.push(Note::PointIgnored { file: segment.name(), why });
            None
        }
    }
}

fn note_findings(
    folder: &mut Folder<'_>,
    (segment, header): (&Segment, Option<SegmentHeader>),
    point: Option<&Index>,
    found: &Recovered,
) {
    let file = segment.name();
    if header.is_none() {
        folder.notes.push(Note::HeaderDamaged { file: file.clone() });
    }
    if point.is_some_and(|point| point.len > SEGMENT_HEADER_BYTES as u64)
        && found.from == SEGMENT_HEADER_BYTES as u64
        && point.and_then(Index::before_last_interval).is_some_and(|before| before.len != found.from)
    {
        folder.notes.push(Note::PointIgnored { file: file.clone(), why: "does not fit it" });
    }
    let last = found.carried.as_ref().map_or(found.index.last, Batch::last);
    if let Some(point) = point.filter(|point| point.last > last) {
        folder.notes.push(Note::DurableLost { first: last + 1, last: point.last });
    }
    if found.end > found.index.len {
        folder.notes.push(Note::Cut { file, after: last, bytes: found.end - found.index.len });
    }
}

/// What may live in the page cache only: what follows the index point of the last segment, and those before it that
/// were not yet closed with an index.
fn unsettled(
    folder: &Folder<'_>,
    last: &Segment,
    file: &Arc<dyn File>,
    found: &Recovered,
) -> std::io::Result<Vec<Unsettled>> {
    // Before an index point all was durable; without one not even the header may be.
    let from = if found.from == SEGMENT_HEADER_BYTES as u64 { 0 } else { found.from };
    let of_last = Unsettled { first: last.first, file: Arc::clone(file), from, to: found.end };
    let mut unsettled = vec![of_last];
    for earlier in folder.segments.iter().rev().skip(1) {
        if folder.has(&format!("{}.index", earlier.name())) {
            break;
        }
        match folder.disk.open(&earlier.path) {
            Err(error) if NotAFile::of(&error).is_some() => {}
            file => {
                let file = file?;
                let to = file.len()?;
                unsettled.push(Unsettled { first: earlier.first, file, from: 0, to });
            }
        }
    }
    Ok(unsettled)
}

/// Readers get what stays of it; gives what is carried over.
fn take_live(segment: &Segment, file: Arc<dyn File>, found: Recovered) -> Option<Batch> {
    segment.set_live(recovered(file, found.index));
    found.carried
}
