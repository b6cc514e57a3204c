//! A session leaves a group, and the group is told what becomes of the messages that it had.

use super::Share;
use crate::group_message::{GroupMessage, Settled};
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{Request, StoredState};
use firehose_log::Offset;
use std::collections::HashMap;

impl Shard {
    /// The session unsubscribes: what it was not sent goes to others, what it was sent is its own.
    pub(crate) fn leave_group(&mut self, session: u32, lane: u16) {
        self.save_before_leaving(session, lane);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.follow_outbox();
        let Some(share) = it.remove_share(lane) else { return };
        let mut done = share.done.clone();
        if let Some(connection) = it.connection.as_deref_mut() {
            connection.outbox.drop_lane(lane);
        }
        if let Some(window) = it.inflight.as_deref_mut() {
            done.extend(window.forget_shared(lane));
        }
        self.tell_left(session, &share, done, Vec::new());
    }

    /// What the session has from a group, and the state does not know of, is saved before the group is told: else both
    /// would have it after a crash.
    fn save_before_leaving(&mut self, session: u32, lane: u16) {
        let (stand, now_secs) = (self.stand, self.now.secs());
        let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.is_persistent()) else {
            return;
        };
        if it.has_unsafe(lane) {
            // Only a sealed frame tells its offset.
            self.frames.seal();
            let operations = it.save_operations(stand, now_secs);
            self.actions.push(Action::State(Request { token: 0, operations }));
        }
    }

    /// The session's connection ends. What it was sent and did not acknowledge stays with it if it lives on; else QoS 1 goes
    /// to another member, and QoS 2 to nobody [MQTT-4.8.2-5].
    pub(crate) fn leave_groups(&mut self, session: u32, lives_on: bool) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.follow_outbox();
        let Some(shares) = it.shares.take() else { return };
        let mut of_lanes = it.shared_window(lives_on);
        for share in shares.list {
            let Some(it) = self.sessions.get_mut(session as usize) else { return };
            if let Some(connection) = it.connection.as_deref_mut() {
                connection.outbox.drop_lane(share.lane);
            }
            let (kept, given_up) = of_lanes.remove(&share.lane).unwrap_or_default();
            let done = share.done.iter().copied().chain(kept).collect();
            self.tell_left(session, &share, done, given_up);
        }
    }

    fn tell_left(&mut self, session: u32, share: &Share, done: Vec<Offset>, returned: Vec<Offset>) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        let member = share.member(self.number, session, it.generation);
        let (untold, told, taken) = (Vec::new(), Vec::new(), Vec::new());
        let (hash, lost, read) = (share.hash, share.lost.clone(), false);
        let left = Settled { hash, member, done, untold, told, read, returned, taken, lost, credit: 0 };
        self.tell(crate::arrival::home_shard(share.hash, self.shared.shards), GroupMessage::Leave(left));
    }
}

impl Session {
    /// Of each lane that a group fills, what in the window is over or stays with the session, and what it gives up: in one
    /// look at the window, however many groups there are.
    fn shared_window(&self, lives_on: bool) -> HashMap<u16, (Vec<Offset>, Vec<Offset>)> {
        let mut of_lanes: HashMap<u16, (Vec<Offset>, Vec<Offset>)> = HashMap::new();
        let entries = self.inflight.as_deref().into_iter().flat_map(|window| window.stored());
        for entry in entries.filter(|entry| entry.shared != 0 && entry.offset != 0) {
            let (kept, given_up) = of_lanes.entry(entry.shared).or_default();
            match lives_on || entry.state != StoredState::Sent1 {
                true => kept.push(entry.offset),
                false => given_up.push(entry.offset),
            }
        }
        of_lanes
    }

    fn remove_share(&mut self, lane: u16) -> Option<Share> {
        let shares = self.shares.as_deref_mut()?;
        let at = shares.list.iter().position(|share| share.lane == lane)?;
        let share = shares.list.remove(at);
        if shares.list.is_empty() {
            self.shares = None;
        }
        Some(share)
    }
}
