//! Work of the commit thread about once a second: the next segment, side files, free space, retention.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{Refusal, Upkeep};
use crate::event::Offset;
use crate::segment::{Segment, lock};
use crate::shared::Shared;

const DAY_US: i64 = 86_400_000_000;
/// Its presence says that no event may go for its age, since the clock is not to be trusted.
pub(crate) const HOLD_FILE: &str = "clock-hold";

/// What upkeep remembers from turn to turn.
pub(crate) struct Housekeeping {
    /// Wall and monotonic clock of the last turn, µs.
    clocks: Option<(i64, u64)>,
    /// Since when, by the monotonic clock, the wall clock has agreed with it after a jump.
    held_since_us: Option<u64>,
    room: Room,
}

/// What is known of the room on the disk.
#[derive(Default)]
struct Room {
    /// When it was looked at last, µs of the monotonic clock.
    looked_us: Option<u64>,
    /// It was below the reserve then.
    low: bool,
    /// It was said that publishes are refused, when this was the newest event.
    said_at: Option<Offset>,
}

impl Housekeeping {
    /// `held`: whether an earlier run had stopped deletion by age.
    pub(crate) fn new(held: bool, monotonic_us: u64) -> Housekeeping {
        Housekeeping { clocks: None, held_since_us: held.then_some(monotonic_us), room: Room::default() }
    }

    pub(crate) fn run(&mut self, shared: &Shared, now_us: i64) -> Vec<Upkeep> {
        let mut done = std::mem::take(&mut *lock(&shared.notices));
        let mut attempt = |what, result: io::Result<()>| {
            if let Err(error) = result {
                done.push(Upkeep::Failed { what, why: error.to_string() });
            }
        };
        attempt("make the next segment ahead", prepare(shared));
        attempt("write a segment's index", seal(shared));
        match self.room.check(shared) {
            Ok(notice) => done.extend(notice),
            Err(error) => {
                done.push(Upkeep::Failed { what: "see how much room there is", why: error.to_string() })
            }
        }
        done.extend(self.check_clock(shared, now_us));
        if let Err(error) = self.retain(shared, now_us, &mut done) {
            done.push(Upkeep::Failed { what: "delete old segments", why: error.to_string() });
        }
        done
    }

    /// Compares the wall clock with the monotonic one and, at the start, with the newest event.
    fn check_clock(&mut self, shared: &Shared, now_us: i64) -> Option<Upkeep> {
        let monotonic_us = shared.disk.monotonic_us();
        let by_us = match self.clocks.replace((now_us, monotonic_us)) {
            Some((wall, monotonic)) => {
                now_us.saturating_sub(wall).saturating_sub(monotonic_us.saturating_sub(monotonic) as i64)
            }
            None => newest_us(shared).map_or(0, |newest| now_us.saturating_sub(newest)),
        };
        if by_us.saturating_abs() > DAY_US {
            self.held_since_us = Some(monotonic_us);
            // Without the file a restart would trust the clock again if new events were recorded by it.
            let _ = shared.disk.create(&shared.path(HOLD_FILE));
            return Some(Upkeep::ClockJumped { by_us });
        }
        let since = self.held_since_us?;
        if monotonic_us.saturating_sub(since) < DAY_US as u64 {
            return None;
        }
        self.held_since_us = None;
        let _ = shared.disk.remove(&shared.path(HOLD_FILE));
        Some(Upkeep::ClockAgrees)
    }

    /// Deletes whole segments from the oldest on, never the active one.
    fn retain(&self, shared: &Shared, now_us: i64, done: &mut Vec<Upkeep>) -> io::Result<()> {
        let segments = shared.segments().clone();
        let mut bytes = 0;
        for segment in &segments {
            bytes += segment.bytes(&*shared.disk)?;
        }
        let mut deleted = false;
        for pair in segments.windows(2) {
            let oldest = &pair[0];
            let too_many = shared.config.retention_bytes.is_some_and(|max| bytes > max);
            if !too_many && !self.is_too_old(shared, oldest, now_us)? {
                break;
            }
            bytes -= oldest.bytes(&*shared.disk)?;
            delete(shared, oldest)?;
            deleted = true;
            let name = oldest.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            done.push(Upkeep::Deleted { segment: name, first: oldest.first, last: pair[1].first - 1 });
        }
        if deleted { shared.disk.sync_dir(&shared.config.dir) } else { Ok(()) }
    }

    fn is_too_old(&self, shared: &Shared, segment: &Arc<Segment>, now_us: i64) -> io::Result<bool> {
        let Some(age_secs) = shared.config.retention_age_secs else { return Ok(false) };
        if self.held_since_us.is_some() {
            return Ok(false);
        }
        let newest_us = match segment.time_max_us() {
            Some(time_us) => time_us,
            None => shared.open(segment)?.index.time_max_us,
        };
        let age_us = i64::try_from(age_secs).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        // One in which no batch can be read says nothing of its age, and stays until size takes it.
        Ok(newest_us != i64::MIN && newest_us < now_us.saturating_sub(age_us))
    }
}

impl Room {
    /// Refuses publishes while there is too little room, and takes them again: looks every `disk_check_secs`. One
    /// notice says when it begins, one when it ends, also when it was a write that found the disk full.
    fn check(&mut self, shared: &Shared) -> io::Result<Option<Upkeep>> {
        let now_us = shared.disk.monotonic_us();
        let every_us = shared.config.disk_check_secs.saturating_mul(1_000_000);
        let is_due = self.looked_us.is_none_or(|at| now_us.saturating_sub(at) >= every_us);
        let is_refusing = |refusing: &Option<Refusal>| *refusing == Some(Refusal::DiskFull);
        if !is_due && (self.said_at.is_some() || !is_refusing(&lock(&shared.writer).refusing)) {
            return Ok(None);
        }
        let space = shared.disk.space(&shared.config.dir)?;
        let free_bytes = space.free_bytes;
        let reserve_bytes = shared.config.disk_reserve_bytes.min(space.total_bytes / 20);
        let mut writer = lock(&shared.writer);
        let was_refusing = is_refusing(&writer.refusing);
        let was_low = self.low;
        if is_due {
            self.looked_us = Some(now_us);
            self.low = free_bytes < reserve_bytes;
            match (self.low, &writer.refusing) {
                (true, None) => writer.refusing = Some(Refusal::DiskFull),
                // If it was a write that failed, the next one tries whether there is room.
                (false, Some(Refusal::DiskFull)) => writer.refusing = None,
                _ => {}
            }
        }
        let is_taking = match (was_low, self.low) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => !was_refusing && self.said_at.is_some_and(|head| writer.head > head),
        };
        Ok(match self.said_at {
            None if self.low => {
                self.said_at = Some(writer.head);
                Some(Upkeep::DiskLow { free_bytes, reserve_bytes })
            }
            None if was_refusing => {
                self.said_at = Some(writer.head);
                Some(Upkeep::DiskFull { free_bytes })
            }
            Some(_) if is_taking => {
                self.said_at = None;
                Some(Upkeep::DiskRecovered { free_bytes })
            }
            _ => None,
        })
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

fn delete(shared: &Shared, segment: &Arc<Segment>) -> io::Result<()> {
    shared.segments_mut().retain(|other| !Arc::ptr_eq(other, segment));
    shared.forget(segment);
    for path in [segment.index_path(), segment.path.clone()] {
        match shared.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
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
