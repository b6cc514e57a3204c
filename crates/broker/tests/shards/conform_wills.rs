//! Wills, statement by statement (docs/reference/mqtt.md).

use crate::client::{Got, bytes_of, properties, publish};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_mqtt::{Connect, Packet, PacketKind, Properties, Property, Publish, QoS, Reason, Version, Will};
use firehose_topic::TopicName;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// The user `a` comes, maybe with a will, and its connection is lost.
fn come_and_go(world: &mut World, version: Version, will: Option<Will<'_>>) {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: "a",
        will,
        user_name: None,
        password: None,
        properties: Properties::EMPTY,
    };
    let packet = bytes_of(&Packet::Connect(connect), version);
    let client = world.arrive(packet, Identity::user("a"), "a", None);
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
    world.hang_up(client);
}

fn will(qos: u8) -> Will<'static> {
    Will {
        qos: QoS::from_u8(qos).unwrap(),
        retain: false,
        topic: TopicName::new("a/will").unwrap(),
        payload: b"gone",
        properties: Properties::EMPTY,
    }
}

/// A world with the user `a`, and a reader of everything.
fn world() -> (World, usize) {
    let mut world = World::new(Setup { users: vec!["a"], ..Setup::default() });
    let reader = world.client(Version::V5, "reader");
    assert_eq!(world.subscribed(reader, "#", 2), Reason::GrantedQoS2);
    (world, reader)
}

fn messages(world: &mut World, reader: usize) -> Vec<Got> {
    world.take(reader).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

#[test]
fn who_has_no_will_has_none_published() {
    for version in VERSIONS {
        let (mut world, reader) = world();
        come_and_go(&mut world, version, None);
        world.pass(10_000);
        assert_eq!(messages(&mut world, reader), []);
        assert_eq!(world.read.head(), 0);
    }
}

#[test]
fn each_qos_of_a_will_is_kept() {
    for version in VERSIONS {
        for qos in 0..3 {
            let (mut world, reader) = world();
            come_and_go(&mut world, version, Some(will(qos)));
            let got = messages(&mut world, reader);
            assert_eq!(got.iter().map(|it| (&*it.payload, it.qos)).collect::<Vec<_>>(), [("gone", qos)]);
        }
    }
}

#[test]
fn a_will_without_retain_is_not_retained() {
    for version in VERSIONS {
        for before in [false, true] {
            let (mut world, reader) = world();
            if before {
                let packet = Publish { retain: true, ..publish("a/will", "kept", 0, 0) };
                world.send_packet(reader, &Packet::Publish(packet));
                world.settle();
                world.heard(reader);
            }
            come_and_go(&mut world, version, Some(will(1)));
            assert_eq!(messages(&mut world, reader).len(), 1);
            let late = world.client(version, "late");
            world.subscribed(late, "a/#", 1);
            let got: Vec<_> = messages(&mut world, late).into_iter().map(|it| it.payload).collect();
            assert_eq!(got, if before { &["kept"][..] } else { &[] });
        }
    }
}

#[test]
fn the_properties_of_a_will_come_unaltered_and_in_order() {
    for indicator in [0, 1] {
        let list = [
            Property::PayloadFormat(indicator),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("re"),
            Property::CorrelationData(b"42"),
            Property::UserProperty("b", "1"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("b", "3"),
        ];
        let (mut world, reader) = world();
        let of_will = properties(&list);
        let will = Will { properties: of_will.as_properties(), ..will(1) };
        come_and_go(&mut world, Version::V5, Some(will));
        let got = messages(&mut world, reader).remove(0);
        let user: Vec<_> = got.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(user, [("b", "1"), ("a", "2"), ("b", "3")]);
        let mut others: Vec<String> = list[..4].iter().map(|property| format!("{property:?}")).collect();
        let mut properties = got.properties;
        others.sort();
        properties.sort();
        assert_eq!(properties, others);
    }
}
