//! A lane: a next offset, and the subscriptions that read by it.

use firehose_log::Offset;

/// The number of a session's main lane.
pub const MAIN: u16 = 0;

/// Where a lane reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At the end of the log: gets what the shard's mailbox brings.
    Live,
    /// Behind: reads the log from `next` at the pace of the socket, until it stands where the shard stands.
    Replay {
        /// The first offset it has not looked at.
        next: Offset,
        /// The log was asked and has not answered yet.
        asked: bool,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Where it reads.
    pub reading: Reading,
    /// A gap it has to declare with the next message (MQTT 5), as `<from>..<to> <why>`.
    pub gap: Option<Box<str>>,
    /// It counts as a replay in the budget of `[limits]`.
    pub counted: bool,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane { reading: Reading::Live, gap: None, counted: false }
    }
}

impl Lane {
    /// The lane of a replay that begins at an offset, and counts as one.
    pub fn replay(next: Offset) -> Lane {
        Lane { reading: Reading::Replay { next, asked: false }, gap: None, counted: true }
    }

    /// Whether it gets what the mailbox brings.
    pub fn is_live(&self) -> bool {
        self.reading == Reading::Live
    }

    /// Falls back to the log, to go on at `from`; a lane that is already behind stays where it is.
    pub fn fall_back(&mut self, from: Offset) {
        match &mut self.reading {
            Reading::Live => self.reading = Reading::Replay { next: from, asked: false },
            Reading::Replay { next, .. } => *next = from.min(*next),
        }
    }

    /// The next offset, if it reads the log and no answer is under way.
    pub fn wants(&self) -> Option<Offset> {
        match self.reading {
            Reading::Replay { next, asked: false } => Some(next),
            _ => None,
        }
    }
}
