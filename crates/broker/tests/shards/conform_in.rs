//! What clients send that the standard forbids, or that comes where nothing may come, statement by statement
//! (docs/reference/mqtt.md).

use crate::client::{bytes_of, properties, publish};
use crate::session::{again, connect};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_mqtt::{
    Connect, Packet, PacketKind, Properties, Property, Publish, QoS, Reason, SubscribeOptions, Version, Will,
};
use firehose_topic::TopicName;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// A client that sends this is closed, and told 0x81 if it speaks 5.0.
fn is_malformed(version: Version, bytes: &[u8]) {
    let mut world = World::open();
    let client = world.client(version, "c");
    world.send(client, bytes);
    let told: Vec<_> = world.take(client).iter().map(|it| (it.kind, it.reason())).collect();
    let expected = [(PacketKind::Disconnect, Reason::MalformedPacket)];
    assert_eq!(told, if version == Version::V5 { &expected[..] } else { &[] }, "{version:?} {bytes:02x?}");
    assert!(world.clients[client].closed, "{version:?} {bytes:02x?}");
    assert_eq!(world.read.head(), 0);
}

#[test]
fn a_string_that_is_none_closes_the_connection() {
    for text in [&b"\xed\xa0\x80"[..], b"\xff..", b"a\0b", b"\xc0\x80a"] {
        for version in VERSIONS {
            let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            let string = [&[0, text.len() as u8], text].concat();
            for (first, parts) in [
                (0x30, [&string, none, b""]),
                (0x82, [&[&[0, 1], none].concat(), &string, &[0]]),
                (0xa2, [&[&[0, 1], none].concat(), &string, b""]),
            ] {
                let body = parts.concat();
                is_malformed(version, &[&[first, body.len() as u8][..], &body].concat());
            }
        }
    }
}

#[test]
fn wrong_flags_of_the_first_byte_close_the_connection() {
    for version in VERSIONS {
        for kind in [4, 5, 6, 7, 8, 10, 12, 14_u8].into_iter().chain((version == Version::V5).then_some(15)) {
            let right = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
            for flags in (0..16).filter(|flags| *flags != right) {
                is_malformed(version, &[kind << 4 | flags, 2, 0, 1]);
            }
        }
    }
}

#[test]
fn wrong_subscription_options_close_the_connection() {
    for options in [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xfc] {
        is_malformed(Version::V311, &[0x82, 6, 0, 1, 0, 1, b'a', options]);
    }
    for options in [0x40, 0x80, 0xc1] {
        is_malformed(Version::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options]);
    }
    // QoS 3 and Retain Handling 3 are protocol errors (MQTT 5.0, 3.8.3.1).
    for options in [0x03, 0x30] {
        let mut world = World::open();
        let client = world.client(Version::V5, "c");
        world.send(client, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options]);
        assert_eq!(world.take(client)[0].reason(), Reason::ProtocolError);
        assert!(world.clients[client].closed);
    }
    let every = SubscribeOptions::default();
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    world.subscribe(client, &[("a", every)], &[]);
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
}

#[test]
fn nothing_behind_a_refused_connect_is_looked_at() {
    for version in VERSIONS {
        let mut world = World::new(Setup { users: vec!["a"], ..Setup::default() });
        let will = Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::new("$SYS/nobody/may").unwrap(),
            payload: b"",
            properties: Properties::EMPTY,
        };
        let packet = Connect {
            version,
            clean_start: true,
            keep_alive_secs: 60,
            client_id: "a",
            will: Some(will),
            user_name: None,
            password: None,
            properties: Properties::EMPTY,
        };
        let mut bytes = bytes_of(&Packet::Connect(packet), version);
        bytes.extend(bytes_of(&Packet::Publish(publish("a/t", "x", 1, 1)), version));
        bytes.extend([0xc0, 0]);
        let client = world.arrive(bytes, Identity::user("a"), "a", None);
        world.settle();
        world.send(client, &[0xc0, 0]);
        let got: Vec<_> = world.take(client).iter().map(|it| (it.kind, it.reason())).collect();
        assert_eq!(got, [(PacketKind::ConnAck, Reason::NotAuthorized)]);
        assert!(world.clients[client].closed);
        assert_eq!(world.read.head(), 0);
    }
}

#[test]
fn nothing_behind_a_disconnect_is_looked_at() {
    for version in VERSIONS {
        let mut world = World::open();
        let client = world.client(version, "c");
        let mut bytes = vec![0xe0, 0];
        bytes.extend(bytes_of(&Packet::Publish(publish("t", "x", 1, 1)), version));
        bytes.extend([0xc0, 0]);
        world.send(client, &bytes);
        assert_eq!(world.take(client), []);
        assert!(world.clients[client].closed);
        assert_eq!(world.read.head(), 0);
    }
}

#[test]
fn aliases_end_with_their_connection() {
    let mut world = World::open();
    let takes = [Property::TopicAliasMaximum(10)];
    let (client, _) = connect(&mut world, Version::V5, "s", &takes);
    assert_eq!(world.subscribed(client, "t", 0), Reason::Success);
    let with_alias = |world: &mut World, client, topic| {
        let properties = properties(&[Property::TopicAlias(1)]);
        let packet = Publish { properties: properties.as_properties(), ..publish(topic, "x", 0, 0) };
        world.send_packet(client, &Packet::Publish(packet));
        world.take(client)
    };
    for topic in ["t", ""] {
        let got = with_alias(&mut world, client, topic);
        assert_eq!((got[0].topic.as_str(), got[0].has("TopicAlias(1)")), (topic, true));
    }
    world.hang_up(client);
    // Those that the bus set: it says the name again, or sets none at all.
    let (client, _) = connect(&mut world, Version::V5, "s", &takes);
    world.publish(client, "t", "x", 0, 0);
    assert_eq!(world.take(client)[0].topic, "t");
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    world.publish(client, "t", "x", 0, 0);
    let got = world.take(client);
    assert_eq!((got[0].topic.as_str(), got[0].properties.len()), ("t", 0), "{got:?}");
    // Those that the client set.
    let told = with_alias(&mut world, client, "");
    assert_eq!((told[0].kind, told[0].reason()), (PacketKind::Disconnect, Reason::ProtocolError));
}
