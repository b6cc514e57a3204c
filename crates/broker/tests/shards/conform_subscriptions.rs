//! Subscriptions, statement by statement (docs/reference/mqtt.md).

use crate::client::{Got, ack, options, publish, unsubscribe_packet};
use crate::session::{again, connect, short};
use crate::world::World;
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, Version};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn messages(world: &mut World, client: usize) -> Vec<Got> {
    world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

#[test]
fn the_same_filter_again_replaces_the_subscription() {
    for version in VERSIONS {
        let mut world = World::open();
        let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
        world.clients[publisher].acknowledges = true;
        for (round, (qos, id)) in (1..).zip([(0, 1), (1, 2), (2, 0), (0, 3)]) {
            let list = [Property::SubscriptionId(id)];
            let list = if version == Version::V5 && id > 0 { &list[..] } else { &[] };
            world.subscribe(reader, &[("a/+", options(qos))], list);
            assert_eq!(world.take(reader).len(), 1);
            world.publish(publisher, "a/b", "x", 2, round);
            let got = messages(&mut world, reader);
            let ids: Vec<u32> = list.iter().map(|_| id).collect();
            assert_eq!(got.iter().map(|it| (it.qos, it.ids.clone())).collect::<Vec<_>>(), [(qos, ids)]);
        }
        assert_eq!(world.stats(0).subscriptions.get(), 1);
        world.send(reader, &unsubscribe_packet(version, 1, &["a/+"]));
        world.settle();
        world.publish(publisher, "a/b", "x", 2, 9);
        assert_eq!(messages(&mut world, reader), []);
    }
}

#[test]
fn nothing_is_lost_or_doubled_while_a_subscription_is_replaced() {
    for version in VERSIONS {
        for persistent in [false, true] {
            let mut world = World::open();
            let publisher = world.client(Version::V311, "p");
            let reader = match persistent {
                false => world.client(version, "r"),
                true => connect(&mut world, version, "r", &[]).0,
            };
            world.clients[reader].acknowledges = true;
            world.subscribed(reader, "t", 1);
            let mut expected = Vec::new();
            let mut got = Vec::new();
            for number in 0..200_u16 {
                world.publish(publisher, "t", &number.to_string(), 1, number + 1);
                expected.push(number.to_string());
                if number % 3 == 0 {
                    world.subscribe(reader, &[("t", options((number % 2) as u8 + 1))], &[]);
                }
                if number % 5 == 0 {
                    world.exchange(0);
                }
                if number % 7 == 0 {
                    got.extend(messages(&mut world, reader));
                }
            }
            got.extend(messages(&mut world, reader));
            let got: Vec<String> = got.into_iter().map(|it| it.payload).collect();
            assert_eq!(got, expected, "{version:?}");
        }
    }
}

#[test]
fn unsubscribe_compares_character_by_character() {
    for version in VERSIONS {
        let mut world = World::open();
        let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
        let held = ["a/b", "c/+", "d/#"];
        world.subscribe(reader, &held.map(|filter| (filter, options(0))), &[]);
        world.take(reader);
        let others = ["a/+", "a/#", "#", "a", "A/b", "a/b/", "/a/b", "c/x", "c/#", "d", "d/+", "+/+"];
        for (number, other) in (1..).zip(others) {
            world.send(reader, &unsubscribe_packet(version, number, &[other]));
            let got = world.take(reader);
            assert_eq!(short(&got), [format!("UnsubAck {number}")], "there is an answer: {other}");
            if version == Version::V5 {
                assert_eq!(got[0].reasons, [Reason::NoSubscriptionExisted], "{other}");
            }
        }
        let topics = ["a/b", "c/x", "d/x/y"];
        topics.iter().for_each(|topic| world.publish(publisher, topic, topic, 0, 0));
        assert_eq!(world.payloads(reader), topics);
        for (index, filter) in held.iter().enumerate() {
            world.send(reader, &unsubscribe_packet(version, 1, &[filter]));
            let got = world.take(reader);
            if version == Version::V5 {
                assert_eq!(got[0].reasons, [Reason::Success]);
            }
            topics.iter().for_each(|topic| world.publish(publisher, topic, topic, 0, 0));
            assert_eq!(world.payloads(reader), topics[index + 1..]);
        }
    }
}

#[test]
fn after_unsubscribe_nothing_new_comes_and_what_was_begun_is_completed() {
    for version in VERSIONS {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let (reader, _) = connect(&mut world, version, "s", &[]);
        world.subscribed(reader, "t", 2);
        for (number, qos) in [(1, 1), (2, 2), (3, 2)] {
            world.publish(publisher, "t", "x", qos, number);
        }
        assert_eq!(short(&world.take(reader)), ["1 1x", "2 2x", "2 3x"]);
        world.send(reader, &unsubscribe_packet(version, 9, &["t"]));
        assert_eq!(short(&world.take(reader)), ["UnsubAck 9"]);
        world.publish(publisher, "t", "new", 2, 4);
        assert_eq!(world.take(reader), []);
        world.send(reader, &ack(Packet::PubRec, 2, version));
        assert_eq!(short(&world.take(reader)), ["PubRel 2"]);
        world.hang_up(reader);
        let reader = again(&mut world, version, "s");
        assert_eq!(short(&world.take(reader)), ["1+ 1x", "PubRel 2", "2+ 3x"]);
        for (make, packet_id) in [
            (Packet::PubAck as fn(_) -> _, 1),
            (Packet::PubComp, 2),
            (Packet::PubRec, 3),
            (Packet::PubComp, 3),
        ] {
            world.send(reader, &ack(make, packet_id, version));
            world.settle();
        }
        assert_eq!(short(&world.take(reader)), ["PubRel 3"]);
        assert!(!world.clients[reader].closed);
    }
}

#[test]
fn filters_that_overlap_bring_one_copy_at_the_highest_qos_in_every_version() {
    for version in VERSIONS {
        let mut world = World::open();
        let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
        world.clients[publisher].acknowledges = true;
        world.subscribe(reader, &[("a/#", options(0)), ("a/+", options(2)), ("+/b", options(1))], &[]);
        world.take(reader);
        for (number, qos) in [(1, 2), (2, 1), (3, 0)] {
            world.publish(publisher, "a/b", &number.to_string(), qos, number);
        }
        let got = messages(&mut world, reader);
        let got: Vec<_> = got.iter().map(|it| (&*it.payload, it.qos)).collect();
        assert_eq!(got, [("1", 2), ("2", 1), ("3", 0)], "{version:?}");
    }
}

#[test]
fn copies_by_several_subscriptions_have_each_its_own_identifier() {
    let mut world = World::open();
    let publisher = world.client(Version::V5, "p");
    let packet = Publish { retain: true, ..publish("t/a", "x", 0, 0) };
    world.send_packet(publisher, &Packet::Publish(packet));
    world.settle();
    let reader = world.client(Version::V5, "r");
    for (filter, number) in [("t/#", 1), ("+/a", 2), ("t/a", 3), ("$replay/earliest/t/+", 4)] {
        world.subscribe(reader, &[(filter, options(0))], &[Property::SubscriptionId(number)]);
    }
    let got = messages(&mut world, reader);
    let mut told: Vec<_> = got.iter().map(|it| (it.ids.clone(), it.retain)).collect();
    told.sort();
    assert_eq!(told, [(vec![1], true), (vec![2], true), (vec![3], true), (vec![4], false)]);
}

#[test]
fn names_are_compared_as_they_are_and_come_as_they_went() {
    let names = [
        "\u{e9}",
        "e\u{301}",
        "E\u{301}",
        "a",
        "A",
        " a",
        "a ",
        "/a",
        "a/",
        "a//b",
        "a/b",
        "\u{feff}a",
        "\u{212b}",
        "\u{c5}",
        "\u{ffff}",
        "\u{1}",
        "a%2Fb",
    ];
    for version in VERSIONS {
        let mut world = World::open();
        let publisher = world.client(version, "p");
        let readers: Vec<usize> = (0..names.len())
            .map(|number| {
                let reader = world.client(version, &format!("r{number}"));
                assert!(!world.subscribed(reader, names[number], 0).is_error());
                reader
            })
            .collect();
        for name in names {
            world.publish(publisher, name, name, 0, 0);
        }
        for (reader, name) in readers.into_iter().zip(names) {
            let got: Vec<_> =
                messages(&mut world, reader).into_iter().map(|it| (it.topic, it.payload)).collect();
            assert_eq!(got, [(name.to_owned(), name.to_owned())]);
        }
    }
}
