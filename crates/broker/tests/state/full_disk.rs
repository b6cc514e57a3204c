//! A disk that is full or fails: nothing is lost, resumes go on, and it recovers by itself.

use crate::bed::*;
use firehose_broker::state::{Answer, Open, OpenRefusal, Operation, StateNote, WillFate};
use firehose_log::DiskCall;
use std::io::ErrorKind;

fn progress_of(bed: &mut Bed, client: &str, next: u64) -> u64 {
    bed.submit(vec![Operation::Progress { name: name(client), progress: progress(next) }])
}

fn is_unavailable<T: std::fmt::Debug>(outcome: &Result<T, OpenRefusal>) -> bool {
    matches!(outcome, Err(OpenRefusal::Unavailable(_)))
}

#[test]
fn with_no_room_saves_wait_resumes_go_on_and_others_are_turned_away() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.save(vec![subscriptions(&a, &["x"])]);
    bed.state_disk.set_free_bytes(Some(100));
    bed.state_disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    let token = progress_of(&mut bed, "a", 5);
    assert!(bed.settle().answers.is_empty());
    let later = progress_of(&mut bed, "a", 6);
    assert!(bed.settle().answers.is_empty());
    let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("one line: {:?}", bed.notes) };
    assert!(line.contains("no storage space"), "{line}");
    // It is opened anew, and then not tried again.
    bed.pass(1);
    bed.settle();
    bed.submit(vec![gone(&a, 100, WillFate::Dropped)]);
    let resumed = bed.open(open(&a)).unwrap().resumed.unwrap();
    assert_eq!((resumed.progress, resumed.subscriptions.len()), (progress(6), 1), "the newest is read");
    assert!(is_unavailable(&bed.open(open(&b))));
    assert!(is_unavailable(&bed.open(Open { clean: true, ..open(&a) })));
    assert!(is_unavailable(&bed.open(Open { will: Some(will(0)), ..open(&a) })));
    bed.pass(30);
    bed.settle();
    assert_eq!(bed.notes.len(), 1, "told once: {:?}", bed.notes);

    bed.state_disk.set_free_bytes(None);
    bed.settle();
    bed.pass(1);
    let answers = bed.settle().answers;
    let saved: Vec<u64> = answers.iter().map(|(_, answer)| answer.token()).collect();
    assert!(saved.contains(&token) && saved.contains(&later), "{answers:?}");
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Answer::Saved { .. })));
    assert!(matches!(&bed.notes[1..], [StateNote::Good(_)]), "{:?}", bed.notes);
    bed.open(open(&b)).unwrap();
    let mut bed = bed.lose_power();
    assert_eq!(bed.open(open(&a)).unwrap().resumed.unwrap().progress, progress(6));
    assert_eq!(bed.state.wills(), 0);
}

#[test]
fn with_little_room_sessions_go_on_in_the_pages_of_the_file_and_new_ones_are_turned_away() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.save(vec![subscriptions(&a, &["x"])]);
    bed.state_disk.set_free_bytes(Some(100));
    for next in 5..50 {
        let token = progress_of(&mut bed, "a", next);
        let answers = bed.settle().answers;
        assert!(answers.iter().any(|(_, answer)| answer.token() == token), "{next}: {answers:?}");
    }
    assert!(is_unavailable(&bed.open(open(&b))));
    assert!(is_unavailable(&bed.open(Open { clean: true, ..open(&a) })));
    assert!(is_unavailable(&bed.open(Open { will: Some(will(0)), ..open(&a) })));
    let token = progress_of(&mut bed, "a", 50);
    assert!(
        bed.settle().answers.iter().any(|(_, answer)| answer.token() == token),
        "who is refused holds up nobody"
    );
    assert_eq!(bed.notes, []);
    let mut bed = bed.lose_power();
    assert_eq!(bed.open(open(&a)).unwrap().resumed.unwrap().progress, progress(50));
}

#[test]
fn a_client_that_is_turned_away_has_not_come_back_and_its_will_stays_due() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open(&b)).unwrap();
    bed.open(Open { will: Some(will(0)), ..open(&a) }).unwrap();
    let mut bed = bed.lose_power();
    bed.state_disk.set_free_bytes(Some(100));
    progress_of(&mut bed, "b", 5);
    bed.settle();
    assert!(is_unavailable(&bed.open(Open { will: Some(will(0)), ..open(&a) })));
    assert_eq!(bed.state.wills(), 1, "that of the connection before");
    bed.state_disk.set_free_bytes(None);
    bed.pass(60);
    let due: Vec<u64> = bed.settle().wills.iter().map(|due| due.key.session).collect();
    assert_eq!(due, [a.hash]);
}

/// Found by the simulation (seed 451811438411): the first time it was written that the will is gone, and the second time not.
#[test]
fn a_client_that_is_turned_away_twice_has_not_come_back_and_its_will_stays_due() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(Open { will: Some(will(0)), ..open(&a) }).unwrap();
    let mut bed = bed.lose_power();
    let opened = bed.open(Open { will: Some(will(0)), ..open(&a) }).unwrap();
    assert!(opened.has_to_enter);
    bed.submit(vec![refused(&a, &opened)]);
    bed.state_disk.set_free_bytes(Some(100));
    assert!(is_unavailable(&bed.open(Open { clean: true, ..open(&a) })));
    bed.state_disk.set_free_bytes(None);
    bed.pass(60);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn the_opens_of_the_very_turn_that_fails_are_answered_as_well() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let mut bed = Bed::new();
        bed.open(open(&a)).unwrap();
        bed.open(open(&c)).unwrap();
        bed.state_disk.fail_after(0, kind);
        let resume = bed.submit(vec![Operation::Open(Box::new(open(&a)))]);
        let new = bed.submit(vec![Operation::Open(Box::new(open(&b)))]);
        let with_will = Open { will: Some(will(0)), ..open(&c) };
        let with_will = bed.submit(vec![Operation::Open(Box::new(with_will))]);
        let mut answers = bed.settle().answers;
        let mut outcome = |token| {
            let place = answers.iter().position(|(_, answer)| answer.token() == token).expect("an answer");
            match answers.remove(place).1 {
                Answer::Opened { outcome, .. } => outcome,
                other => panic!("{other:?}"),
            }
        };
        assert!(outcome(resume).unwrap().resumed.is_some());
        assert!(is_unavailable(&outcome(new)) && is_unavailable(&outcome(with_will)));
        bed.state_disk.heal();
        bed.pass(1);
        bed.settle();
        assert_eq!((bed.state.sessions(), bed.state.wills()), (2, 0));
        assert!(!bed.state.names().contains(b.hash));
        assert!(bed.open(open(&b)).unwrap().resumed.is_none());
        let mut bed = bed.lose_power();
        assert!(bed.settle().wills.is_empty());
        assert_eq!(bed.state.sessions(), 3);
    }
}

#[test]
fn after_any_failed_call_the_file_is_opened_anew_and_nothing_is_lost() {
    for call in [DiskCall::Write, DiskCall::Sync, DiskCall::Truncate, DiskCall::Read] {
        for skipped in 0..6 {
            let a = name("a");
            let mut bed = Bed::new();
            bed.open(open(&a)).unwrap();
            bed.settle();
            if call == DiskCall::Sync || call == DiskCall::Write {
                bed.state_disk.fail_after(skipped, ErrorKind::Other);
            } else {
                bed.state_disk.fail(call, ErrorKind::Other);
            }
            let token = progress_of(&mut bed, "a", 5);
            let retained = bed.retain("t", b"1");
            let mut answers = bed.settle().answers;
            bed.state_disk.heal();
            bed.pass(1);
            answers.extend(bed.settle().answers);
            bed.pass(1);
            answers.extend(bed.settle().answers);
            assert_eq!(answers.len(), 1, "{call:?} {skipped}: {answers:?} {:?}", bed.notes);
            assert_eq!(answers[0].1.token(), token);
            assert_eq!(bed.retained("#"), [("t".to_owned(), retained)]);
            let mut bed = bed.lose_power();
            assert_eq!(bed.open(open(&a)).unwrap().resumed.unwrap().progress, progress(5));
            assert_eq!(bed.retained("#"), [("t".to_owned(), retained)]);
        }
    }
}

#[test]
fn a_start_on_a_full_disk_works_and_the_file_is_made_when_there_is_room() {
    let bed = Bed::new();
    let (disk, state_disk) = (bed.disk.copy(), firehose_log::MemDisk::new());
    state_disk.fail_after(0, ErrorKind::StorageFull);
    let limits = firehose_broker::Limits::default();
    let mut bed = Bed::on(disk, state_disk, bed.now, limits);
    assert_eq!(bed.notes.len(), 1, "{:?}", bed.notes);
    let a = name("a");
    assert!(is_unavailable(&bed.open(open(&a))));
    let offset = bed.retain("t", b"1");
    bed.settle();
    bed.state_disk.heal();
    bed.pass(1);
    bed.settle();
    bed.open(open(&a)).unwrap();
    let secret = bed.state.secret().clone();
    let mut bed = bed.lose_power();
    assert!(secret == *bed.state.secret());
    assert!(bed.open(open(&a)).unwrap().resumed.is_some());
    assert_eq!(bed.retained("#"), [("t".to_owned(), offset)]);
}

#[test]
fn an_open_that_waits_for_a_log_that_failed_is_turned_away() {
    let a = name("a");
    let mut bed = Bed::new();
    let offset = bed.append("x", b"1", 1, false, firehose_log::Origin::default());
    let token = bed.submit(vec![Operation::Open(Box::new(open(&a)))]);
    assert!(bed.state.turn(offset - 1, bed.now).answers.is_empty());
    bed.state.queue().log_failed(&firehose_log::Refusal::ReadOnly("fdatasync failed".into()));
    let turn = bed.state.turn(offset - 1, bed.now);
    assert!(is_unavailable(&opened(turn, token).expect("an answer")));
}

#[test]
fn what_waits_while_the_disk_is_full_is_bounded() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.state_disk.set_free_bytes(Some(0));
    let topic = "t".repeat(1_000);
    for number in 0..20_000u64 {
        bed.retain(&format!("{topic}/{number}"), b"1");
        if number % 500 == 0 {
            bed.settle();
        }
    }
    bed.settle();
    bed.state_disk.set_free_bytes(None);
    bed.pass(1);
    bed.settle();
    bed.pass(1);
    bed.settle();
    let filter = firehose_topic::TopicFilter::new("#").unwrap();
    let found = bed.state.reader().retained(&filter, None, u64::MAX, usize::MAX).unwrap();
    assert_eq!(found.entries.len(), 20_000, "and all of it comes into the view in the end");
}
