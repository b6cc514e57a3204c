//! The sequencer over a real log: order, roles, acknowledgements that race with the commit.

use firehose_broker::message::Message;
use firehose_broker::sequencer::{Deposit, Sequencer};
use firehose_broker::{Durability, Role};
use firehose_log::{
    Append, Attributes, Batch, Draft, Event, Flags, LogConfig, MemDisk, Offset, Origin, Refusal, Submission,
    open,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn clock() -> i64 {
    crate::world::START_US
}

fn draft(texts: &[&str]) -> Draft {
    let mut draft = Draft::new();
    for text in texts {
        let event = Event {
            flags: Flags::default(),
            topic: "t",
            attributes: Attributes::EMPTY,
            payload: text.as_bytes(),
        };
        draft.push(&event, &Origin::default()).unwrap();
    }
    draft
}

fn batch(ticket: u64, texts: &[&str]) -> Deposit {
    Deposit::Batch { ticket, draft: draft(texts), wants_sync: true }
}

/// An appender that does something between the write and the answers, as a scheduler may.
struct Between {
    inner: Box<dyn Append>,
    between: Arc<Mutex<Box<dyn FnMut() + Send>>>,
}

impl Append for Between {
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    ) {
        let mut answers = Vec::new();
        self.inner
            .append(now_us, submissions, &mut |from, ticket, answer| answers.push((from, ticket, answer)));
        (self.between.lock().unwrap())();
        answers.into_iter().for_each(|(from, ticket, answer)| placed(from, ticket, answer));
    }

    fn head(&self) -> Offset {
        self.inner.head()
    }

    fn durable(&self) -> Offset {
        self.inner.durable()
    }

    fn wants_upkeep(&self) -> bool {
        false
    }

    fn wants_commit(&self) -> bool {
        false
    }
}

type Hook = Arc<Mutex<Box<dyn FnMut() + Send>>>;

fn sequencer(role: Role, mailbox_bytes_max: usize) -> (Arc<Sequencer>, Hook) {
    let log = open(
        LogConfig { disk_reserve_bytes: 0, ..LogConfig::new("/log") },
        Arc::new(MemDisk::new()),
        clock(),
    )
    .unwrap();
    let between: Hook = Arc::new(Mutex::new(Box::new(|| {})));
    let append = Box::new(Between { inner: log.append, between: between.clone() });
    let sequencer = Sequencer::new(2, append, Durability::Sync, role, mailbox_bytes_max, clock);
    for shard in 0..2 {
        sequencer.set_interest(shard, true);
    }
    (Arc::new(sequencer), between)
}

#[test]
fn what_a_start_could_not_make_durable_is_not_taken_for_it() {
    let disk = MemDisk::new();
    let log = || {
        let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new("/log") };
        open(config, Arc::new(disk.clone()), clock()).unwrap()
    };
    let sequencer = |append| Sequencer::new(1, append, Durability::Sync, Role::Depositor, 1_000, clock);
    let first = sequencer(log().append);
    first.leave(0, [batch(1, &["a"])]);
    first.run_section();
    assert_eq!((first.head(), first.durable()), (1, 0));
    drop(first);
    disk.fail(firehose_log::DiskCall::Sync, std::io::ErrorKind::StorageFull);
    let second = sequencer(log().append);
    assert_eq!((second.head(), second.durable()), (1, 0));
    drop(second);
    let third = sequencer(log().append);
    assert_eq!((third.head(), third.durable()), (1, 1));
}

/// What lies in a mailbox, in words.
fn mail(sequencer: &Sequencer, shard: usize) -> Vec<String> {
    let mut messages = Vec::new();
    sequencer.mailbox(shard).take(&mut messages);
    messages
        .iter()
        .map(|message| match message {
            Message::Batch { batch, ticket } => {
                let texts: Vec<_> = (0..batch.len())
                    .map(|index| String::from_utf8_lossy(batch.record(index).event().payload).into_owned())
                    .collect();
                let at = if batch.is_logged() { batch.base().to_string() } else { "-".into() };
                let own = ticket.map_or(String::new(), |ticket| format!(" own {ticket}"));
                format!("{at}: {}{own}", texts.join(" "))
            }
            Message::Placed { ticket, outcome } => format!("placed {ticket} {outcome:?}"),
            Message::Mark { token, head } => format!("mark {token} at {head}"),
            Message::Missed { first, last } => format!("missed {first}..{last}"),
            Message::Durable(offset) => format!("durable {offset}"),
            _ => "other".into(),
        })
        .collect()
}

#[test]
fn a_slot_keeps_its_order_of_batches_marks_and_unlogged() {
    let (sequencer, _) = sequencer(Role::Depositor, 1 << 20);
    sequencer.deposit(
        0,
        [
            batch(1, &["a", "b"]),
            Deposit::Mark { token: 7 },
            batch(2, &["c"]),
            Deposit::Unlogged(draft(&["d"])),
            Deposit::Mark { token: 8 },
            batch(3, &["e"]),
        ],
    );
    let expected = ["1: a b own 1", "mark 7 at 2", "3: c own 2", "-: d", "mark 8 at 3", "4: e own 3"];
    assert_eq!(mail(&sequencer, 0), expected);
    assert_eq!(mail(&sequencer, 1), ["1: a b", "3: c", "-: d", "4: e"]);
    assert_eq!(sequencer.head(), 4);
}

#[test]
fn deposits_of_several_slots_come_in_one_order_to_all() {
    let (sequencer, _) = sequencer(Role::Thread, 1 << 20);
    sequencer.deposit(1, [batch(1, &["x"]), Deposit::Mark { token: 1 }, batch(2, &["y"])]);
    sequencer.deposit(0, [batch(1, &["a"]), batch(2, &["b"])]);
    assert_eq!(sequencer.head(), 0, "the thread has the section");
    sequencer.run_section();
    assert_eq!(mail(&sequencer, 0), ["1: a own 1", "2: b own 2", "3: x", "4: y"]);
    assert_eq!(mail(&sequencer, 1), ["1: a", "2: b", "3: x own 1", "mark 1 at 3", "4: y own 2"]);
}

#[test]
fn who_subscribes_gets_what_others_publish_at_that_moment_but_not_what_its_own_shard_had_before() {
    let (sequencer, _) = sequencer(Role::Thread, 1 << 20);
    sequencer.deposit(0, [batch(1, &["a"]), Deposit::Mark { token: 1 }, Deposit::Mark { token: 2 }]);
    sequencer.deposit(1, [Deposit::Mark { token: 3 }, batch(1, &["x"]), Deposit::Mark { token: 4 }]);
    sequencer.run_section();
    assert_eq!(mail(&sequencer, 0), ["1: a own 1", "2: x", "mark 1 at 2", "mark 2 at 2"]);
    assert_eq!(mail(&sequencer, 1), ["mark 3 at 0", "1: a", "2: x own 1", "mark 4 at 2"]);
    sequencer.deposit(0, [batch(2, &["b"])]);
    sequencer.deposit(1, [Deposit::Unlogged(draft(&["u"])), Deposit::Mark { token: 5 }]);
    sequencer.run_section();
    assert_eq!(mail(&sequencer, 0), ["3: b own 2", "-: u"]);
    assert_eq!(mail(&sequencer, 1), ["3: b", "-: u", "mark 5 at 3"]);
}

#[test]
fn a_full_mailbox_gets_its_answers_and_one_note_of_what_it_missed() {
    let (sequencer, _) = sequencer(Role::Depositor, 400);
    for ticket in 1..5 {
        sequencer.deposit(0, [batch(ticket, &[&"x".repeat(150)])]);
    }
    let other = mail(&sequencer, 1);
    assert_eq!(other.len(), 2, "{other:?}");
    assert!(other[1].starts_with("missed") && other[1].ends_with("..4"), "{other:?}");
    let own = mail(&sequencer, 0);
    for ticket in 2..5 {
        assert!(own.iter().any(|it| it.starts_with(&format!("placed {ticket} Ok"))), "{own:?}");
    }
}

#[test]
fn a_commit_between_the_write_and_its_answer_loses_no_acknowledgement() {
    let (sequencer, between) = sequencer(Role::Depositor, 1 << 20);
    let of_commit = sequencer.clone();
    // The commit thread syncs event 1 before its depositor is even told where it stands.
    *between.lock().unwrap() = Box::new(move || {
        of_commit.set_durable(1);
    });
    sequencer.deposit(0, [batch(1, &["a"])]);
    let got = mail(&sequencer, 0);
    assert!(got.contains(&"1: a own 1".to_owned()) && got.contains(&"durable 1".to_owned()), "{got:?}");
    assert!(!sequencer.wants_commit());
}

#[test]
fn a_port_is_completed_although_the_commit_was_quicker() {
    let (sequencer, between) = sequencer(Role::Depositor, 1 << 20);
    let of_commit = sequencer.clone();
    *between.lock().unwrap() = Box::new(move || {
        of_commit.set_durable(1);
    });
    let done = Arc::new(AtomicU64::new(0));
    let of_done = done.clone();
    sequencer
        .ports()
        .submit(Box::new(move |outcome| of_done.store(outcome.unwrap(), Ordering::SeqCst)), |ticket| {
            sequencer.leave(sequencer.port_slot(), [batch(ticket, &["a"])])
        });
    sequencer.run();
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[test]
fn a_port_waits_for_the_sync_and_hears_of_a_refusal() {
    let (sequencer, _) = sequencer(Role::Depositor, 1 << 20);
    let done = Arc::new(AtomicU64::new(0));
    let of_done = done.clone();
    sequencer
        .ports()
        .submit(Box::new(move |outcome| of_done.store(outcome.unwrap(), Ordering::SeqCst)), |ticket| {
            sequencer.leave(sequencer.port_slot(), [batch(ticket, &["a", "b"])])
        });
    sequencer.run();
    assert_eq!((done.load(Ordering::SeqCst), sequencer.wants_commit()), (0, true));
    sequencer.set_durable(2);
    assert_eq!((done.load(Ordering::SeqCst), sequencer.wants_commit()), (2, false));
}

#[test]
fn a_slow_disk_gives_the_section_to_the_commit_thread_until_it_is_fast_again() {
    let (sequencer, between) = sequencer(Role::Depositor, 1 << 20);
    *between.lock().unwrap() = Box::new(|| std::thread::sleep(Duration::from_millis(3)));
    let mut ticket = 0;
    while !sequencer.thread_has_section() {
        ticket += 1;
        assert!(ticket < 100, "it is slow all the time");
        sequencer.deposit(0, [batch(ticket, &["slow"])]);
    }
    let head = sequencer.head();
    sequencer.deposit(0, [batch(ticket + 1, &["waits"])]);
    assert_eq!(sequencer.head(), head, "depositors only leave it there");
    *between.lock().unwrap() = Box::new(|| {});
    sequencer.run_section();
    assert_eq!(sequencer.head(), head + 1);
    let mut rounds = 0;
    while sequencer.thread_has_section() {
        rounds += 1;
        assert!(rounds < 100_000, "it is fast again");
        sequencer.deposit(0, [batch(ticket + 1 + rounds, &["x"])]);
        sequencer.run_section();
    }
    let before = sequencer.head();
    sequencer.deposit(0, [batch(1_000_000, &["x"])]);
    assert_eq!(sequencer.head(), before + 1);
}
