//! The index of one segment: where its offsets and times stand in the file, about every 64 KiB. In memory while
//! the segment is written, then a side file that can be deleted and rebuilt. While it is written, the index up to
//! some durable batch stands in a side file of its own, the index point, from which a start goes on.

use crate::batch::BatchHeader;
use crate::event::Offset;

/// Bytes of batches from one entry to the next, at least.
pub(crate) const INTERVAL_BYTES: u64 = 64 << 10;

const MAGIC: [u8; 8] = *b"fhindex1";
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// One interval of a segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset of the interval's first record.
    pub offset: Offset,
    /// Where its batch starts in the file.
    pub position: u64,
    /// The latest time of all batches of the segment up to the end of this interval. It never falls, also when
    /// the clock was put back, so the first interval that reaches a time can be found by halving.
    pub time_max_us: i64,
}

/// Where offsets and times stand in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// End of the last batch in the file.
    pub len: u64,
    /// Offset of the last record; one below the segment's first if it has none.
    pub last: Offset,
    /// The latest time of a batch; `i64::MIN` without one.
    pub time_max_us: i64,
}

impl Index {
    /// Of a segment without a batch yet, whose batches start at `len`.
    pub(crate) fn new(first: Offset, len: u64) -> Index {
        Index { entries: Vec::new(), len, last: first.saturating_sub(1), time_max_us: i64::MIN }
    }

    /// Takes note of a batch at `position`.
    pub(crate) fn push(&mut self, header: &BatchHeader, position: u64) {
        self.time_max_us = self.time_max_us.max(header.time_us);
        let due = self.entries.last().is_none_or(|entry| position >= entry.position + INTERVAL_BYTES);
        if due {
            self.entries.push(Entry { offset: header.base, position, time_max_us: self.time_max_us });
        } else if let Some(entry) = self.entries.last_mut() {
            entry.time_max_us = self.time_max_us;
        }
        self.len = position + header.total_bytes() as u64;
        self.last = header.last();
    }

    /// A place at or before the batch that holds `offset`: the offset that the batch there begins with, and its position.
    pub(crate) fn place_of(&self, offset: Offset) -> Option<(Offset, u64)> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        Some((entry.offset, entry.position))
    }

    /// The offset at which the first interval starts whose records reach `time_us`.
    pub(crate) fn seek_time(&self, time_us: i64) -> Option<Offset> {
        let at = self.entries.partition_point(|entry| entry.time_max_us < time_us);
        Some(self.entries.get(at)?.offset)
    }

    /// The index up to where its last interval begins: what may be skipped when a segment is looked through, but for
    /// the interval, whose first batch must be where it says.
    pub(crate) fn before_last_interval(&self) -> Option<Index> {
        let (last, before) = self.entries.split_last()?;
        let time_max_us = before.last().map_or(i64::MIN, |entry| entry.time_max_us);
        Some(Index {
            entries: before.to_vec(),
            len: last.position,
            last: last.offset.saturating_sub(1),
            time_max_us,
        })
    }

    /// The bytes of the side file of the segment whose header has this checksum.
    pub(crate) fn encode(&self, header_crc: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.time_max_us.to_le_bytes());
        out.extend_from_slice(&header_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.time_max_us.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the side file of the segment whose header has this checksum.
    ///
    /// # Errors
    /// What is wrong with it, if it has to be made anew.
    pub(crate) fn decode(bytes: &[u8], header_crc: u32) -> Result<Index, &'static str> {
        const CUT: &str = "is cut";
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(CUT)?;
        if head[0..8] != MAGIC {
            return Err("is none, or of another version");
        }
        let half = |at: usize| head[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half));
        if crc32c::crc32c(&bytes[12..]) != half(8) {
            return Err("is damaged");
        }
        // 0: written before indexes said whose they are.
        if half(40) != 0 && half(40) != header_crc {
            return Err("is not its own");
        }
        if rest.len() as u64 != u64::from(half(12)) * ENTRY_BYTES as u64 {
            return Err(CUT);
        }
        let word =
            |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let entries = rest.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            offset: word(entry, 0),
            position: word(entry, 8),
            time_max_us: word(entry, 16) as i64,
        });
        Ok(Index {
            entries: entries.collect(),
            len: word(head, 16),
            last: word(head, 24),
            time_max_us: word(head, 32) as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(batches: &[(u32, i64)]) -> (Index, Vec<(Offset, u64, i64)>) {
        let mut index = Index::new(10, 4096);
        let mut placed = Vec::new();
        for &(records_bytes, time_us) in batches {
            let header = BatchHeader { base: index.last + 1, time_us, epoch: 1, count: 2, records_bytes };
            placed.push((header.base, index.len, time_us));
            index.push(&header, index.len);
        }
        (index, placed)
    }

    proptest! {
        #[test]
        fn an_index_finds_offsets_and_the_first_time_and_is_read_back(
            batches in proptest::collection::vec((100u32..100_000, 0i64..1_000), 1..60), time in 0i64..1_001
        ) {
            let (index, placed) = index(&batches);
            prop_assert_eq!(Index::decode(&index.encode(7), 7), Ok(index.clone()));
            prop_assert!(Index::decode(&index.encode(7), 8).is_err());
            for &(base, position, _) in &placed {
                let (_, found) = index.place_of(base + 1).expect("an entry");
                prop_assert!(found <= position && position - found < INTERVAL_BYTES + 100_040);
            }
            let first = placed.iter().find(|(_, _, t)| *t >= time);
            let sought = index.seek_time(time);
            prop_assert_eq!(sought.is_some(), first.is_some());
            if let (Some(sought), Some(&(base, _, _))) = (sought, first) {
                prop_assert!(sought <= base);
                let skipped = placed.iter().filter(|(b, _, _)| *b < sought);
                prop_assert!(skipped.into_iter().all(|(_, _, t)| *t < time));
            }
        }

        #[test]
        fn a_damaged_index_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (index, _) = index(&[(70_000, 1), (70_000, 2)]);
            let mut bytes = index.encode(7);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Index::decode(&bytes, 7).is_err());
            prop_assert!(Index::decode(&bytes[..at], 7).is_err());
        }
    }
}
