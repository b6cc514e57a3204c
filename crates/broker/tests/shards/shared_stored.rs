//! Shared subscriptions whose members are sessions that outlive their connections, and the bus.

use crate::client::{self, unsubscribe_packet};
use crate::session::{VERSIONS, again, arrive, connect};
use crate::shared::{numbers, publish, publishes, world};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_mqtt::{Disconnect, Packet, PacketKind, PropertiesBuf, Property, Reason, Version};

const GROUP: &str = "$share/g/t/#";

/// A member with a session; it acknowledges.
fn member(world: &mut World, version: Version, name: &str, qos: u8) -> usize {
    let (client, _) = connect(world, version, name, &[]);
    world.clients[client].acknowledges = true;
    assert!(!world.subscribed(client, GROUP, qos).is_error());
    client
}

fn back(world: &mut World, version: Version, name: &str) -> usize {
    let client = arrive(world, version, false, name, &[]);
    world.clients[client].acknowledges = true;
    world.settle();
    let connack = world.clients[client].packets.remove(0);
    assert_eq!((connack.kind, connack.reason()), (PacketKind::ConnAck, Reason::Success));
    assert!(connack.session_present || version == Version::V31, "the session is there");
    client
}

fn sorted(mut numbers: Vec<u16>) -> Vec<u16> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn while_all_members_are_away_the_group_waits() {
    for version in VERSIONS {
        for qos in 0..3 {
            let mut world = world();
            let publisher = world.client(Version::V311, "p");
            let one = member(&mut world, version, "one", qos);
            let two = member(&mut world, version, "two", qos);
            publish(&mut world, publisher, 1..=4, 2);
            assert_eq!((numbers(&mut world, one).len(), numbers(&mut world, two).len()), (2, 2));
            world.hang_up(one);
            world.hang_up(two);
            publish(&mut world, publisher, 5..=300, 2);
            let one = back(&mut world, version, "one");
            assert_eq!(numbers(&mut world, one), (5..=300).collect::<Vec<_>>(), "all that came meanwhile");
            let two = back(&mut world, version, "two");
            publish(&mut world, publisher, 301..=310, 2);
            assert_eq!((numbers(&mut world, one).len(), numbers(&mut world, two).len()), (5, 5));
        }
    }
}

#[test]
fn what_a_session_was_sent_and_did_not_acknowledge_waits_for_it() {
    for qos in [1, 2] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let one = member(&mut world, Version::V5, "one", qos);
        let two = member(&mut world, Version::V5, "two", qos);
        world.clients[one].holds_acks = true;
        publish(&mut world, publisher, 1..=10, 2);
        let held = numbers(&mut world, one);
        world.hang_up(one);
        publish(&mut world, publisher, 11..=12, 2);
        assert_eq!(numbers(&mut world, two).len(), 7, "nothing of the other's");
        let one = back(&mut world, Version::V5, "one");
        let got = publishes(&mut world, one);
        assert!(got.iter().all(|it| it.dup && it.qos == qos), "{got:?}");
        assert_eq!(got.iter().map(|it| it.payload.parse::<u16>().unwrap()).collect::<Vec<_>>(), held);
    }
}

#[test]
fn what_is_sent_again_has_the_identifier_of_the_shared_subscription() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, _) = connect(&mut world, Version::V5, "one", &[]);
    world.subscribe(one, &[(GROUP, client::options(1))], &[Property::SubscriptionId(3)]);
    world.settle();
    world.subscribe(one, &[("t/+", client::options(1))], &[Property::SubscriptionId(4)]);
    world.settle();
    publish(&mut world, publisher, 1..=1, 1);
    let ids = |world: &mut World, client| {
        let mut ids: Vec<Vec<u32>> = publishes(world, client).into_iter().map(|it| it.ids).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&mut world, one), [[3], [4]]);
    world.hang_up(one);
    let one = again(&mut world, Version::V5, "one");
    assert_eq!(ids(&mut world, one), [[3], [4]]);
}

#[test]
fn a_session_that_ends_with_unacknowledged_messages_leaves_them_to_others() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V5, "one", 1);
    let two = member(&mut world, Version::V5, "two", 1);
    world.clients[one].holds_acks = true;
    publish(&mut world, publisher, 1..=10, 1);
    assert_eq!(numbers(&mut world, one).len(), 5);
    let mut properties = PropertiesBuf::new();
    properties.push(&Property::SessionExpiry(0)).expect("fits");
    let properties = properties.as_properties();
    world.send_packet(one, &Packet::Disconnect(Disconnect { reason: Reason::Success, properties }));
    assert_eq!(sorted(numbers(&mut world, two)), (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_stood_with_a_session_that_ends_while_its_client_is_away_goes_to_others_at_qos_1_only() {
    for (qos, expires) in [(1, true), (1, false), (2, true), (2, false)] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let (one, _) = connect(&mut world, Version::V5, "one", &[Property::SessionExpiry(30)]);
        world.clients[one].holds_acks = true;
        world.clients[one].acknowledges = true;
        assert!(!world.subscribed(one, GROUP, qos).is_error());
        let two = member(&mut world, Version::V5, "two", qos);
        publish(&mut world, publisher, 1..=10, 2);
        let (held, mut got) = (numbers(&mut world, one), numbers(&mut world, two));
        assert_eq!((held.len(), got.len()), (5, 5));
        world.hang_up(one);
        world.pass(10_000);
        assert!(numbers(&mut world, two).is_empty(), "it may come back");
        match expires {
            true => world.pass(30_000),
            false => drop(arrive(&mut world, Version::V5, true, "one", &[])),
        }
        world.send_packet(two, &Packet::PingReq);
        world.settle();
        world.pass(61_000);
        got.extend(numbers(&mut world, two));
        match qos {
            1 => assert_eq!(sorted(got), (1..=10).collect::<Vec<_>>()),
            _ => assert_eq!(got.len(), 5, "[MQTT-4.8.2-5]"),
        }
        world.send_packet(two, &Packet::PingReq);
        world.pass(61_000);
        assert!(numbers(&mut world, two).is_empty(), "once");
        assert!(!world.clients[two].closed);
    }
}

/// Found by the simulation (seed 479911684324): what the log still had of it was nobody's.
#[test]
fn of_what_a_session_of_3_x_had_others_get_what_the_log_has_when_it_has_lost_some_and_the_session_is_a_new_one()
 {
    let mut world = World::new(Setup {
        segment_bytes: 4_096,
        tail_bytes: 0,
        retention_bytes: Some(8_192),
        ..Setup::default()
    });
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V311, "one", 1);
    let two = member(&mut world, Version::V5, "two", 1);
    world.clients[one].holds_acks = true;
    publish(&mut world, publisher, 1..=2, 1);
    let lost = numbers(&mut world, one);
    for _ in 0..50 {
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    world.commit();
    world.upkeep_keeping_nothing();
    publish(&mut world, publisher, 3..=6, 1);
    let held = numbers(&mut world, one);
    assert_eq!((lost.len(), held.len(), numbers(&mut world, two).len()), (1, 2, 3));
    world.hang_up(one);
    let (one, connack) = connect(&mut world, Version::V311, "one", &[]);
    assert!(!connack.session_present && numbers(&mut world, one).is_empty());
    world.pass(61_000);
    world.send_packet(two, &Packet::PingReq);
    world.settle();
    assert_eq!(numbers(&mut world, two), held);
    // Who got what is saved within a second, a group within a minute.
    world.pass(61_000);
    world.send_packet(two, &Packet::PingReq);
    world.pass(61_000);
    world.crash(true);
    let two = back(&mut world, Version::V5, "two");
    assert_eq!(numbers(&mut world, two), [0_u16; 0], "once");
}

#[test]
fn what_stood_with_a_session_that_ended_waits_while_all_others_are_away_too() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V5, "one", 1);
    let two = member(&mut world, Version::V5, "two", 1);
    world.clients[one].holds_acks = true;
    publish(&mut world, publisher, 1..=10, 1);
    let mut got = numbers(&mut world, two);
    world.hang_up(one);
    world.hang_up(two);
    arrive(&mut world, Version::V5, true, "one", &[]);
    world.settle();
    world.crash(true);
    let two = back(&mut world, Version::V5, "two");
    got.extend(numbers(&mut world, two));
    assert_eq!(sorted(got), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_group_ends_with_its_last_session() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V5, "one", 1);
    let two = member(&mut world, Version::V5, "two", 1);
    world.hang_up(two);
    world.send(one, &unsubscribe_packet(Version::V5, 5, &[GROUP]));
    world.settle();
    publish(&mut world, publisher, 1..=3, 1);
    let two = back(&mut world, Version::V5, "two");
    assert_eq!(numbers(&mut world, two), [1, 2, 3], "one session was still there");
    world.send(two, &unsubscribe_packet(Version::V5, 5, &[GROUP]));
    world.settle();
    publish(&mut world, publisher, 4..=5, 1);
    let three = member(&mut world, Version::V5, "three", 1);
    publish(&mut world, publisher, 6..=6, 1);
    assert_eq!(numbers(&mut world, three), [6], "a new group");
    // Expired: the same.
    world.hang_up(three);
    world.pass(4_000_000);
    publish(&mut world, publisher, 7..=7, 1);
    let publisher = world.client(Version::V311, "p");
    let four = member(&mut world, Version::V5, "four", 1);
    publish(&mut world, publisher, 8..=8, 1);
    assert_eq!(numbers(&mut world, four), [8]);
}

#[test]
fn a_member_without_a_session_keeps_a_group_of_sessions_going() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V5, "one", 1);
    world.hang_up(one);
    publish(&mut world, publisher, 1..=3, 1);
    let clean = world.client(Version::V5, "clean");
    world.clients[clean].acknowledges = true;
    world.subscribed(clean, GROUP, 1);
    assert_eq!(numbers(&mut world, clean), [1, 2, 3]);
    world.hang_up(clean);
    publish(&mut world, publisher, 4..=5, 1);
    let one = back(&mut world, Version::V5, "one");
    assert_eq!(numbers(&mut world, one), [4, 5]);
}

#[test]
fn the_group_goes_on_after_kill_and_power_loss() {
    for power in [false, true] {
        for qos in [1, 2] {
            let mut world = world();
            let publisher = world.client(Version::V311, "p");
            let one = member(&mut world, Version::V5, "one", qos);
            let two = member(&mut world, Version::V5, "two", qos);
            publish(&mut world, publisher, 1..=4, 2);
            let mut got = numbers(&mut world, one);
            got.extend(numbers(&mut world, two));
            world.pass(1_100);
            world.hang_up(one);
            world.hang_up(two);
            publish(&mut world, publisher, 5..=8, 2);
            world.commit();
            world.crash(power);
            let one = back(&mut world, Version::V5, "one");
            got.extend(numbers(&mut world, one));
            assert_eq!(sorted(got), (1..=8).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_kill_while_messages_are_on_their_way_loses_none_and_doubles_none_of_qos_2() {
    for held in [false, true] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let one = member(&mut world, Version::V5, "one", 2);
        let two = member(&mut world, Version::V5, "two", 2);
        world.clients[one].holds_acks = held;
        publish(&mut world, publisher, 1..=20, 2);
        let mut got: Vec<u16> = numbers(&mut world, two);
        let first = numbers(&mut world, one);
        assert_eq!(first.len(), 10);
        world.crash(false);
        let two = back(&mut world, Version::V5, "two");
        got.extend(numbers(&mut world, two));
        let one = back(&mut world, Version::V5, "one");
        let second = publishes(&mut world, one);
        assert_eq!(second.len(), if held { 10 } else { 0 });
        assert!(second.iter().all(|it| it.dup));
        got.extend(first);
        assert_eq!(sorted(got), (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn suback_waits_until_the_group_is_kept() {
    let mut world = world();
    let (one, _) = connect(&mut world, Version::V5, "one", &[]);
    world.state.waits = true;
    world.subscribe(one, &[(GROUP, client::options(1))], &[]);
    assert!(world.take(one).is_empty());
    world.state.waits = false;
    world.settle();
    assert_eq!(world.take(one)[0].kind, PacketKind::SubAck);
}

/// Found by the simulation (seed 448724282075): it was given and given back as fast as shards turn.
#[test]
fn what_a_member_cannot_hold_before_the_state_has_saved_it_waits_in_the_log() {
    let limits = Limits { outbox_bytes_max: 100, ..Limits::default() };
    let mut world = World::new(Setup { shards: 3, limits, ..Setup::default() });
    let publisher = world.client(Version::V311, "p");
    let one = member(&mut world, Version::V5, "one", 2);
    world.state.waits = true;
    publish(&mut world, publisher, 1..=50, 2);
    assert_eq!(numbers(&mut world, one), Vec::<u16>::new(), "it came to rest");
    world.state.waits = false;
    world.let_go();
    assert_eq!(sorted(numbers(&mut world, one)), (1..=50).collect::<Vec<_>>());
}
