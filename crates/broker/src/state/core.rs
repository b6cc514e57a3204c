//! The state without its thread: turn by turn it takes in what the log brought and what shards ask, writes all of it in
//! one transaction, and answers (DESIGN section 3, "One truth").

use crate::action::Now;
use crate::arrival::Secret;
use crate::limits::Limits;
use crate::message::Message;
use crate::state::change::{Pending, WillKey};
use crate::state::file::StateFile;
use crate::state::groups::KnownGroups;
use crate::state::known::KnownSessions;
use crate::state::names::StoredNames;
use crate::state::queue::{Asked, Job, Queue, Redacted};
use crate::state::reader::{Shelf, StateKeep, StateReader};
use crate::state::request::{Answer, OpenRefusal, Operation};
use crate::state::rescue::Rescued;
use crate::state::sessions::Opening;
use crate::state::store::{Store, StoreError};
use crate::state::wills::{DueWill, WillOutcome, Wills};
use firehose_log::{Offset, Read};
use std::collections::HashSet;
use std::sync::Arc;

/// What nobody waits for is written at the latest after this time, with all that came meanwhile.
const PATIENCE_MS: u64 = 200;
/// After a failure the file is tried again after this time.
const RETRY_MS: u64 = 1_000;
/// The place up to which the file holds is moved on by itself when so many events came that do not matter to it.
const APPLIED_STEP: Offset = 100_000;
/// Payloads of wills that are handed out in one turn.
const WILL_BYTES_PER_TURN: usize = 1 << 20;
/// A will that could not be published is tried again after this time.
const WILL_RETRY_MS: u64 = 1_000;

/// The state: what only sessions know, and a view of the log.
pub struct State {
    pub(super) file: StateFile,
    pub(super) shelf: Arc<Shelf>,
    /// A file that failed, while a reader still looks into it.
    pub(super) closing: Option<Arc<Store>>,
    pub(super) secret: Secret,
    pub(super) read: Arc<dyn Read>,
    pub(super) limits: Arc<Limits>,
    pub(super) names: Arc<StoredNames>,
    pub(super) queue: Arc<Queue>,
    pub(super) pending: Pending,
    pub(super) known: KnownSessions,
    pub(super) wills: Wills,
    pub(super) groups: KnownGroups,
    pub(super) rescued: Rescued,
    /// Everything up to here is in the file or in `pending`.
    pub(super) view_at: Offset,
    /// What the file says of it.
    pub(super) stored_applied: Offset,
    /// How often it was saved.
    pub(super) saves: u64,
    /// Where the log ended at the start: no will is fired before the view has come there.
    pub(super) start_head: Offset,
    waiting: Vec<Asked>,
    /// While the file is not open, and may be lost: clients that die, with their wills.
    departed: Vec<Asked>,
    jobs: Vec<(Offset, Job)>,
    redactions: Vec<(Offset, Redacted)>,
    will_outcomes: Vec<(WillKey, WillOutcome)>,
    saved: Vec<(usize, u64)>,
    pub(super) opening: Vec<Opening>,
    /// Clients that are let in when it is written that what they called back is gone: their shards, and the tokens.
    pub(super) entering: Vec<(usize, u64)>,
    pending_since_ms: Option<u64>,
    pub(super) failing: Option<Failing>,
    patience_ms: u64,
}

/// The file cannot be written.
pub(super) struct Failing {
    pub why: String,
    retry_at_ms: u64,
}

/// What a turn brought.
#[derive(Default)]
pub struct Turn {
    /// Answers, and to which shards they go.
    pub answers: Vec<(usize, Answer)>,
    /// Wills to be published.
    pub wills: Vec<DueWill>,
    /// To be run now, in order.
    pub jobs: Vec<Job>,
    /// The file was lost: every shard is to be told, behind the answers ([`Message::StateLost`]).
    pub lost: bool,
    /// For the log file of the process.
    pub notes: Vec<StateNote>,
    /// There is more to do at once.
    pub again: bool,
    /// Otherwise in so many milliseconds at the latest.
    pub next_ms: Option<u64>,
}

impl Turn {
    /// The answers as messages for the shards' mailboxes.
    pub fn messages(&mut self) -> impl Iterator<Item = (usize, Message)> + '_ {
        self.answers.drain(..).map(|(shard, answer)| (shard, Message::State(answer)))
    }
}

/// Something to be told to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateNote {
    /// Something was lost, or does not work.
    Bad(String),
    /// It works again.
    Good(String),
}

impl std::fmt::Display for StateNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StateNote::Bad(line) | StateNote::Good(line) => f.write_str(line),
        }
    }
}

impl State {
    pub(super) fn new(file: StateFile, read: Arc<dyn Read>, limits: Arc<Limits>, secret: Secret) -> State {
        let start_head = read.head();
        State {
            file,
            shelf: Arc::default(),
            closing: None,
            secret,
            limits,
            names: Arc::default(),
            queue: Arc::new(Queue::new(start_head)),
            pending: Pending::default(),
            known: KnownSessions::default(),
            wills: Wills::default(),
            groups: KnownGroups::default(),
            rescued: Rescued::default(),
            view_at: 0,
            stored_applied: 0,
            saves: 0,
            start_head,
            read,
            waiting: Vec::new(),
            departed: Vec::new(),
            jobs: Vec::new(),
            redactions: Vec::new(),
            will_outcomes: Vec::new(),
            saved: Vec::new(),
            opening: Vec::new(),
            entering: Vec::new(),
            pending_since_ms: None,
            failing: None,
            patience_ms: PATIENCE_MS,
        }
    }

    /// Where requests are left.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// For readers on other threads.
    pub fn reader(&self) -> StateReader {
        StateReader(self.shelf.clone())
    }

    /// What retention has to keep.
    pub fn keep(&self) -> StateKeep {
        StateKeep(self.shelf.clone())
    }

    /// Which sessions there are.
    pub fn names(&self) -> &Arc<StoredNames> {
        &self.names
    }

    /// Keys the hashes of names.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.known.len()
    }

    /// How many wills are stored.
    pub fn wills(&self) -> usize {
        self.wills.len()
    }

    /// Whether the file cannot be written now, and why.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_ref().map(|failing| &*failing.why)
    }

    /// How long what nobody waits for may wait; 0: everything is written in its turn.
    pub fn set_patience_ms(&mut self, patience_ms: u64) {
        self.patience_ms = patience_ms;
    }

    /// Takes in what the log has up to `durable` (which is not above the head that was published to everyone), carries out
    /// the requests that were made up to there, and answers what is written.
    pub fn turn(&mut self, durable: Offset, now: Now) -> Turn {
        let mut turn = Turn::default();
        self.take();
        self.reopen(now, &mut turn);
        self.follow(durable, &mut turn);
        self.carry_out(now, &mut turn);
        self.sweep(now, &mut turn);
        self.write(now, &mut turn, false);
        self.redact_all(now, &mut turn);
        self.run_jobs(&mut turn);
        self.hand_out_wills(now, &mut turn);
        turn.next_ms = self.next_ms(now);
        self.tell_stats();
        turn
    }

    pub(super) fn tell_stats(&self) {
        let (sessions, wills) = (self.known.len(), self.wills.len());
        self.queue.stats().set(sessions, wills, self.shelf.applied(), self.failing());
    }

    /// Writes everything that can be, however long it has waited: the last turn before the bus stops. `durable` as in
    /// [`State::turn`].
    pub fn finish(&mut self, durable: Offset, now: Now) -> Turn {
        let mut turn = self.turn(durable, now);
        while turn.again {
            let mut next = self.turn(durable, now);
            turn.answers.append(&mut next.answers);
            turn.notes.append(&mut next.notes);
            turn.jobs.append(&mut next.jobs);
            turn.again = next.again;
        }
        self.write(now, &mut turn, true);
        self.run_jobs(&mut turn);
        turn
    }

    fn take(&mut self) {
        let mut taken = self.queue.take();
        self.waiting.append(&mut taken.requests);
        self.jobs.append(&mut taken.jobs);
        self.redactions.append(&mut taken.redactions);
        self.will_outcomes.append(&mut taken.wills);
    }

    /// Requests in their order, shard by shard: where one has to wait, so do the later ones of that shard.
    fn carry_out(&mut self, now: Now, turn: &mut Turn) {
        for (key, outcome) in std::mem::take(&mut self.will_outcomes) {
            self.will_done(key, outcome, now);
        }
        let is_open = self.shelf.store().is_some();
        if is_open {
            self.waiting.splice(0..0, self.departed.drain(..));
        }
        let mut blocked = 0u64;
        let mut opened = HashSet::new();
        for asked in std::mem::take(&mut self.waiting) {
            let bit = 1 << (asked.shard % 64);
            // What follows the opening of a session is not folded into it: the opening may have to be taken back.
            let follows = asked.request.operations.iter().any(|operation| opened.contains(&operation.hash()));
            if asked.head > self.view_at
                && let Some(answer) = self.turned_away(&asked)
            {
                turn.answers.push((asked.shard, answer));
                continue;
            }
            // What a group does not call its own any more may stand in a member's progress, of another shard.
            let is_group = matches!(asked.request.operations[..], [Operation::SaveGroup { .. }]);
            if blocked & bit != 0 || (is_group && blocked != 0) || asked.head > self.view_at || follows {
                blocked |= bit;
                turn.again |= follows;
                self.waiting.push(asked);
                continue;
            }
            if !is_open && asked.request.is_departure() {
                self.departed.push(asked);
                continue;
            }
            let Asked { shard, head, request } = asked;
            let mut is_answered = request.token == 0;
            for operation in request.operations {
                let hash = operation.hash();
                if self.operate(shard, request.token, head, operation, now, turn) {
                    opened.insert(hash);
                    is_answered = true;
                }
            }
            if !is_answered {
                self.saved.push((shard, request.token));
            }
        }
    }

    /// The answer to a client that waits for a log that has failed.
    fn turned_away(&self, asked: &Asked) -> Option<Answer> {
        let why = self.queue.log_failure()?.to_owned();
        let is_open =
            matches!(asked.request.operations[..], [Operation::Open(_) | Operation::Entered { .. }]);
        let token = asked.request.token;
        is_open.then_some(Answer::Opened { token, outcome: Err(OpenRefusal::Unavailable(why)) })
    }

    fn write(&mut self, now: Now, turn: &mut Turn, at_once: bool) {
        if !self.is_urgent(now, at_once) {
            return;
        }
        if self.failing.as_ref().is_some_and(|failing| now.ms < failing.retry_at_ms && !at_once) {
            return;
        }
        match self.try_write() {
            Ok(()) => self.written(turn),
            Err(error) => self.not_written(&error, now, turn),
        }
    }

    fn is_urgent(&mut self, now: Now, at_once: bool) -> bool {
        let moved = self.view_at >= self.stored_applied + APPLIED_STEP
            || (at_once && self.view_at > self.stored_applied);
        if !self.pending.has_view() && self.shelf.store().is_some() {
            self.applied();
        }
        let is_waited_for = !(self.saved.is_empty() && self.opening.is_empty() && self.entering.is_empty());
        if self.pending.is_empty() && !is_waited_for && !moved {
            self.pending_since_ms = None;
            return self.failing.is_some();
        }
        let applied = self.shelf.applied();
        let since_ms = *self.pending_since_ms.get_or_insert(now.ms);
        at_once
            || moved
            || is_waited_for
            || self.jobs.iter().any(|(as_of, _)| *as_of > applied && *as_of <= self.view_at)
            || now.ms >= since_ms + self.patience_ms
    }

    fn try_write(&mut self) -> Result<(), StoreError> {
        let Some(store) = self.shelf.store() else {
            return Err(StoreError::Unavailable("it is not open".into()));
        };
        if store.is_view() {
            return Err(StoreError::NotTried("it has to be written anew".into()));
        }
        self.file.check_room(self.pending.bytes(), self.pending.brings_nothing_new())?;
        let began_us = self.file.monotonic_us();
        let written = store.write(&self.pending, self.view_at, self.saves + 1);
        if matches!(written, Err(StoreError::Full(_))) {
            self.file.used_up();
        }
        written?;
        let stats = self.queue.stats();
        stats.commits.add(1);
        stats.commit_us.add(self.file.monotonic_us().saturating_sub(began_us));
        Ok(())
    }

    fn written(&mut self, turn: &mut Turn) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.retained.is_empty() {
            self.shelf.pages.changed(self.view_at);
        }
        self.pending_since_ms = None;
        self.stored_applied = self.view_at;
        self.saves += 1;
        self.applied();
        let hashes = pending.sessions.keys().copied().chain(pending.wills.keys().map(|key| key.session));
        for hash in hashes.filter(|hash| !self.known.contains(*hash) && !self.wills.has(*hash)) {
            self.names.remove(hash);
        }
        let saved = self.saved.drain(..).map(|(shard, token)| (shard, Answer::Saved { token }));
        turn.answers.extend(saved);
        let opened = self.opening.drain(..).map(|opening| {
            (opening.shard, Answer::Opened { token: opening.token, outcome: Ok(opening.outcome) })
        });
        turn.answers.extend(opened);
        self.let_in_all(turn);
        if self.failing.take().is_some() {
            let line = format!("the state file {} can be written again", self.file.path());
            turn.notes.push(StateNote::Good(line));
        }
    }

    fn applied(&self) {
        self.shelf.set_applied(self.view_at);
        self.queue.applied(self.view_at);
    }

    /// Nothing is lost: what was to be written waits, folded together.
    fn not_written(&mut self, error: &StoreError, now: Now, turn: &mut Turn) {
        self.fail(error, now, turn);
        self.turn_away_all(error, now, turn);
    }

    /// The file failed. One line says so when it begins.
    pub(super) fn fail(&mut self, error: &StoreError, now: Now, turn: &mut Turn) {
        let failing = Failing { why: error.to_string(), retry_at_ms: now.ms + RETRY_MS };
        if self.failing.replace(failing).is_none() {
            let line = format!(
                "the state file {} cannot be written ({error}): new sessions are refused, and what is to be saved \
                 waits; it is tried again each second",
                self.file.path()
            );
            turn.notes.push(StateNote::Bad(line));
        }
        // After a failed call redb wants the file opened anew. If nothing was tried, reading goes on.
        if !matches!(error, StoreError::NotTried(_)) {
            let failed = self.shelf.put(None);
            self.closing = failed.or(self.closing.take());
        }
    }

    /// Whether the file is to be tried again now.
    pub(super) fn may_retry(&self, now: Now) -> bool {
        self.failing.as_ref().is_none_or(|failing| now.ms >= failing.retry_at_ms)
    }

    fn redact_all(&mut self, now: Now, turn: &mut Turn) {
        for (offset, done) in std::mem::take(&mut self.redactions) {
            // Its topic may still lie in a batch that was not looked at.
            if offset > self.view_at {
                self.redactions.push((offset, done));
                continue;
            }
            let outcome = self.redact(offset, now, turn);
            self.shelf.pages.changed(self.view_at);
            turn.jobs.push(Box::new(move || done(outcome)));
        }
    }

    fn run_jobs(&mut self, turn: &mut Turn) {
        let applied = self.shelf.applied();
        for (as_of, job) in std::mem::take(&mut self.jobs) {
            match as_of <= applied || self.queue.is_applied(as_of) {
                true => turn.jobs.push(job),
                false => self.jobs.push((as_of, job)),
            }
        }
    }

    fn hand_out_wills(&mut self, now: Now, turn: &mut Turn) {
        if self.view_at < self.start_head {
            return;
        }
        let mut bytes = 0;
        while bytes < WILL_BYTES_PER_TURN {
            let Some(key) = self.wills.take_due(now.ms) else { return };
            match self.load_will(key) {
                Ok(Some(record)) => {
                    bytes += record.will.payload.len() + record.will.topic.len();
                    self.mark_due(key, &record);
                    turn.wills.push(DueWill { key, client_id: record.client_id, will: record.will });
                }
                Ok(None) => {
                    self.drop_will(key);
                    let line = "a stored will could not be read, and is not published".to_owned();
                    turn.notes.push(StateNote::Bad(line));
                }
                Err(error) => {
                    self.wills.again_at(key, now.ms + WILL_RETRY_MS);
                    self.fail(&error, now, turn);
                    return;
                }
            }
        }
        turn.again = true;
    }

    fn will_done(&mut self, key: WillKey, outcome: WillOutcome, now: Now) {
        if !self.wills.is_under_way(key) {
            return;
        }
        match outcome {
            WillOutcome::Published => {}
            WillOutcome::Delivered | WillOutcome::Refused => self.drop_will(key),
            WillOutcome::Later => self.wills.again_at(key, now.ms + WILL_RETRY_MS),
        }
    }

    fn next_ms(&self, now: Now) -> Option<u64> {
        let held = self.read.clock_is_held();
        let ends = self.known.next_end_us().filter(|_| !held);
        let ends_ms = ends.map(|end| u64::try_from((end - now.wall_us) / 1_000 + 1).unwrap_or(0));
        let waits = !self.pending.is_empty() || self.queue.has_marked();
        let patience_ms = waits.then_some(self.patience_ms.max(1));
        let retry_ms = self.failing.as_ref().map(|failing| failing.retry_at_ms.saturating_sub(now.ms));
        let wills_ms = self.wills.next_due_ms().map(|due_ms| due_ms.saturating_sub(now.ms));
        [ends_ms, patience_ms.filter(|_| retry_ms.is_none()), retry_ms, wills_ms].into_iter().flatten().min()
    }
}
