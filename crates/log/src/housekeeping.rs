//! Work of the commit thread about once a second: the next segment, side files, free space, retention.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{Keep, Refusal, Upkeep};
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
    disk_low: bool,
}

impl Housekeeping {
    /// `held`: whether an earlier run had stopped deletion by age.
    pub(crate) fn new(held: bool, monotonic_us: u64) -> Housekeeping {
        Housekeeping { clocks: None, held_since_us: held.then_some(monotonic_us), disk_low: false }
    }

    pub(crate) fn run(&mut self, shared: &Shared, now_us: i64, _keep: &mut dyn Keep) -> Vec<Upkeep> {
        let mut done = std::mem::take(&mut *lock(&shared.notices));
        let mut attempt = |what, result: io::Result<()>| {
            if let Err(error) = result {
                done.push(Upkeep::Failed { what, why: error.to_string() });
            }
        };
        attempt("make the next segment ahead", prepare(shared));
        attempt("write a segment's index", seal(shared));
        match self.check_space(shared) {
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

    fn check_space(&mut self, shared: &Shared) -> io::Result<Option<Upkeep>> {
        let space = shared.disk.space(&shared.config.dir)?;
        let reserve_bytes = shared.config.disk_reserve_bytes.min(space.total_bytes / 20);
        let low = space.free_bytes < reserve_bytes;
        let mut writer = lock(&shared.writer);
        match (low, &writer.refusing) {
            (true, None) => writer.refusing = Some(Refusal::DiskFull),
            (false, Some(Refusal::DiskFull)) => writer.refusing = None,
            _ => {}
        }
        let was_low = std::mem::replace(&mut self.disk_low, low);
        Ok(match (was_low, low) {
            (false, true) => Some(Upkeep::DiskLow { free_bytes: space.free_bytes, reserve_bytes }),
            (true, false) => Some(Upkeep::DiskRecovered { free_bytes: space.free_bytes }),
            _ => None,
        })
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
