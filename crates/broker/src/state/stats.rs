//! How the state is, in numbers. Its thread alone writes them; `$SYS`, the doctor and tests read.

use crate::stats::Count;
use crate::sync::{Mutex, lock};
use firehose_log::Offset;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct StateStats {
    /// Transactions that were written.
    pub commits: Count,
    /// Microseconds that they took together.
    pub commit_us: Count,
    /// Times that it began anew, since its file was damaged or missing.
    pub rebuilds: Count,
    sessions: AtomicU64,
    wills: AtomicU64,
    applied: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl StateStats {
    /// Sessions that are stored.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Wills that are stored.
    pub fn wills(&self) -> u64 {
        self.wills.load(Ordering::Relaxed)
    }

    /// Up to which offset the view holds.
    pub fn applied(&self) -> Offset {
        self.applied.load(Ordering::Relaxed)
    }

    /// Why the file cannot be written now; none: it can.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    pub(super) fn set(&self, sessions: usize, wills: usize, applied: Offset, failure: Option<&str>) {
        self.sessions.store(sessions as u64, Ordering::Relaxed);
        self.wills.store(wills as u64, Ordering::Relaxed);
        self.applied.store(applied, Ordering::Relaxed);
        let mut before = lock(&self.failure);
        if before.as_deref() != failure {
            *before = failure.map(str::to_owned);
        }
    }
}
