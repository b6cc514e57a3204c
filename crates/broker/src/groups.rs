//! A shard as the home of groups: members come and go, messages are matched and assigned, the log is read for what had
//! to wait, and the state keeps how far groups are that have persistent members.

use crate::group::{Group, GroupKey, Offered, Phase};
use crate::group_message::{GroupMessage, Join, Settled};
use crate::message::Message;
use crate::session::Interest;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request, StoredGroup};
use firehose_log::{Batch, Offset};
use firehose_mqtt::QoS;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// Set in what stands for a session where it is a group: in the trie, in questions to the log, in names of saves.
pub(crate) const GROUP: u32 = 1 << 31;
/// A group that gave nothing to anybody is saved so often all the same, so that it does not fall behind the retention.
const QUIET_SECS_MAX: u32 = 60;

/// The groups whose home a shard is.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) all: Slab<Group>,
    by_hash: HashMap<u64, u32>,
    next_generation: u32,
    /// Marks that groups wait for, with the group and its generation.
    marks: HashMap<u64, (u32, u32)>,
    /// Groups that have something to send.
    listed: Vec<u32>,
    /// Bytes that groups have read ahead.
    pub(crate) ahead_bytes: usize,
}

impl Groups {
    /// Whether anything is to be sent.
    pub(crate) fn has_something(&self) -> bool {
        !self.listed.is_empty()
    }

    fn find(&mut self, hash: u64) -> Option<u32> {
        self.by_hash.get(&hash).copied()
    }

    pub(crate) fn get(&mut self, slot: u32, generation: u32) -> Option<&mut Group> {
        self.all.get_mut(slot as usize).filter(|group| group.generation == generation)
    }

    pub(crate) fn list(&mut self, slot: u32) {
        if let Some(group) = self.all.get_mut(slot as usize)
            && !std::mem::replace(&mut group.listed, true)
        {
            self.listed.push(slot);
        }
    }
}

impl Shard {
    /// What another shard, or this one, says about a group.
    pub(crate) fn group_message(&mut self, message: GroupMessage) {
        match message {
            GroupMessage::Join(join) => self.member_joins(join),
            GroupMessage::Settled(settled) => self.settled(&settled),
            GroupMessage::Leave(left) => self.member_left(&left),
            GroupMessage::Joined { member, question, from } => self.joined(member, question, from),
            GroupMessage::Assigned { member, pieces } => self.assigned(member, &pieces),
        }
    }

    fn member_joins(&mut self, join: Join) {
        let slot = match self.groups.find(join.hash) {
            Some(slot) => slot,
            None => match self.begin_group(&join) {
                Some(slot) => slot,
                None => return,
            },
        };
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        group.waiting.push(join);
        if group.phase != Phase::Beginning {
            self.let_members_in(slot);
        }
    }

    /// A group comes to life: where it goes on the state knows, or it begins at a mark in the one order.
    fn begin_group(&mut self, join: &Join) -> Option<u32> {
        let filter = join.key.filter()?;
        self.groups.next_generation = self.groups.next_generation.wrapping_add(1);
        let generation = self.groups.next_generation;
        let group = Group::new(join, filter.clone(), generation, self.shared.limits.outbox_bytes_max);
        let slot = self.groups.all.insert(group) as u32;
        self.groups.by_hash.insert(join.hash, slot);
        // It stands in the trie before its mark, so that the shard gets everything behind that.
        let interest = Interest {
            session: GROUP | slot,
            subscription: 0,
            lane: 0,
            qos: QoS::ExactlyOnce,
            special: false,
        };
        let place = self.trie.insert(&filter, interest);
        if let Some(group) = self.groups.all.get_mut(slot as usize) {
            group.place = place;
        }
        self.outgoing.interest(true);
        if self.shared.groups.is_stored(join.hash) {
            let operations = vec![Operation::OpenGroup { hash: join.hash }];
            self.actions.push(Action::State(Request { token: token(slot, generation), operations }));
        } else {
            self.mark_group(slot, generation);
        }
        Some(slot)
    }

    fn mark_group(&mut self, slot: u32, generation: u32) {
        let token = self.next_token();
        self.groups.marks.insert(token, (slot, generation));
        self.outgoing.mark(token);
    }

    /// The state's answer: how far the group was, if it has it.
    pub(crate) fn group_opened(&mut self, token: u64, stored: Option<StoredGroup>) {
        let (slot, generation) = (token as u32 & !GROUP, (token >> 32) as u32);
        let Some(group) = self.groups.get(slot, generation) else { return };
        if let Some(stored) = stored {
            group.restore(stored);
        }
        self.mark_group(slot, generation);
    }

    /// What stood with sessions that ended is the group's again.
    pub(crate) fn orphaned(&mut self, hash: u64, offsets: &[Offset]) {
        let Some(slot) = self.groups.find(hash) else { return };
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        group.give_back(offsets, self.stand);
        if group.phase != Phase::Beginning {
            // The state is told that the group has them, before anybody is given one.
            self.save_group(slot, Vec::new());
            self.pump_group(slot);
        }
    }

    /// A mark came back: if it is a group's, that begins. False: it is none.
    pub(crate) fn group_marked(&mut self, token: u64, head: Offset) -> bool {
        let Some((slot, generation)) = self.groups.marks.remove(&token) else { return false };
        let Some(group) = self.groups.get(slot, generation) else { return true };
        if group.phase == Phase::Beginning {
            // A session that goes on although the state has no group: from where its subscription counts.
            let from = group.waiting.iter().filter_map(|join| join.from).min();
            group.phase = match group.resumes_at.or(from).filter(|from| *from <= head) {
                Some(next) => Phase::Replay { next, asked: false },
                None => Phase::Live,
            };
        }
        self.begin_giving(slot);
        true
    }

    /// A group has begun. What its members had lost until then is saved at once; if they have left since, that is all.
    fn begin_giving(&mut self, slot: u32) {
        let Some(group) = self.groups.all.get(slot as usize) else { return };
        if group.is_empty() {
            return self.end_group(slot);
        }
        if group.is_stored && group.gap.is_some() {
            self.save_group(slot, Vec::new());
        }
        self.let_members_in(slot);
        self.pump_group(slot);
    }

    /// Lets in who came. Who has a session that outlives its connection waits until the group is kept as well.
    fn let_members_in(&mut self, slot: u32) {
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        let (kept, others): (Vec<Join>, Vec<Join>) =
            std::mem::take(&mut group.waiting).into_iter().partition(Join::wants_group_kept);
        group.waiting = kept;
        let wants_save = !group.waiting.is_empty() && group.saving == 0;
        let sessions: Vec<u64> = group.waiting.iter().filter_map(|join| join.stored).collect();
        if wants_save {
            (group.saving, group.is_stored) = (group.waiting.len(), true);
        }
        others.iter().for_each(|join| self.enroll(slot, join));
        if wants_save {
            self.save_group(slot, sessions);
        }
    }

    fn enroll(&mut self, slot: u32, join: &Join) {
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        group.enroll(join, &self.auth);
        let from = group.next(self.stand);
        self.answer_join(join, from);
    }

    fn answer_join(&mut self, join: &Join, from: Offset) {
        let joined = GroupMessage::Joined { member: join.member, question: join.question, from };
        self.tell(join.member.shard, joined);
    }

    /// Sends a message to a shard, which may be this one.
    pub(crate) fn tell(&mut self, shard: usize, message: GroupMessage) {
        let message = Message::Group(Box::new(message));
        self.actions.push(Action::ToShard { shard, message });
    }

    /// Saves how far the group is. For sessions that are about to subscribe it is kept if it was not, and an answer is wanted.
    fn save_group(&mut self, slot: u32, sessions: Vec<u64>) {
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        (group.changed, group.saved_secs) = (false, self.now.secs());
        let token = if sessions.is_empty() { 0 } else { token(slot, group.generation) };
        let operation = Operation::SaveGroup {
            key: group.key.clone(),
            hash: group.hash,
            group: group.stored(self.stand),
            joining: sessions,
            members: group.stored_members(),
        };
        self.actions.push(Action::State(Request { token, operations: vec![operation] }));
    }

    /// The group is kept: who waited for that is let in. False: the token is no group's.
    pub(crate) fn group_saved(&mut self, token: u64) -> bool {
        let (slot, generation) = (token as u32, (token >> 32) as u32);
        if slot & GROUP == 0 {
            return false;
        }
        let slot = slot & !GROUP;
        let Some(group) = self.groups.get(slot, generation) else { return true };
        let count = std::mem::take(&mut group.saving).min(group.waiting.len());
        let saved: Vec<Join> = group.waiting.drain(..count).collect();
        saved.iter().for_each(|join| self.enroll(slot, join));
        self.let_members_in(slot);
        true
    }

    fn settled(&mut self, settled: &Settled) {
        let Some(slot) = self.groups.find(settled.hash) else { return };
        if let Some(group) = self.groups.all.get_mut(slot as usize) {
            group.settle(settled);
        }
        self.declare_lost_of(slot, settled);
        self.pump_group(slot);
    }

    /// What a member had and the log has no more is told, by the state too from now on: the member's session is without it.
    fn declare_lost_of(&mut self, slot: u32, settled: &Settled) {
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        for (offset, why) in &settled.lost {
            group.lose(*offset, why);
            self.stats.gaps_declared.add(1);
        }
        if !settled.lost.is_empty() && group.is_stored && group.phase != Phase::Beginning {
            self.save_group(slot, Vec::new());
        }
    }

    fn member_left(&mut self, left: &Settled) {
        let Some(slot) = self.groups.find(left.hash) else { return };
        self.declare_lost_of(slot, left);
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        if let Some(at) = group.waiting.iter().position(|join| join.member == left.member) {
            group.saving -= usize::from(at < group.saving);
            let join = group.waiting.remove(at);
            self.answer_join(&join, 0);
        } else {
            group.leave(left);
        }
        let Some(group) = self.groups.all.get(slot as usize) else { return };
        match group.is_empty() {
            // What it has to tell is saved with how far it is, which the state has still to say.
            true if group.phase == Phase::Beginning && group.gap.is_some() => {}
            true => self.end_group(slot),
            false => self.pump_group(slot),
        }
    }

    /// Nobody is connected: the state keeps the group, or nobody.
    fn end_group(&mut self, slot: u32) {
        let Some(group) = self.groups.all.get(slot as usize) else { return };
        if group.is_stored && group.phase != Phase::Beginning {
            self.save_group(slot, Vec::new());
        }
        let Some(group) = self.groups.all.try_remove(slot as usize) else { return };
        self.groups.by_hash.remove(&group.hash);
        self.groups.ahead_bytes -= group.ahead_bytes;
        self.remove_interest(&group.filter, group.place);
        self.lose_interest();
    }

    /// Says that batches are not wanted any more, if nobody subscribes.
    pub(crate) fn lose_interest(&mut self) {
        if self.trie.is_empty() && self.pending.is_empty() && self.followers.is_empty() {
            self.outgoing.interest(false);
        }
    }

    /// A run of a batch that the group's filter matches.
    pub(crate) fn deliver_to_group(
        &mut self,
        slot: u32,
        batch: &Arc<Batch>,
        records: std::ops::Range<usize>,
    ) {
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        let mut dropped = 0;
        for index in records {
            let offered = match group.phase {
                Phase::Live => group.offer(&self.auth, self.now, batch, index),
                // It reads that from the log.
                _ if batch.is_logged() => break,
                _ => Offered::Waits,
            };
            match offered {
                Offered::Waits if batch.is_logged() => {
                    let next = batch.base() + index as Offset;
                    group.phase = Phase::Replay { next, asked: false };
                    break;
                }
                Offered::Waits => dropped += 1,
                Offered::Given | Offered::Skipped => {}
            }
        }
        self.stats.messages_dropped.add(dropped);
        self.groups.list(slot);
    }

    /// Sends to members what they were given in this turn.
    pub(crate) fn send_assigned(&mut self) {
        for slot in std::mem::take(&mut self.groups.listed) {
            let Some(group) = self.groups.all.get_mut(slot as usize) else { continue };
            group.listed = false;
            for (member, pieces) in group.take_pieces() {
                let message = Message::Group(Box::new(GroupMessage::Assigned { member, pieces }));
                self.actions.push(Action::ToShard { shard: member.shard, message });
            }
        }
    }

    /// The mailbox was full: live groups read the log from there.
    pub(crate) fn groups_missed(&mut self, first: Offset) {
        for slot in self.group_slots() {
            if let Some(group) = self.groups.all.get_mut(slot as usize)
                && group.phase == Phase::Live
            {
                group.phase = Phase::Replay { next: first, asked: false };
            }
            self.pump_group(slot);
        }
    }

    /// The access rules are others now.
    pub(crate) fn recheck_groups(&mut self) {
        for (_, group) in &mut self.groups.all {
            group.recheck(&self.auth);
        }
        // What nobody might read may be somebody's now.
        self.group_slots().into_iter().for_each(|slot| self.pump_group(slot));
    }

    /// Events were taken back: what was read ahead is read again. Of those that members were given they say that they are
    /// done, as of all that they may not have.
    pub(crate) fn redact_groups(&mut self) {
        self.groups.all.iter_mut().for_each(|(_, group)| group.drop_ahead());
        self.groups.ahead_bytes = 0;
    }

    /// Once a second: saves how far groups are.
    pub(crate) fn sweep_groups(&mut self) {
        let now_secs = self.now.secs();
        for slot in self.group_slots() {
            let Some(group) = self.groups.all.get(slot as usize) else { continue };
            let is_old = now_secs.saturating_sub(group.saved_secs) >= QUIET_SECS_MAX;
            if group.changed || is_old {
                let saves = group.is_stored && group.phase != Phase::Beginning;
                self.pump_group(slot);
                if saves {
                    self.save_group(slot, Vec::new());
                }
            }
        }
    }

    fn group_slots(&self) -> Vec<u32> {
        self.groups.all.iter().map(|(slot, _)| slot as u32).collect()
    }

    /// Which shard a group is at home at.
    pub(crate) fn home_of(&self, key: &GroupKey) -> (u64, usize) {
        let hash = key.hash_with(&self.shared.secret);
        (hash, crate::arrival::home_shard(hash, self.shared.shards))
    }
}

/// Names the group in questions to the state.
fn token(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(GROUP | slot)
}
