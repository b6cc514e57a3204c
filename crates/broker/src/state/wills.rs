//! When wills are due. What they say is in the file.

use crate::state::change::WillKey;
use crate::state::stored::StoredWill;
use std::collections::{BTreeMap, BTreeSet};

/// A will to be published now: [`crate::state::Queue::will_done`] has to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueWill {
    /// Which; both numbers go into the `Origin` of its record, with `WayIn::Will`.
    pub key: WillKey,
    /// The client id of its session, for the access rules.
    pub client_id: Box<str>,
    /// The will.
    pub will: StoredWill,
}

/// What became of a will that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillOutcome {
    /// It stands in the log: the view forgets it when it comes there.
    Published,
    /// It was delivered, but the log does not take its topic.
    Delivered,
    /// It may not be published: it is forgotten.
    Refused,
    /// It could not be published now: it is tried again.
    Later,
}

/// How far a will is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its connection lives.
    Attached,
    /// It is due at this time, in milliseconds.
    Due(u64),
    /// It was handed out.
    UnderWay,
    /// It was due, and could not be published: it is tried again at this time. Nothing calls it back.
    Again(u64),
    /// Its client has come back, and may still be turned away: then it is due at this time, as an orphan or not.
    Recalled(u64, bool),
}

/// All wills of the state.
#[derive(Default)]
pub(crate) struct Wills {
    all: BTreeMap<WillKey, Stage>,
    due: BTreeSet<(u64, WillKey)>,
    /// Those whose connection ended because the bus did, while they are not due.
    orphans: BTreeSet<WillKey>,
}

impl Wills {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The sessions that have one.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = u64> {
        self.all.keys().map(|key| key.session)
    }

    /// Whether a session has any.
    pub(crate) fn has(&self, session: u64) -> bool {
        self.of(session).next().is_some()
    }

    /// A new will of a session whose connection lives.
    pub(crate) fn attach(&mut self, session: u64) -> WillKey {
        let last = self.of(session).next_back().map_or(0, |(key, _)| key.serial);
        // They come to thousands only if none of them can be published; then the oldest number free will do.
        let free = |serial: &u16| !self.all.contains_key(&WillKey { session, serial: *serial });
        let serial = last.checked_add(1).or_else(|| (1..u16::MAX).find(free)).unwrap_or(u16::MAX);
        let key = WillKey { session, serial };
        self.set(key, Stage::Attached);
        key
    }

    /// A will is due at this time.
    pub(crate) fn due_at(&mut self, key: WillKey, due_ms: u64) {
        self.set(key, Stage::Due(due_ms));
    }

    /// A will that was due could not be published: it is handed out again at this time.
    pub(crate) fn again_at(&mut self, key: WillKey, due_ms: u64) {
        self.set(key, Stage::Again(due_ms));
    }

    /// Its client has come back before it was due. The file has it still, for [`Wills::put_back`].
    pub(crate) fn recall(&mut self, key: WillKey) {
        if let Some(Stage::Due(due_ms)) = self.all.get(&key).copied() {
            let is_orphan = self.orphans.contains(&key);
            self.set(key, Stage::Recalled(due_ms, is_orphan));
        }
    }

    /// The client was turned away: what its return had called back is due as it was.
    pub(crate) fn put_back(&mut self, session: u64) {
        for key in self.recalled(session) {
            match self.all.get(&key).copied() {
                Some(Stage::Recalled(due_ms, true)) => self.orphan(key, due_ms),
                Some(Stage::Recalled(due_ms, false)) => self.due_at(key, due_ms),
                _ => {}
            }
        }
    }

    /// Those that the client's return has called back, if it is let in.
    pub(crate) fn recalled(&self, session: u64) -> Vec<WillKey> {
        let is_recalled = |stage: &Stage| matches!(stage, Stage::Recalled(..));
        self.of(session).filter(|(_, stage)| is_recalled(stage)).map(|(key, _)| *key).collect()
    }

    /// The bus ended, and with it the will's connection: it is due at this time unless the client comes back.
    pub(crate) fn orphan(&mut self, key: WillKey, due_ms: u64) {
        self.set(key, Stage::Due(due_ms));
        self.orphans.insert(key);
    }

    /// Those whose connection ended because the bus did.
    pub(crate) fn orphans(&self, session: u64) -> Vec<WillKey> {
        let all = WillKey { session, serial: 0 }..=WillKey { session, serial: u16::MAX };
        self.orphans.range(all).copied().collect()
    }

    /// The will whose connection lives.
    pub(crate) fn attached(&self, session: u64) -> Option<WillKey> {
        self.of(session).find(|(_, stage)| **stage == Stage::Attached).map(|(key, _)| *key)
    }

    /// Those whose connection is gone and whose delay is not over.
    pub(crate) fn delayed(&self, session: u64, now_ms: u64) -> Vec<WillKey> {
        let is_delayed = |stage: &Stage| matches!(stage, Stage::Due(due_ms) if *due_ms > now_ms);
        self.of(session).filter(|(_, stage)| is_delayed(stage)).map(|(key, _)| *key).collect()
    }

    /// Hands out the next that is due.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<WillKey> {
        let (_, key) = *self.due.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        self.set(key, Stage::UnderWay);
        Some(key)
    }

    /// When the next one is due.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Whether it was handed out and is not done.
    pub(crate) fn is_under_way(&self, key: WillKey) -> bool {
        self.all.get(&key) == Some(&Stage::UnderWay)
    }

    /// It is gone.
    pub(crate) fn remove(&mut self, key: WillKey) {
        self.orphans.remove(&key);
        if let Some(Stage::Due(due_ms) | Stage::Again(due_ms)) = self.all.remove(&key) {
            self.due.remove(&(due_ms, key));
        }
    }

    /// The file is lost, and with it all wills but those that are being published: their numbers are not given out again
    /// before the log has them.
    pub(crate) fn lose(&mut self) {
        self.all.retain(|_, stage| *stage == Stage::UnderWay);
        self.due.clear();
        self.orphans.clear();
    }

    fn set(&mut self, key: WillKey, stage: Stage) {
        self.remove(key);
        if let Stage::Due(due_ms) | Stage::Again(due_ms) = stage {
            self.due.insert((due_ms, key));
        }
        self.all.insert(key, stage);
    }

    fn of(&self, session: u64) -> std::collections::btree_map::Range<'_, WillKey, Stage> {
        self.all.range(WillKey { session, serial: 0 }..=WillKey { session, serial: u16::MAX })
    }
}
