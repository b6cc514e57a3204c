//! What shards ask of the state: sessions come, are saved, go, and expire; wills are stored and come due.

use crate::action::Now;
use crate::limits::AddressKey;
use crate::state::change::WillKey;
use crate::state::core::{State, StateNote, Turn};
use crate::state::known::Known;
use crate::state::record::{Life, SessionRecord, SubscriptionsRecord, WillRecord};
use crate::state::request::{Answer, Open, OpenRefusal, Opened, Operation, Resumed, WillFate};
use crate::state::store::StoreError;
use crate::state::stored::{SessionName, StoredState};
use firehose_log::Offset;

/// Expired sessions that are forgotten in one turn.
const EXPIRED_PER_TURN: usize = 256;

/// An open that is answered when it is written.
pub(super) struct Opening {
    pub shard: usize,
    pub token: u64,
    pub session: u64,
    pub outcome: Opened,
    /// The will it brought.
    pub will: Option<WillKey>,
}

impl State {
    /// Carries out one operation of a request that was made at `head`. Says whether it is answered as an opening.
    pub(super) fn operate(
        &mut self,
        shard: usize,
        token: u64,
        head: Offset,
        operation: Operation,
        now: Now,
        turn: &mut Turn,
    ) -> bool {
        match operation {
            Operation::Open(open) => {
                match self.open_session(shard, token, *open, now, turn) {
                    Ok(()) => {}
                    Err(refusal) => {
                        turn.answers.push((shard, Answer::Opened { token, outcome: Err(refusal) }));
                    }
                }
                return true;
            }
            Operation::Rescue(rescue) => self.rescue(*rescue),
            Operation::Subscriptions { name, cursors, subscriptions } => {
                if self.known.contains(name.hash) {
                    self.session_subscribes(name.hash, name.scope.user.as_deref(), &subscriptions);
                    self.pending.session(name.hash).subscriptions =
                        Some(SubscriptionsRecord { cursors, subscriptions });
                }
            }
            Operation::Progress { name, progress } => {
                if self.known.contains(name.hash) {
                    self.pending.session(name.hash).progress = Some(progress);
                }
            }
            Operation::Forget { name, packet_ids } => {
                if self.known.contains(name.hash) {
                    let change = self.pending.session(name.hash);
                    packet_ids.into_iter().for_each(|packet_id| change.forget(packet_id, head));
                }
            }
            Operation::Entered { name, expiry_secs } => {
                self.enter(shard, token, name.hash, expiry_secs, turn);
                return true;
            }
            Operation::Refused { name, before } => self.turn_away(name.hash, before, now),
            Operation::Overtaken { name } => self.begin_anew(name.hash),
            Operation::Gone { name, expiry_secs, will } => self.left(name.hash, expiry_secs, will, now),
            Operation::OpenGroup { hash } => {
                turn.answers.push((shard, Answer::Group { token, stored: self.open_group(hash) }));
                return true;
            }
            Operation::SaveGroup { key, hash, group, joining, members } => {
                let sessions = if self.groups.knows(hash) { joining } else { [joining, members].concat() };
                self.save_group(&key, hash, group, &sessions);
                let offsets = self.groups.orphans_to_tell(hash);
                if !offsets.is_empty() {
                    turn.answers.push((shard, Answer::Orphaned { hash, offsets }));
                }
            }
            Operation::Taken { hash, offsets } => self.take_for_member(hash, &offsets),
            Operation::Lost { hash, lost } => self.lose_of_member(hash, &lost),
        }
        false
    }

    fn open_session(
        &mut self,
        shard: usize,
        token: u64,
        open: Open,
        now: Now,
        turn: &mut Turn,
    ) -> Result<(), OpenRefusal> {
        let hash = open.name.hash;
        self.rescued.forget(hash);
        let has_expired = self.has_expired(hash, now);
        let kept = self.known.contains(hash) && !has_expired && !open.clean;
        if (open.clean || open.will.is_some() || (!kept && open.expiry_secs > 0))
            && let Some(why) = self.unwritable()
        {
            return Err(OpenRefusal::Unavailable(why));
        }
        // It has come back, and has not died with the bus. Who is turned away has not.
        self.wills.orphans(hash).into_iter().for_each(|key| self.wills.recall(key));
        if has_expired {
            self.end(hash, now);
        }
        if kept {
            // The session goes on before the delay is over [MQTT-3.1.3-9]; a Clean Start ends it.
            self.wills.delayed(hash, now.ms).into_iter().for_each(|key| self.wills.recall(key));
        }
        let before = self.known.get(hash).map(|known| known.life).filter(|_| kept);
        let begun = self.begin(&open, kept, now, turn);
        if begun.is_err() {
            self.wills.put_back(hash);
        }
        let (resumed, lost) = begun?;
        let before = before.filter(|_| resumed.is_some());
        let will = open.will.map(|will| {
            let (client_id, expiry_secs) = (open.name.client_id.clone(), open.expiry_secs);
            self.attach(hash, WillRecord { client_id, expiry_secs, will, due: false })
        });
        if self.known.contains(hash) || will.is_some() {
            self.names.insert(hash);
        }
        let lives_otherwise = before.is_some_and(|before| before.expiry_secs != open.expiry_secs);
        let has_to_enter = lives_otherwise || !self.wills.recalled(hash).is_empty();
        let (resumed, oldest) = (resumed.map(Box::new), self.read.oldest());
        let outcome = Opened { resumed, oldest, lost, has_to_enter, before };
        if self.failing.is_some() {
            turn.answers.push((shard, Answer::Opened { token, outcome: Ok(outcome) }));
        } else {
            self.opening.push(Opening { shard, token, session: hash, outcome, will });
        }
        Ok(())
    }

    /// What there is of the session, and what of it the log has lost; or a new one in its place.
    fn begin(
        &mut self,
        open: &Open,
        kept: bool,
        now: Now,
        turn: &mut Turn,
    ) -> Result<(Option<Resumed>, Vec<Offset>), OpenRefusal> {
        let resumed = if kept { self.resume(open, now, turn)? } else { None };
        match &resumed {
            None => self.create(open, now)?,
            // For how long it lives changes when its client is let in.
            Some(_) => {
                if let Some(known) = self.known.get(open.name.hash) {
                    self.live(open.name.hash, Life { left_us: None, ..known.life });
                }
            }
        }
        let lost = resumed.as_ref().map(|resumed| self.lost(resumed)).unwrap_or_default();
        Ok((resumed, lost))
    }

    /// What is in flight, to be sent again, and neither in the log nor kept beside it.
    fn lost(&self, resumed: &Resumed) -> Vec<Offset> {
        let oldest = self.read.oldest();
        let inflight = resumed.progress.inflight.iter();
        let unsent = inflight.filter(|it| it.state != StoredState::Released && it.offset != 0);
        let mut lost: Vec<Offset> = unsent.map(|it| it.offset).filter(|offset| *offset < oldest).collect();
        if !lost.is_empty() {
            let kept = self.read.kept();
            lost.retain(|offset| kept.binary_search(offset).is_err());
            lost.sort_unstable();
        }
        lost
    }

    /// Loads a session; none if it cannot be read, and is forgotten for that.
    fn resume(&mut self, open: &Open, now: Now, turn: &mut Turn) -> Result<Option<Resumed>, OpenRefusal> {
        let hash = open.name.hash;
        let loaded = match self.shelf.store() {
            Some(store) => store.session(hash, self.pending.sessions.get(&hash)),
            None => Err(StoreError::Unavailable("the state file is not open".into())),
        };
        match loaded {
            Ok(Some((record, resumed))) if record.is_of(&open.name) => Ok(Some(resumed)),
            Ok(found) => {
                let why = if found.is_some() { "is of another client" } else { "cannot be read" };
                let client_id = &open.name.client_id;
                let line = format!("the stored session of client {client_id:?} {why}: it is forgotten");
                turn.notes.push(StateNote::Bad(line));
                self.end(hash, now);
                Ok(None)
            }
            Err(error) => {
                self.fail(&error, now, turn);
                Err(OpenRefusal::Unavailable(error.to_string()))
            }
        }
    }

    /// A new session takes the place of what there was.
    fn create(&mut self, open: &Open, now: Now) -> Result<(), OpenRefusal> {
        let (hash, anonymous) = (open.name.hash, open.name.scope.user.is_none());
        if open.expiry_secs > 0
            && let Some(limit) = self.known.over(&self.limits, hash, anonymous, open.address)
        {
            return Err(OpenRefusal::TooMany { limit });
        }
        self.end(hash, now);
        if open.expiry_secs == 0 {
            return Ok(());
        }
        let life = Life { expiry_secs: open.expiry_secs, left_us: None };
        self.known.insert(hash, Known { anonymous, address: open.address, life });
        let change = self.pending.session(hash);
        change.wiped = true;
        change.record = Some(record_of(&open.name, open.address));
        change.life = Some(life);
        Ok(())
    }

    /// A session's connection ended.
    fn left(&mut self, hash: u64, expiry_secs: u32, fate: WillFate, now: Now) {
        self.rescued.forget(hash);
        if let Some(key) = self.wills.attached(hash) {
            match fate {
                WillFate::Dropped => self.drop_will(key),
                WillFate::Due { delay_secs } => {
                    self.wills.due_at(key, now.ms + u64::from(delay_secs.min(expiry_secs)) * 1_000);
                }
                WillFate::Kept => {}
            }
        }
        if expiry_secs == 0 && fate == WillFate::Kept {
            self.forget(hash);
        } else if expiry_secs == 0 {
            self.end(hash, now);
        } else if self.known.contains(hash) {
            self.live(hash, Life { expiry_secs, left_us: Some(now.wall_us) });
        }
    }

    /// Its client is let in: what its return called back is not published any more, and its session lives on for as long as it
    /// asked, once that is written. While the file cannot be written nobody waits for it.
    fn enter(&mut self, shard: usize, token: u64, hash: u64, expiry_secs: u32, turn: &mut Turn) {
        let (recalled, is_known) = (self.wills.recalled(hash), self.known.contains(hash));
        if recalled.is_empty() && !is_known {
            let why = "the state file was lost meanwhile".to_owned();
            let outcome = Err(OpenRefusal::Unavailable(why));
            return turn.answers.push((shard, Answer::Opened { token, outcome }));
        }
        recalled.into_iter().for_each(|key| self.drop_will(key));
        if is_known {
            self.live(hash, Life { expiry_secs, left_us: None });
        }
        match self.failing {
            Some(_) => turn.answers.push((shard, Answer::Entered { token })),
            None => self.entering.push((shard, token)),
        }
    }

    /// A will of a client that is connected.
    pub(super) fn attach(&mut self, hash: u64, record: WillRecord) -> WillKey {
        let key = self.wills.attach(hash);
        self.pending.wills.insert(key, Some(record));
        key
    }

    /// A session ends: nothing of it is left but its wills, and they are due.
    pub(super) fn end(&mut self, hash: u64, now: Now) {
        let delayed = self.wills.delayed(hash, now.ms);
        for key in delayed.into_iter().chain(self.wills.attached(hash)) {
            self.wills.due_at(key, now.ms);
        }
        self.forget(hash);
    }

    fn forget(&mut self, hash: u64) {
        if let Some(known) = self.known.get(hash) {
            // Else its shard tells the groups what stood with it.
            if known.life.left_us.is_some() {
                self.give_back(hash);
            }
            self.known.remove(hash);
            self.pending.wipe(hash);
            self.session_leaves(hash);
        }
    }

    /// The session goes on as a new one.
    fn begin_anew(&mut self, hash: u64) {
        if !self.known.contains(hash) {
            return;
        }
        self.give_back(hash);
        let change = self.pending.session(hash);
        (change.subscriptions, change.progress) = (Some(Default::default()), Some(Default::default()));
        self.session_subscribes(hash, None, &[]);
    }

    /// A will's delay is over: if the process dies before the log has it, the next one does not take it for one whose client
    /// may still come back [MQTT-3.1.2-8].
    pub(super) fn mark_due(&mut self, key: WillKey, record: &WillRecord) {
        if !record.due {
            self.pending.wills.insert(key, Some(WillRecord { due: true, ..record.clone() }));
        }
    }

    /// Answers those whose opening cannot be written. Who only goes on with a session is let in, others are turned away.
    pub(super) fn turn_away_all(&mut self, error: &StoreError, now: Now, turn: &mut Turn) {
        for opening in std::mem::take(&mut self.opening) {
            let outcome = match (&opening.outcome.resumed, opening.will) {
                (Some(_), None) => Ok(opening.outcome),
                _ => {
                    self.turn_away(opening.session, opening.outcome.before, now);
                    Err(OpenRefusal::Unavailable(error.to_string()))
                }
            };
            turn.answers.push((opening.shard, Answer::Opened { token: opening.token, outcome }));
        }
        self.let_in_all(turn);
    }

    /// Answers those that are let in.
    pub(super) fn let_in_all(&mut self, turn: &mut Turn) {
        let entered = self.entering.drain(..).map(|(shard, token)| (shard, Answer::Entered { token }));
        turn.answers.extend(entered);
    }

    /// The client for whom a session was opened does not get in. `before`: how long a session that was to go on lived.
    fn turn_away(&mut self, hash: u64, before: Option<Life>, now: Now) {
        self.wills.attached(hash).into_iter().for_each(|key| self.drop_will(key));
        self.wills.put_back(hash);
        match before {
            None => self.forget(hash),
            Some(before) if self.known.contains(hash) => {
                self.live(hash, Life { left_us: before.left_us.or(Some(now.wall_us)), ..before });
            }
            Some(_) => {}
        }
    }

    /// Forgets sessions whose time is over.
    pub(super) fn sweep(&mut self, now: Now, turn: &mut Turn) {
        if self.read.clock_is_held() {
            return;
        }
        for _ in 0..EXPIRED_PER_TURN {
            let Some(hash) = self.known.expired(now.wall_us) else { return };
            self.end(hash, now);
        }
        turn.again = true;
    }

    /// What a will says.
    pub(super) fn load_will(&self, key: WillKey) -> Result<Option<WillRecord>, StoreError> {
        if let Some(waiting) = self.pending.wills.get(&key) {
            return Ok(waiting.clone());
        }
        match self.shelf.store() {
            Some(store) => store.will(key),
            None => Err(StoreError::Unavailable("it is not open".into())),
        }
    }

    /// A will is not published any more.
    pub(super) fn drop_will(&mut self, key: WillKey) {
        self.wills.remove(key);
        self.pending.wills.insert(key, None);
    }

    fn live(&mut self, hash: u64, life: Life) {
        self.known.live(hash, life);
        self.pending.session(hash).life = Some(life);
    }

    fn has_expired(&self, hash: u64, now: Now) -> bool {
        let end_us = self.known.get(hash).and_then(|known| known.life.end_us());
        !self.read.clock_is_held() && end_us.is_some_and(|end_us| end_us <= now.wall_us)
    }

    fn unwritable(&self) -> Option<String> {
        let why = self.failing.as_ref().map(|failing| failing.why.clone());
        let why = why.or_else(|| self.file.shortage(0))?;
        Some(format!("the state file cannot be written: {why}"))
    }
}

pub(super) fn record_of(name: &SessionName, address: Option<AddressKey>) -> SessionRecord {
    SessionRecord {
        user: name.scope.user.clone(),
        scope_address: name.scope.address,
        client_id: name.client_id.clone(),
        assigned: name.assigned,
        address,
    }
}
