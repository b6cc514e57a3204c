//! Reading from an offset: the tail in memory, then the page cache, then the disk.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{self, BATCH_HEADER_BYTES, Batch, BatchHeader, Piece};
use crate::disk::File;
use crate::engine::{Chunk, ReadError, Wait};
use crate::event::Offset;
use crate::segment::{Opened, Segment, lock};
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::shared::Shared;
use crate::walk::{Step, Walk};

const RETENTION: &str = "deleted by retention";
const DAMAGED: &str = "damaged on the disk";

/// Bytes of one read of the disk, at least and at most; a batch that is larger is read in one piece.
const READ_BYTES_MIN: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// As [`crate::Read::read`].
pub(crate) fn read(
    shared: &Shared,
    from: Offset,
    upto: Offset,
    bytes_max: usize,
    wait: Wait,
) -> Result<Chunk, ReadError> {
    let upto = upto.min(shared.head.load(Ordering::Acquire));
    if from > upto {
        return Ok(Chunk::End);
    }
    if let Some(batches) = lock(&shared.tail).read(from, upto, bytes_max) {
        return Ok(Chunk::Batches(batches));
    }
    loop {
        let (segment, last) = match locate(shared, from) {
            Located::Gap(next) => return Ok(Chunk::Gap { next, why: RETENTION }),
            Located::In(segment, last) => (segment, last),
        };
        let reading = Reading { shared, segment: &segment, from, upto, last, bytes_max, wait };
        match reading.read() {
            Ok(chunk) => return Ok(chunk),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Chunk::Blocked),
            // Retention took it after it was looked up.
            Err(error) if error.kind() == ErrorKind::NotFound && is_gone(shared, &segment) => {}
            Err(error) => return Err(ReadError(format!("{}: {error}", segment.path.display()))),
        }
    }
}

pub(crate) enum Located {
    /// In this segment, whose last offset is this.
    In(Arc<Segment>, Offset),
    /// Below the oldest offset, which is this.
    Gap(Offset),
}

/// Where an offset at or below the head stands.
pub(crate) fn locate(shared: &Shared, from: Offset) -> Located {
    let segments = shared.segments();
    let after = segments.partition_point(|segment| segment.first <= from);
    let Some(segment) = after.checked_sub(1).and_then(|at| segments.get(at)) else {
        return Located::Gap(segments.first().map_or(from + 1, |oldest| oldest.first));
    };
    let last = segments.get(after).map_or_else(
        || shared.head.load(Ordering::Acquire).min(shared.segments_end.load(Ordering::Acquire)),
        |next| next.first - 1,
    );
    Located::In(Arc::clone(segment), last)
}

/// Whether the segment is part of the log no longer.
pub(crate) fn is_gone(shared: &Shared, segment: &Arc<Segment>) -> bool {
    !shared.segments().iter().any(|other| Arc::ptr_eq(other, segment))
}

/// One read from one segment.
struct Reading<'a> {
    shared: &'a Shared,
    segment: &'a Arc<Segment>,
    from: Offset,
    upto: Offset,
    /// The last offset of the segment that counts.
    last: Offset,
    bytes_max: usize,
    wait: Wait,
}

/// The file, where to look for an offset in it, and where its batches end.
struct Place {
    file: Arc<dyn File>,
    position: u64,
    /// The offset that the batch at this position begins with.
    next: Offset,
    end: u64,
}

impl Reading<'_> {
    fn read(&self) -> io::Result<Chunk> {
        let Place { file, mut position, next, end } = self.place()?;
        let mut buf = Vec::new();
        let mut want = self.bytes_max.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let mut taken = Taken { batches: Vec::new(), bytes: 0, next: None };
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let filled = self.fill(&*file, &mut buf, position, want.min(left))?;
            // A file that ends before its index says holds no more of its last batch, however often it is read.
            let left = if filled == Filled::Ended { buf.len() } else { left };
            let (used, stop) = self.take(&buf, left, &mut taken);
            position += used as u64;
            match stop {
                Stop::Done => break,
                Stop::More(_) if taken.batches.is_empty() && filled == Filled::Blocked => {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Stop::More(bytes) if taken.batches.is_empty() => want = bytes.max(READ_BYTES_MIN),
                Stop::More(_) => break,
                Stop::Gap(next) if taken.batches.is_empty() => return Ok(Chunk::Gap { next, why: DAMAGED }),
                Stop::Gap(_) => return Ok(Chunk::Batches(taken.batches)),
                Stop::Damaged if taken.batches.is_empty() => {
                    let expected = taken.next.unwrap_or(next);
                    match self.search(&file, position, end, expected)? {
                        Some((next, _)) if next > self.from => return Ok(self.lost_from(expected, next)),
                        Some((next, found)) => {
                            self.shared.found_damaged(expected, next - 1);
                            position = found;
                            taken.next = Some(next);
                        }
                        None => break,
                    }
                }
                Stop::Damaged => break,
            }
        }
        match taken.batches.last() {
            Some(last) => {
                self.segment.remember(last.last() + 1, position);
                Ok(Chunk::Batches(taken.batches))
            }
            // Its successor says that it had more.
            None => Ok(self.lost_from(taken.next.unwrap_or(next), self.last + 1)),
        }
    }

    /// The events from `first`, or the one that was asked for, to the one before `next` are damaged.
    fn lost_from(&self, first: Offset, next: Offset) -> Chunk {
        self.shared.found_damaged(first.min(self.from), next - 1);
        Chunk::Gap { next, why: DAMAGED }
    }

    fn place(&self) -> io::Result<Place> {
        let remembered = self.segment.remembered(self.from).map(|position| (self.from, position));
        let place = |opened: &Opened| {
            let found = remembered.or_else(|| opened.index.place_of(self.from));
            let (next, position) = found.unwrap_or((self.segment.first, SEGMENT_HEADER_BYTES as u64));
            Place { file: Arc::clone(&opened.file), position, next, end: opened.index.len }
        };
        let live = self.segment.look(place);
        if let Some(place) = live {
            return Ok(place);
        }
        let opened = match (self.shared.opened_lately(self.segment), self.wait) {
            (Some(opened), _) => opened,
            (None, Wait::No) => return Err(ErrorKind::WouldBlock.into()),
            (None, Wait::Yes) => self.shared.open(self.segment)?,
        };
        Ok(place(&opened))
    }

    /// Reads up to `want` bytes; fewer where the file ends, or where the disk would have to be waited for.
    fn fill(&self, file: &dyn File, buf: &mut Vec<u8>, position: u64, want: usize) -> io::Result<Filled> {
        buf.resize(want, 0);
        let mut done = 0;
        let mut filled = Filled::Whole;
        while done < want {
            let at = position + done as u64;
            let read = match self.wait {
                Wait::Yes => file.read_at(&mut buf[done..], at),
                Wait::No => match file.read_at_nowait(&mut buf[done..], at) {
                    // What is there may do.
                    Err(error) if error.kind() == ErrorKind::WouldBlock && done >= BATCH_HEADER_BYTES => {
                        filled = Filled::Blocked;
                        break;
                    }
                    other => other,
                },
            }?;
            if read == 0 {
                filled = Filled::Ended;
                break;
            }
            done += read;
        }
        buf.truncate(done);
        Ok(filled)
    }

    /// Takes batches from the front of `buf`, which stands `left` bytes before the end. Gives how many bytes were
    /// used, and why it stopped.
    fn take(&self, buf: &[u8], left: usize, taken: &mut Taken) -> (usize, Stop) {
        let mut at = 0;
        loop {
            if at >= left {
                return (at, Stop::Done);
            }
            let rest = &buf[at.min(buf.len())..];
            if rest.len() < BATCH_HEADER_BYTES && rest.len() < left - at {
                return (at, Stop::More(BATCH_HEADER_BYTES));
            }
            let Some(header) = BatchHeader::decode(rest, self.shared.salt) else {
                return (at, Stop::Damaged);
            };
            if header.base > self.last || header.base > self.upto {
                return (at, Stop::Done);
            }
            let expected = taken.next.map_or(header.base <= self.from, |next| next == header.base);
            if !expected {
                return (at, Stop::Damaged);
            }
            let len = header.total_bytes();
            if header.last() >= self.from {
                if !taken.batches.is_empty() && taken.bytes + len > self.bytes_max {
                    return (at, Stop::Done);
                }
                if rest.len() < len && rest.len() < left - at {
                    return (at, Stop::More(len));
                }
                if let Some(stop) = self.take_batch(rest, &header, taken) {
                    return (at, stop);
                }
            }
            taken.next = Some(header.last() + 1);
            at += len;
        }
    }

    /// Takes one batch, or of a damaged one what stands at `from`.
    fn take_batch(&self, bytes: &[u8], header: &BatchHeader, taken: &mut Taken) -> Option<Stop> {
        let pieces = batch::split(bytes, header, self.shared.salt);
        let parts = pieces.len();
        let wanted = if taken.batches.is_empty() { self.from } else { header.base };
        for piece in pieces {
            match piece {
                Piece::Whole(batch) if batch.last() >= wanted => {
                    taken.bytes += batch.bytes_len();
                    taken.batches.push(Arc::new(batch));
                    return (parts > 1).then_some(Stop::Gap(header.last() + 1));
                }
                Piece::Bad(first, last) if last >= wanted => {
                    self.shared.found_damaged(first, last);
                    return Some(Stop::Gap(last + 1));
                }
                _ => {}
            }
        }
        None
    }

    /// Looks behind damage, where the batch with `next` should begin, for the next batch: its first offset and its
    /// position.
    fn search(
        &self,
        file: &Arc<dyn File>,
        position: u64,
        end: u64,
        next: Offset,
    ) -> io::Result<Option<(Offset, u64)>> {
        if self.wait == Wait::No {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut walk = Walk::new(Arc::clone(file), self.shared.salt, position, next, end);
        walk.last_max = self.last;
        loop {
            match walk.step()? {
                Step::Lost(..) => {}
                Step::Batch(position, header) => return Ok(Some((header.base, position))),
                Step::End => return Ok(None),
            }
        }
    }
}

/// Whether a buffer got what was wanted.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Filled {
    Whole,
    /// The file ends.
    Ended,
    /// The disk would have to be waited for.
    Blocked,
}

/// What a read has so far.
struct Taken {
    batches: Vec<Arc<Batch>>,
    bytes: usize,
    /// The offset that the next batch must have, once one was met.
    next: Option<Offset>,
}

/// Why taking batches from a buffer stopped.
enum Stop {
    /// There is enough, or no more.
    Done,
    /// The batch here goes beyond the buffer; so many bytes hold it.
    More(usize),
    /// Records up to the one before this cannot be read.
    Gap(Offset),
    /// Here stands no batch that should.
    Damaged,
}
