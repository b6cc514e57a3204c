//! What was on its way to a client, not acknowledged, and cannot be sent again, since the log has it no more.

use crate::fetched::FetchedEvents;
use crate::lane::Gap;
use crate::session::Session;
use crate::shard::Shard;
use crate::state::{StoredInflight, StoredState};
use firehose_log::Offset;
use firehose_mqtt::{Reason, Version};

/// Why it cannot be sent again.
const RETENTION: &str = "deleted by retention while it was on its way";

impl Session {
    /// A range is gone that its lanes had come past.
    fn declare_lost(&mut self, first: Offset, last: Offset, why: &str) {
        for number in self.lanes() {
            let may_have_brought = self.of_lane(number).any(|(_, it)| it.from <= last);
            if let Some(lane) = self.lane_mut(number).filter(|_| may_have_brought) {
                lane.gap = Some(Gap::widened(lane.gap.take(), first, last, why));
                self.many = true;
            }
        }
    }
}

impl Shard {
    /// What was in flight under these offsets, ascending, cannot be sent again: it counts as through, and is declared by
    /// every lane that may have brought it, or by its group.
    pub(crate) fn lose(&mut self, session: u32, lost: &[Offset]) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let (Some(persistence), Some(window)) = (it.persistence.as_deref_mut(), it.inflight.as_deref_mut())
        else {
            return;
        };
        let is_lost =
            |it: &StoredInflight| it.state != StoredState::Released && lost.binary_search(&it.offset).is_ok();
        let entries: Vec<StoredInflight> = window.stored().filter(is_lost).collect();
        if entries.is_empty() {
            return;
        }
        for entry in &entries {
            window.give_up(entry.packet_id);
            self.stats.messages_dropped.add(1);
        }
        persistence.progress_changed = true;
        let of_lanes: Vec<Offset> = entries
            .iter()
            .filter(|entry| !self.tell_group(session, entry, RETENTION))
            .map(|it| it.offset)
            .collect();
        let range = of_lanes.iter().min().zip(of_lanes.iter().max());
        if let (Some((first, last)), Some(it)) = (range, self.sessions.get_mut(session as usize)) {
            self.stats.gaps_declared.add(1);
            it.declare_lost(*first, *last, RETENTION);
        }
    }

    /// What the log was asked for, to be sent again, it did not give: if it is gone, the client is told. MQTT 3.x has no way
    /// to say it: there the client is cut off, and finds a new session.
    pub(crate) fn declare_if_gone(&mut self, session: u32, entry: &StoredInflight, fetched: &FetchedEvents) {
        let why = fetched.why_gone(entry.offset).filter(|_| !self.redacted_lately.contains(&entry.offset));
        let Some(why) = why else { return };
        if self.tell_group(session, entry, why) {
            return;
        }
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        if !it.lanes().any(|lane| it.of_lane(lane).any(|(_, it)| it.from <= entry.offset)) {
            return;
        }
        self.stats.gaps_declared.add(1);
        it.declare_lost(entry.offset, entry.offset, why);
        // What is queued already, when a redaction had it made again, is newer: it is made again too, and tells of this.
        if let Some(persistence) = it.persistence.as_deref_mut() {
            self.held_bytes -= persistence.hold.drop_bytes();
        }
        self.queue_again(session);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        if it.connection.as_deref().is_some_and(|connection| connection.version != Version::V5) {
            self.disconnect(session, Reason::UnspecifiedError, "a range of the log is gone");
        }
    }

    /// Has the group tell its members, if one gave the message. False: none did, or the session has left it.
    fn tell_group(&mut self, session: u32, entry: &StoredInflight, why: &'static str) -> bool {
        let Some(it) = self.sessions.get_mut(session as usize) else { return false };
        let told = entry.shared != 0 && it.lost_of_group(entry.shared, entry.offset, why);
        if told {
            self.settle_soon(session);
        }
        told
    }
}
