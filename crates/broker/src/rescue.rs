//! The state lost its file and began a new one: the sessions and wills of clients that are connected are saved anew.

use crate::connection::{AckKind, Publisher};
use crate::limits::AddressKey;
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request, Rescue};
use firehose_log::Offset;
use std::collections::BTreeSet;

impl Shard {
    /// The state has nothing any more. Before it is given all that there is stands a mark in the order, so that each
    /// publish up to there has its place.
    pub(crate) fn state_lost(&mut self) {
        let token = self.next_token();
        self.rescue_mark = Some(token);
        self.outgoing.mark(token);
    }

    /// A mark came back, with the head at its place: if it is that of a rescue, all sessions are saved. False: it is not.
    pub(crate) fn rescue(&mut self, token: u64, head: Offset) -> bool {
        if self.rescue_mark != Some(token) {
            return false;
        }
        self.rescue_mark = None;
        // Only a sealed frame tells its offset.
        self.frames.seal();
        let (stand, now_secs) = (self.stand, self.now.secs());
        for (_, session) in &mut self.sessions {
            let unplaced: BTreeSet<u16> = match session.publisher() {
                Some(publisher) => {
                    let waiting =
                        publisher.acks.iter().filter(|it| it.kind == AckKind::PubRec && !it.decided);
                    waiting.filter(|it| !self.deposits.has_place(it.ticket)).map(|it| it.packet_id).collect()
                }
                None => BTreeSet::new(),
            };
            let operations = session.rescue_operations(&unplaced, head, stand, now_secs);
            if !operations.is_empty() {
                self.actions.push(Action::State(Request { token: 0, operations }));
            }
        }
        true
    }
}

impl Session {
    fn publisher(&self) -> Option<&Publisher> {
        self.connection.as_deref()?.publisher.as_deref()
    }

    /// What makes the state know all of it. `unplaced`: packet ids of publishes that had no place up to `head`, or were
    /// refused.
    fn rescue_operations(
        &mut self,
        unplaced: &BTreeSet<u16>,
        head: Offset,
        stand: Offset,
        now_secs: u32,
    ) -> Vec<Operation> {
        let lives_on = self.is_persistent();
        let will = self.connection.as_deref().and_then(|it| it.will.as_deref()).cloned();
        if !lives_on && will.is_none() {
            return Vec::new();
        }
        let received = self.publisher().map(|it| it.received.difference(unplaced).copied().collect());
        let address = self.connection.as_deref().and_then(|it| AddressKey::of(it.address));
        let Some(persistence) = self.persistence.as_deref() else { return Vec::new() };
        let rescue = Rescue {
            name: persistence.name.clone(),
            expiry_secs: persistence.expiry_secs,
            address,
            received: received.unwrap_or_default(),
            head,
            will,
        };
        let mut operations = vec![Operation::Rescue(Box::new(rescue))];
        if lives_on {
            self.change_subscriptions();
            operations.extend(self.save_operations(stand, now_secs));
        }
        operations
    }
}
