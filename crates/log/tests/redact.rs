//! Taking events back.

mod fixture;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use firehose_log::{
    Disk, DiskCall, Fetched, Keep, Kind, Log, LogConfig, MemDisk, Offset, RedactError, Since, Wait,
};
use fixture::*;

fn small(tail_bytes: usize) -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, tail_bytes, ..config() }
}

fn text_of(offset: Offset) -> String {
    format!("secret{offset:0200}.")
}

/// Batches of one, two, three, four and five events, twelve times over, in several segments.
fn fill(log: &mut Log) {
    let mut next = log.read.head() + 1;
    for len in (1..=5).cycle().take(60) {
        let texts: Vec<String> = (next..next + len).map(text_of).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        append(log, &texts);
        next += len;
    }
    commit(log).expect("commits");
}

const EVENTS: Offset = 180;

fn holds(disk: &MemDisk, text: &str) -> bool {
    let dir = Path::new("/log");
    let names = disk.list(dir).expect("lists");
    names.iter().any(|name| {
        let bytes = disk.bytes(&dir.join(name)).expect("there");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// Reads all there is, and checks that it is what it was, with tombstones at `redacted` and gaps at `lost`.
fn check(log: &Log, redacted: &[Offset], lost: &[Offset]) {
    let found = read_from(log, 1);
    assert_eq!(
        found.events.len() + found.gaps.iter().map(|(a, b)| b + 1 - a).sum::<u64>() as usize,
        log.read.head() as usize
    );
    for (offset, text) in &found.events {
        let expected = if redacted.contains(offset) { String::new() } else { text_of(*offset) };
        assert_eq!(*text, expected, "event {offset}");
    }
    let gone: Vec<Offset> = found.gaps.iter().flat_map(|(first, last)| *first..=*last).collect();
    assert_eq!(gone, lost);
    let all: Vec<Offset> = (1..=log.read.head()).collect();
    let Ok(Fetched::Events(events)) = log.read.fetch(&all, Wait::Yes) else { panic!("fetches") };
    let left: Vec<Offset> = events.iter().map(|(offset, _)| *offset).collect();
    let expected: Vec<Offset> =
        all.into_iter().filter(|offset| !redacted.contains(offset) && !lost.contains(offset)).collect();
    assert_eq!(left, expected);
    for (offset, batch) in &events {
        assert_eq!(batch.record((offset - batch.base()) as usize).kind(), Kind::Event);
    }
}

#[test]
fn of_a_redacted_event_nothing_is_left_but_its_offset() {
    // The only one of a batch, the first, a middle and the last of one, in old segments and in the active one.
    for tail_bytes in [0, 4 << 20] {
        for offset in [1, 2, 3, 8, 11, 13, 15, 90, EVENTS - 5, EVENTS - 2, EVENTS] {
            let disk = MemDisk::new();
            let mut log = try_open(&disk, small(tail_bytes)).expect("opens");
            fill(&mut log);
            let cursors: Vec<_> = (1..=EVENTS).map(|offset| log.read.cursor(offset, NOW_US)).collect();
            assert!(holds(&disk, &text_of(offset)));

            let redacted = log.commit.redact(offset, NOW_US).expect("redacts");
            assert_eq!((redacted.offset, redacted.time_us), (offset, Some(NOW_US)));
            assert!(!holds(&disk, &text_of(offset)), "event {offset}");
            assert_eq!(log.commit.redact(offset, NOW_US), Err(RedactError::Already { offset }));

            // It goes on.
            assert_eq!(append(&mut log, &[&text_of(EVENTS + 1)]), EVENTS + 1);
            commit(&mut log).expect("commits");
            log.commit.upkeep(NOW_US, &mut KeepNothing);
            check(&log, &[offset], &[]);
            drop(log);
            let log = try_open(&disk, small(tail_bytes)).expect("opens");
            check(&log, &[offset], &[]);
            for (cursor, offset) in cursors.into_iter().zip(1..) {
                assert_eq!(log.read.cursor(offset, NOW_US), cursor);
                let start = log.read.resolve(&Since::After(cursor), NOW_US).expect("resolves");
                assert_eq!((start.next, start.gap), (offset + 1, None));
            }
            assert_eq!(log.read.seek_time(NOW_US), Ok(1));
        }
    }
}

#[test]
fn many_can_be_redacted_one_after_the_other() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small(0)).expect("opens");
    fill(&mut log);
    let mut gone = Vec::new();
    for offset in (1..=EVENTS).step_by(7) {
        log.commit.redact(offset, NOW_US).expect("redacts");
        gone.push(offset);
        check(&log, &gone, &[]);
    }
    assert!(gone.iter().all(|offset| !holds(&disk, &text_of(*offset))));
    drop(log);
    check(&try_open(&disk, small(0)).expect("opens"), &gone, &[]);
}

#[test]
fn what_is_not_there_is_not_redacted_and_the_error_says_why() {
    struct Needs(Offset);
    impl Keep for Needs {
        fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
            Some([self.0].into_iter().filter(|offset| (first..=last).contains(offset)).collect())
        }
    }
    let disk = MemDisk::new();
    let mut log = try_open(&disk, LogConfig { retention_bytes: Some(30 << 10), ..small(0) }).expect("opens");
    assert_eq!(log.commit.redact(1, NOW_US), Err(RedactError::NeverWas { offset: 1, head: 0 }));
    fill(&mut log);
    log.commit.upkeep(NOW_US, &mut Needs(5));
    for offset in [0, EVENTS + 1, Offset::MAX] {
        let error = RedactError::NeverWas { offset, head: EVENTS };
        assert_eq!(log.commit.redact(offset, NOW_US), Err(error));
    }
    assert!(log.read.oldest() > 5);
    assert_eq!(log.commit.redact(4, NOW_US), Err(RedactError::Gone { offset: 4 }));

    // One that outlived its segment.
    assert_eq!(log.read.kept(), [5]);
    assert!(holds(&disk, &text_of(5)));
    assert_eq!(log.commit.redact(5, NOW_US).map(|it| it.time_us), Ok(Some(NOW_US)));
    assert!(!holds(&disk, &text_of(5)) && log.read.kept().is_empty());
    assert_eq!(log.commit.redact(5, NOW_US), Err(RedactError::Gone { offset: 5 }));
}

/// Needs everything.
struct All;

impl Keep for All {
    fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
        Some((first..=last).collect())
    }
}

/// A log with events, the first half of them only among the kept if `kept`.
fn filled(disk: &MemDisk, kept: bool) -> Log {
    let config = LogConfig { retention_bytes: kept.then_some(30 << 10), ..small(0) };
    let mut log = try_open(disk, config).expect("opens");
    fill(&mut log);
    if kept {
        log.commit.upkeep(NOW_US, &mut All);
        assert!(log.read.oldest() > EVENTS / 2);
    }
    log
}

#[test]
fn wherever_the_power_fails_the_event_is_there_or_a_tombstone_and_a_second_time_finishes_it() {
    let all: Vec<Offset> = (1..=EVENTS).collect();
    for ((offset, kept), how) in [(12, false), (EVENTS - 1, false), (5, true)]
        .into_iter()
        .flat_map(|it| (0..STOPS).map(move |how| (it, how)))
    {
        for calls in 0.. {
            let disk = MemDisk::new();
            let mut log = filled(&disk, kept);
            disk.fail_after(calls, ErrorKind::Other);
            let answer = log.commit.redact(offset, NOW_US);
            let over = !disk.is_failing();
            drop(log);

            let disk = stop(disk, how);
            let mut log = try_open(&disk, small(0)).expect("opens");
            let Ok(Fetched::Events(events)) = log.read.fetch(&all, Wait::Yes) else { panic!("fetches") };
            let found: Vec<Offset> = events.iter().map(|(offset, _)| *offset).collect();
            let rest = all.iter().filter(|other| **other != offset);
            assert!(found.iter().filter(|it| **it != offset).eq(rest), "cut at {calls}, {how}");
            if answer.is_ok() {
                let is_gone = !found.contains(&offset) && !holds(&disk, &text_of(offset));
                assert!(is_gone, "cut at {calls}, {how}");
            }
            match log.commit.redact(offset, NOW_US) {
                Ok(_) => {}
                Err(RedactError::Already { .. } | RedactError::Gone { .. }) => {
                    assert!(!found.contains(&offset));
                }
                Err(error) => panic!("{error}, cut at {calls}, {how}"),
            }
            assert!(!holds(&disk, &text_of(offset)), "cut at {calls}, {how}");
            if !kept {
                check(&log, &[offset], &[]);
            }
            if over {
                assert!(answer.is_ok() && calls >= 6, "{answer:?} after {calls} calls");
                break;
            }
        }
    }
}

#[test]
fn a_call_that_fails_leaves_the_log_as_it_was_and_a_second_time_finishes_it() {
    use DiskCall::{Create, Rename, Sync, SyncDir, Truncate, Write};
    for call in [Create, Rename, Sync, SyncDir, Truncate, Write] {
        let disk = MemDisk::new();
        let mut log = try_open(&disk, small(0)).expect("opens");
        fill(&mut log);
        log.commit.upkeep(NOW_US, &mut KeepNothing);
        disk.fail(call, ErrorKind::Other);
        let answer = log.commit.redact(12, NOW_US);
        assert!(matches!(answer, Err(RedactError::Failed(_))), "{call:?}: {answer:?}");
        check(&log, &[], &[]);
        disk.heal();
        log.commit.redact(12, NOW_US).expect("redacts");
        assert!(!holds(&disk, &text_of(12)));
        check(&log, &[12], &[]);
        drop(log);
        check(&try_open(&disk, small(0)).expect("opens"), &[12], &[]);
    }
}

#[test]
fn an_event_that_cannot_be_read_is_redacted_too_and_what_was_lost_stays_declared() {
    // (What is damaged, what is lost by that): record 12 of 11 to 15; the header of that batch.
    for (behind, lost) in [(0, vec![12]), (1, (11..=15).collect::<Vec<Offset>>())] {
        for offset in [12, 13, 11, 15, 20] {
            let disk = MemDisk::new();
            let mut log = try_open(&disk, small(0)).expect("opens");
            fill(&mut log);
            drop(log);
            let path = segments(&disk).remove(0);
            let mut bytes = disk.bytes(&path).expect("there");
            let place = |offset: Offset| {
                let text = text_of(offset);
                bytes.windows(text.len()).position(|it| it == text.as_bytes()).expect("there")
            };
            let at = if behind == 0 { place(12) + 1 } else { place(11) - 60 };
            bytes[at] ^= 1;
            disk.set_bytes(&path, &bytes);
            let mut log = try_open(&disk, small(0)).expect("opens");
            check(&log, &[], &lost);
            let redacted = log.commit.redact(offset, NOW_US).expect("redacts");
            assert_eq!(redacted.time_us.is_none(), lost.contains(&offset));
            assert!(!holds(&disk, &text_of(offset)[10..]), "event {offset}");
            let tombstones: &[Offset] = if lost.contains(&offset) { &[] } else { &[offset] };
            check(&log, tombstones, &lost);
            log.commit.upkeep(NOW_US, &mut KeepNothing);
            drop(log);
            for path in segments(&disk) {
                // Also with an index that is made anew.
                let _ = disk.remove(&path.with_extension("log.index"));
            }
            check(&try_open(&disk, small(0)).expect("opens"), tombstones, &lost);
        }
    }
}

#[test]
fn what_a_failed_sync_left_behind_in_an_older_file_goes_too() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small(0)).expect("opens");
    fill(&mut log);
    for offset in EVENTS + 1..EVENTS + 4 {
        append(&mut log, &[&text_of(offset)]);
    }
    disk.fail(DiskCall::Sync, ErrorKind::Other);
    commit(&mut log).expect("written anew");
    log.commit.redact(EVENTS + 2, NOW_US).expect("redacts");
    assert!(!holds(&disk, &text_of(EVENTS + 2)));
    check(&log, &[EVENTS + 2], &[]);
}

/// Found by the simulation (seed 488467999964): the file that they stood in was cut, and the power brought the end back.
#[test]
fn what_a_start_carried_over_comes_back_in_no_older_file() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small(0)).expect("opens");
    append(&mut log, &["first"]);
    append(&mut log, &[&text_of(2), &text_of(3), "the last"]);
    commit(&mut log).expect("commits");
    drop(log);
    let path = Path::new("/log/00000000000000000001.0.log");
    let mut bytes = disk.bytes(path).expect("there");
    let torn = bytes.windows(8).position(|window| window == b"the last").expect("there");
    bytes[torn] ^= 1;
    disk.set_bytes(path, &bytes);
    let mut log = try_open(&disk, small(0)).expect("opens");
    assert_eq!((log.recovery.carried_over, log.read.head()), (2, 3));
    log.commit.redact(2, NOW_US).expect("redacts");
    disk.lose_power();
    assert!(!holds(&disk, &text_of(2)));
    drop(log);
    drop(try_open(&disk, small(0)).expect("opens"));
    assert!(!holds(&disk, &text_of(2)));
}

#[test]
fn done_again_it_takes_what_a_failed_attempt_has_left_behind_in_an_older_file() {
    for calls in 0..40 {
        let disk = MemDisk::new();
        let mut log = try_open(&disk, small(0)).expect("opens");
        fill(&mut log);
        for offset in EVENTS + 1..EVENTS + 4 {
            append(&mut log, &[&text_of(offset)]);
        }
        disk.fail(DiskCall::Sync, ErrorKind::Other);
        commit(&mut log).expect("written anew");
        disk.fail_after(calls, ErrorKind::Other);
        let _ = log.commit.redact(EVENTS + 2, NOW_US);
        disk.heal();
        drop(log);
        let mut log = try_open(&disk, small(0)).expect("opens");
        let again = log.commit.redact(EVENTS + 2, NOW_US);
        assert!(matches!(again, Ok(_) | Err(RedactError::Already { .. })), "{calls} calls: {again:?}");
        assert!(!holds(&disk, &text_of(EVENTS + 2)), "{calls} calls");
    }
}

#[test]
fn readers_and_appends_go_on_while_events_are_redacted() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small(8 << 10)).expect("opens");
    fill(&mut log);
    let read = Arc::clone(&log.read);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut next = 1;
                while !stopped() {
                    match read.read(next, Offset::MAX, 3_000, Wait::Yes).expect("reads") {
                        firehose_log::Chunk::Batches(batches) => {
                            for batch in batches {
                                for (offset, record) in batch.records() {
                                    let payload = record.event().payload;
                                    let is_right = match record.kind() {
                                        Kind::Tombstone => payload.is_empty(),
                                        _ => payload == text_of(offset).as_bytes(),
                                    };
                                    assert!(is_right, "event {offset}");
                                }
                                assert!((batch.base()..=batch.last()).contains(&next));
                                next = batch.last() + 1;
                            }
                        }
                        firehose_log::Chunk::End => next = 1,
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        let mut append = log.append;
        scope.spawn(move || {
            let mut next = EVENTS + 1;
            while !stopped() && next < 5_000 {
                let submission =
                    firehose_log::Submission { draft: draft(&[&text_of(next)]), ticket: 0, from: 0 };
                append
                    .append(NOW_US, &mut vec![submission], &mut |_, _, answer| drop(answer.expect("placed")));
                next += 1;
            }
        });
        for offset in 1..=EVENTS {
            log.commit.redact(offset, NOW_US).expect("redacts");
            log.commit.upkeep(NOW_US, &mut KeepNothing);
            let Ok(Fetched::Events(events)) = read.fetch(&[offset], Wait::Yes) else { panic!("fetches") };
            assert!(events.is_empty());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!((1..=EVENTS).all(|offset| !holds(&disk, &text_of(offset))));
}

/// Found by the simulation (seed 485761416875): the second time did not look at what the first had left.
#[test]
fn of_the_last_event_that_was_kept_a_second_time_finishes_what_failed() {
    struct One;
    impl Keep for One {
        fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
            Some((first..=last).filter(|offset| *offset == 5).collect())
        }
    }
    for calls in 0.. {
        let disk = MemDisk::new();
        let config = LogConfig { retention_bytes: Some(30 << 10), ..small(0) };
        let mut log = try_open(&disk, config).expect("opens");
        fill(&mut log);
        log.commit.upkeep(NOW_US, &mut One);
        assert!(holds(&disk, &text_of(5)));
        disk.fail_after(calls, ErrorKind::Other);
        let first = log.commit.redact(5, NOW_US);
        let over = !disk.is_failing();
        disk.heal();
        let second = log.commit.redact(5, NOW_US);
        assert!(matches!(second, Ok(_) | Err(RedactError::Gone { .. })), "{second:?} at {calls}");
        disk.lose_power();
        assert!(!holds(&disk, &text_of(5)), "{first:?} at {calls}");
        if over {
            assert!(first.is_ok() && calls > 0, "{first:?} after {calls} calls");
            break;
        }
    }
}

/// The memory of recent batches does not ask what retention has deleted.
#[test]
fn what_retention_has_deleted_is_redacted_in_memory_too() {
    for kept in [false, true] {
        let disk = MemDisk::new();
        let config = LogConfig { retention_bytes: Some(30 << 10), ..small(4 << 20) };
        let mut log = try_open(&disk, config).expect("opens");
        fill(&mut log);
        match kept {
            true => log.commit.upkeep(NOW_US, &mut All),
            false => log.commit.upkeep(NOW_US, &mut KeepNothing),
        };
        assert!(log.read.oldest() > 5);
        let gone = RedactError::Gone { offset: 5 };
        assert_eq!(log.commit.redact(5, NOW_US).map(|it| it.offset), if kept { Ok(5) } else { Err(gone) });
        let Ok(Fetched::Events(events)) = log.read.fetch(&[4, 5, 6], Wait::Yes) else { panic!("fetches") };
        assert!(events.iter().all(|(offset, _)| *offset != 5), "{events:?}");
        let found = read_from(&log, 5);
        assert!(found.events.iter().all(|(_, text)| *text != text_of(5)));
    }
}

#[test]
fn an_event_of_a_file_that_was_cut_to_nothing_is_redacted_and_stays_a_declared_gap() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small(0)).expect("opens");
    fill(&mut log);
    let first = log.read.oldest();
    drop(log);
    disk.set_bytes(&segments(&disk)[0], b"");
    let mut log = try_open(&disk, small(0)).expect("opens");
    let lost: Vec<Offset> = read_from(&log, 1).gaps.iter().flat_map(|(from, to)| *from..=*to).collect();
    assert!(lost.contains(&first));
    assert_eq!(log.commit.redact(first, NOW_US).map(|it| it.time_us), Ok(None));
    check(&log, &[], &lost);
    drop(log);
    check(&try_open(&disk, small(0)).expect("opens"), &[], &lost);
}
