//! What clients make the bus keep has a budget: who floods it is closed, and nobody else.

use crate::client::{bytes_of, connect_packet, publish, subscribe_packet};
use crate::world::{Setup, World};
use firehose_auth::{AnonymousMode, Identity};
use firehose_broker::Limits;
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, Version};
use std::net::IpAddr;

const PINGREQ: [u8; 2] = [0xc0, 0];

/// An account may have 2 MiB, the anonymous together 4 MiB.
fn world(shards: usize) -> World {
    let limits =
        Limits { kept_bytes_max: 8 << 20, packet_bytes_max: 1 << 20, inflight_max: 100, ..Limits::default() };
    World::new(Setup { shards, limits, anonymous: AnonymousMode::Read, ..Setup::default() })
}

/// One of the clients of a user, or of the anonymous at an address.
fn client(
    world: &mut World,
    version: Version,
    user: Option<&str>,
    address: Option<&str>,
    name: &str,
) -> usize {
    let identity = user.map_or_else(Identity::anonymous, Identity::user);
    let address: Option<IpAddr> = address.map(|text| text.parse().expect("an address"));
    let number = world.arrive(connect_packet(version, name, &[]), identity, name, address);
    assert_eq!(world.take(number)[0].reason(), Reason::Success);
    number
}

/// The first so many bytes of a PUBLISH that is a byte longer.
fn beginning(version: Version, user: &str, bytes: usize) -> Vec<u8> {
    let payload = "z".repeat(bytes);
    let mut packet = bytes_of(&Packet::Publish(publish(&format!("{user}/t"), &payload, 0, 0)), version);
    packet.truncate(bytes);
    packet
}

fn over_budget(world: &World) -> u64 {
    (0..world.setup.shards).map(|shard| world.stats(shard).connections_over_budget.get()).sum()
}

#[test]
fn who_holds_back_the_ends_of_packets_loses_a_connection_and_nobody_else_does() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut world = world(3);
        let honest = client(&mut world, version, Some("alice"), Some("203.0.113.1"), "honest");
        world.send(honest, &beginning(version, "alice", 900_000));
        let mut hostile = Vec::new();
        for number in 0..10 {
            let name = format!("m {number}");
            let it = client(&mut world, version, Some("mallory"), Some("203.0.113.1"), &name);
            world.send(it, &beginning(version, "mallory", 500_000 + number));
            hostile.push(it);
        }
        world.settle();
        let (closed, open): (Vec<usize>, Vec<usize>) =
            hostile.into_iter().partition(|it| world.clients[*it].closed);
        assert_eq!((closed.len(), over_budget(&world)), (6, 6), "2 MiB are four of them");
        for it in closed {
            let told: Vec<Reason> = world.take(it).iter().map(|it| it.reason()).collect();
            assert_eq!(told, if version == Version::V5 { &[Reason::QuotaExceeded][..] } else { &[] });
        }
        for it in open {
            // What is whole counts no more.
            world.send(it, &[b'z'; 20]);
            world.hang_up(it);
        }
        assert_eq!(world.kept.bytes(), 900_000);
        world.send(honest, b"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
        world.hang_up(honest);
        assert_eq!(world.kept.bytes(), 0);
    }
}

#[test]
fn a_large_packet_comes_whole_in_whatever_pieces() {
    for piece in [1_000, 65_536, 1 << 20] {
        let mut world = world(1);
        let publisher = client(&mut world, Version::V5, Some("alice"), None, "p");
        let reader = world.client(Version::V5, "r");
        world.subscribed(reader, "#", 0);
        let payloads = ["a".repeat(700_000), "b".repeat(3), "c".repeat(20_000), String::new()];
        let packets: Vec<Vec<u8>> = payloads
            .iter()
            .map(|payload| bytes_of(&Packet::Publish(publish("alice/t", payload, 0, 0)), Version::V5))
            .collect();
        for bytes in packets.concat().chunks(piece) {
            world.send(publisher, bytes);
        }
        assert_eq!(world.payloads(reader), payloads);
        assert_eq!((world.kept.bytes(), over_budget(&world)), (0, 0));
    }
}

#[test]
fn small_beginnings_count_against_nobody() {
    let mut world = world(2);
    let limits = Limits { kept_bytes_max: 0, packet_bytes_max: 5_000, ..world.setup.limits.clone() };
    world = World::new(Setup { limits, ..world.setup.clone() });
    for number in 0..400 {
        let it = client(&mut world, Version::V5, Some("alice"), None, &format!("c {number}"));
        world.send(it, &beginning(Version::V5, "alice", 4_096));
    }
    assert_eq!((world.kept.bytes(), over_budget(&world)), (0, 0), "1.6 MB, but nobody has much");
}

#[test]
fn the_anonymous_of_one_address_share_and_those_of_another_do_not_pay() {
    let mut world = world(1);
    let other = client(&mut world, Version::V5, None, Some("203.0.113.2"), "other");
    let filters: Vec<String> = (0..1000).map(|it| format!("{it}/{}", "f".repeat(50))).collect();
    let filters: Vec<_> = filters.iter().map(|it| (it.as_str(), crate::client::options(0))).collect();
    let mut subscribe = subscribe_packet(Version::V5, 9, &filters, &[]);
    let last = subscribe.pop().expect("a byte");
    world.send(other, &subscribe);
    for number in 0..100 {
        let it = client(&mut world, Version::V5, None, Some("203.0.113.1"), &format!("c {number}"));
        world.send(it, &subscribe);
    }
    let fits = (2 << 20) / subscribe.len();
    assert_eq!(over_budget(&world), 100 - fits as u64);
    world.send(other, &[last]);
    assert_eq!(world.take(other)[0].kind, PacketKind::SubAck);
}

#[test]
fn what_a_connection_sent_that_is_not_read_counts() {
    let limits = Limits { publish_bytes_per_sec_max: 10, packet_bytes_max: 1000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let publisher = client(&mut world, Version::V5, Some("alice"), None, "p");
    let packet = bytes_of(&Packet::Publish(publish("alice/t", "0123456789", 0, 0)), Version::V5);
    world.send(publisher, &packet.repeat(1000));
    assert!(world.clients[publisher].is_paused());
    assert_eq!(world.kept.bytes(), packet.len() * 999);
    world.pass(5000);
    assert!(world.kept.bytes() < packet.len() * 999, "it goes down as it is read");
}

#[test]
fn replies_that_nobody_reads_count_and_are_given_back_once_they_are_read() {
    let mut world = world(3);
    let mut all = Vec::new();
    for number in 0..8 {
        let it = client(&mut world, Version::V5, None, Some("203.0.113.1"), &format!("c {number}"));
        world.clients[it].room = 0;
        world.send(it, &PINGREQ.repeat(150_000));
        world.settle();
        // The wire has said that it takes nothing: from here on it is known to read nothing.
        world.send(it, &PINGREQ);
        world.settle();
        all.push(it);
    }
    let open: Vec<usize> = all.into_iter().filter(|it| !world.clients[*it].closed).collect();
    assert_eq!((open.len(), over_budget(&world)), (6, 2));
    for it in open {
        world.drain_wire(it, usize::MAX);
        assert_eq!(world.take(it).len(), 150_001);
    }
    assert_eq!(world.kept.bytes(), 0);
}

#[test]
fn topic_aliases_count_by_the_topics_that_they_stand_for() {
    let limits =
        Limits { kept_bytes_max: 0, packet_bytes_max: 100_000, topic_aliases_max: 16, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let topic = format!("alice/{}", "t".repeat(60_000));
    let set = |topic: &str, alias: u16| {
        let list = crate::client::properties(&[Property::TopicAlias(alias)]);
        let packet = Publish { properties: list.as_properties(), ..publish(topic, "", 0, 0) };
        bytes_of(&Packet::Publish(packet), Version::V5)
    };
    let one = client(&mut world, Version::V5, Some("alice"), None, "one");
    for alias in [1, 2, 3, 2, 1] {
        world.send(one, &set(&topic, alias));
    }
    assert_eq!(world.kept.bytes(), 3 * topic.len(), "the last one of each");
    for alias in 1..=3 {
        world.send(one, &set("alice/t", alias));
    }
    assert_eq!(world.kept.bytes(), 0);
    for number in 0..4 {
        let it = client(&mut world, Version::V5, Some("alice"), None, &format!("c {number}"));
        (1..=16).for_each(|alias| world.send(it, &set(&topic, alias)));
        world.settle();
    }
    assert!(over_budget(&world) >= 3, "one of them has 960 KB, and all of them may have 1.1 MB");
    assert!(!world.clients[one].closed);
}

#[test]
fn subscriptions_count_while_their_client_is_connected() {
    let mut world = world(3);
    let few = client(&mut world, Version::V5, None, Some("203.0.113.1"), "few");
    world.subscribed(few, "#", 0);
    // As deep as one client may have them: 200 KB each, of which 2 MiB hold ten.
    let deep = format!("d/{}", "+/".repeat(6_000));
    let mut all = Vec::new();
    for number in 0..14 {
        let it = client(&mut world, Version::V5, None, Some("203.0.113.1"), &format!("c {number}"));
        world.send(it, &subscribe_packet(Version::V5, 9, &[(&deep, crate::client::options(0))], &[]));
        world.settle();
        all.push(it);
    }
    let open: Vec<usize> = all.into_iter().filter(|it| !world.clients[*it].closed).collect();
    assert_eq!((open.len() as u64, over_budget(&world)), (10, 4));
    assert!(!world.clients[few].closed);
    for it in open {
        world.hang_up(it);
    }
    assert_eq!(world.kept.bytes(), 0, "one filter is little");
}

/// `count` messages of QoS 2, each with a packet id of its own.
fn qos_2(count: u16, version: Version) -> Vec<u8> {
    let packet = |id| bytes_of(&Packet::Publish(publish("alice/t", "", 2, id)), version);
    (1..=count).flat_map(packet).collect()
}

#[test]
fn acknowledgements_that_wait_and_packet_ids_count_in_3_x() {
    for version in [Version::V31, Version::V311] {
        let limits = Limits { kept_bytes_max: 8 << 20, packet_bytes_max: 1 << 20, ..Limits::default() };
        let setup = Setup { durability: firehose_broker::Durability::Sync, limits, ..Setup::default() };
        let mut world = World::new(setup);
        world.state.waits = true;
        let other = client(&mut world, version, Some("bob"), None, "other");
        let mut all = Vec::new();
        for number in 0..3 {
            let it = client(&mut world, version, Some("alice"), None, &format!("c {number}"));
            world.send(it, &qos_2(60_000, version));
            world.settle();
            all.push(it);
        }
        // Of each one 60,000 acknowledgements wait for the disk, and as many ids for their ends: 2 MiB are one of them.
        let open: Vec<usize> = all.into_iter().filter(|it| !world.clients[*it].closed).collect();
        assert_eq!((open.len(), over_budget(&world)), (1, 2));
        assert!(world.kept.bytes() > 60_000 * 20);
        world.commit();
        assert_eq!(world.take(open[0]).len(), 60_000);
        let ids = world.kept.bytes();
        assert!((60_000..60_000 * 10).contains(&ids), "only the ids are left: {ids}");
        let release = |id| crate::client::ack(Packet::PubRel, id, version);
        let releases: Vec<u8> = (1..=60_000).flat_map(release).collect();
        world.send(open[0], &releases);
        assert_eq!(world.take(open[0]).len(), 60_000);
        assert_eq!(world.kept.bytes(), 0);
        assert!(!world.clients[other].closed);
    }
}

#[test]
fn while_the_log_is_slow_what_has_no_place_stops_its_publishers_and_closes_nobody() {
    let limits = Limits { kept_bytes_max: 8 << 20, packet_bytes_max: 1 << 20, ..Limits::default() };
    let role = firehose_broker::Role::Thread;
    let mut world = World::new(Setup { limits, role, users: vec!["alice", "bob"], ..Setup::default() });
    let reader = client(&mut world, Version::V5, Some("alice"), None, "reader");
    world.subscribed(reader, "#", 0);
    let all: Vec<usize> = (0..4)
        .map(|number| client(&mut world, Version::V311, Some("alice"), None, &format!("c {number}")))
        .collect();
    let bob = client(&mut world, Version::V311, Some("bob"), None, "bob");
    world.has_section_thread = false;
    let payload = "x".repeat(60_000);
    for round in 0..20 {
        for it in &all {
            world.publish(*it, "alice/t", &format!("{round} {payload}"), 0, 0);
            world.settle();
        }
        world.publish(bob, "bob/t", &payload[..1000], 0, 0);
    }
    assert!(all.iter().all(|it| world.clients[*it].is_paused()), "2 MiB are their part");
    assert!(!world.clients[bob].is_paused(), "another user does not wait for them");
    let unplaced = world.kept.unplaced_bytes();
    assert!((2 << 20..(2 << 20) + 4 * 130_000).contains(&unplaced), "{unplaced}");
    assert_eq!(world.read.head(), 0, "the log is slow");
    world.has_section_thread = true;
    let got = world.payloads(reader);
    assert_eq!(got.len(), 100);
    assert_eq!((world.kept.unplaced_bytes(), world.kept.bytes(), over_budget(&world)), (0, 0, 0));
    assert!(all.iter().all(|it| !world.clients[*it].is_paused() && !world.clients[*it].closed));
}
