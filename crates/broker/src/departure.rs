//! How a client's connection ends, and what becomes of its session.

use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request, Rescue, WillFate};
use firehose_mqtt::{Decoded, Disconnect, Packet, Reason, decode};

impl Shard {
    /// The session is left: what it got is saved, and the state says until when it may be resumed, and has the will. Its connection may
    /// still have a word to say, but nothing more happens to the session. True: its client had left before.
    pub(crate) fn leave_session(&mut self, session: u32) -> bool {
        let has_left = self.look_for_farewell(session);
        let lives_on = self.sessions.get(session as usize).is_some_and(Session::is_persistent);
        self.save_left(session);
        self.leave_groups(session, lives_on);
        has_left
    }

    /// What a DISCONNECT says of the will and of the session. False: it is one that breaks the protocol.
    pub(crate) fn hear_farewell(&mut self, session: u32, disconnect: &Disconnect<'_>) -> bool {
        let expiry_secs_max = self.shared.limits.session_expiry_secs_max;
        let Some(it) = self.sessions.get_mut(session as usize) else { return true };
        let Some(connection) = it.connection.as_deref_mut() else { return true };
        let expiry_secs = disconnect.properties.session_expiry();
        if expiry_secs.is_some_and(|secs| secs > 0) && !connection.asked_for_expiry {
            return false;
        }
        if let (Some(persistence), Some(secs)) = (it.persistence.as_deref_mut(), expiry_secs) {
            persistence.expiry_secs = secs.min(expiry_secs_max);
        }
        if disconnect.reason == Reason::Success {
            connection.will = None;
        }
        true
    }

    /// A client that was not read for a while may have left properly before its connection is ended: of what came of it, and
    /// is not looked at any more, its DISCONNECT counts all the same [MQTT-3.14.4-3].
    fn look_for_farewell(&mut self, session: u32) -> bool {
        let Some(connection) = self.connection(session) else { return false };
        let (version, bytes_max) = (connection.version, connection.sends_bytes_max as usize);
        let input = std::mem::take(&mut connection.input);
        let mut rest = &input[..];
        while let Ok(Decoded::Packet(packet, len)) = decode(rest, version, bytes_max) {
            match packet {
                Packet::Disconnect(disconnect) => return self.hear_farewell(session, &disconnect),
                // It would have been cut off here.
                Packet::Connect(_) | Packet::Auth(_) | Packet::ConnAck(_) => break,
                Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => break,
                _ => rest = &rest[len..],
            }
        }
        false
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
        let is_due = matches!(will, WillFate::Due { .. });
        let rescued = it.connection.as_deref_mut().and_then(|it| it.will.take()).filter(|_| is_due);
        let Some(mut persistence) = it.persistence.take() else { return };
        self.held_bytes -= persistence.hold.message_bytes();
        let (name, expiry_secs) = (persistence.name.clone(), persistence.expiry_secs);
        let mut operations = saves;
        let packet_ids = persistence.hold.take_forgets();
        if expiry_secs > 0 && !packet_ids.is_empty() {
            operations.push(Operation::Forget { name: name.clone(), packet_ids });
        }
        operations
            .extend(rescued.map(|will| Operation::Rescue(Box::new(Rescue::of_will(name.clone(), *will)))));
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
