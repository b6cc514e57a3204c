//! Checks passwords off the lobby and the shards: a hash takes tens of milliseconds, on purpose.

use firehose_auth::{Access, Identity, Refused};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that check.
const THREADS: usize = 2;

/// A check that was asked for.
struct Job {
    number: u64,
    user: Option<String>,
    password: Option<Vec<u8>>,
}

/// What came out of one.
pub struct Checked {
    /// Which check.
    pub number: u64,
    /// Who it is, or why not.
    pub outcome: Result<Identity, Refused>,
}

/// Asks for checks.
pub struct Passwords(SyncSender<Job>);

impl Passwords {
    /// Starts the threads; `done` gets each outcome. At most `queued_max` wait at once.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        access: &Access,
        queued_max: usize,
        done: impl Fn(Checked) + Send + Sync + 'static,
    ) -> std::io::Result<Passwords> {
        let (sender, receiver) = sync_channel(queued_max);
        let (receiver, done) = (Arc::new(Mutex::new(receiver)), Arc::new(done));
        for _ in 0..THREADS {
            let (access, receiver, done) = (access.clone(), receiver.clone(), done.clone());
            let thread = std::thread::Builder::new().name("passwords".into());
            thread.spawn(move || check_all(&access, &receiver, &*done))?;
        }
        Ok(Passwords(sender))
    }

    /// Asks for a check; false: too many wait already.
    pub fn check(&self, number: u64, user: Option<&str>, password: Option<&[u8]>) -> bool {
        let job = Job { number, user: user.map(String::from), password: password.map(Vec::from) };
        !matches!(self.0.try_send(job), Err(TrySendError::Full(_)))
    }
}

fn check_all(access: &Access, receiver: &Mutex<Receiver<Job>>, done: &(dyn Fn(Checked) + Send + Sync)) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let outcome = access.current().authenticate(job.user.as_deref(), job.password.as_deref());
        done(Checked { number: job.number, outcome });
    }
}
