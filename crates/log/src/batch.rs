//! A batch: records that were placed in the log by one append. The same bytes in memory and on the disk.

use crate::draft::Draft;
use crate::event::Offset;
use crate::record::{self, Record, Records};

/// Bytes of a batch's header (docs/adr/0001-format-v1.md).
pub const BATCH_HEADER_BYTES: usize = 40;

const MAGIC: [u8; 4] = *b"FHb1";
/// What an allocator adds to the three pieces of a shared batch, the counts of the `Arc`, and its place in a queue.
const ALLOCATED_BYTES: usize = 80;

/// The header's CRC32C stands here and covers what follows it.
const CRC_AT: usize = 4;
const CRC_COVERS: usize = 8;

/// A draft that got its place; what travels to every shard, what the log stores and what a reader gets.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    header: BatchHeader,
    logged: bool,
    /// As [`Batch::is_marked`] says, if it is known.
    marked: Option<bool>,
}

impl Batch {
    /// A batch that is delivered and not logged: `after` is the head it stands behind, its offsets mean nothing.
    pub fn unlogged(draft: Draft, after: Offset, time_us: i64) -> Batch {
        let header = BatchHeader::of(&draft, after, time_us, 0);
        let marked = Some(draft.is_marked);
        Batch { bytes: draft.bytes, starts: draft.starts, header, logged: false, marked }
    }

    /// A batch placed at `base` in `epoch`; its header is sealed with the log's `salt`.
    pub(crate) fn placed(mut draft: Draft, base: Offset, time_us: i64, epoch: u32, salt: u32) -> Batch {
        let header = BatchHeader::of(&draft, base, time_us, epoch);
        if let Some(front) = draft.bytes.first_chunk_mut() {
            *front = header.encode(salt);
        }
        let marked = Some(draft.is_marked);
        Batch { bytes: draft.bytes, starts: draft.starts, header, logged: true, marked }
    }

    /// The same batch in another epoch.
    pub(crate) fn of_epoch(self, epoch: u32, salt: u32) -> Batch {
        let is_marked = self.is_marked();
        let len = self.header.count as usize;
        let draft = Draft { bytes: self.bytes, starts: self.starts, len, is_marked };
        Batch::placed(draft, self.header.base, self.header.time_us, epoch, salt)
    }

    /// Offset of its first record.
    pub fn base(&self) -> Offset {
        self.header.base
    }

    /// Offset of its last record.
    pub fn last(&self) -> Offset {
        self.header.last()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Whether it has no record; no batch that was logged or read is empty.
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// When it was recorded: µs since 1970-01-01 UTC, by the wall clock, never corrected.
    pub fn time_us(&self) -> i64 {
        self.header.time_us
    }

    /// The epoch it was recorded in.
    pub fn epoch(&self) -> u32 {
        self.header.epoch
    }

    /// Whether the log holds it.
    pub fn is_logged(&self) -> bool {
        self.logged
    }

    /// Whether it holds a record that matters to the state beside the log, as [`Draft::is_marked`] says. For one that
    /// was read from the disk this is found by looking at its records.
    pub fn is_marked(&self) -> bool {
        self.marked.unwrap_or_else(|| self.records().any(|(_, record)| record.is_marked()))
    }

    /// Bytes of header and records.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that it takes, about: also what its buffers have to spare, and what goes with each of them.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.starts.capacity() * size_of::<u32>()
            + size_of::<Batch>()
            + ALLOCATED_BYTES
    }

    /// Its records with their offsets, from the first.
    pub fn records(&self) -> Records<'_> {
        Records {
            bytes: self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or(&[]),
            next: self.header.base,
            left: self.len(),
        }
    }

    /// The record at place `index` (0 is the first); an empty one of unknown kind beyond the last.
    pub fn record(&self, index: usize) -> Record<'_> {
        let start = match index {
            0 => Some(BATCH_HEADER_BYTES),
            _ => self.starts.get(index - 1).map(|&start| start as usize),
        };
        record::at(&self.bytes, start.unwrap_or(usize::MAX))
    }

    /// A batch of its own of the `count` records from place `first` on, of the same epoch and time.
    pub(crate) fn part(&self, first: usize, count: usize, salt: u32) -> Batch {
        let mut draft = Draft::new();
        for index in first..(first + count).min(self.len()) {
            draft.push_record(self.record_bytes(index), self.record(index).is_marked());
        }
        Batch::placed(draft, self.base() + first as u64, self.time_us(), self.epoch(), salt)
    }

    /// The same batch with a tombstone at `offset`; `None` if it does not hold that.
    pub(crate) fn redacted(&self, offset: Offset, salt: u32) -> Option<Batch> {
        let redacted = usize::try_from(offset.checked_sub(self.base())?).ok()?;
        if redacted >= self.len() {
            return None;
        }
        let mut draft = Draft::new();
        for index in 0..self.len() {
            match index == redacted {
                true => draft.push_record(&record::tombstone(), false),
                false => draft.push_record(self.record_bytes(index), self.record(index).is_marked()),
            }
        }
        Some(Batch::placed(draft, self.base(), self.time_us(), self.epoch(), salt))
    }

    fn record_bytes(&self, index: usize) -> &[u8] {
        let start = |index: usize| match index {
            0 => BATCH_HEADER_BYTES,
            _ => self.starts.get(index - 1).map_or(self.bytes.len(), |start| *start as usize),
        };
        self.bytes.get(start(index)..start(index + 1)).unwrap_or(&[])
    }

    /// Header and records as they stand on the disk.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The fixed part before the records of a batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub base: Offset,
    pub time_us: i64,
    pub epoch: u32,
    pub count: u32,
    /// Bytes of the records, without this header.
    pub records_bytes: u32,
}

impl BatchHeader {
    fn of(draft: &Draft, base: Offset, time_us: i64, epoch: u32) -> BatchHeader {
        let records_bytes = draft.bytes.len().saturating_sub(BATCH_HEADER_BYTES) as u32;
        BatchHeader { base, time_us, epoch, count: draft.len as u32, records_bytes }
    }

    pub(crate) fn of_batch(batch: &Batch) -> BatchHeader {
        batch.header
    }

    pub(crate) fn last(&self) -> Offset {
        (self.base + u64::from(self.count)).saturating_sub(1)
    }

    /// Bytes of header and records.
    pub(crate) fn total_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.records_bytes as usize
    }

    pub(crate) fn encode(&self, salt: u32) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.base.to_le_bytes());
        out[16..24].copy_from_slice(&self.time_us.to_le_bytes());
        out[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        out[28..32].copy_from_slice(&self.count.to_le_bytes());
        out[32..36].copy_from_slice(&self.records_bytes.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &out[CRC_COVERS..]);
        out[CRC_AT..CRC_COVERS].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the front of `bytes`, if there is a whole one that was sealed with `salt`.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<BatchHeader> {
        let head = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        if head[0..4] != MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(*head[CRC_AT..].first_chunk()?);
        if crc32c::crc32c_append(salt, &head[CRC_COVERS..]) != crc {
            return None;
        }
        let header = BatchHeader {
            base: u64::from_le_bytes(*head[8..].first_chunk()?),
            time_us: i64::from_le_bytes(*head[16..].first_chunk()?),
            epoch: u32::from_le_bytes(*head[24..].first_chunk()?),
            count: u32::from_le_bytes(*head[28..].first_chunk()?),
            records_bytes: u32::from_le_bytes(*head[32..].first_chunk()?),
        };
        let sane = header.base > 0
            && header.count > 0
            && header.base.checked_add(u64::from(header.count)).is_some()
            && header.records_bytes as usize / record::RECORD_HEAD_BYTES >= header.count as usize
            && header.total_bytes() <= crate::draft::DRAFT_BYTES_MAX;
        sane.then_some(header)
    }

    /// Where the magic of a header next stands in `bytes`, at or after `from`.
    pub(crate) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
        const BLOCK: usize = 256;
        // Most of what is searched is zeros, and comparing whole blocks with zeros is quick.
        for (block, start) in bytes.get(from..)?.chunks(BLOCK).zip((from..).step_by(BLOCK)) {
            if *block == [0; BLOCK][..block.len()] {
                continue;
            }
            let starts = start..start + block.len();
            let found = starts.into_iter().find(|&at| bytes[at..].starts_with(&MAGIC));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// What stands in the bytes of one batch, whose header was whole.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Whole records: all of the batch, or a run of them.
    Whole(Batch),
    /// Records that cannot be read: the first and the last of their offsets.
    Bad(Offset, Offset),
}

/// Takes the bytes of one batch (`bytes` may be longer or shorter than its header says) apart into runs of
/// whole records and ranges of bad ones, in order. Together they cover all its offsets.
pub(crate) fn split(bytes: &[u8], header: &BatchHeader, salt: u32) -> Vec<Piece> {
    let bytes = bytes.get(..header.total_bytes()).unwrap_or(bytes);
    let mut starts = Vec::new();
    let mut at = BATCH_HEADER_BYTES;
    let mut count = 0;
    while count < header.count {
        let Some(len) = bytes.get(at..).and_then(record::whole) else { break };
        if count > 0 {
            starts.push(at as u32);
        }
        at += len;
        count += 1;
    }
    if count == header.count && at == header.total_bytes() {
        let batch = Batch { bytes: bytes.to_vec(), starts, header: *header, logged: true, marked: None };
        return vec![Piece::Whole(batch)];
    }
    split_damaged(bytes, header, salt)
}

/// The slow way, for a batch with a bad record: the records before it and those after it that can be given
/// their offsets for certain, which is so while lengths can be trusted or, counted from the end, for a last run.
fn split_damaged(bytes: &[u8], header: &BatchHeader, salt: u32) -> Vec<Piece> {
    let count = header.count as usize;
    let mut found: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut at = BATCH_HEADER_BYTES;
    let mut index = 0;
    while index < count {
        match bytes.get(at..).and_then(record::whole) {
            Some(len) => {
                found[index] = Some((at, len));
                at += len;
            }
            None => break,
        }
        index += 1;
    }
    if bytes.len() == header.total_bytes() {
        place_last_run(bytes, at, &mut found);
    }
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < count {
        let whole = found[first].is_some();
        let end = (first..count).find(|&i| found[i].is_some() != whole).unwrap_or(count);
        let base = header.base + first as u64;
        pieces.push(match whole {
            true => Piece::Whole(run(bytes, &found[first..end], BatchHeader { base, ..*header }, salt)),
            false => Piece::Bad(base, header.base + end as u64 - 1),
        });
        first = end;
    }
    pieces
}

/// Looks behind `from` for whole records that follow each other up to the very end of the batch; being the
/// last ones they have the last offsets. Gives up when it has looked at every byte several times over, as bytes
/// made for that purpose could ask.
fn place_last_run(bytes: &[u8], from: usize, found: &mut [Option<(usize, usize)>]) {
    const LOOKS_PER_BYTE: usize = 16;
    let known = found.iter().filter(|place| place.is_some()).count();
    let mut looks = bytes.len().saturating_mul(LOOKS_PER_BYTE);
    for start in from + 1..bytes.len() {
        let cost = bytes[start..].first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
        if cost <= bytes.len() - start {
            let Some(left) = looks.checked_sub(cost) else { return };
            looks = left;
        }
        let mut run = Vec::new();
        let mut at = start;
        while let Some(len) = bytes.get(at..).and_then(record::whole) {
            run.push(Some((at, len)));
            at += len;
        }
        if at == bytes.len() && !run.is_empty() && known + run.len() < found.len() {
            let first = found.len() - run.len();
            found[first..].copy_from_slice(&run);
            return;
        }
    }
}

fn run(bytes: &[u8], places: &[Option<(usize, usize)>], header: BatchHeader, salt: u32) -> Batch {
    let mut draft = Draft::new();
    for &(start, len) in places.iter().flatten() {
        draft.push_record(&bytes[start..start + len], record::at(bytes, start).is_marked());
    }
    Batch::placed(draft, header.base, header.time_us, header.epoch, salt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use crate::event::{Event, Flags, Origin};
    use proptest::prelude::*;

    const SALT: u32 = 0x5a17;

    fn draft(payloads: &[Vec<u8>]) -> Draft {
        let mut draft = Draft::new();
        for payload in payloads {
            let event =
                Event { flags: Flags::default(), topic: "a/b", attributes: Attributes::EMPTY, payload };
            draft.push(&event, &Origin::default()).expect("fits");
        }
        draft
    }

    fn placed(payloads: &[Vec<u8>]) -> Batch {
        Batch::placed(draft(payloads), 100, 1_700_000_000_000_000, 3, SALT)
    }

    fn some_payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..12)
    }

    proptest! {
        #[test]
        fn a_batch_is_read_back_from_its_bytes(payloads in some_payloads()) {
            let batch = placed(&payloads);
            let header = BatchHeader::decode(batch.bytes(), SALT).expect("a header");
            let mut pieces = split(batch.bytes(), &header, SALT);
            prop_assert_eq!(pieces.len(), 1);
            let Some(Piece::Whole(read)) = pieces.pop() else { panic!("one whole piece") };
            prop_assert_eq!((read.base(), read.last()), (100, 99 + payloads.len() as u64));
            prop_assert_eq!((read.time_us(), read.epoch()), (1_700_000_000_000_000, 3));
            for (index, (offset, record)) in read.records().enumerate() {
                prop_assert_eq!(offset, 100 + index as u64);
                prop_assert_eq!(record.event().payload, &payloads[index][..]);
                prop_assert_eq!(read.record(index).event().payload, &payloads[index][..]);
            }
        }

        #[test]
        fn pieces_of_a_damaged_batch_cover_its_offsets_and_lose_one_record_at_most(
            payloads in some_payloads(), bit in any::<prop::sample::Index>()
        ) {
            let batch = placed(&payloads);
            let mut bytes = batch.bytes().to_vec();
            let header = BatchHeader::decode(&bytes, SALT).expect("a header");
            let bit = BATCH_HEADER_BYTES * 8 + bit.index((bytes.len() - BATCH_HEADER_BYTES) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (mut next, mut bad) = (100, 0);
            for piece in split(&bytes, &header, SALT) {
                match piece {
                    Piece::Whole(run) => {
                        prop_assert_eq!(run.base(), next);
                        for (offset, record) in run.records() {
                            prop_assert_eq!(record.event().payload, &payloads[(offset - 100) as usize][..]);
                        }
                        next = run.last() + 1;
                    }
                    Piece::Bad(first, last) => {
                        prop_assert_eq!(first, next);
                        bad += last + 1 - first;
                        next = last + 1;
                    }
                }
            }
            prop_assert_eq!(next, 100 + payloads.len() as u64);
            prop_assert_eq!(bad, 1);
        }

        #[test]
        fn any_bytes_are_taken_apart_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 1u32..20, len in 0u32..400
        ) {
            let header = BatchHeader { base: 1, time_us: 0, epoch: 1, count, records_bytes: len.max(count * 8) };
            if let Some(front) = bytes.first_chunk_mut() {
                *front = header.encode(SALT);
                prop_assert_eq!(BatchHeader::decode(&bytes, SALT), Some(header));
            }
            split(&bytes, &header, SALT);
        }
    }

    #[test]
    fn a_header_sealed_with_another_salt_is_none() {
        assert_eq!(BatchHeader::decode(placed(&[vec![1]]).bytes(), SALT + 1), None);
    }

    #[test]
    fn a_record_beyond_the_last_is_empty() {
        let batch = placed(&[vec![1]]);
        assert_eq!(batch.record(1).event().topic, "");
        assert_eq!(batch.record(usize::MAX).event().topic, "");
    }
}
