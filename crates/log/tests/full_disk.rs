//! Starting on a full disk, and starts that end at any call.

mod fixture;

use std::io::ErrorKind;

use firehose_log::{MemDisk, Note, Refusal, Since, Upkeep};
use fixture::*;

/// A disk with a log whose last batch is torn behind its second record, or is not.
fn disk_with_log(torn: bool) -> MemDisk {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    append(&mut log, &["b", "c", "d"]);
    commit(&mut log).expect("commits");
    drop(log);
    if torn {
        let path = segments(&disk).pop().expect("a segment");
        let mut bytes = disk.bytes(&path).expect("bytes");
        let last = bytes.iter().rposition(|byte| *byte != 0).expect("a byte");
        bytes[last] ^= 1;
        disk.set_bytes(&path, &bytes);
    }
    disk
}

#[test]
fn wherever_a_start_finds_the_disk_full_it_opens_for_reading_and_begins_the_epoch_once_there_is_room() {
    for torn in [false, true] {
        let expected = if torn { events(&["a", "b", "c"]) } else { events(&["a", "b", "c", "d"]) };
        let next = expected.len() as u64 + 1;
        for calls in 0.. {
            let disk = disk_with_log(torn);
            disk.fail_after(calls, ErrorKind::StorageFull);
            let mut log = open_on(&disk);
            let cursor = log.read.cursor(next - 1, NOW_US);
            assert_eq!((all(&log), log.read.epoch()), (expected.clone(), 2), "after {calls} calls");
            if log.recovery.begun {
                assert!(calls > 3);
                break;
            }
            assert!(log.recovery.notes.iter().any(|note| matches!(note, Note::NoRoom { .. })));
            assert_eq!(append_at(&mut log, NOW_US, &[&["x"]]).remove(0).err(), Some(Refusal::DiskFull));
            // Upkeep tries, in vain.
            log.commit.upkeep(NOW_US, &mut KeepNothing);
            assert_eq!(append_at(&mut log, NOW_US, &[&["x"]]).remove(0).err(), Some(Refusal::DiskFull));
            disk.heal();
            let done = log.commit.upkeep(NOW_US, &mut KeepNothing);
            assert!(done.iter().any(|done| matches!(done, Upkeep::DiskRecovered { .. })), "{done:?}");
            assert_eq!(append(&mut log, &["next"]), next);
            assert_eq!(commit(&mut log), Ok(next));
            assert_eq!(log.read.cursor(next - 1, NOW_US), cursor);
            drop(log);
            disk.lose_power();
            let log = open_on(&disk);
            assert_eq!(all(&log)[..expected.len()], expected);
            assert_eq!(all(&log)[expected.len()..], [(next, "next".to_owned())]);
            assert_eq!(log.read.epoch(), 3);
        }
    }
}

#[test]
fn starts_on_a_disk_that_stays_full_take_the_same_epoch_and_power_cuts_between_them_lose_nothing() {
    for torn in [false, true] {
        for calls in 0..12 {
            for seed in 0..20 {
                let disk = disk_with_log(torn);
                let expected = if torn { events(&["a", "b", "c"]) } else { events(&["a", "b", "c", "d"]) };
                for start in 0..3 {
                    disk.fail_after(if start == 0 { calls } else { 0 }, ErrorKind::StorageFull);
                    let log = open_on(&disk);
                    assert_eq!(all(&log), expected);
                    let cursor = log.read.cursor(expected.len() as u64, NOW_US);
                    let resumed = log.read.resolve(&Since::After(cursor), NOW_US).expect("resolves");
                    assert_eq!(resumed.next, expected.len() as u64 + 1);
                    if calls == 0 {
                        assert_eq!((log.recovery.begun, log.read.epoch()), (false, 2));
                    }
                    drop(log);
                    disk.heal();
                    disk.lose_power_partly(seed * 3 + start);
                }
                let mut log = open_on(&disk);
                assert!(log.recovery.begun);
                assert_eq!(append(&mut log, &["next"]), expected.len() as u64 + 1);
            }
        }
    }
}

#[test]
fn a_start_that_ends_at_any_call_loses_nothing_whatever_the_power_cut_leaves() {
    for torn in [false, true] {
        let expected = if torn { events(&["a", "b", "c"]) } else { events(&["a", "b", "c", "d"]) };
        for calls in 0..16 {
            for seed in 0..40 {
                let disk = disk_with_log(torn);
                disk.fail_after(calls, ErrorKind::Other);
                drop(try_open(&disk, config()));
                disk.heal();
                disk.lose_power_partly(seed);
                assert_eq!(all(&open_on(&disk)), expected, "after {calls} calls, seed {seed}");
            }
        }
    }
}

#[test]
fn a_new_log_on_a_full_disk_is_empty_until_there_is_room() {
    let disk = MemDisk::new();
    disk.fail_after(0, ErrorKind::StorageFull);
    let mut log = open_on(&disk);
    assert_eq!((log.read.head(), log.read.oldest(), log.read.epoch()), (0, 1, 1));
    assert_eq!(all(&log), []);
    assert_eq!(commit(&mut log), Ok(0));
    assert_eq!(append_at(&mut log, NOW_US, &[&["x"]]).remove(0).err(), Some(Refusal::DiskFull));
    assert_eq!(log.read.seek_time(NOW_US), Ok(1));
    disk.heal();
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    assert_eq!(append(&mut log, &["a"]), 1);
    assert_eq!(all(&log), events(&["a"]));
}

#[test]
fn below_the_reserve_the_epoch_waits_and_one_line_says_when_it_begins() {
    let disk = disk_with_log(false);
    disk.fail_after(0, ErrorKind::StorageFull);
    let config = firehose_log::LogConfig { disk_reserve_bytes: 1 << 20, ..config() };
    let mut log = try_open(&disk, config).expect("opens");
    disk.heal();
    disk.set_free_bytes(Some(1000));
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    assert_eq!(append_at(&mut log, NOW_US, &[&["x"]]).remove(0).err(), Some(Refusal::DiskFull));
    disk.set_free_bytes(None);
    assert!(matches!(log.commit.upkeep(NOW_US, &mut KeepNothing)[..], [Upkeep::DiskRecovered { .. }]));
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    assert_eq!(append(&mut log, &["e"]), 5);
}

#[test]
fn what_a_failed_sync_left_in_memory_only_is_written_again_by_the_next_start() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a", "b"]);
    // The sync fails, and so does writing anew: the log is read-only, and the process ends.
    disk.fail(firehose_log::DiskCall::Sync, ErrorKind::Other);
    disk.fail(firehose_log::DiskCall::Create, ErrorKind::Other);
    commit(&mut log).expect_err("cannot be made durable");
    drop(log);
    assert_eq!(all(&open_on(&disk)), events(&["a", "b"]));
    disk.lose_power();
    assert_eq!(all(&open_on(&disk)), events(&["a", "b"]));
}

#[test]
fn what_cannot_be_written_again_yet_is_read_and_not_called_durable() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    assert_eq!((log.append.durable(), commit(&mut log).expect("it works"), log.append.durable()), (0, 1, 1));
    append(&mut log, &["b"]);
    drop(log);
    disk.fail(firehose_log::DiskCall::Sync, ErrorKind::StorageFull);
    let mut log = open_on(&disk);
    assert_eq!(all(&log), events(&["a", "b"]));
    assert_eq!((log.append.head(), log.append.durable()), (2, 0));
    assert_eq!(commit(&mut log).expect("nothing failed that was to be acknowledged"), 0);
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    assert_eq!((commit(&mut log).expect("there is room"), log.append.durable()), (2, 2));
}

#[test]
fn without_room_for_the_epoch_what_there_is_of_the_log_is_made_durable_and_survives_a_power_cut() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        append(&mut log, &["a", "b"]);
        drop(log);
        disk.fail(firehose_log::DiskCall::Create, ErrorKind::StorageFull);
        let mut log = open_on(&disk);
        assert!(!log.recovery.begun);
        assert_eq!((log.append.head(), log.append.durable(), commit(&mut log)), (2, 2, Ok(2)));
        drop(log);
        disk.lose_power_partly(seed);
        assert_eq!(all(&open_on(&disk)), events(&["a", "b"]));
    }
}

#[test]
fn an_event_is_not_half_redacted_while_the_epoch_waits_for_room() {
    for torn in [false, true] {
        let disk = disk_with_log(torn);
        disk.fail_after(0, ErrorKind::StorageFull);
        let mut log = open_on(&disk);
        assert!(!log.recovery.begun);
        let before = all(&log);
        for (offset, _) in &before {
            let why = log.commit.redact(*offset, NOW_US).expect_err("there is no room").to_string();
            assert!(why.contains("no room"), "{why}");
        }
        assert_eq!(all(&log), before);
        disk.heal();
        log.commit.upkeep(NOW_US, &mut KeepNothing);
        log.commit.redact(2, NOW_US).expect("there is room");
        let tombstone = |(offset, text)| if offset == 2 { (2, String::new()) } else { (offset, text) };
        assert_eq!(all(&log), before.into_iter().map(tombstone).collect::<Vec<_>>());
    }
}
