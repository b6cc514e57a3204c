//! What a session that goes on sends again: messages that its client had not acknowledged, in their order and with DUP,
//! PUBREL for those that it had received; before anything new (MQTT 5.0 section 4.4). The log gives the messages, page by
//! page, at the pace of the socket and of Receive Maximum.

use crate::ended::Ended;
use crate::fetched::FetchedEvents;
use crate::frames::{Recorded, Shape, encode_event};
use crate::gate::Gate;
use crate::groups::GROUP;
use crate::inflight::{Acknowledged, Inflight};
use crate::lane::Gap;
use crate::member::is_shared;
use crate::outbox::{Flushed, Outbox, OwnFrame, Scratch, Wire};
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{StoredInflight, StoredState};
use firehose_log::{Batch, Offset, ReadError};
use firehose_mqtt::{AckKind, Property, QoS, Reason, Version, encode_ack, patch};
use firehose_topic::TopicName;
use std::collections::VecDeque;

/// Messages asked of the log at once.
const PAGE: usize = 32;
/// Bytes that leave the session's own frames for the socket at once.
const PORTION_BYTES: usize = 16 << 10;
/// Portions of one flush: more waits for the next turn.
const PORTIONS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Resend {
    /// Packet ids to be sent again, in order, and whether with DUP: some never came to their turn.
    waiting: VecDeque<(u16, bool)>,
    /// Offsets that the log was asked for, ascending; empty: it was not.
    asked: Vec<Offset>,
    /// An event was taken back since: the answer may have it, and is asked for again.
    is_stale: bool,
    /// Whole packets that go before everything queued.
    ready: VecDeque<OwnFrame>,
    ready_bytes: usize,
    /// Subscriptions that ended while messages waited: what was begun for them still names them.
    pub(crate) ended: Vec<Ended>,
}

impl Resend {
    /// Everything that a window holds.
    pub(crate) fn all(window: &Inflight) -> Resend {
        Resend { waiting: window.stored().map(|it| (it.packet_id, true)).collect(), ..Resend::default() }
    }

    /// Whether something goes before what is queued.
    pub(crate) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.waiting.is_empty()
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.ready_bytes
    }

    /// A message that was saved before it leaves.
    pub(crate) fn queue(&mut self, frame: OwnFrame) {
        if self.waiting.is_empty() && !frame.bytes.is_empty() {
            self.push(frame);
        } else {
            self.waiting.push_back((frame.packet_id, false));
        }
    }

    /// Drops packets that are not on their way: they come from the log again.
    pub(crate) fn drop_bytes(&mut self) {
        for frame in self.ready.drain(..).rev() {
            self.waiting.push_front((frame.packet_id, is_dup(&frame.bytes)));
        }
        self.ready_bytes = 0;
    }

    fn push(&mut self, frame: OwnFrame) {
        self.ready_bytes += frame.bytes.len();
        self.ready.push_back(frame);
    }

    /// Moves what goes to the socket next into the outbox; gives the packets' ids and lengths.
    fn put_portion(&mut self, outbox: &mut Outbox) -> Vec<(u16, usize)> {
        let (mut portion, mut packets) = (Vec::new(), Vec::new());
        while let Some(next) = self.ready.front()
            && (portion.is_empty() || portion.len() + next.bytes.len() <= PORTION_BYTES)
            && let Some(next) = self.ready.pop_front()
        {
            packets.push((next.packet_id, next.bytes.len()));
            portion.extend_from_slice(&next.bytes);
        }
        self.ready_bytes -= portion.len();
        if !portion.is_empty() {
            outbox.push_own(portion);
        }
        packets
    }

    /// Takes packets back that the socket has not begun to take.
    fn take_back(&mut self, outbox: &mut Outbox, mut packets: Vec<(u16, usize)>) {
        let mut rest = outbox.take_own();
        while let Some((packet_id, len)) = packets.pop()
            && let Some(start) = rest.len().checked_sub(len)
        {
            let bytes = rest.split_off(start);
            self.ready_bytes += len;
            self.ready.push_front(OwnFrame { packet_id, bytes });
        }
        if !rest.is_empty() {
            outbox.push_own(rest);
        }
    }
}

impl Session {
    /// Writes to the socket: for a session that is persistent, its own frames before what is queued.
    pub(crate) fn write(&mut self, scratch: &mut Scratch, wire: &mut dyn Wire) -> Flushed {
        let gate = self.gate();
        let is_persistent = self.is_persistent();
        let Some(connection) = self.connection.as_deref_mut() else { return Flushed::Dead };
        let Some(persistence) = self.persistence.as_deref_mut() else {
            return connection.outbox.flush(self.inflight.as_deref_mut(), Gate::Open, scratch, wire);
        };
        let before = connection.outbox.bytes();
        let mut packets = Vec::new();
        for _ in 0..PORTIONS_MAX {
            let flushed = connection.outbox.flush(self.inflight.as_deref_mut(), gate, scratch, wire);
            persistence.progress_changed |= is_persistent && connection.outbox.bytes() != before;
            if flushed == Flushed::Blocked {
                persistence.resend.take_back(&mut connection.outbox, packets);
            }
            if matches!(flushed, Flushed::Blocked | Flushed::More | Flushed::Dead) {
                return flushed;
            }
            packets = persistence.resend.put_portion(&mut connection.outbox);
            if packets.is_empty() {
                return flushed;
            }
        }
        Flushed::More
    }

    /// How far the queue may be written.
    fn gate(&self) -> Gate {
        match self.persistence.as_deref() {
            None => Gate::Open,
            Some(it) if it.resend.is_busy() || it.hold.has_messages() => Gate::Shut,
            Some(it) if it.expiry_secs > 0 => Gate::BeforeExactlyOnce,
            Some(_) => Gate::Open,
        }
    }

    /// An event was taken back: packets that wait for the state or the socket are made again from the log, which has it
    /// no more. Gives how many bytes that wait for the state were dropped; none: the event is not on its way here.
    pub(crate) fn drop_redacted(&mut self, offset: Offset) -> Option<usize> {
        let window = self.inflight.as_deref()?;
        window.stored().find(|it| it.offset == offset)?;
        let persistence = self.persistence.as_deref_mut()?;
        persistence.resend.is_stale = !persistence.resend.asked.is_empty();
        persistence.resend.drop_bytes();
        Some(persistence.hold.drop_bytes())
    }

    /// What a message that is sent again has to tell to be gone. Nobody knows which lane had brought it: it tells what all
    /// of them have to.
    fn gap_again(&self, offset: Offset) -> Option<Gap> {
        let gaps = self.lanes().filter_map(|number| self.lane(number)?.gap_before(offset));
        gaps.reduce(|one, other| one.and(Some(other)))
    }

    /// It is on its way.
    fn told_again(&mut self, offset: Offset) {
        for number in self.lanes() {
            if let Some(lane) = self.lane_mut(number).filter(|lane| lane.gap_before(offset).is_some()) {
                lane.told_gap(offset, None);
            }
        }
    }

    /// The message that was to tell a gap is not sent after all.
    fn not_told(&mut self, offset: Offset) {
        for number in self.lanes() {
            let gap = self.lane_mut(number).and_then(|lane| lane.gap.as_mut());
            if let Some(gap) = gap.filter(|gap| gap.told_at() == Some(offset)) {
                gap.untold();
            }
        }
    }

    /// Whether something has to be sent again before anything new.
    pub(crate) fn is_resending(&self) -> bool {
        self.persistence.as_deref().is_some_and(|it| it.resend.is_busy())
    }
}

impl Shard {
    /// After a flush of a session that has something to save or to send again.
    pub(crate) fn go_on_sending(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(connection) = it.connection.as_deref().filter(|connection| !connection.blocked) else {
            return;
        };
        let has_messages = connection.outbox.has_messages();
        if it.is_resending() {
            return self.resend(session);
        }
        if let Some(persistence) = it.persistence.as_deref_mut()
            && !persistence.hold.has_messages()
        {
            persistence.resend.ended = Vec::new();
        }
        let is_persistent = it.is_persistent();
        if has_messages && is_persistent {
            while self.hold_messages(session) {}
        }
        // What was before the gate is through: it is open now.
        let Some(it) = self.sessions.get(session as usize) else { return };
        let opened =
            it.gate() != Gate::Shut && it.connection.as_deref().is_some_and(|connection| !connection.closing);
        if opened && self.front_may_leave(session) {
            self.dirty(session);
        } else if let Some(connection) = self.connection(session) {
            // What is queued waits for the state or for the window: no more is read from the log meanwhile.
            connection.window_shut |= connection.outbox.has_messages();
        }
    }

    /// Whether the next message in the outbox waits for nothing.
    fn front_may_leave(&self, session: u32) -> bool {
        let Some(it) = self.sessions.get(session as usize) else { return false };
        match it.connection.as_deref().and_then(|connection| connection.outbox.front_qos()) {
            None => false,
            Some(QoS::AtMostOnce) => true,
            Some(QoS::AtLeastOnce) => it.inflight.as_deref().is_none_or(|window| window.room() > 0),
            Some(QoS::ExactlyOnce) => false,
        }
    }

    /// Makes what comes next ready, or asks the log for it.
    pub(crate) fn resend(&mut self, session: u32) {
        let may_read = self.may_read_log();
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let (Some(connection), Some(persistence), Some(window)) =
            (it.connection.as_deref_mut(), it.persistence.as_deref_mut(), it.inflight.as_deref_mut())
        else {
            return;
        };
        let resend = &mut persistence.resend;
        let ready = resend.ready.len();
        if connection.blocked || connection.closing || !resend.asked.is_empty() || ready > 0 {
            return;
        }
        let mut lost = 0;
        let mut offsets = Vec::new();
        let room = window.room_again(resend.waiting.len()).min(PAGE);
        let mut at = 0;
        while let Some((id, _)) = resend.waiting.get(at).copied() {
            match window.get(id) {
                // What comes behind a page goes behind it.
                Some(it) if it.state != StoredState::Released && it.offset != 0 => {
                    if offsets.len() == room {
                        break;
                    }
                    offsets.push(it.offset);
                    at += 1;
                    continue;
                }
                _ if !offsets.is_empty() => break,
                Some(it) if it.state != StoredState::Released => {
                    lost += 1;
                    if window.give_up(id) == Acknowledged::Through {
                        persistence.progress_changed = true;
                    }
                    continue;
                }
                Some(_) => resend.push(pubrel(id, connection.version)),
                None => {}
            }
            resend.waiting.pop_front();
        }
        self.stats.messages_dropped.add(lost);
        if resend.ready.len() > ready {
            return self.dirty(session);
        }
        if offsets.is_empty() {
            connection.window_shut |= !resend.waiting.is_empty();
            if resend.waiting.is_empty() {
                // Nothing is to be sent again any more: what is new goes on.
                self.dirty(session);
            }
            return;
        }
        if !may_read {
            return self.starve(session);
        }
        offsets.sort_unstable();
        offsets.dedup();
        resend.asked.clone_from(&offsets);
        self.reads += 1;
        self.actions.push(Action::Fetch { session: (session, it.generation), offsets });
    }

    /// The log's answer to [`Action::Fetch`].
    pub(crate) fn fetched(
        &mut self,
        (session, generation): (u32, u32),
        events: Result<FetchedEvents, ReadError>,
    ) {
        self.reads -= 1;
        if session & GROUP != 0 {
            self.group_fetched((session, generation), events);
        } else if self.sessions.get(session as usize).is_some_and(|it| it.generation == generation) {
            match events {
                Ok(events) => self.take_fetched(session, &events),
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be read for what is to be sent again");
                    self.disconnect(session, Reason::UnspecifiedError, "the log cannot be read");
                }
            }
        }
        self.feed();
    }

    fn take_fetched(&mut self, session: u32, fetched: &FetchedEvents) {
        let limit = self.shared.limits.replay_chunk_bytes;
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(persistence) = it.persistence.as_deref_mut() else { return };
        let mut asked = std::mem::take(&mut persistence.resend.asked);
        if std::mem::take(&mut persistence.resend.is_stale) {
            asked.clear();
        }
        let mut bytes = 0;
        while bytes < limit {
            let Some(it) = self.sessions.get(session as usize) else { return };
            let (Some(persistence), Some(window)) = (it.persistence.as_deref(), it.inflight.as_deref())
            else {
                return;
            };
            let Some((id, dup)) = persistence.resend.waiting.front().copied() else { break };
            let entry = window.get(id).filter(|it| it.state != StoredState::Released);
            let Some(entry) = entry.filter(|it| asked.binary_search(&it.offset).is_ok()) else { break };
            let gap = it.gap_again(entry.offset);
            let frame = fetched.batch_of(entry.offset).and_then(|batch| {
                let telling =
                    gap.as_ref().and_then(|gap| self.frame_again(it, &entry, dup, batch, Some(gap)));
                match telling {
                    Some(frame) => Some((frame, gap.as_ref())),
                    None => self.frame_again(it, &entry, dup, batch, None).map(|frame| (frame, None)),
                }
            });
            let Some(it) = self.sessions.get_mut(session as usize) else { return };
            if frame.is_none() {
                it.not_told(entry.offset);
            }
            // Its client drops a QoS 2 message that it has already, and all that stands in it: the next one tells the gap too.
            let is_heard = !dup || entry.state == StoredState::Sent1;
            if matches!(frame, Some((_, Some(_)))) && is_heard {
                it.told_again(entry.offset);
            }
            let (Some(persistence), Some(window)) =
                (it.persistence.as_deref_mut(), it.inflight.as_deref_mut())
            else {
                return;
            };
            persistence.resend.waiting.pop_front();
            match frame {
                Some((frame, _)) => {
                    bytes += frame.bytes.len();
                    persistence.resend.push(frame);
                    self.stats.messages_sent.add(1);
                }
                // QoS 1 is through; QoS 2 goes on with PUBREL, so that its id gets free on both sides.
                None => {
                    self.stats.messages_dropped.add(1);
                    persistence.progress_changed = true;
                    if window.give_up(id) == Acknowledged::Release
                        && let Some(connection) = it.connection.as_deref()
                    {
                        persistence.resend.push(pubrel(id, connection.version));
                    }
                    self.declare_if_gone(session, &entry, fetched);
                }
            }
        }
        if let Some(connection) = self.connection(session) {
            connection.fresh_bytes += bytes;
            self.fresh_bytes += bytes;
        }
        self.dirty(session);
    }

    /// A message as it is sent again; none if its client may not have it any more, or cannot.
    fn frame_again(
        &self,
        it: &Session,
        entry: &StoredInflight,
        dup: bool,
        batch: &Batch,
        gap: Option<&Gap>,
    ) -> Option<OwnFrame> {
        let connection = it.connection.as_deref()?;
        let index = usize::try_from(entry.offset.checked_sub(batch.base())?).ok()?;
        let record = batch.record(index);
        let (event, is_own) = (record.event(), record.origin().session == it.hash);
        let topic = TopicName::trusted(event.topic);
        if !self.auth.may_read(&it.identity, &it.client_id, topic) {
            return None;
        }
        let v5 = connection.version == Version::V5;
        let cursor = (it.cursors && v5).then(|| self.cursor_in(batch, entry.offset));
        let stand = self.stand;
        let matching = it.subscriptions.iter().map(|(_, it)| it).filter(|subscription| {
            // One whose lane has not come so far gets it by that.
            let is_past = || it.lane(subscription.lane).is_some_and(|lane| lane.next(stand) > entry.offset);
            let counts = match is_shared(subscription.lane) {
                true => subscription.lane == entry.shared,
                // What a group gave has the identifier of that subscription alone.
                false if entry.shared != 0 => false,
                false => entry.retain || (entry.offset >= subscription.from && is_past()),
            };
            let is_left_out = subscription.options.no_local && is_own;
            subscription.id != 0 && counts && !is_left_out && subscription.filter.matches(topic)
        });
        let mut extra: Vec<Property<'_>> = matching.map(|it| Property::SubscriptionId(it.id)).collect();
        let ended = it.persistence.iter().flat_map(|persistence| &persistence.resend.ended);
        let ended = ended.filter(|ended| {
            let counts = entry.retain || ended.offsets.contains(&entry.offset);
            entry.shared == 0 && counts && !(ended.no_local && is_own) && ended.filter.matches(topic)
        });
        extra.extend(ended.map(|it| Property::SubscriptionId(it.id)));
        extra.extend(cursor.as_deref().map(|cursor| Property::UserProperty("firehose-cursor", cursor)));
        let ranges = gap.iter().flat_map(|gap| gap.ranges());
        extra.extend(ranges.map(|range| Property::UserProperty("firehose-gap", range)));
        let qos = match entry.state {
            StoredState::Sent1 => QoS::AtLeastOnce,
            StoredState::Sent2 | StoredState::Released => QoS::ExactlyOnce,
        };
        let extra = if v5 { &extra[..] } else { &[] };
        let shape = Shape { v5, qos, retain: entry.retain, extra };
        let age_secs = (self.now.wall_us - batch.time_us()).max(0) / 1_000_000;
        let age_secs = u32::try_from(age_secs).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        let recorded = Recorded { time_us: batch.time_us(), age_secs };
        let frame = encode_event(&mut bytes, &shape, recorded, &event).ok()?;
        patch(&mut bytes, frame.packet_id_at as usize, entry.packet_id, qos, dup, entry.retain);
        (frame.len <= connection.packet_bytes_max).then_some(OwnFrame { packet_id: entry.packet_id, bytes })
    }
}

fn is_dup(publish: &[u8]) -> bool {
    publish.first().is_some_and(|first| first & 8 != 0)
}

fn pubrel(packet_id: u16, version: Version) -> OwnFrame {
    let mut bytes = Vec::with_capacity(4);
    encode_ack(&mut bytes, AckKind::PubRel, packet_id, Reason::Success, version);
    OwnFrame { packet_id, bytes }
}
