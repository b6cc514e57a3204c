//! A small pool of threads that may wait for the disk, for shards that may not.

use firehose_broker::Bus;
use firehose_broker::bus::wall_us;
use firehose_broker::fetched::FetchedEvents;
use firehose_broker::handoff::Reader;
use firehose_broker::message::{LaneKey, Message};
use firehose_broker::sequencer::Sleepers;
use firehose_broker::shard::Action;
use firehose_log::{Offset, Since, Wait};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that read.
const THREADS: usize = 2;

/// A question that may take the disk's time. There is at most one for each lane, for each filter of a pending SUBSCRIBE,
/// for each scan of retained messages, and for what a session sends again, so that the queue is bounded by those.
pub enum Question {
    /// [`firehose_broker::shard::Action::Read`].
    Read {
        /// Who asks.
        lane: LaneKey,
        /// First offset wanted.
        from: Offset,
        /// Last offset wanted.
        upto: Offset,
        /// About how many bytes.
        bytes_max: usize,
    },
    /// [`firehose_broker::shard::Action::Resolve`].
    Resolve {
        /// Which subscription waits for it.
        token: u64,
        /// What the client wrote.
        since: Since,
    },
    /// An [`Action::Retained`]; the view has come so far.
    Retained(Action),
    /// [`firehose_broker::shard::Action::Fetch`].
    Fetch {
        /// Who asks.
        session: (u32, u32),
        /// The offsets.
        offsets: Vec<Offset>,
    },
}

/// The pool; clones share it. Its threads end with the last handle.
#[derive(Clone)]
pub struct Readers(Sender<(usize, Question)>);

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(bus: &Bus) -> std::io::Result<Readers> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let (bus, receiver) = (bus.clone(), receiver.clone());
            std::thread::Builder::new().name("reader".into()).spawn(move || answer_all(&bus, &receiver))?;
        }
        Ok(Readers(sender))
    }

    /// Asks for a shard; the answer comes to its mailbox.
    pub fn ask(&self, shard: usize, question: Question) {
        // The threads live as long as a sender does, so that this cannot fail.
        let _ = self.0.send((shard, question));
    }
}

fn answer_all(bus: &Bus, receiver: &Mutex<Receiver<(usize, Question)>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((shard, question)) = next else { return };
        let message = match question {
            Question::Read { lane, from, upto, bytes_max } => {
                Message::Read { lane, chunk: bus.read().read(from, upto, bytes_max, Wait::Yes) }
            }
            Question::Resolve { token, since } => {
                Message::Resolved { token, start: bus.read().resolve(&since, wall_us()) }
            }
            Question::Retained(question) => match bus.state_reader().answer(&**bus.read(), question) {
                Some(message) => message,
                None => continue,
            },
            Question::Fetch { session, offsets } => {
                Message::Fetched { session, events: FetchedEvents::read(&**bus.read(), &offsets) }
            }
        };
        if bus.sequencer().send(shard, message) == Reader::Asleep {
            let mut sleepers = Sleepers::default();
            sleepers.insert(shard);
            bus.rouse(sleepers);
        }
    }
}
