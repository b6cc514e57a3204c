//! Arrivals whose CONNECT waits for the state: their session outlives its connection, or may be stored from before.
//!
//! One of a name is asked for at a time, and others stand in line behind it: when it has begun, the next one takes it
//! over. Before the question goes to the state stands a mark in the order, so that what an earlier connection of the
//! same client published has its place, and the state knows its packet ids.
//!
//! Who calls wills back by coming, or whose session is to live on for another time than before, is let in in two steps: what the
//! state has opened leaves both in the file, and only when nothing can turn the client away any more are the wills taken
//! out, and is the expiry changed; CONNACK follows that. So whenever the bus is killed, a will or a session that was to go on is lost
//! to no client that was refused, and no will is published although its client was let in. (The session that a Clean Start ends is gone
//! with the answer of the state.)
//!
//! What they have sent is bounded, by `connecting_bytes_max` for all shards together: beyond it the largest are refused.

use crate::arrival::Arrival;
use crate::arrive::Entry;
use crate::limits::AddressKey;
use crate::shard::{Action, Shard};
use crate::state::{Life, Open, OpenRefusal, Opened, Operation, Request, SessionName, StoredWill};
use crate::will::stored_will;
use firehose_mqtt::{Reason, decode_connect};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A client whose CONNECT waits.
struct Waiting {
    /// None: it was told that the bus is not available, and what the state opens for it is closed again.
    arrival: Option<Parked>,
    name: Arc<SessionName>,
    clean: bool,
    expiry_secs: u32,
    since_secs: u32,
    /// It is let in with this once the state has written that it is: nothing turns it away any more.
    entering: Option<Box<Opened>>,
}

impl Waiting {
    /// Whether it may still be told that the bus is not available.
    fn may_be_refused(&self) -> bool {
        self.arrival.is_some() && self.entering.is_none()
    }
}

/// An arrival that waits, and what it counts for.
struct Parked {
    arrival: Arrival,
    charge: Charge,
}

/// Bytes that count for all shards until this is dropped.
struct Charge {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Charge {
    fn new(bytes: usize, all: &Arc<AtomicUsize>) -> Charge {
        all.fetch_add(bytes, Ordering::Relaxed);
        Charge { bytes, all: all.clone() }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// All that wait, by the hash of their names, each in line.
#[derive(Default)]
pub(crate) struct Arrivals {
    lines: BTreeMap<u64, VecDeque<Waiting>>,
    /// Marks in the order that stand before a question.
    marks: HashMap<u64, u64>,
}

impl Arrivals {
    /// Whether a client of this name waits.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.lines.contains_key(&hash)
    }

    /// Whether a client is about to be let in, whatever happens.
    pub(crate) fn is_any_entering(&self) -> bool {
        self.lines.values().flatten().any(|it| it.entering.is_some())
    }

    fn front(&self, hash: u64) -> Option<&Waiting> {
        self.lines.get(&hash)?.front()
    }

    fn pop(&mut self, hash: u64) -> Option<Waiting> {
        let line = self.lines.get_mut(&hash)?;
        let first = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&hash);
        }
        first
    }

    /// The hash of the name that a question was about.
    fn asked(&self, token: u64) -> u64 {
        if self.contains(token) { token } else { 0 }
    }

    /// Takes the clients out that came before a time; those whose question is under way leave their place behind.
    fn take_late(&mut self, before_secs: u32) -> Vec<Arrival> {
        let mut late = Vec::new();
        for line in self.lines.values_mut() {
            let out = line.iter_mut().filter(|it| it.since_secs < before_secs && it.may_be_refused());
            late.extend(out.filter_map(|it| it.arrival.take()).map(|parked| parked.arrival));
            close_up(line);
        }
        late
    }

    /// Takes the one out that has sent the most.
    fn take_largest(&mut self) -> Option<Arrival> {
        let bytes = |it: &Waiting| {
            it.arrival.as_ref().filter(|_| it.may_be_refused()).map(|parked| parked.charge.bytes)
        };
        let line = self.lines.values_mut().max_by_key(|line| line.iter().filter_map(bytes).max())?;
        let largest = line.iter_mut().filter(|it| it.may_be_refused()).max_by_key(|it| bytes(it))?;
        let parked = largest.arrival.take();
        close_up(line);
        parked.map(|parked| parked.arrival)
    }
}

/// Those who were taken out leave the line, but for the first, whose question is under way.
fn close_up(line: &mut VecDeque<Waiting>) {
    let mut is_first = true;
    line.retain(|it| std::mem::replace(&mut is_first, false) || it.arrival.is_some());
}

impl Shard {
    /// Has the client wait for the state.
    pub(crate) fn wait_for_state(
        &mut self,
        arrival: Arrival,
        name: SessionName,
        clean: bool,
        expiry_secs: u32,
    ) {
        let hash = name.hash;
        let since_secs = self.now.secs();
        let charge = Charge::new(arrival.input.capacity(), &self.shared.connecting_bytes);
        let arrival = Some(Parked { arrival, charge });
        let name = Arc::new(name);
        let waiting = Waiting { arrival, name, clean, expiry_secs, since_secs, entering: None };
        let line = self.arrivals.lines.entry(hash).or_default();
        line.push_back(waiting);
        if line.len() == 1 {
            self.open_next(hash);
        }
        while self.shared.connecting_bytes.load(Ordering::Relaxed) > self.shared.limits.connecting_bytes_max
            && let Some(largest) = self.arrivals.take_largest()
        {
            tracing::debug!("refused with most of what waits for the state: limits.connecting_bytes_max");
            self.enter(largest, Entry::Refused(Reason::ServerUnavailable));
        }
    }

    /// Ends the session that the next one in line takes over [MQTT-3.1.4-3], and asks for its place in the order.
    fn open_next(&mut self, hash: u64) {
        let Some(name) = self.arrivals.front(hash).map(|it| it.name.clone()) else { return };
        self.take_over(hash, &name.scope, &name.client_id);
        let token = self.next_token();
        self.arrivals.marks.insert(token, hash);
        self.outgoing.mark(token);
    }

    /// A mark came back: if it is that of an arrival, the state is asked. False: it is not.
    pub(crate) fn ask_state(&mut self, token: u64) -> bool {
        let Some(hash) = self.arrivals.marks.remove(&token) else { return false };
        let Some(front) = self.arrivals.front(hash) else { return true };
        let address = front.arrival.as_ref().and_then(|it| AddressKey::of(it.arrival.address));
        let open = Open {
            name: front.name.clone(),
            clean: front.clean,
            expiry_secs: front.expiry_secs,
            address,
            will: front.arrival.as_ref().and_then(|it| will_of(&it.arrival)),
        };
        let operations = vec![Operation::Open(Box::new(open))];
        self.actions.push(Action::State(Request { token: question(hash), operations }));
        true
    }

    /// The state has the session of the first in line, or says why not.
    pub(crate) fn opened(&mut self, token: u64, outcome: Result<Opened, OpenRefusal>) {
        let hash = self.arrivals.asked(token);
        let Some(mut first) = self.arrivals.pop(hash) else { return };
        let (name, expiry_secs) = (first.name.clone(), first.expiry_secs);
        match (first.arrival.take(), outcome) {
            (Some(parked), Ok(opened)) => match self.unwelcome(&parked.arrival) {
                Some(reason) => {
                    self.close_session(name, opened.before);
                    self.enter(parked.arrival, Entry::Refused(reason));
                }
                None if opened.has_to_enter => {
                    let operations = vec![Operation::Entered { name, expiry_secs }];
                    self.actions.push(Action::State(Request { token: question(hash), operations }));
                    let entering = Some(Box::new(opened));
                    let entering = Waiting { arrival: Some(parked), entering, ..first };
                    return self.arrivals.lines.entry(hash).or_default().push_front(entering);
                }
                None => self.enter(parked.arrival, Entry::Opened { name, expiry_secs, opened }),
            },
            (Some(parked), Err(refusal)) => {
                tracing::debug!(client = %name.client_id, ?refusal, "no session");
                let reason = match refusal {
                    OpenRefusal::TooMany { .. } => Reason::QuotaExceeded,
                    OpenRefusal::Unavailable(_) => Reason::ServerUnavailable,
                };
                if let Some(opened) = first.entering.take() {
                    self.close_session(name, opened.before);
                }
                self.enter(parked.arrival, Entry::Refused(reason));
            }
            (None, Ok(opened)) => self.close_session(name, opened.before),
            (None, Err(_)) => {}
        }
        self.go_on_with(hash);
    }

    /// The state has written that the first in line is let in.
    pub(crate) fn entered(&mut self, token: u64) {
        let hash = self.arrivals.asked(token);
        if self.arrivals.front(hash).is_none_or(|it| it.entering.is_none()) {
            return;
        }
        let Some(Waiting { arrival, name, expiry_secs, entering, .. }) = self.arrivals.pop(hash) else {
            return;
        };
        if let (Some(parked), Some(opened)) = (arrival, entering) {
            self.enter(parked.arrival, Entry::Opened { name, expiry_secs, opened: *opened });
        }
        self.go_on_with(hash);
    }

    fn go_on_with(&mut self, hash: u64) {
        if self.arrivals.contains(hash) {
            self.open_next(hash);
        }
    }

    /// What was true when the client came may not be any more, since it waited for the state.
    fn unwelcome(&self, arrival: &Arrival) -> Option<Reason> {
        // 0x8B is no reason code of CONNACK.
        let stopping = self.stopping.then_some(Reason::ServerUnavailable);
        stopping.or_else(|| self.is_gone(&arrival.identity).then_some(Reason::NotAuthorized))
    }

    /// Nobody came for the session that the state opened, or its client is turned away.
    fn close_session(&mut self, name: Arc<SessionName>, before: Option<Life>) {
        let operations = vec![Operation::Refused { name, before }];
        self.actions.push(Action::State(Request { token: 0, operations }));
    }

    /// Tells clients that have waited for too long, or all if the bus stops, that it is not available.
    pub(crate) fn sweep_arrivals(&mut self) {
        let patience = u32::try_from(self.shared.limits.connect_timeout_secs).unwrap_or(u32::MAX);
        let before_secs = if self.stopping { u32::MAX } else { self.now.secs().saturating_sub(patience) };
        for arrival in self.arrivals.take_late(before_secs) {
            self.enter(arrival, Entry::Refused(Reason::ServerUnavailable));
        }
    }
}

/// The will in its CONNECT, as it is stored.
fn will_of(arrival: &Arrival) -> Option<StoredWill> {
    // The lobby decoded it before, within the limits.
    let (connect, _) = decode_connect(&arrival.input, usize::MAX).ok()??;
    stored_will(&connect, &arrival.identity)
}

/// Names the question for a session; 0 would ask for no answer.
fn question(hash: u64) -> u64 {
    hash.max(1)
}
