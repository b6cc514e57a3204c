//! A disk that is slow at every write, and publishers that never pause: nobody but the section's thread is kept by it, and
//! the commit thread commits beside it, however long that takes.

use firehose_auth::{Access, AnonymousMode, AuthConfig};
use firehose_broker::sequencer::Deposit;
use firehose_broker::state::State;
use firehose_broker::{Bus, BusConfig, Durability, Role};
use firehose_log::{
    Append, Attributes, Batch, Commit, CommitError, Draft, Event, Flags, Keep, Log, LogConfig, MemDisk,
    Offset, Origin, Refusal, Submission, Upkeep,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

/// More than what counts as slow.
const SLOW: Duration = Duration::from_millis(3);
/// A test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The publisher that never pauses: each write finds its next deposit in slot 1 when it is over.
#[derive(Default)]
struct Publisher {
    bus: OnceLock<Bus>,
    stopped: AtomicBool,
    /// Which threads wrote, in order.
    wrote: Mutex<Vec<ThreadId>>,
}

struct SlowAppend {
    append: Box<dyn Append>,
    publisher: Arc<Publisher>,
}

impl Append for SlowAppend {
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    ) {
        self.publisher.wrote.lock().unwrap().push(std::thread::current().id());
        std::thread::sleep(SLOW);
        if !self.publisher.stopped.load(Ordering::SeqCst)
            && let Some(bus) = self.publisher.bus.get()
        {
            bus.sequencer().leave(1, [deposit()]);
        }
        self.append.append(now_us, submissions, placed);
    }

    fn head(&self) -> Offset {
        self.append.head()
    }

    fn durable(&self) -> Offset {
        self.append.durable()
    }

    fn wants_upkeep(&self) -> bool {
        self.append.wants_upkeep()
    }
}

/// Says each commit.
struct Said {
    commit: Box<dyn Commit>,
    says: Sender<Offset>,
    /// Held by a test: an `fdatasync` that takes as long as it likes.
    gate: Arc<Mutex<()>>,
}

impl Commit for Said {
    fn commit(&mut self) -> Result<Offset, CommitError> {
        drop(self.gate.lock());
        let durable = self.commit.commit()?;
        // Nobody listens any more once the test is over.
        let _ = self.says.send(durable);
        Ok(durable)
    }

    fn upkeep(&mut self, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep> {
        self.commit.upkeep(now_us, keep)
    }
}

fn deposit() -> Deposit {
    let event =
        Event { flags: Flags::default(), topic: "a/b", attributes: Attributes::EMPTY, payload: b"payload" };
    let mut draft = Draft::new();
    draft.push(&event, &Origin::default()).unwrap();
    Deposit::Batch { ticket: 0, draft, wants_sync: true }
}

fn start(role: Role) -> (Bus, Arc<Publisher>, Receiver<Offset>) {
    start_behind(role, &Arc::default())
}

fn start_behind(role: Role, gate: &Arc<Mutex<()>>) -> (Bus, Arc<Publisher>, Receiver<Offset>) {
    let log = firehose_log::open(LogConfig::new("/log"), Arc::new(MemDisk::default()), 0).unwrap();
    let publisher = Arc::<Publisher>::default();
    let (says, commits) = channel();
    let log = Log {
        append: Box::new(SlowAppend { append: log.append, publisher: publisher.clone() }),
        commit: Box::new(Said { commit: log.commit, says, gate: gate.clone() }),
        ..log
    };
    let access =
        Access::new(AuthConfig { password_file: None, acl_file: None, anonymous: AnonymousMode::Full })
            .unwrap();
    let config = BusConfig { shards: 2, durability: Durability::Sync, role, ..BusConfig::default() };
    let state = State::in_memory(log.read.clone(), &config.limits);
    let bus = Bus::start(config, log, state, access);
    publisher.bus.set(bus.clone()).ok().unwrap();
    (bus, publisher, commits)
}

fn stop(bus: &Bus, publisher: &Publisher) {
    publisher.stopped.store(true, Ordering::SeqCst);
    bus.stop();
}

#[test]
fn a_depositor_is_kept_by_one_slow_write_and_the_sections_thread_does_the_others() {
    let (bus, publisher, commits) = start(Role::Depositor);
    let _ = bus.sequencer().deposit(0, [deposit()]);
    while commits.recv_timeout(PATIENCE).unwrap() < 3 {}
    let wrote = publisher.wrote.lock().unwrap().clone();
    let by_us = wrote.iter().filter(|thread| **thread == std::thread::current().id()).count();
    assert_eq!((by_us, wrote.len() >= 3), (1, true));
    stop(&bus, &publisher);
}

#[test]
fn commits_go_on_while_deposits_come_faster_than_the_disk_writes_them() {
    let (bus, publisher, commits) = start(Role::Thread);
    let _ = bus.sequencer().deposit(0, [deposit()]);
    let first = commits.recv_timeout(PATIENCE).unwrap();
    let second = commits.recv_timeout(PATIENCE).unwrap();
    assert!(first < second);
    stop(&bus, &publisher);
}

#[test]
fn events_take_their_places_while_an_fdatasync_takes_as_long_as_it_likes() {
    let gate = Arc::<Mutex<()>>::default();
    let (bus, publisher, commits) = start_behind(Role::Depositor, &gate);
    let _ = bus.sequencer().deposit(0, [deposit()]);
    commits.recv_timeout(PATIENCE).unwrap();
    let shut = gate.lock().unwrap();
    let head = bus.sequencer().head();
    while bus.sequencer().head() < head + 10 {
        std::thread::sleep(SLOW);
    }
    assert!(bus.sequencer().durable() <= head, "at most the commit that was under way has ended");
    drop(shut);
    stop(&bus, &publisher);
    assert_eq!(bus.sequencer().durable(), bus.sequencer().head(), "and in the end all is durable");
}
