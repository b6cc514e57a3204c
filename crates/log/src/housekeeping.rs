//! Work of the commit thread about once a second: the next segment, side files, free space, retention.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Clock;
use crate::engine::{Keep, Upkeep};
use crate::epoch::Beginning;
use crate::event::Offset;
use crate::folder::is_full;
use crate::keeping::Keeping;
use crate::kept;
use crate::note::Note;
use crate::room::Room;
use crate::segment::{Segment, lock};
use crate::shared::Shared;

/// What upkeep remembers from turn to turn.
pub(crate) struct Housekeeping {
    pub clock: Clock,
    /// The epoch, as long as there is no room for it to begin.
    pub waiting: Option<Beginning>,
    room: Room,
    keeping: Keeping,
}

impl Housekeeping {
    /// `waiting`: the epoch, if there was no room for it to begin.
    pub(crate) fn new(clock: Clock, waiting: Option<Beginning>, monotonic_us: u64) -> Housekeeping {
        let room = waiting.as_ref().map_or_else(Room::default, |waiting| Room::full(waiting.head()));
        Housekeeping { clock, room, waiting, keeping: Keeping::new(monotonic_us) }
    }

    pub(crate) fn run(&mut self, shared: &Shared, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep> {
        let mut done = std::mem::take(&mut *lock(&shared.notices));
        let mut attempt = |what, result: io::Result<()>| {
            if let Err(error) = result {
                done.push(Upkeep::Failed { what, why: error.to_string() });
            }
        };
        attempt("cut off what a failed write left", lock(&shared.writer).cut_again());
        attempt("make the next segment ahead", prepare(shared));
        attempt("write a segment's index", seal(shared));
        let waiting = &mut self.waiting;
        match self.room.check(shared, |is_room| Self::begin(waiting, shared, is_room)) {
            Ok(notice) => done.extend(notice),
            Err(error) => {
                done.push(Upkeep::Failed { what: "see how much room there is", why: error.to_string() })
            }
        }
        done.extend(self.clock.check(shared, now_us, || newest_us(shared)));
        if let Err(error) = self.retain(shared, now_us, keep, &mut done) {
            done.push(Upkeep::Failed { what: "delete old segments", why: error.to_string() });
        }
        done
    }

    /// Begins the epoch that waits for room, if one does; gives whether it has begun.
    fn begin(waiting: &mut Option<Beginning>, shared: &Shared, is_room: bool) -> io::Result<bool> {
        let Some(beginning) = waiting else { return Ok(true) };
        if !is_room {
            return Ok(false);
        }
        match beginning.attempt(shared) {
            Ok(()) => *waiting = None,
            Err(error) if is_full(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Deletes whole segments from the oldest on, never the active one, and keeps what is still needed of them.
    fn retain(
        &mut self,
        shared: &Shared,
        now_us: i64,
        keep: &mut dyn Keep,
        done: &mut Vec<Upkeep>,
    ) -> io::Result<()> {
        let due = self.due(shared, now_us, done)?;
        let going = self.keeping.keep(shared, now_us, due, keep, done)?;
        for (segment, last) in &going {
            delete(shared, segment)?;
            let name = segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            done.push(Upkeep::Deleted { segment: name, first: segment.first, last: *last });
        }
        if going.is_empty() { Ok(()) } else { shared.disk.sync_dir(&shared.config.dir) }
    }

    /// The segments that are to go, each with its last offset.
    fn due(
        &self,
        shared: &Shared,
        now_us: i64,
        done: &mut Vec<Upkeep>,
    ) -> io::Result<Vec<(Arc<Segment>, Offset)>> {
        let segments = shared.segments().clone();
        let mut bytes = shared.kept().map_or(0, |kept| kept.bytes);
        for segment in &segments {
            bytes += bytes_of(shared, segment, done);
        }
        // Without a segment that is surely there after a power cut, nobody would know which log this was.
        let not_durable = unsynced(shared);
        let mut due = Vec::new();
        for pair in segments.windows(2) {
            let oldest = &pair[0];
            if not_durable.iter().any(|segment| Arc::ptr_eq(segment, &pair[1])) {
                break;
            }
            let too_many = shared.config.retention_bytes.is_some_and(|max| bytes > max);
            if !too_many && !self.is_too_old(shared, oldest, now_us)? {
                break;
            }
            bytes -= bytes_of(shared, oldest, done);
            due.push((Arc::clone(oldest), pair[1].first - 1));
        }
        Ok(due)
    }

    fn is_too_old(&self, shared: &Shared, segment: &Arc<Segment>, now_us: i64) -> io::Result<bool> {
        let Some(age_secs) = shared.config.retention_age_secs else { return Ok(false) };
        if self.clock.is_held() {
            return Ok(false);
        }
        let newest_us = match segment.time_max_us() {
            Some(time_us) => time_us,
            None => match shared.open(segment) {
                // It was told; its age is not known.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
                opened => opened?.index.time_max_us,
            },
        };
        let age_us = i64::try_from(age_secs).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        // One in which no batch can be read says nothing of its age, and stays until size takes it.
        Ok(newest_us != i64::MIN && newest_us < now_us.saturating_sub(age_us))
    }
}

/// Makes the file of the next segment: its room on the disk and its name are there before they are needed.
fn prepare(shared: &Shared) -> io::Result<()> {
    shared.wants_upkeep.store(false, Ordering::Relaxed);
    let mut writer = lock(&shared.writer);
    if writer.prepared.is_some() || writer.refusing.is_some() {
        return Ok(());
    }
    let path = writer.next_path(shared);
    drop(writer);
    let file = shared.disk.create(&path)?;
    match file.preallocate(shared.config.segment_bytes) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => {
            let _ = shared.disk.remove(&path);
            return Err(error);
        }
        _ => {}
    }
    file.sync_data()?;
    shared.disk.sync_dir(&shared.config.dir)?;
    lock(&shared.writer).prepared = Some((path, file));
    Ok(())
}

/// Writes the index of each segment that is full and durable, cuts its spare room and closes it.
fn seal(shared: &Shared) -> io::Result<()> {
    let segments = shared.segments().clone();
    for segment in segments.iter().rev().skip(1) {
        let Some(opened) = segment.live() else { continue };
        if lock(&shared.writer).dirty.iter().any(|(dirty, _)| Arc::ptr_eq(dirty, segment)) {
            continue;
        }
        opened.file.truncate(opened.index.len)?;
        segment.store_index(&*shared.disk, &opened.index)?;
        segment.keep_summary(&opened.index);
        segment.close();
    }
    Ok(())
}

/// Segments of which nothing is durable yet, not even the name.
fn unsynced(shared: &Shared) -> Vec<Arc<Segment>> {
    let durable = lock(&shared.tail).durable();
    let writer = lock(&shared.writer);
    let dirty = writer.dirty.iter().map(|(segment, _)| segment);
    dirty.filter(|segment| segment.first > durable).cloned().collect()
}

/// Bytes of a segment's file; none of one that cannot be opened, which is told once.
fn bytes_of(shared: &Shared, segment: &Segment, done: &mut Vec<Upkeep>) -> u64 {
    segment.bytes(&*shared.disk).unwrap_or_else(|error| {
        if segment.tell_once() {
            let why = format!("cannot be opened ({error})");
            done.push(Upkeep::Noticed(Note::Unreadable { file: segment.name(), why }));
        }
        0
    })
}

fn delete(shared: &Shared, segment: &Arc<Segment>) -> io::Result<()> {
    shared.segments_mut().retain(|other| !Arc::ptr_eq(other, segment));
    shared.forget(segment);
    for path in [segment.index_path(), segment.point_path(), segment.path.clone()] {
        kept::remove(&*shared.disk, &path)?;
    }
    Ok(())
}

/// When the newest event was recorded, by the newest segment that has one.
fn newest_us(shared: &Shared) -> Option<i64> {
    let segments = shared.segments().clone();
    for segment in segments.iter().rev() {
        let time_us = match segment.time_max_us() {
            Some(time_us) => time_us,
            None => shared.open(segment).ok()?.index.time_max_us,
        };
        if time_us != i64::MIN {
            return Some(time_us);
        }
    }
    None
}
