//! Runs shards: one readiness loop and one thread each, and helpers that run a sleeping one.
//!
//! A shard's state is behind a lock that its own thread holds during a turn. Who puts a message into the mailbox of a
//! sleeping shard takes that lock if it is free, never waiting, looks at the mailbox in its place, and flushes, if that
//! is not much; else it wakes the shard's thread. So at rest one thread does everything, and under load every core works.

use crate::addresses::Place;
use crate::readers::{Question, Readers};
use crate::socket::Socket;
use firehose_broker::Bus;
use firehose_broker::bus::wall_us;
use firehose_broker::message::Message;
use firehose_broker::sequencer::Sleepers;
use firehose_broker::shard::{Action, Appetite, Now, Shard};
use firehose_log::{Since, Wait};
use mio::{Events, Poll, Registry, Token, Waker};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1024;
/// What is read from a socket at once; one buffer for each shard.
const READ_BYTES: usize = 128 << 10;
/// Rounds of messages and actions in one turn: what is left waits until the sockets had their turn.
const ROUNDS_MAX: usize = 8;
/// The waker's token; sessions have theirs from 0 up.
const WAKER: Token = Token(usize::MAX);

/// What an arrival carries for `net`.
pub struct Newcomer {
    /// The socket.
    pub socket: Socket,
    /// Its place among the connections.
    pub place: Place,
}

struct Connected {
    socket: Socket,
    /// It stands in the list of sockets to read.
    listed: bool,
    /// Its session does not want to be read for now.
    paused: bool,
    _place: Place,
}

struct State {
    number: usize,
    bus: Bus,
    shard: Shard,
    registry: Registry,
    readers: Readers,
    sockets: Vec<Option<Box<Connected>>>,
    readable: VecDeque<u32>,
    buffer: Box<[u8]>,
    messages: Vec<Message>,
    actions: Vec<Action>,
    sleepers: Sleepers,
}

/// One shard and what runs it.
struct Runner {
    state: Mutex<State>,
    waker: Waker,
}

/// All shards; clones share them.
#[derive(Clone)]
pub struct Runners(Arc<Inside>);

struct Inside {
    bus: Bus,
    runners: Vec<Runner>,
    started: Instant,
    stopping: AtomicBool,
}

impl Runners {
    /// Makes the shards, and their threads.
    ///
    /// # Errors
    /// When the system has no epoll instance or thread to give.
    pub fn start(bus: &Bus, readers: &Readers) -> io::Result<(Runners, Vec<std::thread::JoinHandle<()>>)> {
        let mut polls = Vec::new();
        let mut runners = Vec::new();
        for number in 0..bus.shards() {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            let state = State {
                number,
                bus: bus.clone(),
                shard: bus.shard(number),
                registry: poll.registry().try_clone()?,
                readers: readers.clone(),
                sockets: Vec::new(),
                readable: VecDeque::new(),
                buffer: vec![0; READ_BYTES].into(),
                messages: Vec::new(),
                actions: Vec::new(),
                sleepers: Sleepers::default(),
            };
            runners.push(Runner { state: Mutex::new(state), waker });
            polls.push(poll);
        }
        let inside =
            Inside { bus: bus.clone(), runners, started: Instant::now(), stopping: AtomicBool::new(false) };
        let runners = Runners(Arc::new(inside));
        let of_rouse = Arc::downgrade(&runners.0);
        bus.set_rouse(Box::new(move |sleepers| {
            if let Some(inside) = of_rouse.upgrade() {
                Runners(inside).rouse(sleepers);
            }
        }));
        let mut threads = Vec::new();
        for (number, poll) in polls.into_iter().enumerate() {
            let runners = runners.clone();
            let thread = std::thread::Builder::new().name(format!("shard {number}"));
            threads.push(thread.spawn(move || runners.run(number, poll))?);
        }
        Ok((runners, threads))
    }

    /// Runs or wakes shards that sleep.
    pub fn rouse(&self, sleepers: Sleepers) {
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
    pub fn are_empty(&self) -> bool {
        self.0.runners.iter().all(|runner| lock(&runner.state).shard.is_empty())
    }

    /// Ends the threads.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        for runner in &self.0.runners {
            let _ = runner.waker.wake();
        }
    }

    /// One shard's own thread.
    fn run(&self, number: usize, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let runner = &self.0.runners[number];
        let mailbox = self.0.bus.sequencer().mailbox(number);
        let mut timeout = Some(Duration::ZERO);
        while !self.0.stopping.load(Ordering::Acquire) {
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, shard = number, "epoll failed");
                std::thread::sleep(Duration::from_millis(100));
            }
            let mut state = lock(&runner.state);
            mailbox.wake_up();
            let now = self.now();
            state.shard.set_now(now);
            state.notice(&events);
            let tick_ms = state.shard.tick();
            loop {
                state.read();
                self.settle(&mut state);
                state.flush();
                self.settle(&mut state);
                if !state.is_quiet() || mailbox.fall_asleep() {
                    break;
                }
            }
            timeout = Some(if state.is_quiet() { Duration::from_millis(tick_ms) } else { Duration::ZERO });
        }
    }

    /// Takes the turn of a shard that sleeps, if nobody else does. Gives the shards that this woke in turn.
    fn help(&self, number: usize) -> Sleepers {
        let runner = &self.0.runners[number];
        let flushes_max = self.0.bus.limits().helping_flushes_max;
        let mut sleepers = Sleepers::default();
        loop {
            let Some(mut state) = try_lock(&runner.state) else { return sleepers };
            state.shard.set_now(self.now());
            state.exchange();
            if state.shard.dirty_count() <= flushes_max {
                state.flush();
                state.exchange();
            }
            sleepers.merge(std::mem::take(&mut state.sleepers));
            let quiet = state.is_quiet();
            drop(state);
            if !quiet {
                let _ = runner.waker.wake();
                return sleepers;
            }
            if !self.0.bus.sequencer().mailbox(number).is_left_behind() {
                return sleepers;
            }
        }
    }

    /// Deposits and messages, until there are none; others that sleep are run before the own connections are flushed,
    /// so that the threads of those with much to do work meanwhile.
    fn settle(&self, state: &mut MutexGuard<'_, State>) {
        state.exchange();
        let sleepers = std::mem::take(&mut state.sleepers);
        if !sleepers.is_empty() {
            self.rouse(sleepers);
        }
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { ms, wall_us: wall_us() }
    }
}

impl State {
    /// Notes which sockets are ready.
    fn notice(&mut self, events: &Events) {
        for event in events {
            let Ok(session) = u32::try_from(event.token().0) else { continue };
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.list(session);
            }
            if event.is_writable() {
                self.shard.writable(session);
            }
        }
    }

    fn list(&mut self, session: u32) {
        if let Some(Some(connected)) = self.sockets.get_mut(session as usize)
            && !connected.listed
        {
            connected.listed = true;
            if !connected.paused {
                self.readable.push_back(session);
            }
        }
    }

    /// Reads each listed socket once. A short read has emptied it: more would be a new edge.
    fn read(&mut self) {
        for _ in 0..self.readable.len() {
            let Some(session) = self.readable.pop_front() else { return };
            let Some(Some(connected)) = self.sockets.get_mut(session as usize) else { continue };
            match connected.socket.read(&mut self.buffer) {
                Ok(0) => self.shard.hang_up(session, "the client closed the connection"),
                Ok(n) => {
                    connected.listed = n == self.buffer.len();
                    match self.shard.receive(session, &self.buffer[..n]) {
                        Appetite::Paused => connected.paused = true,
                        Appetite::More if connected.listed => self.readable.push_back(session),
                        Appetite::More | Appetite::Gone => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => connected.listed = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.readable.push_back(session),
                Err(error) => self.shard.hang_up(session, &error.to_string()),
            }
        }
    }

    /// Takes deposits to the sequencer and messages from the mailbox, and does what the shard asks, until it is quiet.
    fn exchange(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if let Some(outgoing) = self.shard.take_outgoing() {
                let sequencer = self.bus.sequencer();
                if let Some(interest) = outgoing.interest {
                    sequencer.set_interest(self.number, interest);
                }
                if !outgoing.deposits.is_empty() {
                    self.sleepers.merge(sequencer.deposit(self.number, outgoing.deposits));
                }
            }
            self.bus.sequencer().mailbox(self.number).take(&mut self.messages);
            let had_messages = !self.messages.is_empty();
            if had_messages {
                let bytes = queued_bytes(&self.messages);
                self.shard.drain(&mut self.messages);
                self.bus.sequencer().drained(self.number, bytes);
            }
            self.act();
            if !had_messages && !self.shard.has_outgoing() {
                return;
            }
        }
    }

    fn act(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.shard.has_actions() {
                return;
            }
            let mut actions = std::mem::take(&mut self.actions);
            actions.extend(self.shard.take_actions());
            for action in actions.drain(..) {
                self.do_one(action);
            }
            self.actions = actions;
        }
    }

    fn do_one(&mut self, action: Action) {
        match action {
            Action::Attach { session, socket } => self.attach(session, socket),
            Action::Close { session } => {
                if let Some(mut connected) = self.sockets.get_mut(session as usize).and_then(Option::take) {
                    connected.socket.deregister(&self.registry);
                    connected.socket.finish();
                }
            }
            Action::Read { lane, from, upto, bytes_max } => {
                match self.bus.read().read(from, upto, bytes_max, Wait::No) {
                    Ok(firehose_log::Chunk::Blocked) => {
                        self.readers.ask(self.number, Question::Read { lane, from, upto, bytes_max });
                    }
                    answer => self.shard.answer(lane, answer),
                }
            }
            Action::Resolve { token, since: Since::Earliest } => {
                let start = self.bus.read().resolve(&Since::Earliest, wall_us());
                self.messages.push(Message::Resolved { token, start });
                let mut messages = std::mem::take(&mut self.messages);
                self.shard.drain(&mut messages);
                self.messages = messages;
            }
            Action::Resolve { token, since } => {
                self.readers.ask(self.number, Question::Resolve { token, since })
            }
            Action::Resume { session } => self.resume(session),
        }
    }

    fn attach(&mut self, session: u32, socket: Option<Box<dyn std::any::Any + Send>>) {
        let newcomer = socket.and_then(|socket| socket.downcast::<Newcomer>().ok());
        let Some(newcomer) = newcomer else { return self.shard.hang_up(session, "it came without a socket") };
        let Newcomer { mut socket, place } = *newcomer;
        if let Err(error) = socket.register(&self.registry, Token(session as usize)) {
            return self.shard.hang_up(session, &error.to_string());
        }
        if self.sockets.len() <= session as usize {
            self.sockets.resize_with(session as usize + 1, || None);
        }
        let connected = Connected { socket, listed: false, paused: false, _place: place };
        self.sockets[session as usize] = Some(Box::new(connected));
    }

    fn resume(&mut self, session: u32) {
        let appetite = self.shard.resume(session);
        let Some(Some(connected)) = self.sockets.get_mut(session as usize) else { return };
        connected.paused = appetite == Appetite::Paused;
        if connected.listed && appetite == Appetite::More {
            self.readable.push_back(session);
        }
    }

    /// Flushes each connection that has something to write, once.
    fn flush(&mut self) {
        for _ in 0..self.shard.dirty_count() {
            let Some(session) = self.shard.next_dirty() else { return };
            match self.sockets.get_mut(session as usize) {
                Some(Some(connected)) => self.shard.flush(session, &mut connected.socket),
                _ => self.shard.hang_up(session, "it has no socket"),
            }
        }
    }

    /// Whether everything waits for a socket, a message or the time.
    fn is_quiet(&self) -> bool {
        self.readable.is_empty() && self.shard.is_idle()
    }
}

fn queued_bytes(messages: &[Message]) -> usize {
    messages
        .iter()
        .map(|message| match message {
            Message::Batch { batch, .. } => batch.bytes_len(),
            _ => 0,
        })
        .sum()
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
