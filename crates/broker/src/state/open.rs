//! How the state begins: from its file, or anew when that cannot be opened.

use crate::action::Now;
use crate::arrival::Secret;
use crate::limits::Limits;
use crate::state::change::WillKey;
use crate::state::core::{State, StateNote, Turn};
use crate::state::file::StateFile;
use crate::state::known::Known;
use crate::state::record::Life;
use crate::state::store::{Meta, Store, StoreError};
use firehose_log::{Disk, MemDisk, Read};
use std::path::Path;
use std::sync::Arc;

/// What was found when the state was opened.
#[derive(Clone, Debug, Default)]
pub struct StateReport {
    /// How many sessions there are.
    pub sessions: usize,
    /// How many wills of connections that are gone.
    pub wills: usize,
    /// Up to which offset the file held.
    pub applied: firehose_log::Offset,
    /// What the operator has to know, a line each.
    pub notes: Vec<StateNote>,
}

/// The state cannot begin. Says why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError(pub String);

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StateError {}

impl State {
    /// Opens the state file at `path`, whose folder is there, over the open log `read`. A damaged file is set aside and made
    /// anew: its sessions are gone, and retained messages are gathered from the log. With a full disk the state begins with
    /// what can be read, and writes when there is room.
    ///
    /// # Errors
    /// The system does not let the file be read or written now; it stays where it is. Or a damaged one cannot be set aside.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        read: Arc<dyn Read>,
        limits: Arc<Limits>,
        now: Now,
    ) -> Result<(State, StateReport), StateError> {
        let file = StateFile::new(disk, path);
        let secret = Secret::new(file.random());
        let mut state = State::new(file, read, limits, secret);
        let mut turn = Turn::default();
        match state.load(now, &mut turn) {
            Ok(()) => {}
            Err(error @ (StoreError::Full(_) | StoreError::NotTried(_))) => {
                state.fail(&error, now, &mut turn)
            }
            Err(error @ StoreError::Damaged(_)) => state.start_anew(&error, now, &mut turn)?,
            Err(StoreError::Unavailable(why)) => {
                return Err(StateError(format!(
                    "the state file {} cannot be opened ({why}): the system or the disk refuses it, and since it may be \
                     whole it stays where it is; look at its owner and permissions, the limit of open files and the \
                     disk, or move it away to begin without its sessions and wills",
                    path.display()
                )));
            }
        }
        state.tell_stats();
        // Nobody is connected yet.
        state.rescued = Default::default();
        let report = StateReport {
            sessions: state.known.len(),
            wills: state.wills.len(),
            applied: state.stored_applied,
            notes: turn.notes,
        };
        Ok((state, report))
    }

    /// A state whose file is in memory: nothing of it outlives the process. For tests and measurements.
    pub fn in_memory(read: Arc<dyn Read>, limits: &Limits) -> State {
        let disk = Arc::new(MemDisk::new());
        let file = StateFile::new(disk, Path::new("/state.redb"));
        let secret = Secret::new(file.random());
        let mut state = State::new(file, read, Arc::new(limits.clone()), secret);
        let made = state.make();
        debug_assert!(made.is_ok(), "a disk in memory takes a file");
        state
    }

    /// Opens the file again after it failed, or writes it anew.
    pub(super) fn reopen(&mut self, now: Now, turn: &mut Turn) {
        if self.shelf.store().is_some_and(|store| !store.is_view()) || !self.may_retry(now) {
            return;
        }
        if let Some(closing) = self.closing.take()
            && let Err(busy) = Arc::try_unwrap(closing)
        {
            self.closing = Some(busy);
            return;
        }
        let outcome = match self.shelf.store() {
            Some(_) => Ok(()),
            None => self.find_again(turn),
        };
        match outcome.and_then(|()| self.write_anew()) {
            Ok(()) => {}
            Err(error @ StoreError::Damaged(_)) => {
                self.turn_away_all(&error, now, turn);
                if let Err(StateError(why)) = self.start_anew(&error, now, turn) {
                    self.fail(&StoreError::Unavailable(why), now, turn);
                }
            }
            Err(error) => self.fail(&error, now, turn),
        }
    }

    /// Opens the file that was there before.
    fn find_again(&mut self, turn: &mut Turn) -> Result<(), StoreError> {
        match self.file.open(self.read.log_id(), self.read.head())? {
            Some((_, meta)) if meta.secret == self.secret && meta.saves < self.saves => {
                Err(StoreError::Damaged("what was saved last cannot be read any more".into()))
            }
            Some((store, meta)) if meta.secret == self.secret => {
                self.saves = meta.saves;
                self.shelf.put(Some(store));
                Ok(())
            }
            Some(_) => Err(StoreError::Damaged("it is not the file that was there before".into())),
            None => {
                if self.stored_applied > 0 || self.known.len() > 0 {
                    self.miss(turn);
                    self.forget_all(turn);
                }
                self.make()
            }
        }
    }

    /// A file that can be read only is written anew: until that is done, nothing is saved.
    fn write_anew(&mut self) -> Result<(), StoreError> {
        let Some(view) = self.shelf.store().filter(|store| store.is_view()) else { return Ok(()) };
        match self.file.rewrite(&view, 0) {
            Ok(store) => {
                self.shelf.put(Some(store));
                Ok(())
            }
            // If it is the new file that failed, reading goes on.
            Err(StoreError::Unavailable(why) | StoreError::Full(why)) => {
                view.meta()?;
                Err(StoreError::NotTried(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over what the file has; makes it if there is none.
    fn load(&mut self, now: Now, turn: &mut Turn) -> Result<(), StoreError> {
        let Some((store, meta)) = self.file.open(self.read.log_id(), self.read.head())? else {
            if self.read.head() > 0 {
                self.miss(turn);
                self.queue.stats().rebuilds.add(1);
            }
            return self.make();
        };
        if store.went_back() {
            turn.notes.push(StateNote::Bad(format!(
                "the last save of the state file {} is not whole, and the one before it counts: either the power failed \
                 or the bus was killed while it was written, and nothing that was answered is lost; or the disk has \
                 damaged it, and what sessions and wills saved last is lost. Retained messages are found in the log",
                self.file.path()
            )));
        }
        // Groups are found by their keyed hashes.
        self.secret = meta.secret;
        self.index(&store, now)?;
        self.stored_applied = meta.applied;
        self.saves = meta.saves;
        self.view_at = meta.applied;
        self.shelf.found(store, meta.applied);
        self.write_anew()
    }

    fn miss(&self, turn: &mut Turn) {
        turn.notes.push(StateNote::Bad(format!(
            "the state file {} is missing, and the log has events: sessions and wills are lost; retained messages are \
             rebuilt from the log",
            self.file.path()
        )));
    }

    /// Gathers what is known of all sessions and wills. Nobody is connected any more.
    fn index(&mut self, store: &Store, now: Now) -> Result<(), StoreError> {
        let mut unreadable = Vec::new();
        let mut users = Vec::new();
        store.sessions(|hash, found| {
            let Some((record, life)) = found else { return unreadable.push(hash) };
            users.push((hash, record.user.clone()));
            let known = Known { anonymous: record.user.is_none(), address: record.address, life };
            self.known.insert(hash, known);
        })?;
        let connected = self
            .known
            .hashes()
            .filter(|hash| self.known.get(*hash).is_some_and(|known| known.life.left_us.is_none()));
        for hash in connected.collect::<Vec<_>>() {
            if let Some(known) = self.known.get(hash) {
                let life = Life { left_us: Some(now.wall_us), ..known.life };
                self.known.live(hash, life);
                self.pending.session(hash).life = Some(life);
            }
        }
        unreadable.into_iter().for_each(|hash| self.pending.wipe(hash));
        self.index_groups(store, &users)?;
        let mut unreadable = Vec::new();
        store.wills(|key: WillKey, found| match found {
            Some(record) if record.due => self.wills.again_at(key, now.ms),
            Some(record) => {
                let delay_secs =
                    record.will.delay_secs.min(record.expiry_secs).max(self.limits.will_grace_secs);
                self.wills.orphan(key, now.ms + u64::from(delay_secs) * 1_000);
            }
            None => unreadable.push(key),
        })?;
        unreadable.into_iter().for_each(|key| drop(self.pending.wills.insert(key, None)));
        self.known.hashes().chain(self.wills.sessions()).for_each(|hash| self.names.insert(hash));
        Ok(())
    }

    fn make(&mut self) -> Result<(), StoreError> {
        self.saves = 0;
        let meta = Meta { log_id: self.read.log_id(), applied: 0, saves: 0, secret: self.secret.clone() };
        self.shelf.put(Some(self.file.make(&meta)?));
        Ok(())
    }

    /// Sets the file aside and begins a new one.
    fn start_anew(&mut self, error: &StoreError, now: Now, turn: &mut Turn) -> Result<(), StateError> {
        let path = self.file.path().to_string();
        let kept = self.file.set_aside().map_err(|why| {
            StateError(format!(
                "the state file {path} cannot be opened ({error}), nor set aside ({why}): look at its folder's owner \
                 and permissions"
            ))
        })?;
        let is_running = self.view_at > 0 || self.known.len() > 0;
        self.forget_all(turn);
        let connected =
            if is_running { ", but those of connected clients, which are saved anew" } else { "" };
        turn.notes.push(StateNote::Bad(format!(
            "the state file {path} cannot be opened ({error}) and was set aside as {kept}: sessions and wills are \
             gone{connected}; retained messages are rebuilt from the log"
        )));
        if let Err(error) = self.make() {
            self.fail(&error, now, turn);
        }
        Ok(())
    }
}
