//! What a shard asks of whoever runs it, and the time it is told.

use crate::message::{LaneKey, Message, ScanKey};
use crate::state::Request;
use firehose_log::{Offset, Since};
use firehose_topic::TopicFilter;
use std::any::Any;

/// The time of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub ms: u64,
    /// The wall clock, microseconds since 1970.
    pub wall_us: i64,
}

impl Now {
    /// Whole seconds of the clock that never goes back.
    pub fn secs(self) -> u32 {
        (self.ms / 1000) as u32
    }
}

/// What the shard asks of whoever runs it.
pub enum Action {
    /// Give this session the socket that its arrival brought.
    Attach {
        /// The session.
        session: u32,
        /// The socket, as the lobby put it into the arrival.
        socket: Option<Box<dyn Any + Send>>,
    },
    /// Close the session's socket.
    Close {
        /// The session.
        session: u32,
        /// The last that was written says why: to be closed so that the client can read it, also while it still sends.
        told: bool,
    },
    /// Read the log for a lane, and answer with [`Shard::answer`](crate::shard::Shard::answer) or [`Message::Read`](crate::message::Message::Read).
    Read {
        /// Who asks.
        lane: LaneKey,
        /// First offset wanted.
        from: Offset,
        /// Last offset wanted.
        upto: Offset,
        /// About how many bytes.
        bytes_max: usize,
    },
    /// Find out where `since` begins, and answer with [`Message::Resolved`](crate::message::Message::Resolved).
    Resolve {
        /// Names the question.
        token: u64,
        /// What the client wrote.
        since: Since,
    },
    /// Look for retained messages, and answer with [`Message::Retained`](crate::message::Message::Retained).
    Retained {
        /// Who asks.
        scan: ScanKey,
        /// Which topics.
        filter: TopicFilter,
        /// The last topic that was looked at; none: from the first.
        after: Option<Box<str>>,
        /// Entries newer than this are left out; the view has to have come so far.
        as_of: Offset,
        /// About how many bytes.
        bytes_max: usize,
    },
    /// Read events of single offsets, ascending, and answer with
    /// [`Message::Fetched`](crate::message::Message::Fetched).
    Fetch {
        /// The session, and its generation.
        session: (u32, u32),
        /// The offsets.
        offsets: Vec<Offset>,
    },
    /// Put this into the mailbox of a shard, which may be this one.
    ToShard {
        /// Which.
        shard: usize,
        /// The message.
        message: Message,
    },
    /// Hand this to the state.
    State(Request),
    /// The session may be read again: call [`Shard::resume`](crate::shard::Shard::resume), then read its socket.
    Resume {
        /// The session.
        session: u32,
    },
}

/// Whether a connection is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Yes.
    More,
    /// Not until [`Action::Resume`].
    Paused,
    /// Never again: it is closing or gone.
    Gone,
}
