//! Records that outlive their segment: those that are still retained or in flight when retention deletes it stand in a
//! side file, with the offset, time, epoch and parts that they had. A new generation of it is complete before the old
//! one goes.

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{self, BATCH_HEADER_BYTES, Batch, BatchHeader, Piece};
use crate::disk::{Disk, File};
use crate::engine::{Fetched, Wait};
use crate::event::Offset;
use crate::fetch::{self, Events, Pages};
use crate::note::Note;
use crate::segment::read_header;
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::shared::{Shared, write_fully};
use crate::window::Window;

/// How many records are fetched at once while the file is written.
const PAGE_RECORDS: usize = 64;

/// The side file, open.
pub(crate) struct Kept {
    pub path: PathBuf,
    pub bytes: u64,
    file: Arc<dyn File>,
    /// Its batches, in order of their offsets.
    runs: Vec<Run>,
}

/// A batch of the side file.
#[derive(Copy, Clone)]
struct Run {
    base: Offset,
    count: u32,
    bytes: u32,
    position: u64,
}

impl Run {
    fn of(header: &BatchHeader, position: u64) -> Run {
        let bytes = header.total_bytes() as u32;
        Run { base: header.base, count: header.count, bytes, position }
    }

    fn last(&self) -> Offset {
        self.base + u64::from(self.count) - 1
    }
}

/// What the name of a file ends with that is kept and not read.
const ASIDE: &str = ".damaged";
const NEW: &str = ".new";

impl Kept {
    /// The offsets of its records, ascending.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = Offset> + '_ {
        self.runs.iter().flat_map(|run| run.base..=run.last())
    }

    /// Its first and last offset.
    pub(crate) fn range(&self) -> (Offset, Offset) {
        (self.runs.first().map_or(0, |run| run.base), self.runs.last().map_or(0, Run::last))
    }

    /// Whether it has any record from `first` to `last`.
    pub(crate) fn has_any(&self, first: Offset, last: Offset) -> bool {
        let at = self.runs.partition_point(|run| run.last() < first);
        self.runs.get(at).is_some_and(|run| run.base <= last)
    }

    pub(crate) fn holds(&self, offset: Offset) -> bool {
        let after = self.runs.partition_point(|run| run.base <= offset);
        after > 0 && self.runs[after - 1].last() >= offset
    }

    /// Adds to `events` those of `offsets`, which ascend, that it has.
    pub(crate) fn fetch(
        &self,
        shared: &Shared,
        mut offsets: &[Offset],
        wait: Wait,
        events: &mut Events,
    ) -> io::Result<()> {
        let mut pages = Pages::new(Arc::clone(&self.file), wait);
        while let Some(&wanted) = offsets.first() {
            let after = self.runs.partition_point(|run| run.last() < wanted);
            let Some(run) = self.runs.get(after) else { break };
            offsets = &offsets[offsets.partition_point(|offset| *offset < run.base)..];
            let (here, behind) = offsets.split_at(offsets.partition_point(|offset| *offset <= run.last()));
            if !here.is_empty() {
                let bytes = pages.get(run.position, run.bytes as usize)?;
                match BatchHeader::decode(bytes, shared.salt) {
                    Some(header) => fetch::take(shared, bytes, &header, here, events),
                    None => shared.found_damaged(run.base, run.last()),
                }
            }
            offsets = behind;
        }
        Ok(())
    }
}

/// Opens the latest side file of this log in the folder; those that it replaced go, those that cannot be read are set
/// aside. What can be neither now is met again at the next start.
pub(crate) fn load(
    dir: &Path,
    disk: &dyn Disk,
    log_id: u64,
    salt: u32,
    notes: &mut Vec<Note>,
) -> io::Result<Option<Kept>> {
    let mut chosen = None;
    for (_, name) in generations(dir, disk)? {
        let path = dir.join(&name);
        if chosen.is_some() {
            let _ = disk.remove(&path);
            continue;
        }
        match read(&path, disk, log_id, salt) {
            Ok((kept, missing)) => {
                if missing > 0 {
                    notes.push(Note::KeptDamaged { file: name, events: missing });
                }
                chosen = Some(kept);
            }
            Err(why) => {
                let names = disk.list(dir)?;
                let numbered = (2..).map(|n| format!("{name}{ASIDE}.{n}"));
                let mut free = std::iter::once(format!("{name}{ASIDE}")).chain(numbered);
                let to = free.find(|free| !names.contains(free)).unwrap_or_default();
                let _ = disk.rename(&path, &dir.join(&to));
                notes.push(Note::SetAside { file: name, to, why });
            }
        }
    }
    Ok(chosen)
}

/// The side files, the latest first. One that was not finished goes.
fn generations(dir: &Path, disk: &dyn Disk) -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for name in disk.list(dir)? {
        if let Some(generation) = parse_name(&name) {
            found.push((generation, name));
        } else if name.strip_suffix(NEW).and_then(parse_name).is_some() {
            let _ = disk.remove(&dir.join(name));
        }
    }
    found.sort_by(|one, other| other.cmp(one));
    Ok(found)
}

fn parse_name(name: &str) -> Option<u32> {
    let generation = name.strip_prefix("kept.")?.strip_suffix(".log")?.parse().ok()?;
    (file_name(generation) == name).then_some(generation)
}

fn file_name(generation: u32) -> String {
    format!("kept.{generation}.log")
}

/// A side file, and how many of its records are missing; or why it cannot be used.
fn read(path: &Path, disk: &dyn Disk, log_id: u64, salt: u32) -> Result<(Kept, u64), String> {
    let say = |error: io::Error| format!("cannot be read ({error})");
    let file = disk.open(path).map_err(say)?;
    let header = match read_header(&*file).map_err(say)? {
        Decoded::Header(header) if header.log_id == log_id => header,
        Decoded::Header(_) => return Err("belongs to another log".into()),
        Decoded::Newer(version) => return Err(format!("is of format {version}, of a later firehose")),
        Decoded::None => return Err("has a damaged header".into()),
    };
    let bytes = file.len().map_err(say)?;
    let (runs, whole) = walk(&file, salt, bytes).map_err(say)?;
    let records: u64 = header.previous_epoch_end;
    Ok((Kept { path: path.to_owned(), bytes, file, runs }, records.saturating_sub(whole)))
}

/// The batches of a side file, and how many whole records they hold.
fn walk(file: &Arc<dyn File>, salt: u32, end: u64) -> io::Result<(Vec<Run>, u64)> {
    const STEP: usize = 1 << 20;
    let mut window = Window::new(Arc::clone(file));
    let mut runs: Vec<Run> = Vec::new();
    let mut whole = 0;
    let mut position = SEGMENT_HEADER_BYTES as u64;
    while position + (BATCH_HEADER_BYTES as u64) < end {
        let header = BatchHeader::decode(window.get(position, BATCH_HEADER_BYTES)?, salt);
        let ascends = |header: &BatchHeader| runs.last().is_none_or(|run| run.last() < header.base);
        if let Some(header) = header.filter(ascends) {
            for piece in batch::split(window.get(position, header.total_bytes())?, &header, salt) {
                if let Piece::Whole(run) = piece {
                    whole += run.len() as u64;
                }
            }
            runs.push(Run::of(&header, position));
            position += header.total_bytes() as u64;
            continue;
        }
        let bytes = window.get(position, STEP)?;
        position += match BatchHeader::find_magic(bytes, 1) {
            Some(found) => found as u64,
            // A magic may begin in the last three bytes.
            None => (bytes.len() as u64).saturating_sub(3).max(1),
        };
    }
    Ok((runs, whole))
}

/// What a new generation came to hold.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub records: u64,
    pub bytes: u64,
    /// Records that were wanted and cannot be read.
    pub unreadable: u64,
}

/// Writes the next generation, of the events at these offsets, which ascend. It is durable and serves readers when
/// this returns; those before it are removed, which a sync of the folder has yet to make durable.
pub(crate) fn write(shared: &Shared, wanted: &[Offset], now_us: i64) -> io::Result<Written> {
    let dir = &shared.config.dir;
    let before = generations(dir, &*shared.disk)?;
    let mut written = Written::default();
    let kept = if wanted.is_empty() {
        None
    } else {
        let generation = before.first().map_or(0, |(generation, _)| generation + 1);
        let path = dir.join(file_name(generation));
        let new = dir.join(format!("{}{NEW}", file_name(generation)));
        let made = make(shared, wanted, (generation, now_us), &new, &mut written).and_then(|made| {
            shared.disk.rename(&new, &path)?;
            shared.disk.sync_dir(dir)?;
            Ok(made)
        });
        if made.is_err() {
            let _ = shared.disk.remove(&new);
        }
        let (file, runs) = made?;
        Some(Arc::new(Kept { path, bytes: written.bytes, file, runs }))
    };
    *shared.kept_mut() = kept;
    sweep(shared)?;
    Ok(written)
}

/// Removes all generations but the present one. Says whether there was any.
pub(crate) fn sweep(shared: &Shared) -> io::Result<bool> {
    let dir = &shared.config.dir;
    let present = shared.kept();
    let mut swept = false;
    for (_, name) in generations(dir, &*shared.disk)? {
        let path = dir.join(name);
        if present.as_ref().is_none_or(|kept| kept.path != path) {
            remove(&*shared.disk, &path)?;
            swept = true;
        }
    }
    Ok(swept)
}

fn make(
    shared: &Shared,
    wanted: &[Offset],
    (generation, now_us): (u32, i64),
    path: &Path,
    written: &mut Written,
) -> io::Result<(Arc<dyn File>, Vec<Run>)> {
    let file = shared.disk.create(path)?;
    let mut runs = Vec::new();
    let mut position = SEGMENT_HEADER_BYTES as u64;
    for page in wanted.chunks(PAGE_RECORDS) {
        let Ok(Fetched::Events(events)) = fetch::fetch(shared, page, Wait::Yes) else {
            return Err(io::Error::other("what is to be kept cannot be read"));
        };
        written.records += events.len() as u64;
        written.unreadable += (page.len() - events.len()) as u64;
        for batch in batches(&events, shared.salt) {
            write_fully(&*file, &[IoSlice::new(batch.bytes())], position)?;
            runs.push(Run::of(&BatchHeader::of_batch(&batch), position));
            position += batch.bytes_len() as u64;
        }
    }
    let range = |run: Option<&Run>, of: fn(&Run) -> Offset| run.map_or(1, of);
    let header = SegmentHeader {
        log_id: shared.log_id,
        salt: shared.salt,
        epoch: shared.epoch,
        generation,
        first: range(runs.first(), |run| run.base),
        previous_end: range(runs.last(), Run::last),
        previous_epoch_end: written.records,
        created_us: now_us,
    };
    write_fully(&*file, &[IoSlice::new(&header.encode())], 0)?;
    file.sync_data()?;
    written.bytes = position;
    Ok((file, runs))
}

/// The events as batches of their own: neighbours from one batch stay together.
fn batches(events: &[(Offset, Arc<Batch>)], salt: u32) -> Vec<Batch> {
    let together = |one: &(Offset, Arc<Batch>), next: &(Offset, Arc<Batch>)| {
        next.0 == one.0 + 1 && Arc::ptr_eq(&one.1, &next.1)
    };
    let part = |run: &[(Offset, Arc<Batch>)]| {
        let (first, batch) = run.first()?;
        Some(batch.part((first - batch.base()) as usize, run.len(), salt))
    };
    events.chunk_by(together).filter_map(part).collect()
}

/// A file that is gone already is as good as removed.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
