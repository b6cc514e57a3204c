//! How many groups of shared subscriptions there may be: of one user, and of all.

use crate::client::{connect_packet, start_packet, unsubscribe_packet};
use crate::session::VERSIONS;
use crate::world::{Setup, World};
use firehose_auth::{AnonymousMode, Identity};
use firehose_broker::Limits;
use firehose_mqtt::{PacketKind, Property, Reason, Version};

/// Three groups for each user, five for all.
fn world() -> World {
    let limits = Limits { groups_max: 5, groups_per_user_max: 3, ..Limits::default() };
    let users = vec!["alice", "bob"];
    World::new(Setup { shards: 3, limits, users, anonymous: AnonymousMode::Read, ..Setup::default() })
}

fn client(world: &mut World, version: Version, user: &str, name: &str) -> usize {
    let client = world.arrive(connect_packet(version, name, &[]), Identity::user(user), name, None);
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
    client
}

/// A client whose session outlives its connection; whether that was there.
fn session(world: &mut World, user: &str, name: &str, clean: bool) -> (usize, bool) {
    let packet = start_packet(Version::V5, clean, name, &[Property::SessionExpiry(3600)]);
    let client = world.arrive(packet, Identity::user(user), name, None);
    let connack = world.take(client).remove(0);
    assert_eq!(connack.reason(), Reason::Success);
    (client, connack.session_present)
}

/// Subscribes to groups of these numbers; how many were granted.
fn join(world: &mut World, client: usize, numbers: std::ops::Range<u32>) -> usize {
    let filters: Vec<String> = numbers.map(|it| format!("$share/g{it}/t/#")).collect();
    let granted = filters.iter().filter(|it| !world.subscribed(client, it, 1).is_error());
    granted.count()
}

#[test]
fn a_user_has_so_many_groups_whichever_client_makes_them() {
    for version in VERSIONS {
        let mut world = world();
        let one = client(&mut world, version, "alice", "one");
        let two = client(&mut world, version, "alice", "two");
        assert_eq!(join(&mut world, one, 0..3), 3);
        let refused = world.subscribed(two, "$share/g3/t/#", 0);
        let expected = if version == Version::V5 { Reason::QuotaExceeded } else { Reason::UnspecifiedError };
        assert_eq!(refused, expected);
        assert_eq!(join(&mut world, two, 0..3), 3, "those are there");
        assert_eq!(join(&mut world, one, 0..3), 3, "the same again");
        assert_eq!(world.subscribed(two, "t/#", 0), Reason::Success, "no group");
        let other = client(&mut world, version, "bob", "other");
        assert_eq!(join(&mut world, other, 0..3), 2, "five of all users");
        world.send(one, &unsubscribe_packet(version, 7, &["$share/g0/t/#"]));
        world.settle();
        world.take(one);
        assert_eq!(join(&mut world, other, 2..3), 0, "another client is in it");
        world.hang_up(two);
        assert_eq!(join(&mut world, other, 2..4), 1);
        world.hang_up(one);
        world.hang_up(other);
        assert_eq!(world.state.state.group_names().count(), 0);
    }
}

#[test]
fn one_subscribe_with_too_many_groups_gets_those_that_there_is_room_for() {
    let mut world = world();
    let one = client(&mut world, Version::V5, "alice", "one");
    let names: Vec<String> = (0..6).map(|it| format!("$share/g/{it}")).collect();
    let filters: Vec<_> = names.iter().map(|it| (it.as_str(), crate::client::options(1))).collect();
    world.subscribe(one, &filters, &[]);
    let suback = world.take(one).remove(0);
    assert_eq!(suback.kind, PacketKind::SubAck);
    let (granted, refused) = suback.reasons.split_at(3);
    assert_eq!(granted, [Reason::GrantedQoS1; 3]);
    assert_eq!(refused, [Reason::QuotaExceeded; 3]);
    let publisher = client(&mut world, Version::V5, "5", "p");
    world.publish(publisher, "5/x", "x", 0, 0);
    assert!(world.take(one).is_empty(), "nothing comes for what was refused");
}

#[test]
fn groups_that_wait_for_sessions_which_are_away_count_and_those_always_come_back_to_them() {
    let mut world = world();
    let (one, _) = session(&mut world, "alice", "one", true);
    assert_eq!(join(&mut world, one, 0..3), 3);
    world.hang_up(one);
    let two = client(&mut world, Version::V5, "alice", "two");
    assert_eq!(join(&mut world, two, 2..5), 1);
    let other = client(&mut world, Version::V5, "bob", "other");
    assert_eq!(join(&mut world, other, 0..3), 2);
    let (one, present) = session(&mut world, "alice", "one", false);
    assert!(present);
    assert_eq!(world.state.state.group_names().count(), 5);
    let publisher = client(&mut world, Version::V5, "t", "p");
    world.publish(publisher, "t/x", "x", 0, 0);
    assert!(world.take(one).len() >= 2, "of two groups it is the only member");
    // A new session: the old one's groups end.
    world.hang_up(two);
    let (one, _) = session(&mut world, "alice", "one", true);
    assert_eq!(join(&mut world, one, 10..13), 3);
}
