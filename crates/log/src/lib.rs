//! The event log: events, cursors, segments, append, commit, read, retention, recovery.
//!
//! A publisher's thread puts [`Event`]s into a [`Draft`]; the sequencer gives it its place with
//! [`Append::append`], which makes it a [`Batch`]; the commit thread makes it durable with [`Commit::commit`];
//! everyone reads through [`Read`], from any [`Cursor`] or time ([`Since`]).
//!
//! Invariants:
//! - Offsets are dense and begin at [`FIRST_OFFSET`]; one is never given to another event that someone may have
//!   seen, since each start begins a new epoch and a cursor carries its epoch.
//! - Bytes below a segment's published length are whole batches and never change; readers look no further.
//! - A batch is handed out only after its `write`; [`Commit::commit`] counts it only after its `fdatasync`, and
//!   it stays in memory until then, so that it can be written anew.
//! - A segment's successor says in its header where it ends; what stands behind is not part of the log.

mod attributes;
mod batch;
mod clock;
mod committer;
mod cursor;
mod damage;
mod disk;
mod draft;
mod engine;
mod epoch;
mod event;
mod fetch;
mod folder;
mod handle;
mod housekeeping;
mod index;
mod json;
mod keeping;
mod kept;
mod log;
mod mem_disk;
mod mem_file;
mod no_file;
mod note;
mod open;
mod point;
mod reader;
mod record;
mod recovery;
mod redact;
mod room;
mod segment;
mod segment_header;
mod shared;
mod since;
mod tail;
mod varint;
mod walk;
mod window;
mod writer;

pub use attributes::{ATTRIBUTE_BYTES_MAX, Attribute, Attributes, AttributesBuf};
pub use batch::{BATCH_HEADER_BYTES, Batch};
pub use clock::{ClockHold, accept_clock, clock_hold};
pub use cursor::{Cursor, CursorError};
pub use damage::Damage;
pub use disk::{Disk, File, NotAFile, RealDisk, Space};
pub use draft::{DRAFT_BYTES_MAX, Draft};
pub use engine::{
    Append, Chunk, Commit, CommitError, Fetched, Keep, KeepNothing, Read, ReadError, RedactError, Redacted,
    Refusal, Start, Submission, Upkeep, Wait,
};
pub use event::{Event, FIRST_OFFSET, Flags, Offset, Origin, PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX, WayIn};
pub use json::{format_time, write_json};
pub use log::{Log, LogConfig, OpenError, RecoveryReport};
pub use mem_disk::{DiskCall, MemDisk};
pub use note::Note;
pub use open::open;
pub use record::{Kind, Record, Records, TooLarge};
pub use since::{Since, SinceError};
