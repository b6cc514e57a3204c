//! Reads fields from the bytes of one packet (MQTT 5.0 section 1.5).

use crate::{DecodeError, PacketId, PacketKind};

/// What is left of a packet. `what` names the field in errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer of 5.0: at most four bytes, and no more than it needs.
    #[inline]
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        match varint(self.0) {
            Varint::Whole { value, len, minimal: true } => {
                self.0 = &self.0[len..];
                Ok(value)
            }
            Varint::Whole { .. } => Err(DecodeError::VarintNotMinimal(what)),
            Varint::Incomplete => Err(DecodeError::Truncated(what)),
            Varint::TooLong => Err(DecodeError::VarintTooLong(what)),
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated(what))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Binary data: a two-byte length and the bytes.
    #[inline]
    pub(crate) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(what)?;
        self.take(usize::from(len), what)
    }

    /// A UTF-8 string: a two-byte length and UTF-8 without U+0000.
    #[inline]
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(what)?;
        let string = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(what))?;
        if bytes.contains(&0) {
            return Err(DecodeError::Nul(what));
        }
        Ok(string)
    }

    /// The same, only looked at: nothing is made of it.
    #[inline]
    pub(crate) fn check_string(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let mut whole = *self;
        if is_plain(self.binary(what)?) {
            return Ok(());
        }
        whole.string(what).map(drop)
    }

    /// A string that was checked before.
    #[inline]
    pub(crate) fn checked_string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.binary(what)?).map_err(|_| DecodeError::NotUtf8(what))
    }

    #[inline]
    pub(crate) fn packet_id(&mut self, kind: PacketKind) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16("packet identifier")?).ok_or(DecodeError::PacketIdZero(kind))
    }

    /// To be called when all fields were read.
    #[inline]
    pub(crate) fn end(&self, kind: PacketKind) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(kind)) }
    }
}

/// Whether all is ASCII without U+0000, as nearly every string is.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let (eights, rest) = bytes.as_chunks();
    // A zero borrows from the byte above it, which sets its own highest bit.
    let is_plain = |eight: &[u8; 8]| {
        let eight = u64::from_le_bytes(*eight);
        (eight.wrapping_sub(LOW) | eight) & HIGH == 0
    };
    eights.iter().all(is_plain) && rest.iter().all(|byte| (1..0x80).contains(byte))
}

/// What stands at the beginning of some bytes.
pub(crate) enum Varint {
    Whole { value: u32, len: usize, minimal: bool },
    Incomplete,
    TooLong,
}

#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Varint::Whole { value, len: at + 1, minimal: at == 0 || byte != 0 };
        }
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::TooLong }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_table_1_1_are_read() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
        ] {
            assert_eq!(Reader(bytes).varint("x"), Ok(value));
        }
    }

    #[test]
    fn broken_varints_are_told_apart() {
        assert_eq!(Reader(&[0x80, 0x00]).varint("x"), Err(DecodeError::VarintNotMinimal("x")));
        assert_eq!(Reader(&[0x80]).varint("x"), Err(DecodeError::Truncated("x")));
        assert_eq!(Reader(&[0x80; 5]).varint("x"), Err(DecodeError::VarintTooLong("x")));
        assert_eq!(Reader(&[0xff; 4]).varint("x"), Err(DecodeError::VarintTooLong("x")));
    }

    #[test]
    fn a_string_that_is_only_looked_at_is_one_wherever_the_odd_byte_stands() {
        for len in 0..40_u8 {
            for (at, odd) in (0..len).flat_map(|at| [0, 1, 0x7f, 0x80, 0xc3, 0xff].map(|odd| (at, odd))) {
                let mut bytes = vec![b'a'; usize::from(len) + 2];
                bytes[..2].copy_from_slice(&[0, len]);
                bytes[usize::from(at) + 2] = odd;
                let (mut read, mut looked_at) = (Reader(&bytes), Reader(&bytes));
                assert_eq!(looked_at.check_string("x"), read.string("x").map(drop), "{bytes:?}");
                assert!(looked_at.is_empty());
            }
        }
        for bytes in [&b""[..], b"\0", b"\0\x03a", b"\0\x02\xc3\xa4"] {
            let read = Reader(bytes).string("x");
            assert_eq!(Reader(bytes).check_string("x"), read.map(drop), "{bytes:?}");
            assert!(read.is_err() || Reader(bytes).checked_string("x") == read);
        }
    }

    #[test]
    fn strings_are_utf8_without_nul() {
        assert_eq!(Reader(b"\0\x03a\xc3\xa4").string("x"), Ok("aä"));
        assert_eq!(Reader(b"\0\x03\xef\xbb\xbf").string("x"), Ok("\u{feff}"), "MQTT-1.5.4-3");
        assert_eq!(Reader(b"\0\x03\xed\xa0\x80").string("x"), Err(DecodeError::NotUtf8("x")));
        assert_eq!(Reader(b"\0\x02a\0").string("x"), Err(DecodeError::Nul("x")));
        assert_eq!(Reader(b"\0\x03a").string("x"), Err(DecodeError::Truncated("x")));
        assert_eq!(Reader(b"\0").string("x"), Err(DecodeError::Truncated("x")));
    }
}
