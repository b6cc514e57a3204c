//! Which groups of shared subscriptions there are, and how many each user has: those with a member that is connected, at any
//! shard, and those that the state keeps for sessions that are away.

use crate::group::GroupKey;
use crate::limits::Limits;
use crate::sync::{Mutex, lock};
use std::collections::HashMap;
use std::sync::Arc;

/// A group whose filter has more slashes than this counts as several: groups stay in the trie, and each message walks through it.
const SLASHES_MAX: usize = 80;

#[derive(Debug)]
struct Known {
    user: Option<Box<str>>,
    /// As how many groups it counts.
    weight: usize,
    /// Sessions of connected clients that are in it, or ask to be.
    members: usize,
    /// The state has it.
    stored: bool,
}

#[derive(Debug, Default)]
struct Inside {
    all: HashMap<u64, Known>,
    /// As how many the groups of each user count; the anonymous are one.
    of_user: HashMap<Option<Box<str>>, usize>,
}

impl Inside {
    fn enter(&mut self, hash: u64, user: Option<&str>, written: &str) -> &mut Known {
        let of_user = &mut self.of_user;
        self.all.entry(hash).or_insert_with(|| {
            let (user, weight) = (user.map(Box::from), weight(written));
            *of_user.entry(user.clone()).or_default() += weight;
            Known { user, weight, members: 0, stored: false }
        })
    }

    fn change(&mut self, hash: u64, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.all.get_mut(&hash) else { return };
        change(known);
        if known.members > 0 || known.stored {
            return;
        }
        let Some(Known { user, weight, .. }) = self.all.remove(&hash) else { return };
        if let Some(count) = self.of_user.get_mut(&user) {
            *count -= weight;
            if *count == 0 {
                self.of_user.remove(&user);
            }
        }
    }
}

/// See the module. A group is named by the hash of its key.
#[derive(Debug, Default)]
pub struct GroupNames(Mutex<Inside>);

impl GroupNames {
    /// Whether the state may have it. It says so from before a group is stored until after it is gone.
    pub fn is_stored(&self, hash: u64) -> bool {
        lock(&self.0).all.get(&hash).is_some_and(|known| known.stored)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).all.len()
    }

    /// A group is about to be stored, or was found.
    pub(crate) fn store(&self, hash: u64, user: Option<&str>, written: &str) {
        lock(&self.0).enter(hash, user, written).stored = true;
    }

    /// The state has it no more.
    pub(crate) fn forget(&self, hash: u64) {
        lock(&self.0).change(hash, |known| known.stored = false);
    }

    /// A client subscribes. None: there would be one group more than the limits have it.
    pub(crate) fn join(self: &Arc<Self>, hash: u64, key: &GroupKey, limits: &Limits) -> Option<Membership> {
        let inside = &mut *lock(&self.0);
        let has = inside.of_user.get(&key.user).copied().unwrap_or(0);
        let is_full =
            inside.all.len() >= limits.groups_max || has + weight(&key.written) > limits.groups_per_user_max;
        if is_full && !inside.all.contains_key(&hash) {
            return None;
        }
        inside.enter(hash, key.user.as_deref(), &key.written).members += 1;
        Some(Membership { names: self.clone(), hash })
    }

    /// A session goes on that is in it, whatever the limits are now.
    pub(crate) fn join_again(self: &Arc<Self>, hash: u64, key: &GroupKey) -> Membership {
        lock(&self.0).enter(hash, key.user.as_deref(), &key.written).members += 1;
        Membership { names: self.clone(), hash }
    }
}

/// That a connected client's session is in a group, until it is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    names: Arc<GroupNames>,
    hash: u64,
}

impl Membership {
    /// Of which group.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.names.0).change(self.hash, |known| known.members -= 1);
    }
}

/// As how many groups one with this `$share/<name>/<filter>` counts.
fn weight(written: &str) -> usize {
    let slashes = written.bytes().filter(|byte| *byte == b'/').count();
    slashes.div_ceil(SLASHES_MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> GroupKey {
        GroupKey::of_user(Some(user), "$share/g/t").expect("a group")
    }

    #[test]
    fn groups_are_counted_once_whoever_is_in_them_and_wherever_they_are_kept() {
        let names = Arc::new(GroupNames::default());
        let limits = Limits { groups_max: 3, groups_per_user_max: 2, ..Limits::default() };
        let one = names.join(1, &key("alice"), &limits).expect("the first");
        let again = names.join(1, &key("alice"), &limits).expect("the same");
        names.store(1, Some("alice"), "$share/g/t");
        names.store(2, Some("alice"), "$share/h/t");
        assert_eq!((names.count(), names.is_stored(1), names.is_stored(3)), (2, true, false));
        assert!(names.join(3, &key("alice"), &limits).is_none(), "she has two");
        drop((one, again));
        assert!(names.join(3, &key("alice"), &limits).is_none(), "the state has them");
        let bob = names.join(4, &key("bob"), &limits).expect("another user's");
        assert!(names.join(5, &key("bob"), &limits).is_none(), "there are three");
        assert!(names.join(2, &key("alice"), &limits).is_some(), "that one is there");
        let fourth = names.join_again(5, &key("bob"));
        assert_eq!(names.count(), 4);
        drop((bob, fourth));
        names.forget(1);
        names.forget(2);
        assert_eq!(names.count(), 0);
        assert!(lock(&names.0).of_user.is_empty());
    }

    #[test]
    fn a_group_of_very_many_levels_counts_as_several() {
        let names = Arc::new(GroupNames::default());
        let limits = Limits { groups_per_user_max: 5, ..Limits::default() };
        let key = |slashes: usize| {
            let written = format!("$share/g/{}t", "a/".repeat(slashes - 2));
            GroupKey::of_user(Some("alice"), &written).expect("a group")
        };
        assert!(names.join(1, &key(401), &limits).is_none(), "six");
        let four = names.join(2, &key(320), &limits).expect("four");
        assert!(names.join(3, &key(81), &limits).is_none(), "two more");
        let fifth = names.join(4, &key(80), &limits).expect("one more");
        assert!(names.join(5, &key(2), &limits).is_none());
        drop((four, fifth));
        assert!(lock(&names.0).of_user.is_empty());
    }
}
