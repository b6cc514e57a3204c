//! Retention, times and cursors.

mod fixture;

use std::time::Duration;

use firehose_log::{Chunk, Cursor, Log, LogConfig, MemDisk, Since, SinceError, Upkeep, Wait};
use fixture::*;

const HOUR_US: i64 = 3_600_000_000;

/// A log of `count` events of 10 kB, one an hour up to now; some six to a segment.
fn hourly(disk: &MemDisk, config: LogConfig, count: i64) -> Log {
    let mut log = try_open(disk, config).expect("opens");
    for n in 1..=count {
        append_bytes(&mut log, NOW_US + (n - count) * HOUR_US, 10_000);
    }
    commit(&mut log).expect("commits");
    log
}

fn deleted(done: &[Upkeep]) -> usize {
    done.iter().filter(|done| matches!(done, Upkeep::Deleted { .. })).count()
}

#[test]
fn by_size_the_oldest_segments_go_and_never_the_active_one() {
    let disk = MemDisk::new();
    let mut log = hourly(&disk, LogConfig { retention_bytes: Some(150_000), ..config() }, 40);
    let before = segments(&disk).len();
    let done = log.commit.upkeep(NOW_US, &mut KeepNothing);
    assert!(deleted(&done) > 0 && deleted(&done) < before);
    let oldest = log.read.oldest();
    assert!(oldest > 20 && oldest < 40);
    assert!(matches!(log.read.read(1, 40, 100, Wait::No), Ok(Chunk::Gap { next, .. }) if next == oldest));
    assert_eq!(all(&log).len() as u64, 41 - oldest);

    let mut log = hourly(&MemDisk::new(), LogConfig { retention_bytes: Some(0), ..config() }, 20);
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    assert!(log.read.oldest() <= log.read.head());
}

#[test]
fn by_age_a_segment_goes_when_its_newest_event_is_too_old() {
    let disk = MemDisk::new();
    let mut log = hourly(&disk, LogConfig { retention_age_secs: Some(10 * 3_600), ..config() }, 40);
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    let oldest = log.read.oldest();
    // All of the last ten hours is there, and of what is older less than a segment.
    assert!((25..=30).contains(&oldest), "{oldest}");
    assert_eq!(deleted(&log.commit.upkeep(NOW_US, &mut KeepNothing)), 0);
}

#[test]
fn retention_holds_after_a_restart() {
    let disk = MemDisk::new();
    drop(hourly(&disk, config(), 40));
    let mut log =
        try_open(&disk, LogConfig { retention_age_secs: Some(10 * 3_600), ..config() }).expect("opens");
    assert!(deleted(&log.commit.upkeep(NOW_US, &mut KeepNothing)) > 0);
    assert!((25..=30).contains(&log.read.oldest()));
    assert_eq!(deleted(&log.commit.upkeep(NOW_US, &mut KeepNothing)), 0);
}

#[test]
fn when_the_clock_jumps_nothing_goes_for_its_age_until_it_agrees_for_a_day() {
    let disk = MemDisk::new();
    let config = || LogConfig { retention_age_secs: Some(50 * 3_600), ..config() };
    let mut log = hourly(&disk, config(), 40);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    disk.pass(1_000_000);
    let jumped = NOW_US + 300 * DAY_US;
    assert!(matches!(log.commit.upkeep(jumped, &mut KeepNothing)[..], [Upkeep::ClockJumped { .. }]));
    append_bytes(&mut log, jumped, 10);
    commit(&mut log).expect("commits");
    drop(log);

    // Nor after a restart, though the newest event was recorded by the wrong clock.
    let mut log = try_open(&disk, config()).expect("opens");
    assert_eq!(log.commit.upkeep(jumped, &mut KeepNothing), []);
    assert_eq!(log.read.oldest(), 1);
    disk.pass(23 * HOUR_US as u64);
    assert_eq!(log.commit.upkeep(jumped + 23 * HOUR_US, &mut KeepNothing), []);
    disk.pass(HOUR_US as u64);
    let done = log.commit.upkeep(jumped + 24 * HOUR_US, &mut KeepNothing);
    assert!(done.contains(&Upkeep::ClockAgrees) && deleted(&done) > 0);
    assert!(log.read.oldest() > 1);
}

#[test]
fn a_time_leads_to_the_first_event_in_log_order_that_reaches_it_also_when_the_clock_went_back() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    let times: Vec<i64> = (0..120).map(|n| NOW_US + [n, n + 40, n - 30, n][n as usize % 4]).collect();
    for time in &times {
        append_bytes(&mut log, *time, 5_000);
    }
    let check = |log: &Log| {
        for time in NOW_US - 35..NOW_US + 170 {
            let first = times.iter().position(|t| *t >= time).unwrap_or(120) as u64 + 1;
            assert_eq!(log.read.seek_time(time), Ok(first), "{}", time - NOW_US);
        }
    };
    check(&log);
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    check(&log);
    drop(log);
    check(&open_on(&disk));
}

#[test]
fn times_and_durations_below_the_oldest_start_there_without_a_gap() {
    let disk = MemDisk::new();
    let mut log = hourly(&disk, LogConfig { retention_bytes: Some(150_000), ..config() }, 40);
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    let oldest = log.read.oldest();
    let start = |since| {
        let start = log.read.resolve(&since, NOW_US).expect("resolves");
        (start.next, start.gap)
    };
    assert_eq!(start(Since::Earliest), (oldest, None));
    assert_eq!(start(Since::At(0)), (oldest, None));
    assert_eq!(start(Since::Ago(Duration::from_secs(1_000 * 86_400))), (oldest, None));
    assert_eq!(start(Since::Ago(Duration::from_secs(3_600))), (39, None));
    assert_eq!(start(Since::Ago(Duration::ZERO)), (40, None));
    assert_eq!(start(Since::At(NOW_US + 1)), (41, None));
    assert_eq!(start(Since::After(log.read.cursor(3, 0))), (oldest, Some((4, oldest - 1))));
    assert_eq!(start(Since::After(log.read.cursor(oldest - 1, 0))), (oldest, None));
}

#[test]
fn a_cursor_above_the_head_or_of_an_epoch_to_come_is_refused() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a", "b"]);
    let resolve = |cursor| log.read.resolve(&Since::After(cursor), NOW_US).map(|start| start.next);
    let cursor = log.read.cursor(2, NOW_US);
    assert_eq!(resolve(cursor), Ok(3));
    for wrong in
        [Cursor { offset: 3, ..cursor }, Cursor { epoch: 2, ..cursor }, Cursor { offset: u64::MAX, ..cursor }]
    {
        assert_eq!(resolve(wrong), Err(SinceError::AboveHead { offset: wrong.offset, head: 2 }));
    }
    assert_eq!(resolve(Cursor { offset: u64::MAX, epoch: 0, ..cursor }), Ok(1));
}

#[test]
fn a_cursor_of_another_log_starts_five_minutes_before_it_and_declares_a_gap() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    for minute in 0..20 {
        append_bytes(&mut log, NOW_US + minute * 60_000_000, 10);
    }
    let own = log.read.cursor(1, NOW_US + 12 * 60_000_000);
    let foreign = Cursor { log_id: own.log_id ^ 1, epoch: 99, offset: u64::MAX, ..own };
    let start = log.read.resolve(&Since::After(foreign), NOW_US).expect("resolves");
    assert_eq!((start.next, start.gap, start.foreign), (8, Some((1, 7)), true));
}
