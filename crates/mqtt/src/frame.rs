//! PUBLISH packets that are encoded once and sent to many.

use crate::{
    EncodeError, Property, QoS,
    property::MESSAGE_EXPIRY,
    reader::Reader,
    writer::{put_binary, put_varint, remaining_length, varint_len},
};

/// What decides how a PUBLISH looks, besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    /// 5.0, with properties; else 3.1 and 3.1.1, which look the same.
    pub v5: bool,
    /// QoS 1 or 2: there is room for a packet identifier.
    pub ack: bool,
}

/// Where an encoded PUBLISH lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Index of its first byte.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Index in the buffer (not in the frame) of its packet identifier; 0 when it has none.
    pub packet_id_at: u32,
}

/// Appends one PUBLISH to `out`, with packet identifier 0, which [`patch`] replaces in a copy.
///
/// The properties are left out before 5.0. The topic must be a valid name and the properties allowed in a PUBLISH: that
/// is not checked here again. On an error (a string too long, a packet or a buffer too large, `qos` and `layout.ack`
/// that disagree) nothing was appended.
pub fn encode_publish<'p>(
    out: &mut Vec<u8>,
    layout: Layout,
    qos: QoS,
    retain: bool,
    topic: &str,
    properties: impl Iterator<Item = Property<'p>> + Clone,
    payload: &[u8],
) -> Result<Frame, EncodeError> {
    if layout.ack != (qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketId);
    }
    let properties_len =
        if layout.v5 { properties.clone().map(|property| property.encoded_len()).sum() } else { 0 };
    let mut remaining = 2 + topic.len() + payload.len();
    if layout.ack {
        remaining += 2;
    }
    if layout.v5 {
        remaining += varint_len(properties_len) + properties_len;
    }
    let remaining = remaining_length(remaining)?;
    let start = out.len();
    let len = 1 + varint_len(remaining as usize) + remaining as usize;
    if u32::try_from(start + len).is_err() {
        return Err(EncodeError::BufferTooLarge);
    }
    out.reserve(len);
    out.push(first_byte(qos, false, retain));
    put_varint(out, remaining);
    put_binary(out, topic.as_bytes(), "topic name").inspect_err(|_| out.truncate(start))?;
    let mut packet_id_at = 0;
    if layout.ack {
        packet_id_at = out.len() as u32;
        out.extend_from_slice(&[0, 0]);
    }
    if layout.v5 {
        put_varint(out, properties_len as u32);
        for property in properties {
            property.write(out).inspect_err(|_| out.truncate(start))?;
        }
    }
    out.extend_from_slice(payload);
    Ok(Frame { start: start as u32, len: len as u32, packet_id_at })
}

/// Sets flags and packet identifier in a copy of a frame. `packet_id_at` counts from the frame's own start; 0: it has
/// none.
#[inline]
pub fn patch(frame_bytes: &mut [u8], packet_id_at: usize, packet_id: u16, qos: QoS, dup: bool, retain: bool) {
    if let Some(first) = frame_bytes.first_mut() {
        *first = first_byte(qos, dup, retain);
    }
    if packet_id_at != 0
        && let Some(place) = frame_bytes.get_mut(packet_id_at..packet_id_at + 2)
    {
        place.copy_from_slice(&packet_id.to_be_bytes());
    }
}

/// Sets the Message Expiry Interval in a copy of a whole 5.0 frame, in seconds. One that has none stays as it is.
pub fn patch_message_expiry(frame_bytes: &mut [u8], secs: u32) {
    if let Some(at) = message_expiry_at(frame_bytes)
        && let Some(place) = frame_bytes.get_mut(at..at + 4)
    {
        place.copy_from_slice(&secs.to_be_bytes());
    }
}

/// Where the value of the Message Expiry Interval begins.
fn message_expiry_at(frame_bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader(frame_bytes);
    let has_packet_id = reader.u8("first byte").ok()? & 0x06 != 0;
    reader.varint("remaining length").ok()?;
    reader.binary("topic name").ok()?;
    if has_packet_id {
        reader.u16("packet identifier").ok()?;
    }
    let len = reader.varint("property length").ok()? as usize;
    let behind = reader.0.len().checked_sub(len)?;
    while reader.0.len() > behind {
        if reader.0.first() == Some(&MESSAGE_EXPIRY) {
            return Some(frame_bytes.len() - reader.0.len() + 1);
        }
        Property::skip(&mut reader).ok()?;
    }
    None
}

#[inline]
fn first_byte(qos: QoS, dup: bool, retain: bool) -> u8 {
    0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoded, Packet, PacketId, Version, decode};

    #[test]
    fn a_frame_in_the_middle_of_a_buffer_is_patched_in_a_copy() {
        let mut out = b"before".to_vec();
        let properties = [Property::UserProperty("a", "b"), Property::SubscriptionId(7)];
        let layout = Layout { v5: true, ack: true };
        let frame = encode_publish(
            &mut out,
            layout,
            QoS::AtLeastOnce,
            false,
            "a/b",
            properties.into_iter(),
            &[b'x'; 200],
        )
        .unwrap();
        assert_eq!(frame.start, 6);
        let mut copy = out[frame.start as usize..][..frame.len as usize].to_vec();
        let at = (frame.packet_id_at - frame.start) as usize;
        patch(&mut copy, at, 0x1234, QoS::ExactlyOnce, true, true);
        let Ok(Decoded::Packet(Packet::Publish(publish), len)) = decode(&copy, Version::V5, 1000) else {
            panic!("the frame is not a PUBLISH: {copy:?}");
        };
        assert_eq!(len, copy.len());
        assert_eq!(publish.packet_id, PacketId::new(0x1234));
        assert_eq!((publish.qos, publish.dup, publish.retain), (QoS::ExactlyOnce, true, true));
        assert_eq!((publish.topic, publish.payload.len()), ("a/b", 200));
        assert!(publish.properties.iter().eq(properties));
    }

    #[test]
    fn the_message_expiry_of_a_frame_is_set_in_a_copy() {
        let all = [
            Property::UserProperty("\u{2}", "\u{2}\u{2}"),
            Property::MessageExpiry(0x0202),
            Property::PayloadFormat(1),
        ];
        let of = |packet: &[u8]| match decode(packet, Version::V5, 1000) {
            Ok(Decoded::Packet(Packet::Publish(publish), _)) => publish.properties.message_expiry(),
            other => panic!("not a PUBLISH: {other:?}"),
        };
        for ack in [false, true] {
            let qos = if ack { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            for (list, expected) in [(&all[..], Some(7)), (&all[..1], None), (&[], None)] {
                let mut out = Vec::new();
                let layout = Layout { v5: true, ack };
                let properties = list.iter().copied();
                let frame = encode_publish(&mut out, layout, qos, false, "a", properties, &[2; 200]).unwrap();
                patch(&mut out, frame.packet_id_at as usize, 9, qos, false, false);
                let before = out.clone();
                patch_message_expiry(&mut out, 7);
                assert_eq!(of(&out), expected);
                patch_message_expiry(&mut out, 0x0202);
                assert_eq!(out, before, "nothing else changes");
            }
        }
    }

    #[test]
    fn an_error_appends_nothing() {
        let mut out = vec![1];
        let layout = Layout { v5: true, ack: false };
        let long = "x".repeat(65_536);
        let none = std::iter::empty();
        assert!(encode_publish(&mut out, layout, QoS::AtMostOnce, false, &long, none.clone(), b"").is_err());
        let property = std::iter::once(Property::ContentType(&long));
        assert!(encode_publish(&mut out, layout, QoS::AtMostOnce, false, "a", property, b"").is_err());
        assert!(encode_publish(&mut out, layout, QoS::AtLeastOnce, false, "a", none, b"").is_err());
        assert_eq!(out, [1]);
    }
}
