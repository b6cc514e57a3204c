//! A group of a shared subscription: `$share/<name>/<filter>` of one user. It has a place in the log of its own, and gives
//! each message that matches to one of its members.
//!
//! A member says how many messages it takes at present (its *credit*), and of each one how it ended. What no member can
//! take waits in the log. What a member gave back is given to another one, before anything new if that waits too.

use crate::action::Now;
use crate::arrival::Secret;
use crate::group_member::{GroupMember, Undone};
use crate::group_message::{Join, MemberKey, Piece, Settled};
use crate::lane::Gap;
use crate::replay::{age_secs, expired};
use crate::state::StoredGroup;
use firehose_auth::{Auth, Identity, Verdict};
use firehose_log::{Batch, Kind, Offset};
use firehose_topic::{TopicFilter, TopicName, parse_share};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;

/// Names a group: members of different users never share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Whose it is; none: of the anonymous (with `anonymous = "full"`).
    pub user: Option<Box<str>>,
    /// `$share/<name>/<filter>`.
    pub written: Box<str>,
}

impl GroupKey {
    /// The group of an identity; none: that is no shared subscription.
    pub fn new(identity: &Identity, written: &str) -> Option<GroupKey> {
        GroupKey::of_user(identity.name(), written)
    }

    /// The group of a user, or of the anonymous.
    pub fn of_user(user: Option<&str>, written: &str) -> Option<GroupKey> {
        parse_share(written)?.ok()?;
        Some(GroupKey { user: user.map(Box::from), written: written.into() })
    }

    /// The filter behind the name.
    pub fn filter(&self) -> Option<TopicFilter> {
        Some(parse_share(&self.written)?.ok()?.1)
    }

    /// Names the home shard, and the group in the state. The same in every run with the same secret.
    pub fn hash_with(&self, secret: &Secret) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&secret.hash_key());
        // Sessions have 0 and 1 here.
        hasher.write_u8(2 + u8::from(self.user.is_some()));
        let user = self.user.as_deref().unwrap_or_default();
        hasher.write_u64(user.len() as u64);
        hasher.write(user.as_bytes());
        hasher.write(self.written.as_bytes());
        hasher.finish()
    }
}

/// Where the group reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The state was asked, or the mark has not come: it does not read.
    Beginning,
    /// It gets what the mailbox brings.
    Live,
    /// It reads the log, as fast as its members take it.
    Replay { next: Offset, asked: bool },
}

/// What became of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// A member has it.
    Given,
    /// No member can take it now.
    Waits,
    /// It is not for them.
    Skipped,
}

/// See the module.
pub(crate) struct Group {
    pub(crate) key: Arc<GroupKey>,
    pub(crate) hash: u64,
    pub(crate) generation: u32,
    pub(crate) filter: TopicFilter,
    /// Its place in the trie, among those of the same filter.
    pub(crate) place: u32,
    pub(crate) phase: Phase,
    /// Where it begins, as the state had it; none: at the mark.
    pub(crate) resumes_at: Option<Offset>,
    /// Members that are not let in yet.
    pub(crate) waiting: Vec<Join>,
    /// What the log gave and nobody could take.
    pub(crate) ahead: VecDeque<Arc<Batch>>,
    pub(crate) ahead_bytes: usize,
    /// Offsets that the log was asked for.
    pub(crate) fetching: Vec<Offset>,
    /// A gap that nobody was told of.
    pub(crate) gap: Option<Gap>,
    /// It stands in the list of groups that have something to send.
    pub(crate) listed: bool,
    /// It waits for its turn to read the log.
    pub(crate) starving: bool,
    /// It is kept while nobody is connected.
    pub(crate) is_stored: bool,
    /// So many of those that wait are let in when the save that is under way is answered.
    pub(crate) saving: usize,
    /// What the state has of it is old.
    pub(crate) changed: bool,
    pub(crate) saved_secs: u32,
    identity: Identity,
    members: Vec<GroupMember>,
    /// Where each of them stands, so that thousands cost each other nothing when they settle or leave.
    places: HashMap<MemberKey, usize>,
    /// Whose turn it is.
    turn: usize,
    /// Bytes that one of them may have.
    bytes_max: usize,
    /// How many messages they take now, all together.
    credit: usize,
    /// Who was given something in this turn.
    served: Vec<MemberKey>,
    returned: BTreeSet<Offset>,
    /// Given back before the group has come so far: the state is told that the group knows of them.
    awaited: BTreeSet<Offset>,
    /// Somebody's already, although the group has not come so far.
    skipped: BTreeSet<Offset>,
}

impl Group {
    /// A group that begins with somebody who comes, and whose members may have `bytes_max` each.
    pub(crate) fn new(join: &Join, filter: TopicFilter, generation: u32, bytes_max: usize) -> Group {
        Group {
            key: join.key.clone(),
            hash: join.hash,
            generation,
            filter,
            place: 0,
            phase: Phase::Beginning,
            resumes_at: None,
            waiting: Vec::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            fetching: Vec::new(),
            gap: None,
            listed: false,
            starving: false,
            is_stored: false,
            saving: 0,
            changed: false,
            saved_secs: 0,
            identity: join.identity.clone(),
            members: Vec::new(),
            places: HashMap::new(),
            turn: 0,
            bytes_max,
            credit: 0,
            served: Vec::new(),
            returned: BTreeSet::new(),
            awaited: BTreeSet::new(),
            skipped: BTreeSet::new(),
        }
    }

    /// Goes on where it was, once the shard's place in the log is known.
    pub(crate) fn restore(&mut self, stored: StoredGroup) {
        self.resumes_at = Some(stored.next);
        self.returned.extend(stored.pending);
        self.skipped.extend(stored.skipped);
        let lost = self.gap.take();
        self.gap = stored.gap.map(|text| Gap::new(text.into()).and(lost.clone())).or(lost);
        self.is_stored = true;
    }

    /// How far it is, for the state, in a shard that stands at `stand`.
    pub(crate) fn stored(&self, stand: Offset) -> StoredGroup {
        let given = self.members.iter().flat_map(GroupMember::not_kept);
        let next = self.next(stand);
        let others = self.returned.iter().chain(self.awaited.range(next..)).copied();
        let pending: BTreeSet<Offset> = given.chain(others).collect();
        let told = self.members.iter().filter_map(GroupMember::told);
        let on_its_way = self.members.iter().flat_map(GroupMember::on_its_way);
        let mut on_its_way: Vec<(Offset, &Gap)> = on_its_way.collect();
        on_its_way.sort_by_key(|(offset, _)| *offset);
        let gaps = told.chain(on_its_way.into_iter().map(|(_, gap)| gap)).chain(&self.gap).cloned();
        let gaps = gaps.reduce(|one, other| one.and(Some(other)));
        StoredGroup {
            next,
            pending: pending.into_iter().collect(),
            skipped: self.skipped.iter().copied().collect(),
            gap: gaps.map(|gap| gap.text().into()),
        }
    }

    /// The first offset that it has not looked at.
    pub(crate) fn next(&self, stand: Offset) -> Offset {
        match self.phase {
            Phase::Replay { next, .. } => next,
            Phase::Live => stand + 1,
            Phase::Beginning => self.resumes_at.unwrap_or(stand + 1),
        }
    }

    /// Whether nobody is connected.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.waiting.is_empty()
    }

    /// Lets a member in. It is given nothing before it gave credit.
    pub(crate) fn enroll(&mut self, join: &Join, auth: &Auth) {
        self.is_stored |= join.stored.is_some();
        self.places.insert(join.member, self.members.len());
        let verdict = auth.read_verdict(&self.identity, &join.client_id, &self.filter);
        self.members.push(GroupMember::new(join, verdict != Verdict::All));
    }

    /// The access rules are others now.
    pub(crate) fn recheck(&mut self, auth: &Auth) {
        for member in &mut self.members {
            let verdict = auth.read_verdict(&self.identity, &member.client_id, &self.filter);
            member.checked = verdict != Verdict::All;
        }
    }

    /// A member is gone: what it had, and did not keep, is to be given to others.
    pub(crate) fn leave(&mut self, left: &Settled) {
        let Some(at) = self.places.remove(&left.member) else { return };
        let member = self.members.swap_remove(at);
        if let Some(moved) = self.members.get(at) {
            self.places.insert(moved.key, at);
        }
        self.credit -= member.takes(self.bytes_max);
        self.redo(member.leave(left));
    }

    /// Messages that nobody has any more, in a shard that stands at `stand`.
    pub(crate) fn give_back(&mut self, offsets: &[Offset], stand: Offset) {
        let next = self.next(stand);
        for offset in offsets {
            // What it has not come to yet it reads anyway.
            self.skipped.remove(offset);
            match *offset < next {
                true => self.returned.insert(*offset),
                false => self.awaited.insert(*offset),
            };
        }
    }

    /// What became of messages.
    pub(crate) fn settle(&mut self, settled: &Settled) {
        let place = self.places.get(&settled.member);
        let Some(member) = place.and_then(|place| self.members.get_mut(*place)) else { return };
        self.credit -= member.takes(self.bytes_max);
        let undone = member.settle(settled);
        self.credit += member.takes(self.bytes_max);
        if let Some(undone) = undone {
            self.redo(undone);
        }
    }

    /// Others are given, and told, what a member was not, or gave back.
    fn redo(&mut self, undone: Undone) {
        self.changed = true;
        self.returned.extend(undone.returned);
        undone.untold.into_iter().for_each(|gap| self.tell_again(gap));
    }

    /// A range is gone that was for them: the next member that can be told of it is.
    pub(crate) fn declare(&mut self, from: Offset, to: Offset, why: &str) {
        self.changed = true;
        self.gap = Some(match self.gap.take() {
            Some(gap) => gap.and_then(from, to, why),
            None => Gap::new(format!("{from}..{to} {why}")),
        });
    }

    /// A message is gone that a member had and did not acknowledge.
    pub(crate) fn lose(&mut self, offset: Offset, why: &str) {
        self.changed = true;
        self.gap = Some(Gap::widened(self.gap.take(), offset, offset, why));
    }

    /// A message that was to tell a gap did not, or was not sent.
    fn tell_again(&mut self, gap: Gap) {
        self.changed = true;
        self.gap = Some(gap.and(self.gap.take()));
    }

    /// How many messages members take now.
    pub(crate) fn credit(&self) -> usize {
        let all = || self.members.iter().map(|member| member.takes(self.bytes_max));
        debug_assert_eq!(self.credit, all().sum::<usize>(), "what they take is counted as it changes");
        self.credit
    }

    /// The sessions of its members that outlive their connections.
    pub(crate) fn stored_members(&self) -> Vec<u64> {
        self.members.iter().filter_map(|member| member.stored).collect()
    }

    /// The first offsets that were given back, at most so many.
    pub(crate) fn first_returned(&self, count: usize) -> Vec<Offset> {
        self.returned.iter().take(count).copied().collect()
    }

    /// What was given back has found somebody, or is gone.
    pub(crate) fn forget_returned(&mut self, offset: Offset) {
        self.returned.remove(&offset);
        self.changed = true;
    }

    /// Gives a message to a member, if it is for them and one can take it.
    pub(crate) fn offer(&mut self, auth: &Auth, now: Now, batch: &Arc<Batch>, index: usize) -> Offered {
        let record = batch.record(index);
        if record.kind() != Kind::Event {
            return Offered::Skipped;
        }
        let event = record.event();
        let topic = TopicName::trusted(event.topic);
        let offset = if batch.is_logged() { batch.base() + index as Offset } else { 0 };
        if !self.filter.matches(topic)
            || expired(&event, age_secs(batch.time_us(), now))
            || (offset != 0 && self.skipped.remove(&offset))
        {
            return Offered::Skipped;
        }
        let at = match self.choose(auth, topic) {
            Ok(at) => at,
            Err(offered) => return offered,
        };
        let member = &mut self.members[at];
        let mut gap = None;
        if offset != 0 {
            gap = self.gap.take_if(|_| member.v5);
            self.changed = true;
        }
        if member.pieces.is_empty() {
            self.served.push(member.key);
        }
        self.credit -= member.takes(self.bytes_max);
        let bytes = event.payload.len() + event.topic.len();
        member.give(offset, bytes, gap.clone());
        member.pieces.push(Piece { batch: batch.clone(), index, gap });
        self.credit += member.takes(self.bytes_max);
        Offered::Given
    }

    /// Looks through what was read ahead, from `next` up to `stand`; gives the first offset that was not looked at.
    pub(crate) fn offer_ahead(&mut self, auth: &Auth, now: Now, mut next: Offset, stand: Offset) -> Offset {
        while let Some(batch) = self.ahead.front().cloned() {
            if batch.base() > next {
                // It fell back further while this was read.
                self.drop_ahead();
                break;
            }
            let first = (next - batch.base()) as usize;
            for index in first..batch.len() {
                if batch.base() + index as Offset > stand
                    || self.offer(auth, now, &batch, index) == Offered::Waits
                {
                    return next;
                }
                next = batch.base() + index as Offset + 1;
            }
            self.ahead.pop_front();
            self.ahead_bytes -= batch.bytes_len();
        }
        next
    }

    /// Forgets what was read ahead: it is read again.
    pub(crate) fn drop_ahead(&mut self) {
        self.ahead = VecDeque::new();
        self.ahead_bytes = 0;
    }

    /// What members were given in this turn.
    pub(crate) fn take_pieces(&mut self) -> Vec<(MemberKey, Vec<Piece>)> {
        let served = std::mem::take(&mut self.served).into_iter();
        let pieces = served.filter_map(|key| {
            let member = self.members.get_mut(*self.places.get(&key)?)?;
            Some((key, std::mem::take(&mut member.pieces)))
        });
        pieces.filter(|(_, pieces)| !pieces.is_empty()).collect()
    }

    /// The next member in turn that may read the topic and takes something.
    fn choose(&mut self, auth: &Auth, topic: TopicName<'_>) -> Result<usize, Offered> {
        let mut anybody = self.members.is_empty();
        for step in 0..self.members.len() {
            let at = (self.turn + step) % self.members.len();
            let member = &self.members[at];
            if member.checked && !auth.may_read(&self.identity, &member.client_id, topic) {
                continue;
            }
            anybody = true;
            if member.takes(self.bytes_max) > 0 {
                self.turn = at + 1;
                return Ok(at);
            }
        }
        Err(if anybody { Offered::Waits } else { Offered::Skipped })
    }
}
