//! The commit thread's side: `fdatasync`, and writing anew what a failed one leaves in doubt.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::batch::{Batch, BatchHeader};
use crate::disk::File;
use crate::engine::{Chunk, Commit, CommitError, Keep, RedactError, Redacted, Refusal, Upkeep, Wait};
use crate::event::Offset;
use crate::housekeeping::Housekeeping;
use crate::point::Points;
use crate::reader;
use crate::redact;
use crate::segment::{Segment, lock};
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::shared::{Shared, begun, write_fully};
use crate::writer::Writer;

/// Bytes of one write when batches are written anew.
const REWRITE_BYTES: usize = 1 << 20;

/// The commit thread's side of the log.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    housekeeping: Housekeeping,
    points: Points,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, housekeeping: Housekeeping) -> Committer {
        Committer { shared, housekeeping, points: Points::default() }
    }
}

impl Commit for Committer {
    fn commit(&mut self) -> Result<Offset, CommitError> {
        let shared = &*self.shared;
        if self.housekeeping.waiting.is_some() {
            return Ok(lock(&shared.tail).durable());
        }
        let (target, active, dirty, dir_dirty) = {
            let mut writer = lock(&shared.writer);
            if let Some(Refusal::ReadOnly(why)) = &writer.refusing {
                return Err(CommitError(why.clone()));
            }
            let durable = lock(&shared.tail).durable();
            if writer.head == durable && !writer.dir_dirty {
                self.points.look(shared, &writer);
                self.points.set_durable();
                return Ok(durable);
            }
            writer.dirty_bytes = 0;
            let dir_dirty = std::mem::take(&mut writer.dir_dirty);
            self.points.look(shared, &writer);
            (writer.head, Arc::clone(&writer.active), writer.dirty.clone(), dir_dirty)
        };
        // The long part, without any lock: the sequencer goes on.
        for (_, file) in &dirty {
            if let Err(error) = file.sync_data() {
                return rewrite(shared, &error);
            }
        }
        if dir_dirty && let Err(error) = shared.disk.sync_dir(&shared.config.dir) {
            return Err(stop(
                shared,
                &mut lock(&shared.writer),
                format!("the folder could not be synced: {error}"),
            ));
        }
        let mut writer = lock(&shared.writer);
        // The one that was active may have got more since.
        let done = |segment: &Arc<Segment>| dirty.iter().any(|(synced, _)| Arc::ptr_eq(synced, segment));
        writer.dirty.retain(|(segment, _)| Arc::ptr_eq(segment, &active) || !done(segment));
        lock(&shared.tail).set_durable(target);
        self.points.set_durable();
        Ok(target)
    }

    fn upkeep(&mut self, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep> {
        let mut done = self.housekeeping.run(&self.shared, now_us, keep);
        if let Err(error) = self.points.store(&self.shared) {
            done.push(Upkeep::Failed { what: "store the index point", why: error.to_string() });
        }
        done
    }

    fn noticed(&mut self) -> Vec<Upkeep> {
        std::mem::take(&mut *lock(&self.shared.notices))
    }

    fn close(&mut self) -> Result<Offset, CommitError> {
        let _ = lock(&self.shared.writer).cut_again();
        self.points.step_bytes = Some(1);
        let durable = self.commit()?;
        // A start without it has more to look through.
        let _ = self.points.store(&self.shared);
        Ok(durable)
    }

    fn accept_clock(&mut self, now_us: i64) -> io::Result<bool> {
        self.housekeeping.clock.accept(&self.shared, now_us)
    }

    fn redact(&mut self, offset: Offset, now_us: i64) -> Result<Redacted, RedactError> {
        if self.housekeeping.waiting.is_some() {
            return Err(RedactError::Failed("there is no room on the log's disk".into()));
        }
        let shared = Arc::clone(&self.shared);
        redact::redact(&shared, self, offset, now_us)
    }
}

/// After a failed sync: what is not durable goes, from memory, into a new segment; the files that failed are
/// never synced again.
fn rewrite(shared: &Shared, error: &io::Error) -> Result<Offset, CommitError> {
    let mut writer = lock(&shared.writer);
    match write_anew(shared, &mut writer) {
        Ok(bytes) => {
            lock(&shared.notices).push(Upkeep::Rewritten { why: error.to_string(), bytes });
            lock(&shared.tail).set_durable(writer.head);
            Ok(writer.head)
        }
        Err(second) => {
            let why = format!(
                "a sync failed ({error}), and writing anew what was not durable failed too: {second}"
            );
            Err(stop(shared, &mut writer, why))
        }
    }
}

fn stop(shared: &Shared, writer: &mut Writer, why: String) -> CommitError {
    let _ = shared.read_only.set(why.clone());
    writer.refusing = Some(Refusal::ReadOnly(why.clone()));
    CommitError(why)
}

fn write_anew(shared: &Shared, writer: &mut Writer) -> io::Result<u64> {
    let durable = lock(&shared.tail).durable();
    let (path, file) = writer.make_file(shared)?;
    let begins_same = shared.segments().iter().find(|segment| segment.first == durable + 1).cloned();
    let generation = begins_same.map_or(0, |segment| segment.generation + 1);
    let header = shared.header(durable, generation, writer.active_created_us(shared));
    let named = shared.path(&header.file_name());
    let segment = begun(named.clone(), header, Arc::clone(&file));

    // The header comes last: until it stands there, the old files count.
    let position = copy_batches(shared, durable, writer.head, &*file, &segment)?;
    file.sync_data()?;
    write_fully(&*file, &[IoSlice::new(&header.encode())], 0)?;
    file.sync_data()?;
    shared.disk.rename(&path, &named)?;
    shared.disk.sync_dir(&shared.config.dir)?;

    let mut segments = shared.segments_mut();
    let replaced: Vec<_> = segments.extract_if(.., |segment| segment.first > durable).collect();
    if let Some(failed) = segments.last() {
        failed.close();
    }
    segments.push(Arc::clone(&segment));
    drop(segments);
    for old in &replaced {
        shared.forget(old);
        shared.disk.remove(&old.path)?;
    }
    shared.disk.sync_dir(&shared.config.dir)?;
    writer.active = segment;
    writer.file = file;
    writer.position = position;
    writer.dirty.clear();
    writer.dirty_bytes = 0;
    writer.dir_dirty = false;
    Ok(position)
}

/// Writes the batches behind `durable` up to `head` into `file`; gives the position behind them.
fn copy_batches(
    shared: &Shared,
    durable: Offset,
    head: Offset,
    file: &dyn File,
    segment: &Segment,
) -> io::Result<u64> {
    let mut position = SEGMENT_HEADER_BYTES as u64;
    let mut next = durable + 1;
    while next <= head {
        let chunk = reader::read(shared, next, head, REWRITE_BYTES, Wait::Yes);
        let Ok(Chunk::Batches(batches)) = chunk else {
            return Err(io::Error::other(format!("event {next} can no longer be read")));
        };
        for group in batches.chunks(512) {
            let slices: Vec<_> = group.iter().map(|batch: &Arc<Batch>| IoSlice::new(batch.bytes())).collect();
            write_fully(file, &slices, position)?;
            for batch in group {
                segment.with_index(|index| index.push(&BatchHeader::of_batch(batch), position));
                position += batch.bytes_len() as u64;
                next = batch.last() + 1;
            }
        }
    }
    Ok(position)
}

impl Writer {
    fn active_created_us(&self, shared: &Shared) -> i64 {
        let header = self.active.header(&*shared.disk).ok().flatten();
        header.map_or(0, |header| header.created_us)
    }
}
