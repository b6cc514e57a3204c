//! Taking events back: the parts of it that the bus does one after the other, with whatever else happens between them.

use crate::bus::Bus;
use crate::engine::{Shared, lock};
use crate::rng::Rng;
use crate::taken_back::Stage;
use crate::world::World;
use firehose_broker::message::Message;
use firehose_log::{Offset, RedactError};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

/// In calm weather one that fails again and again is given up after so many times.
const TRIES_MAX: u32 = 30;

/// What is waited for.
enum Part {
    /// That the state has saved what follows from the event; whether it has.
    Saved(Shared<bool>),
    /// A turn of the commit thread.
    Log,
    /// The state; what it said.
    State(Shared<Option<Result<(), String>>>),
    /// That each shard has dropped what it had.
    Shards(Receiver<Infallible>),
}

/// Those that were begun; see the module.
#[derive(Default)]
pub struct Redactions {
    under_way: Vec<(Offset, Part)>,
    /// They failed, or were cut off, so many times.
    unfinished: BTreeMap<Offset, u32>,
}

impl Redactions {
    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.unfinished.is_empty()
    }

    /// The bus ended, and the log was cut back to `head`.
    pub fn crashed(&mut self, head: Offset) {
        for (offset, _) in self.under_way.drain(..) {
            self.unfinished.entry(offset).or_default();
        }
        self.unfinished.split_off(&(head + 1));
    }

    fn fails(&mut self, offset: Offset) -> u32 {
        let tries = self.unfinished.entry(offset).or_default();
        *tries += 1;
        *tries
    }
}

/// A step: one is begun, again or for the first time, if there is an event that suits.
pub fn redact(world: &mut World, rng: &mut Rng) {
    let unfinished: Vec<Offset> = world.redactions.unfinished.keys().copied().collect();
    let ledger = lock(&world.ledger);
    let (head, done) = (ledger.head(), ledger.taken_back.all_done());
    let retained: Vec<Offset> =
        ledger.range(1, head).filter(|(_, entry)| entry.retain).map(|(offset, _)| offset).collect();
    let damaged: Vec<Offset> = ledger.damaged.iter().map(|(from, _)| *from).collect();
    drop(ledger);
    let lately = (head.saturating_sub(4)..=head + 1).collect();
    let from: Vec<Offset> = match rng.below(10) {
        0 | 1 if !unfinished.is_empty() => unfinished,
        2 if !done.is_empty() => done,
        3 if !damaged.is_empty() => damaged,
        4..7 if !retained.is_empty() => retained,
        7 => (1..=head + 1).collect(),
        _ => lately,
    };
    world.redact(rng.pick(&from));
}

impl World {
    /// Begins to take an event back.
    fn redact(&mut self, offset: Offset) {
        let mut ledger = lock(&self.ledger);
        let entry = ledger.get(offset);
        // One without a name nobody could tell from others.
        let is_nameless = entry.is_some_and(|entry| entry.key.is_none());
        let is_under_way = self.redactions.under_way.iter().any(|(known, _)| *known == offset);
        if offset == 0 || is_nameless || is_under_way {
            return;
        }
        if let Some(key) = entry.map(|entry| entry.key) {
            ledger.taken_back.begin(offset, key);
        }
        drop(ledger);
        self.note(|| format!("event {offset} is to be taken back"));
        let Some(bus) = &self.bus else { return };
        let part = match offset <= bus.head() {
            true => bus.save_what_it_meant(offset),
            false => Part::Log,
        };
        self.redactions.under_way.push((offset, part));
    }

    /// Each redaction does its next part, if it can. False: none could.
    pub fn go_on_redacting(&mut self) -> bool {
        if self.bus.is_none() {
            return false;
        }
        let under_way = std::mem::take(&mut self.redactions.under_way);
        let mut moved = false;
        for (offset, part) in under_way {
            let Some(bus) = &mut self.bus else { break };
            let next = match part {
                Part::Saved(is_saved) if !*lock(&is_saved) => Next::Waits(Part::Saved(is_saved)),
                Part::Saved(_) => Next::Part(Part::Log),
                Part::Log => bus.redact_in_log(offset),
                Part::State(answer) => {
                    let answered = lock(&answer).take();
                    match answered {
                        None => Next::Waits(Part::State(answer)),
                        // The shards are told in any case.
                        Some(outcome) => bus.redact_in_shards(offset, outcome),
                    }
                }
                Part::Shards(seen) if seen.try_recv() == Err(TryRecvError::Empty) => {
                    Next::Waits(Part::Shards(seen))
                }
                Part::Shards(_) => Next::Done,
            };
            moved |= !matches!(next, Next::Waits(_));
            self.redacted(offset, next);
        }
        moved
    }

    fn redacted(&mut self, offset: Offset, next: Next) {
        match next {
            Next::Waits(part) => self.redactions.under_way.push((offset, part)),
            Next::Part(part) => {
                if let Part::State(_) = part {
                    lock(&self.ledger).taken_back.reach(offset, Stage::Logged);
                }
                self.note(|| format!("event {offset}: the next part of taking it back"));
                self.redactions.under_way.push((offset, part));
            }
            Next::Refused(error) => {
                self.redactions.unfinished.remove(&offset);
                let ledger = lock(&self.ledger);
                let may = matches!(error, RedactError::NeverWas { .. });
                assert!(
                    may && offset > ledger.head(),
                    "event {offset} of {} cannot be taken back: {error}",
                    ledger.head()
                );
            }
            Next::Failed(why) => {
                self.note(|| format!("event {offset} is not taken back: {why}"));
                self.redactions.fails(offset);
            }
            Next::Done => {
                self.note(|| format!("event {offset} is taken back"));
                self.redactions.unfinished.remove(&offset);
                let out = self.net.iter().enumerate().map(|(number, it)| (number, it.written)).collect();
                let mut ledger = lock(&self.ledger);
                ledger.taken_back.done(offset, out);
                ledger.check_taken_back(&self.disk);
            }
        }
    }

    /// Does again what has failed, as an operator would; false: there was nothing.
    pub fn repeat_redactions(&mut self) -> bool {
        let unfinished: Vec<Offset> = self.redactions.unfinished.keys().copied().collect();
        for offset in &unfinished {
            if self.redactions.fails(*offset) > TRIES_MAX {
                assert!(self.is_flipped, "event {offset} cannot be taken back");
                self.redactions.unfinished.remove(offset);
                continue;
            }
            self.redact(*offset);
        }
        !unfinished.is_empty()
    }
}

/// What came of a part.
enum Next {
    Waits(Part),
    Part(Part),
    Refused(RedactError),
    Failed(String),
    Done,
}

impl Bus {
    fn save_what_it_meant(&self, offset: Offset) -> Part {
        let is_saved = Shared::default();
        let says = is_saved.clone();
        self.state.state.queue().when_applied(offset, Box::new(move || *lock(&says) = true));
        Part::Saved(is_saved)
    }

    fn redact_in_log(&mut self, offset: Offset) -> Next {
        match self.redact(offset) {
            Ok(_) | Err(RedactError::Already { .. } | RedactError::Gone { .. }) => {
                let answer = Shared::default();
                let says = answer.clone();
                let done = Box::new(move |outcome| *lock(&says) = Some(outcome));
                self.state.state.queue().redact(offset, done);
                Next::Part(Part::State(answer))
            }
            Err(RedactError::Failed(why)) => Next::Failed(why),
            Err(error) => Next::Refused(error),
        }
    }

    fn redact_in_shards(&mut self, offset: Offset, outcome: Result<(), String>) -> Next {
        let (seen, seen_by_all) = channel();
        for shard in 0..self.hosts.len() {
            self.sequencer.send(shard, Message::Redacted { offset, seen: Some(seen.clone()) });
        }
        match outcome {
            Ok(()) => Next::Part(Part::Shards(seen_by_all)),
            Err(why) => Next::Failed(why),
        }
    }
}
