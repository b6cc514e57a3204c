//! The log as it is configured and as it is handed out.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Append, Commit, Read};
use crate::event::Offset;
use crate::note::Note;

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The folder of its segments; made if it is not there.
    pub dir: PathBuf,
    /// Bytes after which a segment is followed by the next.
    pub segment_bytes: u64,
    /// Seconds after which events go, by whole segments; `None`: never.
    pub retention_age_secs: Option<u64>,
    /// Bytes of the log above which the oldest segments go; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// Free space below which publishes are refused; never more than 5 % of the file system.
    pub disk_reserve_bytes: u64,
    /// How often the free space is looked at, in seconds; 0: at each upkeep.
    pub disk_check_secs: u64,
    /// Bytes of memory for recent batches, as [`crate::Batch::memory_bytes`] has it: readers near the head get them from there.
    pub tail_bytes: usize,
    /// Bytes of durable batches after which the index of the segment that is written is stored, so that a start has
    /// only what follows to look through.
    pub index_point_bytes: u64,
}

impl LogConfig {
    /// The defaults, in the folder `dir`: segments of 128 MiB, a year, 20 GiB, 256 MiB reserve, looked at every
    /// second, 2 MiB tail, an index point every 4 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> LogConfig {
        LogConfig {
            dir: dir.into(),
            segment_bytes: 128 << 20,
            retention_age_secs: Some(365 * 86_400),
            retention_bytes: Some(20 << 30),
            disk_reserve_bytes: 256 << 20,
            disk_check_secs: 1,
            tail_bytes: 2 << 20,
            index_point_bytes: 4 << 20,
        }
    }
}

/// An open log, in three parts for the three kinds of threads that use it.
pub struct Log {
    /// For the sequencer.
    pub append: Box<dyn Append>,
    /// For the commit thread.
    pub commit: Box<dyn Commit>,
    /// For everyone else.
    pub read: Arc<dyn Read>,
    /// What opening it found and did.
    pub recovery: RecoveryReport,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

/// What opening a log found and did, for log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the log was made anew.
    pub created: bool,
    /// The epoch that begins.
    pub epoch: u32,
    /// The head it begins with.
    pub head: Offset,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Ranges of events in the last segment that cannot be read and have whole ones after them: first and last.
    pub gaps: Vec<(Offset, Offset)>,
    /// Whole records before a torn one of the same batch, that were carried over into the new segment.
    pub carried_over: u64,
    /// Bytes that were looked through.
    pub checked_bytes: u64,
    /// Whether there was room for the new epoch's first segment. If not, publishes are refused until there is.
    pub begun: bool,
    /// What was wrong with the log's files, and what was done about it: a log line each.
    pub notes: Vec<Note>,
    /// How long it took, in µs.
    pub duration_us: u64,
}

/// Why a log cannot be opened. Each is one line that names the folder.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder open.
    InUse(PathBuf),
    /// It was written by a later version of firehose.
    NewerFormat {
        /// The file that says so.
        file: PathBuf,
        /// The version it says.
        version: u32,
    },
    /// A file of the log cannot be opened: most likely it is someone else's.
    NotReadable(PathBuf, std::io::Error),
    /// The folder cannot be made or written.
    NotWritable(PathBuf, std::io::Error),
    /// The disk failed otherwise.
    Io(PathBuf, std::io::Error),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::InUse(dir) => {
                write!(f, "data folder {} is in use by another firehose; stop that one first", dir.display())
            }
            OpenError::NewerFormat { file, version } => write!(
                f,
                "{} is of format {version}, written by a later firehose; this one reads format 1: use the later one",
                file.display()
            ),
            OpenError::NotReadable(path, error) => {
                write!(f, "{} cannot be opened: {error}; check its owner and mode", path.display())
            }
            OpenError::NotWritable(dir, error) => {
                write!(f, "data folder {} is not writable: {error}; check its owner and mode", dir.display())
            }
            OpenError::Io(path, error) => write!(f, "cannot open the log at {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}
