//! Prints how fast events are appended to a log on the disk and read back, and how long it takes to open it.
//!
//!     cargo run --release -p firehose-log --example append_rate [FOLDER]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firehose_log::{
    Attributes, Chunk, Draft, Event, Flags, KeepNothing, Log, LogConfig, Offset, Origin, RealDisk,
    Submission, Wait, open,
};

const EVENTS: usize = 2_000_000;
const PAYLOAD: [u8; 256] = [b'x'; 256];

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).unwrap_or_else(|| std::env::temp_dir().into_os_string());
    let dir = tempfile::tempdir_in(parent)?;
    let config = || LogConfig::new(dir.path());
    for per_turn in [1, 10, 100] {
        let mut log = open(config(), Arc::new(RealDisk::new()), now_us())?;
        let (turns, took) = append(&mut log, EVENTS, per_turn)?;
        print_rate(&format!("append, {per_turn} events a turn"), EVENTS, took);
        println!("{:>46.2} us a turn", took.as_secs_f64() * 1e6 / turns as f64);
        let started = Instant::now();
        let durable = log.commit.commit()?;
        println!("commit up to {durable}: {:?}", started.elapsed());
        log.commit.upkeep(now_us(), &mut KeepNothing);
    }
    let mut log = open(config(), Arc::new(RealDisk::new()), now_us())?;
    println!(
        "open after a kill: {} us, {} bytes checked",
        log.recovery.duration_us, log.recovery.checked_bytes
    );
    let started = Instant::now();
    let syncs = 200;
    for _ in 0..syncs {
        append(&mut log, 100, 100)?;
        log.commit.commit()?;
    }
    print_rate("append and sync, 100 events a turn", syncs * 100, started.elapsed());
    for wait in [Wait::Yes, Wait::No] {
        let (events, took) = read(&log, log.read.oldest(), wait)?;
        print_rate(&format!("read from the disk's cache, wait {wait:?}"), events, took);
    }
    Ok(())
}

fn append(log: &mut Log, events: usize, per_turn: usize) -> Result<(usize, Duration), Box<dyn Error>> {
    let event = Event {
        flags: Flags::default(),
        topic: "bench/a/b",
        attributes: Attributes::EMPTY,
        payload: &PAYLOAD,
    };
    let mut submissions = Vec::new();
    let (mut turns, mut refused) = (0, None);
    let started = Instant::now();
    for _ in 0..events / per_turn {
        let mut draft = Draft::with_capacity(per_turn * 320);
        for _ in 0..per_turn {
            draft.push(&event, &Origin::default())?;
        }
        submissions.push(Submission { draft, ticket: 0, from: 0 });
        log.append.append(now_us(), &mut submissions, &mut |_, _, answer| refused = answer.err());
        turns += 1;
        if let Some(refusal) = refused.take() {
            return Err(refusal.into());
        }
        if log.append.wants_upkeep() {
            log.commit.upkeep(now_us(), &mut KeepNothing);
        }
    }
    Ok((turns, started.elapsed()))
}

fn read(log: &Log, from: Offset, wait: Wait) -> Result<(usize, Duration), Box<dyn Error>> {
    let (mut next, mut events) = (from, 0);
    let started = Instant::now();
    loop {
        match log.read.read(next, Offset::MAX, 256 << 10, wait)? {
            Chunk::Batches(batches) => {
                for batch in &batches {
                    events +=
                        batch.records().filter(|(_, record)| record.event().payload.len() == 256).count();
                    next = batch.last() + 1;
                }
            }
            Chunk::Gap { next: after, .. } => next = after,
            Chunk::Blocked => {
                let Chunk::Batches(batches) = log.read.read(next, Offset::MAX, 1, Wait::Yes)? else {
                    continue;
                };
                events += batches.iter().map(|batch| batch.len()).sum::<usize>();
                next = batches.last().map_or(next, |batch| batch.last() + 1);
            }
            Chunk::End => return Ok((events, started.elapsed())),
        }
    }
}

fn print_rate(what: &str, events: usize, took: Duration) {
    let rate = events as f64 / took.as_secs_f64();
    println!("{what:<42} {:>10.0} events/s {:>8.1} MB/s", rate, rate * 256.0 / 1e6);
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
