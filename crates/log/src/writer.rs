//! The end of the log that is written: the sequencer's side. Runs on the thread that holds the sequencer's lock.

use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{Batch, BatchHeader};
use crate::disk::File;
use crate::draft::DRAFT_BYTES_MAX;
use crate::engine::{Append, Refusal, Submission};
use crate::event::Offset;
use crate::segment::{Segment, lock};
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::shared::{Shared, begun, write_fully};

/// Submissions of one `writev`: the system takes no more slices.
const WRITE_SLICES_MAX: usize = 1024;
/// Bytes that are not durable above which a commit should come soon: they are in memory until then.
const COMMIT_BYTES: u64 = 2 << 20;

/// The state of writing. Behind a lock, since a failed sync moves it to a new segment.
pub(crate) struct Writer {
    pub active: Arc<Segment>,
    pub file: Arc<dyn File>,
    /// Where the next batch goes in the active file.
    pub position: u64,
    pub head: Offset,
    /// A file made ahead, for the next segment.
    pub prepared: Option<(PathBuf, Arc<dyn File>)>,
    /// How many files were made; part of their first names.
    pub made: u64,
    /// Files with bytes that are not durable, oldest first.
    pub dirty: Vec<(Arc<Segment>, Arc<dyn File>)>,
    pub dirty_bytes: u64,
    /// Whether the folder has names that are not durable.
    pub dir_dirty: bool,
    pub refusing: Option<Refusal>,
    /// Whether bytes of a write that failed stand behind the end, and nothing says that they do not count.
    pub uncut: bool,
}

/// A turn's answers.
type Answer = (u32, u64, Result<Arc<Batch>, Refusal>);

/// The sequencer's side of the log.
pub(crate) struct Appender {
    shared: Arc<Shared>,
    answers: Vec<Answer>,
    wants_commit: bool,
}

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>) -> Appender {
        Appender { shared, answers: Vec::new(), wants_commit: false }
    }
}

impl Append for Appender {
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    ) {
        let mut writer = lock(&self.shared.writer);
        let mut waiting = submissions.drain(..).peekable();
        while waiting.peek().is_some() {
            let mut bytes = 0;
            let from = self.answers.len();
            while let Some(next) = waiting.next_if(|next| {
                let first = self.answers.len() == from;
                let len = next.draft.bytes_len();
                first || (self.answers.len() - from < WRITE_SLICES_MAX && bytes + len <= DRAFT_BYTES_MAX)
            }) {
                bytes += next.draft.bytes_len();
                writer.place(&self.shared, now_us, next, &mut self.answers);
            }
            writer.write(&self.shared, now_us, &mut self.answers[from..]);
        }
        self.wants_commit = writer.dirty_bytes >= COMMIT_BYTES;
        drop(writer);
        drop(waiting);
        for (from, ticket, answer) in self.answers.drain(..) {
            placed(from, ticket, answer);
        }
    }

    fn head(&self) -> Offset {
        self.shared.head.load(Ordering::Acquire)
    }

    fn durable(&self) -> Offset {
        lock(&self.shared.tail).durable()
    }

    fn wants_upkeep(&self) -> bool {
        self.shared.wants_upkeep.load(Ordering::Relaxed)
    }

    fn wants_commit(&self) -> bool {
        self.wants_commit
    }
}

impl Writer {
    /// One that goes on in a new segment, behind `head`.
    pub(crate) fn new(active: Arc<Segment>, file: Arc<dyn File>, head: Offset) -> Writer {
        Writer {
            active,
            file,
            position: SEGMENT_HEADER_BYTES as u64,
            head,
            prepared: None,
            made: 0,
            dirty: Vec::new(),
            dirty_bytes: 0,
            dir_dirty: false,
            refusing: None,
            uncut: false,
        }
    }

    /// Gives a submission its place behind those of `answers` that are not written yet.
    fn place(&self, shared: &Shared, now_us: i64, submission: Submission, answers: &mut Vec<Answer>) {
        let Submission { draft, ticket, from } = submission;
        let answer = match &self.refusing {
            _ if draft.is_empty() => Ok(Batch::unlogged(draft, self.head, now_us)),
            Some(refusal) => Err(refusal.clone()),
            None => {
                let pending = answers.iter().rev().filter_map(|(_, _, answer)| answer.as_ref().ok());
                let last = pending.filter(|batch| batch.is_logged()).map(|batch| batch.last()).next();
                let base = last.map_or(self.head, |last| last.max(self.head)) + 1;
                Ok(Batch::placed(draft, base, now_us, shared.epoch, shared.salt))
            }
        };
        answers.push((from, ticket, answer.map(Arc::new)));
    }

    /// Writes what was placed; turns the answers into refusals if that fails.
    fn write(&mut self, shared: &Shared, now_us: i64, answers: &mut [Answer]) {
        let logged = |answer: &Answer| answer.2.as_ref().ok().filter(|batch| batch.is_logged()).cloned();
        let batches: Vec<Arc<Batch>> = answers.iter().filter_map(logged).collect();
        if batches.is_empty() {
            return;
        }
        match self.write_batches(shared, now_us, &batches) {
            Ok(()) => self.publish(shared, &batches),
            Err(refusal) => {
                // A full disk is told, and whatever else the failure left to do is done.
                shared.wants_upkeep.store(true, Ordering::Relaxed);
                for answer in answers {
                    if answer.2.as_ref().is_ok_and(|batch| batch.is_logged()) {
                        answer.2 = Err(refusal.clone());
                    }
                }
            }
        }
    }

    fn write_batches(&mut self, shared: &Shared, now_us: i64, batches: &[Arc<Batch>]) -> Result<(), Refusal> {
        let bytes: u64 = batches.iter().map(|batch| batch.bytes_len() as u64).sum();
        let holds_some = self.position > SEGMENT_HEADER_BYTES as u64;
        if holds_some && self.position + bytes > shared.config.segment_bytes {
            self.roll(shared, now_us).map_err(|error| self.refusal(&error))?;
        }
        let slices: Vec<IoSlice<'_>> = batches.iter().map(|batch| IoSlice::new(batch.bytes())).collect();
        match write_fully(&*self.file, &slices, self.position) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.cut_back(shared, now_us, &error)),
        }
    }

    /// Makes written batches part of the log.
    fn publish(&mut self, shared: &Shared, batches: &[Arc<Batch>]) {
        let start = self.position;
        self.active.with_index(|index| {
            for batch in batches {
                index.push(&BatchHeader::of_batch(batch), self.position);
                self.position += batch.bytes_len() as u64;
            }
        });
        self.dirty_bytes += self.position - start;
        if !self.dirty.iter().any(|(segment, _)| Arc::ptr_eq(segment, &self.active)) {
            self.dirty.push((Arc::clone(&self.active), Arc::clone(&self.file)));
        }
        let mut tail = lock(&shared.tail);
        for batch in batches {
            self.head = batch.last();
            tail.push(Arc::clone(batch));
        }
        shared.head.store(self.head, Ordering::Release);
    }

    /// After a write that failed: nothing of it may be found by a reader or after a crash.
    fn cut_back(&mut self, shared: &Shared, now_us: i64, error: &io::Error) -> Refusal {
        let refusal = self.refusal(error);
        if let Err(cut) = self.file.truncate(self.position) {
            // What stands behind the end does not count once a new segment says where this one ends.
            if let Err(roll) = self.leave_behind(shared, now_us) {
                let why = format!(
                    "a write failed ({error}), could not be cut back ({cut}) nor left behind ({roll})"
                );
                let _ = shared.read_only.set(why.clone());
                self.refusing = Some(Refusal::ReadOnly(why));
                self.uncut = true;
            }
        }
        refusal
    }

    /// Tries again to cut off what a failed write left, so that the next start does not find it. The log stays read-only
    /// until then.
    pub(crate) fn cut_again(&mut self) -> io::Result<()> {
        if self.uncut {
            self.file.truncate(self.position)?;
            self.uncut = false;
        }
        Ok(())
    }

    /// Goes on in a new segment whose header, durable at once, says where the present one ends; so what stands
    /// before that has to be durable too.
    fn leave_behind(&mut self, shared: &Shared, now_us: i64) -> io::Result<()> {
        for (_, file) in &self.dirty {
            file.sync_data()?;
        }
        let left = Arc::clone(&self.active);
        self.roll(shared, now_us)?;
        self.file.sync_data()?;
        shared.disk.sync_dir(&shared.config.dir)?;
        if left.first == self.active.first {
            // Of the same first offset the later generation counts; what cannot be removed now goes at a start.
            let _ = shared.disk.remove(&left.path);
        }
        Ok(())
    }

    /// Goes on in a new segment, made ahead or made now.
    pub(crate) fn roll(&mut self, shared: &Shared, now_us: i64) -> io::Result<()> {
        let (path, file) = match self.prepared.take() {
            Some(prepared) => prepared,
            None => self.make_file(shared)?,
        };
        shared.wants_upkeep.store(true, Ordering::Relaxed);
        let replaces = self.active.first == self.head + 1;
        let generation = if replaces { self.active.generation + 1 } else { 0 };
        let header = shared.header(self.head, generation, now_us);
        let named = shared.path(&header.file_name());
        let begin = || {
            write_fully(&*file, &[IoSlice::new(&header.encode())], 0)?;
            shared.disk.rename(&path, &named)
        };
        if let Err(error) = begin() {
            // What cannot be removed now goes at the next start.
            let _ = shared.disk.remove(&path);
            return Err(error);
        }
        let segment = begun(named, header, Arc::clone(&file));
        let mut segments = shared.segments_mut();
        if replaces {
            segments.pop();
            self.dirty.retain(|(other, _)| !Arc::ptr_eq(other, &self.active));
        }
        segments.push(Arc::clone(&segment));
        drop(segments);
        self.dirty.push((Arc::clone(&segment), Arc::clone(&file)));
        self.dir_dirty = true;
        self.active = segment;
        self.file = file;
        self.position = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Makes a file under a name that says nothing yet.
    pub(crate) fn make_file(&mut self, shared: &Shared) -> io::Result<(PathBuf, Arc<dyn File>)> {
        let path = self.next_path(shared);
        Ok((path.clone(), shared.disk.create(&path)?))
    }

    /// A path that no other file has.
    pub(crate) fn next_path(&mut self, shared: &Shared) -> PathBuf {
        self.made += 1;
        shared.path(&format!("{NEXT}{}.{}", shared.epoch, self.made))
    }

    fn refusal(&mut self, error: &io::Error) -> Refusal {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
        {
            self.refusing = Some(Refusal::DiskFull);
            return Refusal::DiskFull;
        }
        Refusal::WriteFailed(error.to_string())
    }
}

/// How the name of a file begins that is to become a segment.
pub(crate) const NEXT: &str = "next.";
