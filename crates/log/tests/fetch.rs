//! Single events by their offsets, and which batches matter to the state.

mod fixture;

use std::sync::Arc;

use firehose_log::{
    Append, Attributes, Batch, Draft, Event, Fetched, Flags, Log, LogConfig, MemDisk, Offset, Origin,
    Submission, Wait, WayIn,
};
use fixture::*;

fn fetch(log: &Log, offsets: &[Offset]) -> Vec<(Offset, String)> {
    let Ok(Fetched::Events(events)) = log.read.fetch(offsets, Wait::Yes) else { panic!("fetches") };
    events.iter().map(|(offset, batch)| (*offset, text(*offset, batch))).collect()
}

fn text(offset: Offset, batch: &Arc<Batch>) -> String {
    let record = batch.record((offset - batch.base()) as usize);
    String::from_utf8(record.event().payload.to_vec()).expect("text")
}

/// 200 batches of three events of 1 kB, in several segments.
fn filled(disk: &MemDisk, config: LogConfig) -> Log {
    let mut log = try_open(disk, config).expect("opens");
    for batch in 0..200u64 {
        let texts: Vec<String> = (1..=3).map(|n| format!("{:01000}", batch * 3 + n)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        append(&mut log, &texts);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    log
}

fn numbered(offsets: &[Offset]) -> Vec<(Offset, String)> {
    offsets.iter().map(|offset| (*offset, format!("{offset:01000}"))).collect()
}

#[test]
fn events_are_fetched_by_offset_from_memory_and_from_the_disk() {
    for tail_bytes in [0, 100_000, 4 << 20] {
        let disk = MemDisk::new();
        let log = filled(&disk, LogConfig { tail_bytes, ..config() });
        assert!(segments(&disk).len() > 5);
        for step in [1, 2, 7, 50, 599] {
            let offsets: Vec<Offset> = (1..=600).step_by(step).collect();
            assert_eq!(fetch(&log, &offsets), numbered(&offsets), "every {step}, tail {tail_bytes}");
        }
        assert_eq!(fetch(&log, &[]), []);
        assert_eq!(fetch(&log, &[0, 600, 601, Offset::MAX]), numbered(&[600]));
    }
}

#[test]
fn neighbours_share_their_batch() {
    let log = filled(&MemDisk::new(), config());
    let Ok(Fetched::Events(events)) = log.read.fetch(&[4, 5, 6, 7], Wait::Yes) else { panic!("fetches") };
    assert!(Arc::ptr_eq(&events[0].1, &events[1].1) && Arc::ptr_eq(&events[0].1, &events[2].1));
    assert!(!Arc::ptr_eq(&events[0].1, &events[3].1));
}

#[test]
fn a_fetch_that_may_not_wait_says_that_it_is_blocked() {
    let disk = MemDisk::new();
    let log = filled(&disk, config());
    disk.set_cold(true);
    assert!(matches!(log.read.fetch(&[3, 300], Wait::No), Ok(Fetched::Blocked)));
    assert_eq!(fetch(&log, &[3, 300]).len(), 2);
    disk.set_cold(false);
    assert!(matches!(log.read.fetch(&[3, 300], Wait::No), Ok(Fetched::Events(events)) if events.len() == 2));
}

#[test]
fn what_is_gone_or_damaged_is_left_out_of_a_fetch() {
    let disk = MemDisk::new();
    drop(filled(&disk, config()));
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path).expect("there");
    // Record 2 of the first batch, and the header of the fourth, which takes its three events.
    let batch_bytes = bytes[4097..].windows(4).position(|at| at == b"FHb1").expect("a second") + 1;
    bytes[4096 + 40 + 1500] ^= 1;
    bytes[4096 + 3 * batch_bytes + 9] ^= 1;
    disk.set_bytes(&path, &bytes);
    let log = open_on(&disk);
    let offsets: Vec<Offset> = (1..=30).collect();
    let whole: Vec<Offset> = (1..=30).filter(|offset| ![2, 10, 11, 12].contains(offset)).collect();
    assert_eq!(fetch(&log, &offsets), numbered(&whole));

    let disk = MemDisk::new();
    let mut log = filled(&disk, LogConfig { retention_bytes: Some(200_000), ..config() });
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    let oldest = log.read.oldest();
    assert!(oldest > 1);
    assert_eq!(fetch(&log, &[1, oldest - 1, oldest, 600]), numbered(&[oldest, 600]));
}

#[test]
fn a_batch_knows_whether_it_matters_to_the_state_also_when_it_comes_from_the_disk() {
    let plain = (Flags::new(1, false, None), Origin::default());
    let cases = [
        (plain, false),
        ((Flags::new(2, false, Some(true)), Origin { principal: "a", session: 7, ..plain.1 }), false),
        ((Flags::new(0, true, None), plain.1), true),
        ((Flags::new(2, false, None), Origin { packet_id: 9, ..plain.1 }), true),
        ((plain.0, Origin { way_in: WayIn::Will, ..plain.1 }), true),
    ];
    for (index, (case, marked)) in cases.into_iter().enumerate() {
        let mut draft = Draft::new();
        assert!(!draft.is_marked());
        for (flags, origin) in [plain, case, plain] {
            let event = Event { flags, topic: "a/b", attributes: Attributes::EMPTY, payload: b"x" };
            draft.push(&event, &origin).expect("fits");
        }
        assert_eq!(draft.is_marked(), marked, "case {index}");
        let disk = MemDisk::new();
        let mut log = open_on(&disk);
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        Append::append(&mut *log.append, NOW_US, &mut submissions, &mut |_, _, answer| {
            assert_eq!(answer.expect("placed").is_marked(), marked, "case {index}");
        });
        commit(&mut log).expect("commits");
        drop(log);
        let log = open_on(&disk);
        let Ok(Fetched::Events(events)) = log.read.fetch(&[2], Wait::Yes) else { panic!("fetches") };
        assert_eq!(events[0].1.is_marked(), marked, "case {index}");
    }
}
