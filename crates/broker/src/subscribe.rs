//! SUBSCRIBE and UNSUBSCRIBE. Both are sequenced: they take effect at a mark in the one order, so that what a
//! subscription gets begins exactly behind the head that its SUBACK may name.

use crate::connection::Pause;
use crate::inbound::Flow;
use crate::lane::{Gap, Lane, MAIN};
use crate::member::is_shared;
use crate::plan::{Plan, is_malformed};
use crate::retained::brings_retained;
use crate::scan::RETAINED;
use crate::session::{Subscription, filter_cost_bytes};
use crate::shard::{Action, Shard};
use firehose_log::{Offset, Since, SinceError, Start};
use firehose_mqtt::{PacketId, QoS, Reason, ReasonsBuf, Subscribe, SubscribeItem, Unsubscribe, Version};
use firehose_topic::parse_share;

/// As many subscriptions as a session can number, whatever the configuration says.
const SUBSCRIPTIONS_MAX: usize = RETAINED as usize;

/// Filters of one connection on their way to their place in the order: beyond it, the connection is not read until they are there,
/// so that nobody fills a turn, or the memory, with them.
const SEQUENCING_MAX: usize = 100;

/// A SUBSCRIBE or UNSUBSCRIBE on its way to its place in the order.
pub struct PendingSubscribe {
    session: u32,
    generation: u32,
    packet_id: PacketId,
    what: What,
}

enum What {
    Subscribe {
        plans: Vec<Result<Plan, Reason>>,
        id: u32,
        cursors: bool,
        resolving: usize,
    },
    Unsubscribe {
        filters: Vec<Box<str>>,
    },
    /// A session goes on.
    Resume,
}

impl What {
    fn filters(&self) -> usize {
        match self {
            What::Subscribe { plans, .. } => plans.len(),
            What::Unsubscribe { filters } => filters.len(),
            What::Resume => 0,
        }
    }
}

impl Shard {
    /// A SUBSCRIBE packet.
    pub(crate) fn subscribe(&mut self, session: u32, packet: &Subscribe<'_>) -> Flow {
        let Some(it) = self.sessions.get(session as usize) else { return Flow::Stop };
        let Some(version) = it.connection.as_deref().map(|connection| connection.version) else {
            return Flow::Stop;
        };
        let no_local = |item: SubscribeItem<'_>| item.options.no_local && parse_share(item.filter).is_some();
        if packet.filters.into_iter().any(no_local) {
            let why = "no-local with a shared subscription [MQTT-3.8.3-4]";
            return self.violate(session, Reason::ProtocolError, why);
        }
        let generation = it.generation;
        let user = |wanted: &str| packet.properties.user_properties().find(|(name, _)| *name == wanted);
        let since = match user("since").map(|(_, from)| Since::parse(from)) {
            None => None,
            Some(Ok(since)) => Some(Ok(since)),
            Some(Err(_)) => Some(Err(Reason::TopicFilterInvalid)),
        };
        let count_max = self.shared.limits.subscriptions_per_client_max;
        let plan = |(index, item): (usize, SubscribeItem<'_>)| match index < count_max {
            true => self.plan(session, version, item.filter, item.options, &since),
            false => Err(Reason::QuotaExceeded),
        };
        let mut plans: Vec<_> = packet.filters.enumerate().map(plan).collect();
        if plans.iter().any(|plan| matches!(plan, Err(Reason::MalformedPacket))) {
            return self.violate(session, Reason::MalformedPacket, "a malformed topic filter [MQTT-4.7.1-1]");
        }
        let id = packet.properties.subscription_id().unwrap_or(0);
        let cursors = user("firehose-cursor").is_some_and(|(_, value)| value == "on");
        let token = self.next_token();
        let resolving = self.ask_where(token, &mut plans) + self.ask_groups(session, token, &mut plans);
        let what = What::Subscribe { plans, id, cursors, resolving };
        let pending = PendingSubscribe { session, generation, packet_id: packet.packet_id, what };
        if resolving == 0 {
            return self.sequence(token, pending);
        }
        self.pending.insert(token, pending);
        if let Some(connection) = self.connection(session) {
            connection.pauses.set(Pause::Subscribing, true);
        }
        Flow::Pause
    }

    /// An UNSUBSCRIBE packet.
    pub(crate) fn unsubscribe(&mut self, session: u32, packet: &Unsubscribe<'_>) -> Flow {
        let Some(generation) = self.sessions.get(session as usize).map(|it| it.generation) else {
            return Flow::Stop;
        };
        if packet.filters.clone().any(is_malformed) {
            return self.violate(session, Reason::MalformedPacket, "a malformed topic filter [MQTT-4.7.1-1]");
        }
        let filters = packet.filters.map(Box::from).collect();
        let token = self.next_token();
        let pending = PendingSubscribe {
            session,
            generation,
            packet_id: packet.packet_id,
            what: What::Unsubscribe { filters },
        };
        self.sequence(token, pending)
    }

    /// The log knows where one of the filters of a SUBSCRIBE begins.
    pub(crate) fn resolved(&mut self, question: u64, start: Result<Start, SinceError>) {
        // Answers may overtake each other: each question says which filter it is about.
        let Some((token, index)) = self.questions.remove(&question) else { return };
        let Some(mut pending) = self.pending.remove(&token) else { return };
        let What::Subscribe { plans, .. } = &mut pending.what else { return };
        let start = start.map_err(|error| {
            tracing::debug!(%error, "replay refused");
            match error {
                SinceError::Io(_) => Reason::UnspecifiedError,
                _ => Reason::TopicFilterInvalid,
            }
        });
        let since = plans.get(index).and_then(|plan| plan.as_ref().ok()?.since);
        for plan in plans {
            match (&mut *plan, start) {
                (Ok(known), Ok(start)) if known.since == since => known.start = Some(start),
                (Ok(known), Err(reason)) if known.since == since => *plan = Err(reason),
                _ => {}
            }
        }
        self.resolved_one(token, pending);
    }

    /// A group has let a session in that subscribes to it.
    pub(crate) fn group_joined(&mut self, question: u64, from: Offset) {
        let Some((token, index)) = self.questions.remove(&question) else { return };
        let Some(mut pending) = self.pending.remove(&token) else { return };
        let What::Subscribe { plans, .. } = &mut pending.what else { return };
        if let Some(Ok(plan)) = plans.get_mut(index) {
            plan.shared_from = Some(from);
        }
        self.resolved_one(token, pending);
    }

    /// One of the answers has come that a SUBSCRIBE waits for; with the last one it gets its place in the order.
    fn resolved_one(&mut self, token: u64, mut pending: PendingSubscribe) {
        let What::Subscribe { resolving, .. } = &mut pending.what else { return };
        *resolving -= 1;
        if *resolving > 0 {
            self.pending.insert(token, pending);
            return;
        }
        let session = pending.session;
        if self.sessions.get(session as usize).is_none_or(|it| it.generation != pending.generation) {
            return;
        }
        self.sequence(token, pending);
        if let Some(connection) = self.connection(session) {
            connection.pauses.set(Pause::Subscribing, false);
            self.actions.push(Action::Resume { session });
        }
    }

    /// The mark has its place in the order: everything up to `head` came before.
    pub(crate) fn sequenced(&mut self, token: u64, head: Offset) {
        if self.ask_state(token) || self.rescue(token, head) || self.group_marked(token, head) {
            return;
        }
        let Some(pending) = self.pending.remove(&token) else { return };
        if self.sessions.get(pending.session as usize).is_none_or(|it| it.generation != pending.generation) {
            return;
        }
        let (session, packet_id) = (pending.session, pending.packet_id);
        self.filters_placed(session, pending.what.filters());
        match pending.what {
            What::Subscribe { plans, id, cursors, .. } => {
                self.subscribed(session, packet_id, plans, id, cursors, head);
            }
            What::Unsubscribe { filters } => self.unsubscribed(session, packet_id, &filters),
            What::Resume => self.begin_lanes(session),
        }
        self.pump(session);
        self.lose_interest();
    }

    /// A session goes on: its lanes read once the shard's place in the log is known.
    pub(crate) fn sequence_resume(&mut self, session: u32) {
        let Some(generation) = self.sessions.get(session as usize).map(|it| it.generation) else { return };
        let token = self.next_token();
        let packet_id = PacketId::MIN;
        self.sequence(token, PendingSubscribe { session, generation, packet_id, what: What::Resume });
    }

    fn sequence(&mut self, token: u64, pending: PendingSubscribe) -> Flow {
        let (session, count) = (pending.session, pending.what.filters());
        self.pending.insert(token, pending);
        self.outgoing.interest(true);
        self.outgoing.mark(token);
        let Some(connection) = self.connection(session) else { return Flow::Stop };
        connection.sequencing += count;
        if connection.sequencing < SEQUENCING_MAX {
            return Flow::On;
        }
        connection.pauses.set(Pause::Sequencing, true);
        Flow::Pause
    }

    /// So many filters of a connection have their place; it is read again if that was all of them.
    fn filters_placed(&mut self, session: u32, count: usize) {
        let Some(connection) = self.connection(session) else { return };
        connection.sequencing = connection.sequencing.saturating_sub(count);
        if connection.sequencing == 0 && connection.pauses.has(Pause::Sequencing) {
            connection.pauses.set(Pause::Sequencing, false);
            self.actions.push(Action::Resume { session });
        }
    }

    fn subscribed(
        &mut self,
        session: u32,
        packet_id: PacketId,
        plans: Vec<Result<Plan, Reason>>,
        id: u32,
        cursors: bool,
        head: Offset,
    ) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.cursors |= cursors;
        it.change_subscriptions();
        let mut since_lane = None;
        let mut reasons = ReasonsBuf::new();
        let v5 = it.connection.as_deref().is_some_and(|connection| connection.version == Version::V5);
        for plan in plans {
            let reason = plan.and_then(|plan| self.grant(session, plan, id, v5, head, &mut since_lane));
            reasons.push(reason.unwrap_or_else(|reason| if v5 { reason } else { Reason::UnspecifiedError }));
        }
        self.answer_subscribe(session, packet_id, &reasons, head);
    }

    /// Enters one subscription; gives the reason code that grants it.
    fn grant(
        &mut self,
        session: u32,
        plan: Plan,
        id: u32,
        v5: bool,
        head: Offset,
        since_lane: &mut Option<u16>,
    ) -> Result<Reason, Reason> {
        let granted = match plan.options.qos {
            QoS::AtMostOnce => Reason::Success,
            QoS::AtLeastOnce => Reason::GrantedQoS1,
            QoS::ExactlyOnce => Reason::GrantedQoS2,
        };
        if plan.mute {
            return Ok(granted);
        }
        if plan.share.is_some() {
            return self.grant_shared(session, plan, id, head).map(|()| granted);
        }
        // A replay brings what is retained as the events that they are.
        let retained = |is_new| plan.since.is_none() && brings_retained(plan.options.retain_handling, is_new);
        let (again, anew) = (retained(false), retained(true));
        if let Some(index) = self.replace(session, &plan, id) {
            if again {
                self.begin_scan(session, index, head);
            }
            return Ok(granted);
        }
        self.has_room_for(session, &plan)?;
        let (lane, from) = match plan.start {
            // 3.x has no way to hear of a gap.
            Some(Start { gap: Some(_), .. }) if !v5 && plan.is_cursor() => {
                return Err(Reason::UnspecifiedError);
            }
            Some(start) if start.next <= head => {
                (self.lane_from(session, &plan, start, since_lane)?, start.next)
            }
            start => {
                self.declare(session, MAIN, &plan, start);
                (MAIN, head + 1)
            }
        };
        let Some(free) = self.subscribe_one(session, plan, id, lane, from) else {
            return Err(Reason::UnspecifiedError);
        };
        if anew {
            self.begin_scan(session, free, head);
        }
        Ok(granted)
    }

    /// Enters a subscription that a group fills.
    fn grant_shared(&mut self, session: u32, plan: Plan, id: u32, head: Offset) -> Result<(), Reason> {
        let Some(key) = plan.share.clone() else { return Err(Reason::UnspecifiedError) };
        if self.replace(session, &plan, id).is_some() {
            return Ok(());
        }
        if let Err(reason) = self.has_room_for(session, &plan) {
            self.give_share_up(session, &key);
            return Err(reason);
        }
        let lane = self.enter_share(session, &key).ok_or(Reason::QuotaExceeded)?;
        let from = plan.shared_from.unwrap_or(head + 1);
        self.subscribe_one(session, plan, id, lane, from).map(drop).ok_or(Reason::UnspecifiedError)
    }

    /// Whether the session may have one more subscription.
    fn has_room_for(&self, session: u32, plan: &Plan) -> Result<(), Reason> {
        let Some(it) = self.sessions.get(session as usize) else { return Err(Reason::UnspecifiedError) };
        let limits = &self.shared.limits;
        let cost_bytes = filter_cost_bytes(&plan.filter, plan.written.as_deref());
        let is_full = it.subscriptions.count() >= limits.subscriptions_per_client_max.min(SUBSCRIPTIONS_MAX)
            || it.subscription_bytes + cost_bytes > limits.subscription_bytes_per_client_max;
        if is_full { Err(Reason::QuotaExceeded) } else { Ok(()) }
    }

    /// Enters a new subscription; gives its place in the session.
    fn subscribe_one(&mut self, session: u32, plan: Plan, id: u32, lane: u16, from: Offset) -> Option<usize> {
        let it = self.sessions.get_mut(session as usize)?;
        let free = it.subscriptions.free();
        let cost_bytes = filter_cost_bytes(&plan.filter, plan.written.as_deref());
        let subscription = Subscription {
            filter: plan.filter,
            options: plan.options,
            id,
            lane,
            from,
            checked: plan.checked,
            written: plan.written,
        };
        // One that a group fills stands in the trie of the group's home.
        if !is_shared(lane) {
            self.trie.insert(&subscription.filter, subscription.interest(session, free as u16));
        }
        it.subscriptions.insert(subscription);
        it.subscription_bytes += cost_bytes;
        it.many = it.many || it.subscriptions.end() > 1;
        self.stats.subscriptions.add(1);
        Some(free)
    }

    /// The same filter again: its options change, and it goes on where it is [MQTT-3.8.4-3]. Gives its place.
    fn replace(&mut self, session: u32, plan: &Plan, id: u32) -> Option<usize> {
        let it = self.sessions.get_mut(session as usize)?;
        let known = it.subscriptions.find(plan.written.as_deref().unwrap_or(plan.filter.as_str()));
        // A plain filter with `since` is a wish to read again from there: it replaces the old one, lane and all.
        let Some(index) = known.filter(|_| plan.since.is_none() || plan.written.is_some()) else {
            if let Some(index) = known {
                self.remove_subscription(session, index);
            }
            return None;
        };
        let subscription = it.subscriptions.get_mut(index)?;
        (subscription.options, subscription.id, subscription.checked) = (plan.options, id, plan.checked);
        let interest = subscription.interest(session, index as u16);
        let place = |known: &crate::session::Interest| {
            known.session == session && usize::from(known.subscription) == index
        };
        if let Some(known) = self.trie.get_mut(&subscription.filter, place) {
            *known = interest;
        }
        Some(index)
    }

    /// The lane that a replay reads by: one for each `$replay` filter, one for all filters of a `since`.
    fn lane_from(
        &mut self,
        session: u32,
        plan: &Plan,
        start: Start,
        since_lane: &mut Option<u16>,
    ) -> Result<u16, Reason> {
        if plan.written.is_none()
            && let Some(number) = since_lane
        {
            // All filters of a `since` begin at the same place.
            return Ok(*number);
        }
        let Some(it) = self.sessions.get_mut(session as usize) else { return Err(Reason::UnspecifiedError) };
        let address = it.connection.as_deref().and_then(|connection| connection.address);
        if !self.shared.replays.begin(address) {
            return Err(Reason::QuotaExceeded);
        }
        let number = it.add_lane(Lane::replay(start.next));
        self.declare(session, number, plan, Some(start));
        if plan.written.is_none() {
            *since_lane = Some(number);
        }
        Ok(number)
    }

    /// What a cursor stood for and is gone is declared with the lane's next message.
    fn declare(&mut self, session: u32, lane: u16, plan: &Plan, start: Option<Start>) {
        let Some(start) = start.filter(|_| plan.is_cursor()) else { return };
        let Some((from, to)) = start.gap else { return };
        let why = if start.foreign { "the cursor is of another log" } else { "older than the retention" };
        self.stats.gaps_declared.add(1);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.many = true;
        if let Some(lane) = it.lane_mut(lane) {
            let gap = Gap::new(format!("{from}..{to} {why}"));
            lane.gap = Some(match lane.gap.take() {
                Some(before) => before.and(Some(gap)),
                None => gap,
            });
        }
    }

    fn unsubscribed(&mut self, session: u32, packet_id: PacketId, filters: &[Box<str>]) {
        let mut reasons = ReasonsBuf::new();
        for filter in filters {
            let Some(it) = self.sessions.get(session as usize) else { return };
            let found = it.subscriptions.find(filter);
            reasons.push(if found.is_some() { Reason::Success } else { Reason::NoSubscriptionExisted });
            if let Some(index) = found {
                self.remove_subscription(session, index);
            }
        }
        self.answer_unsubscribe(session, packet_id, &reasons);
    }

    /// Takes a subscription out of the session and the trie; the last of a replay's lane ends it.
    pub(crate) fn remove_subscription(&mut self, session: u32, index: usize) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(subscription) = it.subscriptions.take(index) else { return };
        self.trie.remove(&subscription.filter, |known| {
            known.session == session && usize::from(known.subscription) == index
        });
        it.change_subscriptions();
        let cost_bytes = filter_cost_bytes(&subscription.filter, subscription.written.as_deref());
        it.subscription_bytes = it.subscription_bytes.saturating_sub(cost_bytes);
        self.stats.subscriptions.sub(1);
        if let Some(scans) = it.scans.as_deref_mut() {
            scans.end(index as u16);
        }
        let lane = subscription.lane;
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

    pub(crate) fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}
