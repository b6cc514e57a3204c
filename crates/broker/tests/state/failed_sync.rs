//! After a sync of the state file that failed nothing can be said of what is on the disk: the file is written anew, and
//! nothing is lost, whatever happens before that is done.

use crate::bed::*;
use firehose_broker::state::{Operation, StateNote};
use firehose_log::{Disk, DiskCall};
use std::io::ErrorKind;

/// A session with a subscription, and retained messages.
fn saved() -> Bed {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.save(vec![subscriptions(&a, &["x"])]);
    for number in 0..50 {
        bed.retain(&format!("t/{number}"), b"1");
    }
    bed.settle();
    bed
}

/// A sync failed while a session's progress was to be saved. Gives the token of the save.
fn failed() -> (Bed, u64) {
    let mut bed = saved();
    bed.state_disk.fail(DiskCall::Sync, ErrorKind::Other);
    let token = bed.submit(vec![Operation::Progress { name: name("a"), progress: progress(5) }]);
    assert!(bed.settle().answers.is_empty());
    assert_eq!(bed.notes.len(), 1, "{:?}", bed.notes);
    assert!(bed.state.queue().stats().failure().is_some());
    (bed, token)
}

fn check(mut bed: Bed, is_saved: bool, what: &str) {
    assert!(bed.notes.iter().all(is_of_last_save), "{what}: {:?}", bed.notes);
    bed.settle();
    assert_eq!(bed.retained("t/#").len(), 50, "{what}");
    let resumed = bed.open(open(&name("a"))).unwrap().resumed.expect("the session is there");
    assert_eq!(resumed.subscriptions, [subscription("x")], "{what}");
    assert!(!is_saved || resumed.progress == progress(5), "{what}: {resumed:?}");
}

fn names(bed: &Bed) -> Vec<String> {
    bed.state_disk.list(path().parent().unwrap()).unwrap()
}

#[test]
fn a_power_cut_before_the_file_is_written_anew_costs_nothing_that_was_saved() {
    for seed in 0..40 {
        check(failed().0.lose_power_partly(seed), false, "at once");
        let (bed, _) = failed();
        let bed = bed.begin_on_the_same_disks();
        check(bed.lose_power_partly(seed), false, "after the next start");
        let (mut bed, _) = failed();
        bed.pass(1);
        bed.state_disk.fail(DiskCall::Sync, ErrorKind::Other);
        bed.settle();
        let bed = bed.begin_on_the_same_disks();
        bed.state_disk.evict();
        check(bed.lose_power_partly(seed), false, "when it failed again");
    }
}

#[test]
fn a_write_or_sync_that_fails_while_the_file_is_closed_is_known_to_the_next_start() {
    for call in [DiskCall::Write, DiskCall::Sync] {
        for seed in 0..40 {
            let mut bed = saved();
            bed.state_disk.fail(call, ErrorKind::Other);
            bed = bed.begin_on_the_same_disks();
            assert!(bed.notes.is_empty(), "{call:?}: {:?}", bed.notes);
            assert_eq!(names(&bed), ["state.redb"], "{call:?}");
            bed.state_disk.evict();
            bed.save(vec![Operation::Progress { name: name("a"), progress: progress(5) }]);
            check(bed.lose_power_partly(seed), true, &format!("{call:?}, seed {seed}"));
        }
    }
}

#[test]
fn a_save_is_answered_when_the_file_was_written_anew() {
    for seed in 0..40 {
        let (mut bed, token) = failed();
        bed.pass(1);
        let answers = bed.settle().answers;
        assert!(matches!(&answers[..], [(_, answer)] if answer.token() == token), "{answers:?}");
        assert!(matches!(bed.notes[..], [StateNote::Bad(_), StateNote::Good(_)]), "{:?}", bed.notes);
        assert_eq!(names(&bed), ["state.redb"]);
        assert_eq!(bed.state.queue().stats().failure(), None);
        bed.state_disk.evict();
        check(bed.lose_power_partly(seed), true, "written anew");
    }
}

#[test]
fn a_power_cut_at_every_call_of_writing_it_anew_loses_nothing() {
    for calls in 0..500 {
        let (mut bed, _) = failed();
        bed.pass(1);
        bed.state_disk.fail_after(calls, ErrorKind::Other);
        let is_saved = !bed.settle().answers.is_empty();
        let is_cut = bed.state_disk.is_failing();
        check(bed.lose_power_partly(calls), is_saved, "cut");
        if !is_cut {
            assert!(calls > 5, "{calls}");
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn while_there_is_no_room_to_write_it_anew_reading_goes_on() {
    let (mut bed, token) = failed();
    bed.state_disk.set_free_bytes(Some(100));
    bed.pass(1);
    assert!(bed.settle().answers.is_empty());
    assert_eq!(bed.retained("t/#").len(), 50);
    assert!(bed.open(open(&name("a"))).unwrap().resumed.is_some());
    assert!(bed.open(open(&name("b"))).is_err());
    bed.state_disk.set_free_bytes(None);
    bed.pass(1);
    let answers = bed.settle().answers;
    assert!(answers.iter().any(|(_, answer)| answer.token() == token), "{answers:?}");
    check(bed.lose_power(), true, "with room again");
}

#[test]
fn what_cannot_be_read_any_more_is_set_aside_with_one_line() {
    let (mut bed, _) = failed();
    bed.state_disk.set_bytes(&path(), b"rubbish");
    bed.pass(1);
    bed.settle();
    let lines: Vec<String> = bed.notes.iter().map(ToString::to_string).collect();
    assert_eq!(lines.iter().filter(|line| line.contains("set aside")).count(), 1, "{lines:?}");
    bed.pass(1);
    bed.settle();
    assert_eq!(bed.retained("t/#").len(), 50);
    assert!(bed.open(open(&name("a"))).unwrap().resumed.is_none());
}
