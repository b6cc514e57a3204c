//! Groups of shared subscriptions: how far each is, and which stored sessions subscribe to it. A group is kept as long as
//! there is one.

use crate::group::GroupKey;
use crate::lane::Gap;
use crate::state::core::State;
use crate::state::group_names::GroupNames;
use crate::state::record::{GroupRecord, SubscriptionsRecord};
use crate::state::store::{Store, StoreError};
use crate::state::stored::{StoredGroup, StoredState, StoredSubscription};
use firehose_log::Offset;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

struct KnownGroup {
    record: GroupRecord,
    /// Stored sessions that subscribe to it.
    sessions: BTreeSet<u64>,
    /// Those that are about to: what they have saved of their subscriptions does not name it yet.
    joining: BTreeSet<u64>,
    /// Messages that stood with sessions which ended, until the group has them among its own; and whether it was told.
    orphans: BTreeMap<Offset, bool>,
    /// What members had and the log has no more, until the group has it among what it tells.
    lost: Option<Gap>,
}

impl KnownGroup {
    fn new(record: GroupRecord) -> KnownGroup {
        let (sessions, joining) = (BTreeSet::new(), BTreeSet::new());
        KnownGroup { record, sessions, joining, orphans: BTreeMap::new(), lost: None }
    }

    /// What a group says that it has to tell, and what it has not heard of.
    fn whole_gap(&mut self, said: Option<Box<str>>) -> Option<Box<str>> {
        let said = said.map(|text| Gap::new(text.into()));
        self.lost.take_if(|lost| said.as_ref().is_some_and(|said| said.covers(lost)));
        let gap = match said {
            Some(said) => Some(said.and(self.lost.clone())),
            None => self.lost.clone(),
        };
        gap.map(|gap| gap.text().into())
    }

    fn is_unused(&self) -> bool {
        self.sessions.is_empty() && self.joining.is_empty()
    }
}

/// All groups of the state.
#[derive(Default)]
pub(crate) struct KnownGroups {
    all: HashMap<u64, KnownGroup>,
    of_session: HashMap<u64, Vec<u64>>,
    /// For shards, which ask for a group only if there is one.
    names: Arc<GroupNames>,
}

impl KnownGroups {
    /// Whose groups there are.
    pub(crate) fn names(&self) -> &Arc<GroupNames> {
        &self.names
    }

    /// Whether there is such a group.
    pub(crate) fn knows(&self, hash: u64) -> bool {
        self.all.contains_key(&hash)
    }

    /// How far a group is.
    pub(crate) fn open(&self, hash: u64) -> Option<StoredGroup> {
        let GroupRecord { group, taken, .. } = &self.all.get(&hash)?.record;
        // What the group comes to anyway needs not be given back: it would come twice.
        let is_free = |offset: &Offset| *offset < group.next && taken.binary_search(offset).is_err();
        Some(StoredGroup {
            next: group.next,
            pending: group.pending.iter().copied().filter(is_free).collect(),
            skipped: taken.iter().copied().filter(|offset| *offset >= group.next).collect(),
            gap: group.gap.clone(),
        })
    }

    /// A group went on. Gives what is to be written, if anything is.
    fn save(
        &mut self,
        key: &GroupKey,
        hash: u64,
        group: StoredGroup,
        sessions: &[u64],
    ) -> Option<GroupRecord> {
        if !sessions.is_empty() && !self.all.contains_key(&hash) {
            let (user, written) = (key.user.clone(), key.written.clone());
            let record = GroupRecord { user, written, group: StoredGroup::default(), taken: Vec::new() };
            self.insert(hash, record);
        }
        let known = self.all.get_mut(&hash)?;
        for session in sessions {
            if !known.sessions.contains(session) {
                known.joining.insert(*session);
            }
            let of_session = self.of_session.entry(*session).or_default();
            if !of_session.contains(&hash) {
                of_session.push(hash);
            }
        }
        let mut group = group;
        known.orphans.retain(|offset, _| group.pending.binary_search(offset).is_err());
        group.pending.extend(known.orphans.keys());
        group.pending.sort_unstable();
        group.gap = known.whole_gap(group.gap.take());
        let record = &mut known.record;
        // What was looked at, and is not wanted any more, needs not be told apart.
        let is_open = |offset: &Offset| *offset >= group.next || group.pending.binary_search(offset).is_ok();
        record.taken.retain(is_open);
        // Those from `next` on that it knew of are in the list already, or were taken before the group was made.
        record.taken.extend(&group.skipped);
        record.taken.sort_unstable();
        record.taken.dedup();
        record.group = StoredGroup { skipped: Vec::new(), ..group };
        Some(record.clone())
    }

    fn insert(&mut self, hash: u64, record: GroupRecord) {
        self.names.store(hash, record.user.as_deref(), &record.written);
        self.all.insert(hash, KnownGroup::new(record));
    }

    /// Messages are a member's for good.
    fn take(&mut self, hash: u64, offsets: &[Offset]) -> Option<GroupRecord> {
        let record = &mut self.all.get_mut(&hash)?.record;
        record.taken.extend(offsets);
        record.taken.sort_unstable();
        record.taken.dedup();
        Some(record.clone())
    }

    /// Messages of a member are gone.
    fn lose(&mut self, hash: u64, lost: &[(Offset, &'static str)]) -> Option<GroupRecord> {
        let known = self.all.get_mut(&hash)?;
        for (offset, why) in lost {
            known.lost = Some(Gap::widened(known.lost.take(), *offset, *offset, why));
        }
        let said = known.record.group.gap.take();
        known.record.group.gap = known.whole_gap(said);
        Some(known.record.clone())
    }

    /// Messages that a session had are to be given to somebody else.
    fn orphan(&mut self, hash: u64, offsets: &BTreeSet<Offset>) -> Option<GroupRecord> {
        let known = self.all.get_mut(&hash).filter(|_| !offsets.is_empty())?;
        known.orphans.extend(offsets.iter().map(|offset| (*offset, false)));
        let record = &mut known.record;
        record.taken.retain(|offset| !offsets.contains(offset));
        record.group.pending.extend(offsets);
        record.group.pending.sort_unstable();
        record.group.pending.dedup();
        Some(record.clone())
    }

    /// The group has begun with everything that was given back.
    fn told(&mut self, hash: u64) {
        if let Some(known) = self.all.get_mut(&hash) {
            known.orphans.clear();
            known.lost = None;
        }
    }

    /// Those of which the group has not been told; it is now.
    pub(crate) fn orphans_to_tell(&mut self, hash: u64) -> Vec<Offset> {
        let orphans = self.all.get_mut(&hash).into_iter().flat_map(|known| &mut known.orphans);
        let untold = orphans.filter_map(|(offset, told)| (!std::mem::replace(told, true)).then_some(*offset));
        untold.collect()
    }

    /// A stored session subscribes to these groups now. Gives those that nobody stored subscribes to any more. `is_over`: it
    /// has ended, and is not about to subscribe to others either.
    fn session_has(&mut self, session: u64, mut groups: Vec<u64>, is_over: bool) -> Vec<u64> {
        for hash in &groups {
            if let Some(known) = self.all.get_mut(hash) {
                known.joining.remove(&session);
                known.sessions.insert(session);
            }
        }
        let before = self.of_session.remove(&session).unwrap_or_default();
        let mut ended = Vec::new();
        for hash in before {
            let Some(known) = self.all.get_mut(&hash).filter(|_| !groups.contains(&hash)) else { continue };
            known.sessions.remove(&session);
            if known.joining.contains(&session) && !is_over {
                groups.push(hash);
                continue;
            }
            known.joining.remove(&session);
            if known.is_unused() {
                self.all.remove(&hash);
                self.names.forget(hash);
                ended.push(hash);
            }
        }
        if !groups.is_empty() {
            self.of_session.insert(session, groups);
        }
        ended
    }

    /// A session that a group was kept for does not subscribe to it after all.
    fn mistaken(&mut self, hash: u64, session: u64) {
        if let Some(known) = self.all.get_mut(&hash) {
            known.sessions.remove(&session);
            known.joining.remove(&session);
        }
        if let Some(groups) = self.of_session.get_mut(&session) {
            groups.retain(|known| *known != hash);
        }
    }

    /// Forgets groups that nobody stored subscribes to; gives them.
    fn forget_unused(&mut self) -> Vec<u64> {
        let unused = self.all.iter().filter(|(_, known)| known.is_unused());
        let unused: Vec<u64> = unused.map(|(hash, _)| *hash).collect();
        for hash in &unused {
            self.all.remove(hash);
            self.names.forget(*hash);
        }
        unused
    }

    fn hashes(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }
}

impl State {
    /// Which groups of shared subscriptions there are.
    pub fn group_names(&self) -> &Arc<GroupNames> {
        self.groups.names()
    }

    pub(super) fn save_group(&mut self, key: &GroupKey, hash: u64, group: StoredGroup, sessions: &[u64]) {
        let known: Vec<u64> =
            sessions.iter().copied().filter(|session| self.known.contains(*session)).collect();
        if let Some(record) = self.groups.save(key, hash, group, &known) {
            self.pending.groups.insert(hash, Some(record));
        }
    }

    /// How far a group is that begins at its shard, if there is one. It is kept for those who are about to subscribe, and
    /// its shard may not know yet who has unsubscribed: if it is nobody's by what sessions have saved, it has ended.
    pub(super) fn open_group(&mut self, hash: u64) -> Option<StoredGroup> {
        let known = self.groups.all.get(&hash)?;
        let (written, sessions) = (known.record.written.clone(), &known.sessions | &known.joining);
        for session in sessions {
            if !self.may_subscribe(session, &written) {
                self.groups.mistaken(hash, session);
            }
        }
        for unused in self.groups.forget_unused() {
            self.pending.groups.insert(unused, None);
        }
        let stored = self.groups.open(hash)?;
        // What was given back is among it: the group is not told again.
        self.groups.told(hash);
        Some(stored)
    }

    /// Whether a session subscribes to a group, as far as can be read.
    fn may_subscribe(&self, session: u64, written: &str) -> bool {
        let is_it = |record: &SubscriptionsRecord| {
            record.subscriptions.iter().any(|it| it.written.as_deref() == Some(written))
        };
        match self.pending.sessions.get(&session) {
            Some(change) if change.subscriptions.is_some() => {
                change.subscriptions.as_ref().is_some_and(is_it)
            }
            Some(change) if change.wiped => false,
            _ => match self.shelf.store().map(|store| store.subscriptions(session)) {
                Some(Ok(record)) => record.as_ref().is_some_and(is_it),
                _ => true,
            },
        }
    }

    pub(super) fn take_for_member(&mut self, hash: u64, offsets: &[Offset]) {
        if let Some(record) = self.groups.take(hash, offsets) {
            self.pending.groups.insert(hash, Some(record));
        }
    }

    /// A member's messages are gone, and with this save it has them no more.
    pub(super) fn lose_of_member(&mut self, hash: u64, lost: &[(Offset, &'static str)]) {
        if let Some(record) = self.groups.lose(hash, lost) {
            self.pending.groups.insert(hash, Some(record));
        }
    }

    /// A session is stored with these subscriptions.
    pub(super) fn session_subscribes(
        &mut self,
        session: u64,
        user: Option<&str>,
        list: &[StoredSubscription],
    ) {
        let groups = self.groups_among(user, list);
        let ended = self.groups.session_has(session, groups, false);
        self.pending.groups.extend(ended.into_iter().map(|hash| (hash, None)));
    }

    /// A session has ended.
    pub(super) fn session_leaves(&mut self, session: u64) {
        let ended = self.groups.session_has(session, Vec::new(), true);
        self.pending.groups.extend(ended.into_iter().map(|hash| (hash, None)));
    }

    /// A session ends while its client is away: others may have what it was sent at QoS 1 and did not acknowledge (MQTT 5.0
    /// section 4.8.2).
    pub(super) fn give_back(&mut self, session: u64) {
        if !self.groups.of_session.contains_key(&session) {
            return;
        }
        let Some(store) = self.shelf.store() else { return };
        let Ok(Some((record, resumed))) = store.session(session, self.pending.sessions.get(&session)) else {
            return;
        };
        for subscription in &resumed.subscriptions {
            let written = subscription.written.as_deref();
            let Some(key) = written.and_then(|it| GroupKey::of_user(record.user.as_deref(), it)) else {
                continue;
            };
            let of_group = resumed.progress.inflight.iter().filter(|it| it.shared == subscription.lane);
            let unacknowledged = of_group.filter(|it| it.state == StoredState::Sent1 && it.offset != 0);
            let offsets = unacknowledged.map(|it| it.offset).collect();
            let hash = key.hash_with(&self.secret);
            if let Some(record) = self.groups.orphan(hash, &offsets) {
                self.pending.groups.insert(hash, Some(record));
            }
        }
    }

    fn groups_among(&self, user: Option<&str>, list: &[StoredSubscription]) -> Vec<u64> {
        let shared = list.iter().filter_map(|it| GroupKey::of_user(user, it.written.as_deref()?));
        shared.map(|key| key.hash_with(&self.secret)).collect()
    }

    /// Gathers the groups of a file, and which of its sessions subscribe to them. `users` are the sessions, and whose they are.
    pub(super) fn index_groups(
        &mut self,
        store: &Store,
        users: &[(u64, Option<Box<str>>)],
    ) -> Result<(), StoreError> {
        let mut unreadable = Vec::new();
        store.groups(|hash, found| match found {
            Some(record) => self.groups.insert(hash, record),
            None => unreadable.push(hash),
        })?;
        if !self.groups.all.is_empty() {
            for (session, user) in users {
                let record: Option<SubscriptionsRecord> = store.subscriptions(*session)?;
                let list = record.unwrap_or_default().subscriptions;
                self.session_subscribes(*session, user.as_deref(), &list);
            }
        }
        unreadable.extend(self.groups.forget_unused());
        self.pending.groups.extend(unreadable.into_iter().map(|hash| (hash, None)));
        Ok(())
    }

    pub(super) fn forget_groups(&mut self) {
        for hash in self.groups.hashes() {
            self.groups.names.forget(hash);
        }
        self.groups = KnownGroups { names: self.groups.names.clone(), ..KnownGroups::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> GroupKey {
        GroupKey::of_user(Some("u"), "$share/g/t").expect("a group")
    }

    fn at(next: Offset, pending: &[Offset]) -> StoredGroup {
        StoredGroup { next, pending: pending.to_vec(), ..StoredGroup::default() }
    }

    #[test]
    fn what_a_session_has_taken_is_nobody_elses_whether_the_group_has_come_there_or_not() {
        let mut groups = KnownGroups::default();
        groups.save(&key(), 7, at(10, &[4, 5]), &[1]);
        groups.take(7, &[5, 12]);
        let stored = groups.open(7).expect("it is there");
        assert_eq!((stored.next, stored.pending, stored.skipped), (10, vec![4], vec![12]));
        groups.save(&key(), 7, at(14, &[5, 12, 13]), &[]);
        assert_eq!(groups.open(7).map(|it| it.pending), Some(vec![13]), "the group had not heard of it");
        groups.save(&key(), 7, at(14, &[13]), &[]);
        assert!(groups.all[&7].record.taken.is_empty(), "the group has heard of it");
    }

    #[test]
    fn a_group_ends_with_the_last_stored_session_that_subscribes_to_it() {
        let mut groups = KnownGroups::default();
        assert_eq!(groups.save(&key(), 7, at(10, &[]), &[]), None, "nobody wants it kept");
        assert!(groups.save(&key(), 7, at(10, &[]), &[1]).is_some());
        assert!(groups.session_has(1, vec![7], false).is_empty());
        assert!(groups.session_has(2, vec![7, 8], false).is_empty());
        assert!(groups.session_has(1, vec![], false).is_empty());
        assert_eq!(groups.session_has(2, vec![8], false), [7]);
        assert_eq!(groups.open(7), None);
        assert!(!groups.names().is_stored(7));
    }
    /// Found by the simulation (seed 446088912453).
    #[test]
    fn subscriptions_that_a_session_saves_while_it_joins_a_group_do_not_end_the_group() {
        let mut groups = KnownGroups::default();
        groups.save(&key(), 7, at(10, &[]), &[1]);
        assert!(groups.session_has(1, vec![], false).is_empty(), "another one of its filters was refused");
        groups.take(7, &[12]);
        assert_eq!(groups.open(7).map(|it| it.skipped), Some(vec![12]));
        assert!(groups.session_has(1, vec![7], false).is_empty());
        assert_eq!(groups.session_has(1, vec![], false), [7], "it unsubscribes");
        groups.save(&key(), 7, at(10, &[]), &[1]);
        assert_eq!(groups.session_has(1, vec![], true), [7], "it ends before it has joined");
    }

    /// Found by the simulation (seed 446495809958): both its reading and what was given back brought it.
    #[test]
    fn what_a_session_leaves_that_the_group_as_it_was_saved_has_not_come_to_is_not_given_back() {
        let mut groups = KnownGroups::default();
        groups.save(&key(), 7, at(10, &[]), &[1]);
        groups.take(7, &[9, 12]);
        groups.orphan(7, &[9, 12].into());
        let stored = groups.open(7).expect("it is there");
        assert_eq!((stored.next, stored.pending, stored.skipped), (10, vec![9], vec![]));
    }
}
