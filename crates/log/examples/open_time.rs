//! Prints how long it takes to open a log of 10,000 events and one of more, after a kill.
//!
//!     cargo run --release -p firehose-log --example open_time [EVENTS] [FOLDER]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use firehose_log::{
    Attributes, Draft, Event, Flags, KeepNothing, Log, LogConfig, Origin, RealDisk, Submission, open,
};

const PAYLOAD: [u8; 256] = [b'x'; 256];
const EVENTS_PER_TURN: usize = 100;
const EVENTS_PER_UPKEEP: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let many = arguments.next().map_or(Ok(10_000_000), |text| text.parse::<usize>())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    for events in [10_000, many] {
        let dir = tempfile::tempdir_in(&parent)?;
        let mut log = opened(dir.path())?;
        fill(&mut log, events)?;
        // Nothing is committed or kept in order any more, as after a kill.
        drop(log);
        for _ in 0..5 {
            let started = Instant::now();
            let log = opened(dir.path())?;
            println!(
                "{events:>9} events: open {:>8.2} ms, {} bytes looked through, head {}",
                started.elapsed().as_secs_f64() * 1e3,
                log.recovery.checked_bytes,
                log.read.head()
            );
        }
    }
    Ok(())
}

fn opened(dir: &Path) -> Result<Log, Box<dyn Error>> {
    let config = LogConfig { retention_bytes: None, disk_reserve_bytes: 0, ..LogConfig::new(dir) };
    Ok(open(config, Arc::new(RealDisk::new()), now_us())?)
}

fn fill(log: &mut Log, events: usize) -> Result<(), Box<dyn Error>> {
    let event = Event {
        flags: Flags::default(),
        topic: "bench/a/b",
        attributes: Attributes::EMPTY,
        payload: &PAYLOAD,
    };
    let mut refused = None;
    for turn in 0..events / EVENTS_PER_TURN {
        let mut draft = Draft::with_capacity(EVENTS_PER_TURN * 320);
        for _ in 0..EVENTS_PER_TURN {
            draft.push(&event, &Origin::default())?;
        }
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        log.append.append(now_us(), &mut submissions, &mut |_, _, answer| refused = answer.err());
        if let Some(refusal) = refused.take() {
            return Err(refusal.into());
        }
        if turn % (EVENTS_PER_UPKEEP / EVENTS_PER_TURN) == 0 || log.append.wants_upkeep() {
            log.commit.commit()?;
            log.commit.upkeep(now_us(), &mut KeepNothing);
        }
    }
    Ok(())
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
