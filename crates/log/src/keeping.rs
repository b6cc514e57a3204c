//! What of the segments that retention deletes is kept, and for how long.

use std::io;
use std::sync::Arc;

use crate::engine::{Keep, Upkeep};
use crate::event::Offset;
use crate::folder::is_full;
use crate::kept;
use crate::segment::Segment;
use crate::shared::Shared;

/// How often is asked whether what is kept is still needed.
const ASK_US: u64 = 600_000_000;
/// For how long deletion is put off before it is said.
const PATIENCE_US: u64 = 60_000_000;

/// What is remembered from upkeep to upkeep. Times are of the monotonic clock, in µs.
pub(crate) struct Keeping {
    asked_us: u64,
    /// Since when nobody knows what is needed of the oldest segment, and whether that was said.
    unknown_since_us: Option<(u64, bool)>,
}

impl Keeping {
    pub(crate) fn new(monotonic_us: u64) -> Keeping {
        Keeping { asked_us: monotonic_us, unknown_since_us: None }
    }

    /// Copies what is still needed of the segments that are due; gives those that may go now.
    pub(crate) fn keep(
        &mut self,
        shared: &Shared,
        now_us: i64,
        mut due: Vec<(Arc<Segment>, Offset)>,
        keep: &mut dyn Keep,
        done: &mut Vec<Upkeep>,
    ) -> io::Result<Vec<(Arc<Segment>, Offset)>> {
        let mut wanted = Vec::new();
        let mut known = 0;
        for (segment, last) in &due {
            let Some(offsets) = keep.wanted(segment.first, *last) else { break };
            wanted.extend(offsets.into_iter().filter(|offset| (segment.first..=*last).contains(offset)));
            known += 1;
        }
        let still = if known > 0 { still_wanted(shared, keep) } else { None };
        if still.is_none() {
            known = 0;
        }
        let monotonic_us = shared.disk.monotonic_us();
        done.extend(self.unknown(due.get(known), monotonic_us));
        due.truncate(known);
        if let Some(mut all) = still {
            let brings_nothing_new = wanted.is_empty();
            if !brings_nothing_new || all.len() < kept_offsets(shared).len() {
                all.append(&mut wanted);
                // What ended the need of a kept record may stand in a segment that goes now. Who rebuilds what is
                // retained from the log would find the record alone, so it goes before, unless that needs the room
                // which the segment has.
                match write(shared, all, now_us) {
                    Err(error) if brings_nothing_new && is_full(&error) => {}
                    written => {
                        done.push(written?);
                        shared.disk.sync_dir(&shared.config.dir)?;
                    }
                }
            }
            self.asked_us = monotonic_us;
        } else if monotonic_us.saturating_sub(self.asked_us) >= ASK_US {
            self.asked_us = monotonic_us;
            done.extend(self.drop_unwanted(shared, now_us, keep)?);
        }
        Ok(due)
    }

    /// Says once when deletion has been put off for long.
    fn unknown(&mut self, put_off: Option<&(Arc<Segment>, Offset)>, monotonic_us: u64) -> Option<Upkeep> {
        if put_off.is_none() {
            self.unknown_since_us = None;
        }
        put_off?;
        let (since_us, said) = self.unknown_since_us.get_or_insert((monotonic_us, false));
        if *said || monotonic_us.saturating_sub(*since_us) < PATIENCE_US {
            return None;
        }
        *said = true;
        let why = "it is not known yet which of their events are retained or in flight".to_owned();
        Some(Upkeep::Failed { what: "delete old segments", why })
    }

    /// Writes the file of kept records anew if most of them are needed no longer.
    fn drop_unwanted(&self, shared: &Shared, now_us: i64, keep: &mut dyn Keep) -> io::Result<Option<Upkeep>> {
        let Some(wanted) = still_wanted(shared, keep) else { return Ok(None) };
        let records = kept_offsets(shared).len();
        if records == 0 || wanted.len() * 2 > records {
            return Ok(None);
        }
        let note = write(shared, wanted, now_us)?;
        shared.disk.sync_dir(&shared.config.dir)?;
        Ok(Some(note))
    }
}

fn write(shared: &Shared, mut wanted: Vec<Offset>, now_us: i64) -> io::Result<Upkeep> {
    wanted.sort_unstable();
    wanted.dedup();
    let kept::Written { records, bytes, unreadable } = kept::write(shared, &wanted, now_us)?;
    Ok(Upkeep::Kept { records, bytes, unreadable })
}

fn kept_offsets(shared: &Shared) -> Vec<Offset> {
    shared.kept().map_or_else(Vec::new, |kept| kept.offsets().collect())
}

/// The kept records that are still needed; `None` if that is not known yet.
fn still_wanted(shared: &Shared, keep: &mut dyn Keep) -> Option<Vec<Offset>> {
    let Some(kept) = shared.kept() else { return Some(Vec::new()) };
    let (first, last) = kept.range();
    let mut wanted = keep.wanted(first, last)?;
    wanted.retain(|offset| kept.holds(*offset));
    Some(wanted)
}
