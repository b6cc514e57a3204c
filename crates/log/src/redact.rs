//! Taking an event back: its segment is written anew under the next generation, with a tombstone at its offset. Runs on
//! the commit thread.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{Batch, BatchHeader, Piece};
use crate::disk::File;
use crate::engine::{Chunk, Commit, Fetched, RedactError, Redacted, Wait};
use crate::event::Offset;
use crate::fetch;
use crate::index::Index;
use crate::kept;
use crate::reader::{self, Located, locate};
use crate::record::Kind;
use crate::segment::{Opened, Segment, lock, read_header};
use crate::segment_header::{Decoded, SEGMENT_HEADER_BYTES, SegmentHeader, parse_file_name};
use crate::shared::{Shared, write_fully};
use crate::walk::{RECORD_BYTES_MIN, Step, Walk};
use crate::writer::NEXT;

/// Bytes of one copy.
const COPY_BYTES: usize = 1 << 20;
/// How often a segment that goes on being written is left for the next.
const ROLLS_MAX: usize = 4;

/// As [`Commit::redact`]; `commit` makes all that is appended durable.
pub(crate) fn redact(
    shared: &Shared,
    commit: &mut dyn Commit,
    offset: Offset,
    now_us: i64,
) -> Result<Redacted, RedactError> {
    let failed = |error: io::Error| RedactError::Failed(error.to_string());
    let head = shared.head.load(Ordering::Acquire);
    if offset == 0 || offset > head {
        return Err(RedactError::NeverWas { offset, head });
    }
    let in_kept = shared.kept().is_some_and(|kept| kept.holds(offset));
    let segment = match settle(shared, commit, offset, now_us)? {
        None if !in_kept => {
            forget(shared, offset);
            // An attempt before may have removed the file that it stood in, and not been able to make that durable.
            sweep(shared).and_then(|_| shared.disk.sync_dir(&shared.config.dir)).map_err(failed)?;
            return Err(RedactError::Gone { offset });
        }
        settled => settled,
    };
    let found = look(shared, offset).map_err(RedactError::Failed)?;
    if in_kept {
        without(shared, offset, now_us).map_err(failed)?;
    }
    let Some((segment, last)) = segment else {
        forget(shared, offset);
        shared.disk.sync_dir(&shared.config.dir).map_err(failed)?;
        return answer(shared, offset, found).map_err(failed);
    };
    if !matches!(found, Found::Tombstone) {
        rewrite(shared, &segment, last, Some(offset)).map_err(failed)?;
    }
    // Also where a tombstone stands: the attempt that wrote it may have come no further.
    let had_more = behind_its_end(shared, segment.first).map_err(failed)?;
    let swept = sweep(shared).map_err(failed)? || had_more;
    shared.disk.sync_dir(&shared.config.dir).map_err(failed)?;
    if matches!(found, Found::Tombstone) && !in_kept && !swept {
        return Err(RedactError::Already { offset });
    }
    answer(shared, offset, found).map_err(failed)
}

/// Puts a tombstone where the memory of recent batches has the event, which may have it longer than a file.
fn forget(shared: &Shared, offset: Offset) {
    lock(&shared.tail).redact(offset, shared.salt);
}

/// What stands at an offset.
enum Found {
    /// A record, in its batch.
    Record(Arc<Batch>),
    Tombstone,
    /// It cannot be read.
    Damaged,
}

fn look(shared: &Shared, offset: Offset) -> Result<Found, String> {
    let kept = || match fetch::fetch(shared, &[offset], Wait::Yes) {
        Ok(Fetched::Events(events)) => Ok(events.into_iter().next().map(|(_, batch)| batch)),
        Ok(Fetched::Blocked) => Ok(None),
        Err(error) => Err(error.0),
    };
    let batch = match reader::read(shared, offset, offset, 1, Wait::Yes).map_err(|error| error.0)? {
        Chunk::Batches(batches) => batches.into_iter().next(),
        Chunk::Gap { .. } | Chunk::Blocked | Chunk::End => kept()?,
    };
    Ok(match batch {
        Some(batch) if batch.record((offset - batch.base()) as usize).kind() == Kind::Tombstone => {
            Found::Tombstone
        }
        Some(batch) => Found::Record(batch),
        None => Found::Damaged,
    })
}

fn answer(shared: &Shared, offset: Offset, found: Found) -> io::Result<Redacted> {
    let names = shared.disk.list(&shared.config.dir)?;
    let aside = names.into_iter().filter(|name| name.ends_with(".damaged")).collect();
    Ok(match found {
        Found::Record(batch) => {
            let record = batch.record((offset - batch.base()) as usize);
            let principal = record.origin().principal.to_owned();
            Redacted { offset, time_us: Some(batch.time_us()), principal, aside }
        }
        Found::Tombstone | Found::Damaged => {
            Redacted { offset, time_us: None, principal: String::new(), aside }
        }
    })
}

/// The segment that holds the offset, with its last offset, once it is written no longer and durable. `None` if
/// retention took it.
fn settle(
    shared: &Shared,
    commit: &mut dyn Commit,
    offset: Offset,
    now_us: i64,
) -> Result<Option<(Arc<Segment>, Offset)>, RedactError> {
    for _ in 0..ROLLS_MAX {
        {
            let mut writer = lock(&shared.writer);
            let Located::In(segment, last) = locate(shared, offset) else { return Ok(None) };
            let is_active = Arc::ptr_eq(&segment, &writer.active);
            if is_active {
                let rolled = writer.roll(shared, now_us);
                rolled.map_err(|error| {
                    RedactError::Failed(format!("no new segment could be begun: {error}"))
                })?;
            } else if !writer.dirty.iter().any(|(dirty, _)| Arc::ptr_eq(dirty, &segment)) && !writer.dir_dirty
            {
                return Ok(Some((segment, last)));
            }
        }
        // A sync that fails writes what was not durable into a new segment, which is the active one then.
        commit.commit().map_err(|error| RedactError::Failed(error.to_string()))?;
    }
    Err(RedactError::Failed("its segment could not be made durable".into()))
}

/// Writes the file of kept records without this one.
fn without(shared: &Shared, offset: Offset, now_us: i64) -> io::Result<()> {
    let Some(kept) = shared.kept() else { return Ok(()) };
    let left: Vec<Offset> = kept.offsets().filter(|other| *other != offset).collect();
    kept::write(shared, &left, now_us).map(drop)
}

/// Writes a segment anew, with a tombstone at `redacted` and without what does not count behind its end, and removes
/// the old file.
fn rewrite(
    shared: &Shared,
    segment: &Arc<Segment>,
    last: Offset,
    redacted: Option<Offset>,
) -> io::Result<()> {
    check_file(shared, segment)?;
    let opened = shared.open(segment)?;
    let path = lock(&shared.writer).next_path(shared);
    let file = shared.disk.create(&path)?;
    let mut header = None;
    let made =
        Copy::new(shared, &opened, &*file, segment.first).run(last, redacted).and_then(|(index, epoch)| {
            file.sync_data()?;
            // The header comes last: until it stands there, the old file counts.
            let header = *header.insert(next_header(shared, segment, epoch)?);
            write_fully(&*file, &[IoSlice::new(&header.encode())], 0)?;
            file.sync_data()?;
            shared.disk.rename(&path, &shared.path(&header.file_name()))?;
            shared.disk.sync_dir(&shared.config.dir)?;
            Ok((header, index))
        });
    let (header, index) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = shared.disk.remove(&path);
            if let Some(header) = header {
                let _ = shared.disk.remove(&shared.path(&header.file_name()));
            }
            return Err(error);
        }
    };
    let named = shared.path(&header.file_name());
    let new = Arc::new(Segment::known(named, header, Opened { file, index: Arc::new(index) }));
    if let Some(place) = shared.segments_mut().iter_mut().find(|other| Arc::ptr_eq(other, segment)) {
        *place = new;
    }
    if let Some(offset) = redacted {
        forget(shared, offset);
    }
    segment.close();
    shared.forget(segment);
    for side in [segment.index_path(), segment.point_path()] {
        kept::remove(&*shared.disk, &side)?;
    }
    kept::remove(&*shared.disk, &segment.path)
}

/// Fails if the file under the segment's name is not the segment: nobody can tell what it holds.
fn check_file(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let why = match read_header(&*shared.disk.open(&segment.path)?)? {
        Decoded::Header(header) => segment.foreign(&header, shared.log_id),
        Decoded::Newer(version) => Some(format!("is of format {version}, of a later firehose")),
        Decoded::None => None,
    };
    why.map_or(Ok(()), |why| Err(io::Error::other(format!("segment {} {why}", segment.name()))))
}

/// The header of the segment's next generation. If its own is damaged, what its batches and its neighbours say.
fn next_header(shared: &Shared, segment: &Segment, epoch: Option<u32>) -> io::Result<SegmentHeader> {
    let generation = segment.generation + 1;
    if let Some(header) = segment.header(&*shared.disk)? {
        return Ok(SegmentHeader { generation, ..header });
    }
    let segments = shared.segments().clone();
    let at = segments.partition_point(|other| other.first < segment.first);
    let mut neighbours = Vec::new();
    for other in [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(|at| segments.get(at)) {
        neighbours.extend(other.header(&*shared.disk)?);
    }
    let epoch = epoch.unwrap_or(shared.epoch);
    let same_epoch = neighbours.iter().find(|neighbour| neighbour.epoch == epoch);
    // With a neighbour of the same epoch on neither side the epoch began here.
    let previous_epoch_end = same_epoch.map_or(segment.first - 1, |neighbour| neighbour.previous_epoch_end);
    Ok(SegmentHeader { epoch, previous_epoch_end, ..shared.header(segment.first - 1, generation, 0) })
}

/// After a failed sync, or a start that found it torn, the segment before may hold, behind its end, bytes of events that now
/// stand in this one. Says whether it did.
fn behind_its_end(shared: &Shared, first: Offset) -> io::Result<bool> {
    let before = {
        let segments = shared.segments();
        let at = segments.partition_point(|segment| segment.first < first);
        at.checked_sub(1).and_then(|at| segments.get(at)).cloned()
    };
    let Some(before) = before else { return Ok(false) };
    let opened = shared.open(&before)?;
    if opened.index.last < first && opened.file.len()? <= opened.index.len {
        // What was cut off would be back after a power cut, if that it was cut is not on the disk.
        return opened.file.sync_data().map(|()| false);
    }
    rewrite(shared, &before, first - 1, None).map(|()| true)
}

/// Removes what other attempts left: older generations of segments, and files that did not become one. Says whether
/// there was any.
fn sweep(shared: &Shared) -> io::Result<bool> {
    let writer = lock(&shared.writer);
    let segments = shared.segments().clone();
    let is_prepared = |name: &str| {
        writer.prepared.as_ref().is_some_and(|(path, _)| path.file_name().is_some_and(|it| it == name))
    };
    let is_old = |name: &str| {
        parse_file_name(name.trim_end_matches(".index").trim_end_matches(".point")).is_some_and(
            |(first, generation)| {
                segments.iter().any(|segment| segment.first == first && segment.generation > generation)
            },
        )
    };
    let mut swept = kept::sweep(shared)?;
    for name in shared.disk.list(&shared.config.dir)? {
        if is_old(&name) || (name.starts_with(NEXT) && !is_prepared(&name)) {
            kept::remove(&*shared.disk, &shared.path(&name))?;
            swept = true;
        }
    }
    Ok(swept)
}

/// A segment that is copied into a new file. What is copied as it stands is gathered into large writes.
struct Copy<'a> {
    shared: &'a Shared,
    from: &'a Opened,
    to: &'a dyn File,
    index: Index,
    /// End of what was written.
    position: u64,
    /// The range of the old file that is to follow as it stands.
    pending: (u64, u64),
}

impl<'a> Copy<'a> {
    fn new(shared: &'a Shared, from: &'a Opened, to: &'a dyn File, first: Offset) -> Copy<'a> {
        let start = SEGMENT_HEADER_BYTES as u64;
        Copy { shared, from, to, index: Index::new(first, start), position: start, pending: (start, start) }
    }

    /// Gives the index of the new file, and the epoch of its batches. Offsets up to `last` count.
    fn run(mut self, last: Offset, redacted: Option<Offset>) -> io::Result<(Index, Option<u32>)> {
        let end = self.from.index.len;
        let (start, first) = (self.position, self.index.last + 1);
        let mut walk = Walk::new(Arc::clone(&self.from.file), self.shared.salt, start, first, end);
        walk.last_max = last;
        let mut epoch = None;
        let within = |first: Offset, last: Offset| redacted.is_some_and(|it| first <= it && it <= last);
        loop {
            let (from, next) = (walk.position, walk.next);
            let step = walk.step()?;
            if let Step::Batch(_, header) = step {
                epoch = Some(header.epoch);
            }
            match step {
                Step::Batch(position, header) if within(header.base, header.last()) => {
                    let pieces = walk.pieces(position, &header)?;
                    self.write_without(pieces, redacted)?;
                    self.pending = (walk.position, walk.position);
                }
                Step::Batch(position, header) => {
                    let at = self.position + (position - self.pending.0);
                    self.index.push(&header, at);
                    self.pending.1 = walk.position.min(end);
                }
                Step::Lost(first, last) => {
                    self.shared.found_damaged(first, last);
                    match within(first, last) {
                        true => self.blank(from, walk.position)?,
                        false => self.pending.1 = walk.position,
                    }
                }
                Step::End if next > last => break,
                Step::End if within(next, last) => {
                    self.blank(from, end)?;
                    break;
                }
                Step::End => {
                    self.pending.1 = end;
                    break;
                }
            }
        }
        self.flush()?;
        self.index.len = self.position;
        Ok((self.index, epoch))
    }

    /// Writes a batch whose records were taken apart, with a tombstone at the offset. What cannot be read of it
    /// becomes zeros, in which as many offsets are lost.
    fn write_without(&mut self, pieces: Vec<Piece>, redacted: Option<Offset>) -> io::Result<()> {
        self.flush()?;
        for piece in pieces {
            let run = match piece {
                Piece::Whole(run) => run,
                Piece::Bad(first, last) => {
                    self.shared.found_damaged(first, last);
                    self.position += (last + 1 - first) * RECORD_BYTES_MIN;
                    continue;
                }
            };
            let run = redacted.and_then(|offset| run.redacted(offset, self.shared.salt)).unwrap_or(run);
            write_fully(self.to, &[IoSlice::new(run.bytes())], self.position)?;
            self.index.push(&BatchHeader::of_batch(&run), self.position);
            self.position += run.bytes_len() as u64;
        }
        // Zeros at the end are part of the file too.
        self.to.truncate(self.position)
    }

    /// Leaves as many zeros as there were bytes that cannot be read. Of a file that was cut short there are none.
    fn blank(&mut self, from: u64, to: u64) -> io::Result<()> {
        self.flush()?;
        let to = to.max(from);
        self.position += to - from;
        self.pending = (to, to);
        self.to.truncate(self.position)
    }

    fn flush(&mut self) -> io::Result<()> {
        let (mut from, to) = self.pending;
        let mut buf = vec![0; COPY_BYTES];
        while from < to {
            let len = usize::try_from(to - from).unwrap_or(usize::MAX).min(COPY_BYTES);
            let read = crate::window::read_fully(&*self.from.file, &mut buf[..len], from)?;
            if read == 0 {
                break;
            }
            write_fully(self.to, &[IoSlice::new(&buf[..read])], self.position)?;
            from += read as u64;
            self.position += read as u64;
        }
        self.pending = (to, to);
        Ok(())
    }
}
