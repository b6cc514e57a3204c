//! SUBSCRIBE and UNSUBSCRIBE. Both are sequenced: they take effect at a mark in the one order, so that what a
//! subscription gets begins exactly behind the head that its SUBACK may name.

use crate::connection::Pause;
use crate::filter_list::worth;
use crate::inbound::Flow;
use crate::interests::change_interest;
use crate::lane::{Gap, Lane, MAIN};
use crate::member::is_shared;
use crate::pending::{Pending, Subscribing, What};
use crate::plan::Plan;
use crate::retained::brings_retained;
use crate::scan::RETAINED;
use crate::session::{Subscription, filter_cost_bytes};
use crate::shard::{Action, Shard};
use firehose_log::{Offset, Since, SinceError, Start};
use firehose_mqtt::{PacketId, QoS, Reason, ReasonsBuf, Subscribe, SubscribeItem, Version};
use firehose_topic::parse_share;

/// As many subscriptions as a session can number, whatever the configuration says.
const SUBSCRIPTIONS_MAX: usize = RETAINED as usize;

impl Shard {
    /// A SUBSCRIBE packet.
    pub(crate) fn subscribe(&mut self, session: u32, packet: &Subscribe<'_>) -> Flow {
        let Some(it) = self.sessions.get(session as usize) else { return Flow::Stop };
        let no_local = |item: SubscribeItem<'_>| item.options.no_local && parse_share(item.filter).is_some();
        let (mut count, mut some_no_local) = (0_usize, false);
        for options in packet.filters.options() {
            (count, some_no_local) = (count + 1, some_no_local | options.no_local);
        }
        if some_no_local && packet.filters.into_iter().any(no_local) {
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
        // What is more than a client may have is not even looked at: nothing is kept of it but that it is refused.
        let limits = &self.shared.limits;
        let mut bytes = 0;
        let may_be_had = packet.filters.take(limits.subscriptions_per_client_max).take_while(|item| {
            bytes += item.filter.len();
            bytes <= limits.subscription_bytes_per_client_max
        });
        let items: Vec<SubscribeItem<'_>> = may_be_had.collect();
        let subscribing = Subscribing {
            filters: items.iter().map(|item| item.filter).collect(),
            options: items.iter().map(|item| item.options).collect(),
            plans: Vec::new(),
            beyond: count.saturating_sub(items.len()),
            since,
            id: packet.properties.subscription_id().unwrap_or(0),
            cursors: user("firehose-cursor").is_some_and(|(_, value)| value == "on"),
            resolving: 0,
            auth_generation: self.auth_generation,
        };
        let what = What::Subscribe(Box::new(subscribing));
        self.begin_pending(Pending::new(session, generation, packet.packet_id, what))
    }

    /// Finds out what some filters of a SUBSCRIBE ask for; once that is known of all, it goes on to the next step.
    pub(crate) fn plan_some(&mut self, token: u64, mut pending: Pending, count: usize) {
        let session = pending.session;
        let version = self.connection(session).map(|connection| connection.version);
        let (What::Subscribe(subscribing), Some(version)) = (&mut pending.what, version) else { return };
        let Subscribing { filters, options, plans, since, .. } = &mut **subscribing;
        let mut left = count;
        while left > 0 {
            let options = options.get(plans.len()).copied().unwrap_or_default();
            let Some(filter) = filters.take_next() else { break };
            left = left.saturating_sub(worth(filter));
            let plan = self.plan(session, version, filter, options, since);
            if matches!(plan, Err(Reason::MalformedPacket)) {
                let why = "a malformed topic filter [MQTT-4.7.1-1]";
                self.violate(session, Reason::MalformedPacket, why);
                return;
            }
            plans.push(plan);
        }
        if !filters.is_through() {
            return self.line_up(token, pending);
        }
        let resolving = self.ask_where(token, plans) + self.ask_groups(session, token, plans);
        subscribing.resolving = resolving;
        if resolving == 0 {
            return self.want_place(token, pending);
        }
        self.pending.insert(token, pending);
        if let Some(connection) = self.connection(session) {
            connection.pauses.set(Pause::Subscribing, true);
        }
    }

    /// The log knows where one of the filters of a SUBSCRIBE begins.
    pub(crate) fn resolved(&mut self, question: u64, start: Result<Start, SinceError>) {
        // Answers may overtake each other: each question says which filter it is about.
        let Some((token, index)) = self.questions.remove(&question) else { return };
        let Some(mut pending) = self.pending.remove(&token) else { return };
        let What::Subscribe(subscribing) = &mut pending.what else { return };
        let plans = &mut subscribing.plans;
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
        let What::Subscribe(subscribing) = &mut pending.what else { return };
        if let Some(Ok(plan)) = subscribing.plans.get_mut(index) {
            plan.shared_from = Some(from);
        }
        self.resolved_one(token, pending);
    }

    /// One of the answers has come that a SUBSCRIBE waits for; with the last one it gets its place in the order.
    fn resolved_one(&mut self, token: u64, mut pending: Pending) {
        let What::Subscribe(subscribing) = &mut pending.what else { return };
        subscribing.resolving -= 1;
        if subscribing.resolving > 0 {
            self.pending.insert(token, pending);
            return;
        }
        let session = pending.session;
        if !self.is_awaited(&pending) {
            return;
        }
        self.want_place(token, pending);
        if let Some(connection) = self.connection(session) {
            connection.pauses.set(Pause::Subscribing, false);
            self.actions.push(Action::Resume { session });
        }
    }

    /// All filters of a SUBSCRIBE begin at its place, behind `head`, which its SUBACK may name: so they are entered together,
    /// however many turns it took to look at them.
    pub(crate) fn subscribed(
        &mut self,
        session: u32,
        packet_id: PacketId,
        subscribing: Subscribing,
        head: Offset,
    ) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Subscribing { plans, beyond, id, cursors, auth_generation, .. } = subscribing;
        it.cursors |= cursors;
        it.change_subscriptions();
        let mut since_lane = None;
        let mut reasons = ReasonsBuf::new();
        let v5 = it.connection.as_deref().is_some_and(|connection| connection.version == Version::V5);
        let mut answer = |reason: Result<Reason, Reason>| {
            reasons.push(reason.unwrap_or_else(|reason| if v5 { reason } else { Reason::UnspecifiedError }));
        };
        let has_new_rules = auth_generation != self.auth_generation;
        for mut plan in plans {
            if let Ok(plan) = &mut plan
                && has_new_rules
            {
                self.recheck_plan(session, plan);
            }
            answer(plan.and_then(|plan| self.grant(session, plan, id, v5, head, &mut since_lane)));
        }
        (0..beyond).for_each(|_| answer(Err(Reason::QuotaExceeded)));
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
        self.has_room_for(session, &plan, 0)?;
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
        if let Err(reason) = self.has_room_for(session, &plan, 0) {
            self.give_share_up(session, &key);
            return Err(reason);
        }
        let lane = self.enter_share(session, &key).ok_or(Reason::QuotaExceeded)?;
        let from = plan.shared_from.unwrap_or(head + 1);
        self.subscribe_one(session, plan, id, lane, from).map(drop).ok_or(Reason::UnspecifiedError)
    }

    /// What a filter of a group costs the session beside `asked_bytes`, if it may have it; nothing, if it is there.
    pub(crate) fn room_for_group(
        &self,
        session: u32,
        plan: &Plan,
        asked_bytes: usize,
    ) -> Result<usize, Reason> {
        let Some(it) = self.sessions.get(session as usize) else { return Err(Reason::UnspecifiedError) };
        if it.subscriptions.find(plan.written.as_deref().unwrap_or_default()).is_some() {
            return Ok(0);
        }
        self.has_room_for(session, plan, asked_bytes)?;
        Ok(filter_cost_bytes(&plan.filter, plan.written.as_deref()))
    }

    /// Whether the session may have one more subscription, when others take so many bytes besides.
    fn has_room_for(&self, session: u32, plan: &Plan, others_bytes: usize) -> Result<(), Reason> {
        let Some(it) = self.sessions.get(session as usize) else { return Err(Reason::UnspecifiedError) };
        let limits = &self.shared.limits;
        let cost_bytes = filter_cost_bytes(&plan.filter, plan.written.as_deref());
        let is_full = it.subscriptions.count() >= limits.subscriptions_per_client_max.min(SUBSCRIPTIONS_MAX)
            || it.subscription_bytes + others_bytes + cost_bytes > limits.subscription_bytes_per_client_max;
        if is_full { Err(Reason::QuotaExceeded) } else { Ok(()) }
    }

    /// Enters a new subscription; gives its place in the session.
    fn subscribe_one(&mut self, session: u32, plan: Plan, id: u32, lane: u16, from: Offset) -> Option<usize> {
        let it = self.sessions.get_mut(session as usize)?;
        let free = it.subscriptions.free();
        let cost_bytes = filter_cost_bytes(&plan.filter, plan.written.as_deref());
        let mut subscription = Subscription {
            filter: plan.filter,
            options: plan.options,
            id,
            lane,
            from,
            place: 0,
            checked: plan.checked,
            written: plan.written,
        };
        // One that a group fills stands in the trie of the group's home.
        if !is_shared(lane) {
            self.followers.enter(&mut self.trie, session, it, &mut subscription);
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
        if !is_shared(subscription.lane) {
            let interest = subscription.interest(session, index as u16);
            change_interest(&mut self.trie, &subscription.filter, subscription.place, interest);
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
}
