//! The sequencer, the commit thread and readers at once, on the machine's own disk.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firehose_log::{Chunk, LogConfig, Offset, Read, RealDisk, Wait, open};
use fixture::*;

const EVENTS: Offset = 20_000;

#[test]
fn readers_get_every_event_once_and_in_order_while_others_append_commit_and_keep_house() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = LogConfig { segment_bytes: 100_000, tail_bytes: 20_000, ..LogConfig::new(dir.path()) };
    let mut log = open(config, Arc::new(RealDisk::new()), NOW_US).expect("opens");
    let read = Arc::clone(&log.read);
    let mut commit = std::mem::replace(&mut log.commit, Box::new(Nothing));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut durable = 0;
            while !done.load(Ordering::Acquire) {
                let now = commit.commit().expect("commits");
                assert!(now >= durable && now <= read.head());
                durable = now;
                assert_eq!(commit.upkeep(NOW_US, &mut KeepNothing), []);
            }
            assert_eq!(commit.commit(), Ok(EVENTS));
        });
        let readers = [Wait::No, Wait::Yes, Wait::Yes].map(|wait| {
            let read = Arc::clone(&read);
            scope.spawn(move || follow(&*read, wait))
        });
        for _ in 0..EVENTS / 4 {
            append(&mut log, &["one", "two"]);
            append(&mut log, &["three", "four"]);
        }
        let ends = readers.map(|reader| reader.join());
        done.store(true, Ordering::Release);
        for end in ends {
            end.expect("a reader that got everything");
        }
    });
}

fn follow(read: &dyn Read, wait: Wait) {
    let mut next = 1;
    let mut blocked = false;
    while next <= EVENTS {
        let wait = if blocked { Wait::Yes } else { wait };
        blocked = false;
        match read.read(next, Offset::MAX, 5_000, wait).expect("reads") {
            Chunk::Batches(batches) => {
                for batch in batches {
                    assert_eq!(batch.base(), next);
                    let expected = if next % 4 == 1 { "one" } else { "three" };
                    assert_eq!(batch.record(0).event().payload, expected.as_bytes());
                    next = batch.last() + 1;
                }
            }
            Chunk::Blocked => blocked = true,
            Chunk::End => std::thread::yield_now(),
            Chunk::Gap { next: after, why } => panic!("a gap from {next} to {after}: {why}"),
        }
    }
}

/// Stands where the commit side was taken out.
struct Nothing;

impl firehose_log::Commit for Nothing {
    fn commit(&mut self) -> Result<Offset, firehose_log::CommitError> {
        Ok(0)
    }

    fn upkeep(&mut self, _: i64, _: &mut dyn firehose_log::Keep) -> Vec<firehose_log::Upkeep> {
        Vec::new()
    }
}
