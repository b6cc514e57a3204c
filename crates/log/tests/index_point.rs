//! Index points: a start looks through what follows the last one only.

mod fixture;

use std::path::{Path, PathBuf};

use firehose_log::{Disk, LogConfig, MemDisk, Note};
use fixture::*;

const STEP: u64 = 100_000;

fn large() -> LogConfig {
    LogConfig { segment_bytes: 8 << 20, index_point_bytes: STEP, ..config() }
}

/// A disk with a log of `count` events of 10 kB in one segment, committed and kept in order, and one event behind.
fn disk_with_log(count: usize) -> MemDisk {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, large()).expect("opens");
    for n in 0..count {
        append_bytes(&mut log, NOW_US + n as i64, 10_000);
        commit(&mut log).expect("commits");
        log.commit.upkeep(NOW_US, &mut KeepNothing);
    }
    append(&mut log, &["not durable"]);
    disk
}

fn point(disk: &MemDisk) -> PathBuf {
    segments(disk)[0].with_extension("log.point")
}

#[test]
fn a_start_looks_through_no_more_than_a_step_whatever_the_length_of_the_log() {
    for count in [50, 100, 400] {
        let disk = disk_with_log(count);
        let log = try_open(&disk.copy(), large()).expect("opens");
        assert_eq!(log.read.head(), count as u64 + 1);
        assert!(log.recovery.checked_bytes <= 2 * STEP, "{}", log.recovery.checked_bytes);
        assert_eq!(log.recovery.notes, []);
        assert_eq!(all(&log).len(), count + 1);
        assert_eq!(log.read.seek_time(NOW_US + 7), Ok(8));
    }
}

#[test]
fn a_clean_stop_leaves_a_point_at_the_end() {
    let disk = MemDisk::new();
    let config = || LogConfig { index_point_bytes: 4 << 20, ..large() };
    let mut log = try_open(&disk, config()).expect("opens");
    for _ in 0..20 {
        append_bytes(&mut log, NOW_US, 30_000);
    }
    commit(&mut log).expect("commits");
    assert_eq!(log.commit.close(), Ok(20));
    drop(log);
    let log = try_open(&disk, config()).expect("opens");
    // The last interval of the index.
    assert!(log.recovery.checked_bytes < 100_000, "{}", log.recovery.checked_bytes);
    assert_eq!(all(&log).len(), 20);
}

#[test]
fn what_was_not_durable_when_the_point_was_stored_is_never_skipped() {
    for seed in 0..50 {
        let disk = disk_with_log(50);
        disk.lose_power_partly(seed);
        let log = try_open(&disk, large()).expect("opens");
        assert_eq!(log.read.head(), 50 + u64::from(log.read.head() == 51));
        assert_eq!(all(&log).len() as u64, log.read.head());
    }
}

#[test]
fn a_point_that_does_not_fit_is_ignored_with_a_line_and_the_whole_segment_is_looked_through() {
    let disk = disk_with_log(60);
    let (other, segment) = (disk_with_log(30), segments(&disk)[0].clone());
    // Another log has another salt.
    other.random();
    let foreign = MemDisk::new();
    foreign.random();
    drop(try_open(&foreign, large()));
    let good = disk.bytes(&point(&disk)).expect("a point");
    let mut flipped = good.clone();
    flipped[70] ^= 1;
    let mut newer = good.clone();
    newer[7] = b'2';
    let mut stranger = good.clone();
    stranger[40] ^= 1;
    let crc = crc32c::crc32c(&stranger[12..]);
    stranger[8..12].copy_from_slice(&crc.to_le_bytes());
    for bad in [&good[..good.len() - 1], &good[..10], &[], &flipped, &newer, &stranger] {
        let disk = disk.copy();
        disk.set_bytes(&point(&disk), bad);
        let log = try_open(&disk, large()).expect("opens");
        assert!(log.recovery.checked_bytes > 600_000);
        assert!(matches!(log.recovery.notes[..], [Note::PointIgnored { .. }]), "{:?}", log.recovery.notes);
        assert_eq!(all(&log).len(), 61);
    }
    // The segment is shorter than the point says: what was durable is gone, and that is said.
    let short = disk.copy();
    let bytes = disk.bytes(&segment).expect("bytes");
    short.set_bytes(&segment, &bytes[..200_000]);
    let log = try_open(&short, large()).expect("opens");
    assert!(log.recovery.notes.iter().any(|note| matches!(note, Note::PointIgnored { .. })));
    assert!(log.recovery.notes.iter().any(|note| matches!(note, Note::DurableLost { first: 20, .. })));
    assert_eq!(all(&log).len(), 19);
}

#[test]
fn damage_before_the_point_is_a_declared_gap_when_it_is_read() {
    let disk = disk_with_log(60);
    let segment = segments(&disk)[0].clone();
    let mut bytes = disk.bytes(&segment).expect("bytes");
    bytes[4096 + 10_059 * 5 + 3_000] ^= 1;
    bytes[4096 + 10_059 * 20..][..12_000].fill(0);
    disk.set_bytes(&segment, &bytes);
    let log = try_open(&disk, large()).expect("opens");
    assert!(log.recovery.checked_bytes <= 2 * STEP);
    let found = read_from(&log, 1);
    assert_eq!((found.gaps[0], found.gaps[1].0, found.gaps.last().expect("a gap").1), ((6, 6), 20, 22));
    assert_eq!(found.events.len() as u64 + found.gaps.iter().map(|(f, l)| l - f + 1).sum::<u64>(), 61);
}

#[test]
fn older_segments_cost_a_start_nothing_but_the_listing() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    for _ in 0..200 {
        append_bytes(&mut log, NOW_US, 20_000);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    drop(log);
    let all = segments(&disk);
    assert!(all.len() > 60);
    // Those that could not even be opened are not noticed.
    for path in &all[..all.len() - 4] {
        disk.deny(path);
    }
    let log = open_on(&disk);
    assert_eq!((log.read.head(), log.read.oldest()), (200, 1));
    assert!(
        Disk::list(&disk, Path::new("/log")).expect("lists").iter().all(|name| !name.ends_with(".point"))
    );
}
