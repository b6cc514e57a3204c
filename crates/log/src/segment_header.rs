//! The header of a segment file, and the file's name (docs/adr/0001-format-v1.md).

use crate::event::Offset;

/// Bytes before a segment's first batch: one page, with two copies of the header in it.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Where the second copy stands.
const COPY_AT: usize = 2048;
/// Bytes of one copy.
const HEADER_BYTES: usize = 128;
const CRC_AT: usize = HEADER_BYTES - 4;
const MAGIC: [u8; 8] = *b"firehose";
/// The version of the format that this program writes, and the latest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What a segment says of itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub log_id: u64,
    /// Seeds the CRC of batch headers; it never leaves the disk, so that nobody can publish a payload that looks
    /// like a batch of this log.
    pub salt: u32,
    pub epoch: u32,
    /// Rises when a file is written anew from the same first offset.
    pub generation: u32,
    /// The offset its first batch has or will have.
    pub first: Offset,
    /// The last offset of the segment before it; what stands in that file behind it does not count.
    pub previous_end: Offset,
    /// The last offset of the epoch before `epoch`.
    pub previous_epoch_end: Offset,
    pub created_us: i64,
}

/// What the first bytes of a segment file are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Header(SegmentHeader),
    /// A header of a version this program does not know.
    Newer(u32),
    /// No header, or a damaged one.
    None,
}

impl SegmentHeader {
    /// The page at the front of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; HEADER_BYTES];
        copy[0..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy[12..16].copy_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        copy[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        copy[24..28].copy_from_slice(&self.salt.to_le_bytes());
        copy[28..32].copy_from_slice(&self.epoch.to_le_bytes());
        copy[32..36].copy_from_slice(&self.generation.to_le_bytes());
        copy[40..48].copy_from_slice(&self.first.to_le_bytes());
        copy[48..56].copy_from_slice(&self.previous_end.to_le_bytes());
        copy[56..64].copy_from_slice(&self.previous_epoch_end.to_le_bytes());
        copy[64..72].copy_from_slice(&self.created_us.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let mut page = vec![0; SEGMENT_HEADER_BYTES];
        page[..HEADER_BYTES].copy_from_slice(&copy);
        page[COPY_AT..COPY_AT + HEADER_BYTES].copy_from_slice(&copy);
        page
    }

    /// Reads the header from the front of the file; either copy will do.
    pub(crate) fn decode(page: &[u8]) -> Decoded {
        match decode_copy(page) {
            Some(Decoded::None) | None => page.get(COPY_AT..).and_then(decode_copy).unwrap_or(Decoded::None),
            Some(found) => found,
        }
    }

    /// What a page should have at a position and has not: the copy of this header that is damaged, if one is.
    pub(crate) fn lacks(&self, page: &[u8]) -> Option<(usize, Vec<u8>)> {
        let is_damaged = |at: &usize| page.get(*at..).and_then(decode_copy) == Some(Decoded::None);
        let at = [0, COPY_AT].into_iter().find(is_damaged)?;
        Some((at, self.encode()[at..at + HEADER_BYTES].to_vec()))
    }

    /// The checksum that stands in it: no two segments have the same header.
    pub(crate) fn crc(&self) -> u32 {
        self.encode()[CRC_AT..].first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc))
    }

    /// Its file's name.
    pub(crate) fn file_name(&self) -> String {
        file_name(self.first, self.generation)
    }
}

/// The name of a segment: `<first offset, 20 digits>.<generation>.log`.
pub(crate) fn file_name(first: Offset, generation: u32) -> String {
    format!("{first:020}.{generation}.log")
}

/// The first offset and generation that a file's name says, if it is that of a segment.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, u32)> {
    let (first, generation) = name.strip_suffix(".log")?.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if first.len() != 20 || !digits(first) || !digits(generation) {
        return None;
    }
    let (first, generation) = (first.parse().ok()?, generation.parse().ok()?);
    (first > 0 && file_name(first, generation) == name).then_some((first, generation))
}

fn decode_copy(bytes: &[u8]) -> Option<Decoded> {
    let copy = bytes.first_chunk::<HEADER_BYTES>()?;
    if copy[0..8] != MAGIC {
        return Some(Decoded::None);
    }
    let version = u32::from_le_bytes(*copy[8..].first_chunk()?);
    let crc = u32::from_le_bytes(*copy[CRC_AT..].first_chunk()?);
    if crc32c::crc32c(&copy[..CRC_AT]) != crc {
        return Some(Decoded::None);
    }
    if version != FORMAT_VERSION {
        return Some(Decoded::Newer(version));
    }
    let header = SegmentHeader {
        log_id: u64::from_le_bytes(*copy[16..].first_chunk()?),
        salt: u32::from_le_bytes(*copy[24..].first_chunk()?),
        epoch: u32::from_le_bytes(*copy[28..].first_chunk()?),
        generation: u32::from_le_bytes(*copy[32..].first_chunk()?),
        first: u64::from_le_bytes(*copy[40..].first_chunk()?),
        previous_end: u64::from_le_bytes(*copy[48..].first_chunk()?),
        previous_epoch_end: u64::from_le_bytes(*copy[56..].first_chunk()?),
        created_us: i64::from_le_bytes(*copy[64..].first_chunk()?),
    };
    Some(if header.first > 0 { Decoded::Header(header) } else { Decoded::None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: 1,
            salt: 2,
            epoch: 3,
            generation: 4,
            first: 5,
            previous_end: 4,
            previous_epoch_end: 3,
            created_us: -6,
        }
    }

    proptest! {
        #[test]
        fn one_bad_byte_anywhere_in_the_page_does_not_hide_the_header(at in 0..SEGMENT_HEADER_BYTES, flip in 1u8..) {
            let mut page = header().encode();
            page[at] ^= flip;
            prop_assert_eq!(SegmentHeader::decode(&page), Decoded::Header(header()));
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            SegmentHeader::decode(&bytes);
        }

        #[test]
        fn a_file_name_is_read_back(first in 1u64.., generation in any::<u32>()) {
            prop_assert_eq!(parse_file_name(&file_name(first, generation)), Some((first, generation)));
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut page = header().encode();
        for copy in [0, COPY_AT] {
            page[copy + 8] = 2;
            let crc = crc32c::crc32c(&page[copy..copy + CRC_AT]);
            page[copy + CRC_AT..copy + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(SegmentHeader::decode(&page), Decoded::Newer(2));
    }

    #[test]
    fn names_of_other_files_are_not_segments() {
        for name in [
            "1.0.log",
            "00000000000000000001.log",
            "00000000000000000001.00.log",
            "next.1.log",
            "00000000000000000000.0.log",
            "+0000000000000000001.0.log",
            "00000000000000000001.0.log.index",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
