//! The file was lost while the bus runs: sessions and wills of clients that are connected come back, since their shards know
//! all of them. Until they do, the state notes which packet ids they publish with.

use crate::state::change::Received;
use crate::state::core::{State, Turn};
use crate::state::known::Known;
use crate::state::record::{Life, WillRecord};
use crate::state::request::Rescue;
use crate::state::sessions::record_of;
use firehose_log::Offset;
use std::collections::{BTreeMap, HashMap};

/// Sessions that will be rescued, by their hashes.
#[derive(Default)]
pub(super) struct Rescued {
    /// Up to here their shards tell of packet ids.
    since: Offset,
    /// Ids of QoS 2 messages that they published behind that, and the offset of the last one that had them.
    received: HashMap<u64, BTreeMap<u16, Offset>>,
}

impl Rescued {
    /// One of them published a message with a packet id.
    pub(super) fn receive(&mut self, session: u64, packet_id: u16, offset: Offset) {
        if offset > self.since
            && let Some(ids) = self.received.get_mut(&session)
        {
            ids.insert(packet_id, offset);
        }
    }

    /// The session is none of them any more: its client left, or another one came.
    pub(super) fn forget(&mut self, session: u64) {
        self.received.remove(&session);
    }
}

impl State {
    /// Nothing is known any more; shards are asked for what they know.
    pub(super) fn forget_all(&mut self, turn: &mut Turn) {
        if self.rescued.received.is_empty() {
            self.rescued.since = self.view_at;
        }
        self.rescued.received.values_mut().for_each(BTreeMap::clear);
        for hash in self.known.hashes() {
            let is_connected = self.known.get(hash).is_some_and(|known| known.life.left_us.is_none());
            if is_connected {
                self.rescued.received.entry(hash).or_default();
            }
        }
        for hash in self.known.hashes().chain(self.wills.sessions()) {
            self.names.remove(hash);
        }
        self.forget_groups();
        self.known = Default::default();
        self.wills.lose();
        self.wills.sessions().for_each(|hash| self.names.insert(hash));
        self.pending = Default::default();
        self.shelf.lose(self.view_at);
        self.view_at = 0;
        self.stored_applied = 0;
        self.queue.rewind();
        self.queue.stats().rebuilds.add(1);
        turn.lost = true;
    }

    /// A session and a will are known again, unless another connection has their name meanwhile.
    pub(super) fn rescue(&mut self, mut rescue: Rescue) {
        let hash = rescue.name.hash;
        if let Some(will) = rescue.will.take().filter(|_| self.wills.attached(hash).is_none()) {
            let (client_id, expiry_secs) = (rescue.name.client_id.clone(), rescue.expiry_secs);
            self.attach(hash, WillRecord { client_id, expiry_secs, will, due: false });
            self.names.insert(hash);
        }
        let since = self.rescued.received.remove(&hash).unwrap_or_default();
        if rescue.expiry_secs > 0 && !self.known.contains(hash) {
            self.rescue_session(rescue, since);
        }
    }

    fn rescue_session(&mut self, rescue: Rescue, since: BTreeMap<u16, Offset>) {
        let Rescue { name, expiry_secs, address, received, head, .. } = rescue;
        let life = Life { expiry_secs, left_us: None };
        self.known.insert(name.hash, Known { anonymous: name.scope.user.is_none(), address, life });
        self.names.insert(name.hash);
        let change = self.pending.session(name.hash);
        change.wiped = true;
        change.record = Some(record_of(&name, address));
        change.life = Some(life);
        change.received.extend(received.into_iter().map(|packet_id| (packet_id, Received::At(head))));
        let since = since.into_iter().filter(|(_, offset)| *offset > head);
        change.received.extend(since.map(|(packet_id, offset)| (packet_id, Received::At(offset))));
    }
}
