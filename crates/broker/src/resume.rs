//! A session goes on: its subscriptions, lanes and window come back from the state.

use crate::inflight::Inflight;
use crate::lane::{Gap, Lane, MAIN};
use crate::resend::Resend;
use crate::session::{Session, Subscription, filter_cost_bytes};
use crate::shard::{Action, Shard};
use crate::state::{Opened, Operation, Request, Resumed, StoredLane, StoredSubscription};
use firehose_auth::Verdict;
use firehose_log::Offset;
use firehose_mqtt::{SubscribeOptions, Version};
use firehose_topic::{TopicFilter, parse_share};

impl Opened {
    /// What the client can go on with. MQTT 3.x has no way to say that events are gone: there a session that was overtaken
    /// by the retention is a new one.
    pub(crate) fn going_on(&self, v5: bool) -> Option<&Resumed> {
        self.resumed.as_deref().filter(|it| v5 || !(it.is_overtaken(self.oldest) || it.misses(&self.lost)))
    }
}

impl Resumed {
    fn is_overtaken(&self, oldest: Offset) -> bool {
        self.subscriptions.iter().any(|subscription| {
            let lane = self.lane(subscription.lane);
            lane.is_some_and(|lane| lane.gap.is_some() || lane.next.max(subscription.from) < oldest)
        })
    }

    /// Whether a subscription misses what cannot be sent again.
    fn misses(&self, lost: &[Offset]) -> bool {
        lost.last().is_some_and(|last| self.subscriptions.iter().any(|it| it.from <= *last))
    }

    fn lane(&self, number: u16) -> Option<&StoredLane> {
        self.progress.lanes.iter().find(|lane| lane.number == number)
    }
}

impl Shard {
    /// Gives a session that has just begun what the state had of it.
    pub(crate) fn resume_session(&mut self, session: u32, resumed: &Resumed) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.cursors |= resumed.cursors;
        let window = Inflight::resumed(it.inflight_max, &resumed.progress.inflight, resumed.progress.next_id);
        let resend = Resend::all(&window);
        it.inflight = Some(Box::new(window));
        if let Some(connection) = it.connection.as_deref_mut()
            && !resumed.received.is_empty()
        {
            connection.publisher.get_or_insert_default().received.extend(&resumed.received);
        }
        if let Some(persistence) = it.persistence.as_deref_mut() {
            persistence.resend = resend;
            persistence.saved_secs = self.now.secs();
        }
        for subscription in &resumed.subscriptions {
            self.subscribe_again(session, subscription, resumed);
        }
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.resume_scans(&resumed.progress.scans);
        let saved = it.lanes().filter_map(|lane| Some(it.lane(lane)?.next(self.stand))).min();
        if let Some(persistence) = it.persistence.as_deref_mut() {
            persistence.saved_stand = saved.unwrap_or(self.stand).saturating_sub(1);
        }
        if it.subscriptions.count() > 0 {
            self.sequence_resume(session);
        }
    }

    fn subscribe_again(&mut self, session: u32, stored: &StoredSubscription, resumed: &Resumed) {
        let Ok(filter) = TopicFilter::new(&stored.filter) else { return };
        let Ok(options) = SubscribeOptions::from_u8(stored.options, Version::V5) else { return };
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let shared = stored.written.as_deref().filter(|written| parse_share(written).is_some());
        if shared.is_none() {
            it.restore_lane(stored, resumed);
        }
        let verdict = self.auth.read_verdict(&it.identity, &it.client_id, &filter);
        let mut subscription = Subscription {
            filter,
            options,
            id: stored.id,
            lane: stored.lane,
            from: stored.from,
            place: 0,
            checked: verdict != Verdict::All,
            written: stored.written.as_deref().map(Box::from),
        };
        if shared.is_none() {
            self.followers.enter(&mut self.trie, session, it, &mut subscription);
        }
        it.subscription_bytes += filter_cost_bytes(&subscription.filter, subscription.written.as_deref());
        it.subscriptions.insert(subscription);
        it.many = it.many || it.subscriptions.end() > 1;
        self.stats.subscriptions.add(1);
        if let Some(written) = shared {
            self.join_again(session, written, stored.lane, stored.from);
        }
    }

    /// The state has a session that the client cannot go on with: it becomes a new one.
    pub(crate) fn start_anew(&mut self, session: u32, overtaken: &Resumed) {
        self.stats.gaps_declared.add(1);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        tracing::debug!(client = %it.client_id, "its session was overtaken by the retention");
        it.change_subscriptions();
        if let Some(persistence) = it.persistence.as_deref_mut() {
            persistence.hold.forget(&overtaken.received);
            let operations = vec![Operation::Overtaken { name: persistence.name.clone() }];
            self.actions.push(Action::State(Request { token: 0, operations }));
        }
        self.save_soon(session);
    }

    /// The shard's place in the log is known: the lanes of a session that goes on read from where they were.
    pub(crate) fn begin_lanes(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        for lane in it.lanes() {
            if let Some(lane) = it.lane_mut(lane) {
                lane.begin();
            }
        }
    }
}

impl Session {
    /// The lane that reads a stored subscription, where it was.
    fn restore_lane(&mut self, stored: &StoredSubscription, resumed: &Resumed) {
        let number = stored.lane;
        if number != MAIN && self.lane(number).is_some() || number == MAIN && !self.main.is_live() {
            return;
        }
        let lane = resumed.lane(number);
        let next = lane.map_or(stored.from, |lane| lane.next);
        let gap = lane.and_then(|lane| lane.gap.clone()).map(Gap::new);
        self.many |= gap.is_some();
        let lane = Lane::resumed(next, gap, number != MAIN);
        if number == MAIN {
            self.main = lane;
            return;
        }
        let at = usize::from(number) - 1;
        if self.more_lanes.len() <= at {
            self.more_lanes.resize_with(at + 1, || None);
        }
        self.more_lanes[at] = Some(lane);
    }
}
