use std::hash::{BuildHasher, RandomState};

/// The edges of all nodes: a hash table (open addressing, linear probing) from (parent, level) to the child. It holds
/// only part of the hash and the child's number; the rest of the key stands in the child.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// 0: this slot is empty.
    child: u32,
}

impl Edges {
    /// The child with this hash for which `is_it` says so, or 0.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> u32 {
        if self.slots.is_empty() {
            return 0;
        }
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.child == 0 || slot.hash == hash && is_it(slot.child) {
                return slot.child;
            }
            at = self.after(at);
        }
    }

    /// Adds a child that is not in it.
    pub(super) fn insert(&mut self, hash: u32, child: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(8));
        }
        self.place(Slot { hash, child });
        self.len += 1;
    }

    /// Takes out a child that is in it.
    pub(super) fn remove(&mut self, hash: u32, child: u32) {
        if self.find(hash, |found| found == child) == 0 {
            return;
        }
        let mut hole = self.home(hash);
        while self.slots[hole].child != child {
            hole = self.after(hole);
        }
        // Whoever stands behind and would be nearer to home in the hole moves there, so that no search stops early.
        let mut at = self.after(hole);
        while self.slots[at].child != 0 {
            let home = self.home(self.slots[at].hash);
            if self.distance(home, hole) < self.distance(home, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = Slot::default();
        self.len -= 1;
        if self.slots.len() > 8 && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        for slot in old.into_iter().filter(|slot| slot.child != 0) {
            self.place(slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].child != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

/// Hashes (parent, level): multiply and fold, eight bytes at a time, with two secret random numbers.
#[derive(Debug)]
pub(super) struct Hasher {
    seed: u64,
    factor: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        let random = RandomState::new();
        Self { seed: random.hash_one(0_u8), factor: random.hash_one(1_u8) | 1 }
    }
}

impl Hasher {
    pub(super) fn hash(&self, parent: u32, level: &[u8]) -> u32 {
        let mut hash = self.fold(self.seed ^ (u64::from(parent) << 32 | level.len() as u64));
        let mut chunks = level.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            hash = self.fold(hash ^ u64::from_le_bytes(word));
        }
        let rest = chunks.remainder().iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
        hash = self.fold(hash ^ rest);
        (hash ^ hash >> 32) as u32
    }

    fn fold(&self, word: u64) -> u64 {
        let product = u128::from(word) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_with_colliding_hashes_survive_removals() {
        let mut edges = Edges::default();
        let hash = |child: u32| child % 7;
        for child in 1..200 {
            edges.insert(hash(child), child);
        }
        for child in (1..200).step_by(2) {
            edges.remove(hash(child), child);
        }
        for child in 1..200 {
            let expected = if child % 2 == 0 { child } else { 0 };
            assert_eq!(edges.find(hash(child), |found| found == child), expected);
        }
    }
}
