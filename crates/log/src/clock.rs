//! Whether the wall clock is to be trusted. When it has jumped nothing goes for its age, until it has agreed with the
//! monotonic clock for a day or an operator accepts it.

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::disk::Disk;
use crate::engine::Upkeep;
use crate::json::format_time;
use crate::shared::{Shared, write_fully};
use crate::window::read_fully;

const DAY_US: i64 = 86_400_000_000;
/// Its presence says that the clock is held; it says why (docs/adr/0001-format-v1.md).
pub(crate) const HOLD_FILE: &str = "clock-hold";
/// Says when an operator last accepted the clock.
const ACCEPTED_FILE: &str = "clock-accepted";
/// Neither file is longer.
const FILE_BYTES_MAX: usize = 64;

/// The commit thread's view of the clocks.
pub(crate) struct Clock {
    /// Wall and monotonic clock of the last turn, µs.
    last: Option<(i64, u64)>,
    /// Since when, by the monotonic clock, the wall clock has agreed with it after a jump.
    held_since_us: Option<u64>,
}

impl Clock {
    /// `held`: whether an earlier run did not trust the clock.
    pub(crate) fn new(held: bool, monotonic_us: u64) -> Clock {
        Clock { last: None, held_since_us: held.then_some(monotonic_us) }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held_since_us.is_some()
    }

    /// Compares the wall clock with the monotonic one and, at the start, with `newest_us`, the newest event's time.
    pub(crate) fn check(
        &mut self,
        shared: &Shared,
        now_us: i64,
        newest_us: impl FnOnce() -> Option<i64>,
    ) -> Option<Upkeep> {
        let monotonic_us = shared.disk.monotonic_us();
        let by_us = match self.last.replace((now_us, monotonic_us)) {
            Some((wall, monotonic)) => {
                let passed_us = i64::try_from(monotonic_us.saturating_sub(monotonic)).unwrap_or(i64::MAX);
                now_us.saturating_sub(wall).saturating_sub(passed_us)
            }
            None => newest_us().map_or(0, |newest_us| off_at_start(shared, now_us, newest_us)),
        };
        if by_us.saturating_abs() > DAY_US {
            self.held_since_us = Some(monotonic_us);
            shared.clock_held.store(true, Ordering::Release);
            // Without the file a restart would trust the clock again if new events were recorded by it.
            let _ = put(&*shared.disk, &shared.path(HOLD_FILE), &format!("{by_us} {now_us}\n"));
            return Some(Upkeep::ClockJumped { by_us });
        }
        let since = self.held_since_us?;
        if monotonic_us.saturating_sub(since) < DAY_US as u64 {
            return None;
        }
        self.release(shared);
        let _ = shared.disk.remove(&shared.path(HOLD_FILE));
        Some(Upkeep::ClockAgrees)
    }

    /// As [`crate::Commit::accept_clock`].
    pub(crate) fn accept(&mut self, shared: &Shared, now_us: i64) -> io::Result<bool> {
        let held = self.is_held();
        accept(&shared.config.dir, &*shared.disk, now_us)?;
        self.last = Some((now_us, shared.disk.monotonic_us()));
        self.release(shared);
        Ok(held)
    }

    fn release(&mut self, shared: &Shared) {
        self.held_since_us = None;
        shared.clock_held.store(false, Ordering::Release);
    }
}

/// By how much the clock is off when the log is opened. An operator who accepted the clock knew of the events that
/// a wrong one had recorded.
fn off_at_start(shared: &Shared, now_us: i64, newest_us: i64) -> i64 {
    let accepted = get(&*shared.disk, &shared.path(ACCEPTED_FILE)).ok().flatten();
    match accepted.and_then(|text| text.trim().parse::<i64>().ok()) {
        Some(accepted_us) if newest_us > now_us => now_us.saturating_sub(accepted_us).min(0),
        Some(accepted_us) => now_us.saturating_sub(newest_us.max(accepted_us)),
        None => now_us.saturating_sub(newest_us),
    }
}

/// Why the clock is not trusted: what `doctor` says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ClockHold {
    /// By how many µs the clock was off, and when it said so, µs since 1970-01-01 UTC; `None` if the file does not say.
    pub jump: Option<(i64, i64)>,
}

impl std::fmt::Display for ClockHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the clock is not trusted, and nothing goes for its age: ")?;
        match self.jump {
            Some((by_us, at_us)) => {
                write!(f, "it was off by {} s when it said {}", by_us / 1_000_000, format_time(at_us))
            }
            None => f.write_str("it had jumped by more than a day"),
        }
    }
}

/// Whether the clock is held, and why, in the log's folder; the log may be open or not.
///
/// # Errors
/// As the system says.
pub fn clock_hold(dir: &Path, disk: &dyn Disk) -> io::Result<Option<ClockHold>> {
    Ok(get(disk, &dir.join(HOLD_FILE))?.map(|text| {
        let mut numbers = text.split_whitespace().map(|word| word.parse::<i64>().ok());
        let (by_us, at_us) = (numbers.next().flatten(), numbers.next().flatten());
        ClockHold { jump: by_us.zip(at_us) }
    }))
}

/// Accepts the clock of a log that is not open; gives whether it was held.
///
/// # Errors
/// `WouldBlock` if the log is open: then [`crate::Commit::accept_clock`] does it. Otherwise as the system says.
pub fn accept_clock(dir: &Path, disk: &dyn Disk, now_us: i64) -> io::Result<bool> {
    let _guard = disk.lock(dir)?;
    accept(dir, disk, now_us)
}

fn accept(dir: &Path, disk: &dyn Disk, now_us: i64) -> io::Result<bool> {
    put(disk, &dir.join(ACCEPTED_FILE), &format!("{now_us}\n"))?;
    let held = match disk.remove(&dir.join(HOLD_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        other => other.map(|()| true)?,
    };
    disk.sync_dir(dir)?;
    Ok(held)
}

/// Writes a small file, durable but for its name.
fn put(disk: &dyn Disk, path: &Path, text: &str) -> io::Result<()> {
    let file = match disk.create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => disk.open(path),
        other => other,
    }?;
    file.truncate(0)?;
    write_fully(&*file, &[IoSlice::new(text.as_bytes())], 0)?;
    file.sync_data()
}

/// The text of a small file, if it is there.
fn get(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = [0; FILE_BYTES_MAX];
    let read = read_fully(&*file, &mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..read]).into_owned()))
}
