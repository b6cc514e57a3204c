//! Whatever happens in whatever order, the log keeps its promises: a log on a disk that fails, beside a list of what
//! must be there.

mod fixture;

use std::collections::BTreeMap;
use std::io::ErrorKind;

use firehose_log::{CommitError, Cursor, DiskCall, Log, LogConfig, MemDisk, Offset, Since};
use fixture::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Submissions of one turn: for each, the sizes of its events.
    Append(Vec<Vec<u16>>),
    Commit,
    Upkeep,
    /// The next such call fails.
    Fail(DiskCall),
    WriteShort(u16),
    Kill,
    LosePower,
}

fn any_step() -> impl Strategy<Value = Step> {
    let sizes = proptest::collection::vec(0u16..4_000, 1..4);
    let call =
        prop::sample::select(vec![DiskCall::Write, DiskCall::Sync, DiskCall::Truncate, DiskCall::Create]);
    prop_oneof![
        6 => proptest::collection::vec(sizes, 1..4).prop_map(Step::Append),
        3 => Just(Step::Commit),
        2 => Just(Step::Upkeep),
        1 => call.prop_map(Step::Fail),
        1 => (0u16..6_000).prop_map(Step::WriteShort),
        1 => Just(Step::Kill),
        1 => Just(Step::LosePower),
    ]
}

/// What must be true.
#[derive(Default)]
struct Model {
    /// Events that the log has, by offset: what readers see now.
    seen: BTreeMap<Offset, String>,
    durable: Offset,
    /// A write failed since the last start.
    write_failed: bool,
    number: u64,
    /// A cursor that was given out, and what its event was.
    cursors: Vec<(Cursor, String)>,
}

impl Model {
    fn append(&mut self, log: &mut Log, groups: &[Vec<u16>]) {
        let mut text = |size: &u16| {
            self.number += 1;
            format!("{}{}", self.number, "-".repeat(usize::from(*size)))
        };
        let texts: Vec<Vec<String>> =
            groups.iter().map(|sizes| sizes.iter().map(&mut text).collect()).collect();
        let borrowed: Vec<Vec<&str>> =
            texts.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
        let groups: Vec<&[&str]> = borrowed.iter().map(Vec::as_slice).collect();
        for (answer, group) in append_at(log, NOW_US, &groups).iter().zip(&texts) {
            let Ok(batch) = answer else {
                self.write_failed = true;
                continue;
            };
            assert_eq!(batch.base(), self.seen.last_key_value().map_or(1, |(last, _)| last + 1));
            for (offset, text) in (batch.base()..).zip(group) {
                self.seen.insert(offset, text.clone());
            }
            let last = group.last().expect("an event").clone();
            self.cursors.push((log.read.cursor(batch.last(), NOW_US), last));
        }
    }

    fn commit(&mut self, log: &mut Log) -> Result<(), CommitError> {
        let durable = commit(log)?;
        assert_eq!(durable, self.seen.len() as u64);
        self.durable = durable;
        Ok(())
    }

    /// After a restart: what was durable is there, and of the rest a front part; of all of it, if no power was lost.
    fn restart(&mut self, disk: &MemDisk, power_lost: bool, read_only: bool) -> Log {
        let log = open_small(disk);
        let head = log.read.head();
        if read_only && head > self.seen.len() as u64 {
            // What could neither be written, nor cut back, nor left behind, is found by the next start.
            self.seen.extend(read_from(&log, self.seen.len() as u64 + 1).events);
        }
        assert!(head >= self.durable, "durable up to {}, found {head}", self.durable);
        assert!(head <= self.seen.len() as u64);
        assert!(power_lost || head == self.seen.len() as u64, "a kill lost what was seen");
        self.seen.retain(|offset, _| *offset <= head);
        self.durable = head;
        log
    }

    fn check(&self, log: &Log) {
        assert_eq!(log.read.head(), self.seen.len() as u64);
        assert_eq!(all(log), self.seen.clone().into_iter().collect::<Vec<_>>());
        for (cursor, text) in &self.cursors {
            let start =
                log.read.resolve(&Since::After(*cursor), NOW_US).expect("a cursor given out resolves");
            assert_eq!(start.gap, None);
            // Either its event is still there, and it starts behind; or it was lost, and it starts at the end of
            // what its epoch left: never behind another event that took its offset.
            match self.seen.get(&cursor.offset) {
                Some(present) if present == text => assert_eq!(start.next, cursor.offset + 1),
                _ => assert!(start.next <= cursor.offset),
            }
        }
    }
}

fn open_small(disk: &MemDisk) -> Log {
    try_open(disk, LogConfig { segment_bytes: 16 << 10, tail_bytes: 2_000, ..config() }).expect("opens")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_segment_is_damaged_it_opens_and_every_event_is_read_as_it_was_or_lies_in_a_gap(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..300, any::<u8>()), 1..6)
    ) {
        let disk = MemDisk::new();
        let mut log = open_small(&disk);
        let mut model = Model::default();
        for size in 1..30 {
            model.append(&mut log, &[vec![size, size * 3], vec![size]]);
        }
        drop(log);
        let path = segments(&disk).remove(0);
        let mut bytes = disk.bytes(&path).expect("bytes");
        for (at, len, byte) in damage {
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            bytes[at..end].fill(byte);
        }
        disk.set_bytes(&path, &bytes);
        let log = open_small(&disk);
        let found = read_from(&log, 1);
        let mut next = 1;
        let in_gaps = found.gaps.iter().flat_map(|(first, last)| *first..=*last).map(|offset| (offset, None));
        let events = found.events.iter().map(|(offset, text)| (*offset, Some(text)));
        for (offset, text) in events.chain(in_gaps).collect::<BTreeMap<_, _>>() {
            prop_assert_eq!(offset, next);
            prop_assert!(text.is_none_or(|text| model.seen.get(&offset) == Some(text)));
            next += 1;
        }
        prop_assert_eq!(next, log.read.head() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_nothing_is_doubled_and_no_cursor_means_another_event(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let disk = MemDisk::new();
        let mut log = open_small(&disk);
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Append(groups) => model.append(&mut log, groups),
                Step::Commit => drop(model.commit(&mut log)),
                Step::Upkeep => drop(log.commit.upkeep(NOW_US, &mut KeepNothing)),
                Step::Fail(call) => disk.fail(*call, ErrorKind::Other),
                Step::WriteShort(bytes) => disk.write_short(usize::from(*bytes)),
                Step::Kill | Step::LosePower => {
                    let read_only = model.write_failed && model.commit(&mut log).is_err();
                    model.write_failed = false;
                    drop(log);
                    disk.heal();
                    if matches!(step, Step::LosePower) {
                        disk.lose_power();
                    }
                    log = model.restart(&disk, matches!(step, Step::LosePower), read_only);
                }
            }
            model.check(&log);
        }
    }
}
