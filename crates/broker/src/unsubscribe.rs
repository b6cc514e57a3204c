//! UNSUBSCRIBE, and how a subscription ends. A packet may have very many filters: a few hundred are looked at in a turn, and
//! ended in a turn; it is answered once, when all are.

use crate::filter_list::worth;
use crate::inbound::Flow;
use crate::lane::MAIN;
use crate::member::is_shared;
use crate::pending::{Pending, Step, Unsubscribing, What};
use crate::plan::is_malformed;
use crate::session::filter_cost_bytes;
use crate::shard::Shard;
use firehose_mqtt::{Reason, Unsubscribe};

impl Shard {
    /// An UNSUBSCRIBE packet.
    pub(crate) fn unsubscribe(&mut self, session: u32, packet: &Unsubscribe<'_>) -> Flow {
        let Some(generation) = self.sessions.get(session as usize).map(|it| it.generation) else {
            return Flow::Stop;
        };
        let filters = packet.filters.collect();
        let what = What::Unsubscribe(Box::new(Unsubscribing { filters, reasons: Default::default() }));
        self.begin_pending(Pending::new(session, generation, packet.packet_id, what))
    }

    /// Looks whether some filters of an UNSUBSCRIBE are malformed; once all are known not to be, it gets its place in the order.
    pub(crate) fn check_some(&mut self, token: u64, mut pending: Pending, count: usize) {
        let What::Unsubscribe(unsubscribing) = &mut pending.what else { return };
        let filters = &mut unsubscribing.filters;
        let mut left = count;
        while left > 0 {
            let Some(filter) = filters.take_next() else { break };
            left = left.saturating_sub(worth(filter));
            if is_malformed(filter) {
                let why = "a malformed topic filter [MQTT-4.7.1-1]";
                self.violate(pending.session, Reason::MalformedPacket, why);
                return;
            }
        }
        if !filters.is_through() {
            return self.line_up(token, pending);
        }
        filters.rewind();
        self.want_place(token, pending);
    }

    /// Ends some of the subscriptions that an UNSUBSCRIBE names, which has its place; with the last one it is answered.
    pub(crate) fn end_some(&mut self, token: u64, mut pending: Pending, count: usize) {
        let session = pending.session;
        let What::Unsubscribe(unsubscribing) = &mut pending.what else { return };
        let Unsubscribing { filters, reasons } = &mut **unsubscribing;
        let mut left = count;
        while left > 0 {
            let Some(filter) = filters.take_next() else { break };
            left = left.saturating_sub(worth(filter));
            let Some(it) = self.sessions.get(session as usize) else { return };
            let found = it.subscriptions.find(filter);
            reasons.push(if found.is_some() { Reason::Success } else { Reason::NoSubscriptionExisted });
            if let Some(index) = found {
                self.remove_subscription(session, index);
            }
        }
        if !filters.is_through() {
            pending.step = Step::End;
            return self.line_up(token, pending);
        }
        let reasons = std::mem::take(reasons);
        self.answer_unsubscribe(session, pending.packet_id, &reasons);
        self.unsubscribed(&pending);
    }

    /// Takes a subscription out of the session and the trie; the last of a replay's lane ends it.
    pub(crate) fn remove_subscription(&mut self, session: u32, index: usize) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(subscription) = it.subscriptions.take(index) else { return };
        it.change_subscriptions();
        let cost_bytes = filter_cost_bytes(&subscription.filter, subscription.written.as_deref());
        it.subscription_bytes = it.subscription_bytes.saturating_sub(cost_bytes);
        self.stats.subscriptions.sub(1);
        if let Some(scans) = it.scans.as_deref_mut() {
            scans.end(index as u16);
        }
        let lane = subscription.lane;
        if !is_shared(lane) {
            self.remove_interest(&subscription.filter, subscription.place);
        }
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.keep_ended(subscription, self.stand, self.shared.limits.subscription_bytes_per_client_max);
        if is_shared(lane) {
            self.leave_group(session, lane);
        } else if lane != MAIN && it.of_lane(lane).next().is_none() {
            self.replay_ended(session, lane);
            if let Some(it) = self.sessions.get_mut(session as usize) {
                it.more_lanes[usize::from(lane) - 1] = None;
                it.persistence.as_deref_mut().and_then(|it| it.told.take(lane));
            }
        }
    }
}
