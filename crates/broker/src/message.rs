//! What lies in a shard's mailbox.

use crate::arrival::Arrival;
use crate::fetched::FetchedEvents;
use crate::group_message::GroupMessage;
use crate::retained_page::RetainedPage;
use crate::state::Answer;
use firehose_log::{Batch, Chunk, Offset, ReadError, Refusal, SinceError, Start};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// One thing for a shard to look at.
pub enum Message {
    /// A batch took its place in the order. Shards with a subscription get all of them.
    Batch {
        /// The batch; records of every publisher of that deposit.
        batch: Arc<Batch>,
        /// The shard's own deposit: which one.
        ticket: Option<u64>,
    },
    /// The shard's own deposit took its place but nobody here subscribes, or it was refused.
    Placed {
        /// Which deposit.
        ticket: u64,
        /// The last offset of it.
        outcome: Result<Offset, Refusal>,
    },
    /// The place of a [`crate::sequencer::Deposit::Mark`] in the order: everything up to `head` came before.
    Mark {
        /// Which mark.
        token: u64,
        /// The newest offset at that place.
        head: Offset,
    },
    /// The mailbox was full: these batches are to be read from the log.
    Missed {
        /// First offset that was not put into the mailbox.
        first: Offset,
        /// Last one.
        last: Offset,
    },
    /// Everything up to this offset is durable.
    Durable(Offset),
    /// The log failed: nothing of what waits for its durability will be durable.
    CommitFailed,
    /// A client that finished its CONNECT.
    Arrival(Box<Arrival>),
    /// The log answers a lane's question that could not be answered at once.
    Read {
        /// Who asked.
        lane: LaneKey,
        /// The answer.
        chunk: Result<Chunk, ReadError>,
    },
    /// Where a `since` begins.
    Resolved {
        /// Which question.
        token: u64,
        /// The answer.
        start: Result<Start, SinceError>,
    },
    /// A page of retained messages.
    Retained {
        /// Who asked.
        scan: ScanKey,
        /// The page.
        page: Result<Arc<RetainedPage>, ReadError>,
    },
    /// Events of single offsets.
    Fetched {
        /// The session that asked, and its generation.
        session: (u32, u32),
        /// The events, and what is gone.
        events: Result<FetchedEvents, ReadError>,
    },
    /// What a shard says to another one, or to itself, about a group of a shared subscription.
    Group(Box<GroupMessage>),
    /// The state answers a request.
    State(Answer),
    /// The state lost its file: sessions of clients that are connected are to be saved anew.
    StateLost,
    /// The event at this offset was taken back: nothing of it may be sent any more.
    Redacted {
        /// Which.
        offset: Offset,
        /// Is dropped once the shard has nothing of it left.
        seen: Option<Sender<Infallible>>,
    },
    /// A session's client makes the bus keep more than may be.
    OverBudget {
        /// The session's place in the shard.
        session: u32,
        /// Tells the session from later ones in the same place.
        generation: u32,
    },
    /// The access rules have a new generation.
    Reload,
    /// The bus stops: say so to every client and close.
    Shutdown,
}

/// A lane of a session, as questions to the log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey {
    /// The session's place in its shard.
    pub session: u32,
    /// Tells the session from later ones in the same place.
    pub generation: u32,
    /// Which lane of it.
    pub lane: u16,
}

/// A subscription that gets retained messages, as questions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanKey {
    /// The session's place in its shard.
    pub session: u32,
    /// Tells the session from later ones in the same place.
    pub generation: u32,
    /// Which scan of it.
    pub scan: u32,
}
