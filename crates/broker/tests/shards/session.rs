//! Sessions that outlive their connection: a client of one, and how sessions end and go on.

use crate::client::{self, Got, bytes_of, start_packet, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Disconnect, Packet, PacketKind, PropertiesBuf, Property, Reason, Version};
use std::path::Path;

pub const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Connects to go on with a session, an hour long at least; gives CONNACK too.
pub fn connect(world: &mut World, version: Version, id: &str, list: &[Property<'_>]) -> (usize, Got) {
    let client = arrive(world, version, false, id, list);
    world.settle();
    let connack = world.clients[client].packets.remove(0);
    assert_eq!((connack.kind, connack.reason()), (PacketKind::ConnAck, Reason::Success));
    (client, connack)
}

/// Arrives, and is not answered yet.
pub fn arrive(world: &mut World, version: Version, clean: bool, id: &str, list: &[Property<'_>]) -> usize {
    let mut list = list.to_vec();
    if version == Version::V5 && !list.iter().any(|it| matches!(it, Property::SessionExpiry(_))) {
        list.push(Property::SessionExpiry(3600));
    }
    let list = if version == Version::V5 { &list[..] } else { &[] };
    let packet = start_packet(version, clean, id, list);
    world.arrive(packet, Identity::anonymous(), id, None)
}

/// A client that goes on with its session, which is there.
pub fn again(world: &mut World, version: Version, id: &str) -> usize {
    let (client, connack) = connect(world, version, id, &[]);
    assert!(connack.session_present || version == Version::V31, "the session is there");
    client
}

/// A session with a subscription, left behind by its client.
pub fn subscribed_and_left(world: &mut World, version: Version, id: &str, filter: &str, qos: u8) {
    let (client, _) = connect(world, version, id, &[]);
    assert!(!world.subscribed(client, filter, qos).is_error());
    world.hang_up(client);
}

impl World {
    /// The process dies where it stands, and begins again with what the disk has.
    pub fn crash(&mut self, loses_power: bool) {
        let old = std::mem::replace(self, World::open());
        *self = old.reopen(loses_power);
    }

    /// Retention deletes what is old, whatever the state would keep.
    pub fn upkeep_keeping_nothing(&mut self) {
        for _ in 0..3 {
            self.commit.upkeep(self.now.wall_us, &mut firehose_log::KeepNothing);
        }
    }
}

/// What the packets are, in short: kind, packet id, payload, DUP.
pub fn short(packets: &[Got]) -> Vec<String> {
    let one = |it: &Got| match it.kind {
        PacketKind::Publish => {
            format!("{}{} {}{}", it.qos, if it.dup { "+" } else { "" }, it.id, it.payload)
        }
        kind => format!("{kind:?} {}", it.id),
    };
    packets.iter().map(one).collect()
}

#[test]
fn a_session_goes_on_with_what_came_meanwhile() {
    for version in VERSIONS {
        for qos in 0..3 {
            let mut world = World::open();
            let publisher = world.client(Version::V311, "publisher");
            subscribed_and_left(&mut world, version, "s", "a/+", qos);
            for payload in ["1", "2", "3"] {
                world.publish(publisher, "a/b", payload, 2, payload.parse().unwrap());
            }
            world.publish(publisher, "b", "other", 0, 0);
            let client = again(&mut world, version, "s");
            assert_eq!(world.payloads(client), ["1", "2", "3"], "{version:?} at QoS {qos}");
            world.publish(publisher, "a/c", "live", 2, 4);
            assert_eq!(world.payloads(client), ["live"]);
        }
    }
}

#[test]
fn a_session_survives_kill_and_power_loss() {
    for power in [false, true] {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "publisher");
        let (client, _) = connect(&mut world, Version::V5, "s", &[]);
        world.subscribed(client, "#", 1);
        world.publish(publisher, "t", "1", 1, 1);
        world.settle();
        world.commit();
        world.crash(power);
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "t", "2", 1, 1);
        let client = again(&mut world, Version::V5, "s");
        assert_eq!(world.payloads(client), ["1", "2"]);
    }
}

#[test]
fn however_the_connection_ends_the_session_goes_on() {
    for end in 0..5 {
        let mut world = World::open();
        let publisher = world.client(Version::V5, "publisher");
        let (client, _) = connect(&mut world, Version::V5, "s", &[]);
        world.subscribed(client, "t", 1);
        match end {
            0 => world.send(client, &[0xe0, 0]),
            1 => world.hang_up(client),
            2 => world.send(client, &[0xff, 0]),
            3 => (0..20).for_each(|_| {
                world.send_packet(publisher, &Packet::PingReq);
                world.pass(10_000);
            }),
            _ => drop(again(&mut world, Version::V5, "s")),
        }
        world.settle();
        assert!(world.clients[client].closed);
        world.heard(publisher);
        world.publish(publisher, "t", "x", 1, 1);
        let client = again(&mut world, Version::V5, "s");
        let got: Vec<_> = world.take(client).into_iter().map(|it| it.payload).collect();
        // Who took over was sent it as well, and has not acknowledged it.
        assert_eq!(got, ["x"], "end {end}");
    }
}

#[test]
fn the_bus_stops_and_sessions_go_on_after_it() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribed(client, "t", 1);
    world.sequencer.send(0, Message::Shutdown);
    let told = world.take(client);
    assert_eq!(told[0].reason(), Reason::ServerShuttingDown);
    world.crash(true);
    again(&mut world, Version::V5, "s");
}

#[test]
fn a_clean_start_ends_a_stored_session_and_a_live_one() {
    for version in VERSIONS {
        for live in [false, true] {
            let mut world = World::open();
            let (old, _) = connect(&mut world, version, "s", &[]);
            world.subscribed(old, "t", 1);
            if !live {
                world.hang_up(old);
            }
            let client = arrive(&mut world, version, true, "s", &[]);
            let connack = world.take(client).remove(0);
            assert!(!connack.session_present && world.clients[old].closed);
            let publisher = world.client(Version::V311, "publisher");
            world.publish(publisher, "t", "x", 1, 1);
            assert_eq!(world.take(client), [], "it has no subscriptions");
        }
    }
}

#[test]
fn a_clean_session_of_3_x_ends_with_its_connection() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V311, "s", "t", 1);
    let client = arrive(&mut world, Version::V311, true, "s", &[]);
    world.settle();
    world.hang_up(client);
    let (_, connack) = connect(&mut world, Version::V311, "s", &[]);
    assert!(!connack.session_present);
}

#[test]
fn without_an_expiry_a_session_goes_on_once_more_and_ends() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "t", "x", 1, 1);
    let (client, connack) = connect(&mut world, Version::V5, "s", &[Property::SessionExpiry(0)]);
    assert!(connack.session_present);
    assert_eq!(world.payloads(client), ["x"]);
    world.hang_up(client);
    let (_, connack) = connect(&mut world, Version::V5, "s", &[]);
    assert!(!connack.session_present);
}

#[test]
fn sessions_expire_and_connack_says_when() {
    let limits = Limits { session_expiry_secs_max: 100, ..Limits::default() };
    for version in VERSIONS {
        let mut world = World::new(Setup { limits: limits.clone(), ..Setup::default() });
        let (client, connack) = connect(&mut world, version, "s", &[Property::SessionExpiry(u32::MAX)]);
        assert_eq!(connack.has("SessionExpiry(100)"), version == Version::V5, "{connack:?}");
        world.send(client, &[0xe0, 0]);
        world.settle();
        world.pass(99_000);
        let (client, connack) = connect(&mut world, version, "s", &[Property::SessionExpiry(100)]);
        assert!(connack.session_present || version == Version::V31);
        assert!(!connack.has("SessionExpiry(100)"), "it is what the client asked for");
        for _ in 0..5 {
            world.pass(50_000);
            world.send_packet(client, &Packet::PingReq);
        }
        assert!(!world.clients[client].closed, "while it is connected it does not expire");
        world.send(client, &[0xe0, 0]);
        world.settle();
        world.pass(101_000);
        let (_, connack) = connect(&mut world, version, "s", &[]);
        assert!(!connack.session_present);
    }
}

#[test]
fn disconnect_changes_the_expiry() {
    let leave = |world: &mut World, secs: u32| {
        let (client, _) = connect(world, Version::V5, "s", &[]);
        let mut properties = PropertiesBuf::new();
        properties.push(&Property::SessionExpiry(secs)).unwrap();
        let reason = Reason::Success;
        let disconnect = Disconnect { reason, properties: properties.as_properties() };
        world.send_packet(client, &Packet::Disconnect(disconnect));
        world.settle();
    };
    for (secs, waits_ms, goes_on) in [(0, 0, false), (10, 9_000, true), (10, 11_000, false)] {
        let mut world = World::open();
        leave(&mut world, secs);
        world.pass(waits_ms);
        let (_, connack) = connect(&mut world, Version::V5, "s", &[]);
        assert_eq!(connack.session_present, goes_on, "{secs} s, after {waits_ms} ms");
    }
}

#[test]
fn suback_and_unsuback_wait_until_they_are_saved() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V311, "s", &[]);
    world.state.waits = true;
    world.subscribe(client, &[("a", client::options(1))], &[]);
    world.subscribe(client, &[("b", client::options(1))], &[]);
    assert_eq!(world.take(client), []);
    world.state.waits = false;
    assert_eq!(short(&world.take(client)), ["SubAck 9", "SubAck 9"]);
    world.state.waits = true;
    let unsubscribe = unsubscribe_packet(Version::V311, 7, &["a"]);
    world.send(client, &unsubscribe);
    assert_eq!(world.take(client), []);
    world.crash(false);
    let client = again(&mut world, Version::V311, "s");
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "a", "still", 0, 0);
    world.publish(publisher, "b", "too", 0, 0);
    assert_eq!(world.payloads(client), ["still", "too"]);
    world.send(client, &unsubscribe);
    assert_eq!(short(&world.take(client)), ["UnsubAck 7"]);
    world.crash(true);
    let client = again(&mut world, Version::V311, "s");
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "a", "gone", 0, 0);
    world.publish(publisher, "b", "there", 0, 0);
    assert_eq!(world.payloads(client), ["there"]);
}

#[test]
fn who_reads_no_replies_that_wait_for_the_state_is_closed() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.state.waits = true;
    for _ in 0..300_000 {
        let unsubscribe = unsubscribe_packet(Version::V5, 7, &["a"]);
        world.send(client, &unsubscribe);
        if world.clients[client].session.is_none() {
            return;
        }
        world.exchange(0);
        world.flush(0);
    }
    panic!("it is still there");
}

#[test]
fn options_identifiers_and_cursors_come_back() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    let options = firehose_mqtt::SubscribeOptions { no_local: true, ..client::options(1) };
    world.subscribe(client, &[("t", options)], &[Property::SubscriptionId(7)]);
    world.subscribe(
        client,
        &[("#", client::options(2))],
        &[Property::SubscriptionId(8), Property::UserProperty("firehose-cursor", "on")],
    );
    world.settle();
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "t", "x", 1, 1);
    let mut got = world.take(client).remove(0);
    got.ids.sort();
    assert_eq!((got.qos, &got.ids[..]), (1, &[7, 8][..]));
    assert!(got.user("firehose-cursor").is_some());
    world.publish(client, "t", "mine", 0, 0);
    assert_eq!(world.take(client).remove(0).ids, [8], "its own publication, by the other subscription");
}

#[test]
fn leaving_with_disconnect_is_saved_before_the_next_one_comes() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    let mut bytes = client::subscribe_packet(Version::V5, 9, &[("t", client::options(1))], &[]);
    bytes.extend(bytes_of(
        &Packet::Disconnect(Disconnect {
            reason: Reason::Success,
            properties: firehose_mqtt::Properties::EMPTY,
        }),
        Version::V5,
    ));
    world.send(client, &bytes);
    arrive(&mut world, Version::V5, false, "s", &[]);
    world.settle();
    again(&mut world, Version::V5, "s");
}

#[test]
fn a_session_that_is_away_costs_nothing_per_message() {
    let written_for = |sessions: usize| {
        let mut world = World::open();
        for number in 0..sessions {
            subscribed_and_left(&mut world, VERSIONS[number % 3], &format!("s{number}"), "#", 1);
        }
        let publisher = world.client(Version::V311, "publisher");
        world.pass(5_000);
        world.commit();
        let state = |world: &World| world.disk.bytes(Path::new("/state.redb")).expect("a state");
        let (before, writes) = (state(&world), world.disk.writes());
        for number in 0..1_000 {
            world.publish(publisher, "t", "x", 1, number + 1);
            world.settle();
            world.pass(10);
        }
        assert!(state(&world) == before, "nothing is saved for {sessions} sessions");
        // The shard has nothing of them in memory: it is handed no message.
        let stats = world.stats(0);
        assert_eq!(
            (stats.connections.get(), stats.subscriptions.get(), stats.messages_sent.get()),
            (1, 0, 0)
        );
        assert_eq!(world.clients[publisher].packets.len(), 1_000, "all acknowledged");
        world.disk.writes() - writes
    };
    assert_eq!((written_for(0), written_for(100)), (1_000, 1_000), "the log grows, and nothing else");
}
