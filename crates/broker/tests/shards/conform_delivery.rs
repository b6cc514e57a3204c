//! What subscribers are sent, and when, statement by statement (docs/reference/mqtt.md).

use crate::client::{
    Got, ack, bytes_of, id, options, properties, publish, subscribe_packet, unsubscribe_packet,
};
use crate::session::{again, arrive, connect, short};
use crate::world::{Setup, World};
use firehose_mqtt::{Ack, Packet, PacketKind, Properties, Property, Publish, Reason, Version};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

type Make = fn(Ack<'static>) -> Packet<'static>;

fn messages(world: &mut World, client: usize) -> Vec<Got> {
    world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

fn answer(world: &mut World, client: usize, make: Make, packet_id: u16, reason: Reason) {
    let version = world.clients[client].version;
    let packet = make(Ack { packet_id: id(packet_id), reason, properties: Properties::EMPTY });
    world.send(client, &bytes_of(&packet, version));
    world.settle();
}

fn publish_with(world: &mut World, client: usize, packet: Publish<'_>, list: &[Property<'_>]) {
    let properties = properties(list);
    let packet = Publish { properties: properties.as_properties(), ..packet };
    world.send_packet(client, &Packet::Publish(packet));
    world.settle();
}

#[test]
fn the_dup_flag_of_a_publisher_is_not_passed_on() {
    for version in VERSIONS {
        for (qos, granted) in [1, 2].into_iter().flat_map(|qos| [0, 1, 2].map(|granted| (qos, granted))) {
            let mut world = World::open();
            let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
            world.subscribed(reader, "t", granted);
            let packet = Publish { dup: true, ..publish("t", "x", qos, 7) };
            world.send_packet(publisher, &Packet::Publish(packet));
            let got = messages(&mut world, reader);
            assert_eq!(
                got.iter().map(|it| (it.qos, it.dup)).collect::<Vec<_>>(),
                [(qos.min(granted), false)]
            );
            let late = world.client(version, "l");
            world.subscribed(late, "$replay/earliest/t", granted);
            assert!(messages(&mut world, late).iter().all(|it| !it.dup));
        }
    }
}

#[test]
fn with_a_shut_window_all_but_publications_goes_on() {
    for qos in [1, 2] {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let reader = world.client_with(Version::V5, "r", &[Property::ReceiveMaximum(1)]);
        world.subscribed(reader, "t", qos);
        for number in 1..=3 {
            world.publish(publisher, "t", "x", qos, number);
        }
        assert_eq!(messages(&mut world, reader).len(), 1, "its window is shut");
        world.send(reader, &[0xc0, 0]);
        world.send(reader, &subscribe_packet(Version::V5, 5, &[("u", options(0))], &[]));
        world.settle();
        world.send(reader, &unsubscribe_packet(Version::V5, 6, &["u"]));
        world.settle();
        world.publish(reader, "v", "x", 1, 7);
        world.publish(reader, "v", "x", 2, 8);
        world.settle();
        world.send(reader, &ack(Packet::PubRel, 8, Version::V5));
        let got = short(&world.take(reader));
        assert_eq!(got, ["PingResp 0", "SubAck 5", "UnsubAck 6", "PubAck 7", "PubRec 8", "PubComp 8"]);
        if qos == 2 {
            answer(&mut world, reader, Packet::PubRec, 1, Reason::Success);
            assert_eq!(short(&world.take(reader)), ["PubRel 1"]);
            answer(&mut world, reader, Packet::PubComp, 1, Reason::Success);
        } else {
            answer(&mut world, reader, Packet::PubAck, 1, Reason::Success);
        }
        assert_eq!(messages(&mut world, reader).len(), 1, "it is open for one");
    }
}

#[test]
fn nothing_is_sent_again_within_a_connection() {
    for version in VERSIONS {
        for persistent in [false, true] {
            let mut world = World::open();
            let publisher = world.client(Version::V311, "p");
            let reader = match persistent {
                false => world.client(version, "r"),
                true => connect(&mut world, version, "r", &[]).0,
            };
            world.subscribed(reader, "t", 2);
            for (number, qos) in [(1, 1), (2, 2), (3, 2)] {
                world.publish(publisher, "t", "x", qos, number);
            }
            assert_eq!(messages(&mut world, reader).len(), 3);
            answer(&mut world, reader, Packet::PubRec, 3, Reason::Success);
            assert_eq!(short(&world.take(reader)), ["PubRel 3"]);
            for _ in 0..30 {
                world.pass(20_000);
                world.send_packet(reader, &Packet::PingReq);
                assert_eq!(short(&world.take(reader)), ["PingResp 0"], "{version:?}");
            }
        }
    }
}

#[test]
fn what_was_answered_with_an_error_is_not_sent_again() {
    for reason in [Reason::UnspecifiedError, Reason::NotAuthorized, Reason::QuotaExceeded] {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let (reader, _) = connect(&mut world, Version::V5, "s", &[]);
        world.subscribed(reader, "t", 2);
        for (number, qos) in [(1, 1), (2, 2), (3, 1)] {
            world.publish(publisher, "t", "x", qos, number);
        }
        assert_eq!(messages(&mut world, reader).len(), 3);
        answer(&mut world, reader, Packet::PubAck, 1, reason);
        answer(&mut world, reader, Packet::PubRec, 2, reason);
        assert_eq!(world.take(reader), [], "no PUBREL follows");
        world.hang_up(reader);
        let reader = again(&mut world, Version::V5, "s");
        assert_eq!(short(&world.take(reader)), ["1+ 3x"]);
    }
}

#[test]
fn an_exchange_goes_to_its_end_although_its_message_expired() {
    let mut world = World::open();
    let publisher = world.client(Version::V5, "p");
    let (reader, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribed(reader, "t", 2);
    let expiry = [Property::MessageExpiry(5)];
    for number in [1, 2] {
        publish_with(&mut world, publisher, publish("t", "x", 2, number), &expiry);
    }
    assert_eq!(messages(&mut world, reader).len(), 2);
    world.heard(publisher);
    world.pass(20_000);
    // As the publisher has it.
    publish_with(&mut world, publisher, Publish { dup: true, ..publish("t", "x", 2, 1) }, &expiry);
    assert_eq!(short(&world.take(publisher)), ["PubRec 1"]);
    assert_eq!(messages(&mut world, reader), []);
    answer(&mut world, publisher, Packet::PubRel, 1, Reason::Success);
    let got = world.take(publisher);
    assert_eq!((short(&got), got[0].reason()), (vec!["PubComp 1".to_owned()], Reason::Success));
    // As the subscriber has it.
    answer(&mut world, reader, Packet::PubRec, 1, Reason::Success);
    assert_eq!(short(&world.take(reader)), ["PubRel 1"]);
    world.hang_up(reader);
    let reader = again(&mut world, Version::V5, "s");
    assert_eq!(short(&world.take(reader)), ["PubRel 1", "2+ 2x"], "what was begun is not given up");
    for packet_id in [1, 2] {
        answer(&mut world, reader, Packet::PubComp, packet_id, Reason::Success);
        answer(&mut world, reader, Packet::PubRec, 2, Reason::Success);
    }
    assert!(!world.clients[reader].closed);
}

#[test]
fn pubrels_go_in_the_order_of_their_pubrecs() {
    for persistent in [false, true] {
        for version in VERSIONS {
            let mut world = World::open();
            let publisher = world.client(Version::V311, "p");
            let reader = match persistent {
                false => world.client(version, "r"),
                true => connect(&mut world, version, "r", &[]).0,
            };
            world.subscribed(reader, "t", 2);
            for number in 1..=4 {
                world.publish(publisher, "t", "x", 2, number);
            }
            assert_eq!(messages(&mut world, reader).len(), 4);
            let recs: Vec<u8> =
                [3, 1, 4, 2].into_iter().flat_map(|number| ack(Packet::PubRec, number, version)).collect();
            world.send(reader, &recs);
            assert_eq!(short(&world.take(reader)), ["PubRel 3", "PubRel 1", "PubRel 4", "PubRel 2"]);
        }
    }
}

#[test]
fn a_payload_format_indicator_goes_on_as_it_came() {
    for indicator in [None, Some(0), Some(1)] {
        let mut world = World::open();
        let (publisher, live) = (world.client(Version::V5, "p"), world.client(Version::V5, "r"));
        let old = world.client(Version::V311, "o");
        world.subscribed(live, "t", 0);
        world.subscribed(old, "t", 0);
        let list: Vec<_> = indicator.map(Property::PayloadFormat).into_iter().collect();
        let packet = Publish { retain: true, ..publish("t", "x", 0, 0) };
        publish_with(&mut world, publisher, packet, &list);
        let expected: Vec<String> = list.iter().map(|property| format!("{property:?}")).collect();
        assert_eq!(messages(&mut world, live)[0].properties, expected);
        assert_eq!(messages(&mut world, old).len(), 1);
        for filter in ["t", "$replay/earliest/t"] {
            let late = world.client(Version::V5, filter);
            world.subscribe(late, &[(filter, options(0))], &[]);
            assert_eq!(messages(&mut world, late)[0].properties, expected, "{filter}");
        }
        world.commit();
        world.crash(true);
        let late = world.client(Version::V5, "after a power cut");
        world.subscribe(late, &[("t", options(0))], &[]);
        assert_eq!(messages(&mut world, late)[0].properties, expected);
    }
}

#[test]
fn a_retained_message_of_any_qos_takes_the_place_of_the_one_before() {
    for version in VERSIONS {
        for (first, second) in [0, 1, 2].into_iter().flat_map(|first| [0, 1, 2].map(|second| (first, second)))
        {
            let mut world = World::open();
            let publisher = world.client(version, "p");
            world.clients[publisher].acknowledges = true;
            for (payload, qos) in [("before", first), ("now", second)] {
                let packet = Publish { retain: true, ..publish("t", payload, qos, u16::from(qos)) };
                world.send_packet(publisher, &Packet::Publish(packet));
                world.settle();
            }
            let late = world.client(version, "late");
            world.subscribe(late, &[("t", options(2))], &[]);
            let got = messages(&mut world, late);
            assert_eq!(got.iter().map(|it| (&*it.payload, it.qos)).collect::<Vec<_>>(), [("now", second)]);
        }
    }
}

#[test]
fn what_is_retained_outlives_the_session_of_its_publisher() {
    for version in VERSIONS {
        let mut world = World::open();
        let (publisher, _) = connect(&mut world, version, "s", &[]);
        let packet = Publish { retain: true, ..publish("t", "kept", 1, 1) };
        world.send_packet(publisher, &Packet::Publish(packet));
        world.settle();
        world.hang_up(publisher);
        let clean = arrive(&mut world, version, true, "s", &[]);
        world.settle();
        world.hang_up(clean);
        let late = world.client(version, "late");
        world.subscribe(late, &[("t", options(1))], &[]);
        let got: Vec<_> = messages(&mut world, late).into_iter().map(|it| (it.payload, it.retain)).collect();
        assert_eq!(got, [("kept".to_owned(), true)]);
    }
}

#[test]
fn what_expires_while_it_waits_for_its_client_is_not_sent() {
    let ways = [(Version::V5, true), (Version::V5, false), (Version::V311, false)];
    for (unlogged, (version, is_shut)) in [false, true].into_iter().flat_map(|it| ways.map(|way| (it, way))) {
        for qos in if is_shut { 1..3 } else { 0..3 } {
            let unlogged = if unlogged { vec!["t".parse().expect("a filter")] } else { Vec::new() };
            let mut world = World::new(Setup { unlogged, ..Setup::default() });
            let publisher = world.client(Version::V5, "p");
            let list = [Property::ReceiveMaximum(1)];
            let reader = world.client_with(version, "r", if is_shut { &list } else { &[] });
            world.subscribed(reader, "t", qos);
            publish_with(&mut world, publisher, publish("t", "first", 1, 1), &[]);
            assert_eq!(messages(&mut world, reader).len(), 1);
            if !is_shut {
                world.clients[reader].room = 0;
            }
            publish_with(&mut world, publisher, publish("t", "short", 2, 2), &[Property::MessageExpiry(5)]);
            publish_with(&mut world, publisher, publish("t", "long", 2, 3), &[Property::MessageExpiry(100)]);
            publish_with(&mut world, publisher, publish("t", "forever", 2, 4), &[]);
            world.pass(4_000);
            world.pass(26_000);
            match is_shut {
                true => answer(&mut world, reader, Packet::PubAck, 1, Reason::Success),
                false => world.drain_wire(reader, usize::MAX),
            }
            let mut got = messages(&mut world, reader);
            if is_shut {
                let made: Make = if qos == 1 { Packet::PubAck } else { Packet::PubRec };
                answer(&mut world, reader, made, got[0].id, Reason::Success);
                if qos == 2 {
                    answer(&mut world, reader, Packet::PubComp, got[0].id, Reason::Success);
                }
                got.extend(messages(&mut world, reader));
            }
            let heard: Vec<_> = got.iter().map(|it| (&*it.payload, it.qos)).collect();
            assert_eq!(heard, [("long", qos), ("forever", qos)]);
            assert_eq!(got[0].has("MessageExpiry(70)"), version == Version::V5, "{got:?}");
        }
    }
}
