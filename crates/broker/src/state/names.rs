//! Which sessions the state has, so that a shard knows when it has to ask.

use crate::sync::{Mutex, lock};
use std::collections::HashSet;

/// The hashes of the names of all sessions in the state. A hash stands in it from before a session is stored until after
/// it is gone.
#[derive(Debug, Default)]
pub struct StoredNames(Mutex<HashSet<u64>>);

impl StoredNames {
    /// Whether the state may have a session under this name.
    pub fn contains(&self, hash: u64) -> bool {
        lock(&self.0).contains(&hash)
    }

    /// A session is about to be stored, or was found.
    pub fn insert(&self, hash: u64) {
        lock(&self.0).insert(hash);
    }

    /// A session is gone.
    pub fn remove(&self, hash: u64) {
        lock(&self.0).remove(&hash);
    }
}
