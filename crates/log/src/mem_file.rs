//! A file of the disk in memory: its bytes as readers see them, those that stand on the disk, and which pages differ.

use std::collections::BTreeSet;

/// What is kept or lost as one when the power fails.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The bytes of one file.
#[derive(Default)]
pub(crate) struct Content {
    /// As they are read.
    pub bytes: Vec<u8>,
    /// As they stand on the disk.
    durable: Vec<u8>,
    /// Pages that were written and wait to be written to the disk.
    dirty: BTreeSet<usize>,
    /// The lowest length it was cut to since the last sync.
    cut: Option<usize>,
}

impl Content {
    /// All of it on the disk.
    pub(crate) fn durable(bytes: &[u8]) -> Content {
        Content { bytes: bytes.to_vec(), durable: bytes.to_vec(), ..Content::default() }
    }

    /// Writes over what stands at `position`, and beyond the end.
    pub(crate) fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        if bytes.is_empty() {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[position..end].copy_from_slice(bytes);
        self.dirty.extend(position / PAGE_BYTES..=(end - 1) / PAGE_BYTES);
    }

    /// Cuts it, or fills it up with zeros.
    pub(crate) fn set_len(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
            self.dirty.retain(|page| page * PAGE_BYTES < len);
        }
        self.bytes.resize(len, 0);
    }

    /// Makes everything durable that waits to be.
    pub(crate) fn sync(&mut self) {
        self.apply_cut();
        self.durable.resize(self.bytes.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.write_page(page);
        }
    }

    /// A sync that failed, as Linux has it: nothing was written, and nothing waits to be any longer.
    pub(crate) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// Writes some of what waits, as the system does at any time.
    pub(crate) fn write_back(&mut self, random: &mut Random) {
        if self.cut.is_some() {
            return;
        }
        for page in std::mem::take(&mut self.dirty) {
            if random.coin() {
                let end = ((page + 1) * PAGE_BYTES).min(self.bytes.len());
                self.durable.resize(self.durable.len().max(end), 0);
                self.write_page(page);
            } else {
                self.dirty.insert(page);
            }
        }
    }

    /// Forgets what is in memory and need not be written, so that it is read from the disk again.
    pub(crate) fn evict(&mut self) {
        for page in 0..self.bytes.len().div_ceil(PAGE_BYTES) {
            let (start, end) = (page * PAGE_BYTES, ((page + 1) * PAGE_BYTES).min(self.bytes.len()));
            if self.dirty.contains(&page) || self.cut.is_some_and(|cut| cut < end) {
                continue;
            }
            let on_disk = self.durable.get(start..end.min(self.durable.len())).unwrap_or(&[]);
            self.bytes[start..start + on_disk.len()].copy_from_slice(on_disk);
            self.bytes[start + on_disk.len()..end].fill(0);
        }
    }

    /// The power fails; with `random` some of what was not synced is there all the same, page by page.
    pub(crate) fn lose_power(&mut self, random: Option<&mut Random>) {
        if let Some(random) = random {
            self.keep_some(random);
        }
        self.bytes.clone_from(&self.durable);
        self.dirty.clear();
        self.cut = None;
    }

    /// Turns one bit of what is on the disk.
    pub(crate) fn flip(&mut self, byte: usize, bit: u8) {
        for bytes in [&mut self.bytes, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    fn keep_some(&mut self, random: &mut Random) {
        // A file system writes a cut and what came after it in this order.
        if self.cut.is_some() && random.coin() {
            return;
        }
        self.apply_cut();
        let (least, most) = (self.durable.len(), self.bytes.len());
        let len = match random.below(3) {
            0 => least,
            1 => most,
            _ => least + random.below(most.saturating_sub(least) + 1),
        };
        let pages: Vec<_> = self.dirty.iter().copied().filter(|_| random.coin()).collect();
        self.durable.resize(len, 0);
        for page in pages {
            self.write_page(page);
        }
    }

    fn apply_cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.durable.truncate(cut);
        }
    }

    /// Copies a page to the disk, as far as the file on the disk goes.
    fn write_page(&mut self, page: usize) {
        let start = page * PAGE_BYTES;
        let end = (start + PAGE_BYTES).min(self.bytes.len()).min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.bytes[start..end]);
        }
    }
}

/// Numbers that follow from a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// Below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; PAGE_BYTES]
    }

    #[test]
    fn overwritten_pages_are_kept_or_lost_each_for_itself() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut content = Content::durable(&[page(1), page(1), page(1)].concat());
            content.write(&page(2), 0);
            content.write(&page(2), 2 * PAGE_BYTES);
            content.lose_power(Some(&mut Random::new(seed)));
            assert!(content.bytes.chunks(PAGE_BYTES).all(|page| page.iter().all(|byte| *byte == page[0])));
            seen.insert([0, 1, 2].map(|page| content.bytes[page * PAGE_BYTES]));
        }
        assert_eq!(seen, BTreeSet::from([[1, 1, 1], [2, 1, 1], [1, 1, 2], [2, 1, 2]]));
    }

    #[test]
    fn what_was_synced_is_kept_whatever_is_lost() {
        for seed in 0..100 {
            let mut content = Content::default();
            content.write(&[page(1), page(2)].concat(), 0);
            content.sync();
            content.write(b"x", 3 * PAGE_BYTES);
            content.lose_power(Some(&mut Random::new(seed)));
            assert_eq!(content.bytes[..2 * PAGE_BYTES], [page(1), page(2)].concat());
        }
    }

    #[test]
    fn a_cut_that_is_lost_brings_back_what_was_there_and_one_that_is_kept_leaves_zeros() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut content = Content::durable(&[page(1), page(1)].concat());
            content.set_len(PAGE_BYTES + 1);
            content.set_len(3 * PAGE_BYTES);
            content.lose_power(Some(&mut Random::new(seed)));
            let at = |at: usize| content.bytes.get(at).copied();
            seen.insert((at(PAGE_BYTES), at(PAGE_BYTES + 1), at(2 * PAGE_BYTES + 1).is_some()));
        }
        assert!(seen.contains(&(Some(1), Some(1), false)) && seen.contains(&(Some(1), Some(0), true)));
        assert!(!seen.contains(&(Some(1), Some(1), true)));
    }

    #[test]
    fn after_a_failed_sync_a_later_one_says_yes_and_has_written_nothing() {
        let mut content = Content::durable(&page(1));
        content.write(&page(2), 0);
        content.fail_sync();
        content.sync();
        assert_eq!(content.bytes, page(2));
        content.evict();
        assert_eq!(content.bytes, page(1));
    }

    #[test]
    fn a_file_cut_synced_and_grown_again_reads_zeros() {
        let mut content = Content::durable(&page(1));
        content.set_len(10);
        content.set_len(PAGE_BYTES);
        content.sync();
        content.lose_power(None);
        assert_eq!((content.bytes[9], content.bytes[10], content.bytes.len()), (1, 0, PAGE_BYTES));
    }
}
