//! CONNECT: what CONNACK says, takeover, wills, keep-alive.

use crate::client::{bytes_of, connect_packet, options, properties};
use crate::world::{Setup, World};
use firehose_auth::{AnonymousMode, Identity};
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{
    Connect, Disconnect, Packet, PacketKind, Properties, Property, QoS, Reason, Version, Will,
};
use firehose_topic::TopicName;
use std::net::IpAddr;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn with_will(version: Version, id: &str, topic: &str, list: &[Property<'_>]) -> Vec<u8> {
    let properties = properties(list);
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new(topic).unwrap(),
        payload: b"gone",
        properties: properties.as_properties(),
    };
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: id,
        will: Some(will),
        user_name: None,
        password: None,
        properties: Properties::EMPTY,
    };
    bytes_of(&Packet::Connect(connect), version)
}

/// A world of users `a` and `b`, and a reader of everything.
fn wills() -> (World, usize) {
    let mut world = World::new(Setup { users: vec!["a", "b"], ..Setup::default() });
    let reader = world.client(Version::V311, "reader");
    world.subscribed(reader, "#", 0);
    (world, reader)
}

#[test]
fn connack_says_truthfully_what_is_there() {
    let mut world = World::open();
    let packet = connect_packet(Version::V5, "c", &[]);
    let client = world.arrive(packet, Identity::anonymous(), "c", None);
    let connack = &world.take(client)[0];
    assert_eq!((connack.reason(), connack.session_present), (Reason::Success, false));
    assert!(connack.has("ReceiveMaximum(1000)"), "{connack:?}");
    for name in ["SharedAvailable", "RetainAvailable", "WildcardAvailable", "SubscriptionIdsAvailable"] {
        let says = connack.properties.iter().any(|it| it.starts_with(name));
        assert!(!says, "absent means there is: {connack:?}");
    }
    for version in [Version::V31, Version::V311] {
        let client = world.client(version, "d");
        assert!(!world.clients[client].closed);
    }
}

#[test]
fn an_assigned_client_id_is_told() {
    let mut world = World::open();
    let packet = connect_packet(Version::V5, "", &[]);
    let client = world.arrive(packet, Identity::anonymous(), "auto-1", None);
    assert!(world.take(client)[0].has("AssignedClientId(\"auto-1\")"));
}

#[test]
fn a_keep_alive_that_is_too_long_or_none_becomes_the_server_s() {
    let limits = Limits { keep_alive_secs_max: 30, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let packet = connect_packet(Version::V5, "c", &[]);
    let client = world.arrive(packet, Identity::anonymous(), "c", None);
    assert!(world.take(client)[0].has("ServerKeepAlive(30)"));
    for _ in 0..45 {
        world.pass(1000);
    }
    assert!(!world.clients[client].closed, "not before one and a half keep-alives");
    world.pass(2000);
    let last = world.take(client).pop().unwrap();
    assert_eq!((last.kind, last.reason()), (PacketKind::Disconnect, Reason::KeepAliveTimeout));
    assert!(world.clients[client].closed);
}

#[test]
fn a_client_that_pings_is_kept_and_a_silent_one_is_not() {
    for version in VERSIONS {
        let mut world = World::open();
        let (lively, silent) = (world.client(version, "lively"), world.client(version, "silent"));
        for _ in 0..10 {
            world.pass(30_000);
            world.send_packet(lively, &Packet::PingReq);
            let answer = world.take(lively);
            assert_eq!(answer[0].kind, PacketKind::PingResp);
        }
        assert!(!world.clients[lively].closed);
        assert!(world.clients[silent].closed);
    }
}

#[test]
fn the_same_client_id_takes_over_and_the_old_connection_is_told() {
    for version in VERSIONS {
        let mut world = World::open();
        let old = world.client(version, "c");
        world.subscribed(old, "#", 0);
        let new = world.client(version, "c");
        let told = world.take(old);
        assert!(world.clients[old].closed);
        match version {
            Version::V5 => assert_eq!(told[0].reason(), Reason::SessionTakenOver),
            _ => assert_eq!(told, []),
        }
        world.publish(new, "t", "x", 0, 0);
        assert_eq!(world.payloads(new), Vec::<String>::new(), "it begins without subscriptions");
    }
}

#[test]
fn nothing_follows_the_disconnect_of_a_takeover() {
    let mut world = World::open();
    let old = world.client(Version::V5, "c");
    let publisher = world.client(Version::V311, "p");
    world.subscribed(old, "#", 0);
    // In one turn: the new connection arrives, then an event for the old one.
    world.publish(publisher, "t", "late", 0, 0);
    let packet = connect_packet(Version::V5, "c", &[]);
    world.arrive(packet, Identity::anonymous(), "c", None);
    world.settle();
    let kinds: Vec<_> = world.take(old).iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [PacketKind::Disconnect]);
}

#[test]
fn another_identity_or_address_evicts_nobody() {
    let mut world = World::open();
    let mut arrive = |identity, from| {
        let packet = connect_packet(Version::V5, "c", &[]);
        let client = world.arrive(packet, identity, "c", address(from));
        world.settle();
        client
    };
    let anonymous = arrive(Identity::anonymous(), "203.0.113.1");
    let elsewhere = arrive(Identity::anonymous(), "203.0.113.2");
    let user = arrive(Identity::user("a"), "203.0.113.1");
    let other_user = arrive(Identity::user("b"), "203.0.113.1");
    let user_elsewhere = arrive(Identity::user("a"), "203.0.113.9");
    let (v6, v6_near, v6_far) = (
        arrive(Identity::anonymous(), "2001:db8::1"),
        arrive(Identity::anonymous(), "2001:db8::2"),
        arrive(Identity::anonymous(), "2001:db8:1::2"),
    );
    for kept in [anonymous, elsewhere, other_user, user_elsewhere, v6_near, v6_far] {
        assert!(!world.clients[kept].closed);
    }
    assert!(world.clients[user].closed, "a user's session is the user's wherever it comes from");
    assert!(world.clients[v6].closed, "an IPv6 /64 is one address");
}

#[test]
fn a_will_fires_when_the_connection_is_lost() {
    for version in VERSIONS {
        let (mut world, reader) = wills();
        let client = world.arrive(with_will(version, "a", "a/will", &[]), Identity::user("a"), "a", None);
        world.settle();
        world.hang_up(client);
        assert_eq!(world.payloads(reader), ["gone"]);
    }
}

#[test]
fn a_will_does_not_fire_on_disconnect_but_does_when_the_client_asks() {
    let (mut world, reader) = wills();
    for (reason, expected) in [(Reason::Success, 0), (Reason::DisconnectWithWill, 1)] {
        let packet = with_will(Version::V5, "a", "a/will", &[]);
        let client = world.arrive(packet, Identity::user("a"), "a", None);
        world.settle();
        let disconnect = Disconnect { reason, properties: Properties::EMPTY };
        world.send_packet(client, &Packet::Disconnect(disconnect));
        assert_eq!(world.payloads(reader).len(), expected, "{reason:?}");
        assert!(world.clients[client].closed);
    }
    let client = world.arrive(with_will(Version::V311, "a", "a/will", &[]), Identity::user("a"), "a", None);
    world.settle();
    world.send(client, &[0xe0, 0]);
    assert_eq!(world.payloads(reader), Vec::<String>::new());
}

#[test]
fn a_will_fires_on_a_takeover_a_timeout_and_a_protocol_error() {
    for (version, end) in VERSIONS.into_iter().flat_map(|version| [0, 1, 2].map(|end| (version, end))) {
        let (mut world, reader) = wills();
        let packet = with_will(version, "a", "a/will", &[]);
        let client = world.arrive(packet, Identity::user("a"), "a", None);
        world.settle();
        match end {
            0 => drop(world.user(version, "a")),
            1 => {
                world.pass(50_000);
                // The reader is not silent.
                world.send_packet(reader, &Packet::PingReq);
                assert_eq!(world.take(reader)[0].kind, PacketKind::PingResp);
                assert!(!world.clients[client].closed);
                world.pass(45_000);
            }
            _ => world.send(client, &[0x00, 0x00]),
        }
        assert_eq!(world.payloads(reader), ["gone"], "{version:?}, end {end}");
        assert!(world.clients[client].closed);
    }
}

#[test]
fn the_rules_that_hold_when_a_will_fires_decide() {
    let acl = "user a\ntopic a/#\nuser b\ntopic read #\n";
    let mut world = World::new(Setup { users: vec!["a", "b"], acl: Some(acl), ..Setup::default() });
    let reader = world.user(Version::V311, "b");
    world.subscribed(reader, "#", 0);
    let will = || with_will(Version::V311, "a", "a/will", &[]);
    let client = world.arrive(will(), Identity::user("a"), "a", None);
    world.settle();
    world.reload_acl("user a\ntopic read a/#\nuser b\ntopic read #\n");
    world.hang_up(client);
    assert_eq!(world.payloads(reader), Vec::<String>::new());
    world.reload_acl(acl);
    let client = world.arrive(will(), Identity::user("a"), "a", None);
    world.settle();
    world.hang_up(client);
    assert_eq!(world.payloads(reader), ["gone"]);
}

#[test]
fn the_anonymous_have_no_will() {
    for version in VERSIONS {
        let mut world = World::new(Setup { anonymous: AnonymousMode::Read, ..Setup::default() });
        let packet = with_will(version, "c", "t", &[]);
        let client = world.arrive(packet, Identity::anonymous(), "c", None);
        let answer = world.take(client);
        assert_eq!(answer.len(), 1);
        assert_eq!(answer[0].reason(), Reason::NotAuthorized, "0x87, or return code 5 before 5.0");
        assert!(world.clients[client].closed);
        assert_eq!(world.read.head(), 0);
    }
}

#[test]
fn a_will_to_a_name_of_ours_is_refused_and_evicts_nobody() {
    let (mut world, _) = wills();
    let old = world.user(Version::V5, "a");
    for topic in ["$SYS/x", "$replay/earliest/x", "firehose/status/x", "firehose"] {
        let client = world.arrive(with_will(Version::V5, "a", topic, &[]), Identity::user("a"), "a", None);
        assert_eq!(world.take(client)[0].reason(), Reason::NotAuthorized, "{topic}");
    }
    let forged = [Property::UserProperty("firehose-gap", "1..9 forged")];
    let client = world.arrive(with_will(Version::V5, "a", "a/w", &forged), Identity::user("a"), "a", None);
    assert_eq!(world.take(client)[0].reason(), Reason::NotAuthorized);
    assert!(!world.clients[old].closed);
}

#[test]
fn what_comes_in_one_piece_with_connect_is_looked_at() {
    let mut world = World::open();
    let mut bytes = connect_packet(Version::V311, "c", &[]);
    bytes.extend(crate::client::subscribe_packet(Version::V311, 1, &[("#", options(0))], &[]));
    bytes.extend([0xc0, 0]);
    let client = world.arrive(bytes, Identity::anonymous(), "c", None);
    let kinds: Vec<_> = world.take(client).iter().map(|it| it.kind).collect();
    assert_eq!(kinds[0], PacketKind::ConnAck);
    assert!(kinds.contains(&PacketKind::SubAck) && kinds.contains(&PacketKind::PingResp));
}

#[test]
fn a_shutdown_tells_every_client_and_refuses_those_who_come() {
    let mut world = World::open();
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    world.sequencer.send(0, Message::Shutdown);
    assert_eq!(world.take(v5)[0].reason(), Reason::ServerShuttingDown);
    assert_eq!(world.take(v3), []);
    assert!(world.clients[v5].closed && world.clients[v3].closed);
    let late = world.arrive(connect_packet(Version::V5, "l", &[]), Identity::anonymous(), "l", None);
    assert_eq!(world.take(late)[0].reason(), Reason::ServerUnavailable);
    assert!(world.shard(0).is_empty());
}

#[test]
fn a_user_who_is_gone_after_a_reload_is_disconnected() {
    let mut world = World::new(Setup { users: vec!["b"], acl: Some("topic read #\n"), ..Setup::default() });
    let (gone, stays) = (world.user(Version::V5, "a"), world.user(Version::V5, "b"));
    world.reload_acl("topic read #\n");
    assert_eq!(world.take(gone)[0].reason(), Reason::NotAuthorized);
    assert!(world.clients[gone].closed && !world.clients[stays].closed);
}

#[test]
fn who_has_no_room_for_connack_is_closed_without_one() {
    for bytes_max in [1, 2, 4] {
        let mut world = World::open();
        let packet = connect_packet(Version::V5, "c", &[Property::MaximumPacketSize(bytes_max)]);
        let client = world.arrive(packet, Identity::anonymous(), "c", None);
        assert_eq!(world.take(client), []);
        assert!(world.clients[client].closed);
        assert_eq!(world.stats(0).connections.get(), 0);
    }
}

#[test]
fn who_has_room_for_a_refusal_but_not_for_connack_is_told_so() {
    for bytes_max in [5, 15] {
        let mut world = World::open();
        let packet = connect_packet(Version::V5, "c", &[Property::MaximumPacketSize(bytes_max)]);
        let client = world.arrive(packet, Identity::anonymous(), "c", None);
        assert_eq!(world.take(client)[0].reason(), Reason::ImplementationSpecificError);
        assert!(world.clients[client].closed);
    }
}

/// Found by the simulation.
#[test]
fn nothing_follows_a_disconnect_also_if_it_was_asked_for_before() {
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    let mut bytes = crate::client::subscribe_packet(Version::V5, 9, &[("t", options(1))], &[]);
    // A second CONNECT, which is a protocol error, while SUBACK waits for the order.
    bytes.extend(connect_packet(Version::V5, "c", &[]));
    world.send(client, &bytes);
    let kinds: Vec<PacketKind> = world.take(client).iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [PacketKind::Disconnect], "[MQTT-3.14.4-1]");
    assert!(world.clients[client].closed);
}
