//! Room on the log's disk: publishes are refused while there is too little, and taken again by themselves.

use std::io;

use crate::engine::{Refusal, Upkeep};
use crate::event::Offset;
use crate::segment::lock;
use crate::shared::Shared;

/// What is known of the room on the disk.
#[derive(Default)]
pub(crate) struct Room {
    /// When it was looked at last, µs of the monotonic clock.
    looked_us: Option<u64>,
    /// It was below the reserve then.
    low: bool,
    /// It was said that publishes are refused, when this was the newest event.
    said_at: Option<Offset>,
}

impl Room {
    /// Of a disk that was found full at the start, which was said; `head` is the newest event.
    pub(crate) fn full(head: Offset) -> Room {
        Room { looked_us: None, low: true, said_at: Some(head) }
    }

    /// Refuses publishes while there is too little room, and takes them again: looks every `disk_check_secs`. One
    /// notice says when it begins, one when it ends, also when it was a write that found the disk full.
    ///
    /// `begin` gets whether there is room, and says whether the epoch has begun: if not, nothing is taken either.
    pub(crate) fn check(
        &mut self,
        shared: &Shared,
        begin: impl FnOnce(bool) -> io::Result<bool>,
    ) -> io::Result<Option<Upkeep>> {
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
        let low = is_due && (free_bytes < reserve_bytes || !begin(free_bytes >= reserve_bytes)?);
        let mut writer = lock(&shared.writer);
        let was_refusing = is_refusing(&writer.refusing);
        let was_low = self.low;
        if is_due {
            self.looked_us = Some(now_us);
            self.low = low;
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
