//! Groups of shared subscriptions: which the state keeps, and for how long.

use crate::bed::*;
use firehose_broker::group::GroupKey;
use firehose_broker::state::{
    Answer, Open, Operation, Progress, SessionName, StoredGroup, StoredInflight, StoredState,
    StoredSubscription, WillFate,
};
use firehose_log::Offset;
use std::sync::Arc;

const GROUP: &str = "$share/g/t";

/// What its shard says of the group.
fn save(hash: u64, next: Offset, joining: &[u64], members: &[u64]) -> Operation {
    let key = Arc::new(GroupKey::of_user(None, GROUP).expect("a group"));
    let group = StoredGroup { next, ..StoredGroup::default() };
    Operation::SaveGroup { key, hash, group, joining: joining.to_vec(), members: members.to_vec() }
}

fn hash(bed: &Bed) -> u64 {
    GroupKey::of_user(None, GROUP).expect("a group").hash_with(bed.state.secret())
}

/// How far the group is, for a shard at which it begins.
fn opened(bed: &mut Bed) -> Option<Offset> {
    let hash = hash(bed);
    bed.submit(vec![Operation::OpenGroup { hash }]);
    let answer = bed.settle().answers.into_iter().find_map(|(_, answer)| match answer {
        Answer::Group { stored, .. } => Some(stored),
        _ => None,
    });
    answer.expect("an answer").map(|stored| stored.next)
}

fn list(name: &Arc<SessionName>, subscriptions: Vec<StoredSubscription>) -> Operation {
    Operation::Subscriptions { name: name.clone(), cursors: false, subscriptions }
}

fn shared() -> StoredSubscription {
    StoredSubscription { written: Some(GROUP.into()), lane: 1 << 15, ..subscription("t") }
}

/// Found by the simulation (seed 446495813473): what its shard had said before it heard of that came behind it.
#[test]
fn a_group_that_its_last_session_has_left_does_not_come_back_with_what_its_shard_says_later() {
    let mut bed = Bed::new();
    let session = name("a");
    bed.open(open(&session)).unwrap();
    let hash = hash(&bed);
    bed.save(vec![save(hash, 5, &[session.hash], &[])]);
    bed.save(vec![list(&session, vec![shared()])]);
    assert_eq!(opened(&mut bed), Some(5));
    bed.save(vec![list(&session, Vec::new())]);
    assert_eq!(opened(&mut bed), None, "it unsubscribes");
    bed.save(vec![save(hash, 5, &[], &[session.hash])]);
    assert_eq!(opened(&mut bed), None);
}

/// Found by the simulation (seed 446495811842).
#[test]
fn a_group_is_not_kept_for_a_session_that_never_came_to_subscribe() {
    let mut bed = Bed::new();
    let session = name("a");
    bed.open(open(&session)).unwrap();
    let hash = hash(&bed);
    bed.save(vec![save(hash, 5, &[session.hash], &[])]);
    assert_eq!(opened(&mut bed), None);
    assert!(!bed.state.group_names().is_stored(hash));
}

/// Found by the simulation (seed 446088912453): what members had was forgotten with it, and came again at QoS 2.
#[test]
fn a_group_outlives_what_a_session_saves_of_its_other_subscriptions_while_it_joins() {
    let mut bed = Bed::new();
    let session = name("a");
    bed.open(open(&session)).unwrap();
    let hash = hash(&bed);
    bed.save(vec![save(hash, 5, &[session.hash], &[])]);
    bed.save(vec![list(&session, vec![subscription("other")])]);
    bed.save(vec![list(&session, vec![subscription("other"), shared()])]);
    assert_eq!(opened(&mut bed), Some(5));
    let mut bed = bed.restart();
    assert_eq!(opened(&mut bed), Some(5));
}

/// Found by the simulation (seed 447766363233): it came with what the group began with, and was told to it once more.
#[test]
fn what_a_session_leaves_is_told_to_a_group_that_begins_later_once() {
    let mut bed = Bed::new();
    let (session, other) = (name("a"), name("b"));
    bed.open(open(&session)).unwrap();
    bed.open(open(&other)).unwrap();
    let hash = hash(&bed);
    let offset = bed.retain("t", b"1");
    bed.save(vec![save(hash, offset + 1, &[session.hash, other.hash], &[])]);
    bed.save(vec![list(&session, vec![shared()])]);
    bed.save(vec![list(&other, vec![shared()])]);
    let sent = StoredInflight {
        packet_id: 1,
        state: StoredState::Sent1,
        offset,
        retain: false,
        shared: shared().lane,
    };
    let progress = Progress { inflight: vec![sent], ..progress(offset + 1) };
    bed.save(vec![Operation::Progress { name: session.clone(), progress }]);
    bed.save(vec![Operation::Taken { hash, offsets: vec![offset] }]);
    bed.save(vec![gone(&session, 100, WillFate::Dropped)]);
    bed.open(Open { clean: true, ..open(&session) }).unwrap();
    bed.submit(vec![Operation::OpenGroup { hash }]);
    let pending = bed.settle().answers.into_iter().find_map(|(_, answer)| match answer {
        Answer::Group { stored, .. } => Some(stored?.pending),
        _ => None,
    });
    assert_eq!(pending, Some(vec![offset]));
    let turn = bed.save(vec![save(hash, offset + 1, &[], &[other.hash])]);
    assert!(
        !turn.answers.iter().any(|(_, answer)| matches!(answer, Answer::Orphaned { .. })),
        "{:?}",
        turn.answers
    );
    let mut bed = bed.restart();
    bed.submit(vec![Operation::OpenGroup { hash }]);
    let pending = bed.settle().answers.into_iter().find_map(|(_, answer)| match answer {
        Answer::Group { stored, .. } => Some(stored?.pending),
        _ => None,
    });
    assert_eq!(pending, Some(vec![]), "the group is through with it");
}

#[test]
fn a_gap_that_nobody_was_told_of_is_kept() {
    let mut bed = Bed::new();
    let session = name("a");
    bed.open(open(&session)).unwrap();
    let hash = hash(&bed);
    let Operation::SaveGroup { key, group, joining, members, .. } = save(hash, 5, &[session.hash], &[])
    else {
        panic!("it saves a group");
    };
    let group = StoredGroup { gap: Some("1..3 gone".into()), ..group };
    bed.save(vec![Operation::SaveGroup { key, hash, group, joining, members }]);
    bed.save(vec![list(&session, vec![shared()])]);
    let mut bed = bed.lose_power();
    assert_eq!(gap(&mut bed).as_deref(), Some("1..3 gone"));
}

/// What a group says that has not heard of it comes behind what a member says.
#[test]
fn what_a_member_has_lost_is_kept_until_its_group_tells_it() {
    let mut bed = Bed::new();
    let session = name("a");
    bed.open(open(&session)).unwrap();
    let hash = hash(&bed);
    bed.save(vec![save(hash, 5, &[session.hash], &[])]);
    bed.save(vec![list(&session, vec![shared()])]);
    bed.save(vec![Operation::Lost { hash, lost: vec![(2, "gone"), (4, "gone")] }]);
    bed.save(vec![save(hash, 6, &[], &[])]);
    let mut bed = bed.lose_power();
    assert_eq!(gap(&mut bed).as_deref(), Some("2..2 gone\n4..4 gone"), "the group never knew");
    bed.save(vec![Operation::Lost { hash, lost: vec![(5, "gone")] }]);
    let saved = |gap: Option<&str>| match save(hash, 7, &[], &[]) {
        Operation::SaveGroup { key, hash, group, joining, members } => {
            let group = StoredGroup { gap: gap.map(Box::from), ..group };
            Operation::SaveGroup { key, hash, group, joining, members }
        }
        other => other,
    };
    bed.save(vec![saved(Some("2..5 gone"))]);
    let mut bed = bed.lose_power();
    assert_eq!(gap(&mut bed).as_deref(), Some("2..5 gone"), "it knows of all");
    bed.save(vec![Operation::Lost { hash, lost: vec![(6, "gone")] }]);
    bed.save(vec![saved(Some("6..6 gone"))]);
    bed.save(vec![saved(None)]);
    let mut bed = bed.lose_power();
    assert_eq!(gap(&mut bed), None, "it was told");
}

/// What a group has to tell that begins at its shard.
fn gap(bed: &mut Bed) -> Option<Box<str>> {
    let hash = hash(bed);
    bed.submit(vec![Operation::OpenGroup { hash }]);
    bed.settle().answers.into_iter().find_map(|(_, answer)| match answer {
        Answer::Group { stored, .. } => stored?.gap,
        _ => None,
    })
}
