//! SUBSCRIBE and UNSUBSCRIBE on their way. Both are sequenced: they take effect at a mark in the one order. One packet may have
//! as many filters as it has bytes, and costs others no more than a small part of a turn all the same: of each packet
//! [`SHARE_MAX`] filters are looked at in a turn, of all packets [`TURN_MAX`], each one in its turn. One with very many bytes
//! or levels counts as several. Meanwhile what the same client sent behind it waits, and nobody else does.

use crate::connection::Pause;
use crate::filter_list::FilterList;
use crate::inbound::Flow;
use crate::plan::Plan;
use crate::shard::{Action, Shard};
use firehose_log::{Offset, Since};
use firehose_mqtt::{PacketId, Reason, ReasonsBuf, SubscribeOptions};

/// Filters of one connection on their way to their place in the order: beyond it, the connection is not read until they are there,
/// so that nobody fills a turn, or the memory, with them.
const SEQUENCING_MAX: usize = 100;
/// Filters of one packet that are looked at in a turn; long ones count as several.
const SHARE_MAX: usize = 256;
/// And of all packets that did not get through with their first share.
const TURN_MAX: usize = 1024;

/// A SUBSCRIBE or UNSUBSCRIBE on its way.
pub struct Pending {
    pub(crate) session: u32,
    pub(crate) generation: u32,
    pub(crate) packet_id: PacketId,
    pub(crate) what: What,
    pub(crate) step: Step,
}

/// What a packet in line is to do in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its filters are looked at.
    Look,
    /// It gets its mark.
    Mark,
    /// It has its place: subscriptions end.
    End,
}

pub(crate) enum What {
    Subscribe(Box<Subscribing>),
    Unsubscribe(Box<Unsubscribing>),
    /// A session goes on.
    Resume,
}

/// What a SUBSCRIBE has.
pub(crate) struct Subscribing {
    pub(crate) filters: FilterList,
    pub(crate) options: Vec<SubscribeOptions>,
    /// Of the filters that were looked at.
    pub(crate) plans: Vec<Result<Plan, Reason>>,
    /// So many filters more are refused.
    pub(crate) beyond: usize,
    /// The user property `since`, or why it is none.
    pub(crate) since: Option<Result<Since, Reason>>,
    pub(crate) id: u32,
    pub(crate) cursors: bool,
    /// Answers that it waits for.
    pub(crate) resolving: usize,
    /// Of the access rules when it came.
    pub(crate) auth_generation: u64,
}

/// What an UNSUBSCRIBE has.
pub(crate) struct Unsubscribing {
    pub(crate) filters: FilterList,
    /// Of the subscriptions that have ended.
    pub(crate) reasons: ReasonsBuf,
}

impl Pending {
    /// A packet that has just come.
    pub(crate) fn new(session: u32, generation: u32, packet_id: PacketId, what: What) -> Pending {
        Pending { session, generation, packet_id, what, step: Step::Look }
    }

    /// How many filters of few levels it is worth, and the bytes that they take at most until they are placed.
    fn size(&self) -> (usize, usize) {
        match &self.what {
            What::Subscribe(subscribing) => {
                let (filters, plan_bytes) = (&subscribing.filters, size_of::<Result<Plan, Reason>>());
                (filters.weight(), filters.bytes() * (1 + Plan::COPIES) + filters.count() * plan_bytes)
            }
            What::Unsubscribe(unsubscribing) => {
                (unsubscribing.filters.weight(), unsubscribing.filters.bytes())
            }
            What::Resume => (0, 0),
        }
    }
}

impl Shard {
    /// A turn begins: packets with many filters go on, and those who had sent one are read again. False: there is none.
    pub fn go_on_with_filters(&mut self) -> bool {
        let resuming = std::mem::take(&mut self.resuming);
        let count = self.lined_up.len();
        let worked = count > 0 || !resuming.is_empty();
        self.actions.extend(resuming.into_iter().map(|session| Action::Resume { session }));
        let mut left = TURN_MAX;
        for _ in 0..count {
            if left == 0 {
                break;
            }
            let Some(token) = self.lined_up.pop_front() else { break };
            let Some(pending) = self.pending.remove(&token) else { continue };
            if !self.is_awaited(&pending) {
                self.lose_interest();
                continue;
            }
            let share = SHARE_MAX.min(left);
            left -= share;
            match (pending.step, &pending.what) {
                (Step::Look, What::Subscribe(_)) => self.plan_some(token, pending, share),
                (Step::Look, _) => self.check_some(token, pending, share),
                (Step::Mark, _) => {
                    left = (left + share).saturating_sub(pending.size().0);
                    self.mark(token, pending);
                }
                (Step::End, _) => self.end_some(token, pending, share),
            }
        }
        worked
    }

    /// A packet came: the first share of its filters is looked at.
    pub(crate) fn begin_pending(&mut self, pending: Pending) -> Flow {
        let (session, (weight, bytes)) = (pending.session, pending.size());
        if let Some(connection) = self.connection(session) {
            connection.sequencing += weight;
            connection.sequencing_bytes += bytes;
            connection.pauses.set(Pause::Sequencing, connection.sequencing >= SEQUENCING_MAX);
        }
        let token = self.next_token();
        match pending.what {
            What::Subscribe(_) => self.plan_some(token, pending, SHARE_MAX),
            _ => self.check_some(token, pending, SHARE_MAX),
        }
        match self.connection(session) {
            Some(connection) if connection.closing => Flow::Stop,
            Some(connection) if connection.pauses.any() => Flow::Pause,
            Some(_) => Flow::On,
            None => Flow::Stop,
        }
    }

    /// Goes on in the next turn, behind others.
    pub(crate) fn line_up(&mut self, token: u64, pending: Pending) {
        self.pending.insert(token, pending);
        self.lined_up.push_back(token);
    }

    /// All that had to be found out is: the packet gets its mark; where it has many filters or levels, in its turn.
    pub(crate) fn want_place(&mut self, token: u64, mut pending: Pending) {
        pending.step = Step::Mark;
        if pending.size().0 >= SEQUENCING_MAX {
            return self.line_up(token, pending);
        }
        self.mark(token, pending);
    }

    fn mark(&mut self, token: u64, pending: Pending) {
        self.pending.insert(token, pending);
        self.outgoing.interest(true);
        self.outgoing.mark(token);
    }

    /// A session goes on: its lanes read once the shard's place in the log is known.
    pub(crate) fn sequence_resume(&mut self, session: u32) {
        let Some(generation) = self.sessions.get(session as usize).map(|it| it.generation) else { return };
        let token = self.next_token();
        self.mark(token, Pending::new(session, generation, PacketId::MIN, What::Resume));
    }

    /// The mark has its place in the order: everything up to `head` came before.
    pub(crate) fn sequenced(&mut self, token: u64, head: Offset) {
        if self.ask_state(token) || self.rescue(token, head) || self.group_marked(token, head) {
            return;
        }
        let Some(pending) = self.pending.remove(&token) else { return };
        let session = pending.session;
        if self.sessions.get(session as usize).is_none_or(|it| it.generation != pending.generation) {
            return self.lose_interest();
        }
        let size = pending.size();
        match pending.what {
            What::Unsubscribe(_) => return self.end_some(token, pending, SHARE_MAX),
            What::Subscribe(subscribing) => {
                self.subscribed(session, pending.packet_id, *subscribing, head);
                self.filters_are_placed(session, size);
            }
            What::Resume => self.begin_lanes(session),
        }
        self.pump(session);
        self.lose_interest();
    }

    /// An UNSUBSCRIBE is answered.
    pub(crate) fn unsubscribed(&mut self, pending: &Pending) {
        self.filters_are_placed(pending.session, pending.size());
        self.pump(pending.session);
        self.lose_interest();
    }

    /// Filters of a connection of this weight, and their bytes, are through; it is read again if that was all of them.
    fn filters_are_placed(&mut self, session: u32, (weight, bytes): (usize, usize)) {
        let Some(connection) = self.connection(session) else { return };
        connection.sequencing = connection.sequencing.saturating_sub(weight);
        connection.sequencing_bytes = connection.sequencing_bytes.saturating_sub(bytes);
        if connection.sequencing == 0 && connection.pauses.has(Pause::Sequencing) {
            connection.pauses.set(Pause::Sequencing, false);
            // Not in this turn: it would have another share of it.
            self.resuming.push(session);
        }
    }

    /// Whether the client is still there that sent it.
    pub(crate) fn is_awaited(&self, pending: &Pending) -> bool {
        let session = self.sessions.get(pending.session as usize);
        let session = session.filter(|it| it.generation == pending.generation);
        session.and_then(|it| it.connection.as_deref()).is_some_and(|connection| !connection.closing)
    }

    pub(crate) fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}
