//! Wills: stored, dropped, due, fired once.

use crate::bed::*;
use firehose_auth::{Access, AnonymousMode, Auth, AuthConfig, HashKind, PasswordFile};
use firehose_broker::state::{
    DueWill, Firing, Open, Operation, Request, Rescue, SessionName, WillFate, WillOutcome,
};
use firehose_log::{Origin, WayIn};
use std::sync::Arc;

const DUE: WillFate = WillFate::Due { delay_secs: 0 };

fn open_with_will(name: &Arc<SessionName>, expiry_secs: u32, delay_secs: u32) -> Open {
    Open { expiry_secs, will: Some(will(delay_secs)), ..open(name) }
}

fn due_after(delay_secs: u32) -> WillFate {
    WillFate::Due { delay_secs }
}

fn stored_wills(bed: &Bed) -> usize {
    bed.state.wills()
}

#[test]
fn a_will_is_fired_once_when_its_connection_is_lost() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 0, 0)).unwrap();
    assert!(bed.state.names().contains(a.hash), "whoever comes next has to ask");
    assert!(bed.settle().wills.is_empty());
    let turn = bed.save(vec![gone(&a, 0, DUE)]);
    let [due] = &turn.wills[..] else { panic!("{:?}", turn.wills) };
    assert_eq!((&*due.client_id, &due.will, due.key.session), ("a", &will(0), a.hash));
    assert!(bed.settle().wills.is_empty(), "it is under way");
    let key = due.key;
    bed.publish_will(key.session, key.serial);
    bed.state.queue().will_done(key, WillOutcome::Published);
    assert!(bed.settle().wills.is_empty());
    assert_eq!(stored_wills(&bed), 0);
    assert!(!bed.state.names().contains(a.hash));
    assert_eq!(stored_wills(&bed.lose_power()), 0);
}

#[test]
fn a_will_that_is_due_wants_what_came_before_it_durable_and_a_proper_goodbye_does_not() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 0)).unwrap();
    let head = bed.append("t", b"nobody waits for this", 0, false, Origin::default());
    let leave = |will| {
        let request = Request { token: 0, operations: vec![gone(&a, 100, will)] };
        bed.state.queue().submit(0, request, head);
        bed.state.queue().wants_durable()
    };
    assert!(leave(WillFate::Dropped) < head);
    assert_eq!(leave(DUE), head);
}

#[test]
fn a_proper_goodbye_drops_the_will() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 0)).unwrap();
    assert!(bed.save(vec![gone(&a, 100, WillFate::Dropped)]).wills.is_empty());
    assert_eq!(stored_wills(&bed), 0);
    assert_eq!(stored_wills(&bed.lose_power()), 0);
}

#[test]
fn a_crash_makes_every_will_due_after_its_delay_or_the_grace_counted_from_the_start() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 0, 0)).unwrap();
    bed.open(open_with_will(&b, 100, 70)).unwrap();
    bed.pass(1_000);
    let mut bed = bed.lose_power();
    bed.pass(59);
    assert!(bed.settle().wills.is_empty());
    bed.pass(1);
    let due: Vec<u64> = bed.settle().wills.iter().map(|due| due.key.session).collect();
    assert_eq!(due, [a.hash]);
    bed.pass(9);
    assert!(bed.settle().wills.is_empty());
    bed.pass(1);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn a_will_that_the_log_has_is_not_fired_again_after_a_crash_before_the_view_saw_it() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 0, 0)).unwrap();
    let key = bed.save(vec![gone(&a, 0, DUE)]).wills[0].key;
    bed.publish_will(key.session, key.serial);
    bed.log.commit.commit().unwrap();
    let mut bed = bed.lose_power();
    bed.pass(60);
    assert!(bed.settle().wills.is_empty());
    assert_eq!(stored_wills(&bed), 0);
}

#[test]
fn a_will_that_was_lost_with_the_power_is_fired_again() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 0, 0)).unwrap();
    let key = bed.save(vec![gone(&a, 0, DUE)]).wills[0].key;
    bed.publish_will(key.session, key.serial);
    bed.state.queue().will_done(key, WillOutcome::Published);
    let mut bed = bed.lose_power();
    bed.pass(60);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn a_delayed_will_waits_and_the_return_of_the_client_cancels_it() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    assert!(bed.save(vec![gone(&a, 100, due_after(10))]).wills.is_empty());
    bed.pass(5);
    let opened = bed.open(open(&a)).unwrap();
    assert!(opened.resumed.is_some() && opened.has_to_enter);
    bed.enter(&a);
    bed.pass(50);
    assert!(bed.settle().wills.is_empty());
    assert_eq!(stored_wills(&bed), 0);
    assert_eq!(stored_wills(&bed.lose_power()), 0);
}

/// Found by kills: the bus died between CONNACK and the next transaction, and published it. Found by the simulation: the
/// client was turned away, the bus died before that was saved, and nobody published it.
#[test]
fn a_will_that_was_called_back_leaves_the_file_when_its_client_is_let_in_and_not_before() {
    let a = name("a");
    let delayed = {
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 100, 10)).unwrap();
        bed.save(vec![gone(&a, 100, due_after(10))]);
        bed
    };
    let orphan = {
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 0, 0)).unwrap();
        bed.lose_power()
    };
    let copy = |bed: &Bed| {
        Bed::on(bed.disk.copy(), bed.state_disk.copy(), bed.now, firehose_broker::Limits::default())
    };
    for mut bed in [delayed, orphan] {
        assert!(bed.open(open(&a)).unwrap().has_to_enter);
        let mut killed = copy(&bed);
        killed.pass(100);
        assert_eq!(killed.settle().wills.len(), 1, "it was not let in");
        bed.enter(&a);
        let mut bed = bed.lose_power();
        bed.pass(100);
        assert!(bed.settle().wills.is_empty());
        assert_eq!(stored_wills(&bed), 0);
    }
}

#[test]
fn while_the_file_cannot_be_written_who_comes_back_is_let_in_and_its_will_goes_as_soon_as_it_can() {
    for is_opened_before in [false, true] {
        let a = name("a");
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 100, 10)).unwrap();
        bed.save(vec![gone(&a, 100, due_after(10))]);
        let fail = |bed: &Bed| bed.state_disk.fail_after(0, std::io::ErrorKind::Other);
        if !is_opened_before {
            fail(&bed);
        }
        assert!(bed.open(open(&a)).unwrap().has_to_enter);
        fail(&bed);
        bed.enter(&a);
        bed.state_disk.heal();
        bed.pass(2);
        bed.settle();
        assert_eq!(bed.state.failing(), None);
        let mut bed = bed.lose_power();
        bed.pass(100);
        assert!(bed.settle().wills.is_empty());
    }
}

#[test]
fn who_is_to_be_let_in_is_turned_away_if_the_log_has_failed_and_its_will_stays() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 0)).unwrap();
    let mut bed = bed.lose_power();
    let opening = bed.open(open(&a)).unwrap();
    assert!(opening.has_to_enter);
    let head = bed.append("x", b"1", 1, false, Origin::default());
    let token = bed.submit(vec![Operation::Entered { name: a.clone(), expiry_secs: 100 }]);
    assert!(bed.state.turn(head - 1, bed.now).answers.is_empty());
    bed.state.queue().log_failed(&firehose_log::Refusal::ReadOnly("fdatasync failed".into()));
    assert!(opened(bed.state.turn(head - 1, bed.now), token).unwrap().is_err());
    bed.submit(vec![refused(&a, &opening)]);
    let mut bed = bed.lose_power();
    bed.pass(100);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn a_client_that_is_turned_away_leaves_its_will_in_the_file() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    bed.save(vec![gone(&a, 100, due_after(10))]);
    let opened = bed.open(open_with_will(&a, 100, 0)).unwrap();
    assert!(opened.has_to_enter);
    bed.save(vec![refused(&a, &opened)]);
    let mut bed = bed.lose_power();
    bed.pass(60);
    assert_eq!(bed.settle().wills.len(), 1);
}

/// Its session lives on for as long as it was told before, and so its will is not due yet.
#[test]
fn a_client_that_is_turned_away_changes_nothing_of_its_session() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    bed.save(vec![gone(&a, 100, due_after(10))]);
    bed.state_disk.fail(firehose_log::DiskCall::Write, std::io::ErrorKind::Other);
    assert!(bed.open(open_with_will(&a, 0, 0)).is_err());
    bed.pass(5);
    assert!(bed.settle().wills.is_empty());
    assert!(bed.open(open(&a)).unwrap().resumed.is_some());
}

#[test]
fn a_client_that_is_turned_away_calls_no_will_back() {
    for is_written in [false, true] {
        let a = name("a");
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 100, 10)).unwrap();
        bed.save(vec![gone(&a, 100, due_after(10))]);
        if is_written {
            let opened = bed.open(open_with_will(&a, 100, 0)).unwrap();
            assert!(opened.has_to_enter);
            bed.pass(20);
            assert!(bed.settle().wills.is_empty(), "it may have come back");
            let turn = bed.save(vec![refused(&a, &opened)]);
            assert_eq!(turn.wills.len(), 1, "its new will is none, and the old one is due");
        } else {
            bed.state_disk.fail(firehose_log::DiskCall::Write, std::io::ErrorKind::Other);
            assert!(bed.open(open_with_will(&a, 100, 0)).is_err());
            bed.pass(9);
            assert!(bed.settle().wills.is_empty());
            bed.pass(1);
            assert_eq!(bed.settle().wills.len(), 1);
        }
    }
}

/// Found by the simulation.
#[test]
fn a_will_that_is_due_and_found_no_room_is_not_called_back_by_its_client() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    bed.save(vec![gone(&a, 100, due_after(10))]);
    bed.pass(10);
    let key = bed.settle().wills[0].key;
    bed.state.queue().will_done(key, WillOutcome::Later);
    let opened = bed.open(open(&a)).unwrap();
    assert!(opened.resumed.is_some() && !opened.has_to_enter);
    bed.pass(1);
    let due: Vec<_> = bed.settle().wills.iter().map(|due| due.key).collect();
    assert_eq!(due, [key]);
}

#[test]
fn a_will_that_was_due_when_the_process_died_is_published_although_its_client_comes_back_before() {
    let a = name("a");
    for loses_power in [false, true] {
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 100, 0)).unwrap();
        assert_eq!(bed.save(vec![gone(&a, 100, DUE)]).wills.len(), 1);
        bed.settle();
        let mut bed = if loses_power { bed.lose_power() } else { bed.restart() };
        let token = bed.submit(vec![Operation::Open(Box::new(open(&a)))]);
        let turn = bed.settle();
        assert_eq!(turn.wills.iter().map(|due| &due.will).collect::<Vec<_>>(), [&will(0)]);
        assert!(opened(turn, token).is_some_and(|it| it.is_ok_and(|it| it.resumed.is_some())));
    }
}

#[test]
fn a_clean_start_ends_the_session_and_its_delayed_will_is_due_at_once() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    bed.save(vec![gone(&a, 100, due_after(10))]);
    let mut clean = open_with_will(&a, 100, 0);
    clean.clean = true;
    let token = bed.submit(vec![firehose_broker::state::Operation::Open(Box::new(clean))]);
    let turn = bed.settle();
    let [due] = &turn.wills[..] else { panic!("{:?}", turn.wills) };
    let old = due.key;
    assert!(opened(turn, token).unwrap().is_ok());
    assert_eq!(stored_wills(&bed), 2);
    // The record of the old one leaves the new one alone.
    bed.publish_will(old.session, old.serial);
    bed.settle();
    assert_eq!(stored_wills(&bed), 1);
    let again = bed.save(vec![gone(&a, 0, DUE)]).wills[0].key;
    assert_ne!(again, old);
}

#[test]
fn a_delayed_will_is_not_later_than_the_end_of_its_session() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 5, 60)).unwrap();
    bed.open(open_with_will(&b, 0, 60)).unwrap();
    assert_eq!(bed.save(vec![gone(&b, 0, due_after(60))]).wills.len(), 1);
    assert!(bed.save(vec![gone(&a, 5, due_after(60))]).wills.is_empty());
    bed.pass(5);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn a_refused_will_is_forgotten_and_one_that_found_no_room_is_tried_again() {
    let (a, b) = (name("a"), name("b"));
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 0, 0)).unwrap();
    bed.open(open_with_will(&b, 0, 0)).unwrap();
    let refused = bed.save(vec![gone(&a, 0, DUE)]).wills[0].key;
    let later = bed.save(vec![gone(&b, 0, DUE)]).wills[0].key;
    bed.state.queue().will_done(refused, WillOutcome::Refused);
    bed.state.queue().will_done(later, WillOutcome::Later);
    assert!(bed.settle().wills.is_empty());
    assert_eq!(stored_wills(&bed), 1);
    bed.pass(1);
    assert_eq!(bed.settle().wills[0].key, later);
    bed.state.queue().will_done(later, WillOutcome::Delivered);
    bed.settle();
    assert_eq!(stored_wills(&bed), 0);
    assert_eq!(stored_wills(&bed.lose_power()), 0);
}

#[test]
fn many_wills_come_in_bounded_turns_and_none_is_lost() {
    let mut bed = Bed::new();
    let names: Vec<_> = (0..20).map(|number| name(&format!("c{number}"))).collect();
    for name in &names {
        let mut open = open_with_will(name, 0, 0);
        open.will.as_mut().unwrap().payload = vec![7; 200_000];
        bed.open(open).unwrap();
    }
    for name in &names {
        bed.submit(vec![gone(name, 0, DUE)]);
    }
    bed.log.commit.commit().unwrap();
    let head = bed.log.read.head();
    let first = bed.state.turn(head, bed.now);
    assert!(first.again && first.wills.len() < 10, "{}", first.wills.len());
    assert_eq!(first.wills.len() + bed.settle().wills.len(), 20);
}

/// The file turns out to be damaged; a second later it has been made anew.
fn lose_file(bed: &mut Bed) {
    bed.state_disk.set_bytes(&path(), b"rubbish");
    bed.state_disk.fail(firehose_log::DiskCall::Write, std::io::ErrorKind::StorageFull);
    bed.retain("t", b"1");
    bed.settle();
    bed.state_disk.heal();
    bed.pass(1);
    bed.settle();
    assert_eq!(bed.state.queue().stats().rebuilds.get(), 1, "{:?}", bed.notes);
}

fn rescue(bed: &Bed, name: &Arc<SessionName>, expiry_secs: u32) -> Operation {
    let (head, will) = (bed.log.read.head(), Some(will(0)));
    let rescue = Rescue { name: name.clone(), expiry_secs, address: None, received: Vec::new(), head, will };
    Operation::Rescue(Box::new(rescue))
}

#[test]
fn a_will_that_is_saved_anew_is_not_forgotten_for_an_earlier_one_that_was_under_way() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 0)).unwrap();
    let old = bed.save(vec![gone(&a, 100, DUE)]).wills[0].key;
    bed.open(open_with_will(&a, 100, 0)).unwrap();
    lose_file(&mut bed);
    let rescue = rescue(&bed, &a, 100);
    bed.save(vec![rescue]);
    bed.publish_will(old.session, old.serial);
    bed.state.queue().will_done(old, WillOutcome::Published);
    bed.settle();
    assert_eq!(stored_wills(&bed), 1);
    let mut bed = bed.lose_power();
    assert_eq!((stored_wills(&bed), bed.state.sessions()), (1, 1));
    bed.pass(60);
    assert_eq!(bed.settle().wills.len(), 1);
}

#[test]
fn a_will_alone_is_saved_anew_unless_its_client_has_a_later_one() {
    for has_later in [false, true] {
        let a = name("a");
        let mut bed = Bed::new();
        bed.open(open_with_will(&a, 0, 0)).unwrap();
        lose_file(&mut bed);
        assert_eq!((stored_wills(&bed), bed.state.names().contains(a.hash)), (0, false));
        if has_later {
            bed.open(open_with_will(&a, 0, 0)).unwrap();
        }
        let rescue = rescue(&bed, &a, 0);
        bed.save(vec![rescue]);
        assert_eq!((stored_wills(&bed), bed.state.sessions()), (1, 0));
        assert!(bed.state.names().contains(a.hash), "whoever comes next has to ask");
        assert_eq!(bed.save(vec![gone(&a, 0, DUE)]).wills.len(), 1);
    }
}

#[test]
fn who_is_to_be_let_in_is_turned_away_if_the_file_was_lost_meanwhile() {
    let a = name("a");
    let mut bed = Bed::new();
    bed.open(open_with_will(&a, 100, 10)).unwrap();
    bed.save(vec![gone(&a, 100, due_after(10))]);
    assert!(bed.open(open(&a)).unwrap().has_to_enter);
    lose_file(&mut bed);
    let token = bed.submit(vec![Operation::Entered { name: a.clone(), expiry_secs: 100 }]);
    assert!(opened(bed.settle(), token).unwrap().is_err());
}

fn auth(folder: &tempfile::TempDir, acl: &str) -> Arc<Auth> {
    let (passwords, rules) = (folder.path().join("passwd"), folder.path().join("acl"));
    let mut file = PasswordFile::default();
    file.set("u", b"secret", HashKind::Sha512Pbkdf2).unwrap();
    file.write(&passwords).unwrap();
    std::fs::write(&rules, acl).unwrap();
    let (password_file, acl_file) = (Some(passwords), Some(rules));
    Access::new(AuthConfig { password_file, acl_file, anonymous: AnonymousMode::Read }).unwrap().current()
}

#[test]
fn the_rules_of_the_moment_decide_whether_a_will_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let key = firehose_broker::state::WillKey { session: 7, serial: 3 };
    let mut due = DueWill { key, client_id: "a".into(), will: will(0) };
    let may = auth(&folder, "user u\ntopic write will\n");
    let Firing::Logged(draft) = due.firing(&may, &[]) else { panic!("it is published") };
    assert!(draft.is_marked());
    let batch = firehose_log::Batch::unlogged(draft, 0, 0);
    let origin = batch.record(0).origin();
    assert_eq!((origin.session, origin.packet_id, origin.way_in), (7, 3, WayIn::Will));
    assert_eq!((origin.principal, batch.record(0).event().payload), ("u", &b"gone"[..]));
    let unlogged = [firehose_topic::TopicFilter::new("will/#").unwrap()];
    assert!(matches!(due.firing(&may, &unlogged), Firing::Unlogged(_)));
    let may_not = auth(&folder, "user u\ntopic write other\n");
    assert!(matches!(due.firing(&may_not, &[]), Firing::Refused));
    due.will.user = Some("gone".into());
    assert!(matches!(due.firing(&may, &[]), Firing::Refused), "the user is gone");
    due.will.user = None;
    assert!(matches!(due.firing(&may, &[]), Firing::Refused), "the anonymous may not");
}
