//! Malformed packets, and packets that do not belong where they come.

use crate::client::{connect_packet, publish};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, Version};

/// What becomes of a client that sends `bytes`; another one has to notice nothing.
fn ends_with(version: Version, bytes: &[u8]) -> Option<Reason> {
    let mut world = World::open();
    let (bad, good) = (world.client(version, "bad"), world.client(version, "good"));
    world.subscribed(good, "#", 0);
    world.send(bad, bytes);
    let told = world.take(bad);
    assert!(world.clients[bad].closed, "{bytes:?}");
    assert!(told.iter().all(|it| it.kind == PacketKind::Disconnect), "{told:?}");
    world.publish(good, "t", "still here", 0, 0);
    assert_eq!(world.payloads(good), ["still here"]);
    assert_eq!(world.stats(0).protocol_errors.get(), 1);
    told.first().map(|it| it.reason())
}

#[test]
fn a_malformed_packet_closes_that_connection_with_its_reason() {
    let cases: [(&[u8], Reason); 6] = [
        (&[0x00, 0x00], Reason::MalformedPacket),
        (&[0xc1, 0x00], Reason::MalformedPacket),
        (&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], Reason::MalformedPacket),
        (&[0x36, 0x05, 0, 1, b't', 0, 1], Reason::MalformedPacket),
        (&[0x30, 0x05, 0, 1, b'#', 0, b'x'], Reason::MalformedPacket),
        (&[0x82, 0x03, 0, 1, 0], Reason::ProtocolError),
    ];
    for (bytes, reason) in cases {
        assert_eq!(ends_with(Version::V5, bytes), Some(reason), "{bytes:?}");
    }
    for version in [Version::V31, Version::V311] {
        assert_eq!(ends_with(version, &[0x00, 0x00]), None, "before 5.0 there is nothing to say");
    }
}

#[test]
fn a_second_connect_an_auth_and_what_only_servers_send_are_protocol_errors() {
    let connect = connect_packet(Version::V5, "bad", &[]);
    let cases: [&[u8]; 6] = [
        &connect,
        &[0xf0, 0],
        &[0x20, 3, 0, 0, 0],
        &[0xd0, 0],
        &[0x90, 4, 0, 1, 0, 0],
        &[0xb0, 4, 0, 1, 0, 0],
    ];
    for bytes in cases {
        assert_eq!(ends_with(Version::V5, bytes), Some(Reason::ProtocolError), "{bytes:?}");
    }
    assert_eq!(ends_with(Version::V311, &connect_packet(Version::V311, "bad", &[])), None);
}

#[test]
fn packets_come_whole_however_they_are_cut() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut world = World::open();
        let client = world.client(version, "c");
        world.subscribed(client, "t", 0);
        let packet = crate::client::bytes_of(&Packet::Publish(publish("t", "byte by byte", 1, 7)), version);
        for byte in packet {
            world.send(client, &[byte]);
        }
        let got = world.take(client);
        assert!(got.iter().any(|it| it.kind == PacketKind::PubAck && it.id == 7));
        assert!(got.iter().any(|it| it.payload == "byte by byte"));
    }
}

#[test]
fn a_packet_above_the_limit_is_refused_as_soon_as_its_length_is_known() {
    let limits = Limits { packet_bytes_max: 1000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let client = world.client(Version::V5, "c");
    world.send(client, &[0x30, 0xff, 0x7f]);
    assert_eq!(world.take(client)[0].reason(), Reason::PacketTooLarge);
    assert!(world.clients[client].closed);
}

#[test]
fn the_anonymous_of_a_read_only_bus_may_send_less() {
    let limits = Limits { packet_anonymous_bytes_max: 100, ..Limits::default() };
    let anonymous = firehose_auth::AnonymousMode::Read;
    let mut world = World::new(Setup { limits, anonymous, ..Setup::default() });
    let (anonymous, user) = (world.client(Version::V5, "c"), world.user(Version::V5, "a"));
    let long = "x".repeat(200);
    world.publish(user, "a/t", &long, 1, 1);
    assert_eq!(world.take(user)[0].reason(), Reason::Success);
    world.publish(anonymous, "a/t", &long, 1, 1);
    assert_eq!(world.take(anonymous)[0].reason(), Reason::PacketTooLarge);
}

#[test]
fn topic_aliases_are_set_used_and_checked() {
    let mut world = World::open();
    let (client, reader) = (world.client(Version::V5, "c"), world.client(Version::V311, "r"));
    world.subscribed(reader, "#", 0);
    let with_alias = |world: &mut World, topic, alias| {
        let properties = crate::client::properties(&[Property::TopicAlias(alias)]);
        let packet = Publish { properties: properties.as_properties(), ..publish(topic, "x", 0, 0) };
        world.send_packet(client, &Packet::Publish(packet));
    };
    with_alias(&mut world, "one", 1);
    with_alias(&mut world, "", 1);
    with_alias(&mut world, "two", 16);
    with_alias(&mut world, "three", 1);
    with_alias(&mut world, "", 1);
    with_alias(&mut world, "", 16);
    let topics: Vec<String> = world.take(reader).into_iter().map(|it| it.topic).collect();
    assert_eq!(topics, ["one", "one", "two", "three", "three", "two"]);
    with_alias(&mut world, "x", 17);
    assert_eq!(world.take(client)[0].reason(), Reason::TopicAliasInvalid);
    let client = world.client(Version::V5, "d");
    let properties = crate::client::properties(&[Property::TopicAlias(2)]);
    let packet = Publish { properties: properties.as_properties(), ..publish("", "x", 0, 0) };
    world.send_packet(client, &Packet::Publish(packet));
    assert_eq!(world.take(client)[0].reason(), Reason::ProtocolError);
}

#[test]
fn a_session_expiry_that_connect_did_not_have_is_a_protocol_error() {
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    let properties = crate::client::properties(&[Property::SessionExpiry(10)]);
    let properties = properties.as_properties();
    world.send_packet(
        client,
        &Packet::Disconnect(firehose_mqtt::Disconnect { reason: Reason::Success, properties }),
    );
    assert_eq!(world.take(client)[0].reason(), Reason::ProtocolError);
}

#[test]
fn who_never_reads_its_replies_is_cut_off() {
    let mut world = World::open();
    let pings = world.client(Version::V311, "pings");
    world.clients[pings].room = 0;
    let many = [0xc0, 0].repeat(600_000);
    world.send(pings, &many);
    world.settle();
    assert!(world.clients[pings].closed);

    let publisher = world.client(Version::V311, "publishes");
    world.clients[publisher].room = 0;
    let packet = crate::client::bytes_of(&Packet::Publish(publish("t", "", 1, 1)), Version::V311);
    for _ in 0..300 {
        world.send(publisher, &packet.repeat(1_000));
        world.settle();
    }
    assert!(world.clients[publisher].closed, "acknowledgements are replies too");

    let mut world = World::new(Setup { anonymous: firehose_auth::AnonymousMode::Read, ..Setup::default() });
    let refused = world.client(Version::V5, "refused");
    world.clients[refused].room = 0;
    let packet = crate::client::bytes_of(&Packet::Publish(publish("t", "", 1, 1)), Version::V5);
    for _ in 0..300 {
        world.send(refused, &packet.repeat(1_000));
        world.settle();
    }
    assert!(world.clients[refused].closed, "and so are refusals");
}

#[test]
fn an_acknowledgement_of_nothing_is_answered_as_its_version_has_it() {
    let ack = |make: fn(firehose_mqtt::Ack<'static>) -> Packet<'static>, version| {
        let mut world = World::open();
        let client = world.client(version, "c");
        world.send(client, &crate::client::ack(make, 5, version));
        (world.take(client), world.clients[client].closed)
    };
    for version in [Version::V311, Version::V5] {
        for make in [Packet::PubAck as fn(_) -> _, Packet::PubComp] {
            assert_eq!(ack(make, version), (vec![], false));
        }
    }
    let (answer, _) = ack(Packet::PubRec, Version::V5);
    assert_eq!((answer[0].kind, answer[0].reason()), (PacketKind::PubRel, Reason::PacketIdentifierNotFound));
    let (answer, _) = ack(Packet::PubRel, Version::V5);
    assert_eq!((answer[0].kind, answer[0].reason()), (PacketKind::PubComp, Reason::PacketIdentifierNotFound));
    let (answer, _) = ack(Packet::PubRel, Version::V311);
    assert_eq!((answer[0].kind, answer[0].id), (PacketKind::PubComp, 5));
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    let wrong = [(1, &[0x50_u8, 0x70][..]), (2, &[0x40, 0x70])];
    for (version, (qos, kinds)) in
        [Version::V311, Version::V5].into_iter().flat_map(|it| wrong.map(|of| (it, of)))
    {
        for kind in kinds {
            let mut world = World::open();
            let (reader, publisher) = (world.client(version, "r"), world.client(version, "p"));
            world.subscribed(reader, "t", qos);
            world.publish(publisher, "t", "x", qos, 1);
            world.settle();
            assert_eq!(world.take(reader).last().map(|it| it.id), Some(1));
            world.send(reader, &[*kind, 2, 0, 9]);
            let unknown = world.take(reader);
            assert!(!world.clients[reader].closed, "nothing waits under that id: {unknown:?}");
            world.send(reader, &[*kind, 2, 0, 1]);
            let told: Vec<_> = world.take(reader).iter().map(|it| it.reason()).collect();
            assert_eq!(told, if version == Version::V5 { &[Reason::ProtocolError][..] } else { &[] });
            assert!(world.clients[reader].closed);
        }
    }
}

#[test]
fn a_client_s_publish_has_no_subscription_identifier() {
    let packet = [0x30, 6, 0, 1, b't', 2, 0x0b, 1];
    assert_eq!(ends_with(Version::V5, &packet), Some(Reason::ProtocolError));
}
