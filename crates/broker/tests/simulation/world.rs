//! A seed's world: one bus after the other on one disk, clients, the network between them, and the ledger that knows
//! what has to be.

use crate::bus::{Bus, set_wall_us};
use crate::client::{Client, Link, SESSION_US};
use crate::engine::{Mood, Shared, lock};
use crate::ledger::{Key, Ledger, Published};
use crate::packets::{self, Outgoing};
use crate::plan::{LOGGED, Plan, RETAINED};
use crate::redaction::Redactions;
use crate::rng::Rng;
use crate::wire::Connection;
use crate::witness::Witness;
use firehose_auth::Identity;
use firehose_broker::Durability;
use firehose_broker::arrival::{Arrival, Scope, home_shard};
use firehose_broker::message::Message;
use firehose_broker::sequencer::Deposit;
use firehose_broker::shard::Now;
use firehose_log::{Attributes, Draft, Event, Flags, MemDisk, Offset, Origin, Refusal, WayIn};
use firehose_mqtt::{Reason, Version};
use std::sync::{Arc, Mutex};

/// A time in 2026, µs.
const START_US: i64 = 1_795_406_400_000_000;
/// The publisher that is no client: the bus's port.
pub const PORT: u32 = 98;
/// Another node's publisher.
pub const FOREIGN: u32 = 99;

type PortAnswers = Shared<Vec<(Key, Result<Offset, Refusal>)>>;

/// How the bus ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: everything that was written is there.
    Kill,
    /// The machine loses power: what was not synced is lost, or not, page by page.
    PowerCut,
}

/// See the module.
pub struct World {
    pub plan: Plan,
    pub disk: MemDisk,
    /// None: it could not be started.
    pub bus: Option<Bus>,
    pub net: Vec<Connection>,
    pub clients: Vec<Client>,
    pub ledger: Shared<Ledger>,
    pub mood: Shared<Mood>,
    pub now: Now,
    /// What happened, if anyone wants to know.
    pub trace: Option<Vec<String>>,
    /// Bits have turned on the disk.
    pub is_flipped: bool,
    /// The next file cannot be cut.
    pub cannot_truncate: bool,
    /// The disk, as the state sees it.
    pub witness: Witness,
    /// The disk cannot be opened any more, which only bits that turned may do.
    pub is_over: bool,
    /// Events that are being taken back.
    pub redactions: Redactions,
    /// A start failed when the log ended here: a sync that failed in it may have lost what nobody was promised.
    pub(crate) doubtful: Offset,
    port_answers: PortAnswers,
    numbers: u32,
    /// What stands in the side file, at the last look.
    pub(crate) kept: Vec<Offset>,
}

impl World {
    pub fn new(plan: Plan, has_trace: bool) -> World {
        let clients = plan.clients.iter().cloned().enumerate();
        let disk = MemDisk::new();
        let mut world = World {
            witness: Witness::new(disk.clone()),
            disk,
            bus: None,
            net: Vec::new(),
            clients: clients.map(|(number, plan)| Client::new(number, plan)).collect(),
            ledger: Arc::new(Mutex::new(Ledger::new())),
            mood: Shared::default(),
            now: Now { ms: 1_000_000, wall_us: START_US },
            trace: has_trace.then(Vec::new),
            is_flipped: false,
            cannot_truncate: false,
            is_over: false,
            redactions: Redactions::default(),
            doubtful: 0,
            port_answers: PortAnswers::default(),
            numbers: 0,
            kept: Vec::new(),
            plan,
        };
        set_wall_us(START_US);
        let limits = &world.plan.limits;
        // Beyond these, what a member's socket does not take goes to another one, behind what is newer; and so does all
        // that is queued together with an event that is taken back.
        let is_ordered =
            !world.plan.redacts && limits.outbox_bytes_max >= 256 << 10 && limits.parked_bytes_max >= 2 << 20;
        lock(&world.ledger).groups.is_ordered = is_ordered;
        world.start();
        world
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    /// What happened, also to the client that saw a fault.
    pub fn into_trace(self) -> Vec<String> {
        let told = self.clients.into_iter().find_map(|client| client.told);
        told.or(self.trace).unwrap_or_default()
    }

    pub fn head(&self) -> Offset {
        lock(&self.ledger).head()
    }

    /// The bus ends without a word.
    pub fn crash(&mut self, crash: Crash, rng: &mut Rng) {
        self.note(|| format!("{crash:?}"));
        let head = self.head();
        for number in 0..self.clients.len() {
            self.clients[number].wills.crashing(self.now.ms);
            if let Some(connection) = self.clients[number].connection() {
                // Some of what was on its way arrives.
                let bytes = rng.below(self.net[connection].to_client.len() + 1);
                self.read(number, bytes, rng.percent(50));
                self.clients[number].disconnected(&mut lock(&self.ledger), false, self.now);
            }
            self.clients[number].wills.crashed(self.now.ms);
        }
        lock(&self.ledger).groups.crashed();
        lock(&self.ledger).taken_back.crashed();
        self.forget_promises(crash);
        self.net.clear();
        self.bus = None;
        self.witness.crashed(crash);
        *lock(&self.mood) = Mood::default();
        lock(&self.port_answers).clear();
        if crash == Crash::PowerCut {
            match rng.percent(30) {
                true => self.disk.lose_power(),
                false => self.disk.lose_power_partly(rng.number()),
            }
        }
        let before = head;
        self.start();
        if self.bus.is_none() {
            return;
        }
        let head = self.head();
        assert!(
            crash == Crash::PowerCut || self.is_flipped || head == before,
            "{head} of {before} after a kill"
        );
    }

    /// A power cut is about to lose what `os` has acknowledged: nothing is promised for it.
    fn forget_promises(&mut self, crash: Crash) {
        if crash == Crash::PowerCut && self.plan.durability == Durability::Os {
            lock(&self.ledger).published.values_mut().for_each(|it| it.acknowledged = false);
        }
    }

    /// A client connects, whatever it had before.
    pub fn connect(&mut self, number: usize, rng: &mut Rng) {
        let Some(bus) = &self.bus else { return };
        let client = &mut self.clients[number];
        if let Some(old) = client.connection() {
            // It has lost its connection, and the bus does not know.
            self.net[old].left = true;
            client.disconnected(&mut lock(&self.ledger), false, self.now);
        }
        let clean = !client.plan.persists || rng.percent(5);
        let has_will = rng.percent(30) && client.plan.user.is_some();
        let key = Key { kind: 'w', publisher: number as u32, number: client.publisher.number(), attempt: 0 };
        let delay_secs = rng.pick(&[0, 0, 2, 100]);
        let is_v5 = client.plan.version == Version::V5;
        let delay_secs = if is_v5 { delay_secs } else { 0 };
        let faults = &self.plan.faults;
        let is_saved = !(faults.errors || faults.full || faults.flips || faults.clock_jumps);
        let expiry_secs = if client.plan.persists { (SESSION_US / 1_000_000) as u32 } else { 0 };
        // A will is not later than the end of its session.
        let new = has_will.then_some((key, delay_secs.min(expiry_secs)));
        client.wills.connect(new, is_saved, self.now.ms, &lock(&self.ledger));
        client.starts_clean = clean;
        if clean {
            lock(&self.ledger).groups.unsure(number, self.now.ms);
        }
        client.session_until_us = client.session_until_us.filter(|_| !clean);
        let (payload, retain) = (key.text(), rng.percent(30));
        let will = packets::WillWish {
            topic: if retain { rng.pick(RETAINED) } else { rng.pick(LOGGED) },
            payload: payload.as_bytes(),
            qos: rng.below(3) as u8,
            retain,
            delay_secs,
        };
        let plan = &client.plan;
        let wish = packets::ConnectWish {
            version: plan.version,
            client_id: &plan.name,
            clean,
            expiry_secs,
            receive_max: plan.receive_max,
            cursors: plan.has_cursors,
            will: has_will.then_some(will),
        };
        let input = packets::connect(&wish);
        let identity = plan.user.map_or(Identity::anonymous(), Identity::user);
        let scope = Scope::of(&identity, plan.address, false);
        let host = home_shard(scope.hash_with(bus.state.state.secret(), &plan.name), self.plan.shards);
        let connection = self.net.len();
        self.net.push(Connection::new(host, plan.socket_bytes.unwrap_or(usize::MAX)));
        client.link = Link::Connecting(connection);
        let (client_id, address) = (plan.name.as_str().into(), plan.address);
        let socket: Option<Box<dyn std::any::Any + Send>> = Some(Box::new(connection));
        let arrival = Arrival { input, identity, client_id, assigned: false, address, socket };
        bus.sequencer.send(host, Message::Arrival(Box::new(arrival)));
        self.note(|| {
            format!("client {number} connects, clean: {clean}, will: {has_will} {key:?} {delay_secs} s")
        });
    }

    /// A client publishes.
    pub fn publish(&mut self, number: usize, message: Outgoing, text: Option<&str>) {
        let bytes = self.clients[number].publisher.publish(message.clone(), text, &mut lock(&self.ledger));
        self.note(|| format!("client {number} publishes {message:?}, {} bytes", bytes.len()));
        self.send(number, &bytes);
    }

    /// Bytes of a client set out.
    pub fn send(&mut self, number: usize, bytes: &[u8]) {
        if let Some(connection) = self.clients[number].connection() {
            self.net[connection].to_bus.extend_from_slice(bytes);
        }
    }

    /// A client reads so much of what came. False: nothing did.
    pub fn read(&mut self, number: usize, bytes_max: usize, promptly: bool) -> bool {
        let Some(connection) = self.clients[number].connection() else { return false };
        let it = &mut self.net[connection];
        let bytes: Vec<u8> = it.to_client.drain(..bytes_max.min(it.to_client.len())).collect();
        let over = it.closed_by_bus && it.to_client.is_empty();
        let client = &mut self.clients[number];
        if let Some(trace) = &mut self.trace {
            client.told = Some(std::mem::take(trace));
        }
        let until_us = client.session_until_us;
        client.now_ms = self.now.ms;
        let answers = client.receive(&bytes, promptly, &mut lock(&self.ledger));
        self.trace = client.told.take();
        self.check_session(number, until_us);
        self.send(number, &answers);
        if over {
            self.note(|| format!("client {number} is cut off"));
            self.net[connection].left = true;
            self.clients[number].disconnected(&mut lock(&self.ledger), false, self.now);
        }
        !bytes.is_empty() || over
    }

    /// Whether a client got the session that it had left, or was refused for a reason.
    fn check_session(&mut self, number: usize, until_us: Option<i64>) {
        let faults = self.plan.faults;
        let has_errors = faults.errors || faults.full || self.is_flipped;
        let client = &mut self.clients[number];
        for reason in client.refusals.drain(..) {
            // The state may take long, or cannot be written.
            let may = reason == Reason::ServerUnavailable;
            assert!(may || has_errors, "client {number} is refused: {reason:?}");
        }
        let is_there = until_us.is_some_and(|until_us| until_us > self.now.wall_us);
        // 3.x is not told of gaps, but gets a new session.
        let is_gone = self.plan.retention_bytes.is_some() || !lock(&self.ledger).damaged.is_empty();
        let is_overtaken = client.plan.version != Version::V5 && is_gone;
        let may_miss = self.is_flipped || is_overtaken || faults.clock_jumps || client.starts_clean;
        for present in client.presents.drain(..) {
            assert!(present || !is_there || may_miss, "the session of client {number} is gone");
        }
    }

    /// What the state has to say. Only a bit that turned may cost it its file, or what the witness saw.
    pub(crate) fn hear_state(&mut self) {
        let notes = self.bus.as_mut().map(|bus| std::mem::take(&mut bus.state.notes));
        for note in notes.unwrap_or_default() {
            if note.contains("set aside") {
                let may = self.witness.take_excuse() && note.contains("corrupted");
                let may = may || self.is_flipped;
                assert!(may, "{note}");
                for client in &mut self.clients {
                    client.doubt(&mut lock(&self.ledger));
                }
            }
            lock(&self.ledger).taken_back.is_rebuilt |= note.contains("rebuilt from the log");
            self.note(|| note);
        }
    }

    /// A client goes: properly, or without a word. `noticed`: the bus hears of it at once.
    pub fn leave(&mut self, number: usize, properly: bool, noticed: bool) {
        let Some(connection) = self.clients[number].connection() else { return };
        let properly = properly && matches!(self.clients[number].link, Link::Up(_));
        if properly {
            let bytes = packets::disconnect(self.clients[number].plan.version, Reason::Success);
            self.send(number, &bytes);
            self.receive(connection, usize::MAX);
        }
        let it = &mut self.net[connection];
        let is_read = properly && it.to_bus.is_empty() && !it.paused;
        it.left = true;
        self.clients[number].disconnected(&mut lock(&self.ledger), is_read, self.now);
        // It may have been dismissed before, for a publish that could not be stored, or one that is gone.
        let may_be_dismissed =
            self.plan.faults.errors || self.plan.faults.full || self.clients[number].plan.may_be_overtaken;
        if properly && (!is_read || may_be_dismissed) {
            self.clients[number].wills.forget();
        }
        if let Some(bus) = self.bus.as_mut().filter(|_| noticed) {
            bus.hang_up(connection, &mut self.net);
        }
    }

    /// Bytes of a connection reach the bus.
    pub fn receive(&mut self, connection: usize, bytes_max: usize) -> bool {
        self.bus.as_mut().is_some_and(|bus| bus.receive(connection, bytes_max, &mut self.net))
    }

    pub fn turn(&mut self, host: usize, places: bool) -> bool {
        let worked = self.bus.as_mut().is_some_and(|bus| bus.turn(host, places, &mut self.net));
        self.hear_ports();
        worked
    }

    /// The state's thread. False: nothing came of it.
    pub fn turn_of_state(&mut self) -> bool {
        let worked = self.bus.as_mut().is_some_and(Bus::turn_of_state);
        self.hear_ports();
        self.hear_state();
        worked
    }

    pub fn flush(&mut self, host: usize) -> bool {
        self.bus.as_mut().is_some_and(|bus| bus.flush(host, &mut self.net))
    }

    /// The commit thread. False: it failed.
    pub fn commit(&mut self) -> bool {
        let durable = self.bus.as_mut().map(Bus::commit);
        if let Some(Some(durable)) = durable {
            let mut ledger = lock(&self.ledger);
            ledger.durable = ledger.durable.max(durable);
        }
        lock(&self.ledger).has_failed |= durable == Some(None);
        self.hear_ports();
        durable != Some(None)
    }

    pub fn upkeep(&mut self) {
        // What is damaged cannot be kept beyond retention, and nobody will find it afterwards.
        self.is_flipped.then(|| self.check_log());
        self.check_kept();
        let Some(bus) = &mut self.bus else { return };
        let notes = bus.upkeep();
        self.kept = bus.read.kept();
        lock(&self.ledger).oldest = bus.read.oldest();
        for note in notes {
            self.note(|| note);
        }
    }

    /// Time passes, and every shard looks at its timers, once a second as a running one does. Gives the shortest time
    /// after which one wants to be called again.
    pub fn pass(&mut self, ms: u64) -> u64 {
        let mut again_ms = 1000;
        for step in std::iter::repeat_n(1000, (ms / 1000) as usize).chain([ms % 1000]) {
            self.now.ms += step;
            self.now.wall_us += step as i64 * 1000;
            set_wall_us(self.now.wall_us);
            self.disk.pass(step * 1000);
            let Some(bus) = &mut self.bus else { continue };
            bus.now = self.now;
            again_ms = 1000;
            for host in 0..bus.hosts.len() {
                again_ms = again_ms.min(bus.tick(host));
            }
        }
        again_ms
    }

    /// The bus publishes something of its own.
    pub fn publish_by_port(&mut self, topic: &str, qos: u8, retain: bool) {
        let (key, draft) = self.draft('p', PORT, topic, qos, retain);
        let Some(bus) = &self.bus else { return };
        let answers = self.port_answers.clone();
        let done = Box::new(move |answer| lock(&answers).push((key, answer)));
        let sequencer = &bus.sequencer;
        sequencer.ports().submit(done, |ticket| {
            sequencer.leave(sequencer.port_slot(), [Deposit::Batch { ticket, draft, wants_sync: true }]);
        });
        bus.place();
        self.hear_ports();
    }

    /// Another node publishes something, which this one will hear of.
    pub fn publish_elsewhere(&mut self, topic: &str, qos: u8) {
        let (_, draft) = self.draft('f', FOREIGN, topic, qos, false);
        lock(&self.mood).foreign.push(draft);
    }

    fn draft(&mut self, kind: char, publisher: u32, topic: &str, qos: u8, retain: bool) -> (Key, Draft) {
        self.numbers += 1;
        let key = Key { kind, publisher, number: self.numbers, attempt: 0 };
        lock(&self.ledger).published.insert(key.message(), Published { qos, ..Published::default() });
        let payload = key.text();
        let event = Event {
            flags: Flags::new(qos, retain, None),
            topic,
            attributes: Attributes::EMPTY,
            payload: payload.as_bytes(),
        };
        let mut draft = Draft::new();
        let origin = Origin { principal: "", session: 0, packet_id: 0, way_in: WayIn::Bus };
        draft.push(&event, &origin).expect("fits");
        (key, draft)
    }

    fn hear_ports(&mut self) {
        for (key, answer) in lock(&self.port_answers).drain(..) {
            let mut ledger = lock(&self.ledger);
            let stored = ledger.is_stored(key.message());
            let has_failed = ledger.has_failed;
            let published = ledger.published.get_mut(&key.message()).expect("it was published");
            let may = (stored || published.is_damaged) == answer.is_ok() || has_failed;
            assert!(may, "{key:?} is answered {answer:?}, and stored: {stored}");
            (published.acknowledged, published.refused) = (answer.is_ok(), answer.is_err());
        }
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, secs: i64) {
        self.now.wall_us += secs * 1_000_000;
        set_wall_us(self.now.wall_us);
        if let Some(bus) = &mut self.bus {
            bus.now = self.now;
        }
    }
}
