//! What waits for the state's thread: requests, marked batches, jobs. Anyone may leave something; nobody waits here.

use crate::bell::Bell;
use crate::state::change::WillKey;
use crate::state::request::Request;
use crate::state::stats::StateStats;
use crate::state::wills::WillOutcome;
use crate::sync::{Mutex, lock};
use firehose_log::{Batch, Offset, Refusal};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of marked batches that may wait; beyond them the state reads the log.
const MARKED_BYTES_MAX: usize = 8 << 20;

/// Run by the state's thread once the view has come far enough. It must be short.
pub type Job = Box<dyn FnOnce() + Send>;
/// Called with how the redaction of the state file went.
pub type Redacted = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A request with its shard and the head at which it was made.
pub(crate) struct Asked {
    pub shard: usize,
    pub head: Offset,
    pub request: Request,
}

/// What the thread takes at a time.
#[derive(Default)]
pub(crate) struct Taken {
    pub requests: Vec<Asked>,
    pub jobs: Vec<(Offset, Job)>,
    pub wills: Vec<(WillKey, WillOutcome)>,
    pub redactions: Vec<(Offset, Redacted)>,
    /// Nobody takes anything any more.
    is_closed: bool,
}

/// More came than may wait: the log has to be read.
pub(crate) struct Overflowed;

struct Marked {
    /// Every marked batch from here on lies in `batches`.
    from: Offset,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The end of the last batch that was taken.
    taken: Offset,
    /// What matters from here on may not be in the file; none: all of it is.
    unapplied: Option<Offset>,
}

/// The state's queue.
pub struct Queue {
    taken: Mutex<Taken>,
    marked: Mutex<Marked>,
    wants_durable: AtomicU64,
    /// Why nothing more will ever be durable.
    log_failure: OnceLock<String>,
    bell: Bell,
    stats: StateStats,
}

impl Queue {
    /// A queue that gets every marked batch above `head`.
    pub(crate) fn new(head: Offset) -> Queue {
        Queue {
            taken: Mutex::default(),
            marked: Mutex::new(Marked {
                from: head + 1,
                batches: VecDeque::new(),
                bytes: 0,
                taken: 0,
                unapplied: Some(0),
            }),
            wants_durable: AtomicU64::new(0),
            log_failure: OnceLock::new(),
            bell: Bell::default(),
            stats: StateStats::default(),
        }
    }

    /// Leaves a shard's request, made at `head`. It is carried out once the log is durable and the view has come up to
    /// there; then the shard is answered. A shard that wants no answer does not make the log durable sooner, unless a will
    /// waits for it.
    pub fn submit(&self, shard: usize, request: Request, head: Offset) {
        if request.token != 0 || request.fires_will() {
            self.wants_durable.fetch_max(head, Ordering::AcqRel);
        }
        self.leave(|taken| taken.requests.push(Asked { shard, head, request }));
    }

    /// The sequencer, in its section and in order: a batch that matters to the state took its place.
    pub fn mark(&self, batch: &Arc<Batch>) {
        let mut marked = lock(&self.marked);
        let bytes = batch.bytes_len();
        marked.unapplied.get_or_insert(batch.base());
        if marked.bytes + bytes > MARKED_BYTES_MAX {
            marked.from = batch.last() + 1;
            marked.batches = VecDeque::new();
            marked.bytes = 0;
            return;
        }
        marked.bytes += bytes;
        marked.batches.push_back(Arc::clone(batch));
        let first = marked.batches.len() == 1;
        drop(marked);
        if first {
            self.bell.ring();
        }
    }

    /// Runs `job` on the state's thread once everything up to `as_of` is in the view and durable.
    pub fn when_applied(&self, as_of: Offset, job: Job) {
        self.wants_durable.fetch_max(as_of, Ordering::AcqRel);
        self.leave(|taken| taken.jobs.push((as_of, job)));
    }

    /// Whether everything up to `as_of` that matters is in the file already. `as_of` is a head that was published.
    pub fn is_applied(&self, as_of: Offset) -> bool {
        lock(&self.marked).unapplied.is_none_or(|first| as_of < first)
    }

    /// Wants everything up to `offset` made durable.
    pub fn want_durable(&self, offset: Offset) {
        self.wants_durable.fetch_max(offset, Ordering::AcqRel);
    }

    /// Says what became of a will that was due.
    pub fn will_done(&self, key: WillKey, outcome: WillOutcome) {
        self.leave(|taken| taken.wills.push((key, outcome)));
    }

    /// Takes an event out of the state file, which is written anew without it; `done` is called then, or dropped when the
    /// state has stopped.
    pub fn redact(&self, offset: Offset, done: Redacted) {
        self.wants_durable.fetch_max(offset, Ordering::AcqRel);
        self.leave(|taken| taken.redactions.push((offset, done)));
    }

    /// Up to where a commit of the log is wanted.
    pub fn wants_durable(&self) -> Offset {
        self.wants_durable.load(Ordering::Acquire)
    }

    /// How the state is, in numbers.
    pub fn stats(&self) -> &StateStats {
        &self.stats
    }

    /// How many events the view is behind `head`, if any of them matters to it.
    pub fn lag(&self, head: Offset) -> u64 {
        match self.is_applied(head) {
            true => 0,
            false => head.saturating_sub(self.stats.applied()),
        }
    }

    /// What wakes the state's thread.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The log makes nothing durable any more: who wants to open a session that waits for it is turned away.
    pub fn log_failed(&self, why: &Refusal) {
        let _ = self.log_failure.set(why.to_string());
        self.bell.ring();
    }

    /// Why nothing more will ever be durable.
    pub(crate) fn log_failure(&self) -> Option<&str> {
        self.log_failure.get().map(String::as_str)
    }

    fn leave(&self, what: impl FnOnce(&mut Taken)) {
        let mut taken = lock(&self.taken);
        if !taken.is_closed {
            what(&mut taken);
        }
        drop(taken);
        self.bell.ring();
    }

    pub(crate) fn take(&self) -> Taken {
        let mut taken = lock(&self.taken);
        let is_closed = taken.is_closed;
        std::mem::replace(&mut *taken, Taken { is_closed, ..Taken::default() })
    }

    /// The state stops: what was not taken is dropped, and so is what comes later.
    pub(crate) fn close(&self) {
        *lock(&self.taken) = Taken { is_closed: true, ..Taken::default() };
    }

    /// From where on every marked batch is here.
    pub(crate) fn marked_from(&self) -> Offset {
        lock(&self.marked).from
    }

    /// Takes the next marked batch that ends at or before `durable`; none if there is none. An error if batches of
    /// `from` on were thrown away meanwhile.
    pub(crate) fn take_marked(
        &self,
        from: Offset,
        durable: Offset,
    ) -> Result<Option<Arc<Batch>>, Overflowed> {
        let mut marked = lock(&self.marked);
        if marked.from != from {
            return Err(Overflowed);
        }
        if marked.batches.front().is_none_or(|batch| batch.last() > durable) {
            return Ok(None);
        }
        let batch = marked.batches.pop_front();
        marked.bytes -= batch.as_ref().map_or(0, |batch| batch.bytes_len());
        marked.taken = batch.as_ref().map_or(marked.taken, |batch| batch.last());
        Ok(batch)
    }

    /// The view begins anew: what was taken is to be read from the log.
    pub(crate) fn rewind(&self) {
        let mut marked = lock(&self.marked);
        marked.from = marked.from.max(marked.taken + 1);
        marked.unapplied = Some(0);
    }

    /// Everything that matters up to `view_at` is in the file.
    pub(crate) fn applied(&self, view_at: Offset) {
        let mut marked = lock(&self.marked);
        let next = match marked.from > view_at + 1 {
            true => Some(view_at + 1),
            false => marked.batches.front().map(|batch| batch.base()),
        };
        marked.unapplied = next;
    }

    /// Whether a marked batch waits.
    pub(crate) fn has_marked(&self) -> bool {
        !lock(&self.marked).batches.is_empty()
    }
}
