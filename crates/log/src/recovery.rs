//! Looking through the last segment at the start, from its last index point: what stays, what is cut, what is
//! declared lost.

use std::io;
use std::sync::Arc;

use crate::batch::{BATCH_HEADER_BYTES, Batch, BatchHeader, Piece};
use crate::disk::File;
use crate::event::Offset;
use crate::index::Index;
use crate::log::RecoveryReport;
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::walk::{Step, Walk};
use crate::window::{Window, read_fully};

/// A last segment that was looked through.
pub(crate) struct Recovered {
    /// Of what stays; its `last` is the segment's last offset, its `len` where it is cut.
    pub index: Index,
    /// Whole records from the front of a batch that is torn behind them. They go into the next segment, since the
    /// batch they stand in is cut.
    pub carried: Option<Batch>,
    /// The latest epoch of the batches that were looked at.
    pub epoch_max: u32,
    /// What stands before this position was durable already.
    pub from: u64,
    /// Where the last byte stands that is not zero: the end of what is torn, too.
    pub end: u64,
}

/// Looks through a segment whose first offset is `first`, from `point` on if that fits it. Cuts nothing.
pub(crate) fn check(
    file: &Arc<dyn File>,
    salt: u32,
    first: Offset,
    point: Option<&Index>,
    report: &mut RecoveryReport,
) -> io::Result<Recovered> {
    let end = file.len()?;
    let begun = match point {
        Some(point) => begin_at(file, salt, point, end)?,
        None => None,
    };
    let kept = begun.unwrap_or_else(|| Index::new(first, SEGMENT_HEADER_BYTES as u64));
    let from = kept.len;
    let mut walk = Walk::new(Arc::clone(file), salt, from, kept.last + 1, end);
    let mut checked = Checked { kept, held: None, gaps: Vec::new(), doubtful: Vec::new() };
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
    let end = end_of_bytes(file, kept.len, end)?;
    report.checked_bytes += end - from;
    report.gaps.extend(gaps);
    report.cut_bytes += end - kept.len;
    report.carried_over += carried.as_ref().map_or(0, |batch| batch.len() as u64);
    Ok(Recovered { index: kept, carried, epoch_max, from, end })
}

/// Whether the page in which a segment's header should stand is empty: the segment was never begun.
pub(crate) fn is_blank(file: &dyn File) -> io::Result<bool> {
    let mut page = vec![0; SEGMENT_HEADER_BYTES];
    let read = read_fully(file, &mut page, 0)?;
    Ok(page[..read].iter().all(|byte| *byte == 0))
}

/// The index up to the last interval of `point`, if the segment goes as far as that says, and the batch with which
/// the interval begins stands where it should.
fn begin_at(file: &Arc<dyn File>, salt: u32, point: &Index, end: u64) -> io::Result<Option<Index>> {
    let Some(before) = point.before_last_interval().filter(|_| point.len <= end) else { return Ok(None) };
    let mut window = Window::new(Arc::clone(file));
    let header = BatchHeader::decode(window.get(before.len, BATCH_HEADER_BYTES)?, salt);
    Ok(header.is_some_and(|header| header.base == before.last + 1).then_some(before))
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
