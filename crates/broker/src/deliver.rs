//! Delivery of a batch: match, encode once, push to outboxes.
//!
//! Neighbours in a batch that have topic and flags in common are a *run*: matched once, and pushed as one range.

use crate::frames::{Range, Recorded, Shape};
use crate::groups::GROUP;
use crate::lane::{Gap, MAIN};
use crate::session::{Interest, Session};
use crate::shard::{Shard, mark_dirty};
use firehose_auth::Identity;
use firehose_log::{Batch, Event, Kind, Offset};
use firehose_mqtt::{Property, QoS, Version};
use firehose_topic::TopicName;
use std::sync::Arc;

/// What one run needs again and again, kept between runs for its memory.
#[derive(Default)]
pub(crate) struct RunCache {
    matched: Vec<Interest>,
    special: Vec<Interest>,
    groups: Vec<u32>,
    plain: [Option<(Range, u32)>; 6],
    keyed: Vec<(Key, Range, u32)>,
    verdicts: Vec<(Identity, bool)>,
}

/// A shape that some subscribers of a run share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    v5: bool,
    qos: QoS,
    retain: bool,
    ids: Vec<u32>,
    cursor: bool,
}

/// A run within a batch.
#[derive(Clone)]
struct Run<'a> {
    batch: &'a Batch,
    records: std::ops::Range<usize>,
    event: Event<'a>,
    qos: QoS,
    logged: bool,
}

impl<'a> Run<'a> {
    fn recorded(&self) -> Recorded {
        Recorded { time_us: self.batch.time_us(), age_secs: 0 }
    }

    fn events(&self) -> impl Iterator<Item = (Offset, Event<'a>)> + use<'a> {
        let (batch, logged) = (self.batch, self.logged);
        self.records.clone().map(move |index| {
            let offset = if logged { batch.base() + index as Offset } else { 0 };
            (offset, batch.record(index).event())
        })
    }
}

/// In place of a largest frame: a new buffer began in the middle of the run, so that it goes record by record.
const SPLIT: u32 = u32::MAX;

/// What a group of overlapping subscriptions of one lane comes to.
#[derive(Default)]
struct Merged {
    qos: Option<QoS>,
    retain: bool,
    ids: Vec<u32>,
    no_local: bool,
    checked: bool,
}

impl Shard {
    /// Delivers a batch to the live lanes, and stands behind it.
    pub(crate) fn deliver(&mut self, batch: &Arc<Batch>) {
        if !self.trie.is_empty() || !self.followers.is_empty() {
            let mut runs = std::mem::take(&mut self.runs);
            let mut first = 0;
            while first < batch.len() {
                let end = run_end(batch, first);
                let record = batch.record(first);
                if record.kind() == Kind::Event {
                    let event = record.event();
                    let qos = QoS::from_u8(event.flags.qos()).unwrap_or(QoS::AtMostOnce);
                    let run = Run { batch, records: first..end, event, qos, logged: batch.is_logged() };
                    let steps = self.deliver_run(&run, &mut runs);
                    for slot in runs.groups.drain(..) {
                        self.deliver_to_group(slot, batch, first..end);
                    }
                    if steps > self.shared.limits.match_steps_max {
                        let behind = batch.base() + end as Offset;
                        self.set_aside(if batch.is_logged() { behind } else { self.stand + 1 });
                    }
                }
                first = end;
            }
            self.runs = runs;
        }
        if batch.is_logged() {
            self.stand = self.stand.max(batch.last());
        }
    }

    /// Gives how many steps it took to find who gets it.
    fn deliver_run(&mut self, run: &Run<'_>, cache: &mut RunCache) -> usize {
        cache.matched.clear();
        let (topic, matched) = (TopicName::trusted(run.event.topic), &mut cache.matched);
        let steps = self.trie.for_each_match(topic, |interest| matched.push(*interest));
        if !run.logged {
            self.match_followers(topic, matched);
        }
        if cache.matched.is_empty() {
            return steps;
        }
        cache.special.clear();
        cache.plain = Default::default();
        let mut sent = 0;
        for interest in &cache.matched {
            let Some(it) = self.sessions.get_mut(interest.session as usize) else {
                if interest.session & GROUP != 0 {
                    cache.groups.push(interest.session & !GROUP);
                }
                continue;
            };
            if interest.special || it.many || it.cursors {
                cache.special.push(*interest);
                continue;
            }
            if !gets(it, interest.lane, run.logged) {
                self.stats.messages_dropped.add(if run.logged { 0 } else { run.records.len() as u64 });
                continue;
            }
            let Some(connection) = it.connection.as_deref_mut() else { continue };
            let shape = Shape {
                v5: (connection.version == Version::V5),
                qos: interest.qos.min(run.qos),
                retain: false,
                extra: &[],
            };
            let slot = &mut cache.plain[usize::from(shape.v5) * 3 + shape.qos as usize];
            let (range, largest) = slot.get_or_insert_with(|| {
                let range = self.frames.encode(&shape, run.recorded(), run.events());
                let largest = self.frames.largest(&shape, &range);
                (range, largest)
            });
            if *largest > connection.packet_bytes_max {
                cache.special.push(*interest);
                continue;
            }
            connection.outbox.push(range, interest.lane, shape.qos, run.logged);
            mark_dirty(&mut self.dirty, interest.session, &mut connection.dirty);
            sent += u64::from(range.end - range.first);
        }
        self.stats.messages_sent.add(sent);
        if !cache.special.is_empty() {
            self.deliver_special(run, cache);
        }
        steps
    }

    /// Subscriptions that need a closer look: several of a lane are one copy, with the highest QoS and all identifiers.
    fn deliver_special(&mut self, run: &Run<'_>, cache: &mut RunCache) {
        cache.keyed.clear();
        cache.verdicts.clear();
        let mut special = std::mem::take(&mut cache.special);
        special.sort_unstable_by_key(|it| (it.session, it.lane));
        for group in special.chunk_by(|a, b| (a.session, a.lane) == (b.session, b.lane)) {
            self.deliver_group(run, group, cache);
        }
        cache.special = special;
    }

    fn deliver_group(&mut self, run: &Run<'_>, group: &[Interest], cache: &mut RunCache) {
        let (number, lane) = (group[0].session, group[0].lane);
        let Some(it) = self.sessions.get(number as usize) else { return };
        if !gets(it, lane, run.logged) {
            self.stats.messages_dropped.add(if run.logged { 0 } else { run.records.len() as u64 });
            return;
        }
        let Some(version) = it.connection.as_deref().map(|connection| connection.version) else { return };
        let merged = merge(it, group, false);
        if merged.checked && !self.may_read(it, run.event.topic, cache) {
            return;
        }
        let cursor = it.cursors && run.logged && (version == Version::V5);
        let key_of = |merged: Merged| {
            let qos = merged.qos?.min(run.qos);
            let retain = merged.retain && run.event.flags.retain();
            Some(Key { v5: (version == Version::V5), qos, retain, ids: merged.ids, cursor })
        };
        let tells_gap = run.logged && it.lane(lane).is_some_and(|lane| lane.gap.is_some());
        if !merged.no_local && !tells_gap {
            let Some(key) = key_of(merged) else { return };
            return self.push_keyed(run, &key, number, lane, Some(cache));
        }
        // With no-local, the client's own publications go to its other subscriptions only.
        let (own, own_key) = (it.hash, key_of(merge(it, group, true)));
        let Some(key) = key_of(merged) else { return };
        let is_own = |index: usize| run.batch.record(index).origin().session == own;
        let mut begin = run.records.start;
        while begin < run.records.end {
            let own = is_own(begin);
            let end = (begin..run.records.end).find(|index| is_own(*index) != own).unwrap_or(run.records.end);
            let piece = Run { records: begin..end, ..run.clone() };
            match (own, &own_key) {
                (true, Some(key)) => self.push_telling(&piece, key, number, lane),
                (true, None) => {}
                (false, _) => self.push_telling(&piece, &key, number, lane),
            }
            begin = end;
        }
    }

    /// Pushes a run; if the lane has a gap to tell of, its first message does that the client takes with it. Those before,
    /// which are too large with it, go without.
    fn push_telling(&mut self, run: &Run<'_>, key: &Key, session: u32, lane: u16) {
        for index in run.records.clone() {
            let offset = run.batch.base() + index as Offset;
            let of_lane = |it: &'_ mut Session| it.lane_mut(lane).and_then(|lane| lane.gap_before(offset));
            let Some(gap) = self.sessions.get_mut(session as usize).filter(|_| run.logged).and_then(of_lane)
            else {
                let rest = Run { records: index..run.records.end, ..run.clone() };
                return self.push_keyed(&rest, key, session, lane, None);
            };
            let one = Run { records: index..index + 1, ..run.clone() };
            if !self.push_with_gap(&one, key, session, lane, &gap) {
                self.push_keyed(&one, key, session, lane, None);
            }
        }
    }

    /// Pushes the one message of a run, which tells a gap; false: it is too large with it.
    fn push_with_gap(&mut self, run: &Run<'_>, key: &Key, session: u32, lane: u16, gap: &Gap) -> bool {
        let offset = run.batch.base() + run.records.start as Offset;
        let cursor = key.cursor.then(|| self.cursor_in(run.batch, offset));
        let mut extra: Vec<Property<'_>> = key.ids.iter().map(|id| Property::SubscriptionId(*id)).collect();
        extra.extend(cursor.as_deref().map(|cursor| Property::UserProperty("firehose-cursor", cursor)));
        extra.extend(gap.ranges().map(|range| Property::UserProperty("firehose-gap", range)));
        let shape = Shape { v5: key.v5, qos: key.qos, retain: key.retain, extra: &extra };
        let range = self.frames.encode(&shape, run.recorded(), run.events());
        let largest = self.frames.largest(&shape, &range);
        let Some(it) = self.sessions.get_mut(session as usize) else { return true };
        let read_by = (key.qos == QoS::AtMostOnce).then(|| it.read_by());
        let Some(connection) = it.connection.as_deref_mut() else { return true };
        if largest > connection.packet_bytes_max {
            return false;
        }
        connection.outbox.push(&range, lane, key.qos, run.logged);
        mark_dirty(&mut self.dirty, session, &mut connection.dirty);
        self.stats.messages_sent.add(1);
        if let Some(lane) = it.lane_mut(lane) {
            lane.told_gap(offset, read_by);
        }
        true
    }

    /// Pushes a run in a shape that few share: encoded once for all who share it, if there is a cache to find it in.
    fn push_keyed(
        &mut self,
        run: &Run<'_>,
        key: &Key,
        session: u32,
        lane: u16,
        cache: Option<&mut RunCache>,
    ) {
        let known = cache.as_ref().and_then(|cache| cache.keyed.iter().find(|(it, ..)| it == key));
        let (range, largest) = match known {
            Some((_, range, largest)) => (range.clone(), *largest),
            None => {
                let made = self.encode_keyed(run, key);
                if let Some(cache) = cache {
                    cache.keyed.push((key.clone(), made.0.clone(), made.1));
                }
                made
            }
        };
        let Some(connection) = self.connection(session) else { return };
        if largest == SPLIT || largest > connection.packet_bytes_max {
            return self.push_one_by_one(run, key, session, lane);
        }
        connection.outbox.push(&range, lane, key.qos, run.logged);
        self.dirty(session);
        self.stats.messages_sent.add(u64::from(range.end - range.first));
    }

    fn encode_keyed(&mut self, run: &Run<'_>, key: &Key) -> (Range, u32) {
        let ids: Vec<Property<'_>> = key.ids.iter().map(|id| Property::SubscriptionId(*id)).collect();
        if !key.cursor {
            let shape = Shape { v5: key.v5, qos: key.qos, retain: key.retain, extra: &ids };
            let range = self.frames.encode(&shape, run.recorded(), run.events());
            let largest = self.frames.largest(&shape, &range);
            return (range, largest);
        }
        let mut whole: Option<(Range, u32)> = None;
        for (offset, event) in run.events() {
            let cursor = self.cursor_in(run.batch, offset);
            let mut extra = ids.clone();
            extra.push(Property::UserProperty("firehose-cursor", &cursor));
            let shape = Shape { v5: key.v5, qos: key.qos, retain: key.retain, extra: &extra };
            let range = self.frames.encode(&shape, run.recorded(), std::iter::once((offset, event)));
            let largest = self.frames.largest(&shape, &range);
            whole = match whole {
                Some((so_far, max)) if Arc::ptr_eq(&so_far.frames, &range.frames) => Some((
                    Range { end: range.end, bytes: so_far.bytes + range.bytes, ..so_far },
                    max.max(largest),
                )),
                Some((so_far, _)) => Some((so_far, SPLIT)),
                None => Some((range, largest)),
            };
        }
        whole.unwrap_or_else(|| {
            let shape = Shape { v5: key.v5, qos: key.qos, retain: key.retain, extra: &[] };
            (self.frames.encode(&shape, run.recorded(), std::iter::empty()), 0)
        })
    }

    /// A packet that is too large for the client is not sent, as if it were [MQTT-3.1.2-25]; the others are.
    fn push_one_by_one(&mut self, run: &Run<'_>, key: &Key, session: u32, lane: u16) {
        for index in run.records.clone() {
            let run = Run { records: index..index + 1, ..run.clone() };
            let (range, largest) = self.encode_keyed(&run, key);
            let Some(connection) = self.connection(session) else { return };
            if largest <= connection.packet_bytes_max {
                connection.outbox.push(&range, lane, key.qos, run.logged);
                self.dirty(session);
                self.stats.messages_sent.add(1);
            }
        }
    }

    fn may_read(&self, it: &Session, topic: &str, cache: &mut RunCache) -> bool {
        let by_client_id = self.auth.uses_client_id();
        if let Some((_, verdict)) =
            cache.verdicts.iter().find(|(who, _)| !by_client_id && *who == it.identity)
        {
            return *verdict;
        }
        let verdict = self.auth.may_read(&it.identity, &it.client_id, TopicName::trusted(topic));
        cache.verdicts.push((it.identity.clone(), verdict));
        verdict
    }

    /// The text of the cursor of an offset in a batch.
    pub(crate) fn cursor_in(&self, batch: &Batch, offset: Offset) -> String {
        self.cursor_at(offset, batch.epoch(), batch.time_us())
    }

    /// The text of the cursor of an offset that was recorded then.
    pub(crate) fn cursor_at(&self, offset: Offset, epoch: u32, time_us: i64) -> String {
        let recorded_secs = time_us.div_euclid(1_000_000);
        firehose_log::Cursor { log_id: self.shared.log_id, epoch, offset, recorded_secs }.encode()
    }
}

/// Whether a lane gets what the mailbox brings: the live ones, and followers what is in no log.
fn gets(it: &Session, lane: u16, is_logged: bool) -> bool {
    let is_live =
        if lane == MAIN { it.main.is_live() } else { it.lane(lane).is_some_and(|lane| lane.is_live()) };
    is_live || !is_logged && it.follower.is_some()
}

/// What the subscriptions of a lane want together; `own`: of the client's own publications.
fn merge(it: &Session, group: &[Interest], own: bool) -> Merged {
    let mut merged = Merged { checked: true, ..Merged::default() };
    for interest in group {
        let Some(subscription) = it.subscriptions.get(usize::from(interest.subscription)) else {
            continue;
        };
        if own && subscription.options.no_local {
            continue;
        }
        merged.qos = merged.qos.max(Some(interest.qos));
        merged.retain |= subscription.options.retain_as_published;
        merged.no_local |= subscription.options.no_local;
        merged.checked &= subscription.checked;
        if subscription.id != 0 {
            merged.ids.push(subscription.id);
        }
    }
    merged
}

/// Where the run that begins at `first` ends.
fn run_end(batch: &Batch, first: usize) -> usize {
    let of = batch.record(first);
    (first + 1..batch.len())
        .find(|index| {
            let next = batch.record(*index);
            next.kind() != of.kind() || next.flags() != of.flags() || next.topic_bytes() != of.topic_bytes()
        })
        .unwrap_or(batch.len())
}
