//! What shards tell each other about groups of shared subscriptions. A group lives at one shard, its members at any.

use crate::group::GroupKey;
use crate::lane::Gap;
use firehose_auth::Identity;
use firehose_log::{Batch, Offset};
use std::sync::Arc;

/// A member, as shards name it to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// Its shard.
    pub shard: usize,
    /// Its session's place there.
    pub session: u32,
    /// Tells the session from later ones in the same place.
    pub generation: u32,
    /// The lane under which the subscription's messages lie in its outbox.
    pub lane: u16,
    /// Tells it from an earlier member in the same lane: what that one was given may still be on its way.
    pub serial: u64,
}

/// What shards tell each other about groups: members to the group's home, and back.
#[derive(Debug)]
pub enum GroupMessage {
    /// To the home: a member comes.
    Join(Join),
    /// To the member: it belongs to the group, and everything from `from` on counts.
    Joined {
        /// Which member.
        member: MemberKey,
        /// Names the question.
        question: u64,
        /// The first offset that counts.
        from: Offset,
    },
    /// To the member: these messages are its own.
    Assigned {
        /// Which member.
        member: MemberKey,
        /// The messages, in order.
        pieces: Vec<Piece>,
    },
    /// To the home: what became of messages, and how many more are welcome.
    Settled(Settled),
    /// To the home: the member is gone. What it does not call done goes to another one.
    Leave(Settled),
}

/// A member comes.
#[derive(Debug)]
pub struct Join {
    /// Which.
    pub member: MemberKey,
    /// Names the question; 0: nobody waits for the answer.
    pub question: u64,
    /// Of which group.
    pub key: Arc<GroupKey>,
    /// [`GroupKey::hash_with`].
    pub hash: u64,
    /// Who it is.
    pub identity: Identity,
    /// MQTT's client id, for the access rules.
    pub client_id: Box<str>,
    /// It can be told of a gap.
    pub v5: bool,
    /// The hash of its session's name, if that outlives its connection: so the group does.
    pub stored: Option<u64>,
    /// Its session goes on: from here on the subscription counted, and the group has been kept.
    pub from: Option<Offset>,
}

/// A message for a member.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The batch that holds it.
    pub batch: Arc<Batch>,
    /// Its place there.
    pub index: usize,
    /// Ranges that are gone before it.
    pub gap: Option<Gap>,
}

impl Piece {
    /// Its offset; 0: it is in no log.
    pub fn offset(&self) -> Offset {
        if self.batch.is_logged() { self.batch.base() + self.index as Offset } else { 0 }
    }
}

/// What became of messages that a member was given.
#[derive(Debug)]
pub struct Settled {
    /// The group.
    pub hash: u64,
    /// The member.
    pub member: MemberKey,
    /// Over, in one way or another: nobody gets them again.
    pub done: Vec<Offset>,
    /// What these were to tell to be gone they did not: another one tells it.
    pub untold: Vec<Offset>,
    /// Over too; but what these told to be gone nobody may have read.
    pub told: Vec<Offset>,
    /// What was told so far was read.
    pub read: bool,
    /// Not sent, or not acknowledged by a session that is over: to be given to somebody.
    pub returned: Vec<Offset>,
    /// In the member's stored session: they stay with it whatever happens.
    pub taken: Vec<Offset>,
    /// Gone from the log before the member had acknowledged them, and why: somebody is to be told.
    pub lost: Vec<(Offset, &'static str)>,
    /// How many more it takes.
    pub credit: u32,
}

impl Join {
    /// Whether it waits until the group is kept.
    pub(crate) fn wants_group_kept(&self) -> bool {
        self.stored.is_some() && self.from.is_none()
    }
}

impl Settled {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let lists = [&self.done, &self.untold, &self.returned, &self.taken];
        let is_silent = self.lost.is_empty() && self.credit == 0 && !self.read;
        is_silent && lists.iter().all(|list| list.is_empty())
    }
}
