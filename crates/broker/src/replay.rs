//! Replay: lanes that read the log, at the pace of the socket and of the client's window, until they stand where the
//! shard stands, and turn live exactly there.

use crate::frames::{Recorded, Shape};
use crate::groups::GROUP;
use crate::interests::change_interest;
use crate::lane::{Gap, MAIN, Reading};
use crate::lane_filters::LaneFilters;
use crate::message::LaneKey;
use crate::session::Session;
use crate::shard::{Action, Now, Shard};
use crate::starving::is_dear;
use firehose_log::{Batch, Chunk, Event, Kind, Offset, ReadError};
use firehose_mqtt::{Property, QoS, Reason, Version};
use firehose_topic::TopicName;
use std::sync::Arc;

/// Comparisons of an event with a filter for one answer of the log, so that others get their turn.
const COMPARISONS_MAX: usize = 32 << 10;

impl Shard {
    /// Asks the log for each lane that is behind, as far as the outbox has room.
    pub(crate) fn pump(&mut self, session: u32) {
        if self.sessions.get(session as usize).is_some_and(|it| it.is_resending()) {
            return self.resend(session);
        }
        self.scan(session);
        let Some(it) = self.sessions.get(session as usize) else { return };
        for lane in it.lanes() {
            let Some(it) = self.sessions.get(session as usize) else { return };
            let Some(found) = it.lane(lane) else { continue };
            let Some(next) = found.wants() else { continue };
            let (is_paced, is_unbudgeted) = (found.paced, found.unbudgeted);
            if next > self.stand {
                self.join(session, lane);
                continue;
            }
            let Some(connection) = it.connection.as_deref() else { return };
            let waits = connection.blocked || connection.window_shut;
            if waits || connection.closing || connection.outbox.has_messages() {
                return;
            }
            if is_unbudgeted && !self.shared.replays.begin(connection.address) {
                // A session that goes on waits for room; it asks again once a second.
                continue;
            }
            if is_unbudgeted && let Some(lane) = self.sessions[session as usize].lane_mut(lane) {
                (lane.unbudgeted, lane.counted) = (false, true);
            }
            let Some(it) = self.sessions.get(session as usize) else { return };
            let Some(connection) = it.connection.as_deref() else { return };
            if is_paced && !self.shared.replays.may_send(connection.address, self.now.ms) {
                self.throttle(session);
                continue;
            }
            if !self.has_turn(session) {
                return self.starve(session);
            }
            let key = LaneKey { session, generation: it.generation, lane };
            let (upto, bytes_max) = (self.stand, self.shared.limits.replay_chunk_bytes);
            if let Some(lane) = self.sessions[session as usize].lane_mut(lane) {
                lane.reading = Reading::Replay { next, asked: true };
            }
            self.asks_log(key);
            self.actions.push(Action::Read { lane: key, from: next, upto, bytes_max });
        }
    }

    /// Comes back to the session soon.
    pub(crate) fn throttle(&mut self, session: u32) {
        if !self.throttled.contains(&session) {
            self.throttled.push(session);
        }
    }

    /// The log's answer to [`Action::Read`].
    pub fn answer(&mut self, key: LaneKey, chunk: Result<Chunk, ReadError>) {
        self.reads -= 1;
        self.starving.answered(key);
        match key.session & GROUP {
            0 => self.take_answer(key, chunk),
            _ => self.group_answer(key, chunk),
        }
        self.answered();
        self.feed();
    }

    fn take_answer(&mut self, key: LaneKey, chunk: Result<Chunk, ReadError>) {
        let Some(it) =
            self.sessions.get_mut(key.session as usize).filter(|it| it.generation == key.generation)
        else {
            return;
        };
        let v5 = it.connection.as_deref().is_some_and(|connection| connection.version == Version::V5);
        if matches!(chunk, Ok(Chunk::Gap { .. })) {
            // It asked when nothing was queued, and gets nothing but by this.
            it.gap_is_out(key.lane);
        }
        let Some(lane) = it.lane_mut(key.lane) else { return };
        let Reading::Replay { next, .. } = lane.reading else { return };
        lane.reading = Reading::Replay { next, asked: false };
        match chunk {
            Ok(Chunk::Batches(batches)) => self.replay(key, next, &batches),
            // The answer to an older question of a lane that went on meanwhile.
            Ok(Chunk::Gap { next: behind, .. }) if behind <= next => {}
            Ok(Chunk::Gap { next: behind, why }) => {
                self.stats.gaps_declared.add(1);
                let to = behind.saturating_sub(1);
                lane.gap = Some(match lane.gap.take() {
                    Some(gap) => gap.and_then(next, to, why),
                    None => Gap::new(format!("{next}..{to} {why}")),
                });
                lane.reading = Reading::Replay { next: behind, asked: false };
                it.many = true;
                if !v5 {
                    // MQTT 3.x has no way to say it, so the reader is told by being cut off, and finds a new session.
                    return self.disconnect(
                        key.session,
                        Reason::UnspecifiedError,
                        "a range of the log is gone",
                    );
                }
            }
            Ok(Chunk::End | Chunk::Blocked) => {}
            Err(error) => {
                tracing::warn!(client = %it.client_id, %error, "the log cannot be read for a replay");
                return self.disconnect(key.session, Reason::UnspecifiedError, "the log cannot be read");
            }
        }
        self.frames.seal();
        self.dirty(key.session);
        if self.connection(key.session).is_some_and(|connection| !connection.outbox.has_messages()) {
            self.pump(key.session);
        }
    }

    /// Queues what the lane's subscriptions match, up to where the outbox is full.
    fn replay(&mut self, key: LaneKey, mut next: Offset, batches: &[Arc<Batch>]) {
        if batches.first().is_none_or(|batch| batch.base() > next) {
            // The lane fell back further while this was read: it asks again.
            return;
        }
        let Some(it) = self.sessions.get_mut(key.session as usize) else { return };
        let mut filters = it.lane_filters(key.lane);
        let before = it.connection.as_deref().map_or(0, |connection| connection.outbox.bytes());
        let (mut comparisons, mut events) = (filters.take_comparisons(), 0);
        'full: for batch in batches {
            let age_secs = age_secs(batch.time_us(), self.now);
            let skip = next.saturating_sub(batch.base()) as usize;
            for index in skip..batch.len() {
                let offset = batch.base() + index as Offset;
                if offset > self.stand {
                    break 'full;
                }
                let record = batch.record(index);
                if record.kind() == Kind::Event
                    && !self.taken_back.contains(&offset)
                    && !self.replay_one(key, batch, offset, &record.event(), age_secs, &mut filters)
                {
                    break 'full;
                }
                next = offset + 1;
                events += 1;
                comparisons += filters.take_comparisons();
                if comparisons >= COMPARISONS_MAX {
                    break 'full;
                }
            }
        }
        let Some(it) = self.sessions.get_mut(key.session as usize) else { return };
        it.keep_filters(filters);
        let mut is_paced = false;
        if let Some(lane) = it.lane_mut(key.lane) {
            lane.reading = Reading::Replay { next, asked: false };
            is_paced = lane.paced;
        }
        let Some(connection) = it.connection.as_deref_mut() else { return };
        let sent = connection.outbox.bytes().saturating_sub(before);
        connection.dear = is_dear(comparisons, events);
        connection.fresh_bytes += sent;
        self.fresh_bytes += sent;
        if is_paced {
            self.shared.replays.sent(connection.address, sent, self.now.ms);
        }
    }

    /// Queues one event if the lane reads it; false: the outbox is full, and this event is still to come.
    fn replay_one(
        &mut self,
        key: LaneKey,
        batch: &Batch,
        offset: Offset,
        event: &Event<'_>,
        age_secs: u32,
        filters: &mut LaneFilters,
    ) -> bool {
        let Some(it) = self.sessions.get_mut(key.session as usize) else { return false };
        let Some(wanted) = wanted(it, filters, offset, event, || batch_origin(batch, offset)) else {
            return true;
        };
        if wanted.checked && !self.auth.may_read(&it.identity, &it.client_id, TopicName::trusted(event.topic))
        {
            return true;
        }
        if expired(event, age_secs) {
            return true;
        }
        let cursor = it.cursors;
        let gap = it.lane_mut(key.lane).and_then(|lane| lane.gap_before(offset));
        let Some(connection) = it.connection.as_deref_mut() else { return false };
        if connection.outbox.bytes() >= self.shared.limits.outbox_bytes_max {
            return false;
        }
        let v5 = connection.version == Version::V5;
        let packet_bytes_max = connection.packet_bytes_max;
        let cursor = (cursor && v5).then(|| self.cursor_in(batch, offset));
        let mut extra: Vec<Property<'_>> =
            wanted.ids.iter().map(|id| Property::SubscriptionId(*id)).collect();
        extra.extend(cursor.as_deref().map(|cursor| Property::UserProperty("firehose-cursor", cursor)));
        let without_gap = extra.len();
        let ranges = gap.iter().flat_map(|gap| gap.ranges());
        extra.extend(ranges.map(|range| Property::UserProperty("firehose-gap", range)));
        let qos = wanted.qos.min(QoS::from_u8(event.flags.qos()).unwrap_or(QoS::AtMostOnce));
        let retain = wanted.retain && event.flags.retain();
        let recorded = Recorded { time_us: batch.time_us(), age_secs };
        let mut encode = |extra: &[Property<'_>]| {
            let shape = Shape { v5, qos, retain, extra: if v5 { extra } else { &[] } };
            let range = self.frames.encode(&shape, recorded, std::iter::once((offset, *event)));
            (self.frames.largest(&shape, &range) <= packet_bytes_max).then_some(range)
        };
        // What fits goes without a gap that would make it too large: the next message that has room tells that.
        let telling = encode(&extra);
        let tells_gap = gap.is_some() && telling.is_some();
        let range = telling.or_else(|| gap.is_some().then(|| encode(&extra[..without_gap])).flatten());
        if let Some(range) = range
            && let Some(it) = self.sessions.get_mut(key.session as usize)
        {
            let read_by = (tells_gap && qos == QoS::AtMostOnce).then(|| it.read_by());
            let Some(connection) = it.connection.as_deref_mut() else { return false };
            connection.outbox.push(&range, key.lane, qos, true);
            self.stats.messages_sent.add(1);
            if tells_gap && let Some(lane) = it.lane_mut(key.lane) {
                lane.told_gap(offset, read_by);
            }
        }
        true
    }

    /// The lane has read all that the shard has looked at: from here on the mailbox brings the rest, but to a follower.
    fn join(&mut self, session: u32, lane: u16) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let follows = it.follower.is_some();
        if let Some(lane) = it.lane_mut(lane) {
            if !follows {
                lane.reading = Reading::Live;
            }
            (lane.paced, lane.unbudgeted) = (false, false);
        }
        self.replay_ended(session, lane);
        self.merge_live(session);
    }

    /// Lanes that are live (or a follower's that have read all) stand at the same place: they become one. Not before what they queued is out: if that were
    /// dropped, each one would have to go on from another place.
    pub(crate) fn merge_live(&mut self, session: u32) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        let queued = it.connection.as_deref().is_some_and(|connection| connection.outbox.has_messages());
        if queued || !it.is_up(MAIN, self.stand) {
            return;
        }
        for lane in it.lanes().filter(|lane| *lane != MAIN) {
            if self.sessions.get(session as usize).is_some_and(|it| it.is_up(lane, self.stand)) {
                self.merge_into_main(session, lane);
            }
        }
    }

    /// A replay's lane and the main one stand at the same place: its subscriptions go on there.
    fn merge_into_main(&mut self, session: u32, lane: u16) {
        // A follower's has read all, but may not have been told so.
        self.replay_ended(session, lane);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.gaps_are_out();
        let gap = it.lane_mut(lane).and_then(|lane| lane.gap.take());
        it.main.gap = match it.main.gap.take() {
            Some(of_main) => Some(of_main.and(gap)),
            None => gap,
        };
        if let Some(persistence) = it.persistence.as_deref_mut() {
            persistence.told.join_main(lane);
        }
        for (index, subscription) in it.subscriptions.iter_mut().filter(|(_, it)| it.lane == lane) {
            subscription.lane = MAIN;
            let interest = subscription.interest(session, index as u16);
            change_interest(&mut self.trie, &subscription.filter, subscription.place, interest);
        }
        it.change_subscriptions();
        it.more_lanes[usize::from(lane) - 1] = None;
        while it.more_lanes.last().is_some_and(Option::is_none) {
            it.more_lanes.pop();
        }
    }

    /// Gives a lane's replay back to the budget.
    pub(crate) fn replay_ended(&mut self, session: u32, lane: u16) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let address = it.connection.as_deref().and_then(|connection| connection.address);
        if it.lane_mut(lane).is_some_and(|lane| std::mem::take(&mut lane.counted)) {
            self.shared.replays.end(address);
        }
    }
}

/// What a lane's subscriptions together want of an event.
struct Wanted {
    qos: QoS,
    retain: bool,
    ids: Vec<u32>,
    checked: bool,
}

fn wanted(
    it: &Session,
    filters: &mut LaneFilters,
    offset: Offset,
    event: &Event<'_>,
    origin: impl Fn() -> u64,
) -> Option<Wanted> {
    let topic = TopicName::trusted(event.topic);
    let mut wanted: Option<Wanted> = None;
    for place in filters.find(it, topic) {
        let Some(subscription) = it.subscriptions.get(usize::from(*place)) else { continue };
        let options = &subscription.options;
        if offset < subscription.from || (options.no_local && origin() == it.hash) {
            continue;
        }
        let so_far =
            wanted.get_or_insert(Wanted { qos: options.qos, retain: false, ids: Vec::new(), checked: true });
        so_far.qos = so_far.qos.max(options.qos);
        so_far.retain |= options.retain_as_published;
        so_far.checked &= subscription.checked;
        if subscription.id != 0 {
            so_far.ids.push(subscription.id);
        }
    }
    wanted
}

fn batch_origin(batch: &Batch, offset: Offset) -> u64 {
    batch.record((offset - batch.base()) as usize).origin().session
}

/// How long ago something was recorded.
pub(crate) fn age_secs(time_us: i64, now: Now) -> u32 {
    let age_secs = (now.wall_us - time_us).max(0) / 1_000_000;
    u32::try_from(age_secs).unwrap_or(u32::MAX)
}

/// Whether the message's expiry interval has passed [MQTT-3.3.2-5].
pub(crate) fn expired(event: &Event<'_>, age_secs: u32) -> bool {
    event.attributes.iter().any(
        |attribute| matches!(attribute, firehose_log::Attribute::MessageExpiry(secs) if secs <= age_secs),
    )
}
