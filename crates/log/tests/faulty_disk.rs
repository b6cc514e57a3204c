//! Histories made from a seed, on a disk that loses pages and names in any order, fails, fills up and flips bits. Each
//! seed is one history; `FIREHOSE_SEEDS=10000` runs so many, `FIREHOSE_SEED=7` only that one.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use firehose_log::{Cursor, DiskCall, Log, LogConfig, MemDisk, Offset, Refusal, Since};
use fixture::*;

#[test]
fn whatever_the_disk_does_what_was_durable_is_there_or_lies_in_a_declared_gap() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("FIREHOSE_SEED") {
        return World::new(seed).run();
    }
    let seeds = number("FIREHOSE_SEEDS").unwrap_or(400);
    for seed in 0..seeds {
        if seeds > 1_000 && seed % 500 == 0 {
            eprintln!("seed {seed} of {seeds}");
        }
        if let Err(panic) = std::panic::catch_unwind(|| World::new(seed).run()) {
            eprintln!("seed {seed} of tests/faulty_disk.rs: run it alone by FIREHOSE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

struct World {
    seed: u64,
    disk: MemDisk,
    log: Option<Log>,
    /// Every text that was ever submitted.
    submitted: BTreeSet<String>,
    /// What readers see.
    seen: BTreeMap<Offset, String>,
    /// What was durable when a commit said so.
    durable: BTreeMap<Offset, String>,
    /// Cursors that were given out, their events, and whether these were durable in the epoch that gave them.
    cursors: Vec<(Cursor, String, bool)>,
    epoch: u32,
    /// The latest epoch in which an event was recorded.
    epoch_of_events: u32,
    /// A bit was flipped: what was durable may lie in a gap, or be cut.
    flipped: bool,
}

fn small() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, tail_bytes: 2_000, index_point_bytes: 3_000, ..config() }
}

const CALLS: [DiskCall; 8] = [
    DiskCall::Write,
    DiskCall::Sync,
    DiskCall::Sync,
    DiskCall::Truncate,
    DiskCall::Preallocate,
    DiskCall::Create,
    DiskCall::Rename,
    DiskCall::SyncDir,
];

impl World {
    fn new(seed: u64) -> World {
        let disk = MemDisk::new();
        let log = try_open(&disk, small()).expect("opens");
        World {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            disk,
            epoch: log.read.epoch(),
            epoch_of_events: 0,
            log: Some(log),
            submitted: BTreeSet::new(),
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            cursors: Vec::new(),
            flipped: false,
        }
    }

    fn run(&mut self) {
        for _ in 0..self.below(60) + 5 {
            match self.below(20) {
                0..8 => self.append(),
                8..11 => self.commit(),
                11..13 => drop(self.log().commit.upkeep(NOW_US, &mut KeepNothing)),
                13 => self.disk.write_back(self.seed),
                14 => {
                    let call = CALLS[self.below(CALLS.len())];
                    self.disk.fail(call, ErrorKind::Other);
                }
                15 => {
                    let bytes = self.below(6_000);
                    self.disk.write_short(bytes);
                }
                16 => {
                    let calls = self.below(8) as u64;
                    self.disk.fail_after(calls, ErrorKind::StorageFull);
                }
                17 => self.disk.heal(),
                _ => self.restart(),
            }
        }
        self.restart();
        self.append();
        self.commit();
        self.restart();
    }

    fn append(&mut self) {
        let groups: Vec<Vec<String>> = (0..1 + self.below(3))
            .map(|_| {
                let one = |world: &mut World| {
                    let text = format!("{}{}", world.submitted.len(), "-".repeat(world.below(5_000)));
                    world.submitted.insert(text.clone());
                    text
                };
                (0..1 + self.below(4)).map(|_| one(self)).collect()
            })
            .collect();
        let borrowed: Vec<Vec<&str>> =
            groups.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
        let slices: Vec<&[&str]> = borrowed.iter().map(Vec::as_slice).collect();
        let answers = append_at(self.log(), NOW_US, &slices);
        for (answer, group) in answers.iter().zip(&groups) {
            let Ok(batch) = answer else { continue };
            self.epoch_of_events = self.epoch;
            for (offset, text) in (batch.base()..).zip(group) {
                assert!(
                    self.seen.insert(offset, text.clone()).is_none(),
                    "offset {offset} is given out twice"
                );
                let cursor = self.log().read.cursor(offset, NOW_US);
                assert_eq!(cursor.epoch, self.epoch);
                self.cursors.push((cursor, text.clone(), false));
            }
        }
        self.check_reading();
    }

    fn commit(&mut self) {
        if let Ok(upto) = commit(self.log()) {
            assert!(upto <= self.log().read.head());
            let durable = self.seen.range(..=upto).map(|(offset, text)| (*offset, text.clone()));
            self.durable.extend(durable.collect::<Vec<_>>());
            let epoch = self.epoch;
            let given = self.cursors.iter_mut().filter(|(cursor, ..)| cursor.epoch == epoch);
            given.for_each(|(cursor, _, durable)| *durable |= cursor.offset <= upto);
        }
    }

    /// The process ends, one way or another, and another one begins.
    fn restart(&mut self) {
        self.log = None;
        self.disk.heal();
        for _ in 0..self.below(3) {
            self.end();
            // A start that does not come to its end, or finds the disk full.
            let calls = self.below(12) as u64;
            let error = [ErrorKind::Other, ErrorKind::StorageFull][self.below(2)];
            self.disk.fail_after(calls, error);
            let log = try_open(&self.disk, small());
            let failed = self.disk.is_failing();
            match log {
                Ok(log) => self.check_started(log, failed),
                Err(error) => assert!(failed, "{error}"),
            }
            self.log = None;
            self.disk.heal();
        }
        self.end();
        let log = try_open(&self.disk, small()).expect("opens");
        assert!(log.recovery.begun);
        self.check_started(log, false);
    }

    fn end(&mut self) {
        match self.below(4) {
            0 => {}
            1 => self.disk.lose_power(),
            _ => self.disk.lose_power_partly(self.seed),
        }
        if self.below(8) == 0 {
            self.disk.evict();
        }
        if self.below(12) == 0 && self.disk.flip_bit(self.seed).is_some() {
            self.flipped = true;
        }
    }

    fn check_started(&mut self, mut log: Log, failing: bool) {
        let (epoch, head) = (log.read.epoch(), log.read.head());
        let found = read_from(&log, log.read.oldest());
        let events: BTreeMap<Offset, String> = found.events.into_iter().collect();
        let mut texts = BTreeSet::new();
        for (offset, text) in &events {
            assert!(self.submitted.contains(text), "event {offset} was invented");
            assert!(texts.insert(text.clone()), "event {offset} is there twice");
        }
        let lost: usize = found.gaps.iter().map(|(first, last)| (last - first + 1) as usize).sum();
        assert_eq!(events.len() + lost, head as usize, "every offset is an event or declared lost");
        for (offset, text) in &self.durable {
            match events.get(offset) {
                Some(present) => assert!(self.flipped || present == text, "event {offset} is another"),
                None => {
                    assert!(self.flipped, "event {offset} was durable, head {head}, gaps {:?}", found.gaps)
                }
            }
        }
        for note in &log.recovery.notes {
            assert!(!note.to_string().contains('\n'));
        }
        assert!(epoch > self.epoch_of_events, "epoch {epoch} again");
        self.durable.retain(|offset, text| events.get(offset) == Some(text));
        self.seen = events;
        self.check_cursors(&log);
        if !log.recovery.begun {
            assert!(failing);
            self.check_full(&mut log);
        }
        self.epoch = epoch;
        self.log = Some(log);
    }

    fn check_cursors(&self, log: &Log) {
        for (cursor, text, durable) in &self.cursors {
            let start = log.read.resolve(&Since::After(*cursor), NOW_US).expect("resolves");
            match self.seen.get(&cursor.offset) {
                Some(present) if present == text => {
                    assert!(start.next <= cursor.offset + 1);
                    // One that was not durable may be delivered again, if its batch was torn and begins the epoch anew.
                    let again = start.next <= cursor.offset;
                    assert!(!again || !durable || self.flipped, "a durable event comes again");
                }
                Some(_) => assert!(start.next <= cursor.offset, "a cursor means another event"),
                None => assert!(start.next <= cursor.offset + 1),
            }
        }
    }

    /// A log that was opened on a full disk takes nothing, and goes on by itself once there is room.
    fn check_full(&mut self, log: &mut Log) {
        let text = format!("{}", self.submitted.len());
        self.submitted.insert(text.clone());
        assert_eq!(append_at(log, NOW_US, &[&[&text]]).remove(0).err(), Some(Refusal::DiskFull));
        if self.below(2) == 0 {
            return;
        }
        self.disk.heal();
        log.commit.upkeep(NOW_US, &mut KeepNothing);
        let answer = append_at(log, NOW_US, &[&[&text]]).remove(0).expect("placed");
        self.seen.insert(answer.base(), text.clone());
        let upto = commit(log).expect("commits");
        assert_eq!(upto, answer.base());
        self.durable = self.seen.clone();
        let cursor = log.read.cursor(upto, NOW_US);
        assert_eq!(cursor.epoch, log.read.epoch());
        self.epoch_of_events = cursor.epoch;
        self.cursors.push((cursor, text, true));
        assert_same(log, &self.seen);
    }

    /// While it runs readers see everything, whatever fails.
    fn check_reading(&mut self) {
        assert_same(self.log.as_ref().expect("a log"), &self.seen);
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("a log")
    }

    /// A number below `end`, by the seed.
    fn below(&mut self, end: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.seed >> 33) % end as u64) as usize
    }
}

fn assert_same(log: &Log, seen: &BTreeMap<Offset, String>) {
    let short = |text: &String| text.trim_end_matches('-').to_owned();
    let found: Vec<_> = read_from(log, 1).events;
    let names = found.iter().map(|(offset, text)| (*offset, short(text)));
    let expected = seen.iter().map(|(offset, text)| (*offset, short(text)));
    assert_eq!(names.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert!(found.into_iter().collect::<BTreeMap<_, _>>() == *seen);
}
