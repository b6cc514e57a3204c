//! Wills: when they are published, and when they are not.

use crate::client::{Got, bytes_of, options, properties};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::message::Message;
use firehose_mqtt::{
    Connect, Disconnect, Packet, PacketKind, Properties, Property, QoS, Reason, Version, Will,
};
use firehose_topic::{TopicFilter, TopicName};

/// How a client of these tests comes in.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub version: Version,
    pub clean: bool,
    pub session: &'a [Property<'a>],
    pub will: &'a [Property<'a>],
    pub retain: bool,
    pub has_will: bool,
}

pub const CLIENT: Client<'_> =
    Client { version: Version::V5, clean: true, session: &[], will: &[], retain: false, has_will: true };
pub const KEPT: &[Property<'_>] = &[Property::SessionExpiry(100)];
pub const DELAYED: &[Property<'_>] = &[Property::WillDelay(30)];

impl Client<'_> {
    pub fn connect(&self) -> Vec<u8> {
        let (session, of_will) = (properties(self.session), properties(self.will));
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: self.retain,
            topic: TopicName::new("a/will").unwrap(),
            payload: b"gone",
            properties: of_will.as_properties(),
        };
        let connect = Connect {
            version: self.version,
            clean_start: self.clean,
            keep_alive_secs: 0,
            client_id: "a",
            will: self.has_will.then_some(will),
            user_name: None,
            password: None,
            properties: session.as_properties(),
        };
        bytes_of(&Packet::Connect(connect), self.version)
    }

    pub fn arrive(&self, world: &mut World) -> usize {
        let client = world.arrive(self.connect(), Identity::user("a"), "a", None);
        let connack = world.take(client);
        assert_eq!((connack[0].kind, connack[0].reason()), (PacketKind::ConnAck, Reason::Success));
        client
    }
}

pub fn users() -> Setup {
    Setup { users: vec!["a", "b"], ..Setup::default() }
}

fn world() -> (World, usize) {
    let mut world = World::new(users());
    let reader = reader(&mut world);
    (world, reader)
}

/// Sees every will.
pub fn reader(world: &mut World) -> usize {
    let client = Client { has_will: false, ..CLIENT };
    // Nobody in these tests is silent for too long.
    let reader = world.arrive(client.connect(), Identity::anonymous(), "reader", None);
    assert_eq!(world.take(reader)[0].reason(), Reason::Success);
    world.subscribed(reader, "a/#", 1);
    reader
}

fn got(world: &mut World, reader: usize) -> Vec<Got> {
    world.take(reader).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

pub fn count(world: &mut World, reader: usize) -> usize {
    got(world, reader).len()
}

fn leave(world: &mut World, client: usize, reason: Reason) {
    let packet = Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY });
    world.send_packet(client, &packet);
    world.settle();
}

#[test]
fn connack_waits_until_the_will_is_stored() {
    let (mut world, _) = world();
    world.state.waits = true;
    let client = world.arrive(CLIENT.connect(), Identity::user("a"), "a", None);
    assert_eq!(world.take(client), []);
    world.state.waits = false;
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
}

#[test]
fn a_will_is_published_as_it_was_written() {
    let of_will = [
        Property::PayloadFormat(1),
        Property::MessageExpiry(500),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("r"),
        Property::CorrelationData(b"c"),
        Property::UserProperty("k", "v"),
        Property::WillDelay(5),
    ];
    let (mut world, reader) = world();
    let client = Client { will: &of_will, session: KEPT, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.pass(6_000);
    let got = got(&mut world, reader);
    assert_eq!(got.len(), 1);
    assert_eq!((&*got[0].topic, &*got[0].payload, got[0].qos), ("a/will", "gone", 1));
    assert_eq!(got[0].user, [("k".to_owned(), "v".to_owned())]);
    for property in ["PayloadFormat(1)", "ContentType(\"text/plain\")", "ResponseTopic(\"r\")"] {
        assert!(got[0].has(property), "{property} in {:?}", got[0].properties);
    }
    assert!(!got[0].properties.iter().any(|it| it.starts_with("WillDelay")), "{:?}", got[0].properties);
}

#[test]
fn a_delayed_will_waits_for_its_delay() {
    let (mut world, reader) = world();
    let client = Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.pass(29_000);
    assert_eq!(count(&mut world, reader), 0);
    world.pass(2_000);
    assert_eq!(count(&mut world, reader), 1);
}

#[test]
fn a_client_that_comes_back_before_the_delay_is_over_has_none_published() {
    let (mut world, reader) = world();
    let client = Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.pass(20_000);
    let again = Client { session: KEPT, clean: false, has_will: false, ..CLIENT }.arrive(&mut world);
    world.pass(60_000);
    assert_eq!(count(&mut world, reader), 0, "[MQTT-3.1.3-9]");
    assert!(!world.clients[again].closed);
}

#[test]
fn a_client_that_is_turned_away_has_not_come_back_before_the_delay_is_over() {
    let (mut world, reader) = world();
    let client = Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.state.waits = true;
    let again = Client { session: KEPT, clean: false, ..CLIENT };
    let again = world.arrive(again.connect(), Identity::user("a"), "a", None);
    world.settle();
    world.pass(12_000);
    assert_eq!(world.take(again)[0].reason(), Reason::ServerUnavailable);
    world.state.waits = false;
    world.pass(15_000);
    assert_eq!(count(&mut world, reader), 0);
    world.pass(20_000);
    assert_eq!(count(&mut world, reader), 1);
}

#[test]
fn the_end_of_the_session_comes_before_the_delay() {
    // The session ends with its connection.
    let (mut world, reader) = world();
    let client = Client { will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    assert_eq!(count(&mut world, reader), 1);
    // It expires.
    let short = [Property::SessionExpiry(10)];
    let client = Client { session: &short, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.pass(9_000);
    assert_eq!(count(&mut world, reader), 0);
    world.pass(3_000);
    assert_eq!(count(&mut world, reader), 1);
    // A clean start ends it.
    let client = Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.pass(5_000);
    assert_eq!(count(&mut world, reader), 0);
    Client { has_will: false, ..CLIENT }.arrive(&mut world);
    assert_eq!(count(&mut world, reader), 1);
    world.pass(60_000);
    assert_eq!(count(&mut world, reader), 0, "once");
}

#[test]
fn a_takeover_publishes_it_unless_it_is_delayed_and_the_session_goes_on() {
    let cases: [(Client<'_>, bool, usize); 5] = [
        (Client { session: KEPT, ..CLIENT }, false, 1),
        (Client { session: KEPT, will: DELAYED, ..CLIENT }, false, 0),
        (Client { session: KEPT, will: DELAYED, ..CLIENT }, true, 1),
        (Client { will: DELAYED, ..CLIENT }, false, 1),
        (Client { version: Version::V311, clean: false, ..CLIENT }, false, 1),
    ];
    for (index, (old, clean, expected)) in cases.into_iter().enumerate() {
        let (mut world, reader) = world();
        let client = old.arrive(&mut world);
        Client { clean, has_will: false, ..old }.arrive(&mut world);
        assert!(world.clients[client].closed);
        assert_eq!(count(&mut world, reader), expected, "case {index}");
        world.pass(60_000);
        assert_eq!(count(&mut world, reader), 0, "case {index}: once");
    }
}

#[test]
fn who_leaves_with_0x00_has_none_published_and_with_any_other_reason_has() {
    for (reason, expected) in [
        (Reason::Success, 0),
        (Reason::DisconnectWithWill, 1),
        (Reason::UnspecifiedError, 1),
        (Reason::MalformedPacket, 1),
        (Reason::ProtocolError, 1),
        (Reason::ReceiveMaximumExceeded, 1),
    ] {
        let (mut world, reader) = world();
        let client = Client { session: KEPT, ..CLIENT }.arrive(&mut world);
        leave(&mut world, client, reason);
        assert_eq!(count(&mut world, reader), expected, "{reason:?}");
        world.pass(200_000);
        let mut world = world.reopen(false);
        let reader = self::reader(&mut world);
        world.pass(120_000);
        assert_eq!(count(&mut world, reader), 0, "nor after a start");
    }
}

#[test]
fn a_retained_will_is_retained() {
    for version in [Version::V311, Version::V5] {
        let (mut world, _) = world();
        let client = Client { version, retain: true, ..CLIENT }.arrive(&mut world);
        world.hang_up(client);
        let late = world.client(version, "late");
        world.subscribe(late, &[("a/#", options(0))], &[]);
        let got = got(&mut world, late);
        assert_eq!(got.iter().map(|it| (&*it.payload, it.retain)).collect::<Vec<_>>(), [("gone", true)]);
    }
}

#[test]
fn a_bus_that_was_killed_publishes_it_a_minute_after_its_start() {
    for loses_power in [false, true] {
        let (mut world, _) = world();
        CLIENT.arrive(&mut world);
        let mut world = world.reopen(loses_power);
        let reader = self::reader(&mut world);
        world.pass(58_000);
        assert_eq!(count(&mut world, reader), 0);
        world.pass(4_000);
        assert_eq!(count(&mut world, reader), 1);
        // And once, whatever dies then, as soon as it is durable.
        world.commit();
        world.settle();
        let mut world = world.reopen(loses_power);
        let reader = self::reader(&mut world);
        world.pass(120_000);
        assert_eq!(count(&mut world, reader), 0);
    }
}

#[test]
fn a_longer_delay_is_kept_after_a_kill() {
    let (mut world, _) = world();
    let of_will = [Property::WillDelay(90)];
    Client { session: KEPT, will: &of_will, ..CLIENT }.arrive(&mut world);
    let mut world = world.reopen(true);
    let reader = self::reader(&mut world);
    world.pass(88_000);
    assert_eq!(count(&mut world, reader), 0);
    world.pass(4_000);
    assert_eq!(count(&mut world, reader), 1);
}

#[test]
fn who_comes_back_after_a_kill_has_not_died() {
    for clean in [false, true] {
        let (mut world, _) = world();
        CLIENT.arrive(&mut world);
        let mut world = world.reopen(true);
        let reader = self::reader(&mut world);
        world.pass(10_000);
        let client = Client { clean, ..CLIENT }.arrive(&mut world);
        world.pass(120_000);
        assert_eq!(count(&mut world, reader), 0, "clean start: {clean}");
        world.hang_up(client);
        assert_eq!(count(&mut world, reader), 1, "its new one");
    }
}

#[test]
fn a_bus_that_stops_is_no_death_of_its_clients() {
    for session in [&[][..], KEPT] {
        let (mut world, reader) = world();
        let client = Client { session, ..CLIENT }.arrive(&mut world);
        world.sequencer.send(0, Message::Shutdown);
        world.settle();
        assert!(world.clients[client].closed);
        assert_eq!(count(&mut world, reader), 0);
        let mut world = world.reopen(false);
        let reader = self::reader(&mut world);
        world.pass(58_000);
        assert_eq!(count(&mut world, reader), 0);
        world.pass(4_000);
        assert_eq!(count(&mut world, reader), 1);
    }
}

#[test]
fn a_will_of_a_topic_that_is_not_logged_is_delivered_once() {
    let unlogged = vec![TopicFilter::new("a/#").unwrap()];
    let mut world = World::new(Setup { unlogged, ..users() });
    let reader = reader(&mut world);
    let client = CLIENT.arrive(&mut world);
    world.hang_up(client);
    assert_eq!(count(&mut world, reader), 1);
    let mut world = world.reopen(false);
    let reader = self::reader(&mut world);
    world.pass(120_000);
    assert_eq!(count(&mut world, reader), 0);
}

#[test]
fn what_the_rules_do_not_let_be_published_any_more_is_dropped() {
    let mut world = World::new(Setup { acl: Some("topic read #\nuser a\ntopic #\n"), ..users() });
    let reader = reader(&mut world);
    let client = Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
    world.hang_up(client);
    world.reload_acl("topic read #\nuser a\ntopic read #\n");
    world.pass(60_000);
    assert_eq!(count(&mut world, reader), 0);
    world.reload_acl("topic read #\nuser a\ntopic #\n");
    world.pass(60_000);
    assert_eq!(count(&mut world, reader), 0, "it is gone");
}
