//! The sessions that the state has, as far as caps and expiry need to know: some 50 bytes each.

use crate::limits::{AddressKey, Limits};
use crate::state::record::Life;
use std::collections::{BTreeSet, HashMap};

/// One session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// It is nobody's own.
    pub anonymous: bool,
    /// Whom it counts for.
    pub address: Option<AddressKey>,
    /// Until when it lives.
    pub life: Life,
}

/// All sessions of the state, counted.
#[derive(Default)]
pub(crate) struct KnownSessions {
    sessions: HashMap<u64, Known>,
    anonymous: usize,
    addresses: HashMap<AddressKey, usize>,
    /// When sessions end that are not connected.
    ends: BTreeSet<(i64, u64)>,
}

impl KnownSessions {
    /// The session of this hash.
    pub(crate) fn get(&self, hash: u64) -> Option<&Known> {
        self.sessions.get(&hash)
    }

    /// Whether there is one.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.sessions.contains_key(&hash)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Their hashes.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.sessions.keys().copied()
    }

    /// Which limit stands against one more, that takes the place of `hash` if there is such a session.
    pub(crate) fn over(
        &self,
        limits: &Limits,
        hash: u64,
        anonymous: bool,
        address: Option<AddressKey>,
    ) -> Option<&'static str> {
        let replaced = self.get(hash);
        let sessions = self.len() - usize::from(replaced.is_some());
        if sessions >= limits.sessions_max {
            return Some("sessions_max");
        }
        if !anonymous {
            return None;
        }
        let freed = replaced.is_some_and(|known| known.anonymous);
        if self.anonymous - usize::from(freed) >= limits.anonymous_sessions_max {
            return Some("anonymous_sessions_max");
        }
        let count = *self.addresses.get(&address?)?;
        let freed = replaced.is_some_and(|known| known.anonymous && known.address == address);
        (count - usize::from(freed) >= limits.anonymous_sessions_per_address_max)
            .then_some("anonymous_sessions_per_address_max")
    }

    /// A session came into being, or was found in the file.
    pub(crate) fn insert(&mut self, hash: u64, known: Known) {
        self.remove(hash);
        if known.anonymous {
            self.anonymous += 1;
            if let Some(address) = known.address {
                *self.addresses.entry(address).or_default() += 1;
            }
        }
        self.ends.extend(known.life.end_us().map(|end| (end, hash)));
        self.sessions.insert(hash, known);
    }

    /// A session ended.
    pub(crate) fn remove(&mut self, hash: u64) {
        let Some(known) = self.sessions.remove(&hash) else { return };
        self.anonymous -= usize::from(known.anonymous);
        if let Some(address) = known.address.filter(|_| known.anonymous)
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        if let Some(end) = known.life.end_us() {
            self.ends.remove(&(end, hash));
        }
    }

    /// A session is connected, or left.
    pub(crate) fn live(&mut self, hash: u64, life: Life) {
        let Some(known) = self.sessions.get_mut(&hash) else { return };
        if let Some(end) = known.life.end_us() {
            self.ends.remove(&(end, hash));
        }
        known.life = life;
        self.ends.extend(life.end_us().map(|end| (end, hash)));
    }

    /// The session that ended longest ago.
    pub(crate) fn expired(&self, now_us: i64) -> Option<u64> {
        self.ends.first().filter(|(end, _)| *end <= now_us).map(|(_, hash)| *hash)
    }

    /// When the next one ends.
    pub(crate) fn next_end_us(&self) -> Option<i64> {
        self.ends.first().map(|(end, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(address: u8, anonymous: bool, left_us: Option<i64>) -> Known {
        let address = AddressKey::of(Some(std::net::IpAddr::from([203, 0, 113, address])));
        Known { anonymous, address, life: Life { expiry_secs: 10, left_us } }
    }

    proptest! {
        #[test]
        fn counters_are_what_counting_gives(
            steps in proptest::collection::vec((0u64..6, 0u8..3, any::<bool>(), proptest::option::of(0i64..50), any::<bool>()), 0..60)
        ) {
            let mut sessions = KnownSessions::default();
            for (hash, address, anonymous, left_us, gone) in steps {
                match gone {
                    true => sessions.remove(hash),
                    false => sessions.insert(hash, known(address, anonymous, left_us)),
                }
                let all: Vec<_> = sessions.sessions.values().collect();
                prop_assert_eq!(sessions.anonymous, all.iter().filter(|known| known.anonymous).count());
                prop_assert_eq!(sessions.addresses.values().sum::<usize>(), sessions.anonymous);
                prop_assert_eq!(sessions.ends.len(), all.iter().filter(|known| known.life.left_us.is_some()).count());
                for (&key, &count) in &sessions.addresses {
                    let counted = all.iter().filter(|known| known.anonymous && known.address == Some(key));
                    prop_assert_eq!(counted.count(), count);
                }
            }
        }
    }

    #[test]
    fn each_cap_is_named_and_a_session_that_is_replaced_does_not_count() {
        let limits = Limits {
            sessions_max: 4,
            anonymous_sessions_max: 3,
            anonymous_sessions_per_address_max: 2,
            ..Limits::default()
        };
        let mut sessions = KnownSessions::default();
        sessions.insert(1, known(1, true, None));
        sessions.insert(2, known(1, true, None));
        let address = known(1, true, None).address;
        assert_eq!(sessions.over(&limits, 9, true, address), Some("anonymous_sessions_per_address_max"));
        assert_eq!(sessions.over(&limits, 1, true, address), None);
        assert_eq!(sessions.over(&limits, 9, true, None), None);
        sessions.insert(3, known(2, true, None));
        assert_eq!(sessions.over(&limits, 9, true, None), Some("anonymous_sessions_max"));
        assert_eq!(sessions.over(&limits, 9, false, address), None);
        sessions.insert(4, known(2, false, None));
        assert_eq!(sessions.over(&limits, 9, false, address), Some("sessions_max"));
        assert_eq!(sessions.over(&limits, 4, false, address), None);
    }
}
