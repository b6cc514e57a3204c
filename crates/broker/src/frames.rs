//! Encode once: the PUBLISH frames that one turn of a shard makes, shared by all its outboxes.
//!
//! While a turn goes on, frames are appended to a buffer per layout and outboxes keep ranges of them; at its end
//! ([`TurnFrames::seal`]) the buffers become immutable. A range of QoS 0 frames is one piece of memory for `writev`,
//! however many messages it is; of the others the packet id is patched in a copy.

use firehose_log::{Attribute, Event, Offset, format_time};
use firehose_mqtt::{Frame, Layout, Property, QoS, encode_publish, patch_message_expiry};
use std::sync::{Arc, OnceLock};

/// A buffer is sealed and a new one begun beyond this many bytes, so that a late reader does not pin much.
const BUFFER_BYTES: usize = 256 << 10;

/// Room that a new buffer begins with: a turn at rest has one message.
const BUFFER_BYTES_FIRST: usize = 1 << 10;

/// One frame in a sealed buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameAt {
    /// Where it is.
    pub frame: Frame,
    /// The event's offset; 0 for a publication that is not logged.
    pub offset: Offset,
}

/// A frame of a message that has a Message Expiry Interval.
#[derive(Clone, Copy, Debug)]
struct Expiring {
    /// Its index in the buffer.
    index: u32,
    /// When the interval ends: microseconds since 1970.
    deadline_us: i64,
    /// The frame is of MQTT 5, and says how much is left.
    says_so: bool,
}

/// A sealed buffer of frames.
#[derive(Debug, Default)]
struct Sealed {
    bytes: Vec<u8>,
    frames: Vec<FrameAt>,
    /// Those of them that expire, in order.
    expiring: Vec<Expiring>,
}

/// Frames of one layout: being made during a turn, immutable afterwards.
#[derive(Debug, Default)]
pub struct Frames(OnceLock<Sealed>);

impl Frames {
    /// A frame by its index; none before the buffer is sealed or beyond its end.
    pub fn get(&self, index: u32) -> Option<&FrameAt> {
        self.0.get()?.frames.get(index as usize)
    }

    /// The bytes of one frame.
    pub fn bytes_of(&self, at: &FrameAt) -> &[u8] {
        let start = at.frame.start as usize;
        self.slice(start, start + at.frame.len as usize)
    }

    /// The bytes of the frames `first..end`, which lie side by side.
    pub fn range(&self, first: u32, end: u32) -> &[u8] {
        match (self.get(first), end.checked_sub(1).and_then(|last| self.get(last))) {
            (Some(first), Some(last)) => {
                self.slice(first.frame.start as usize, (last.frame.start + last.frame.len) as usize)
            }
            _ => &[],
        }
    }

    /// A piece of the buffer.
    pub fn slice(&self, start: usize, end: usize) -> &[u8] {
        self.0.get().and_then(|sealed| sealed.bytes.get(start..end)).unwrap_or(&[])
    }

    /// Those of the frames `first..end` that expire.
    fn expiring(&self, first: u32, end: u32) -> &[Expiring] {
        let all = self.0.get().map_or(&[][..], |sealed| &sealed.expiring);
        let from = all.partition_point(|it| it.index < first);
        let to = all.partition_point(|it| it.index < end);
        all.get(from..to).unwrap_or(&[])
    }

    /// How much memory a reader of any part keeps alive.
    pub fn pinned_bytes(&self) -> usize {
        self.0.get().map_or(0, |sealed| sealed.bytes.len())
    }
}

/// Frames `first..end` of one buffer.
#[derive(Clone, Debug)]
pub struct Range {
    /// The buffer.
    pub frames: Arc<Frames>,
    /// Index of the first frame.
    pub first: u32,
    /// Index behind the last one.
    pub end: u32,
    /// Bytes of all of them.
    pub bytes: u32,
}

impl Range {
    /// Whether messages in it have a Message Expiry Interval: what their frames say of it was true when they were made.
    pub(crate) fn may_expire(&self) -> bool {
        !self.frames.expiring(self.first, self.end).is_empty()
    }

    /// A copy in which the intervals are what is left of them at `now_us`, without the messages whose interval is over;
    /// and which ones those are, counted from the range's first [MQTT-3.3.2-5, MQTT-3.3.2-6].
    pub(crate) fn counted_down(&self, now_us: i64) -> (Range, Vec<usize>) {
        let (mut sealed, mut gone) = (Sealed::default(), Vec::new());
        let mut expiring = self.frames.expiring(self.first, self.end).iter().peekable();
        for index in self.first..self.end {
            let Some(at) = self.frames.get(index) else { continue };
            let expiry = expiring.next_if(|it| it.index == index);
            if expiry.is_some_and(|it| it.deadline_us <= now_us) {
                gone.push((index - self.first) as usize);
                continue;
            }
            let (index, start) = (sealed.frames.len() as u32, sealed.bytes.len());
            sealed.bytes.extend_from_slice(self.frames.bytes_of(at));
            if let Some(expiry) = expiry {
                sealed.expiring.push(Expiring { index, ..*expiry });
                if expiry.says_so {
                    patch_message_expiry(&mut sealed.bytes[start..], secs_left(expiry.deadline_us, now_us));
                }
            }
            let Frame { start: was, len, packet_id_at } = at.frame;
            let packet_id_at = if packet_id_at == 0 { 0 } else { packet_id_at - was + start as u32 };
            let frame = Frame { start: start as u32, len, packet_id_at };
            sealed.frames.push(FrameAt { frame, ..*at });
        }
        let (end, bytes) = (sealed.frames.len() as u32, sealed.bytes.len() as u32);
        (Range { frames: Arc::new(Frames(OnceLock::from(sealed))), first: 0, end, bytes }, gone)
    }
}

/// Whole seconds until then, begun ones included.
fn secs_left(deadline_us: i64, now_us: i64) -> u32 {
    let left_us = deadline_us.saturating_sub(now_us).max(0) as u64;
    u32::try_from(left_us.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// When events were recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// The wall clock then, microseconds since 1970.
    pub time_us: i64,
    /// How long ago that is: it is taken off a message's expiry interval.
    pub age_secs: u32,
}

/// How a publication is put on the wire for a group of subscribers.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// MQTT 5: with properties.
    pub v5: bool,
    /// The QoS of the delivery.
    pub qos: QoS,
    /// The retain flag of the delivery.
    pub retain: bool,
    /// Properties beyond the event's own (subscription identifiers, the cursor): MQTT 5 only.
    pub extra: &'a [Property<'a>],
}

impl Shape<'_> {
    /// Shapes without anything special share their buffers; the rest has one of its own, so that ranges stay whole.
    fn buffer(&self) -> usize {
        if self.retain || !self.extra.is_empty() {
            SPECIAL
        } else {
            usize::from(self.v5) * 3 + self.qos as usize
        }
    }
}

const SPECIAL: usize = 6;

struct Building {
    shared: Arc<Frames>,
    sealed: Sealed,
}

impl Building {
    fn new() -> Building {
        let sealed = Sealed {
            bytes: Vec::with_capacity(BUFFER_BYTES_FIRST),
            frames: Vec::with_capacity(4),
            expiring: Vec::new(),
        };
        Building { shared: Arc::default(), sealed }
    }
}

/// The buffers of the present turn.
#[derive(Default)]
pub struct TurnFrames {
    buffers: [Option<Building>; SPECIAL + 1],
}

impl TurnFrames {
    /// Encodes events that were recorded together, side by side, and gives their range. An event that no packet can hold
    /// is left out (it cannot have come by MQTT).
    pub fn encode<'e>(
        &mut self,
        shape: &Shape<'_>,
        recorded: Recorded,
        events: impl Iterator<Item = (Offset, Event<'e>)>,
    ) -> Range {
        let slot = &mut self.buffers[shape.buffer()];
        if slot.as_ref().is_some_and(|building| building.sealed.bytes.len() >= BUFFER_BYTES) {
            seal(slot);
        }
        let building = slot.get_or_insert_with(Building::new);
        let Building { shared, sealed } = building;
        let (first, start) = (sealed.frames.len() as u32, sealed.bytes.len());
        for (offset, event) in events {
            if let Ok(frame) = encode_event(&mut sealed.bytes, shape, recorded, &event) {
                if let Some(secs) = event.attributes.iter().find_map(message_expiry) {
                    let deadline_us = recorded.time_us.saturating_add(i64::from(secs) * 1_000_000);
                    let index = sealed.frames.len() as u32;
                    sealed.expiring.push(Expiring { index, deadline_us, says_so: shape.v5 });
                }
                sealed.frames.push(FrameAt { frame, offset });
            }
        }
        Range {
            frames: shared.clone(),
            first,
            end: sealed.frames.len() as u32,
            bytes: (sealed.bytes.len() - start) as u32,
        }
    }

    /// The largest frame of a range that was encoded in this turn and not yet sealed.
    pub fn largest(&self, shape: &Shape<'_>, range: &Range) -> u32 {
        let frames =
            self.buffers[shape.buffer()].as_ref().map_or(&[][..], |building| &building.sealed.frames);
        let range = range.first as usize..range.end as usize;
        frames.get(range).unwrap_or(&[]).iter().map(|at| at.frame.len).max().unwrap_or(0)
    }

    /// Ends the turn: what was encoded may be written now.
    #[inline]
    pub fn seal(&mut self) {
        if self.buffers.iter().any(Option::is_some) {
            self.buffers.iter_mut().for_each(seal);
        }
    }
}

fn seal(slot: &mut Option<Building>) {
    if let Some(building) = slot.take() {
        let Building { shared, sealed } = building;
        // Each `shared` is made together with its `sealed`, and sealed once.
        let _ = shared.0.set(sealed);
    }
}

/// Appends one PUBLISH, with packet id 0.
pub(crate) fn encode_event(
    out: &mut Vec<u8>,
    shape: &Shape<'_>,
    recorded: Recorded,
    event: &Event<'_>,
) -> Result<Frame, firehose_mqtt::EncodeError> {
    let layout = Layout { v5: shape.v5, ack: shape.qos != QoS::AtMostOnce };
    if !shape.v5
        || (event.attributes.is_empty() && shape.extra.is_empty() && event.flags.payload_utf8().is_none())
    {
        return encode_publish(
            out,
            layout,
            shape.qos,
            shape.retain,
            event.topic,
            std::iter::empty(),
            event.payload,
        );
    }
    // What a source brought is a CloudEvent, and gets the time at which it came beside the source's own.
    let is_cloud_event = event.attributes.iter().any(|attribute| matches!(attribute, Attribute::Context(..)));
    let recordedtime = is_cloud_event.then(|| format_time(recorded.time_us));
    let recordedtime = recordedtime.as_deref().map(|time| Property::UserProperty("recordedtime", time));
    let format = event.flags.payload_utf8().map(|is_utf8| Property::PayloadFormat(is_utf8.into()));
    let own = event.attributes.iter().filter_map(move |attribute| property_of(attribute, recorded.age_secs));
    let properties = format.into_iter().chain(own).chain(recordedtime).chain(shape.extra.iter().copied());
    encode_publish(out, layout, shape.qos, shape.retain, event.topic, properties, event.payload)
}

fn message_expiry(attribute: Attribute<'_>) -> Option<u32> {
    match attribute {
        Attribute::MessageExpiry(secs) => Some(secs),
        _ => None,
    }
}

/// An event's attribute as MQTT 5 carries it.
fn property_of(attribute: Attribute<'_>, age_secs: u32) -> Option<Property<'_>> {
    Some(match attribute {
        Attribute::MessageExpiry(secs) => Property::MessageExpiry(secs.saturating_sub(age_secs)),
        Attribute::ContentType(text) => Property::ContentType(text),
        Attribute::ResponseTopic(topic) => Property::ResponseTopic(topic),
        Attribute::CorrelationData(data) => Property::CorrelationData(data),
        Attribute::UserProperty(name, value) | Attribute::Context(name, value) => {
            Property::UserProperty(name, value)
        }
        _ => return None,
    })
}

/// The topic in a PUBLISH frame: behind the fixed header, whose length ends with the first byte below 128.
pub(crate) fn topic_of(frame: &[u8]) -> Option<&str> {
    let header = 2 + frame.get(1..5)?.iter().position(|byte| *byte < 128)?;
    let (len, rest) = frame.get(header..)?.split_first_chunk::<2>()?;
    std::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_log::{Attributes, AttributesBuf, Flags};
    use firehose_mqtt::{Decoded, Packet, Version, decode};

    fn properties_of(attributes: Attributes<'_>, v5: bool) -> Vec<(String, String)> {
        let event = Event { flags: Flags::default(), topic: "a/b", attributes, payload: b"x" };
        let shape = Shape { v5, qos: QoS::AtMostOnce, retain: false, extra: &[] };
        let mut turn = TurnFrames::default();
        let recorded = Recorded { time_us: 1_790_000_000_123_456, age_secs: 0 };
        let range = turn.encode(&shape, recorded, std::iter::once((7, event)));
        turn.seal();
        let version = if v5 { Version::V5 } else { Version::V311 };
        let Decoded::Packet(Packet::Publish(publish), _) =
            decode(range.frames.range(range.first, range.end), version, 1000).unwrap()
        else {
            panic!("a PUBLISH")
        };
        let user = publish.properties.user_properties();
        user.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_sources_event_says_when_it_was_recorded_and_a_clients_is_left_as_it_was() {
        let mut attributes = AttributesBuf::new();
        attributes.push(&Attribute::Context("specversion", "1.0"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            properties_of(attributes.as_attributes(), true),
            [pair("specversion", "1.0"), pair("recordedtime", "2026-09-21T14:13:20.123456Z")]
        );
        assert_eq!(properties_of(attributes.as_attributes(), false), [], "3.1.1 has no properties");
        attributes.clear();
        attributes.push(&Attribute::UserProperty("mine", "1"));
        assert_eq!(properties_of(attributes.as_attributes(), true), [pair("mine", "1")]);
    }
}
