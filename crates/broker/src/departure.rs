//! How a client's connection ends, and what becomes of its session.

use crate::connection::Will;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request, WillFate};
use firehose_log::{Event, Origin, WayIn};
use firehose_topic::TopicName;

impl Shard {
    /// The session is left: what it got is saved, and the state says until when it may be resumed. Its connection may
    /// still have a word to say, but nothing more happens to the session.
    pub(crate) fn leave_session(&mut self, session: u32) {
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
        let Some(mut persistence) = it.persistence.take() else { return };
        self.held_bytes -= persistence.hold.message_bytes();
        let (name, expiry_secs) = (persistence.name.clone(), persistence.expiry_secs);
        let mut operations = saves;
        let packet_ids = persistence.hold.take_forgets();
        if expiry_secs > 0 && !packet_ids.is_empty() {
            operations.push(Operation::Forget { name: name.clone(), packet_ids });
        }
        operations.push(Operation::Gone { name, expiry_secs, will: WillFate::Dropped });
        self.actions.push(Action::State(Request { token: 0, operations }));
    }

    /// The connection is over, and the session leaves the shard: its will is published unless it left properly.
    pub(crate) fn end(&mut self, session: u32) {
        self.leave_session(session);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let will = it.connection.as_deref_mut().and_then(|connection| connection.will.take());
        if let Some(will) = will {
            self.publish_will(session, &will);
        }
        let count = self.sessions.get(session as usize).map_or(0, |it| it.subscriptions.len());
        for index in 0..count {
            self.remove_subscription(session, index);
        }
        self.forget_name(session);
        let Some(it) = self.sessions.try_remove(session as usize) else { return };
        if let Some(connection) = it.connection {
            self.parked_bytes -= connection.parked_bytes;
            self.fresh_bytes -= connection.fresh_bytes;
        }
        self.stats.connections.sub(1);
        self.actions.push(Action::Close { session });
        self.feed();
        if self.trie.is_empty() && self.pending.is_empty() {
            self.outgoing.interest(false);
        }
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

    /// The rules that hold now decide, not those of the CONNECT.
    fn publish_will(&mut self, session: u32, will: &Will) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        let topic = TopicName::trusted(&will.topic);
        let gone = it.identity.name().is_some_and(|user| !self.auth.knows_user(user));
        if gone || !self.auth.may_publish(&it.identity, &it.client_id, topic) {
            self.stats.messages_refused.add(1);
            tracing::debug!(client = %it.client_id, topic = %will.topic, "a will was refused by the access rules");
            return;
        }
        let event = Event {
            flags: will.flags,
            topic: &will.topic,
            attributes: will.attributes.as_attributes(),
            payload: &will.payload,
        };
        let principal = it.identity.name().unwrap_or("");
        let origin = Origin { principal, session: it.hash, packet_id: 0, way_in: WayIn::Mqtt };
        let placed = match self.shared.unlogged.iter().any(|filter| filter.matches(topic)) {
            true => self.outgoing.unlogged(&event, &origin),
            false => self.outgoing.event(&event, &origin, (session, it.generation), false).map(|_| ()),
        };
        if placed.is_err() {
            self.stats.messages_refused.add(1);
        }
    }
}
