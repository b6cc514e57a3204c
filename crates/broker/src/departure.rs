//! How a client's connection ends, and what becomes of its session.

use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request, WillFate};

impl Shard {
    /// The session is left: what it got is saved, and the state says until when it may be resumed, and has the will. Its connection may
    /// still have a word to say, but nothing more happens to the session.
    pub(crate) fn leave_session(&mut self, session: u32) {
        let lives_on = self.sessions.get(session as usize).is_some_and(Session::is_persistent);
        self.save_left(session);
        self.leave_groups(session, lives_on);
    }

    fn save_left(&mut self, session: u32) {
        // Only a sealed frame tells its offset.
        self.frames.seal();
        let (stand, now_secs) = (self.stand, self.now.secs());
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        if it.persistence.is_none() {
            return;
        }
        let saves = match it.is_persistent() {
            true => it.save_operations(stand, now_secs),
            false => Vec::new(),
        };
        let will = it.connection.as_deref().map_or(WillFate::Dropped, |it| it.will_fate(self.stopping));
        let Some(mut persistence) = it.persistence.take() else { return };
        self.held_bytes -= persistence.hold.message_bytes();
        let (name, expiry_secs) = (persistence.name.clone(), persistence.expiry_secs);
        let mut operations = saves;
        let packet_ids = persistence.hold.take_forgets();
        if expiry_secs > 0 && !packet_ids.is_empty() {
            operations.push(Operation::Forget { name: name.clone(), packet_ids });
        }
        operations.push(Operation::Gone { name, expiry_secs, will });
        self.actions.push(Action::State(Request { token: 0, operations }));
    }

    /// The connection is over, and the session leaves the shard.
    pub(crate) fn end(&mut self, session: u32) {
        self.leave_session(session);
        let Some(it) = self.sessions.get(session as usize) else { return };
        let count = it.subscriptions.end();
        for index in 0..count {
            self.remove_subscription(session, index);
        }
        self.forget_name(session);
        let Some(it) = self.sessions.try_remove(session as usize) else { return };
        self.followers.forget(session, &it);
        let told = it.connection.as_ref().is_some_and(|connection| connection.closing);
        if let Some(connection) = it.connection {
            self.parked_bytes -= connection.parked_bytes;
            self.fresh_bytes -= connection.fresh_bytes;
        }
        self.stats.connections.sub(1);
        self.actions.push(Action::Close { session, told });
        self.feed();
        self.lose_interest();
    }

    pub(crate) fn forget_name(&mut self, session: u32) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        if let std::collections::hash_map::Entry::Occupied(mut entry) = self.by_id.entry(it.hash) {
            entry.get_mut().retain(|known| *known != session);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}
