//! What the next transaction writes. Changes are folded into each other while they wait, so that what waits is bounded
//! by the sessions and topics there are, however long the disk is full.

use crate::state::record::{GroupRecord, Life, SessionRecord, SubscriptionsRecord, WillRecord};
use crate::state::stored::Progress;
use firehose_log::Offset;
use std::collections::BTreeMap;

/// About what a retained entry costs while it waits, besides its topic.
const ENTRY_BYTES: usize = 64;

/// A will in the state: its session's hash, and which of that session's wills it is. Both stand in the record of the will
/// that was published, as `Origin::session` and `Origin::packet_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WillKey {
    /// The session's hash.
    pub session: u64,
    /// Which of its wills; never 0.
    pub serial: u16,
}

/// Everything that waits for a transaction.
#[derive(Default)]
pub(crate) struct Pending {
    /// Topics whose retained message is another one now, or none.
    pub retained: BTreeMap<Box<str>, Option<Offset>>,
    /// Sessions by their hashes.
    pub sessions: BTreeMap<u64, SessionChange>,
    /// Wills that come or go.
    pub wills: BTreeMap<WillKey, Option<WillRecord>>,
    /// Groups of shared subscriptions that went on, or ended.
    pub groups: BTreeMap<u64, Option<GroupRecord>>,
    /// About the bytes of what the log brought.
    pub view_bytes: usize,
}

/// What changes in one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionChange {
    /// Everything that was stored of it goes first.
    pub wiped: bool,
    /// Its record.
    pub record: Option<SessionRecord>,
    /// Until when it lives.
    pub life: Option<Life>,
    /// Its subscriptions.
    pub subscriptions: Option<SubscriptionsRecord>,
    /// How far it got.
    pub progress: Option<Progress>,
    /// Ids of QoS 2 messages that it publishes.
    pub received: BTreeMap<u16, Received>,
}

/// What becomes of one packet id of a session that publishes at QoS 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The event of this offset has it.
    At(Offset),
    /// It was released; but not if an event behind this offset has it.
    ForgottenUpTo(Offset),
}

impl Pending {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.retained.is_empty()
            && self.sessions.is_empty()
            && self.wills.is_empty()
            && self.groups.is_empty()
    }

    /// Whether there is no new session and no new will in it.
    pub(crate) fn brings_nothing_new(&self) -> bool {
        self.wills.values().all(Option::is_none)
            && self.sessions.values().all(|change| change.record.is_none())
    }

    /// Whether something that the log brought is not written yet.
    pub(crate) fn has_view(&self) -> bool {
        self.view_bytes > 0
    }

    /// About what a transaction writes.
    pub(crate) fn bytes(&self) -> usize {
        let inflight = |progress: &Progress| progress.inflight.len() * 16 + progress.lanes.len() * 32;
        let sessions = self.sessions.values().map(|change| {
            let filters = change.subscriptions.iter().flat_map(|record| &record.subscriptions);
            256 + filters.map(|subscription| subscription.filter.len() * 2 + 32).sum::<usize>()
                + change.progress.as_ref().map_or(0, inflight)
        });
        let wills =
            self.wills.values().map(|will| 64 + will.as_ref().map_or(0, |will| will.will.payload.len()));
        let offsets = |record: &GroupRecord| record.group.pending.len() + record.taken.len();
        let groups = self.groups.values().map(|record| 256 + record.as_ref().map_or(0, offsets) * 8);
        self.view_bytes + sessions.sum::<usize>() + wills.sum::<usize>() + groups.sum::<usize>()
    }

    /// The event of this offset was taken back.
    pub(crate) fn forget_offset(&mut self, offset: Offset) {
        for retained in self.retained.values_mut().filter(|retained| **retained == Some(offset)) {
            *retained = None;
        }
        for progress in self.sessions.values_mut().filter_map(|change| change.progress.as_mut()) {
            without_offset(progress, offset);
        }
    }

    /// The change of this session.
    pub(crate) fn session(&mut self, hash: u64) -> &mut SessionChange {
        self.sessions.entry(hash).or_default()
    }

    /// The topic's retained message is this one now.
    pub(crate) fn retain(&mut self, topic: &str, offset: Option<Offset>) {
        self.view_bytes += topic.len() + ENTRY_BYTES;
        match self.retained.get_mut(topic) {
            Some(waiting) => *waiting = offset,
            None => drop(self.retained.insert(topic.into(), offset)),
        }
    }

    /// An event has this packet id of the session.
    pub(crate) fn receive(&mut self, hash: u64, packet_id: u16, offset: Offset) {
        self.view_bytes += ENTRY_BYTES;
        self.session(hash).received.insert(packet_id, Received::At(offset));
    }

    /// The will stands in the log.
    pub(crate) fn published(&mut self, key: WillKey) {
        self.view_bytes += ENTRY_BYTES;
        self.wills.insert(key, None);
    }

    /// Nothing of the session is left.
    pub(crate) fn wipe(&mut self, hash: u64) {
        self.sessions.insert(hash, SessionChange { wiped: true, ..SessionChange::default() });
    }
}

/// Takes the offset out of the messages in flight; whether it was there.
pub(crate) fn without_offset(progress: &mut Progress, offset: Offset) -> bool {
    let mut found = false;
    for entry in progress.inflight.iter_mut().filter(|entry| entry.offset == offset) {
        entry.offset = 0;
        found = true;
    }
    found
}

impl SessionChange {
    /// The packet id is free again, unless an event behind `head` has it.
    pub(crate) fn forget(&mut self, packet_id: u16, head: Offset) {
        match self.received.get(&packet_id) {
            Some(Received::At(offset)) if *offset > head => {}
            _ => drop(self.received.insert(packet_id, Received::ForgottenUpTo(head))),
        }
    }
}
