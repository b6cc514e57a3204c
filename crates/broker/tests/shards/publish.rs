//! PUBLISH: who may, what is stored, which acknowledgement comes when.

use crate::client::{ack, bytes_of, properties, publish};
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::{Durability, Limits};
use firehose_log::DiskCall;
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, Version};
use firehose_topic::TopicFilter;
use std::io::ErrorKind;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn read_only() -> World {
    World::new(Setup { anonymous: AnonymousMode::Read, ..Setup::default() })
}

fn with_sync() -> World {
    World::new(Setup { durability: Durability::Sync, ..Setup::default() })
}

/// Kind, packet id and reason of each.
fn acks(world: &mut World, client: usize) -> Vec<(PacketKind, u16, Reason)> {
    world.take(client).iter().map(|it| (it.kind, it.id, it.reason())).collect()
}

#[test]
fn every_qos_goes_both_ways_in_every_version() {
    for version in VERSIONS {
        for qos in 0..3 {
            for granted in 0..3 {
                let mut world = World::open();
                let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
                world.clients[publisher].acknowledges = true;
                world.clients[reader].acknowledges = true;
                world.subscribed(reader, "a/+", granted);
                world.publish(publisher, "a/b", "x", qos, 5);
                let answers: Vec<_> = acks(&mut world, publisher).iter().map(|it| it.0).collect();
                match qos {
                    0 => assert_eq!(answers, []),
                    1 => assert_eq!(answers, [PacketKind::PubAck]),
                    _ => assert_eq!(answers, [PacketKind::PubRec, PacketKind::PubComp]),
                }
                let got = world.take(reader);
                assert_eq!((got[0].payload.as_str(), got[0].qos), ("x", qos.min(granted)));
                assert!(!got[0].dup && !got[0].retain);
                let rest: Vec<_> = got[1..].iter().map(|it| it.kind).collect();
                assert_eq!(rest, if qos.min(granted) == 2 { vec![PacketKind::PubRel] } else { vec![] });
            }
        }
    }
}

#[test]
fn acknowledgements_wait_for_the_sync_and_come_in_order() {
    for version in VERSIONS {
        let mut world = with_sync();
        let (one, two) = (world.client(version, "1"), world.client(version, "2"));
        for id in 1..4 {
            world.publish(one, "t", "x", 1 + (id % 2) as u8, id);
            world.settle();
        }
        world.publish(two, "t", "x", 1, 9);
        assert_eq!((world.take(one), world.take(two)), (vec![], vec![]));
        assert!(world.sequencer.wants_commit());
        world.commit();
        let ids: Vec<_> = acks(&mut world, one).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(ids, [(PacketKind::PubRec, 1), (PacketKind::PubAck, 2), (PacketKind::PubRec, 3)]);
        assert_eq!(acks(&mut world, two), [(PacketKind::PubAck, 9, Reason::Success)]);
        assert!(!world.sequencer.wants_commit());
    }
}

#[test]
fn an_event_is_delivered_before_it_is_durable_but_not_acknowledged() {
    let mut world = with_sync();
    let (publisher, reader) = (world.client(Version::V311, "p"), world.client(Version::V311, "r"));
    world.subscribed(reader, "#", 1);
    world.publish(publisher, "t", "x", 1, 1);
    assert_eq!(world.payloads(reader), ["x"]);
    assert_eq!(world.take(publisher), []);
}

#[test]
fn qos_0_asks_for_no_commit() {
    let mut world = with_sync();
    let client = world.client(Version::V311, "p");
    world.publish(client, "t", "x", 0, 0);
    world.settle();
    assert_eq!(world.read.head(), 1);
    assert!(!world.sequencer.wants_commit());
}

#[test]
fn a_refusal_stands_behind_earlier_acknowledgements() {
    let mut world = World::new(Setup {
        durability: Durability::Sync,
        anonymous: AnonymousMode::Read,
        ..Setup::default()
    });
    let (v5, v3) = (world.user(Version::V5, "a"), world.user(Version::V311, "b"));
    for (client, topic) in [(v5, "a/t"), (v3, "b/t")] {
        world.publish(client, topic, "x", 1, 1);
        world.publish(client, "forbidden", "x", 2, 2);
        world.publish(client, topic, "x", 1, 3);
        assert_eq!(world.take(client), []);
        assert!(!world.clients[client].closed);
    }
    world.commit();
    let expected = [
        (PacketKind::PubAck, 1, Reason::Success),
        (PacketKind::PubRec, 2, Reason::NotAuthorized),
        (PacketKind::PubAck, 3, Reason::Success),
    ];
    assert_eq!(acks(&mut world, v5), expected);
    assert_eq!(acks(&mut world, v3), [(PacketKind::PubAck, 1, Reason::Success)], "then it is closed");
    assert!(world.clients[v3].closed);
}

#[test]
fn a_publish_that_is_not_allowed_is_refused_as_the_design_says() {
    for qos in 0..3 {
        for version in VERSIONS {
            let mut world = read_only();
            let client = world.client(version, "c");
            world.publish(client, "t", "x", qos, 3);
            let got = world.take(client);
            match (version, qos) {
                (Version::V5, 0) => {
                    assert_eq!(
                        (got[0].kind, got[0].reason()),
                        (PacketKind::Disconnect, Reason::NotAuthorized)
                    );
                    assert!(world.clients[client].closed);
                }
                (Version::V5, qos) => {
                    let kind = if qos == 1 { PacketKind::PubAck } else { PacketKind::PubRec };
                    assert_eq!((got[0].kind, got[0].id, got[0].reason()), (kind, 3, Reason::NotAuthorized));
                    assert!(!world.clients[client].closed);
                }
                _ => {
                    assert_eq!(got, []);
                    assert!(world.clients[client].closed);
                }
            }
            assert_eq!(world.read.head(), 0, "nothing is stored");
            assert_eq!(world.stats(0).messages_refused.get(), 1);
        }
    }
}

#[test]
fn names_and_properties_of_ours_are_refused_whatever_the_rules_say() {
    let mut world = World::new(Setup { acl: Some("topic #\n"), ..Setup::default() });
    let client = world.client(Version::V5, "c");
    for topic in ["$SYS/broker/uptime", "$replay/earliest/x", "firehose/status/gerrit", "firehose"] {
        world.publish(client, topic, "x", 1, 1);
        assert_eq!(acks(&mut world, client), [(PacketKind::PubAck, 1, Reason::NotAuthorized)], "{topic}");
    }
    for name in ["firehose-cursor", "firehose-gap", "firehose-"] {
        let forged = properties(&[Property::UserProperty(name, "x")]);
        let packet = Publish { properties: forged.as_properties(), ..publish("t", "x", 1, 1) };
        world.send_packet(client, &Packet::Publish(packet));
        assert_eq!(acks(&mut world, client)[0].2, Reason::NotAuthorized, "{name}");
    }
    world.publish(client, "firehoses/x", "x", 1, 1);
    assert_eq!(acks(&mut world, client)[0].2, Reason::Success);
}

#[test]
fn the_rules_are_asked_again_after_a_reload() {
    let mut world = World::new(Setup { acl: Some("topic readwrite a\n"), ..Setup::default() });
    let client = world.client(Version::V5, "c");
    world.publish(client, "a", "x", 1, 1);
    assert_eq!(acks(&mut world, client)[0].2, Reason::Success);
    world.reload_acl("topic read a\n");
    world.publish(client, "a", "x", 1, 2);
    assert_eq!(acks(&mut world, client)[0].2, Reason::NotAuthorized);
}

#[test]
fn a_qos_2_message_that_comes_again_is_stored_once() {
    for version in VERSIONS {
        let mut world = World::open();
        let client = world.client(version, "c");
        let mut packet = publish("t", "x", 2, 7);
        world.send_packet(client, &Packet::Publish(packet));
        packet.dup = true;
        world.send_packet(client, &Packet::Publish(packet));
        let recs: Vec<_> = acks(&mut world, client).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(recs, [(PacketKind::PubRec, 7), (PacketKind::PubRec, 7)]);
        assert_eq!(world.read.head(), 1);
        world.send(client, &ack(Packet::PubRel, 7, version));
        assert_eq!(acks(&mut world, client), [(PacketKind::PubComp, 7, Reason::Success)]);
        // The id is free: the same bytes are another message now.
        world.send_packet(client, &Packet::Publish(packet));
        world.settle();
        assert_eq!(world.read.head(), 2);
    }
}

#[test]
fn a_qos_1_message_that_comes_again_is_stored_again() {
    for version in VERSIONS {
        let mut world = World::open();
        let client = world.client(version, "c");
        for dup in [false, true] {
            world.send_packet(client, &Packet::Publish(Publish { dup, ..publish("t", "x", 1, 7) }));
            assert_eq!(acks(&mut world, client), [(PacketKind::PubAck, 7, Reason::Success)]);
        }
        assert_eq!(world.read.head(), 2);
    }
}

#[test]
fn more_in_flight_than_receive_maximum_closes_the_connection() {
    let limits = Limits { inflight_max: 3, ..Limits::default() };
    let mut world = World::new(Setup { limits, durability: Durability::Sync, ..Setup::default() });
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    for id in 1..5 {
        world.publish(v5, "t", "x", 1 + (id % 2) as u8, id);
        world.publish(v3, "t", "x", 1, id);
    }
    assert_eq!(world.take(v5)[0].reason(), Reason::ReceiveMaximumExceeded);
    assert!(world.clients[v5].closed && !world.clients[v3].closed, "3.x has no such promise");
}

#[test]
fn what_the_log_refuses_is_told_to_qos_1_and_2_and_seen_by_nobody() {
    let mut world = World::open();
    let reader = world.client(Version::V311, "r");
    world.subscribed(reader, "#", 0);
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    world.disk.fail(DiskCall::Write, ErrorKind::Other);
    for (qos, kind) in [(1, PacketKind::PubAck), (2, PacketKind::PubRec)] {
        world.publish(v5, "t", "lost", qos, 1);
        assert_eq!(acks(&mut world, v5), [(kind, 1, Reason::QuotaExceeded)]);
        world.disk.fail(DiskCall::Write, ErrorKind::Other);
    }
    world.publish(v3, "t", "lost", 0, 1);
    assert_eq!(world.take(v3), [], "QoS 0 has no answer");
    assert!(!world.clients[v3].closed);
    world.disk.fail(DiskCall::Write, ErrorKind::Other);
    world.publish(v3, "t", "lost", 1, 1);
    assert_eq!(world.take(v3), [], "3.x cannot be told: no acknowledgement, and the connection ends");
    assert!(world.clients[v3].closed);
    assert_eq!(world.payloads(reader), Vec::<String>::new());
    // The same packet id is a new message once the exchange has failed.
    world.publish(v5, "t", "stored", 2, 1);
    assert_eq!(acks(&mut world, v5), [(PacketKind::PubRec, 1, Reason::Success)]);
    assert_eq!(world.payloads(reader), ["stored"]);
}

#[test]
fn a_repetition_is_not_refused_with_a_later_message() {
    let mut world = with_sync();
    let client = world.client(Version::V5, "c");
    world.publish(client, "t", "stored", 2, 5);
    world.settle();
    world.commit();
    assert_eq!(acks(&mut world, client), [(PacketKind::PubRec, 5, Reason::Success)]);
    world.disk.fail(DiskCall::Write, ErrorKind::Other);
    let mut bytes = bytes_of(&Packet::Publish(publish("t", "refused", 1, 6)), Version::V5);
    let again = Publish { dup: true, ..publish("t", "stored", 2, 5) };
    bytes.extend(bytes_of(&Packet::Publish(again), Version::V5));
    world.send(client, &bytes);
    let expected = [(PacketKind::PubAck, 6, Reason::QuotaExceeded), (PacketKind::PubRec, 5, Reason::Success)];
    assert_eq!(acks(&mut world, client), expected);
}

#[test]
fn what_is_unlogged_is_delivered_and_acknowledged_and_in_no_log() {
    let unlogged = vec![TopicFilter::new("noise/#").unwrap()];
    let mut world = World::new(Setup { unlogged, durability: Durability::Sync, ..Setup::default() });
    let (publisher, reader) = (world.client(Version::V5, "p"), world.client(Version::V5, "r"));
    world.subscribed(reader, "#", 1);
    world.publish(publisher, "noise/x", "1", 1, 1);
    assert_eq!(acks(&mut world, publisher), [(PacketKind::PubAck, 1, Reason::Success)]);
    world.publish(publisher, "t", "2", 0, 0);
    world.publish(publisher, "noise/x", "3", 0, 0);
    assert_eq!(world.payloads(reader), ["1", "2", "3"], "in the order of the publisher");
    assert_eq!(world.read.head(), 1);
}

#[test]
fn a_publisher_above_its_rate_is_not_read_until_the_next_second() {
    let limits = Limits { publish_bytes_per_sec_max: 500, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let client = world.client(Version::V311, "c");
    let payload = "x".repeat(200);
    for id in 1..13 {
        world.publish(client, "t", &payload, 1, id);
    }
    world.settle();
    let mut seen = world.read.head();
    assert!((1..5).contains(&seen), "{seen}");
    for _ in 0..10 {
        world.pass(1000);
        let head = world.read.head();
        assert!(head == 12 || (head > seen && head < seen + 5), "from {seen} to {head}");
        seen = head;
    }
    assert_eq!(acks(&mut world, client).len(), 12);
    assert!(!world.clients[client].closed);
}

#[test]
fn who_published_more_than_has_its_place_is_not_read_until_it_has() {
    let limits = Limits { unplaced_bytes_max: 1000, ..Limits::default() };
    let role = firehose_broker::Role::Thread;
    let mut world = World::new(Setup { limits, role, ..Setup::default() });
    let client = world.client(Version::V311, "c");
    world.has_section_thread = false;
    let payload = "x".repeat(300);
    for id in 1..21 {
        world.publish(client, "t", &payload, 1, id);
        world.settle();
    }
    assert!(world.clients[client].is_paused());
    assert_eq!(world.read.head(), 0, "the log is slow");
    world.has_section_thread = true;
    world.settle();
    assert_eq!(world.read.head(), 20);
    assert_eq!(acks(&mut world, client).len(), 20);
}
