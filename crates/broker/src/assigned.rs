//! A message that a group gave to a session, on its way into the outbox.

use crate::frames::{Recorded, Shape};
use crate::group_message::Piece;
use crate::replay::{age_secs, expired};
use crate::shard::Shard;
use firehose_mqtt::{Property, QoS, Version};
use firehose_topic::TopicName;

/// A message that lies in the outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) qos: QoS,
    /// It tells all that is gone.
    pub(crate) tells_gap: bool,
    /// For a gap that it tells and that nobody acknowledges: see [`Gap::read_by`](crate::lane::Gap::read_by).
    pub(crate) read_by: Option<u64>,
}

impl Shard {
    /// Queues a message; none if the client may not have it, or cannot.
    pub(crate) fn queue_assigned(&mut self, session: u32, lane: u16, piece: &Piece) -> Option<Queued> {
        let it = self.sessions.get(session as usize)?;
        let connection = it.connection.as_deref().filter(|connection| !connection.closing)?;
        let (_, subscription) = it.of_lane(lane).next()?;
        let (batch, offset) = (&piece.batch, piece.offset());
        let event = batch.record(piece.index).event();
        let age_secs = age_secs(batch.time_us(), self.now);
        let topic = TopicName::trusted(event.topic);
        let denied = subscription.checked && !self.auth.may_read(&it.identity, &it.client_id, topic);
        if denied || expired(&event, age_secs) || self.redacted_lately.contains(&offset) {
            return None;
        }
        let v5 = connection.version == Version::V5;
        let cursor = (it.cursors && v5 && offset != 0).then(|| self.cursor_in(batch, offset));
        let id = (subscription.id != 0).then_some(Property::SubscriptionId(subscription.id));
        let cursor = cursor.as_deref().map(|cursor| Property::UserProperty("firehose-cursor", cursor));
        let gap = piece.gap.iter().flat_map(|gap| gap.ranges());
        let gap = gap.map(|range| Property::UserProperty("firehose-gap", range));
        let mut extra: Vec<Property<'_>> = id.into_iter().chain(cursor).filter(|_| v5).collect();
        let without_gap = extra.len();
        extra.extend(gap.filter(|_| v5));
        let qos = subscription.options.qos.min(QoS::from_u8(event.flags.qos()).unwrap_or(QoS::AtMostOnce));
        let retain = subscription.options.retain_as_published && event.flags.retain();
        let recorded = Recorded { time_us: batch.time_us(), age_secs };
        let packet_bytes_max = connection.packet_bytes_max;
        // A message that fits goes without a gap that would make it too large: another one tells that.
        let range = [extra.len(), without_gap].into_iter().find_map(|count| {
            let shape = Shape { v5, qos, retain, extra: &extra[..count] };
            let range = self.frames.encode(&shape, recorded, std::iter::once((offset, event)));
            let fits = range.first != range.end && self.frames.largest(&shape, &range) <= packet_bytes_max;
            fits.then_some((range, count))
        });
        let (range, count) = range?;
        let tells_gap = count == extra.len();
        let is_logged = batch.is_logged();
        let is_unproven = piece.gap.is_some() && tells_gap && qos == QoS::AtMostOnce;
        let read_by = self.sessions.get(session as usize).filter(|_| is_unproven).map(|it| it.read_by());
        self.connection(session)?.outbox.push(&range, lane, qos, is_logged);
        self.dirty(session);
        self.stats.messages_sent.add(1);
        Some(Queued { qos, tells_gap, read_by })
    }
}
