//! A log and a state on one disk, and what a test does to them.

use firehose_broker::action::Now;
use firehose_broker::arrival::Scope;
use firehose_broker::limits::{AddressKey, Limits};
use firehose_broker::state::{
    Answer, Open, OpenRefusal, Opened, Operation, Progress, Request, SessionName, State, StateNote,
    StoredInflight, StoredLane, StoredState, StoredSubscription, StoredWill, Turn, WillFate,
};
use firehose_log::{
    Attributes, Draft, Event, Flags, Log, LogConfig, MemDisk, Offset, Origin, Submission, WayIn,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the state file is.
pub fn path() -> PathBuf {
    PathBuf::from("/data/state.redb")
}

/// A time in 2023, in microseconds.
const START_US: i64 = 1_700_000_000_000_000;

/// A bus's log and state.
pub struct Bed {
    pub disk: MemDisk,
    pub state_disk: MemDisk,
    pub log: Log,
    pub state: State,
    pub notes: Vec<StateNote>,
    pub now: Now,
    pub limits: Arc<Limits>,
    token: u64,
}

impl Bed {
    pub fn new() -> Bed {
        Bed::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Bed {
        let now = Now { ms: 0, wall_us: START_US };
        Bed::on(MemDisk::new(), MemDisk::new(), now, limits)
    }

    /// On what these disks have: the log's, and the state's.
    pub fn on(disk: MemDisk, state_disk: MemDisk, now: Now, limits: Limits) -> Bed {
        let config = LogConfig { segment_bytes: 256 << 10, ..LogConfig::new("/data/log") };
        Bed::on_log(config, disk, state_disk, now, limits)
    }

    /// With a log of this configuration.
    pub fn on_log(config: LogConfig, disk: MemDisk, state_disk: MemDisk, now: Now, limits: Limits) -> Bed {
        let log = firehose_log::open(config, Arc::new(disk.clone()), now.wall_us).expect("the log opens");
        let limits = Arc::new(limits);
        let opened =
            State::open(Arc::new(state_disk.clone()), &path(), log.read.clone(), limits.clone(), now);
        let (mut state, report) = opened.expect("a state");
        state.set_patience_ms(0);
        Bed { disk, state_disk, log, state, notes: report.notes, now, limits, token: 0 }
    }

    /// The process is killed, and begins again a second later.
    pub fn restart(self) -> Bed {
        self.begin_again(|_| {})
    }

    /// The process ends, and begins again on disks that know what was not synced.
    pub fn begin_on_the_same_disks(self) -> Bed {
        let Bed { disk, state_disk, log, state, now, limits, .. } = self;
        drop((log, state));
        let now = Now { ms: 0, wall_us: now.wall_us + 1_000_000 };
        Bed::on(disk, state_disk, now, Limits::clone(&limits))
    }

    /// The power fails: what was not synced is gone.
    pub fn lose_power(self) -> Bed {
        self.begin_again(MemDisk::lose_power)
    }

    /// The power fails: of what was not synced the seed says what is there.
    pub fn lose_power_partly(self, seed: u64) -> Bed {
        self.begin_again(|disk| disk.lose_power_partly(seed))
    }

    fn begin_again(self, stop: impl Fn(&MemDisk)) -> Bed {
        let Bed { disk, state_disk, log, state, now, limits, .. } = self;
        // What the old process does when it is dropped goes to files that are nobody's.
        for disk in [&disk, &state_disk] {
            disk.heal();
            stop(disk);
        }
        let (disk, state_disk) = (disk.copy(), state_disk.copy());
        drop((log, state));
        let now = Now { ms: 0, wall_us: now.wall_us + 1_000_000 };
        Bed::on(disk, state_disk, now, Limits::clone(&limits))
    }

    /// Time goes by.
    pub fn pass(&mut self, secs: u64) {
        self.now =
            Now { ms: self.now.ms + secs * 1_000, wall_us: self.now.wall_us + secs as i64 * 1_000_000 };
    }

    /// Turns until nothing is left to do at once.
    pub fn settle(&mut self) -> Turn {
        self.log.commit.commit().expect("durable");
        let mut all = Turn::default();
        for _ in 0..1_000 {
            let head = self.log.read.head();
            let mut turn = self.state.turn(head, self.now);
            all.answers.append(&mut turn.answers);
            all.wills.append(&mut turn.wills);
            all.notes.extend(turn.notes.iter().cloned());
            self.notes.append(&mut turn.notes);
            turn.jobs.drain(..).for_each(|job| job());
            all.next_ms = turn.next_ms;
            if !turn.again {
                return all;
            }
        }
        panic!("the state never comes to rest");
    }

    /// Appends an event, marks it as the sequencer does, and gives its offset.
    pub fn append(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        origin: Origin<'_>,
    ) -> Offset {
        let mut draft = Draft::new();
        let flags = Flags::new(qos, retain, None);
        let event = Event { flags, topic, attributes: Attributes::EMPTY, payload };
        draft.push(&event, &origin).expect("fits");
        let queue = self.state.queue().clone();
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        let mut last = 0;
        self.log.append.append(self.now.wall_us, &mut submissions, &mut |_, _, placed| {
            let batch = placed.expect("placed");
            last = batch.last();
            if batch.is_marked() {
                queue.mark(&batch);
            }
        });
        last
    }

    /// A retained publication.
    pub fn retain(&mut self, topic: &str, payload: &[u8]) -> Offset {
        self.append(topic, payload, 1, true, Origin::default())
    }

    /// A QoS 2 publication of a persistent session.
    pub fn publish2(&mut self, name: &SessionName, packet_id: u16) -> Offset {
        self.append("q2", b"x", 2, false, Origin { session: name.hash, packet_id, ..Origin::default() })
    }

    /// The record of a will that was published.
    pub fn publish_will(&mut self, session: u64, serial: u16) -> Offset {
        let origin = Origin { session, packet_id: serial, way_in: WayIn::Will, ..Origin::default() };
        self.append("will", b"gone", 1, false, origin)
    }

    /// Submits operations and gives the token.
    pub fn submit(&mut self, operations: Vec<Operation>) -> u64 {
        self.token += 1;
        let head = self.log.read.head();
        self.state.queue().submit(0, Request { token: self.token, operations }, head);
        self.token
    }

    /// Submits operations and waits for them.
    pub fn save(&mut self, operations: Vec<Operation>) -> Turn {
        let token = self.submit(operations);
        let turn = self.settle();
        let saved = turn
            .answers
            .iter()
            .any(|(_, answer)| matches!(answer, Answer::Saved { token: at } if *at == token));
        assert!(saved, "{:?}", turn.answers);
        turn
    }

    /// Opens a session and gives the answer.
    pub fn open(&mut self, open: Open) -> Result<Opened, OpenRefusal> {
        let token = self.submit(vec![Operation::Open(Box::new(open))]);
        let turn = self.settle();
        opened(turn, token).expect("an answer")
    }

    /// Lets a client in that called wills back, or whose session lives 100 s as of now.
    pub fn enter(&mut self, name: &Arc<SessionName>) {
        let token = self.submit(vec![Operation::Entered { name: name.clone(), expiry_secs: 100 }]);
        let answers = self.settle().answers;
        let is_entered = |answer: &Answer| matches!(answer, Answer::Entered { token: at } if *at == token);
        assert!(answers.iter().any(|(_, answer)| is_entered(answer)), "{answers:?}");
    }

    /// The retained entries that match.
    pub fn retained(&self, filter: &str) -> Vec<(String, Offset)> {
        let filter = firehose_topic::TopicFilter::new(filter).expect("a filter");
        let page = self.state.reader().retained(&filter, None, Offset::MAX, 1_000).expect("read");
        page.entries.into_iter().map(|(topic, offset)| (topic.into(), offset)).collect()
    }
}

/// Whether it says that the save that a power cut or a turned bit has hit does not count.
pub fn is_of_last_save(note: &StateNote) -> bool {
    note.to_string().starts_with("the last save of the state file /data/state.redb is not whole")
}

/// The answer to an open.
pub fn opened(turn: Turn, token: u64) -> Option<Result<Opened, OpenRefusal>> {
    turn.answers.into_iter().find_map(|(_, answer)| match answer {
        Answer::Opened { token: at, outcome } if at == token => Some(outcome),
        _ => None,
    })
}

/// The anonymous session of this client id; its hash is made of it.
pub fn name(client_id: &str) -> Arc<SessionName> {
    let hash = client_id.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let scope = Scope { user: None, address: Some(1) };
    Arc::new(SessionName { hash, scope, client_id: client_id.into(), assigned: false })
}

/// A session that lives on for 100 s.
pub fn open(name: &Arc<SessionName>) -> Open {
    Open { name: name.clone(), clean: false, expiry_secs: 100, address: None, will: None }
}

/// The key of an address.
pub fn address(last: u8) -> Option<AddressKey> {
    AddressKey::of(Some(std::net::IpAddr::from([203, 0, 113, last])))
}

/// A will.
pub fn will(delay_secs: u32) -> StoredWill {
    StoredWill {
        topic: "will".into(),
        payload: b"gone".to_vec(),
        attributes: Vec::new(),
        flags: 1,
        delay_secs,
        user: Some("u".into()),
    }
}

/// The connection ended.
pub fn gone(name: &Arc<SessionName>, expiry_secs: u32, will: WillFate) -> Operation {
    Operation::Gone { name: name.clone(), expiry_secs, will }
}

/// The client for whom this was opened is turned away.
pub fn refused(name: &Arc<SessionName>, opened: &Opened) -> Operation {
    Operation::Refused { name: name.clone(), before: opened.before }
}

/// How far a session got: all before `next`.
pub fn progress(next: Offset) -> Progress {
    let lanes = vec![StoredLane { number: 0, next, gap: None }];
    Progress { lanes, next_id: 1, inflight: Vec::new(), scans: Vec::new() }
}

/// The same with a message in flight.
pub fn progress_with(next: Offset, offset: Offset) -> Progress {
    let sent = StoredInflight { packet_id: 1, state: StoredState::Sent2, offset, retain: false, shared: 0 };
    Progress { inflight: vec![sent], ..progress(next) }
}

/// A subscription.
pub fn subscription(filter: &str) -> StoredSubscription {
    StoredSubscription { filter: filter.into(), written: None, options: 1, id: 0, lane: 0, from: 1 }
}

/// All subscriptions of a session.
pub fn subscriptions(name: &Arc<SessionName>, filters: &[&str]) -> Operation {
    let subscriptions = filters.iter().map(|filter| subscription(filter)).collect();
    Operation::Subscriptions { name: name.clone(), cursors: false, subscriptions }
}
