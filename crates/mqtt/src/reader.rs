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
    fn strings_are_utf8_without_nul() {
        assert_eq!(Reader(b"\0\x03a\xc3\xa4").string("x"), Ok("aä"));
        assert_eq!(Reader(b"\0\x03\xef\xbb\xbf").string("x"), Ok("\u{feff}"), "MQTT-1.5.4-3");
        assert_eq!(Reader(b"\0\x03\xed\xa0\x80").string("x"), Err(DecodeError::NotUtf8("x")));
        assert_eq!(Reader(b"\0\x02a\0").string("x"), Err(DecodeError::Nul("x")));
        assert_eq!(Reader(b"\0\x03a").string("x"), Err(DecodeError::Truncated("x")));
        assert_eq!(Reader(b"\0").string("x"), Err(DecodeError::Truncated("x")));
    }
}
