//! Appends fields to a buffer (MQTT 5.0 section 1.5).

use crate::{EncodeError, fixed_header::REMAINING_BYTES_MAX};

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// `value` is at most [`REMAINING_BYTES_MAX`]: whoever calls has checked it.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// A two-byte length and the bytes.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8], what: &'static str) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::TooLong(what))?;
    put_u16(out, len);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a whole packet whose body `write` appends; on an error nothing is appended.
pub(crate) fn put_packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    // Most bodies are shorter than 128 bytes; the others are moved when their length is known.
    out.extend_from_slice(&[first_byte, 0]);
    let written = write(out).and_then(|()| remaining_length(out.len() - start - 2));
    match written {
        Ok(len @ 0..0x80) => out[start + 1] = len as u8,
        Ok(len) => {
            let mut varint = Vec::with_capacity(4);
            put_varint(&mut varint, len);
            out.splice(start + 1..start + 2, varint);
        }
        Err(error) => {
            out.truncate(start);
            return Err(error);
        }
    }
    Ok(())
}

#[inline]
pub(crate) fn remaining_length(bytes: usize) -> Result<u32, EncodeError> {
    if bytes > REMAINING_BYTES_MAX { Err(EncodeError::PacketTooLarge(bytes)) } else { Ok(bytes as u32) }
}
