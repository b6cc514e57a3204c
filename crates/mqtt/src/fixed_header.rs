//! The first two to five bytes of every packet (MQTT 5.0 section 2.1).

use crate::{
    DecodeError, PacketKind, Version,
    reader::{Varint, varint},
};

/// The most bytes that can follow a fixed header: what four bytes of length can say.
pub const REMAINING_BYTES_MAX: usize = 268_435_455;

#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedHeader {
    pub(crate) kind: PacketKind,
    pub(crate) flags: u8,
    /// Bytes of the fixed header itself.
    pub(crate) len: usize,
    /// Bytes of the whole packet.
    pub(crate) total: usize,
    /// Whether the length was written with as few bytes as can be. 5.0 demands it.
    pub(crate) minimal: bool,
}

pub(crate) enum Header {
    Whole(FixedHeader),
    /// So many bytes are needed to go on.
    Incomplete(usize),
}

impl FixedHeader {
    /// Reads the header at the front of `input`, and refuses at once a packet of more than `bytes_max` bytes. With
    /// `version` it is checked against that version's rules, without (before CONNECT was read) they are left open.
    #[inline]
    pub(crate) fn read(
        input: &[u8],
        version: Option<Version>,
        bytes_max: usize,
    ) -> Result<Header, DecodeError> {
        let Some((&first, rest)) = input.split_first() else {
            return incomplete(1, bytes_max);
        };
        let kind = PacketKind::from_u8(first >> 4).ok_or(DecodeError::PacketKind(first >> 4))?;
        let flags = first & 0x0f;
        if let Some(version) = version {
            check_flags(kind, flags, version)?;
        }
        let (remaining, len, minimal) = match varint(rest) {
            Varint::Whole { value, len, minimal } => (value as usize, len + 1, minimal),
            Varint::Incomplete => return incomplete(input.len() + 1, bytes_max),
            Varint::TooLong => return Err(DecodeError::VarintTooLong("remaining length")),
        };
        if !minimal && version == Some(Version::V5) {
            return Err(DecodeError::VarintNotMinimal("remaining length"));
        }
        let total = len + remaining;
        if total > bytes_max {
            return Err(DecodeError::PacketTooLarge { bytes: total, bytes_max });
        }
        if let Some(version) = version {
            check_length(kind, remaining, version)?;
        }
        if input.len() < total {
            return Ok(Header::Incomplete(total));
        }
        Ok(Header::Whole(Self { kind, flags, len, total, minimal }))
    }
}

fn incomplete(need: usize, bytes_max: usize) -> Result<Header, DecodeError> {
    if need > bytes_max {
        return Err(DecodeError::PacketTooLarge { bytes: need, bytes_max });
    }
    Ok(Header::Incomplete(need))
}

/// 3.1 says of the flags outside PUBLISH that they are not used, and lets a client set DUP when it sends PUBREL,
/// SUBSCRIBE or UNSUBSCRIBE again; so there they are not looked at. PUBLISH looks at its own.
#[inline]
fn check_flags(kind: PacketKind, flags: u8, version: Version) -> Result<(), DecodeError> {
    let expected = match kind {
        PacketKind::Publish => return Ok(()),
        PacketKind::Auth if version != Version::V5 => return Err(DecodeError::PacketKind(kind as u8)),
        _ if version == Version::V31 => return Ok(()),
        PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags == expected { Ok(()) } else { Err(DecodeError::Flags(kind, flags)) }
}

/// Refuses, before they are buffered, packets that are longer than their kind can be or shorter than it must be.
#[inline]
fn check_length(kind: PacketKind, remaining: usize, version: Version) -> Result<(), DecodeError> {
    let v5 = version == Version::V5;
    let fits = match kind {
        PacketKind::PingReq | PacketKind::PingResp => remaining == 0,
        PacketKind::Disconnect => v5 || remaining == 0,
        PacketKind::PubAck | PacketKind::PubRec | PacketKind::PubRel | PacketKind::PubComp => {
            if v5 {
                remaining >= 2
            } else {
                remaining == 2
            }
        }
        PacketKind::ConnAck => {
            if v5 {
                remaining >= 3
            } else {
                remaining == 2
            }
        }
        PacketKind::UnsubAck => {
            if v5 {
                remaining >= 4
            } else {
                remaining == 2
            }
        }
        PacketKind::Auth => remaining != 1,
        PacketKind::Connect
        | PacketKind::Publish
        | PacketKind::Subscribe
        | PacketKind::SubAck
        | PacketKind::Unsubscribe => true,
    };
    if fits { Ok(()) } else { Err(DecodeError::Length(kind, remaining)) }
}
