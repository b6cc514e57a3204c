//! Opening a log after a crash, with torn tails and damage.

mod fixture;

use std::path::{Path, PathBuf};

use firehose_log::{BATCH_HEADER_BYTES, DiskCall, LogConfig, MemDisk, OpenError, RealDisk, Since, open};
use fixture::*;

const SEGMENT_HEADER_BYTES: usize = 4096;

/// A disk with a log of these batches, the path of its last segment, where that segment's batches start and where
/// the last one ends.
fn log_of(batches: &[&[&str]]) -> (MemDisk, PathBuf, Vec<usize>) {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    let mut starts = vec![SEGMENT_HEADER_BYTES];
    for batch in batches {
        let bytes = append_at(&mut log, NOW_US, &[batch]).remove(0).expect("placed").bytes_len();
        starts.push(starts.last().expect("not empty") + bytes);
    }
    commit(&mut log).expect("commits");
    drop(log);
    let path = segments(&disk).pop().expect("a segment");
    (disk, path, starts)
}

/// The same disk with other bytes in one file.
fn with(disk: &MemDisk, path: &Path, bytes: &[u8]) -> MemDisk {
    let copy = disk.copy();
    copy.set_bytes(path, bytes);
    copy
}

fn record_starts(bytes: &[u8], batch: usize, count: usize) -> Vec<usize> {
    let mut starts = vec![batch + BATCH_HEADER_BYTES];
    for _ in 0..count {
        let at = *starts.last().expect("not empty");
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        starts.push(at + 8 + len as usize);
    }
    starts
}

#[test]
fn a_log_cut_anywhere_keeps_every_whole_record_before_the_cut_and_goes_on() {
    let batches: &[&[&str]] = &[&["a"], &["bb", "ccc"], &["d", "ee", "f"]];
    let (disk, path, starts) = log_of(batches);
    let bytes = disk.bytes(&path).expect("bytes");
    let mut ends = Vec::new();
    for (batch, start) in batches.iter().zip(&starts) {
        ends.extend_from_slice(&record_starts(&bytes, *start, batch.len())[1..]);
    }
    for cut in SEGMENT_HEADER_BYTES..=*starts.last().expect("an end") {
        // Cut short, and cut within the room that was preallocated.
        for zeros in [0, 5_000] {
            let mut torn = bytes[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            let disk = with(&disk, &path, &torn);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected = &events(&["a", "bb", "ccc", "d", "ee", "f"])[..whole];
            let mut log = open_on(&disk);
            assert_eq!(all(&log), expected, "cut at {cut}");
            assert_eq!(log.recovery.gaps, []);
            assert_eq!(append(&mut log, &["next"]), whole as u64 + 1);
            commit(&mut log).expect("commits");
            drop(log);
            disk.lose_power();
            let log = open_on(&disk);
            assert_eq!(all(&log)[..whole], *expected);
            assert_eq!(all(&log)[whole..], [(whole as u64 + 1, "next".to_owned())]);
        }
    }
}

#[test]
fn a_bad_byte_anywhere_with_whole_batches_after_it_is_a_declared_gap_and_nothing_else_is_lost() {
    let (disk, path, starts) = log_of(&[&["a"], &["bb", "ccc", "d"], &["e"]]);
    let bytes = disk.bytes(&path).expect("bytes");
    let everything = events(&["a", "bb", "ccc", "d", "e"]);
    for at in SEGMENT_HEADER_BYTES..starts[2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let disk = with(&disk, &path, &damaged);
        for _ in 0..2 {
            let log = open_on(&disk);
            let found = read_from(&log, 1);
            let (first, last) = found.gaps[0];
            assert_eq!(found.gaps.len(), 1, "byte {at}");
            let kept: Vec<_> = everything.iter().filter(|(o, _)| *o < first || *o > last).cloned().collect();
            assert_eq!(found.events, kept, "byte {at}");
            assert_eq!(log.read.head(), 5);
            let in_header = (starts[1]..starts[1] + BATCH_HEADER_BYTES).contains(&at);
            assert_eq!(last - first + 1, if in_header { 3 } else { 1 }, "byte {at}");
        }
        let log = open_on(&disk.copy());
        assert_eq!(log.recovery.cut_bytes, 0);
    }
}

#[test]
fn recovery_reports_the_gap_it_declares() {
    let (disk, path, starts) = log_of(&[&["a"], &["b"], &["c"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    bytes[starts[1]..starts[2]].fill(0);
    let log = open_on(&with(&disk, &path, &bytes));
    assert_eq!(log.recovery.gaps, [(2, 2)]);
    assert_eq!(log.recovery.head, 3);
}

#[test]
fn a_bad_record_within_the_last_batch_is_a_gap_if_a_whole_one_follows_it_and_torn_if_not() {
    let (disk, path, starts) = log_of(&[&["a"], &["b", "c", "d"]]);
    let bytes = disk.bytes(&path).expect("bytes");
    let records = record_starts(&bytes, starts[1], 3);
    let open_with_bad = |record: usize| {
        let mut bytes = bytes.clone();
        bytes[records[record] + 4] ^= 1;
        open_on(&with(&disk, &path, &bytes))
    };
    for (record, gap) in [(0, (2, 2)), (1, (3, 3))] {
        let log = open_with_bad(record);
        assert_eq!((log.recovery.gaps.clone(), log.recovery.cut_bytes), (vec![gap], 0));
        assert_eq!(log.read.head(), 4);
        assert_eq!(read_from(&log, 1).gaps, [gap]);
    }
    let log = open_with_bad(2);
    assert_eq!((log.recovery.gaps.len(), log.recovery.carried_over, log.read.head()), (0, 2, 3));
    assert_eq!(all(&log), events(&["a", "b", "c"]));
}

#[test]
fn a_log_in_which_nothing_is_whole_is_empty_and_goes_on() {
    let (disk, path, starts) = log_of(&[&["a"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    bytes[starts[0] + 50] ^= 1;
    let mut log = open_on(&with(&disk, &path, &bytes));
    assert_eq!((log.read.head(), log.read.oldest()), (0, 1));
    assert!(log.recovery.cut_bytes > 0);
    assert_eq!(append(&mut log, &["b"]), 1);
}

#[test]
fn a_payload_that_is_itself_a_log_does_not_pass_for_batches_when_the_tail_is_torn() {
    let elsewhere = MemDisk::new();
    // Another log has another salt.
    firehose_log::Disk::random(&elsewhere);
    let mut other = open_on(&elsewhere);
    for payload in ["w", "x", "y", "z"] {
        append(&mut other, &[payload]);
    }
    let dump = elsewhere.bytes(&segments(&elsewhere)[0]).expect("bytes");
    let batches = &dump[SEGMENT_HEADER_BYTES..];

    let (disk, path, starts) = log_of(&[&["a"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    bytes.truncate(starts[1]);
    bytes.extend_from_slice(&[0x55; 100]);
    bytes.extend_from_slice(batches);
    let log = open_on(&with(&disk, &path, &bytes));
    assert_eq!(all(&log), events(&["a"]));
    assert!(log.recovery.cut_bytes > 100);
}

#[test]
fn a_segment_with_one_damaged_header_copy_is_read_and_one_with_both_by_what_others_say() {
    let (disk, path, _) = log_of(&[&["a"], &["b"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    bytes[..128].fill(0xff);
    let once = with(&disk, &path, &bytes);
    assert_eq!(all(&open_on(&once)), events(&["a", "b"]));

    // The second start's segment, with both copies gone: the salt is known from the first's.
    let mut log = open_on(&once);
    append(&mut log, &["c"]);
    commit(&mut log).expect("commits");
    drop(log);
    let path = segments(&once).pop().expect("a segment");
    let mut bytes = once.bytes(&path).expect("bytes");
    bytes[..SEGMENT_HEADER_BYTES].fill(0xff);
    let mut log = open_on(&with(&once, &path, &bytes));
    assert_eq!(all(&log), events(&["a", "b", "c"]));
    assert_eq!(append(&mut log, &["d"]), 4);
}

#[test]
fn a_log_whose_only_header_is_gone_is_set_aside_and_a_new_one_begins() {
    let (disk, path, _) = log_of(&[&["a"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    bytes[..SEGMENT_HEADER_BYTES].fill(0xff);
    let disk = with(&disk, &path, &bytes);
    let log = open_on(&disk);
    assert_eq!(log.read.head(), 0);
    assert!(log.recovery.created);
    assert_eq!(disk.bytes(&path.with_extension("log.damaged")), Some(bytes));
}

#[test]
fn a_segment_missing_in_the_middle_is_a_gap() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    for _ in 0..20 {
        append_bytes(&mut log, NOW_US, 10_000);
    }
    commit(&mut log).expect("commits");
    drop(log);
    let gone = segments(&disk)[1].clone();
    firehose_log::Disk::remove(&disk, &gone).expect("removes");
    let log = open_on(&disk);
    let found = read_from(&log, 1);
    assert_eq!(found.gaps.len(), 1);
    let (first, last) = found.gaps[0];
    assert_eq!(found.events.len() as u64, 20 - (last - first + 1));
}

#[test]
fn each_start_begins_an_epoch_and_a_cursor_of_an_earlier_one_is_clamped_to_its_end() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a", "b"]);
    commit(&mut log).expect("commits");
    append(&mut log, &["c", "seen, and lost"]);
    let lost = log.read.cursor(4, NOW_US);
    let kept = log.read.cursor(2, NOW_US);
    assert_eq!(lost.epoch, 1);
    drop(log);
    disk.lose_power();

    let mut log = open_on(&disk);
    assert_eq!(log.read.epoch(), 2);
    append(&mut log, &["d", "e", "f"]);
    let next = |log: &firehose_log::Log, cursor| {
        log.read.resolve(&Since::After(cursor), NOW_US).map(|start| start.next)
    };
    assert_eq!(next(&log, lost), Ok(3));
    assert_eq!(next(&log, kept), Ok(3));
    commit(&mut log).expect("commits");
    drop(log);

    for epoch in 3..6 {
        let log = open_on(&disk);
        assert_eq!(log.read.epoch(), epoch);
        assert_eq!(next(&log, lost), Ok(3));
        // The same event has the same cursor as ever.
        assert_eq!(log.read.cursor(2, NOW_US), kept);
        assert_eq!(log.read.cursor(3, NOW_US).epoch, 2);
        assert_eq!(log.read.log_id(), kept.log_id);
    }
}

#[test]
fn records_carried_over_from_a_torn_batch_keep_their_epoch_and_cursors() {
    let (disk, path, starts) = log_of(&[&["a"], &["b", "c", "d"]]);
    let bytes = disk.bytes(&path).expect("bytes");
    let disk = with(&disk, &path, &bytes[..starts[2] - 1]);
    let log = open_on(&disk);
    let cursor = log.read.cursor(3, NOW_US);
    assert_eq!(cursor.epoch, 1);
    assert_eq!(log.read.resolve(&Since::After(cursor), NOW_US).expect("resolves").next, 4);
    assert_eq!(log.read.cursor(4, NOW_US).epoch, 2);
}

#[test]
fn records_carried_over_from_the_first_batch_of_an_epoch_do_not_hide_where_the_epoch_before_ended() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["lost"]);
    let lost = log.read.cursor(1, NOW_US);
    drop(log);
    disk.lose_power();
    let mut log = open_on(&disk);
    append(&mut log, &["a", "b"]);
    drop(log);
    let path = segments(&disk).pop().expect("a segment");
    let mut bytes = disk.bytes(&path).expect("bytes");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("a byte");
    bytes[last] ^= 1;
    let log = open_on(&with(&disk, &path, &bytes));
    assert_eq!(all(&log), events(&["a"]));
    assert_eq!(log.read.resolve(&Since::After(lost), NOW_US).expect("resolves").next, 1);
}

#[test]
fn a_start_that_fails_halfway_loses_nothing() {
    for call in [
        DiskCall::Create,
        DiskCall::Write,
        DiskCall::Sync,
        DiskCall::Rename,
        DiskCall::SyncDir,
        DiskCall::Read,
    ] {
        let (disk, _, _) = log_of(&[&["a"], &["b"]]);
        disk.fail(call, std::io::ErrorKind::Other);
        assert!(matches!(try_open(&disk, config()), Err(OpenError::Io(..))), "{call:?}");
        assert_eq!(all(&open_on(&disk)), events(&["a", "b"]), "{call:?}");
        disk.lose_power();
        assert_eq!(all(&open_on(&disk)), events(&["a", "b"]), "{call:?}");
    }
}

#[test]
fn restarts_without_events_leave_no_files_behind() {
    let disk = MemDisk::new();
    for _ in 0..5 {
        let mut log = open_on(&disk);
        log.commit.upkeep(NOW_US, &mut KeepNothing);
    }
    drop(open_on(&disk));
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn deleted_and_damaged_indexes_are_made_anew() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    for n in 0..30 {
        append_bytes(&mut log, NOW_US + n, 10_000);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    drop(log);
    let indexes: Vec<_> = segments(&disk).iter().map(|path| path.with_extension("log.index")).collect();
    let good = disk.bytes(&indexes[0]).expect("an index");
    let mut bad = good.clone();
    bad[60] ^= 1;
    disk.set_bytes(&indexes[0], &bad);
    firehose_log::Disk::remove(&disk, &indexes[1]).expect("removes");
    let log = open_on(&disk);
    assert_eq!(all(&log).len(), 30);
    assert_eq!(log.read.seek_time(NOW_US + 3), Ok(4));
    assert_eq!(disk.bytes(&indexes[0]), Some(good));
    assert!(disk.bytes(&indexes[1]).is_some());
}

#[test]
fn a_folder_in_use_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = || LogConfig { segment_bytes: 1 << 20, ..LogConfig::new(dir.path()) };
    let log = open(config(), std::sync::Arc::new(RealDisk::new()), NOW_US).expect("opens");
    let error = open(config(), std::sync::Arc::new(RealDisk::new()), NOW_US).expect_err("in use");
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(!error.to_string().contains('\n'));
    drop(log);
    open(config(), std::sync::Arc::new(RealDisk::new()), NOW_US).expect("opens again");
}

#[test]
fn a_log_of_a_newer_format_is_refused_and_left_alone() {
    let (disk, path, _) = log_of(&[&["a"]]);
    let mut bytes = disk.bytes(&path).expect("bytes");
    for copy in [0, 2048] {
        bytes[copy + 8] = 2;
        let crc = crc32c::crc32c(&bytes[copy..copy + 124]);
        bytes[copy + 124..copy + 128].copy_from_slice(&crc.to_le_bytes());
    }
    let disk = with(&disk, &path, &bytes);
    let error = try_open(&disk, config()).expect_err("newer");
    assert!(matches!(error, OpenError::NewerFormat { version: 2, .. }), "{error}");
    assert_eq!(disk.bytes(&path), Some(bytes));
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let disk = MemDisk::new();
    disk.fail(DiskCall::Create, std::io::ErrorKind::PermissionDenied);
    assert!(matches!(try_open(&disk, config()), Err(OpenError::NotWritable(..))));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let real = std::sync::Arc::new(RealDisk::new());
    assert!(matches!(open(LogConfig::new(file.join("data")), real, NOW_US), Err(OpenError::NotWritable(..))));
}
