//! What was found wrong with the log's files, and what was done about it: a log line each.

use crate::event::Offset;

/// Something wrong with a file of the log, and what was done about it. [`std::fmt::Display`] gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A file that bears a segment's name and is none of this log's: it is kept under another name, and not read.
    SetAside {
        /// Its name.
        file: String,
        /// Its name from now on.
        to: String,
        /// What is wrong with it.
        why: String,
    },
    /// A last segment without a header and without a byte behind it: it was never begun, and goes.
    Unbegun {
        /// Its name.
        file: String,
    },
    /// Both copies of a segment's header are damaged; what the other segments say is enough to read it.
    HeaderDamaged {
        /// Its name.
        file: String,
    },
    /// One of the two copies of a segment's header was damaged, and was written anew by the other.
    HeaderCopyDamaged {
        /// Its name.
        file: String,
        /// Why it could not be written anew, if it could not.
        failed: Option<String>,
    },
    /// A segment that cannot be read: its events are declared as a gap, or, if `why` names the system's error, a read
    /// of them fails until it is mended.
    Unreadable {
        /// Its name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A side index that was damaged, of another segment or of another version, and was made anew.
    IndexMadeAnew {
        /// The segment's name.
        file: String,
        /// What was wrong with it.
        why: &'static str,
    },
    /// Some of the events that were kept beyond retention cannot be read, and are left out.
    KeptDamaged {
        /// The file's name.
        file: String,
        /// How many.
        events: u64,
    },
    /// The last segment's index point was of no use; the whole segment was looked through.
    PointIgnored {
        /// The segment's name.
        file: String,
        /// What was wrong with it.
        why: &'static str,
    },
    /// The torn end of the last segment does not count.
    Cut {
        /// The segment's name.
        file: String,
        /// The last event before the cut.
        after: Offset,
        /// How many bytes.
        bytes: u64,
    },
    /// Events that had been made durable are damaged, with nothing whole behind them, so that they were cut.
    DurableLost {
        /// The first of them.
        first: Offset,
        /// The last of them that is known of.
        last: Offset,
    },
    /// A read found events that it cannot read, in the midst of the log.
    EventsDamaged {
        /// The first of them.
        first: Offset,
        /// The last of them.
        last: Offset,
    },
    /// A read found such events again, and there were many before: they are counted from now on.
    MoreDamaged,
    /// There is no room for the new epoch's first segment: reading works, publishes are refused, and the epoch begins
    /// by itself once there is room.
    NoRoom {
        /// The system's error.
        why: String,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::SetAside { file, to, why } => write!(f, "{file} {why}: it is kept as {to} and not read"),
            Note::Unbegun { file } => write!(f, "segment {file} was never begun: it is removed"),
            Note::HeaderDamaged { file } => {
                write!(f, "the header of segment {file} is damaged; it is read by what the others say")
            }
            Note::HeaderCopyDamaged { file, failed: None } => {
                write!(
                    f,
                    "one of two copies of the header of segment {file} was damaged: it was written anew; look at the disk"
                )
            }
            Note::HeaderCopyDamaged { file, failed: Some(why) } => {
                write!(
                    f,
                    "one of two copies of the header of segment {file} is damaged, and cannot be written anew ({why}): look at the disk"
                )
            }
            Note::Unreadable { file, why } => {
                write!(
                    f,
                    "segment {file} {why}: its events cannot be read; put the right file there and restart"
                )
            }
            Note::IndexMadeAnew { file, why } => {
                write!(f, "the index of segment {file} {why}: it was made anew")
            }
            Note::KeptDamaged { file, events } => {
                write!(f, "{file} is damaged: {events} events that were kept beyond retention are lost")
            }
            Note::PointIgnored { file, why } => {
                write!(f, "the index point of segment {file} {why}: the whole segment was looked through")
            }
            Note::Cut { file, after, bytes } => {
                write!(
                    f,
                    "the end of segment {file} is torn: {bytes} bytes behind event {after} do not count"
                )
            }
            Note::DurableLost { first, last } => {
                write!(f, "events {first} to {last} were durable and are damaged: they are lost")
            }
            Note::EventsDamaged { first, last } => write!(
                f,
                "events {first} to {last} are damaged on the disk: they are declared as a gap; look at the disk"
            ),
            Note::MoreDamaged => f.write_str(
                "still more events are damaged on the disk: from now on they are counted and not told one by one; \
                 look at the disk",
            ),
            Note::NoRoom { why } => write!(
                f,
                "no room on the log's disk ({why}): reading works, publishes are refused until there is room"
            ),
        }
    }
}
