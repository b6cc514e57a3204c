//! What a shard asks of the state, and what it is answered.

use crate::group::GroupKey;
use crate::state::record::Life;
use crate::state::stored::{Progress, SessionName, StoredGroup, StoredSubscription, StoredWill};
use firehose_log::Offset;
use std::sync::Arc;

/// One shard's wish. The requests of a shard are carried out in the order in which they were submitted, and all
/// operations of one together or not at all.
#[derive(Debug)]
pub struct Request {
    /// Names it in the answer; 0: no answer is wanted.
    pub token: u64,
    /// What is to be done, in order.
    pub operations: Vec<Operation>,
}

impl Request {
    /// Whether it may make a will due.
    pub(crate) fn fires_will(&self) -> bool {
        let may_fire = |operation: &Operation| match operation {
            Operation::Gone { will, .. } => matches!(will, WillFate::Due { .. }),
            Operation::Refused { .. } => true,
            _ => false,
        };
        self.operations.iter().any(may_fire)
    }

    /// Whether a client has died that brings its will along.
    pub(crate) fn is_departure(&self) -> bool {
        matches!(self.operations[..], [.., Operation::Rescue(_), Operation::Gone { .. }])
    }
}

/// One thing for the state to do.
#[derive(Debug)]
pub enum Operation {
    /// A client connects. It stands alone in its request, and is answered with [`Answer::Opened`].
    Open(Box<Open>),
    /// The subscriptions of a session, all of them.
    Subscriptions {
        /// Whose.
        name: Arc<SessionName>,
        /// Every PUBLISH carries its cursor.
        cursors: bool,
        /// The subscriptions; lanes are named by their numbers in [`Progress`].
        subscriptions: Vec<StoredSubscription>,
    },
    /// How far a session got.
    Progress {
        /// Whose.
        name: Arc<SessionName>,
        /// How far.
        progress: Progress,
    },
    /// The client released QoS 2 messages that it had published (PUBREL): their ids are free again.
    Forget {
        /// Whose.
        name: Arc<SessionName>,
        /// The packet ids.
        packet_ids: Vec<u16>,
    },
    /// The client of a session that was opened with [`Opened::has_to_enter`] is let in, whatever happens: what its return called
    /// back leaves the file, and its session lives on for as long as it asked. It stands alone in its request, and is answered
    /// with [`Answer::Entered`]; or as if it had not been opened, if the log has failed meanwhile, or the file was lost.
    Entered {
        /// Whose.
        name: Arc<SessionName>,
        /// As in [`Open`].
        expiry_secs: u32,
    },
    /// The client was turned away after its session had been opened. All is as it was: its will is none, those that its return
    /// would have called back are due as they were, a session that was to go on lives for as long as it did, and a new one
    /// is none.
    Refused {
        /// Whose.
        name: Arc<SessionName>,
        /// As in [`Opened`].
        before: Option<Life>,
    },
    /// The session was to go on, and its client cannot be told what it misses: it begins anew. What it had of groups goes to
    /// others, as if it had ended while its client was away.
    Overtaken {
        /// Whose.
        name: Arc<SessionName>,
    },
    /// The state lost its file, and here are the session and the will of a client that is connected; or the will alone of one
    /// that dies, in case the state has lost it, or does so before it has looked at [`Operation::Gone`].
    Rescue(Box<Rescue>),
    /// The session's connection ended.
    Gone {
        /// Whose.
        name: Arc<SessionName>,
        /// How long the session lives on; 0: it ended, and everything of it is forgotten.
        expiry_secs: u32,
        /// What becomes of its will.
        will: WillFate,
    },
    /// A group of a shared subscription comes to life. It stands alone in its request, and is answered with
    /// [`Answer::Group`].
    OpenGroup {
        /// [`GroupKey::hash_with`].
        hash: u64,
    },
    /// How far a group is. It is kept as long as a stored session subscribes to it.
    SaveGroup {
        /// Which.
        key: Arc<GroupKey>,
        /// [`GroupKey::hash_with`].
        hash: u64,
        /// How far.
        group: StoredGroup,
        /// Stored sessions that are about to subscribe. If neither these nor others do, nothing is kept.
        joining: Vec<u64>,
        /// Those that do already: they tell so themselves, but for a state that had to begin anew.
        members: Vec<u64>,
    },
    /// What stands, with the same request, in the progress of a session that is a member of the group: nobody else gets it.
    Taken {
        /// The group.
        hash: u64,
        /// The offsets.
        offsets: Vec<Offset>,
    },
    /// What stands, with the same request, in the progress of a member no more, since the log has it no more: the group has to
    /// tell that it is gone, also if it has not heard of it when the bus dies.
    Lost {
        /// The group.
        hash: u64,
        /// The offsets, and why each is gone.
        lost: Vec<(Offset, &'static str)>,
    },
}

impl Operation {
    /// The hash of the session, or of the group, that it is about.
    pub fn hash(&self) -> u64 {
        match self {
            Operation::Open(open) => open.name.hash,
            Operation::Rescue(rescue) => rescue.name.hash,
            Operation::Subscriptions { name, .. }
            | Operation::Progress { name, .. }
            | Operation::Forget { name, .. }
            | Operation::Entered { name, .. }
            | Operation::Refused { name, .. }
            | Operation::Overtaken { name }
            | Operation::Gone { name, .. } => name.hash,
            Operation::OpenGroup { hash }
            | Operation::SaveGroup { hash, .. }
            | Operation::Taken { hash, .. }
            | Operation::Lost { hash, .. } => *hash,
        }
    }
}

/// A client connects.
#[derive(Debug)]
pub struct Open {
    /// Who.
    pub name: Arc<SessionName>,
    /// Clean Start (3.x: clean session): a session that is there ends, and its delayed will is due.
    pub clean: bool,
    /// How long the session lives on after its connection, in seconds, `u32::MAX`: for ever; 0: it is not kept.
    pub expiry_secs: u32,
    /// Where the client comes from, for the caps on anonymous sessions: none where no limit per address applies.
    pub address: Option<crate::limits::AddressKey>,
    /// Its will: stored before CONNACK.
    pub will: Option<StoredWill>,
}

/// A session or a will, or both, that are to be known again. The session's subscriptions and its progress follow.
#[derive(Debug)]
pub struct Rescue {
    /// Whose.
    pub name: Arc<SessionName>,
    /// As in [`Open`]; 0: there is only the will.
    pub expiry_secs: u32,
    /// As in [`Open`].
    pub address: Option<crate::limits::AddressKey>,
    /// Packet ids of QoS 2 messages that it published and did not release, as far as they have a place up to `head`.
    pub received: Vec<u16>,
    /// What was published behind this place the state saw itself.
    pub head: Offset,
    /// Its will.
    pub will: Option<StoredWill>,
}

impl Rescue {
    /// There is only the will.
    pub(crate) fn of_will(name: Arc<SessionName>, will: StoredWill) -> Rescue {
        Rescue { name, expiry_secs: 0, address: None, received: Vec::new(), head: 0, will: Some(will) }
    }
}

/// What becomes of a session's will when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFate {
    /// The client left properly: it is not published.
    Dropped,
    /// It is published after so many seconds (0: now), or when the session ends, whichever comes first
    /// [MQTT-3.1.3-9].
    Due {
        /// Will Delay Interval.
        delay_secs: u32,
    },
    /// The bus stops, which is not the client's death: the will stays, and counts as one of a bus that was killed.
    Kept,
}

/// The state's answer to a request that had a token.
#[derive(Debug)]
pub enum Answer {
    /// Everything in the request is durable.
    Saved {
        /// Which request.
        token: u64,
    },
    /// The answer to [`Operation::Open`].
    Opened {
        /// Which request.
        token: u64,
        /// The session, or why there is none.
        outcome: Result<Opened, OpenRefusal>,
    },
    /// The answer to [`Operation::Entered`]: it is written; or the file cannot be written, and that is done as soon as
    /// it can.
    Entered {
        /// Which request.
        token: u64,
    },
    /// The answer to [`Operation::OpenGroup`].
    Group {
        /// Which request.
        token: u64,
        /// How far it was; none: there is no such group.
        stored: Option<StoredGroup>,
    },
    /// Sessions ended while their clients were away: these messages of a group stood with them at QoS 1.
    Orphaned {
        /// The group.
        hash: u64,
        /// The messages.
        offsets: Vec<Offset>,
    },
}

impl Answer {
    /// Which request it answers; 0: none.
    pub fn token(&self) -> u64 {
        match self {
            Answer::Orphaned { .. } => 0,
            Answer::Saved { token }
            | Answer::Opened { token, .. }
            | Answer::Entered { token }
            | Answer::Group { token, .. } => *token,
        }
    }
}

/// A session that may go on.
#[derive(Debug)]
pub struct Opened {
    /// What there was of it; none: it is a new one (session present 0).
    pub resumed: Option<Box<Resumed>>,
    /// The first offset that the log still has: a lane that wants an earlier one has been overtaken by retention.
    pub oldest: Offset,
    /// Events in flight that retention deleted before the state knew that they were, ascending.
    pub lost: Vec<Offset>,
    /// If the client is let in, its return calls delayed wills back, or the session lives on for another time than it did:
    /// [`Operation::Entered`] has to follow before that. Until then the file has all of it as it was.
    pub has_to_enter: bool,
    /// How long a session that goes on lived before, for [`Operation::Refused`].
    pub before: Option<Life>,
}

/// What there was of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Every PUBLISH carries its cursor.
    pub cursors: bool,
    /// Its subscriptions.
    pub subscriptions: Vec<StoredSubscription>,
    /// How far it got.
    pub progress: Progress,
    /// Packet ids of QoS 2 messages that it published and did not release.
    pub received: Vec<u16>,
}

/// Why no session can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenRefusal {
    /// There are as many sessions as `[limits]` allow: of this address, or of all.
    TooMany {
        /// Which key of `[limits]` says so.
        limit: &'static str,
    },
    /// The state cannot be written or read now. Says why.
    Unavailable(String),
}
