//! A session as a member of groups: what it was given lies in its outbox and its window like anything else, under a lane
//! of its own, and the group's home is told how each message ended, and how many more are welcome.

mod gone;
mod leaving;

use crate::assigned::Queued;
use crate::group::GroupKey;
use crate::group_message::{GroupMessage, Join, MemberKey, Piece, Settled};
use crate::inflight::Inflight;
use crate::scan::RETAINED;
use crate::session::Session;
use crate::shard::Shard;
use crate::state::{Membership, Operation};
use firehose_log::Offset;
use firehose_mqtt::{QoS, Reason, Version};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Set in the number of a lane that a group fills; it reads nothing itself.
const SHARED: u16 = 1 << 15;
/// Messages that a member has from a group and has not settled, at most: others shall have some too.
const CREDIT_MAX: usize = 64;

/// Whether a group fills this lane.
pub(crate) fn is_shared(lane: u16) -> bool {
    lane & SHARED != 0 && lane != RETAINED
}

/// A session's place in one group.
#[derive(Debug)]
struct Share {
    key: Arc<GroupKey>,
    hash: u64,
    lane: u16,
    /// [`MemberKey::serial`].
    serial: u64,
    /// The group has let it in.
    joined: bool,
    /// The subscription is entered.
    granted: bool,
    /// Messages that the group may send without being told more.
    lent: usize,
    /// What lies in the outbox, in order.
    queued: VecDeque<(Offset, Queued)>,
    /// Of the window: what the state has, or is being told of.
    safe: BTreeSet<Offset>,
    /// Of those, what the save under way tells it.
    saving: Vec<Offset>,
    done: Vec<Offset>,
    untold: Vec<Offset>,
    told: Vec<Offset>,
    /// Who acknowledges the message of this number has read all that was told.
    read_by: Option<u64>,
    /// It was.
    read: bool,
    returned: Vec<Offset>,
    taken: Vec<Offset>,
    lost: Vec<(Offset, &'static str)>,
    /// Of what was lost, that which the state has not been told of.
    unsaved_lost: Vec<(Offset, &'static str)>,
    /// The group counts as long as somebody has this.
    _membership: Membership,
}

/// A session's places in groups.
#[derive(Debug, Default)]
pub struct Shares {
    list: Vec<Share>,
    /// The session stands in the shard's list of those who have something to tell.
    listed: bool,
}

impl Share {
    fn member(&self, shard: usize, session: u32, generation: u32) -> MemberKey {
        MemberKey { shard, session, generation, lane: self.lane, serial: self.serial }
    }
}

impl Shares {
    fn of_lane(&mut self, lane: u16) -> Option<&mut Share> {
        self.list.iter_mut().find(|share| share.lane == lane)
    }

    /// [`Session::has_told`].
    pub(crate) fn has_told(&self) -> bool {
        self.list.iter().any(|share| share.read_by.is_some())
    }

    /// [`Session::has_read`].
    pub(crate) fn has_read(&mut self, number: u64) {
        for share in &mut self.list {
            share.read |= share.read_by.take_if(|read_by| *read_by <= number).is_some();
        }
    }

    fn of_key(&mut self, key: &GroupKey) -> Option<&mut Share> {
        self.list.iter_mut().find(|share| *share.key == *key)
    }
}

impl Session {
    /// Whether what it was sent has to be known by its place in the log.
    pub(crate) fn keeps_places(&self) -> bool {
        self.persistence.is_some() || self.shares.is_some()
    }

    /// A message of this packet id, if a group gave it.
    pub(crate) fn shared_place(&self, packet_id: u16) -> Option<(u16, Offset)> {
        self.shares.as_ref()?;
        let place = self.inflight.as_deref()?.get(packet_id)?;
        (place.shared != 0).then_some((place.shared, place.offset))
    }

    /// Notes what has left the outbox since this was last looked at.
    pub(crate) fn follow_outbox(&mut self) {
        let (Some(shares), Some(connection)) = (self.shares.as_deref_mut(), self.connection.as_deref())
        else {
            return;
        };
        for share in shares.list.iter_mut().filter(|share| !share.queued.is_empty()) {
            let still = connection.outbox.count(share.lane);
            while share.queued.len() > still {
                match share.queued.pop_front() {
                    Some((offset, queued)) if offset != 0 && queued.qos == QoS::AtMostOnce => {
                        share.done.push(offset);
                        if let Some(read_by) = queued.read_by {
                            share.told.push(offset);
                            (share.read_by, share.read) = (Some(read_by), false);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether messages of a group's stand in the window, or were lost from it, of which the state has not been told.
    fn has_unsafe(&mut self, lane: u16) -> bool {
        let (Some(shares), Some(window)) = (self.shares.as_deref_mut(), self.inflight.as_deref()) else {
            return false;
        };
        let Some(share) = shares.of_lane(lane) else { return false };
        let mut of_share = window.stored().filter(|it| it.shared == lane && it.offset != 0);
        !share.unsaved_lost.is_empty() || of_share.any(|it| !share.safe.contains(&it.offset))
    }

    /// Tells the state, with the session's progress, which messages of groups stay with the session, and which it has no more
    /// because they are gone.
    pub(crate) fn take_operations(&mut self) -> Vec<Operation> {
        let (Some(shares), Some(window)) = (self.shares.as_deref_mut(), self.inflight.as_deref()) else {
            return Vec::new();
        };
        let mut operations = Vec::new();
        // One look at the window, however many groups there are.
        let mut of_lanes: HashMap<u16, BTreeSet<Offset>> = HashMap::new();
        for it in window.stored().filter(|it| it.shared != 0 && it.offset != 0) {
            of_lanes.entry(it.shared).or_default().insert(it.offset);
        }
        for share in &mut shares.list {
            let now = of_lanes.remove(&share.lane).unwrap_or_default();
            let new: Vec<Offset> = now.difference(&share.safe).copied().collect();
            share.safe = now;
            if !new.is_empty() {
                share.saving.extend(&new);
                operations.push(Operation::Taken { hash: share.hash, offsets: new });
            }
            if !share.unsaved_lost.is_empty() {
                let lost = std::mem::take(&mut share.unsaved_lost);
                operations.push(Operation::Lost { hash: share.hash, lost });
            }
        }
        operations
    }

    /// How many messages it takes from a group, besides those that it has.
    fn room(&self, share: &Share, bytes_max: usize) -> usize {
        let Some(connection) = self.connection.as_deref() else { return 0 };
        // What waits for the state or the window would be given back where it is too much, and come again at once.
        let waits = connection.closing || connection.blocked || connection.window_shut || self.is_resending();
        if !share.joined || !share.granted || waits || connection.outbox.bytes() >= bytes_max {
            return 0;
        }
        let has = share.lent + share.queued.len();
        let free = self.inflight.as_deref().map_or(usize::from(self.inflight_max), |window| window.room());
        if has >= CREDIT_MAX || free >= CREDIT_MAX {
            return CREDIT_MAX.saturating_sub(has);
        }
        // Only QoS 0 needs no room in the window.
        match self.of_lane(share.lane).next() {
            Some((_, subscription)) if subscription.options.qos == QoS::AtMostOnce => CREDIT_MAX - has,
            Some(_) => free.saturating_sub(has),
            None => 0,
        }
    }

    /// A lane number that nothing uses: the first one from a place on that is another one each time, so that it mostly is free
    /// and nobody pays for a set of all that are not.
    fn free_shared_lane(&self, serial: u64) -> Option<u16> {
        let lanes = RETAINED - SHARED;
        let first = (serial % u64::from(lanes)) as u16;
        let mut all = (0..lanes).map(|step| SHARED + (first + step) % lanes);
        all.find(|lane| !self.uses_lane(*lane))
    }

    fn uses_lane(&self, lane: u16) -> bool {
        let mut shares = self.shares.as_deref().into_iter().flat_map(|it| &it.list);
        let mut inflight = self.inflight.as_deref().into_iter().flat_map(Inflight::stored);
        shares.any(|it| it.lane == lane)
            || inflight.any(|it| it.shared == lane)
            || self.of_lane(lane).next().is_some()
    }

    fn add_share(&mut self, key: Arc<GroupKey>, place: Membership, lane: u16, serial: u64) -> &mut Share {
        let shares = self.shares.get_or_insert_default();
        shares.list.push(Share {
            key,
            hash: place.hash(),
            lane,
            serial,
            joined: false,
            granted: false,
            lent: 0,
            queued: VecDeque::new(),
            safe: BTreeSet::new(),
            saving: Vec::new(),
            done: Vec::new(),
            untold: Vec::new(),
            told: Vec::new(),
            read_by: None,
            read: false,
            returned: Vec::new(),
            taken: Vec::new(),
            lost: Vec::new(),
            unsaved_lost: Vec::new(),
            _membership: place,
        });
        let last = shares.list.len() - 1;
        &mut shares.list[last]
    }
}

impl Shard {
    /// Asks a group to let the session in, unless it has asked already: whether there will be an answer under `question`; or
    /// why it is not asked.
    pub(crate) fn ask_group(
        &mut self,
        session: u32,
        key: &Arc<GroupKey>,
        question: u64,
    ) -> Result<bool, Reason> {
        let (hash, serial) = (self.home_of(key).0, self.next_token());
        let Some(it) = self.sessions.get_mut(session as usize) else { return Ok(false) };
        if it.shares.as_deref_mut().is_some_and(|shares| shares.of_key(key).is_some()) {
            return Ok(false);
        }
        let place = self.shared.groups.join(hash, key, &self.shared.limits).ok_or(Reason::QuotaExceeded)?;
        let lane = it.free_shared_lane(serial).ok_or(Reason::QuotaExceeded)?;
        it.add_share(key.clone(), place, lane, serial);
        self.send_join(session, lane, question, None);
        Ok(true)
    }

    /// A session goes on that was a member: its place is as it was.
    pub(crate) fn join_again(&mut self, session: u32, written: &str, lane: u16, from: Offset) {
        let Some(it) = self.sessions.get_mut(session as usize).filter(|_| is_shared(lane)) else { return };
        if it.identity.is_anonymous() && !self.auth.is_open() {
            return;
        }
        let Some(key) = GroupKey::new(&it.identity, written).map(Arc::new) else { return };
        let (hash, serial) = (self.home_of(&key).0, self.next_token());
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let safe = it.inflight.as_deref().map(|window| {
            window.stored().filter(|entry| entry.shared == lane).map(|entry| entry.offset).collect()
        });
        let place = self.shared.groups.join_again(hash, &key);
        let share = it.add_share(key, place, lane, serial);
        share.granted = true;
        share.safe = safe.unwrap_or_default();
        self.send_join(session, lane, 0, Some(from));
    }

    fn send_join(&mut self, session: u32, lane: u16, question: u64, from: Option<Offset>) {
        let number = self.number;
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let v5 = it.connection.as_deref().is_some_and(|connection| connection.version == Version::V5);
        let stored = it.is_persistent().then_some(it.hash);
        let (identity, client_id) = (it.identity.clone(), it.client_id.clone());
        let Some(share) = it.shares.as_deref_mut().and_then(|shares| shares.of_lane(lane)) else { return };
        let (key, hash) = (share.key.clone(), share.hash);
        let member = share.member(number, session, it.generation);
        let join = Join { member, question, key, hash, identity, client_id, v5, stored, from };
        self.tell(crate::arrival::home_shard(hash, self.shared.shards), GroupMessage::Join(join));
    }

    /// The group has let the session in.
    pub(crate) fn joined(&mut self, member: MemberKey, question: u64, from: Offset) {
        let share = self.share(member);
        if let Some(share) = share {
            share.joined = true;
            self.settle_soon(member.session);
        }
        self.group_joined(question, from);
    }

    fn share(&mut self, member: MemberKey) -> Option<&mut Share> {
        let it = self.sessions.get_mut(member.session as usize)?;
        if it.generation != member.generation {
            return None;
        }
        it.shares.as_deref_mut()?.of_lane(member.lane).filter(|share| share.serial == member.serial)
    }

    /// The subscription is to be entered: gives its lane. It is asked for again if the session has left the group since.
    pub(crate) fn enter_share(&mut self, session: u32, key: &Arc<GroupKey>) -> Option<u16> {
        self.ask_group(session, key, 0).ok()?;
        let it = self.sessions.get_mut(session as usize)?;
        if let Some(window) = it.inflight.as_deref_mut() {
            window.keep_places();
        }
        let share = it.shares.as_deref_mut()?.of_key(key)?;
        share.granted = true;
        let lane = share.lane;
        self.settle_soon(session);
        Some(lane)
    }

    /// The subscription is refused after all.
    pub(crate) fn give_share_up(&mut self, session: u32, key: &GroupKey) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let share = it.shares.as_deref_mut().and_then(|shares| shares.of_key(key));
        if let Some(lane) = share.filter(|share| !share.granted).map(|share| share.lane) {
            self.leave_group(session, lane);
        }
    }

    /// Messages for the session, from a group.
    pub(crate) fn assigned(&mut self, member: MemberKey, pieces: &[Piece]) {
        if self.share(member).is_none() {
            // It has left, and told the group so: they are given to another one.
            return;
        }
        for piece in pieces {
            let queued = self.queue_assigned(member.session, member.lane, piece);
            let Some(share) = self.share(member) else { return };
            share.lent = share.lent.saturating_sub(1);
            let told = queued.is_some_and(|queued| queued.tells_gap);
            share.untold.extend(piece.gap.iter().filter(|_| !told).map(|_| piece.offset()));
            match (queued, piece.offset()) {
                (Some(queued), offset) => share.queued.push_back((offset, queued)),
                (None, 0) => {}
                (None, offset) => share.done.push(offset),
            }
        }
        self.settle_soon(member.session);
    }

    /// A message is acknowledged to the end; `shared`: a group gave it, to this lane.
    pub(crate) fn window_opened(&mut self, session: u32, shared: Option<(u16, Offset)>) {
        let shares = self.sessions.get_mut(session as usize).and_then(|it| it.shares.as_deref_mut());
        let Some(shares) = shares else { return };
        if let Some((lane, offset)) = shared
            && let Some(share) = shares.of_lane(lane)
        {
            share.done.push(offset);
        }
        self.settle_soon(session);
    }

    /// The state has saved what it was asked to.
    pub(crate) fn shares_saved(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(shares) = it.shares.as_deref_mut() else { return };
        for share in &mut shares.list {
            let saved = std::mem::take(&mut share.saving);
            share.taken.extend(saved);
        }
        self.settle_soon(session);
    }

    /// What was queued and not sent is dropped from the outbox: others may have it.
    pub(crate) fn return_queued(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.follow_outbox();
        let Some(shares) = it.shares.as_deref_mut() else { return };
        for share in &mut shares.list {
            share
                .returned
                .extend(share.queued.drain(..).map(|(offset, _)| offset).filter(|offset| *offset != 0));
        }
        self.settle_soon(session);
    }

    /// Has the session's groups told, at the end of the turn, what became of their messages.
    pub(crate) fn settle_soon(&mut self, session: u32) {
        if let Some(it) = self.sessions.get_mut(session as usize)
            && let Some(shares) = it.shares.as_deref_mut()
            && !std::mem::replace(&mut shares.listed, true)
        {
            self.to_settle.push((session, it.generation));
        }
    }

    /// Tells groups what became of messages in this turn, and how many more are welcome.
    pub(crate) fn settle_all(&mut self) {
        let bytes_max = self.shared.limits.outbox_bytes_max;
        for (session, generation) in std::mem::take(&mut self.to_settle) {
            let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.generation == generation)
            else {
                continue;
            };
            it.follow_outbox();
            let Some(mut shares) = it.shares.take() else { continue };
            shares.listed = false;
            for share in &mut shares.list {
                let Some(it) = self.sessions.get(session as usize) else { break };
                let credit = it.room(share, bytes_max);
                share.lent += credit;
                let member = share.member(self.number, session, generation);
                let settled = Settled {
                    hash: share.hash,
                    member,
                    done: std::mem::take(&mut share.done),
                    untold: std::mem::take(&mut share.untold),
                    told: std::mem::take(&mut share.told),
                    read: std::mem::take(&mut share.read),
                    returned: std::mem::take(&mut share.returned),
                    taken: std::mem::take(&mut share.taken),
                    lost: std::mem::take(&mut share.lost),
                    credit: u32::try_from(credit).unwrap_or(u32::MAX),
                };
                if !settled.is_empty() {
                    let home = crate::arrival::home_shard(share.hash, self.shared.shards);
                    self.tell(home, GroupMessage::Settled(settled));
                }
            }
            if let Some(it) = self.sessions.get_mut(session as usize) {
                it.shares = Some(shares);
            }
        }
    }
}
