//! Who runs the shards. At rest one thread does everything, as in mosquitto; under load every core works.
//!
//! Each shard has an epoll instance of its own, and a thread. While there is little to do only the first thread is up,
//! the *leader*: the other shards' epoll instances are watched by its own, and it takes their turns. When it has too much
//! to do, or one shard has many connections to flush, it calls that shard's own thread, which takes its epoll instance
//! back, and gives it up again when it has had little to do for a while.
//!
//! A shard's state is behind a lock that is held during a turn. Who puts a message into the mailbox of a sleeping shard
//! (another shard, the commit thread, the lobby) takes that lock if it is free, never waiting, and takes a *helper's* turn:
//! looks at the mailbox and flushes, if that is not much. Waking a thread costs more than all of that.

use crate::readers::Readers;
use crate::runner::Runner;
use firehose_broker::Bus;
use firehose_broker::bus::wall_us;
use firehose_broker::sequencer::Sleepers;
use firehose_broker::shard::Now;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1024;
/// A waker's token; sessions have theirs from 0 up.
const WAKER: Token = Token(usize::MAX);
/// In the leader's epoll instance, shard n's stands under this token plus n.
const NESTED: usize = usize::MAX / 2;
/// The leader looks this often at how busy it is, and calls for others beyond this share.
const CALL_AFTER: Duration = Duration::from_millis(2);
const CALL_PERCENT: u32 = 75;
/// A called thread looks this often, and rests below this share.
const REST_AFTER: Duration = Duration::from_millis(20);
const REST_PERCENT: u32 = 25;
/// The leader looks at a shard whose thread is up no later than this: it may rest by then.
const REST_MAX: Duration = Duration::from_secs(1);
/// When a thread that was about to rest is called again.
const CALL_AGAIN: Duration = Duration::from_millis(1);

/// A shard's epoll instance.
struct Poller {
    poll: Poll,
    events: Events,
}

/// One shard, its epoll instance, and its thread.
struct Post {
    runner: Mutex<Runner>,
    poller: Mutex<Poller>,
    epoll: RawFd,
    waker: Waker,
    /// Its own thread is up, or called.
    called: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Inside {
    bus: Bus,
    posts: Vec<Post>,
    /// Where the resting shards' epoll instances are watched.
    leader: Registry,
    started: Instant,
    stopping: AtomicBool,
}

/// All shards and their threads; clones share them.
#[derive(Clone)]
pub(crate) struct Crew(Arc<Inside>);

/// A turn that has begun.
struct Turn<'a> {
    number: usize,
    runner: MutexGuard<'a, Runner>,
    /// After which time the shard wants its next turn, if nothing happens.
    tick: Duration,
    /// Its epoll instance has more to say.
    more: bool,
    /// It is taken by the shard's own thread.
    own: bool,
}

/// How busy a thread was lately.
struct Load {
    since: Instant,
    busy: Duration,
}

impl Crew {
    /// Makes the shards, and their threads.
    ///
    /// # Errors
    /// When the system has no epoll instance or thread to give.
    pub(crate) fn start(bus: &Bus, readers: &Readers) -> io::Result<(Crew, Vec<JoinHandle<()>>)> {
        let mut posts = Vec::new();
        let mut leader = None;
        for number in 0..bus.shards() {
            let poll = Poll::new()?;
            leader = leader.map_or_else(|| poll.registry().try_clone().map(Some), |known| Ok(Some(known)))?;
            posts.push(Post {
                runner: Mutex::new(Runner::new(bus, number, poll.registry().try_clone()?, readers)),
                waker: Waker::new(poll.registry(), WAKER)?,
                epoll: poll.as_raw_fd(),
                poller: Mutex::new(Poller { poll, events: Events::with_capacity(EVENTS_MAX) }),
                called: AtomicBool::new(number == 0),
                thread: OnceLock::new(),
            });
        }
        let Some(leader) = leader else { return Err(io::Error::other("a bus needs a shard")) };
        let inside = Inside {
            bus: bus.clone(),
            posts,
            leader,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
        };
        let crew = Crew(Arc::new(inside));
        let of_rouse = Arc::downgrade(&crew.0);
        bus.set_rouse(Box::new(move |sleepers| {
            if let Some(inside) = of_rouse.upgrade() {
                Crew(inside).rouse(sleepers);
            }
        }));
        let mut threads = Vec::new();
        for number in 0..bus.shards() {
            if number > 0 {
                crew.watch(number)?;
            }
            let of_thread = crew.clone();
            let thread = std::thread::Builder::new().name(format!("shard {number}"));
            threads.push(thread.spawn(move || match number {
                0 => of_thread.lead(),
                _ => of_thread.follow(number),
            })?);
        }
        Ok((crew, threads))
    }

    /// Runs or wakes shards that sleep.
    pub(crate) fn rouse(&self, sleepers: Sleepers) {
        let mut left = sleepers;
        while !left.is_empty() {
            let mut next = Sleepers::default();
            for number in left.iter() {
                next.merge(self.help(number));
            }
            left = next;
        }
    }

    /// Whether nobody is connected any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.posts.iter().all(|post| lock(&post.runner).is_empty())
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        for (number, post) in self.0.posts.iter().enumerate() {
            self.call(number);
            // It fails only if the eventfd is full, and then the thread wakes anyway.
            let _ = post.waker.wake();
        }
    }

    /// The leader's thread: its own shard, and those of all threads that rest.
    fn lead(&self) {
        let post = &self.0.posts[0];
        let mut poller = lock(&post.poller);
        let mut due = vec![Instant::now(); self.0.posts.len()];
        let mut load = Load::new();
        let mut timeout = Duration::ZERO;
        while !self.is_stopping() {
            poller.wait(timeout);
            let began = Instant::now();
            let mut worked = Sleepers::default();
            for event in &poller.events {
                if let Some(number) = event.token().0.checked_sub(NESTED).filter(|it| *it < due.len()) {
                    worked.insert(number);
                }
            }
            let own = poller.events.iter().any(|event| event.token().0 < NESTED || event.token() == WAKER);
            let mut turns = Vec::with_capacity(2);
            if own || due[0] <= began {
                turns.push(self.begin(0, &poller.events));
            }
            for (number, due) in due.iter_mut().enumerate().skip(1) {
                let has_events = worked.iter().any(|it| it == number);
                if has_events || *due <= began {
                    *due = began + REST_MAX;
                    turns.extend(self.begin_resting(number));
                }
            }
            // What all of them brought lies in the slots: one section, one write.
            let sleepers = self.0.bus.sequencer().run();
            self.rouse(sleepers);
            for turn in turns {
                let number = turn.number;
                due[number] = began + self.end(turn);
            }
            let ended = Instant::now();
            if load.is_over(ended - began, ended, CALL_AFTER, CALL_PERCENT) {
                for number in worked.iter().filter(|number| *number > 0) {
                    self.call(number);
                }
            }
            timeout = due.iter().min().map_or(Duration::ZERO, |due| due.saturating_duration_since(ended));
        }
    }

    /// Another shard's thread: rests until it is called.
    fn follow(&self, number: usize) {
        let post = &self.0.posts[number];
        let _ = post.thread.set(std::thread::current());
        while !self.is_stopping() {
            if !post.called.load(Ordering::SeqCst) {
                std::thread::park();
                continue;
            }
            let mut poller = lock(&post.poller);
            // It fails only if it was not watched, which is what is wanted.
            let _ = self.0.leader.deregister(&mut SourceFd(&post.epoll));
            self.take_turns(number, &mut poller);
            drop(poller);
            // Watched first: what comes from here on is the leader's.
            if let Err(error) = self.watch(number) {
                tracing::error!(%error, "the leader cannot watch a shard; its own thread stays up");
                continue;
            }
            post.called.store(false, Ordering::SeqCst);
        }
    }

    /// A called thread, until it has little to do.
    fn take_turns(&self, number: usize, poller: &mut Poller) {
        let mut load = Load::new();
        let mut timeout = Duration::ZERO;
        while !self.is_stopping() {
            poller.wait(timeout);
            let began = Instant::now();
            timeout = self.turn(number, &poller.events).min(REST_AFTER);
            let ended = Instant::now();
            if load.is_under(ended - began, ended, REST_AFTER, REST_PERCENT) && timeout > Duration::ZERO {
                return;
            }
        }
    }

    /// The leader begins the turn of a shard whose thread rests; none: its thread is up.
    fn begin_resting(&self, number: usize) -> Option<Turn<'_>> {
        let mut poller = try_lock(&self.0.posts[number].poller)?;
        poller.wait(Duration::ZERO);
        let mut turn = self.begin(number, &poller.events);
        // There may be more events, and no new edge would tell of them.
        turn.own = false;
        turn.more = poller.events.iter().count() >= EVENTS_MAX;
        Some(turn)
    }

    /// Begins a turn of a shard, with what its epoll instance said: reads its sockets, and leaves its deposits.
    fn begin(&self, number: usize, events: &Events) -> Turn<'_> {
        let mut runner = lock(&self.0.posts[number].runner);
        self.0.bus.sequencer().mailbox(number).wake_up();
        let tick_ms = runner.begin(self.now());
        runner.notice(events);
        runner.read();
        runner.leave();
        Turn { number, runner, tick: Duration::from_millis(tick_ms), more: false, own: true }
    }

    /// Ends a turn, after the sequencer's section was run. Gives after which time the next one is wanted.
    fn end(&self, mut turn: Turn<'_>) -> Duration {
        let mailbox = self.0.bus.sequencer().mailbox(turn.number);
        let runner = &mut turn.runner;
        loop {
            self.settle(runner);
            if !turn.own && runner.dirty_count() > self.0.bus.limits().helping_flushes_max {
                // Its own thread flushes them, while this one goes on. It may be about to rest: then it is called again.
                return if self.call(turn.number) { REST_MAX } else { CALL_AGAIN };
            }
            runner.flush();
            self.settle(runner);
            if !runner.is_quiet() || mailbox.fall_asleep() {
                break;
            }
        }
        let quiet = runner.is_quiet() && !turn.more;
        drop(turn.runner);
        // Who put a message into the mailbox after it fell asleep, and could not get at the shard, has gone away.
        if quiet && !mailbox.is_left_behind() { turn.tick } else { Duration::ZERO }
    }

    /// One turn of a shard by its own thread.
    fn turn(&self, number: usize, events: &Events) -> Duration {
        let turn = self.begin(number, events);
        let sleepers = self.0.bus.sequencer().run();
        self.rouse(sleepers);
        self.end(turn)
    }

    /// Takes a helper's turn of a shard that sleeps, if nobody else runs it. Gives the shards that this woke in turn.
    fn help(&self, number: usize) -> Sleepers {
        let post = &self.0.posts[number];
        let flushes_max = self.0.bus.limits().helping_flushes_max;
        let mut sleepers = Sleepers::default();
        loop {
            let Some(mut runner) = try_lock(&post.runner) else { return sleepers };
            runner.begin_help(self.now());
            runner.exchange();
            let too_much = runner.dirty_count() > flushes_max;
            if !too_much {
                runner.flush();
                runner.exchange();
            }
            sleepers.merge(runner.take_sleepers());
            let quiet = runner.is_quiet();
            drop(runner);
            if too_much && self.call(number) {
                return sleepers;
            }
            if !quiet {
                // Whoever watches its epoll instance takes a turn. It fails only if the eventfd is full of wakes.
                let _ = post.waker.wake();
                return sleepers;
            }
            if !self.0.bus.sequencer().mailbox(number).is_left_behind() {
                return sleepers;
            }
        }
    }

    /// Deposits and messages, until there are none; others that sleep are run before the own connections are flushed,
    /// so that the threads of those with much to do work meanwhile.
    fn settle(&self, runner: &mut MutexGuard<'_, Runner>) {
        runner.exchange();
        let sleepers = runner.take_sleepers();
        if !sleepers.is_empty() {
            self.rouse(sleepers);
        }
    }

    /// Gets a shard's own thread up; false: it is up, or was called before.
    fn call(&self, number: usize) -> bool {
        let post = &self.0.posts[number];
        let rested = !post.called.swap(true, Ordering::SeqCst);
        if rested && let Some(thread) = post.thread.get() {
            thread.unpark();
        }
        rested
    }

    fn watch(&self, number: usize) -> io::Result<()> {
        let epoll = self.0.posts[number].epoll;
        self.0.leader.register(&mut SourceFd(&epoll), Token(NESTED + number), Interest::READABLE)
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { ms, wall_us: wall_us() }
    }
}

impl Poller {
    fn wait(&mut self, at_most: Duration) {
        if let Err(error) = self.poll.poll(&mut self.events, Some(at_most))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "epoll failed");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Load {
    fn new() -> Load {
        Load { since: Instant::now(), busy: Duration::ZERO }
    }

    /// Whether a window has ended, and the thread was busy for more than this share of it.
    fn is_over(&mut self, busy: Duration, now: Instant, window: Duration, percent: u32) -> bool {
        self.share(busy, now, window).is_some_and(|share| share > percent)
    }

    /// Whether a window has ended, and the thread was busy for less than this share of it.
    fn is_under(&mut self, busy: Duration, now: Instant, window: Duration, percent: u32) -> bool {
        self.share(busy, now, window).is_some_and(|share| share < percent)
    }

    /// Percent of the window that was busy, once it has ended.
    fn share(&mut self, busy: Duration, now: Instant, window: Duration) -> Option<u32> {
        self.busy += busy;
        let elapsed = now - self.since;
        if elapsed < window {
            return None;
        }
        let share = self.busy.as_micros() * 100 / elapsed.as_micros().max(1);
        *self = Load { since: now, busy: Duration::ZERO };
        u32::try_from(share).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
