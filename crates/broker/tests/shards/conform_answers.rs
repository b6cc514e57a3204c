//! What the bus answers, statement by statement (docs/reference/mqtt.md).

use crate::client::{Got, ack, connect_packet, options, start_packet, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_auth::{AnonymousMode, Identity};
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Packet, PacketKind, Property, Reason, Version};

const CURSOR: Property<'_> = Property::UserProperty("firehose-cursor", "on");

/// CONNACK, by itself.
fn connack(world: &mut World, id: &str, list: &[Property<'_>]) -> (usize, Got) {
    let client = world.arrive(connect_packet(Version::V5, id, list), Identity::anonymous(), id, None);
    let mut got = world.take(client);
    assert_eq!(got.len(), 1);
    (client, got.remove(0))
}

/// A will that nobody may have: its CONNECT is refused.
fn refused_packet(version: Version, clean: bool, id: &str) -> Vec<u8> {
    let mut packet = start_packet(version, clean, id, &[]);
    let flags_at = 9;
    packet[flags_at] |= 0x04;
    if version == Version::V5 {
        packet.push(0);
    }
    packet.extend(b"\0\x06$SYS/x\0\0");
    packet[1] = packet.len() as u8 - 2;
    packet
}

#[test]
fn no_answer_has_a_reason_string_or_a_user_property() {
    let acl = "topic readwrite t\ntopic readwrite s\n";
    let mut all = Vec::new();
    let mut hear = |world: &mut World, client: usize, expected: &[PacketKind]| {
        let got = world.take(client);
        assert_eq!(got.iter().map(|it| it.kind).collect::<Vec<_>>(), expected);
        all.extend(got);
    };
    let open = || World::new(Setup { acl: Some(acl), ..Setup::default() });
    let mut world = open();
    for packet in [connect_packet(Version::V5, "c", &[]), refused_packet(Version::V5, true, "d")] {
        let client = world.arrive(packet, Identity::anonymous(), "c", None);
        hear(&mut world, client, &[PacketKind::ConnAck]);
    }
    let client = world.client(Version::V5, "e");
    for topic in ["t", "denied"] {
        world.publish(client, topic, "x", 1, 1);
        hear(&mut world, client, &[PacketKind::PubAck]);
        world.publish(client, topic, "x", 2, 2);
        hear(&mut world, client, &[PacketKind::PubRec]);
        world.send(client, &ack(Packet::PubRel, 2, Version::V5));
        hear(&mut world, client, &[PacketKind::PubComp]);
    }
    world.send(client, &ack(Packet::PubRec, 77, Version::V5));
    hear(&mut world, client, &[PacketKind::PubRel]);
    let filters = ["s", "denied", "$replay/none/s", "$share/g/s"].map(|filter| (filter, options(2)));
    world.subscribe(client, &filters, &[]);
    hear(&mut world, client, &[PacketKind::SubAck]);
    world.send(client, &unsubscribe_packet(Version::V5, 1, &["s", "never"]));
    hear(&mut world, client, &[PacketKind::UnsubAck]);
    for end in 0..6 {
        let mut world = open();
        let client = world.client(Version::V5, "c");
        match end {
            0 => world.send(client, &[0x00, 0x00]),
            1 => world.send(client, &connect_packet(Version::V5, "c", &[])),
            2 => world.publish(client, "denied", "x", 0, 0),
            3 => drop(world.client(Version::V5, "c")),
            4 => world.pass(200_000),
            _ => drop(world.sequencer.send(0, Message::Shutdown)),
        }
        hear(&mut world, client, &[PacketKind::Disconnect]);
    }
    assert_eq!(all.len(), 2 + 6 + 3 + 6);
    for it in all {
        assert_eq!(it.user, [], "{it:?}");
        let unwanted = ["ReasonString", "SessionExpiry", "ServerReference"];
        let found = it.properties.iter().find(|known| unwanted.iter().any(|name| known.starts_with(name)));
        assert_eq!(found, None, "{it:?}");
    }
}

#[test]
fn connack_has_no_response_information_and_no_authentication_method() {
    let mut world = World::open();
    for list in [&[][..], &[Property::RequestResponse(0)], &[Property::RequestResponse(1)]] {
        let (_, connack) = connack(&mut world, "c", list);
        assert_eq!(connack.reason(), Reason::Success);
        let unwanted = ["ResponseInformation", "AuthMethod", "AuthData"];
        let found = connack.properties.iter().any(|it| unwanted.iter().any(|name| it.starts_with(name)));
        assert!(!found, "{connack:?}");
    }
}

#[test]
fn connack_restricts_nothing_that_is_there() {
    let mut world = World::open();
    let (_, connack) = connack(&mut world, "c", &[]);
    for name in ["MaximumQos", "RetainAvailable", "WildcardAvailable", "SubscriptionIdsAvailable"] {
        assert!(!connack.properties.iter().any(|it| it.starts_with(name)), "{connack:?}");
    }
}

#[test]
fn who_wants_no_problem_information_gets_no_user_property_with_suback() {
    for (wish, expected) in [(None, true), (Some(1), true), (Some(0), false)] {
        let mut world = World::open();
        let list: Vec<_> = wish.map(Property::RequestProblem).into_iter().collect();
        let client = world.client_with(Version::V5, "c", &list);
        world.subscribe(client, &[("t", options(0))], &[CURSOR]);
        let suback = world.take(client).remove(0);
        assert_eq!((suback.kind, suback.reason()), (PacketKind::SubAck, Reason::Success));
        assert_eq!(suback.user("firehose-cursor").is_some(), expected, "{wish:?}");
        world.publish(client, "t", "x", 0, 0);
        let got = world.take(client);
        assert!(got[0].user("firehose-cursor").is_some(), "PUBLISH has it all the same");
    }
}

#[test]
fn a_cursor_that_makes_suback_too_large_is_left_out() {
    for (bytes_max, expected) in [(40, false), (200, true)] {
        let mut world = World::open();
        let client = world.client_with(Version::V5, "c", &[Property::MaximumPacketSize(bytes_max)]);
        world.subscribe(client, &[("t", options(0))], &[CURSOR]);
        let suback = world.take(client).remove(0);
        assert_eq!((suback.kind, suback.reason()), (PacketKind::SubAck, Reason::Success));
        assert_eq!(suback.user("firehose-cursor").is_some(), expected);
    }
}

#[test]
fn no_answer_is_larger_than_the_client_takes() {
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    for is_subscribe in [true, false] {
        let mut world = World::open();
        let client = world.client_with(Version::V5, "c", &[Property::MaximumPacketSize(40)]);
        if is_subscribe {
            let filters: Vec<_> = names.iter().map(|name| (name.as_str(), options(0))).collect();
            world.subscribe(client, &filters, &[]);
        } else {
            let filters: Vec<_> = names.iter().map(String::as_str).collect();
            world.send(client, &unsubscribe_packet(Version::V5, 1, &filters));
        }
        let told: Vec<_> = world.take(client).iter().map(|it| (it.kind, it.reason())).collect();
        assert_eq!(told, [(PacketKind::Disconnect, Reason::PacketTooLarge)]);
        assert!(world.clients[client].closed);
    }
}

#[test]
fn who_is_refused_gets_no_disconnect() {
    for case in 0..3 {
        let limits = Limits { anonymous_sessions_max: 0, ..Limits::default() };
        let anonymous = AnonymousMode::Full;
        let mut world = World::new(Setup { limits, anonymous, ..Setup::default() });
        let packet = match case {
            0 => refused_packet(Version::V5, true, "c"),
            1 => start_packet(Version::V5, false, "c", &[Property::SessionExpiry(100)]),
            _ => {
                world.sequencer.send(0, Message::Shutdown);
                connect_packet(Version::V5, "c", &[])
            }
        };
        let client = world.arrive(packet, Identity::anonymous(), "c", None);
        world.settle();
        world.send(client, &[0x00, 0x00]);
        world.pass(100_000);
        let got: Vec<_> = world.take(client).iter().map(|it| (it.kind, it.reason().is_error())).collect();
        assert_eq!(got, [(PacketKind::ConnAck, true)], "case {case}");
        assert!(world.clients[client].closed);
    }
}

#[test]
fn a_refusal_says_that_no_session_is_present() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::open();
        let list = [Property::SessionExpiry(100)];
        let list = if version == Version::V5 { &list[..] } else { &[] };
        let packet = start_packet(version, false, "s", list);
        let come = |world: &mut World, packet: &[u8]| {
            let client = world.arrive(packet.to_vec(), Identity::anonymous(), "s", None);
            let connack = world.take(client).remove(0);
            world.hang_up(client);
            (connack.reason(), connack.session_present)
        };
        assert_eq!(come(&mut world, &packet), (Reason::Success, false));
        let refused = refused_packet(version, false, "s");
        assert_eq!(come(&mut world, &refused), (Reason::NotAuthorized, false));
        assert_eq!(come(&mut world, &packet), (Reason::Success, true), "it is there");
    }
}

#[test]
fn without_a_server_keep_alive_the_client_s_holds() {
    let mut world = World::open();
    // 60 s.
    let (client, connack) = connack(&mut world, "c", &[]);
    assert!(!connack.properties.iter().any(|it| it.starts_with("ServerKeepAlive")), "{connack:?}");
    world.pass(89_000);
    assert!(!world.clients[client].closed);
    world.pass(3_000);
    assert!(world.clients[client].closed);
}

#[test]
fn who_takes_nothing_is_closed_all_the_same() {
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    world.clients[client].room = 0;
    world.send(client, &[0x00, 0x00]);
    world.settle();
    world.pass(120_000);
    assert!(world.clients[client].closed, "its DISCONNECT does not get out");
}
