//! Appending, committing and reading, and what happens when the disk fails meanwhile.

mod fixture;

use std::io::ErrorKind;

use firehose_log::{Chunk, DiskCall, MemDisk, Refusal, Upkeep, Wait};
use fixture::*;

#[test]
fn what_is_appended_is_read_back_in_order_with_dense_offsets_from_one() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    assert_eq!((log.read.head(), log.read.oldest()), (0, 1));
    append(&mut log, &["a", "b"]);
    append_at(&mut log, NOW_US, &[&["c"], &["d", "e"], &["f"]]);
    assert_eq!(log.read.head(), 6);
    assert_eq!(all(&log), events(&["a", "b", "c", "d", "e", "f"]));
    for from in 1..=6 {
        assert_eq!(
            read_from(&log, from).events,
            events(&["a", "b", "c", "d", "e", "f"])[from as usize - 1..]
        );
    }
}

#[test]
fn all_submissions_of_a_turn_take_one_write() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    let before = disk.writes();
    append_at(&mut log, NOW_US, &[&["a"], &["b"], &["c"], &["d"]]);
    assert_eq!(disk.writes() - before, 1);
}

#[test]
fn a_turn_of_more_submissions_than_one_write_takes_is_placed_in_order() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    let payloads: Vec<String> = (0..3_000).map(|n| n.to_string()).collect();
    let singles: Vec<[&str; 1]> = payloads.iter().map(|payload| [payload.as_str()]).collect();
    let groups: Vec<&[&str]> = singles.iter().map(|single| &single[..]).collect();
    let answers = append_at(&mut log, NOW_US, &groups);
    assert!(answers.iter().enumerate().all(|(n, answer)| answer.as_ref().unwrap().base() == n as u64 + 1));
    assert_eq!(all(&log), events(&payloads.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn an_empty_draft_is_answered_and_takes_no_offset() {
    let mut log = open_on(&MemDisk::new());
    let answers = append_at(&mut log, NOW_US, &[&["a"], &[], &["b"]]);
    assert!(!answers[1].as_ref().expect("answered").is_logged());
    assert_eq!(all(&log), events(&["a", "b"]));
}

#[test]
fn commit_makes_everything_appended_survive_a_power_failure() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a", "b"]);
    assert_eq!(commit(&mut log), Ok(2));
    append(&mut log, &["c"]);
    drop(log);
    disk.lose_power();
    assert_eq!(all(&open_on(&disk)), events(&["a", "b"]));
}

#[test]
fn segments_follow_each_other_and_are_durable_after_a_commit_whether_made_ahead_or_not() {
    for upkeep in [true, false] {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        for _ in 0..50 {
            append_bytes(&mut log, NOW_US, 10_000);
            if upkeep {
                assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
            }
        }
        assert_eq!(commit(&mut log), Ok(50));
        let count = segments(&disk).len();
        assert!(count > 7, "{count} segments");
        drop(log);
        disk.lose_power();
        let log = open_on(&disk);
        assert_eq!(all(&log).len(), 50);
        assert_eq!(log.read.head(), 50);
    }
}

#[test]
fn a_batch_larger_than_a_segment_is_stored_and_read() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    append_bytes(&mut log, NOW_US, 3_000_000);
    append(&mut log, &["b"]);
    let lens: Vec<usize> = all(&log).iter().map(|(_, text)| text.len()).collect();
    assert_eq!(lens, [1, 3_000_000, 1]);
}

#[test]
fn a_read_that_may_not_wait_is_answered_from_memory_or_says_that_it_is_blocked() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, firehose_log::LogConfig { tail_bytes: 500, ..config() }).expect("opens");
    for payload in ["a", "b", "c", "d"] {
        append(&mut log, &[payload]);
        commit(&mut log).expect("commits");
    }
    disk.set_cold(true);
    assert!(matches!(log.read.read(1, 4, 1_000, Wait::No), Ok(Chunk::Blocked)));
    let Ok(Chunk::Batches(tail)) = log.read.read(4, 4, 1_000, Wait::No) else { panic!("in memory") };
    assert_eq!((tail[0].base(), tail.len()), (4, 1));
    disk.set_cold(false);
    let Ok(Chunk::Batches(cached)) = log.read.read(1, 2, 1_000, Wait::No) else { panic!("in the cache") };
    assert_eq!((cached[0].base(), cached.len()), (1, 2));
    assert!(matches!(log.read.read(5, 9, 1_000, Wait::No), Ok(Chunk::End)));
    assert!(matches!(log.read.read(3, 2, 1_000, Wait::No), Ok(Chunk::End)));
}

#[test]
fn a_failed_or_short_write_is_refused_and_leaves_nothing_behind() {
    for short in [None, Some(3), Some(100), Some(150)] {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        append(&mut log, &["a"]);
        match short {
            None => disk.fail(DiskCall::Write, ErrorKind::Other),
            Some(bytes) => disk.write_short(bytes),
        }
        let answers = append_at(&mut log, NOW_US, &[&["refused"], &["refused too"]]);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Refusal::WriteFailed(_)))));
        assert_eq!(all(&log), events(&["a"]));
        assert_eq!(append(&mut log, &["b"]), 2);
        assert_eq!(all(&log), events(&["a", "b"]));
        drop(log);
        let log = open_on(&disk.copy());
        assert_eq!(all(&log), events(&["a", "b"]));
        assert_eq!(log.recovery.cut_bytes, 0);
    }
}

#[test]
fn a_failed_write_that_cannot_be_cut_back_is_left_behind_in_its_segment() {
    for before in [&["a", "b"][..], &[]] {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        for payload in before {
            append(&mut log, &[payload]);
        }
        disk.write_short(150);
        disk.fail(DiskCall::Truncate, ErrorKind::Other);
        let answers = append_at(&mut log, NOW_US, &[&["refused"], &["refused too"]]);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Refusal::WriteFailed(_)))));
        append(&mut log, &["c"]);
        let expected: Vec<&str> = before.iter().copied().chain(["c"]).collect();
        assert_eq!(all(&log), events(&expected));
        commit(&mut log).expect("commits");
        drop(log);
        disk.lose_power();
        assert_eq!(all(&open_on(&disk)), events(&expected));
    }
}

#[test]
fn a_write_that_can_neither_be_cut_back_nor_left_behind_makes_the_log_read_only() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    disk.write_short(10);
    disk.fail(DiskCall::Truncate, ErrorKind::Other);
    disk.fail(DiskCall::Create, ErrorKind::Other);
    assert!(append_at(&mut log, NOW_US, &[&["b"]])[0].is_err());
    assert!(matches!(append_at(&mut log, NOW_US, &[&["c"]])[0], Err(Refusal::ReadOnly(_))));
    assert!(log.read.read_only().is_some_and(|why| why.contains("a write failed")));
    assert!(commit(&mut log).is_err());
    assert_eq!(all(&log), events(&["a"]));
    drop(log);
    assert_eq!(all(&open_on(&disk)), events(&["a"]));
}

#[test]
fn what_such_a_write_left_is_cut_off_as_soon_as_the_disk_lets_it() {
    for by_close in [false, true] {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        append(&mut log, &["a"]);
        disk.write_short(150);
        disk.fail(DiskCall::Truncate, ErrorKind::Other);
        disk.fail(DiskCall::Create, ErrorKind::Other);
        let answers = append_at(&mut log, NOW_US, &[&["refused, and whole"], &["refused too"]]);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Refusal::WriteFailed(_)))));
        let found = open_on(&disk.copy()).read.head();
        assert_eq!(found, 2, "it stands there, and nothing says that it does not count");
        match by_close {
            true => drop(log.commit.close()),
            false => drop(log.commit.upkeep(NOW_US, &mut KeepNothing)),
        }
        assert!(matches!(append_at(&mut log, NOW_US, &[&["c"]])[0], Err(Refusal::ReadOnly(_))));
        drop(log);
        assert_eq!(all(&open_on(&disk)), events(&["a"]));
    }
}

#[test]
fn after_a_failed_sync_what_was_not_durable_stands_in_a_new_segment() {
    for committed in [0, 2] {
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        for payload in ["a", "b", "c", "d"].iter().enumerate() {
            append(&mut log, &[payload.1]);
            if payload.0 + 1 == committed {
                commit(&mut log).expect("commits");
            }
        }
        disk.fail(DiskCall::Sync, ErrorKind::Other);
        assert_eq!(commit(&mut log), Ok(4));
        assert!(
            log.commit
                .upkeep(NOW_US, &mut KeepNothing)
                .iter()
                .any(|done| matches!(done, Upkeep::Rewritten { .. }))
        );
        assert_eq!(append(&mut log, &["e"]), 5);
        assert_eq!(all(&log), events(&["a", "b", "c", "d", "e"]));
        assert_eq!(commit(&mut log), Ok(5));
        drop(log);
        disk.lose_power();
        assert_eq!(all(&open_on(&disk)), events(&["a", "b", "c", "d", "e"]));
    }
}

#[test]
fn a_failed_sync_over_several_segments_is_made_good() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    for n in 0..40 {
        append_bytes(&mut log, NOW_US, 10_000);
        if n == 10 {
            commit(&mut log).expect("commits");
        }
    }
    disk.fail(DiskCall::Sync, ErrorKind::Other);
    assert_eq!(commit(&mut log), Ok(40));
    assert_eq!(all(&log).len(), 40);
    drop(log);
    disk.lose_power();
    assert_eq!(all(&open_on(&disk)).len(), 40);
}

#[test]
fn when_writing_anew_fails_too_the_log_is_read_only_and_nothing_is_acknowledged() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    commit(&mut log).expect("commits");
    append(&mut log, &["b"]);
    disk.fail(DiskCall::Sync, ErrorKind::Other);
    disk.fail(DiskCall::Sync, ErrorKind::Other);
    assert_eq!(log.read.read_only(), None);
    assert!(commit(&mut log).is_err());
    assert!(commit(&mut log).is_err());
    assert!(log.read.read_only().is_some_and(|why| why.contains("a sync failed")));
    assert!(matches!(append_at(&mut log, NOW_US, &[&["c"]])[0], Err(Refusal::ReadOnly(_))));
    assert_eq!(texts(&read_from(&log, 1)), ["a", "b"]);
    drop(log);
    disk.lose_power();
    assert_eq!(all(&open_on(&disk)), events(&["a"]));
}

#[test]
fn a_full_disk_refuses_and_recovers_alone_when_there_is_room_again() {
    let disk = MemDisk::new();
    let mut log = open_on(&disk);
    append(&mut log, &["a"]);
    disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    assert_eq!(append_at(&mut log, NOW_US, &[&["b"]])[0].as_ref().unwrap_err(), &Refusal::DiskFull);
    assert_eq!(append_at(&mut log, NOW_US, &[&["b"]])[0].as_ref().unwrap_err(), &Refusal::DiskFull);
    assert_eq!(all(&log), events(&["a"]));
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    append(&mut log, &["b"]);
    assert_eq!(all(&log), events(&["a", "b"]));
}

#[test]
fn below_the_reserve_publishes_are_refused_and_reading_goes_on() {
    let disk = MemDisk::new();
    let mut log =
        try_open(&disk, firehose_log::LogConfig { disk_reserve_bytes: 1_000, ..config() }).expect("opens");
    append(&mut log, &["a"]);
    disk.set_free_bytes(Some(999));
    assert!(matches!(
        log.commit.upkeep(NOW_US, &mut KeepNothing)[..],
        [Upkeep::DiskLow { free_bytes: 999, reserve_bytes: 1_000 }]
    ));
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    assert!(append_at(&mut log, NOW_US, &[&["b"]])[0].is_err());
    assert_eq!(commit(&mut log), Ok(1));
    assert_eq!(all(&log), events(&["a"]));
    disk.set_free_bytes(None);
    assert!(matches!(log.commit.upkeep(NOW_US, &mut KeepNothing)[..], [Upkeep::DiskRecovered { .. }]));
    assert_eq!(append(&mut log, &["b"]), 2);
}

#[test]
fn the_room_is_looked_at_every_disk_check_secs_and_one_notice_says_when_it_begins_and_ends() {
    let disk = MemDisk::new();
    let config = firehose_log::LogConfig { disk_reserve_bytes: 1_000, disk_check_secs: 10, ..config() };
    let mut log = try_open(&disk, config).expect("opens");
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), [], "the first look");
    disk.set_free_bytes(Some(1));
    disk.pass(9_999_999);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    append(&mut log, &["a"]);
    disk.pass(1);
    assert_eq!(
        log.commit.upkeep(NOW_US, &mut KeepNothing),
        [Upkeep::DiskLow { free_bytes: 1, reserve_bytes: 1_000 }]
    );
    assert!(append_at(&mut log, NOW_US, &[&["b"]])[0].is_err());
    disk.set_free_bytes(Some(5_000));
    disk.pass(9_999_999);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    assert!(append_at(&mut log, NOW_US, &[&["b"]])[0].is_err());
    disk.pass(1);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), [Upkeep::DiskRecovered { free_bytes: 5_000 }]);
    assert_eq!(append(&mut log, &["b"]), 2);
}

#[test]
fn a_write_that_finds_the_disk_full_is_told_once_and_its_end_when_one_went_through() {
    let disk = MemDisk::new();
    disk.set_free_bytes(Some(5_000));
    let mut log = try_open(&disk, firehose_log::LogConfig { disk_check_secs: 1, ..config() }).expect("opens");
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    let refused = |log: &mut firehose_log::Log| {
        disk.fail(DiskCall::Write, ErrorKind::StorageFull);
        assert!(append_at(log, NOW_US, &[&["x"]])[0].is_err());
    };
    refused(&mut log);
    assert!(log.append.wants_upkeep(), "it is told at once");
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), [Upkeep::DiskFull { free_bytes: 5_000 }]);
    for _ in 0..3 {
        // There seems to be room, and there is none: as with a quota.
        disk.pass(1_000_000);
        assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
        refused(&mut log);
        assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    }
    disk.pass(1_000_000);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
    disk.pass(1_000_000);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), [], "nobody has tried");
    append(&mut log, &["a"]);
    disk.pass(1_000_000);
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), [Upkeep::DiskRecovered { free_bytes: 5_000 }]);
}
