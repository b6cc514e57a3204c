//! The seam between the bus and what keeps its events: the embedded segments by default, another store later.

use std::io;
use std::sync::Arc;

use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::draft::Draft;
use crate::event::Offset;
use crate::note::Note;
use crate::record::Kind;
use crate::since::{Since, SinceError};

/// A draft that waits for its place.
#[derive(Debug)]
pub struct Submission {
    /// The records.
    pub draft: Draft,
    /// The submitter's own number for it; handed back with the answer.
    pub ticket: u64,
    /// Who submitted it; opaque here, handed back with the answer.
    pub from: u32,
}

/// Why a submission was not stored. Nothing of it was seen by anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The disk is full, or below its reserve. It recovers alone when there is room again.
    DiskFull,
    /// Nothing more is stored until the operator restarts the bus; reading goes on. Says why.
    ReadOnly(String),
    /// This write failed; the next may do. Says how.
    WriteFailed(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::DiskFull => f.write_str("the log's disk is full"),
            Refusal::ReadOnly(why) => write!(f, "the log is read-only: {why}"),
            Refusal::WriteFailed(why) => write!(f, "the log could not be written: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The sequencer's side; called under its lock.
pub trait Append: Send {
    /// Places every submission, in order, at `now_us` (µs since 1970-01-01 UTC), with one `writev`; calls
    /// `placed(from, ticket, answer)` once for each, in order. Drains `submissions`. An empty draft is answered
    /// with an empty batch that is not logged.
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    );

    /// Offset of the newest event, 0 if there was never one.
    fn head(&self) -> Offset;

    /// Offset up to which the log is durable now. After a start it may be below the head: what a kill has left in memory
    /// only could not be written again yet.
    fn durable(&self) -> Offset;

    /// Whether [`Commit::upkeep`] should be called soon, because the segment made ahead was used up.
    fn wants_upkeep(&self) -> bool;

    /// Whether [`Commit::commit`] should be called soon, whatever waits for it, because much is not durable yet.
    fn wants_commit(&self) -> bool {
        false
    }
}

/// The commit thread's side.
pub trait Commit: Send {
    /// Makes all that is appended durable; gives the offset up to which the log is.
    ///
    /// # Errors
    /// [`CommitError`]: nothing that waits may be acknowledged.
    fn commit(&mut self) -> Result<Offset, CommitError>;

    /// Work ahead of need, and housekeeping: the next segment, retention, a look at the free space. To be called
    /// about once a second, and when [`Append::wants_upkeep`] says so. `keep` is asked what of a segment that retention
    /// deletes is still needed.
    fn upkeep(&mut self, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep>;

    /// Takes an event back: when this returns a tombstone stands durably at its offset, and no file of the log, nor
    /// its memory, holds its bytes. Appending goes on meanwhile; a batch that was handed out before stays as it is.
    /// `now_us` is the wall clock. A record that cannot be read is taken back too: its bytes go, and it stays a
    /// declared gap.
    ///
    /// # Errors
    /// [`RedactError`]: it is not there, or the disk failed.
    fn redact(&mut self, offset: Offset, now_us: i64) -> Result<Redacted, RedactError> {
        let (_, _) = (offset, now_us);
        Err(RedactError::Unsupported)
    }

    /// What was noticed since the last upkeep, for those who stop and do no further one.
    fn noticed(&mut self) -> Vec<Upkeep> {
        Vec::new()
    }

    /// The last commit before a clean stop; also leaves what makes the next start short.
    ///
    /// # Errors
    /// As [`Commit::commit`].
    fn close(&mut self) -> Result<Offset, CommitError> {
        self.commit()
    }

    /// Trusts the clock again, which says `now_us` (µs since 1970-01-01 UTC): events go for their age from now on.
    /// Gives whether it was not trusted before.
    ///
    /// # Errors
    /// As the system says; the clock is not trusted then.
    fn accept_clock(&mut self, now_us: i64) -> io::Result<bool> {
        let _ = now_us;
        Ok(false)
    }
}

/// An event that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// Its offset, where a tombstone stands now.
    pub offset: Offset,
    /// When it was recorded, µs since 1970; `None` if it could not be read.
    pub time_us: Option<i64>,
    /// Who had published it; empty for the anonymous, or if it could not be read.
    pub principal: String,
    /// Files in the log's folder that were set aside because they cannot be read, so that nobody can tell what they
    /// hold.
    pub aside: Vec<String>,
}

/// Why an event was not taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedactError {
    /// There never was such an event.
    NeverWas {
        /// The offset that was asked for.
        offset: Offset,
        /// The newest that there is.
        head: Offset,
    },
    /// Retention deleted it before.
    Gone {
        /// The offset that was asked for.
        offset: Offset,
    },
    /// It was taken back before.
    Already {
        /// The offset that was asked for.
        offset: Offset,
    },
    /// The disk failed. Either all of the event is there still or none of it; to be tried again.
    Failed(String),
    /// This store cannot take back events.
    Unsupported,
}

impl std::fmt::Display for RedactError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RedactError::NeverWas { offset, head } => {
                write!(f, "there is no event {offset}; the newest is {head}")
            }
            RedactError::Gone { offset } => write!(f, "event {offset} is gone already, by retention"),
            RedactError::Already { offset } => write!(f, "event {offset} was redacted before"),
            RedactError::Failed(why) => {
                write!(f, "the event could not be redacted: {why}; nothing is sure until it is done again")
            }
            RedactError::Unsupported => f.write_str("this log's store cannot redact events"),
        }
    }
}

impl std::error::Error for RedactError {}

/// Who knows which records are needed after their segment is deleted: those that are retained or in flight.
pub trait Keep {
    /// Of the events from `first` to `last`, the offsets of those that are needed, ascending. `None`: not known yet;
    /// the deletion is put off to the next upkeep.
    fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>>;
}

/// Needs nothing that retention deletes.
#[derive(Copy, Clone, Debug, Default)]
pub struct KeepNothing;

impl Keep for KeepNothing {
    fn wanted(&mut self, _: Offset, _: Offset) -> Option<Vec<Offset>> {
        Some(Vec::new())
    }
}

/// What could not be made durable, and why. The log is read-only from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitError(pub String);

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the log could not be made durable: {}", self.0)
    }
}

impl std::error::Error for CommitError {}

/// Something that upkeep did or noticed, for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Upkeep {
    /// A segment went, by retention: its file and its first and last offset.
    Deleted {
        /// Name of the file.
        segment: String,
        /// First offset it held.
        first: Offset,
        /// Last offset it held.
        last: Offset,
    },
    /// Records that are still needed were kept from segments that are deleted, or those no longer needed were dropped.
    Kept {
        /// How many records are kept now.
        records: u64,
        /// The bytes that their file takes.
        bytes: u64,
        /// How many were needed and cannot be read.
        unreadable: u64,
    },
    /// The wall clock jumped by more than a day, or the newest event is more than a day off: deletion by age
    /// stops until the clock agrees with itself for 24 h.
    ClockJumped {
        /// By how many µs it is off.
        by_us: i64,
    },
    /// The clock has agreed with itself for 24 h: deletion by age goes on.
    ClockAgrees,
    /// Free space fell below the reserve: publishes are refused.
    DiskLow {
        /// Free bytes.
        free_bytes: u64,
        /// The reserve.
        reserve_bytes: u64,
    },
    /// A write found the disk full: publishes are refused until there is room.
    DiskFull {
        /// Free bytes, by what the file system says.
        free_bytes: u64,
    },
    /// There is room again: publishes are taken.
    DiskRecovered {
        /// Free bytes.
        free_bytes: u64,
    },
    /// A failed `fdatasync` was made good: what was not durable stands in a new segment.
    Rewritten {
        /// What had failed.
        why: String,
        /// How many bytes were written anew.
        bytes: u64,
    },
    /// Something is wrong with a file.
    Noticed(Note),
    /// Something that can wait did not work; it is tried again.
    Failed {
        /// What was tried.
        what: &'static str,
        /// Why it did not work.
        why: String,
    },
}

impl std::fmt::Display for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Upkeep::Deleted { segment, first, last } => {
                write!(f, "retention deleted segment {segment}, events {first} to {last}")
            }
            Upkeep::Kept { records, bytes, unreadable: 0 } => {
                write!(
                    f,
                    "{records} events that are retained or in flight are kept beyond retention, in {bytes} bytes"
                )
            }
            Upkeep::Kept { records, bytes, unreadable } => write!(
                f,
                "{records} events that are retained or in flight are kept beyond retention, in {bytes} bytes; \
                 {unreadable} more cannot be: they were taken back, or are damaged on the disk and lost"
            ),
            Upkeep::ClockJumped { by_us } => write!(
                f,
                "the clock is off by {} s; no event is deleted for its age until it agrees with itself for 24 h",
                by_us / 1_000_000
            ),
            Upkeep::ClockAgrees => f.write_str("the clock agrees again; deletion by age goes on"),
            Upkeep::DiskLow { free_bytes, reserve_bytes } => write!(
                f,
                "the log's disk has {free_bytes} bytes free, below its reserve of {reserve_bytes}; publishes are refused"
            ),
            Upkeep::DiskFull { free_bytes } => {
                write!(f, "the log's disk is full ({free_bytes} bytes free); publishes are refused")
            }
            Upkeep::DiskRecovered { free_bytes } => {
                write!(f, "the log's disk has room again ({free_bytes} bytes free); publishes are taken")
            }
            Upkeep::Rewritten { why, bytes } => {
                write!(f, "after a failed sync ({why}) {bytes} bytes were written anew into a new segment")
            }
            Upkeep::Noticed(note) => note.fmt(f),
            Upkeep::Failed { what, why } => write!(f, "could not {what}: {why}; it is tried again"),
        }
    }
}

/// Everyone else's side; cheap to share as `Arc<dyn Read>`.
pub trait Read: Send + Sync {
    /// Offset of the newest event that is written, 0 if there was never one.
    fn head(&self) -> Offset;

    /// The first offset that is still there; one above the head if none is.
    fn oldest(&self) -> Offset;

    /// The present epoch: one more at each start.
    fn epoch(&self) -> u32;

    /// Which log this is.
    fn log_id(&self) -> u64;

    /// Batches from the one that holds `from` up to those that begin at or before `upto`, about `bytes_max`
    /// bytes at most, but at least one batch. With [`Wait::No`] the memory and the page cache answer, or
    /// [`Chunk::Blocked`] says that the disk would have to be waited for.
    ///
    /// # Errors
    /// [`ReadError`] if the disk cannot be read.
    fn read(&self, from: Offset, upto: Offset, bytes_max: usize, wait: Wait) -> Result<Chunk, ReadError>;

    /// The events at these offsets, which ascend, each with the batch that holds it; neighbours share it. What is gone,
    /// cannot be read, or is no event (a tombstone, a gap) is left out. Records that were kept when their segment was
    /// deleted ([`Keep`]) are found too.
    ///
    /// # Errors
    /// [`ReadError`] if the disk cannot be read.
    fn fetch(&self, offsets: &[Offset], wait: Wait) -> Result<Fetched, ReadError> {
        let mut found = Vec::new();
        for &offset in offsets {
            match self.read(offset, offset, 1, wait)? {
                Chunk::Batches(batches) => {
                    found.extend(batches.into_iter().next().and_then(|batch| fetched(offset, batch)));
                }
                Chunk::Blocked => return Ok(Fetched::Blocked),
                Chunk::Gap { .. } | Chunk::End => {}
            }
        }
        Ok(Fetched::Events(found))
    }

    /// The offsets of the records that were kept when their segment was deleted, ascending: all below
    /// [`Read::oldest`].
    fn kept(&self) -> Vec<Offset> {
        Vec::new()
    }

    /// The first record in log order that was recorded at `time_us` or later; one above the head if none was.
    /// May wait for the disk.
    ///
    /// # Errors
    /// [`ReadError`] if the disk cannot be read.
    fn seek_time(&self, time_us: i64) -> Result<Offset, ReadError>;

    /// Where a reader that asked for `from` starts. May wait for the disk.
    ///
    /// # Errors
    /// [`SinceError`]: a cursor above the head, or a disk that cannot be read.
    fn resolve(&self, from: &Since, now_us: i64) -> Result<Start, SinceError>;

    /// The cursor after the event at `offset`, which was recorded at `time_us`. The same event has the same
    /// cursor at any time.
    fn cursor(&self, offset: Offset, time_us: i64) -> Cursor;

    /// Whether the wall clock has jumped and is not trusted: nothing may go for its age. Cheap.
    fn clock_is_held(&self) -> bool {
        false
    }

    /// The events that the start or a read since then found damaged, as far as they are still there.
    fn damage(&self) -> Damage {
        Damage::default()
    }

    /// Why nothing more is written until a restart, since the disk failed; none: it is written. Cheap.
    fn read_only(&self) -> Option<String> {
        None
    }
}

/// Whether a read may wait for the disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Never: the caller has other things to do.
    No,
    /// As long as it takes.
    Yes,
}

/// What a read gave.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Batches in order, at least one. The first may begin before the offset that was asked for.
    Batches(Vec<Arc<Batch>>),
    /// The disk would have to be waited for.
    Blocked,
    /// The events from the offset that was asked for up to the one before `next` are gone.
    Gap {
        /// The first offset after them.
        next: Offset,
        /// Why they are gone: retention, or damage on the disk.
        why: &'static str,
    },
    /// There is nothing to read: `from` is above `upto` or above the head.
    End,
}

/// What a fetch gave.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// Those events that are there, in order, each with the batch that holds it.
    Events(Vec<(Offset, Arc<Batch>)>),
    /// The disk would have to be waited for.
    Blocked,
}

/// The answer for an offset that a batch holds; `None` if there is no event.
pub(crate) fn fetched(offset: Offset, batch: Arc<Batch>) -> Option<(Offset, Arc<Batch>)> {
    let index = usize::try_from(offset.checked_sub(batch.base())?).ok()?;
    (index < batch.len() && batch.record(index).kind() == Kind::Event).then_some((offset, batch))
}

/// A disk that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError(pub String);

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the log could not be read: {}", self.0)
    }
}

impl std::error::Error for ReadError {}

/// Where a reader starts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first offset to deliver.
    pub next: Offset,
    /// Events it should have got and that are gone: the first and the last of them. For a cursor of another log
    /// these are all before `next`, since nobody can tell.
    pub gap: Option<(Offset, Offset)>,
    /// Whether its cursor was of another log.
    pub foreign: bool,
}
