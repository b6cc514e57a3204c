//! Checks passwords off the lobby and the shards: a hash takes tens of milliseconds, on purpose.

use firehose_auth::{Access, Identity, Refused};
use firehose_broker::limits::{AddressKey, Limits};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that check.
const THREADS: usize = 2;

/// A check that was asked for.
struct Job {
    number: u64,
    user: Option<String>,
    password: Option<Vec<u8>>,
    _turn: Option<Turn>,
}

/// What came out of one.
pub struct Checked {
    /// Which check.
    pub number: u64,
    /// Who it is, or why not.
    pub outcome: Result<Identity, Refused>,
}

/// How many checks of each address wait or run.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<AddressKey, usize>>>);

/// One of them, until it is over.
struct Turn {
    waiting: Waiting,
    key: AddressKey,
}

impl Waiting {
    fn begin(&self, key: AddressKey, count_max: usize) -> Option<Turn> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = waiting.get(&key).copied().unwrap_or(0);
        if of_address >= count_max {
            return None;
        }
        waiting.insert(key, of_address + 1);
        Some(Turn { waiting: self.clone(), key })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(waiting.remove(&self.key)),
        }
    }
}

/// Asks for checks.
pub struct Passwords {
    jobs: SyncSender<Job>,
    waiting: Waiting,
    per_address_max: usize,
}

impl Passwords {
    /// Starts the threads; `done` gets each outcome. At most `password_checks_max` wait at once, and
    /// `password_checks_per_address_max` of one address.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        access: &Access,
        limits: &Limits,
        done: impl Fn(Checked) + Send + Sync + 'static,
    ) -> std::io::Result<Passwords> {
        let (sender, receiver) = sync_channel(limits.password_checks_max);
        let (receiver, done) = (Arc::new(Mutex::new(receiver)), Arc::new(done));
        for _ in 0..THREADS {
            let (access, receiver, done) = (access.clone(), receiver.clone(), done.clone());
            let thread = std::thread::Builder::new().name("passwords".into());
            thread.spawn(move || check_all(&access, &receiver, &*done))?;
        }
        let per_address_max = limits.password_checks_per_address_max;
        Ok(Passwords { jobs: sender, waiting: Waiting::default(), per_address_max })
    }

    /// Asks for a check; false: too many wait already.
    pub fn check(
        &self,
        number: u64,
        address: Option<IpAddr>,
        user: Option<&str>,
        password: Option<&[u8]>,
    ) -> bool {
        let turn = match AddressKey::of(address) {
            Some(key) => match self.waiting.begin(key, self.per_address_max) {
                None => return false,
                turn => turn,
            },
            None => None,
        };
        let (user, password) = (user.map(String::from), password.map(Vec::from));
        let job = Job { number, user, password, _turn: turn };
        !matches!(self.jobs.try_send(job), Err(TrySendError::Full(_)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_auth::AuthConfig;
    use std::sync::mpsc::channel;

    #[test]
    fn one_address_has_so_many_checks_waiting_and_leaves_room_for_others() {
        let limits =
            Limits { password_checks_max: 64, password_checks_per_address_max: 3, ..Limits::default() };
        let gate = Arc::<Mutex<()>>::default();
        let (said, outcomes) = channel();
        let of_done = gate.clone();
        let shut = gate.lock().unwrap();
        let access = Access::new(AuthConfig::default()).unwrap();
        let passwords = Passwords::start(&access, &limits, move |checked| {
            drop(of_done.lock());
            said.send(checked.number).unwrap();
        })
        .unwrap();
        let ask =
            |number, address: &str| passwords.check(number, address.parse().ok(), Some("u"), Some(b"p"));
        let asked: Vec<bool> = (0..5).map(|number| ask(number, &format!("2001:db8::{number}"))).collect();
        assert_eq!(asked, [true, true, true, false, false]);
        assert!(ask(5, "203.0.113.1"));
        assert!((6..20).all(|number| ask(number, "127.0.0.1")), "loopback is not limited");
        drop(shut);
        let mut done: Vec<u64> = outcomes.iter().take(18).collect();
        done.sort_unstable();
        assert_eq!(done, [&[0, 1, 2][..], &(5..20).collect::<Vec<_>>()].concat());
        // The last of them may not be given back yet.
        while !ask(20, "2001:db8::1") {
            std::thread::yield_now();
        }
    }
}
