//! Looking through the last segment at the start: what stays, what is cut, what is declared lost.

use std::io;
use std::sync::Arc;

use crate::batch::{Batch, BatchHeader, Piece};
use crate::disk::File;
use crate::event::Offset;
use crate::index::Index;
use crate::log::RecoveryReport;
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::walk::{Step, Walk};
use crate::window::Window;

/// A last segment that was looked through.
pub(crate) struct Recovered {
    /// Of what stays; its `last` is the segment's last offset, its `len` where it is cut.
    pub index: Index,
    /// Whole records from the front of a batch that is torn behind them. They go into the next segment, since the
    /// batch they stand in is cut.
    pub carried: Option<Batch>,
    /// The latest epoch of its batches.
    pub epoch_max: u32,
}

/// Looks through a segment whose first offset is `first`. Cuts nothing yet.
pub(crate) fn check(
    file: &Arc<dyn File>,
    salt: u32,
    first: Offset,
    report: &mut RecoveryReport,
) -> io::Result<Recovered> {
    let start = SEGMENT_HEADER_BYTES as u64;
    let end = file.len()?;
    let mut walk = Walk::new(Arc::clone(file), salt, start, first, end);
    let mut checked =
        Checked { kept: Index::new(first, start), held: None, gaps: Vec::new(), doubtful: Vec::new() };
    let mut epoch_max = 0;
    loop {
        match walk.step()? {
            Step::Batch(position, header) => {
                epoch_max = epoch_max.max(header.epoch);
                let pieces = walk.pieces(position, &header)?;
                checked.take(pieces, header, position);
            }
            Step::Lost(first, last) if first <= last => checked.doubtful.push((first, last)),
            Step::Lost(..) => {}
            Step::End => break,
        }
    }
    let Checked { mut kept, held, gaps, .. } = checked;
    let carried = held.map(|held| {
        // What is damaged before it has something whole behind it, and stays.
        kept.len = held.position;
        kept.last = held.front.base() - 1;
        held.front
    });
    report.checked_bytes += end.saturating_sub(start);
    report.gaps.extend(gaps);
    report.cut_bytes += end_of_bytes(file, kept.len, end)? - kept.len;
    report.carried_over += carried.as_ref().map_or(0, |batch| batch.len() as u64);
    Ok(Recovered { index: kept, carried, epoch_max })
}

/// What a walk has found.
struct Checked {
    kept: Index,
    held: Option<Held>,
    gaps: Vec<(Offset, Offset)>,
    /// Ranges that are gaps if something whole follows, and torn if not.
    doubtful: Vec<(Offset, Offset)>,
}

/// A batch whose end is bad and that has nothing whole behind it, so far.
struct Held {
    header: BatchHeader,
    position: u64,
    /// Its whole records, up to the bad ones.
    front: Batch,
}

impl Checked {
    fn take(&mut self, pieces: Vec<Piece>, header: BatchHeader, position: u64) {
        let mut front = None;
        for piece in pieces {
            match piece {
                Piece::Bad(first, last) => self.doubtful.push((first, last)),
                Piece::Whole(run) => {
                    // Something whole follows, so that nothing before it is cut.
                    if let Some(held) = self.held.take() {
                        self.kept.push(&held.header, held.position);
                    }
                    self.gaps.append(&mut self.doubtful);
                    front = Some(run);
                }
            }
        }
        match front {
            Some(_) if self.doubtful.is_empty() => self.kept.push(&header, position),
            Some(front) => self.held = Some(Held { header, position, front }),
            None => {}
        }
    }
}

/// Where the last byte that is not zero stands, between `from` and `end`: what lies behind was preallocated.
fn end_of_bytes(file: &Arc<dyn File>, from: u64, end: u64) -> io::Result<u64> {
    const STEP: usize = 1 << 20;
    let mut window = Window::new(Arc::clone(file));
    let (mut last, mut at) = (from, from);
    while at < end {
        let Some(data) = window.next_data(at)? else { break };
        at = at.max(data);
        let bytes = window.get(at, STEP)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(found) = bytes.iter().rposition(|byte| *byte != 0) {
            last = at + found as u64 + 1;
        }
        at += bytes.len() as u64;
    }
    Ok(last.min(end).max(from))
}
