//! A wall clock that goes back, jumps ahead and returns: nothing is deleted for it, and cursors and times stay right.

mod fixture;

use std::path::Path;
use std::time::Duration;

use firehose_log::{Disk, Log, LogConfig, MemDisk, Since, Upkeep, accept_clock, clock_hold};
use fixture::*;

const HOUR_US: i64 = 3_600_000_000;
const TEN_YEARS_US: i64 = 3_650 * DAY_US;

/// A log beside the times of its events, in log order.
struct Clocked {
    disk: MemDisk,
    log: Log,
    times: Vec<i64>,
    now_us: i64,
}

fn hourly_retention() -> LogConfig {
    LogConfig { retention_age_secs: Some(30 * 86_400), ..config() }
}

impl Clocked {
    fn new() -> Clocked {
        let disk = MemDisk::new();
        let log = try_open(&disk, hourly_retention()).expect("opens");
        let mut clocked = Clocked { disk, log, times: Vec::new(), now_us: NOW_US };
        clocked.hours(20);
        clocked
    }

    /// So many hours pass, with an event in each.
    fn hours(&mut self, count: usize) -> Vec<Upkeep> {
        let mut done = Vec::new();
        for _ in 0..count {
            self.now_us += HOUR_US;
            self.disk.pass(HOUR_US as u64);
            self.times.push(self.now_us);
            append_bytes(&mut self.log, self.now_us, 10_000);
            commit(&mut self.log).expect("commits");
            done.extend(self.log.commit.upkeep(self.now_us, &mut KeepNothing));
        }
        done
    }

    fn restart(mut self) -> Clocked {
        drop(self.log);
        self.log = try_open(&self.disk, hourly_retention()).expect("opens");
        self
    }

    fn check(&self) {
        assert_eq!(self.log.read.oldest(), 1, "something was deleted");
        assert_eq!(all(&self.log).len(), self.times.len());
        let first =
            |time: i64| self.times.iter().position(|t| *t >= time).unwrap_or(self.times.len()) as u64 + 1;
        for time in self.times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
            let start = self.log.read.resolve(&Since::At(time), self.now_us).expect("resolves");
            assert_eq!(start.next, first(time));
        }
        let ago = Since::Ago(Duration::from_secs(90 * 60));
        let start = self.log.read.resolve(&ago, self.now_us).expect("resolves");
        assert_eq!(start.next, first(self.now_us - 90 * 60_000_000));
        for (offset, time) in (1..).zip(&self.times) {
            let cursor = self.log.read.cursor(offset, *time);
            let start = self.log.read.resolve(&Since::After(cursor), self.now_us).expect("resolves");
            assert_eq!((start.next, start.gap), (offset + 1, None));
        }
    }
}

#[test]
fn an_hour_back_changes_nothing_but_what_a_time_means() {
    let mut clocked = Clocked::new();
    clocked.now_us -= HOUR_US;
    assert_eq!(clocked.hours(20), []);
    clocked.check();
    assert!(!clocked.log.read.clock_is_held());
    clocked.restart().check();
}

#[test]
fn ten_years_ahead_and_back_deletes_nothing_and_leaves_cursors_and_times_right() {
    let mut clocked = Clocked::new();
    clocked.now_us += TEN_YEARS_US;
    let done = clocked.hours(5);
    assert!(matches!(done[..], [Upkeep::ClockJumped { by_us }] if by_us == TEN_YEARS_US));
    assert!(clocked.log.read.clock_is_held());
    clocked.check();
    clocked.now_us -= TEN_YEARS_US;
    assert!(matches!(clocked.hours(5)[..], [Upkeep::ClockJumped { by_us }] if by_us == -TEN_YEARS_US));
    clocked.check();
    let mut clocked = clocked.restart();
    assert!(clocked.log.read.clock_is_held());
    clocked.check();
    // A start sees that the newest event is ten years ahead; then the clock agrees with itself for a day.
    let done = clocked.hours(30);
    assert!(done.contains(&Upkeep::ClockAgrees), "{done:?}");
    assert!(!clocked.log.read.clock_is_held());
    clocked.check();
}

#[test]
fn a_hold_says_why_also_of_a_log_that_is_open_and_can_be_accepted_while_it_runs() {
    let dir = Path::new("/log");
    let mut clocked = Clocked::new();
    assert_eq!(clock_hold(dir, &clocked.disk).expect("reads"), None);
    clocked.now_us -= 3 * DAY_US;
    clocked.hours(1);
    let hold = clock_hold(dir, &clocked.disk).expect("reads").expect("held");
    assert_eq!(hold.jump, Some((-3 * DAY_US, clocked.now_us)));
    assert!(hold.to_string().contains("off by -259200 s when it said 2026-"), "{hold}");
    assert!(clocked.log.read.clock_is_held());

    assert!(clocked.log.commit.accept_clock(clocked.now_us).expect("accepts"));
    assert!(!clocked.log.read.clock_is_held());
    assert_eq!(clock_hold(dir, &clocked.disk).expect("reads"), None);
    assert_eq!(clocked.hours(3), []);
    assert!(!clocked.log.commit.accept_clock(clocked.now_us).expect("accepts"));
    // Nor does a restart doubt it because of the newest events' times.
    clocked.disk.lose_power();
    let mut clocked = clocked.restart();
    assert_eq!(clocked.hours(1), []);
    clocked.check();
}

#[test]
fn the_clock_of_a_log_that_is_not_open_can_be_accepted_and_that_of_an_open_one_not_behind_its_back() {
    let dir = Path::new("/log");
    let mut clocked = Clocked::new();
    clocked.now_us += TEN_YEARS_US;
    clocked.hours(1);
    clocked.now_us -= TEN_YEARS_US;
    let error = accept_clock(dir, &clocked.disk, clocked.now_us).expect_err("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    let Clocked { disk, log, times, now_us } = clocked;
    drop(log);
    assert!(accept_clock(dir, &disk, now_us).expect("accepts"));
    assert!(!accept_clock(dir, &disk, now_us).expect("accepts"));
    disk.lose_power();
    let log = try_open(&disk, hourly_retention()).expect("opens");
    let mut clocked = Clocked { disk, log, times, now_us };
    assert!(!clocked.log.read.clock_is_held());
    assert_eq!(clocked.hours(3), []);
    clocked.check();
}

#[test]
fn a_hold_file_that_says_nothing_or_is_damaged_still_holds() {
    for text in ["", "x y z", "99999999999999999999 1", "7"] {
        let disk = MemDisk::new();
        disk.set_bytes(Path::new("/log/clock-hold"), text.as_bytes());
        let hold = clock_hold(Path::new("/log"), &disk).expect("reads").expect("held");
        assert_eq!(hold.jump, None);
        assert!(open_on(&disk).read.clock_is_held());
        assert!(disk.list(Path::new("/log")).expect("lists").contains(&"clock-hold".to_owned()));
    }
}
