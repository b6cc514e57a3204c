//! The view follows the log, and never comes before its durable end.

use crate::bed::*;
use firehose_broker::state::Operation;
use firehose_log::{DiskCall, Keep, Offset, Origin};
use firehose_topic::TopicFilter;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn retained_messages_are_the_last_of_their_topics() {
    let mut bed = Bed::new();
    bed.retain("a/b", b"1");
    bed.retain("a/c", b"1");
    let newest = bed.retain("a/b", b"2");
    bed.retain("a/c", b"");
    bed.append("a/d", b"x", 1, false, Origin::default());
    bed.settle();
    assert_eq!(bed.retained("a/#"), [("a/b".to_owned(), newest)]);
    let bed = bed.lose_power();
    assert_eq!(bed.retained("#"), [("a/b".to_owned(), newest)]);
}

#[test]
fn what_is_not_durable_is_not_in_the_view() {
    let mut bed = Bed::new();
    let durable = bed.retain("a", b"1");
    bed.log.commit.commit().unwrap();
    bed.retain("a", b"2");
    let turn = bed.state.turn(durable, bed.now);
    assert!(!turn.again);
    assert_eq!(bed.retained("#"), [("a".to_owned(), durable)]);
    let bed = bed.lose_power();
    assert_eq!(bed.retained("#"), [("a".to_owned(), durable)]);
}

#[test]
fn a_request_waits_until_the_log_is_durable_up_to_where_it_was_made() {
    let a = name("a");
    let mut bed = Bed::new();
    let offset = bed.append("x", b"1", 1, false, Origin::default());
    let token = bed.submit(vec![Operation::Open(Box::new(open(&a)))]);
    assert_eq!(bed.state.queue().wants_durable(), offset);
    let turn = bed.state.turn(offset - 1, bed.now);
    assert!(turn.answers.is_empty());
    assert!(opened(bed.settle(), token).unwrap().is_ok());
}

#[test]
fn filters_find_by_prefix_by_pages_and_as_of() {
    let mut bed = Bed::new();
    for topic in ["$SYS/x", "a", "a/b", "a/b/c", "ab", "b/x/c", "b/y/c"] {
        bed.retain(topic, b"1");
    }
    bed.settle();
    let topics =
        |filter: &str| -> Vec<String> { bed.retained(filter).into_iter().map(|(topic, _)| topic).collect() };
    assert_eq!(topics("#"), ["a", "a/b", "a/b/c", "ab", "b/x/c", "b/y/c"]);
    assert_eq!(topics("a/#"), ["a", "a/b", "a/b/c"]);
    assert_eq!(topics("a/+"), ["a/b"]);
    assert_eq!(topics("b/+/c"), ["b/x/c", "b/y/c"]);
    assert_eq!(topics("$SYS/#"), ["$SYS/x"]);
    assert_eq!(topics("+/x"), [""; 0]);
    assert_eq!(topics("ab"), ["ab"]);
    let (reader, filter) = (bed.state.reader(), TopicFilter::new("#").unwrap());
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = reader.retained(&filter, after.as_deref(), 4, 2).unwrap();
        assert!(page.entries.len() <= 2);
        found.extend(page.entries.into_iter().map(|(topic, _)| topic.into_string()));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "a/b", "a/b/c"], "newer ones come live");
}

#[test]
fn after_a_start_who_asks_for_less_is_no_measure_for_who_asks_for_all() {
    let mut bed = Bed::new();
    for topic in ["a", "b", "c"] {
        bed.retain(topic, b"1");
    }
    bed.settle();
    let bed = bed.restart();
    let filter = TopicFilter::new("#").unwrap();
    let page = |as_of: Offset| {
        let page = bed.state.reader().page(&*bed.log.read, &filter, None, as_of, 1_000).unwrap();
        page.messages().map(|message| message.event.topic.to_owned()).collect::<Vec<_>>()
    };
    // A session goes on with what was retained when it subscribed; then others subscribe.
    assert_eq!(page(1), ["a"]);
    assert_eq!(page(3), ["a", "b", "c"]);
    assert_eq!(page(9), ["a", "b", "c"]);
    assert_eq!(page(2), ["a", "b"]);
}

#[test]
fn a_file_that_is_made_again_is_not_read_before_it_has_what_the_lost_one_had() {
    let mut bed = Bed::new();
    let offset = bed.retain("a", b"1");
    bed.settle();
    let (reader, filter) = (bed.state.reader(), TopicFilter::new("#").unwrap());
    assert_eq!(reader.retained(&filter, None, offset, 9).unwrap().entries.len(), 1);
    bed.state_disk.set_bytes(&path(), b"not a state file");
    bed.state_disk.fail(DiskCall::Sync, ErrorKind::Other);
    bed.retain("b", b"1");
    let mut refused = 0;
    for _ in 0..5 {
        bed.state.turn(bed.log.read.head(), bed.now);
        match reader.retained(&filter, None, offset, 9) {
            Ok(page) => assert_eq!(page.entries.len(), 1),
            Err(error) => refused += usize::from(error.0.contains("made again from the log")),
        }
        bed.pass(1);
    }
    assert!(refused > 0 && reader.retained(&filter, None, offset, 9).is_ok(), "{refused}");
}

#[test]
fn a_job_runs_once_the_view_has_come_there_and_at_once_when_nothing_is_missing() {
    let mut bed = Bed::new();
    bed.settle();
    let plain = bed.append("x", b"1", 1, false, Origin::default());
    assert!(bed.state.queue().is_applied(plain), "nothing of it matters");
    let offset = bed.retain("a", b"1");
    assert!(bed.state.queue().is_applied(plain) && !bed.state.queue().is_applied(offset));
    let ran = Arc::new(AtomicBool::new(false));
    let says = ran.clone();
    bed.state.queue().when_applied(offset, Box::new(move || says.store(true, Ordering::SeqCst)));
    assert_eq!(bed.state.queue().wants_durable(), offset);
    bed.state.turn(plain, bed.now).jobs.into_iter().for_each(|job| job());
    assert!(!ran.load(Ordering::SeqCst));
    bed.settle();
    assert!(ran.load(Ordering::SeqCst) && bed.state.queue().is_applied(offset));
}

#[test]
fn more_marked_batches_than_may_wait_are_read_from_the_log() {
    let mut bed = Bed::new();
    let payload = vec![1; 1 << 20];
    for number in 0..40 {
        bed.retain(&format!("t/{number:02}"), &payload);
    }
    let last = bed.retain("t/00", b"last");
    bed.settle();
    let found = bed.retained("#");
    assert_eq!((found.len(), &found[0]), (40, &("t/00".to_owned(), last)));
    bed.retain("t/01", b"");
    bed.settle();
    assert_eq!(bed.retained("#").len(), 39);
}

#[test]
fn after_a_crash_the_view_catches_up_and_an_open_waits_for_it() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    for number in 0..5_000 {
        bed.retain(&format!("t/{number}"), &[2; 1_000]);
    }
    bed.publish2(&a, 9);
    bed.log.commit.commit().unwrap();
    let mut bed = bed.lose_power();
    let token = bed.submit(vec![Operation::Open(Box::new(open(&a)))]);
    let first = bed.state.turn(bed.log.read.head(), bed.now);
    assert!(first.again && first.answers.is_empty(), "5 MB are not looked through in one turn");
    let resumed = opened(bed.settle(), token).unwrap().unwrap().resumed.unwrap();
    assert_eq!(resumed.received, [9]);
    assert_eq!(bed.retained("t/#").len(), 1_000);
}

#[test]
fn the_file_does_not_stay_far_behind_a_log_of_which_nothing_matters() {
    let mut bed = Bed::new();
    for _ in 0..100_100 {
        bed.append("x", b"", 0, false, Origin::default());
    }
    bed.settle();
    let head = bed.log.read.head();
    let bed = bed.restart();
    assert!(bed.state.reader().applied() + 1_000 > head, "{}", bed.state.reader().applied());
}

#[test]
fn what_is_retained_or_in_flight_is_wanted_of_a_segment_that_goes() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    let first = bed.retain("a", b"1");
    let second = bed.append("x", b"1", 1, false, Origin::default());
    bed.retain("b", b"1");
    let fourth = bed.retain("b", b"2");
    let mut keep = bed.state.keep();
    assert_eq!(keep.wanted(first, fourth), None, "the view is behind");
    bed.save(vec![Operation::Progress { name: a.clone(), progress: progress_with(9, second) }]);
    assert_eq!(keep.wanted(first, fourth), Some(vec![first, second, fourth]));
    assert_eq!(keep.wanted(second, fourth - 1), Some(vec![second]));
}

#[test]
fn the_numbers_say_how_far_the_view_is_and_what_is_stored() {
    let mut bed = Bed::new();
    bed.open(open(&name("a"))).unwrap();
    bed.settle();
    let commits = |bed: &Bed| bed.state.queue().stats().commits.get();
    let before = commits(&bed);
    let offset = bed.retain("t", b"1");
    assert_eq!(bed.state.queue().lag(offset), 1);
    bed.settle();
    assert_eq!((bed.state.queue().lag(offset), commits(&bed)), (0, before + 1));
    let stats = bed.state.queue().stats();
    assert_eq!((stats.sessions(), stats.wills(), stats.rebuilds.get()), (1, 0, 0));
}
