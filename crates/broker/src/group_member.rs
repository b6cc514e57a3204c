//! A member as its group sees it: what it takes, and what it was given and has not settled. That lies with the member, so that
//! who leaves costs the group what it had, and nothing for what others have.

use crate::group_message::{Join, MemberKey, Piece, Settled};
use crate::lane::Gap;
use firehose_log::Offset;
use std::collections::BTreeMap;

/// See the module.
pub(crate) struct GroupMember {
    pub(crate) key: MemberKey,
    pub(crate) client_id: Box<str>,
    /// [`Join::stored`].
    pub(crate) stored: Option<u64>,
    pub(crate) v5: bool,
    /// Not everything that the filter matches may be read.
    pub(crate) checked: bool,
    /// Given in this turn.
    pub(crate) pieces: Vec<Piece>,
    credit: u32,
    /// Bytes of what it was given and has not settled.
    bytes: usize,
    given: BTreeMap<Offset, Given>,
    /// What it was told to be gone, and may not have read.
    told: Option<Gap>,
}

struct Given {
    bytes: usize,
    /// It stands in the member's stored session.
    taken: bool,
    /// What it tells to be gone.
    gap: Option<Gap>,
}

/// What a group has to do for a member that settled something, or left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Undone {
    /// Others are to get these.
    pub(crate) returned: Vec<Offset>,
    /// Others are to be told.
    pub(crate) untold: Vec<Gap>,
}

impl GroupMember {
    /// One that comes; `checked`: not everything that the filter matches may be read.
    pub(crate) fn new(join: &Join, checked: bool) -> GroupMember {
        GroupMember {
            key: join.member,
            client_id: join.client_id.clone(),
            stored: join.stored,
            v5: join.v5,
            checked,
            pieces: Vec::new(),
            credit: 0,
            bytes: 0,
            given: BTreeMap::new(),
            told: None,
        }
    }

    /// How many messages it takes now, where it may have so many bytes.
    pub(crate) fn takes(&self, bytes_max: usize) -> usize {
        if self.bytes < bytes_max { self.credit as usize } else { 0 }
    }

    /// A message is its own, which tells a gap or none; offset 0: it is in no log.
    pub(crate) fn give(&mut self, offset: Offset, bytes: usize, gap: Option<Gap>) {
        self.credit = self.credit.saturating_sub(1);
        if offset != 0 {
            self.forget(offset);
            self.bytes += bytes;
            self.given.insert(offset, Given { bytes, taken: false, gap });
        }
    }

    /// What became of messages; none: the state needs not be told.
    pub(crate) fn settle(&mut self, settled: &Settled) -> Option<Undone> {
        self.credit = self.credit.saturating_add(settled.credit);
        let mut undone = Undone::default();
        for offset in settled.untold.iter().chain(&settled.returned) {
            undone.untold.extend(self.given.get_mut(offset).and_then(|given| given.gap.take()));
        }
        self.hears(settled);
        let mut changed = settled.read || !undone.untold.is_empty();
        for offset in &settled.returned {
            if self.forget(*offset) {
                undone.returned.push(*offset);
            }
        }
        for offset in &settled.done {
            changed |= self.forget(*offset);
        }
        for offset in &settled.taken {
            if let Some(given) = self.given.get_mut(offset) {
                self.bytes -= std::mem::take(&mut given.bytes);
                given.taken = true;
                changed = true;
            }
        }
        (changed || !undone.returned.is_empty()).then_some(undone)
    }

    /// It is gone: what it had, and did not keep, is to be given to others.
    pub(crate) fn leave(mut self, left: &Settled) -> Undone {
        // Nobody knows whether these were heard; what its session sends again does not tell them.
        let unheard = self.given.values_mut().filter_map(|given| given.gap.take());
        let untold = self.told.take().into_iter().chain(unheard).collect();
        for offset in &left.done {
            self.given.remove(offset);
        }
        Undone { returned: left.returned.iter().copied().chain(self.not_kept()).collect(), untold }
    }

    /// What it has and did not keep.
    pub(crate) fn not_kept(&self) -> impl Iterator<Item = Offset> {
        self.given.iter().filter(|(_, given)| !given.taken).map(|(offset, _)| *offset)
    }

    /// What it was told to be gone, and may not have read.
    pub(crate) fn told(&self) -> Option<&Gap> {
        self.told.as_ref()
    }

    /// What is on its way to tell it.
    pub(crate) fn on_its_way(&self) -> impl Iterator<Item = (Offset, &Gap)> {
        self.given.iter().filter_map(|(offset, given)| Some((*offset, given.gap.as_ref()?)))
    }

    /// It has this no more. False: it had not.
    fn forget(&mut self, offset: Offset) -> bool {
        let given = self.given.remove(&offset);
        self.bytes -= given.as_ref().map_or(0, |given| given.bytes);
        given.is_some()
    }

    /// What was written to it at QoS 0 told gaps: they are its own until it has read them, or left.
    fn hears(&mut self, settled: &Settled) {
        for offset in &settled.told {
            if let Some(gap) = self.given.get_mut(offset).and_then(|given| given.gap.take()) {
                self.told = Some(match self.told.take() {
                    Some(told) => told.and(Some(gap)),
                    None => gap,
                });
            }
        }
        self.told.take_if(|_| settled.read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::GroupKey;
    use firehose_auth::Identity;
    use std::sync::Arc;

    fn gap() -> Gap {
        Gap::new("1..2 gone".into())
    }

    fn member() -> GroupMember {
        let member = MemberKey { shard: 0, session: 1, generation: 1, lane: 1, serial: 1 };
        let key = GroupKey::of_user(Some("u"), "$share/g/t").expect("a group");
        let join = Join {
            member,
            question: 0,
            key: Arc::new(key),
            hash: 7,
            identity: Identity::user("u"),
            client_id: "c".into(),
            v5: true,
            stored: None,
            from: None,
        };
        GroupMember::new(&join, false)
    }

    fn nothing() -> Settled {
        let (member, lists) = (member().key, || Vec::new());
        let (untold, told, returned, taken) = (lists(), lists(), lists(), lists());
        let (done, lost) = (lists(), Vec::new());
        Settled { hash: 7, member, done, untold, told, read: false, returned, taken, lost, credit: 0 }
    }

    #[test]
    fn who_leaves_says_what_it_had_and_did_not_keep_and_what_it_may_not_have_heard() {
        let mut member = member();
        assert_eq!(member.settle(&Settled { credit: 9, ..nothing() }), None);
        for offset in 1..=5 {
            member.give(offset, 10, (offset % 2 == 1).then(gap));
        }
        assert_eq!((member.takes(51), member.takes(50)), (4, 0));
        assert_eq!(member.settle(&Settled { taken: vec![1, 2], ..nothing() }), Some(Undone::default()));
        assert_eq!(member.takes(31), 4);
        assert_eq!(member.not_kept().collect::<Vec<_>>(), [3, 4, 5]);
        let left = member.leave(&Settled { done: vec![3], returned: vec![4], ..nothing() });
        assert_eq!(left, Undone { returned: vec![4, 4, 5], untold: vec![gap(), gap(), gap()] });
    }

    #[test]
    fn what_is_given_twice_or_settled_twice_counts_once() {
        let mut member = member();
        member.settle(&Settled { credit: 9, ..nothing() });
        member.give(3, 10, None);
        member.give(3, 10, None);
        assert_eq!(member.takes(11), 7);
        let both = Settled { done: vec![3, 3], returned: vec![3], ..nothing() };
        assert_eq!(member.settle(&both), Some(Undone { returned: vec![3], untold: Vec::new() }));
        assert_eq!(member.settle(&both), None, "it is not its any more");
        assert_eq!(member.takes(1), 7);
    }
}
