//! What a group wanted and the log has no more is told to a member of 5.0, whatever becomes of the message that tells it.

use crate::client::{ack, start_packet};
use crate::session::{again, connect};
use crate::shared::{numbers, publish, publishes};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::Limits;
use firehose_mqtt::{Packet, Property, Version};

const GROUP: &str = "$share/g/t/#";

/// Three shards, and a log that keeps little. Everybody takes one message at a time.
fn world() -> World {
    World::new(Setup {
        shards: 3,
        limits: Limits { inflight_max: 1, ..Limits::default() },
        segment_bytes: 1 << 10,
        tail_bytes: 0,
        retention_bytes: Some(2 << 10),
        ..Setup::default()
    })
}

/// Publishes numbered messages, each of 100 bytes, until the log has none of those before.
fn publish_much(world: &mut World, publisher: usize, numbers: std::ops::RangeInclusive<u16>) {
    let filler = " ".repeat(100);
    for number in numbers {
        world.publish(publisher, "t/x", &format!("{number}{filler}"), 1, number);
        world.settle();
        world.commit();
    }
    world.upkeep_keeping_nothing();
}

/// A member of 5.0 that acknowledges when it is told to.
fn slow_member(world: &mut World, name: &str, properties: &[Property<'_>]) -> usize {
    let client = world.client_with(Version::V5, name, properties);
    world.clients[client].acknowledges = true;
    world.clients[client].holds_acks = true;
    assert!(!world.subscribed(client, GROUP, 1).is_error());
    client
}

/// The ranges that a member was told of.
fn gaps(world: &mut World, client: usize) -> Vec<String> {
    let user = publishes(world, client).into_iter().flat_map(|it| it.user);
    user.filter(|(name, _)| name == "firehose-gap").map(|(_, gap)| gap).collect()
}

#[test]
fn a_range_that_retention_took_is_told_to_a_member_that_can_hear_of_it() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let client = world.client_with(Version::V5, "a", &[Property::ReceiveMaximum(1)]);
    world.clients[client].acknowledges = true;
    world.clients[client].holds_acks = true;
    world.subscribed(client, GROUP, 1);
    let filler = " ".repeat(100);
    for number in 1..=60u16 {
        world.publish(publisher, "t/x", &format!("{number}{filler}"), 1, number);
        world.settle();
        world.commit();
    }
    world.upkeep_keeping_nothing();
    world.delays_reads = false;
    world.let_go();
    let got = publishes(&mut world, client);
    let gaps: Vec<&str> = got.iter().filter_map(|it| it.user("firehose-gap")).collect();
    assert_eq!(gaps.len(), 1, "told once");
    assert!(gaps[0].contains(".."), "{gaps:?}");
    assert_eq!(got.last().map(|it| it.payload.trim()), Some("60"));
}

/// Found beside what the simulation found: the second gap took the place of the first.
#[test]
fn two_ranges_that_are_gone_are_both_told_to_the_first_member_that_can_hear_of_them() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let deaf = world.client(Version::V311, "a");
    world.clients[deaf].acknowledges = true;
    world.subscribed(deaf, GROUP, 1);
    let filler = " ".repeat(100);
    for round in 0..2u16 {
        world.clients[deaf].holds_acks = true;
        for number in 1..=60 {
            world.publish(publisher, "t/x", &format!("{number}{filler}"), 1, round * 60 + number);
            world.settle();
            world.commit();
        }
        world.upkeep_keeping_nothing();
        world.let_go();
        assert_eq!(publishes(&mut world, deaf).last().map(|it| it.payload.trim()), Some("60"));
    }
    let client = world.client(Version::V5, "b");
    world.subscribed(client, GROUP, 0);
    world.hang_up(deaf);
    publish(&mut world, publisher, 200..=200, 0);
    let got = publishes(&mut world, client);
    let gaps = got[0].user.iter().filter(|(name, _)| name == "firehose-gap");
    assert_eq!(gaps.count(), 2, "{got:?}");
}

/// Found by the simulation (seed 445817712816): it was counted, and nobody was told.
#[test]
fn a_message_that_was_given_back_and_that_nobody_could_take_before_retention_did_is_told() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = slow_member(&mut world, "one", &[]);
    publish(&mut world, publisher, 1..=1, 1);
    assert_eq!(numbers(&mut world, one), [1], "not acknowledged");
    let two = slow_member(&mut world, "two", &[]);
    publish(&mut world, publisher, 2..=2, 1);
    world.hang_up(one);
    publish_much(&mut world, publisher, 3..=60);
    assert_eq!(numbers(&mut world, two), [2]);
    world.delays_reads = false;
    world.let_go();
    let gaps = gaps(&mut world, two);
    assert!(gaps.iter().any(|gap| gap.starts_with("1..1 ")), "{gaps:?}");
}

#[test]
fn a_message_that_a_member_had_and_retention_took_before_it_came_back_is_told() {
    for qos in 1..3 {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let (one, _) = connect(&mut world, Version::V5, "one", &[]);
        assert!(!world.subscribed(one, GROUP, qos).is_error());
        publish(&mut world, publisher, 1..=1, 2);
        assert_eq!(numbers(&mut world, one), [1], "not acknowledged");
        world.hang_up(one);
        publish_much(&mut world, publisher, 2..=60);
        let one = again(&mut world, Version::V5, "one");
        world.clients[one].acknowledges = true;
        if qos == 2 {
            // Of its PUBREL.
            world.send(one, &ack(Packet::PubComp, 1, Version::V5));
            world.settle();
        }
        publish(&mut world, publisher, 61..=62, 1);
        let gaps = gaps(&mut world, one);
        assert!(gaps.iter().any(|gap| gap.starts_with("1..")), "{gaps:?}");
    }
}

/// A member's session has a message that retention took while it was away.
fn away_too_long() -> (World, usize) {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, _) = connect(&mut world, Version::V5, "one", &[]);
    assert!(!world.subscribed(one, GROUP, 1).is_error());
    publish(&mut world, publisher, 1..=1, 2);
    assert_eq!(numbers(&mut world, one), [1], "not acknowledged");
    world.hang_up(one);
    publish_much(&mut world, publisher, 2..=60);
    (world, publisher)
}

/// It comes back, and leaves in the same breath.
fn come_and_leave(world: &mut World) {
    let mut input = start_packet(Version::V5, false, "one", &[Property::SessionExpiry(3600)]);
    input.extend([0xe0, 0]);
    world.arrive(input, Identity::anonymous(), "one", None);
}

/// What the member is told to be gone when it comes back.
fn told_when_back(world: &mut World, publisher: usize) -> Vec<String> {
    let one = again(world, Version::V5, "one");
    world.clients[one].acknowledges = true;
    publish(world, publisher, 61..=62, 1);
    gaps(world, one)
}

/// Its session is saved without the message; the group, which the state was still asked for, was saved never.
#[test]
fn a_message_that_retention_took_is_told_although_its_member_left_before_its_group_had_begun() {
    let (mut world, publisher) = away_too_long();
    come_and_leave(&mut world);
    world.settle();
    let gaps = told_when_back(&mut world, publisher);
    assert!(gaps.iter().any(|gap| gap.starts_with("1..")), "{gaps:?}");
}

/// Its session is saved without the message at one time, and its group with what it tells at another.
#[test]
fn at_whatever_step_the_bus_dies_a_message_that_retention_took_from_a_member_is_told() {
    for loses_power in [false, true] {
        for steps in 0.. {
            let (mut world, _) = away_too_long();
            come_and_leave(&mut world);
            let is_over = (0..steps).any(|_| !step(&mut world));
            let mut world = world.reopen(loses_power);
            let publisher = world.client(Version::V311, "p");
            let gaps = told_when_back(&mut world, publisher);
            assert!(gaps.iter().any(|gap| gap.starts_with("1..")), "step {steps}: {gaps:?}");
            if is_over {
                assert!(steps > 10, "it takes a while: {steps}");
                break;
            }
        }
    }
}

/// A step of a shard, or of the state; false: there is nothing to do any more.
fn step(world: &mut World) -> bool {
    (0..3).any(|shard| world.exchange(shard) || world.flush(shard)) || world.turn_of_state()
}

#[test]
fn a_gap_whose_message_did_not_reach_its_member_is_told_to_another_one() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, two) = (slow_member(&mut world, "one", &[]), slow_member(&mut world, "two", &[]));
    publish_much(&mut world, publisher, 1..=60);
    for client in [one, two] {
        assert_eq!(publishes(&mut world, client).len(), 1);
    }
    // What tells it lies in the first member's outbox when that is cut off.
    world.clients[one].room = 0;
    world.release_acks(one, 1);
    world.settle();
    world.hang_up(one);
    world.let_go();
    assert_eq!(gaps(&mut world, two).len(), 1);
}

#[test]
fn a_gap_that_does_not_fit_a_members_maximum_packet_size_is_told_to_another_one() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = slow_member(&mut world, "one", &[Property::MaximumPacketSize(140)]);
    let two = slow_member(&mut world, "two", &[]);
    publish_much(&mut world, publisher, 1..=60);
    for client in [one, two] {
        assert_eq!(publishes(&mut world, client).len(), 1);
    }
    world.release_acks(one, 1);
    world.settle();
    let got = publishes(&mut world, one);
    assert!(got.len() == 1 && got[0].user("firehose-gap").is_none(), "it fits without: {got:?}");
    world.let_go();
    publish(&mut world, publisher, 61..=62, 1);
    world.let_go();
    assert_eq!(gaps(&mut world, two).len(), 1);
    assert_eq!(gaps(&mut world, one), Vec::<String>::new());
}

#[test]
fn a_gap_that_nobody_was_told_of_outlives_the_bus() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, _) = connect(&mut world, Version::V5, "one", &[Property::ReceiveMaximum(1)]);
    world.clients[one].acknowledges = true;
    world.clients[one].holds_acks = true;
    assert!(!world.subscribed(one, GROUP, 1).is_error());
    let deaf = world.client(Version::V311, "deaf");
    world.clients[deaf].acknowledges = true;
    world.clients[deaf].holds_acks = true;
    assert!(!world.subscribed(deaf, GROUP, 1).is_error());
    publish_much(&mut world, publisher, 1..=60);
    world.hang_up(one);
    world.clients[deaf].holds_acks = false;
    world.release_acks(deaf, 10);
    world.let_go();
    assert_eq!(publishes(&mut world, deaf).last().map(|it| it.payload.trim().to_owned()), Some("60".into()));
    world.pass(1_000);
    world.settle();
    let mut world = world.reopen(true);
    let publisher = world.client(Version::V311, "p");
    let one = again(&mut world, Version::V5, "one");
    publish(&mut world, publisher, 61..=62, 1);
    let got = publishes(&mut world, one);
    let told = got.iter().filter(|it| it.user("firehose-gap").is_some());
    assert_eq!(told.count(), 1, "{got:?}");
}

/// A group of one member, of 5.0 and at QoS 1, that a message of QoS 0 tells of what is gone.
fn told_at_qos_0(world: &mut World, publisher: usize) -> (usize, String) {
    let deaf = world.client(Version::V311, "deaf");
    world.clients[deaf].acknowledges = true;
    world.clients[deaf].holds_acks = true;
    world.subscribed(deaf, GROUP, 1);
    publish_much(world, publisher, 1..=60);
    world.let_go();
    let one = slow_member(world, "one", &[]);
    world.hang_up(deaf);
    publish(world, publisher, 61..=61, 0);
    let told = gaps(world, one);
    assert_eq!(told.len(), 1);
    (one, told.into_iter().collect())
}

#[test]
fn a_gap_that_a_member_may_not_have_read_is_told_to_another_one() {
    for crashes in [false, true] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let (one, told) = told_at_qos_0(&mut world, publisher);
        publish(&mut world, publisher, 62..=62, 0);
        assert_eq!(gaps(&mut world, one), Vec::<String>::new(), "it was told");
        let two = match crashes {
            false => {
                let two = slow_member(&mut world, "two", &[]);
                world.hang_up(one);
                two
            }
            true => {
                let (two, _) = connect(&mut world, Version::V5, "two", &[]);
                world.subscribed(two, GROUP, 0);
                world.pass(1_000);
                world.settle();
                world = world.reopen(true);
                again(&mut world, Version::V5, "two")
            }
        };
        let publisher = world.client(Version::V311, "p");
        publish(&mut world, publisher, 63..=64, 0);
        assert_eq!(gaps(&mut world, two), vec![told], "crashes {crashes}");
    }
}

#[test]
fn a_gap_is_through_once_a_member_acknowledges_what_was_sent_behind_it() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, _) = told_at_qos_0(&mut world, publisher);
    publish(&mut world, publisher, 62..=62, 1);
    assert_eq!(numbers(&mut world, one), [62]);
    world.release_acks(one, 1);
    world.settle();
    let two = slow_member(&mut world, "two", &[]);
    world.hang_up(one);
    publish(&mut world, publisher, 63..=64, 0);
    assert_eq!(gaps(&mut world, two), Vec::<String>::new());
}
