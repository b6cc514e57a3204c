//! An event is taken back: nothing of it stays in the state.

use crate::bed::*;
use firehose_broker::state::{Open, Operation, WillFate, WillOutcome};
use std::sync::{Arc, Mutex};

fn redact(bed: &mut Bed, offset: u64) -> Result<(), String> {
    let outcome = Arc::new(Mutex::new(None));
    let says = outcome.clone();
    let done = Box::new(move |result| *says.lock().unwrap() = Some(result));
    bed.state.queue().redact(offset, done);
    bed.settle();
    outcome.lock().unwrap().take().expect("it is done")
}

fn holds(bed: &Bed, needle: &[u8]) -> bool {
    let bytes = bed.state_disk.bytes(&path()).unwrap();
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn what_was_redacted_is_neither_retained_nor_in_flight_and_its_topic_is_gone_from_the_file() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    let offset = bed.retain("people/alice-secret", b"1");
    let kept = bed.retain("people/bob", b"1");
    bed.save(vec![
        subscriptions(&a, &["x"]),
        Operation::Progress { name: a.clone(), progress: progress_with(9, offset) },
    ]);
    assert!(holds(&bed, b"alice-secret"));
    redact(&mut bed, offset).unwrap();
    assert!(!holds(&bed, b"alice-secret"));
    assert_eq!(bed.retained("#"), [("people/bob".to_owned(), kept)]);
    let mut bed = bed.lose_power();
    assert!(bed.notes.is_empty(), "{:?}", bed.notes);
    let resumed = bed.open(open(&a)).unwrap().resumed.unwrap();
    assert_eq!(resumed.progress, progress_with(9, 0));
    assert_eq!(resumed.subscriptions, [subscription("x")]);
    assert_eq!(bed.retained("#"), [("people/bob".to_owned(), kept)]);
}

#[test]
fn the_bytes_of_a_will_that_was_published_go_with_its_event() {
    let a = name("a");
    let mut bed = Bed::new();
    let mut with = Open { expiry_secs: 0, will: Some(will(0)), ..open(&a) };
    with.will.as_mut().unwrap().payload = b"the-will-of-alice".to_vec();
    bed.open(with).unwrap();
    let key = bed.save(vec![gone(&a, 0, WillFate::Due { delay_secs: 0 })]).wills[0].key;
    let offset = bed.publish_will(key.session, key.serial);
    bed.state.queue().will_done(key, WillOutcome::Published);
    bed.settle();
    redact(&mut bed, offset).unwrap();
    assert!(!holds(&bed, b"the-will-of-alice"));
}

#[test]
fn files_that_were_set_aside_go_too() {
    let bed = Bed::new();
    bed.state_disk.set_bytes(&path(), b"alice-secret is not a state file");
    let mut bed = bed.restart();
    assert_eq!(bed.notes.len(), 1);
    let aside = path().with_file_name("state.redb.damaged-1");
    assert!(bed.state_disk.bytes(&aside).is_some());
    let offset = bed.retain("a", b"1");
    redact(&mut bed, offset).unwrap();
    assert!(bed.state_disk.bytes(&aside).is_none());
}

#[test]
fn a_redaction_that_the_power_cuts_leaves_the_old_file_or_the_new_one() {
    let a = name("a");
    let mut cuts = 0;
    for calls in 0.. {
        let mut bed = Bed::new();
        bed.open(open(&a)).unwrap();
        let offset = bed.retain("a", b"1");
        bed.save(vec![Operation::Progress { name: a.clone(), progress: progress_with(9, offset) }]);
        bed.state_disk.fail_after(calls, std::io::ErrorKind::Other);
        let outcome = redact(&mut bed, offset);
        let cut = bed.state_disk.is_failing();
        let mut bed = bed.lose_power_partly(calls);
        assert!(bed.notes.is_empty(), "{:?}", bed.notes);
        let resumed = bed.open(open(&a)).unwrap().resumed.unwrap();
        let is_there = resumed.progress == progress_with(9, offset);
        assert!(is_there || resumed.progress == progress_with(9, 0));
        assert_eq!(bed.retained("#").len(), usize::from(is_there));
        assert!(outcome.is_err() || !is_there, "it was said to be done");
        if !cut {
            assert_eq!(outcome, Ok(()));
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 5, "{cuts}");
}
