//! One record: its bytes, how they are made, checked and read. The layout is that of docs/adr/0001-format-v1.md.

use crate::attributes::Attributes;
use crate::event::{self, Event, Flags, Offset, Origin, PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX, WayIn};

/// Length (u32) and CRC32C (u32) before a record's body.
pub(crate) const RECORD_HEAD_BYTES: usize = 8;
/// Kind (u8) and length of the private part (u16).
const BODY_HEAD_BYTES: usize = 3;
/// Session (u64), packet id (u16), way in (u8), length of the principal (u16).
const PRIVATE_FIXED_BYTES: usize = 13;
/// Flags (u8), length of the topic (u16), length of the attributes (u32).
const PUBLIC_FIXED_BYTES: usize = 7;

const EVENT: u8 = 1;
const TOMBSTONE: u8 = 2;
const GAP: u8 = 3;

/// What a record stands for. Every record takes one offset, whatever its kind.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event.
    Event,
    /// An event that was redacted: its topic and payload are gone.
    Tombstone,
    /// An offset whose event is known to be lost.
    Gap,
    /// A kind that this version does not know; readers skip it.
    Unknown(u8),
}

/// A publication that the format cannot hold: topic, attributes, payload or principal beyond their limits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the event is larger than the log's format can hold")
    }
}

impl std::error::Error for TooLarge {}

/// A record, borrowed from its batch. Reading it checks no CRC and allocates nothing.
#[derive(Copy, Clone, Debug)]
pub struct Record<'a> {
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record over its body: the bytes behind its CRC. Any bytes will do; malformed parts read as empty.
    pub fn from_body(body: &'a [u8]) -> Record<'a> {
        Record { body }
    }

    /// What it stands for.
    pub fn kind(&self) -> Kind {
        match self.body.first() {
            Some(&EVENT) => Kind::Event,
            Some(&TOMBSTONE) => Kind::Tombstone,
            Some(&GAP) => Kind::Gap,
            other => Kind::Unknown(other.copied().unwrap_or(0)),
        }
    }

    /// The public part. For a record of an unknown kind it is an empty event.
    pub fn event(&self) -> Event<'a> {
        let Some(parts) = Public::split(self.public()) else { return EMPTY };
        // Checked when the batch came from the disk, and a `&str` when it came from a publisher.
        let topic = std::str::from_utf8(parts.topic).unwrap_or("");
        Event { flags: parts.flags, topic, attributes: Attributes(parts.attributes), payload: parts.payload }
    }

    /// The event's flags alone.
    pub fn flags(&self) -> Flags {
        Flags(self.public().first().copied().unwrap_or(0))
    }

    /// The topic, without the look at its UTF-8 that [`Record::event`] takes.
    pub fn topic_bytes(&self) -> &'a [u8] {
        Public::split(self.public()).map_or(&[], |parts| parts.topic)
    }

    /// The private part. For a record without one it is that of nobody.
    pub fn origin(&self) -> Origin<'a> {
        Private::split(self.private()).unwrap_or_default().0
    }

    /// Whether it matters to the state beside the log, as [`crate::Draft::is_marked`] says.
    pub(crate) fn is_marked(&self) -> bool {
        self.kind() == Kind::Event && event::is_marked(self.flags(), &self.origin())
    }

    fn private(&self) -> &'a [u8] {
        split_body(self.body).map_or(&[], |(private, _)| private)
    }

    fn public(&self) -> &'a [u8] {
        split_body(self.body).map_or(&[], |(_, public)| public)
    }
}

const EMPTY: Event<'static> =
    Event { flags: Flags(0), topic: "", attributes: Attributes::EMPTY, payload: &[] };

/// The record that starts at `start`; an empty one, of unknown kind, if there is none.
pub(crate) fn at(bytes: &[u8], start: usize) -> Record<'_> {
    let body = bytes.get(start..).and_then(|rest| {
        let len = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
        rest.get(RECORD_HEAD_BYTES..)?.get(..len)
    });
    Record { body: body.unwrap_or(&[]) }
}

/// Appends a record of kind event.
pub(crate) fn encode(out: &mut Vec<u8>, event: &Event<'_>, origin: &Origin<'_>) -> Result<(), TooLarge> {
    let private_len = PRIVATE_FIXED_BYTES + origin.principal.len();
    let (Ok(private_len), Ok(topic_len), Ok(attributes_len)) = (
        u16::try_from(private_len),
        u16::try_from(event.topic.len()),
        u32::try_from(event.attributes.0.len()),
    ) else {
        return Err(TooLarge);
    };
    let len = BODY_HEAD_BYTES
        + usize::from(private_len)
        + PUBLIC_FIXED_BYTES
        + event.topic.len()
        + event.attributes.0.len()
        + event.payload.len();
    if event.topic.len() > TOPIC_BYTES_MAX
        || event.payload.len() > PAYLOAD_BYTES_MAX
        || len > 2 * PAYLOAD_BYTES_MAX
    {
        return Err(TooLarge);
    }

    out.reserve(RECORD_HEAD_BYTES + len);
    let start = out.len();
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(EVENT);
    out.extend_from_slice(&private_len.to_le_bytes());
    out.extend_from_slice(&origin.session.to_le_bytes());
    out.extend_from_slice(&origin.packet_id.to_le_bytes());
    out.push(origin.way_in.to_byte());
    out.extend_from_slice(&(origin.principal.len() as u16).to_le_bytes());
    out.extend_from_slice(origin.principal.as_bytes());
    out.push(event.flags.0);
    out.extend_from_slice(&topic_len.to_le_bytes());
    out.extend_from_slice(&attributes_len.to_le_bytes());
    out.extend_from_slice(event.topic.as_bytes());
    out.extend_from_slice(event.attributes.0);
    out.extend_from_slice(event.payload);
    let crc = crc32c::crc32c(&out[start + RECORD_HEAD_BYTES..]);
    out[start + 4..start + RECORD_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// A record of kind tombstone, with nothing in it.
pub(crate) fn tombstone() -> Vec<u8> {
    let mut body = vec![0; BODY_HEAD_BYTES + PUBLIC_FIXED_BYTES];
    body[0] = TOMBSTONE;
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.append(&mut body);
    bytes
}

/// The length, head included, of the record at the front of `bytes`, if it is whole: its CRC holds and, for a
/// known kind, its parts fit.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    let crc = u32::from_le_bytes(*bytes.get(4..)?.first_chunk::<4>()?);
    let body = bytes.get(RECORD_HEAD_BYTES..)?.get(..len)?;
    let (&kind, _) = body.split_first()?;
    if crc32c::crc32c(body) != crc {
        return None;
    }
    if matches!(kind, EVENT | TOMBSTONE | GAP) {
        let (private, public) = split_body(body)?;
        if !private.is_empty() {
            Private::split(private)?;
        }
        std::str::from_utf8(Public::split(public)?.topic).ok()?;
    }
    Some(RECORD_HEAD_BYTES + len)
}

/// Iterates over records and their offsets.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) next: Offset,
    pub(crate) left: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = (Offset, Record<'a>);

    #[inline]
    fn next(&mut self) -> Option<(Offset, Record<'a>)> {
        if self.left == 0 {
            return None;
        }
        let record = at(self.bytes, 0);
        let offset = self.next;
        self.bytes = self.bytes.get(RECORD_HEAD_BYTES + record.body.len()..).unwrap_or(&[]);
        self.next += 1;
        self.left -= 1;
        Some((offset, record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

fn split_body(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = body.split_first_chunk::<BODY_HEAD_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes([head[1], head[2]])))
}

#[derive(Default)]
struct Private<'a>(Origin<'a>);

impl<'a> Private<'a> {
    /// What follows the principal belongs to later versions and is skipped.
    fn split(bytes: &'a [u8]) -> Option<Private<'a>> {
        let (head, rest) = bytes.split_first_chunk::<PRIVATE_FIXED_BYTES>()?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, p0, p1, way_in, l0, l1] = *head;
        let principal = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
        Some(Private(Origin {
            principal: std::str::from_utf8(principal).ok()?,
            session: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            packet_id: u16::from_le_bytes([p0, p1]),
            way_in: WayIn::from_byte(way_in),
        }))
    }
}

struct Public<'a> {
    flags: Flags,
    topic: &'a [u8],
    attributes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Public<'a> {
    #[inline]
    fn split(bytes: &'a [u8]) -> Option<Public<'a>> {
        let (head, rest) = bytes.split_first_chunk::<PUBLIC_FIXED_BYTES>()?;
        let [flags, t0, t1, a0, a1, a2, a3] = *head;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([t0, t1])))?;
        let (attributes, payload) = rest.split_at_checked(u32::from_le_bytes([a0, a1, a2, a3]) as usize)?;
        Some(Public { flags: Flags(flags), topic, attributes, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(event: &Event<'_>, origin: &Origin<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, event, origin).expect("fits");
        bytes
    }

    proptest! {
        #[test]
        fn an_encoded_record_is_read_back(
            topic in any::<String>(), attributes in proptest::collection::vec(any::<u8>(), 0..50),
            payload in proptest::collection::vec(any::<u8>(), 0..500), principal in any::<String>(),
            session in any::<u64>(), packet_id in any::<u16>(), way_in in any::<u8>(), qos in 0u8..3,
        ) {
            let event = Event {
                flags: Flags::new(qos, qos == 1, (qos != 1).then_some(qos == 2)), topic: &topic,
                attributes: Attributes::from_raw(&attributes), payload: &payload,
            };
            let origin = Origin { principal: &principal, session, packet_id, way_in: WayIn::from_byte(way_in) };
            let bytes = encoded(&event, &origin);
            prop_assert_eq!(whole(&bytes), Some(bytes.len()));
            let record = at(&bytes, 0);
            prop_assert_eq!(record.kind(), Kind::Event);
            prop_assert_eq!(record.event(), event);
            prop_assert_eq!(record.origin(), origin);
            prop_assert_eq!(record.topic_bytes(), topic.as_bytes());
        }

        #[test]
        fn one_changed_bit_makes_a_record_not_whole(
            payload in proptest::collection::vec(any::<u8>(), 0..100), bit in any::<prop::sample::Index>()
        ) {
            let event = Event { topic: "a/b", payload: &payload, ..EMPTY };
            let mut bytes = encoded(&event, &Origin::default());
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(whole(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for record in [at(&bytes, 0), Record::from_body(&bytes)] {
                let (_, _, _) = (record.kind(), record.event(), record.origin());
            }
            whole(&bytes);
        }
    }

    #[test]
    fn a_topic_or_principal_beyond_its_limit_is_refused_and_leaves_nothing() {
        let long = "x".repeat(65_536);
        let mut out = Vec::new();
        let event = Event { topic: &long, ..EMPTY };
        assert_eq!(encode(&mut out, &event, &Origin::default()), Err(TooLarge));
        let origin = Origin { principal: &long, ..Origin::default() };
        assert_eq!(encode(&mut out, &EMPTY, &origin), Err(TooLarge));
        assert!(out.is_empty());
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_whole_and_reads_as_an_empty_event() {
        let body = [77, 9, 9, 9];
        let mut bytes = 4u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        assert_eq!(whole(&bytes), Some(12));
        assert_eq!(at(&bytes, 0).kind(), Kind::Unknown(77));
        assert_eq!(at(&bytes, 0).event(), EMPTY);
    }
}
