//! Sessions come, are saved, go, and expire.

use crate::bed::*;
use firehose_broker::limits::Limits;
use firehose_broker::state::{OpenRefusal, Operation, WillFate};
use firehose_log::KeepNothing;

#[test]
fn a_session_is_found_as_it_was_saved_also_after_a_power_cut() {
    let a = name("a");
    let mut bed = Bed::new();
    assert!(bed.open(open(&a)).unwrap().resumed.is_none());
    assert!(bed.state.names().contains(a.hash));
    let save = Operation::Progress { name: a.clone(), progress: progress_with(7, 5) };
    bed.save(vec![subscriptions(&a, &["x/#", "y"]), save]);
    let mut bed = bed.lose_power();
    assert!(bed.notes.is_empty(), "{:?}", bed.notes);
    assert!(bed.state.names().contains(a.hash));
    let resumed = bed.open(open(&a)).unwrap().resumed.unwrap();
    assert_eq!(resumed.subscriptions, vec![subscription("x/#"), subscription("y")]);
    assert_eq!(resumed.progress, progress_with(7, 5));
}

#[test]
fn what_is_submitted_while_a_session_is_gone_or_unknown_changes_nothing() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.save(vec![subscriptions(&a, &["x"])]);
    assert!(bed.open(open(&a)).unwrap().resumed.is_none());
    assert!(bed.open(open(&a)).unwrap().resumed.unwrap().subscriptions.is_empty());
}

#[test]
fn a_clean_start_finds_nothing_and_leaves_nothing() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.publish2(&a, 4);
    bed.save(vec![subscriptions(&a, &["x"])]);
    let mut clean = open(&a);
    clean.clean = true;
    assert!(bed.open(clean).unwrap().resumed.is_none());
    let resumed = bed.open(open(&a)).unwrap().resumed.unwrap();
    assert!(resumed.subscriptions.is_empty() && resumed.received.is_empty());
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_nothing() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.save(vec![subscriptions(&a, &["x"]), gone(&a, 0, WillFate::Dropped)]);
    assert!(!bed.state.names().contains(a.hash));
    assert_eq!(bed.state.sessions(), 0);
    assert!(bed.open(open(&a)).unwrap().resumed.is_none());
}

#[test]
fn one_that_is_not_kept_is_not_stored() {
    let a = name("a");
    let mut bed = Bed::new();
    let mut transient = open(&a);
    transient.expiry_secs = 0;
    assert!(bed.open(transient).unwrap().resumed.is_none());
    assert_eq!(bed.state.sessions(), 0);
    assert!(!bed.state.names().contains(a.hash));
}

#[test]
fn a_session_expires_by_the_clock_from_when_it_was_left() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.open(open(&b)).unwrap();
    bed.save(vec![gone(&a, 100, WillFate::Dropped)]);
    bed.pass(99);
    bed.settle();
    assert_eq!(bed.state.sessions(), 2);
    bed.pass(2);
    bed.settle();
    assert_eq!(bed.state.sessions(), 1, "the connected one never expires");
    assert!(!bed.state.names().contains(a.hash) && bed.state.names().contains(b.hash));
    assert!(bed.open(open(&a)).unwrap().resumed.is_none());
}

#[test]
fn a_connected_session_counts_as_left_when_the_bus_starts_again() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.pass(1_000_000);
    let mut bed = bed.restart();
    assert!(bed.open(open(&a)).unwrap().resumed.is_some());
    let mut bed = bed.restart();
    bed.settle();
    bed.pass(50);
    let mut bed = bed.lose_power();
    bed.pass(48);
    bed.settle();
    assert_eq!(bed.state.sessions(), 1);
    bed.pass(2);
    bed.settle();
    assert_eq!(bed.state.sessions(), 0, "the second start does not lengthen its life");
}

#[test]
fn nothing_expires_while_the_clock_is_held() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.save(vec![gone(&a, 100, WillFate::Dropped)]);
    bed.log.commit.upkeep(bed.now.wall_us, &mut KeepNothing);
    bed.pass(400_000_000);
    bed.log.commit.upkeep(bed.now.wall_us, &mut KeepNothing);
    assert!(bed.log.read.clock_is_held());
    bed.settle();
    assert!(bed.open(open(&a)).unwrap().resumed.is_some());
}

#[test]
fn each_cap_refuses_one_more_and_says_which() {
    let limits = Limits {
        sessions_max: 4,
        anonymous_sessions_max: 3,
        anonymous_sessions_per_address_max: 2,
        ..Limits::default()
    };
    let mut bed = Bed::with_limits(limits);
    let from = |client: &str, at: u8| {
        let mut open = open(&name(client));
        open.address = address(at);
        open
    };
    bed.open(from("a", 1)).unwrap();
    bed.open(from("b", 1)).unwrap();
    let refused = |limit| Err(OpenRefusal::TooMany { limit });
    assert_eq!(bed.open(from("c", 1)).map(drop), refused("anonymous_sessions_per_address_max"));
    assert!(!bed.state.names().contains(name("c").hash));
    assert!(bed.open(from("a", 1)).unwrap().resumed.is_some(), "one that is there may go on");
    bed.open(from("c", 2)).unwrap();
    assert_eq!(bed.open(from("d", 3)).map(drop), refused("anonymous_sessions_max"));
    let mut bed = bed.lose_power();
    assert_eq!(bed.open(from("d", 3)).map(drop), refused("anonymous_sessions_max"));
    bed.save(vec![gone(&name("a"), 0, WillFate::Dropped)]);
    bed.open(from("d", 1)).unwrap();
}

#[test]
fn received_ids_come_from_the_log_and_go_when_they_are_released() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.publish2(&a, 4);
    bed.publish2(&a, 5);
    bed.publish2(&name("nobody"), 6);
    bed.settle();
    bed.save(vec![Operation::Forget { name: a.clone(), packet_ids: vec![4] }]);
    let mut bed = bed.lose_power();
    assert_eq!(bed.open(open(&a)).unwrap().resumed.unwrap().received, vec![5]);
    assert!(bed.open(open(&name("nobody"))).unwrap().resumed.is_none());
    assert!(bed.open(open(&name("nobody"))).unwrap().resumed.unwrap().received.is_empty());
}

#[test]
fn releasing_an_id_spares_a_later_message_that_has_it() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open(&a)).unwrap();
    bed.publish2(&a, 4);
    bed.submit(vec![Operation::Forget { name: a.clone(), packet_ids: vec![4] }]);
    bed.publish2(&a, 4);
    bed.settle();
    assert_eq!(bed.open(open(&a)).unwrap().resumed.unwrap().received, vec![4]);
}
