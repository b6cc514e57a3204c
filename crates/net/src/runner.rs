//! One shard with its sockets: what a turn of it does. Whoever holds the lock around it may run it: see `crew.rs`.

use crate::addresses::Place;
use crate::lingering::Lingering;
use crate::readers::{Question, Readers};
use crate::socket::{Socket, Writing};
use firehose_broker::Bus;
use firehose_broker::bus::wall_us;
use firehose_broker::handoff::Reader;
use firehose_broker::message::Message;
use firehose_broker::sequencer::Sleepers;
use firehose_broker::shard::{Action, Appetite, Now, Shard};
use firehose_log::{Offset, Since, Wait};
use mio::{Events, Registry, Token};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// What is read from a socket at once; one buffer for each shard.
const READ_BYTES: usize = 128 << 10;
/// Rounds of messages and actions in one turn: what is left waits until the sockets had their turn.
const ROUNDS_MAX: usize = 8;
/// How long lanes that are behind may read the log in one turn: replays that match little would else hold up everybody.
const READING_MAX: Duration = Duration::from_millis(2);

/// How long connections may end in one turn: what a client had subscribed to is put away then, and thousands may go at once.
const ENDING_MAX: Duration = Duration::from_millis(2);

/// So often a socket is read that takes nothing any more.
const RESTS_MAX: usize = 16;

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
    /// The client sends nothing any more: what is left is read to its end, of which there is no further edge.
    ended: bool,
    /// Its session does not want to be read for now.
    paused: bool,
    place: Place,
}

/// How much of the turn is left for reading the log.
#[derive(Clone, Copy)]
enum Reading {
    /// All of it.
    Fresh,
    /// Until then.
    Until(Instant),
    /// Nothing: it is a helper's turn.
    Left,
}

/// See the module.
pub(crate) struct Runner {
    number: usize,
    bus: Bus,
    shard: Shard,
    registry: Registry,
    readers: Readers,
    sockets: Vec<Option<Box<Connected>>>,
    readable: VecDeque<u32>,
    lingering: Lingering,
    buffer: Box<[u8]>,
    messages: Vec<Message>,
    actions: Vec<Action>,
    /// [`Action::Read`]s that wait, in order.
    reads: VecDeque<Action>,
    reading: Reading,
    /// Others that this one's deposits woke.
    sleepers: Sleepers,
}

impl Runner {
    pub(crate) fn new(bus: &Bus, number: usize, registry: Registry, readers: &Readers) -> Runner {
        Runner {
            number,
            bus: bus.clone(),
            shard: bus.shard(number),
            registry,
            readers: readers.clone(),
            sockets: Vec::new(),
            readable: VecDeque::new(),
            lingering: Lingering::default(),
            buffer: vec![0; READ_BYTES].into(),
            messages: Vec::new(),
            actions: Vec::new(),
            reads: VecDeque::new(),
            reading: Reading::Fresh,
            sleepers: Sleepers::default(),
        }
    }

    /// A turn begins; gives after how many milliseconds the next one is wanted, if nothing happens.
    pub(crate) fn begin(&mut self, now: Now) -> u64 {
        self.reading = Reading::Fresh;
        self.shard.set_now(now);
        let due_ms = self.shard.tick();
        self.shard.go_on_with_filters();
        if self.lingering.is_empty() {
            return due_ms;
        }
        let lingering = self.lingering.close_due(Instant::now()).unwrap_or(Duration::MAX);
        due_ms.min(u64::try_from(lingering.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    /// A helper's turn begins: timers and reading the log are left to the shard's next own turn.
    pub(crate) fn begin_help(&mut self, now: Now) {
        self.reading = Reading::Left;
        self.shard.set_now(now);
    }

    /// Connections that are to be flushed.
    pub(crate) fn dirty_count(&self) -> usize {
        self.shard.dirty_count()
    }

    /// Others that were woken since this was last asked.
    pub(crate) fn take_sleepers(&mut self) -> Sleepers {
        std::mem::take(&mut self.sleepers)
    }

    /// Whether nobody is connected.
    pub(crate) fn is_empty(&self) -> bool {
        self.shard.is_empty()
    }

    /// Notes which sockets are ready.
    pub(crate) fn notice(&mut self, events: &Events) {
        for event in events {
            let Ok(session) = u32::try_from(event.token().0) else { continue };
            let ended = event.is_read_closed() || event.is_error();
            if event.is_readable() || ended {
                self.list(session, ended);
            }
            if event.is_writable() {
                self.shard.writable(session);
            }
        }
    }

    fn list(&mut self, session: u32, ended: bool) {
        let Some(Some(connected)) = self.sockets.get_mut(session as usize) else { return };
        connected.ended |= ended;
        if !connected.listed {
            connected.listed = true;
            if !connected.paused {
                self.readable.push_back(session);
            }
        }
    }

    /// Reads each listed socket once. A short read has emptied it: more would be a new edge. But the end of what a client
    /// sends may have come in the same edge as its last bytes. Those behind many that ended are read in the next turn.
    pub(crate) fn read(&mut self) {
        let mut first_end: Option<Instant> = None;
        for _ in 0..self.readable.len() {
            let Some(session) = self.readable.pop_front() else { return };
            let goes_on = self.read_socket(session);
            if !goes_on && first_end.get_or_insert_with(Instant::now).elapsed() > ENDING_MAX {
                return;
            }
        }
    }

    /// Reads a socket once. False: its connection is over.
    fn read_socket(&mut self, session: u32) -> bool {
        let Some(Some(connected)) = self.sockets.get_mut(session as usize) else { return true };
        match connected.socket.read(&mut self.buffer) {
            // There is no further edge: it is looked for again when the pause is over.
            Ok(0) if connected.paused => (connected.listed, connected.ended) = (true, true),
            Ok(0) => {
                self.shard.hang_up(session, "the client closed the connection");
                return false;
            }
            Ok(n) => {
                connected.listed = n == self.buffer.len() || connected.ended;
                match self.shard.receive(session, &self.buffer[..n]) {
                    Appetite::Paused => connected.paused = true,
                    Appetite::More if connected.listed => self.readable.push_back(session),
                    Appetite::More => {}
                    Appetite::Gone => return false,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connected.listed = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.readable.push_back(session),
            Err(error) => {
                self.shard.hang_up(session, &error.to_string());
                return false;
            }
        }
        true
    }

    /// Who comes again may have left properly on the connection before: what still lies in its socket comes first, else a
    /// DISCONNECT would be overtaken, and the will published [MQTT-3.14.4-3]. Of a connection that is paused, too.
    fn read_namesakes(&mut self) {
        for index in 0..self.messages.len() {
            if let Some(Message::Arrival(arrival)) = self.messages.get(index)
                && let Some(session) = self.shard.namesake(arrival)
            {
                self.read_socket(session);
            }
        }
    }

    /// Leaves the shard's deposits at the sequencer, whose section has to be run then. False: there are none.
    pub(crate) fn leave(&mut self) -> bool {
        let Some(outgoing) = self.shard.take_outgoing() else { return false };
        let sequencer = self.bus.sequencer();
        if let Some(interest) = outgoing.interest {
            sequencer.set_interest(self.number, interest);
        }
        let any = !outgoing.deposits.is_empty();
        sequencer.leave(self.number, outgoing.deposits);
        any
    }

    /// Takes deposits to the sequencer and messages from the mailbox, and does what the shard asks, until it is quiet.
    pub(crate) fn exchange(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.leave() {
                let sleepers = self.bus.sequencer().run();
                self.sleepers.merge(sleepers);
            }
            self.bus.sequencer().mailbox(self.number).take(&mut self.messages);
            let had_messages = !self.messages.is_empty();
            if had_messages {
                let bytes = queued_bytes(&self.messages);
                self.read_namesakes();
                self.shard.drain(&mut self.messages);
                self.bus.sequencer().drained(self.number, bytes);
            }
            self.act();
            if !had_messages && !self.shard.has_outgoing() {
                return;
            }
        }
    }

    /// Several times in a turn, and mostly there is nothing to do.
    #[inline]
    fn act(&mut self) {
        if self.shard.has_actions() || self.may_read_log() {
            self.act_until_quiet();
        }
    }

    fn act_until_quiet(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.shard.has_actions() && !self.may_read_log() {
                return;
            }
            let mut actions = std::mem::take(&mut self.actions);
            actions.extend(self.shard.take_actions());
            for action in actions.drain(..) {
                self.do_one(action);
            }
            self.actions = actions;
            self.read_log();
        }
    }

    fn may_read_log(&self) -> bool {
        !self.reads.is_empty()
            && match self.reading {
                Reading::Fresh => true,
                Reading::Until(end) => Instant::now() < end,
                Reading::Left => false,
            }
    }

    /// Answers lanes that are behind, one after the other, while there is time for it in this turn.
    fn read_log(&mut self) {
        for _ in 0..self.reads.len() {
            if !self.may_read_log() {
                return;
            }
            if let Reading::Fresh = self.reading {
                self.reading = Reading::Until(Instant::now() + READING_MAX);
            }
            let Some(Action::Read { lane, from, upto, bytes_max }) = self.reads.pop_front() else { return };
            match self.bus.read().read(from, upto, bytes_max, Wait::No) {
                Ok(firehose_log::Chunk::Blocked) => {
                    self.readers.ask(self.number, Question::Read { lane, from, upto, bytes_max });
                }
                answer => self.shard.answer(lane, answer),
            }
        }
    }

    fn do_one(&mut self, action: Action) {
        match action {
            Action::Attach { session, socket } => self.attach(session, socket),
            Action::Close { session, told } => self.close(session, told),
            Action::Read { .. } => self.reads.push_back(action),
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
            Action::Retained { as_of, .. } => self.ask_retained(as_of, Question::Retained(action)),
            Action::Fetch { session, offsets } => {
                self.readers.ask(self.number, Question::Fetch { session, offsets });
            }
            Action::ToShard { shard, message } => {
                if self.bus.sequencer().send(shard, message) == Reader::Asleep {
                    self.sleepers.insert(shard);
                }
            }
            Action::State(request) => {
                self.bus.state().submit(self.number, request, self.bus.sequencer().head());
            }
            Action::Resume { session } => self.resume(session),
        }
    }

    /// Once the state's view has come up to `as_of`; mostly it has.
    fn ask_retained(&self, as_of: Offset, question: Question) {
        if self.bus.state().is_applied(as_of) {
            return self.readers.ask(self.number, question);
        }
        let (readers, number) = (self.readers.clone(), self.number);
        self.bus.state().when_applied(as_of, Box::new(move || readers.ask(number, question)));
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
        let connected = Connected { socket, listed: false, ended: false, paused: false, place };
        self.sockets[session as usize] = Some(Box::new(connected));
    }

    fn close(&mut self, session: u32, told: bool) {
        let Some(connected) = self.sockets.get_mut(session as usize).and_then(Option::take) else { return };
        let Connected { mut socket, place, .. } = *connected;
        socket.deregister(&self.registry);
        if let Some(socket) = socket.finish().filter(|_| told) {
            self.lingering.add(socket, place, Instant::now());
        }
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
    pub(crate) fn flush(&mut self) {
        for _ in 0..self.shard.dirty_count() {
            let Some(session) = self.shard.next_dirty() else { return };
            match self.sockets.get_mut(session as usize) {
                Some(Some(connected)) => {
                    let mut wire = Writing::new(&mut connected.socket);
                    self.shard.flush(session, &mut wire);
                    if let Some(error) = wire.failure() {
                        self.read_rest(session, &error);
                    }
                }
                _ => self.shard.hang_up(session, "it has no socket"),
            }
        }
    }

    /// A socket takes nothing any more: its client may have left properly before it closed it [MQTT-3.14.4-3].
    fn read_rest(&mut self, session: u32, error: &io::Error) {
        for _ in 0..RESTS_MAX {
            if !self.read_socket(session) {
                return;
            }
        }
        self.shard.hang_up(session, &error.to_string());
    }

    /// Whether everything waits for a socket, a message or the time.
    pub(crate) fn is_quiet(&self) -> bool {
        self.readable.is_empty() && self.reads.is_empty() && self.shard.is_idle()
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

#[cfg(test)]
mod tests;
