//! Which shards are to be run or woken.

/// A set of shards (at most [`SHARDS_MAX`]) that sleep although there is something for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sleepers(u64);

/// As many shards as a [`Sleepers`] set can name.
pub const SHARDS_MAX: usize = 64;

impl Sleepers {
    /// Adds a shard.
    pub fn insert(&mut self, shard: usize) {
        self.0 |= 1 << shard;
    }

    /// Both sets.
    pub fn merge(&mut self, other: Sleepers) {
        self.0 |= other.0;
    }

    /// The shards in it.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..SHARDS_MAX).filter(move |shard| self.0 & (1 << shard) != 0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}
