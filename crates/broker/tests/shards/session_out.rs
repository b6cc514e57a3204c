//! What is on its way to a client of a session: sent again after a loss, QoS 2 exactly once.

use crate::client::{self, publish};
use crate::session::{VERSIONS, again, connect, short};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Packet, PacketKind, Property, Version};
use firehose_topic::TopicFilter;

/// A client that subscribes to everything and acknowledges nothing, and one that publishes.
fn reader(world: &mut World, version: Version, qos: u8) -> (usize, usize) {
    let (client, _) = connect(world, version, "s", &[]);
    assert!(!world.subscribed(client, "#", qos).is_error());
    (client, world.client(Version::V311, "publisher"))
}

fn send_ack(
    world: &mut World,
    client: usize,
    make: fn(firehose_mqtt::Ack<'static>) -> Packet<'static>,
    id: u16,
) {
    let bytes = client::ack(make, id, world.clients[client].version);
    world.send(client, &bytes);
    world.settle();
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order_before_anything_new() {
    for version in VERSIONS {
        for crash in [None, Some(false), Some(true)] {
            let mut world = World::open();
            let (client, publisher) = reader(&mut world, version, 2);
            for (id, (payload, qos)) in (1..).zip([("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1)]) {
                world.publish(publisher, "t", payload, qos, id);
            }
            assert_eq!(short(&world.take(client)), ["1 1a", "2 2b", "1 3c", "2 4d", "1 5e"]);
            send_ack(&mut world, client, Packet::PubRec, 2);
            send_ack(&mut world, client, Packet::PubAck, 3);
            assert_eq!(short(&world.take(client)), ["PubRel 2"]);
            match crash {
                Some(power) => {
                    world.pass(1_000);
                    world.crash(power);
                }
                None => world.hang_up(client),
            }
            let publisher = world.client(Version::V311, "publisher");
            world.publish(publisher, "t", "new", 1, 2);
            let client = again(&mut world, version, "s");
            let got = short(&world.take(client));
            assert_eq!(got, ["1+ 1a", "PubRel 2", "2+ 4d", "1+ 5e", "1 6new"], "{version:?} {crash:?}");
            for (make, id) in [(Packet::PubAck as fn(_) -> _, 1), (Packet::PubComp, 2), (Packet::PubRec, 4)] {
                send_ack(&mut world, client, make, id);
            }
            assert_eq!(short(&world.take(client)), ["PubRel 4"]);
        }
    }
}

#[test]
fn a_qos_2_message_leaves_once_it_is_saved_and_nothing_overtakes_it() {
    let mut world = World::open();
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    world.state.waits = true;
    for (id, (payload, qos)) in (1..).zip([("0", 0), ("a", 1), ("b", 2), ("c", 0), ("d", 1), ("e", 2)]) {
        world.publish(publisher, "t", payload, qos, id);
    }
    assert_eq!(short(&world.take(client)), ["0 00", "1 1a"]);
    world.state.waits = false;
    assert_eq!(short(&world.take(client)), ["2 2b", "0 0c", "1 3d", "2 4e"]);
    world.state.waits = true;
    send_ack(&mut world, client, Packet::PubRec, 2);
    assert_eq!(world.take(client), [], "PUBREL waits until it is saved that it was received");
    world.state.waits = false;
    assert_eq!(short(&world.take(client)), ["PubRel 2"]);
    send_ack(&mut world, client, Packet::PubRec, 2);
    assert_eq!(short(&world.take(client)), ["PubRel 2"]);
}

#[test]
fn a_crash_before_a_qos_2_message_was_saved_or_sent_does_not_double_it() {
    for saved in [false, true] {
        let mut world = World::open();
        let (client, publisher) = reader(&mut world, Version::V5, 2);
        world.state.waits = !saved;
        world.clients[client].room = 0;
        world.publish(publisher, "t", "a", 2, 1);
        world.settle();
        world.crash(false);
        let client = again(&mut world, Version::V5, "s");
        let expected = if saved { "2+ 1a" } else { "2 1a" };
        assert_eq!(short(&world.take(client)), [expected]);
        send_ack(&mut world, client, Packet::PubRec, 1);
        send_ack(&mut world, client, Packet::PubComp, 1);
        world.pass(1_000);
        world.crash(false);
        let client = again(&mut world, Version::V5, "s");
        assert_eq!(world.take(client), []);
    }
}

#[test]
fn qos_1_does_not_wait_for_the_state_and_is_saved_each_second() {
    let mut world = World::open();
    let (client, publisher) = reader(&mut world, Version::V5, 1);
    world.clients[client].acknowledges = true;
    world.state.waits = true;
    world.publish(publisher, "t", "a", 1, 1);
    assert_eq!(short(&world.take(client)), ["1 1a"]);
    world.state.waits = false;
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(short(&world.take(client)), ["1 1a"], "a crash may double it");
    send_ack(&mut world, client, Packet::PubAck, 1);
    world.pass(1_000);
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(world.take(client), []);
}

#[test]
fn a_smaller_receive_maximum_is_kept_when_things_are_sent_again() {
    let mut world = World::open();
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    for (id, (payload, qos)) in (1..).zip([("a", 1), ("b", 2), ("c", 2), ("d", 1)]) {
        world.publish(publisher, "t", payload, qos, id);
    }
    world.settle();
    world.hang_up(client);
    world.publish(publisher, "t", "new", 1, 1);
    let (client, _) = connect(&mut world, Version::V5, "s", &[Property::ReceiveMaximum(1)]);
    assert_eq!(short(&world.take(client)), ["1+ 1a"]);
    send_ack(&mut world, client, Packet::PubAck, 1);
    assert_eq!(short(&world.take(client)), ["2+ 2b"]);
    send_ack(&mut world, client, Packet::PubRec, 2);
    assert_eq!(short(&world.take(client)), ["PubRel 2"]);
    send_ack(&mut world, client, Packet::PubComp, 2);
    assert_eq!(short(&world.take(client)), ["2+ 3c"]);
    send_ack(&mut world, client, Packet::PubRec, 3);
    send_ack(&mut world, client, Packet::PubComp, 3);
    assert_eq!(short(&world.take(client)), ["PubRel 3", "1+ 4d"]);
    send_ack(&mut world, client, Packet::PubAck, 4);
    assert_eq!(short(&world.take(client)), ["1 5new"]);
}

#[test]
fn many_messages_come_again_page_by_page_at_the_pace_of_the_socket() {
    let limits = Limits { replay_chunk_bytes: 2_000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    let payload = "x".repeat(500);
    for number in 0..300u16 {
        world.publish(publisher, "t", &format!("{number} {payload}"), 1 + (number % 2) as u8, number + 1);
    }
    world.settle();
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    world.hang_up(client);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.heard(client);
    world.hang_up(client);
    // This one takes little at a time.
    let client = crate::session::arrive(&mut world, Version::V5, false, "s", &[]);
    world.clients[client].room = 100;
    world.settle();
    let mut got = Vec::new();
    for _ in 0..2_000 {
        let queued = world.shard(0).queued_bytes();
        assert!(queued < 40_000, "{queued} bytes");
        world.drain_wire(client, 300);
        got.extend(world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish));
    }
    let numbers: Vec<String> =
        got.iter().map(|it| it.payload.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(numbers, (0..300).map(|number: u16| number.to_string()).collect::<Vec<_>>());
    assert!(got.iter().all(|it| it.dup));
    assert!(got.iter().zip(1..).all(|(it, id)| it.id == id));
}

#[test]
fn what_is_gone_is_not_sent_again_and_its_id_gets_free() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    for version in [Version::V311, Version::V5] {
        let mut world = World::new(setup.clone());
        let (client, publisher) = reader(&mut world, version, 2);
        world.publish(publisher, "t", "a", 1, 1);
        world.publish(publisher, "t", "b", 2, 1);
        world.settle();
        let unsubscribe = client::unsubscribe_packet(version, 7, &["#"]);
        world.send(client, &unsubscribe);
        world.settle();
        world.hang_up(client);
        for _ in 0..50 {
            world.publish(publisher, "t", &"x".repeat(1_000), 0, 0);
            world.settle();
        }
        world.commit();
        world.upkeep_keeping_nothing();
        let client = again(&mut world, version, "s");
        assert_eq!(short(&world.take(client)), ["PubRel 2"]);
        assert_eq!(world.stats(0).messages_dropped.get(), 2);
        send_ack(&mut world, client, Packet::PubComp, 2);
        world.hang_up(client);
        let client = again(&mut world, version, "s");
        assert_eq!(world.take(client), []);
    }
}

#[test]
fn what_is_in_no_log_is_not_sent_again() {
    let unlogged = vec![TopicFilter::new("live/#").unwrap()];
    let mut world = World::new(Setup { unlogged, ..Setup::default() });
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    world.publish(publisher, "live/a", "a", 1, 1);
    world.publish(publisher, "live/a", "b", 2, 1);
    assert_eq!(short(&world.take(client)), ["1 1a", "2 2b"]);
    world.hang_up(client);
    world.publish(publisher, "live/a", "away", 1, 1);
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(short(&world.take(client)), ["PubRel 2"]);
}

#[test]
fn a_message_that_is_sent_again_is_as_the_subscriptions_and_the_client_are_now() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribe(client, &[("t", client::options(1))], &[Property::SubscriptionId(7)]);
    let publisher = world.client(Version::V5, "publisher");
    let mut packet = publish("t", "small", 1, 1);
    let properties = client::properties(&[Property::MessageExpiry(100)]);
    packet.properties = properties.as_properties();
    world.send_packet(publisher, &Packet::Publish(packet));
    let large = "x".repeat(1_000);
    world.publish(publisher, "t", &large, 1, 2);
    world.settle();
    world.subscribe(client, &[("t", client::options(1))], &[Property::SubscriptionId(8)]);
    world.settle();
    world.hang_up(client);
    world.pass(40_000);
    let (client, _) = connect(&mut world, Version::V5, "s", &[Property::MaximumPacketSize(200)]);
    let got = world.take(client);
    assert_eq!(short(&got), ["1+ 1small"], "the other is too large for it now, and counts as through");
    assert_eq!(got[0].ids, [8]);
    assert!(got[0].has("MessageExpiry(60)"), "{got:?}");
    world.hang_up(client);
    world.pass(100_000);
    let client = again(&mut world, Version::V311, "s");
    assert_eq!(short(&world.take(client)), ["1+ 1small"], "its delivery had begun before it expired");
}

#[test]
fn what_may_not_be_read_any_more_is_not_sent_again() {
    let acl = Some("topic readwrite #\n");
    let mut world = World::new(Setup { acl, ..Setup::default() });
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    world.publish(publisher, "open", "a", 1, 1);
    world.publish(publisher, "secret", "b", 1, 2);
    world.publish(publisher, "secret", "c", 2, 3);
    world.settle();
    world.hang_up(client);
    world.reload_acl("topic readwrite #\ntopic deny secret\n");
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(short(&world.take(client)), ["1+ 1a", "PubRel 3"]);
}

#[test]
fn a_full_outbox_loses_and_doubles_nothing_of_qos_2() {
    let limits = Limits { outbox_bytes_max: 5_000, parked_bytes_max: 5_000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let (client, publisher) = reader(&mut world, Version::V5, 2);
    world.clients[client].room = 1_000;
    world.clients[client].acknowledges = true;
    let mut expected = Vec::new();
    for number in 0..100u16 {
        let payload = format!("{number} {}", "x".repeat(200));
        world.publish(publisher, "t", &payload, 2, number + 1);
        world.settle();
        expected.push(payload);
    }
    let mut got = Vec::new();
    for _ in 0..500 {
        world.drain_wire(client, 400);
        let packets = world.take(client).into_iter();
        got.extend(packets.filter(|it| it.kind == PacketKind::Publish && !it.dup).map(|it| it.payload));
    }
    world.let_go();
    let rest = world.take(client).into_iter();
    got.extend(rest.filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload));
    assert_eq!(got.len(), 100);
    assert_eq!(got, expected);
}

#[test]
fn what_was_taken_back_is_not_sent_whether_it_waits_for_the_state_the_log_or_the_client() {
    for place in 0..4 {
        let mut world = World::open();
        let (client, publisher) = reader(&mut world, Version::V5, 2);
        world.publish(publisher, "t", "a", 2, 1);
        world.publish(publisher, "t", "b", 2, 2);
        let client = match place {
            // Waits for the state.
            0 => {
                world.state.waits = true;
                world.settle();
                client
            }
            // Was sent, is not acknowledged.
            1 => {
                world.settle();
                world.hang_up(client);
                world.heard(client);
                client
            }
            // The log was asked for it.
            2 => {
                world.settle();
                world.hang_up(client);
                world.delays_reads = true;
                let client = again(&mut world, Version::V5, "s");
                assert_eq!(world.questions.len(), 1);
                client
            }
            // Waits for the socket.
            _ => {
                world.settle();
                world.hang_up(client);
                let client = crate::session::arrive(&mut world, Version::V5, false, "s", &[]);
                world.clients[client].room = 1;
                world.settle();
                client
            }
        };
        world.commit();
        let redacted = world.commit.redact(1, world.now.wall_us).expect("redacts");
        world.sequencer.send(0, Message::Redacted { offset: redacted.offset, seen: None });
        world.settle();
        world.delays_reads = false;
        world.state.waits = false;
        world.drain_wire(client, usize::MAX);
        world.let_go();
        let client = if place == 1 { again(&mut world, Version::V5, "s") } else { client };
        let mut got = world.take(client);
        got.retain(|it| it.kind != PacketKind::ConnAck);
        let payloads: Vec<&str> =
            got.iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload.as_str()).collect();
        assert_eq!(payloads, ["b"], "{place}: {got:?}");
        assert!(got.iter().any(|it| it.kind == PacketKind::PubRel && it.id == 1), "its id gets free");
    }
}

/// Found by the simulation: it named only the subscription of QoS 0.
#[test]
fn a_message_that_is_begun_and_not_out_names_the_subscription_that_ended_meanwhile() {
    let limits = Limits { parked_bytes_max: 1, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    for (filter, qos, id) in [("#", 2, 1), ("t", 0, 2)] {
        world.subscribe(client, &[(filter, client::options(qos))], &[Property::SubscriptionId(id)]);
    }
    world.take(client);
    let publisher = world.client(Version::V5, "publisher");
    world.clients[client].room = 0;
    world.publish(publisher, "t", "a", 2, 1);
    world.settle();
    let unsubscribe = client::unsubscribe_packet(Version::V5, 7, &["#"]);
    world.send(client, &unsubscribe);
    world.settle();
    world.publish(publisher, "t", "b", 2, 2);
    world.settle();
    world.drain_wire(client, usize::MAX);
    let got = world.take(client);
    let got: Vec<_> = got.iter().filter(|it| it.kind == PacketKind::Publish).collect();
    let ids = |at: usize| {
        let mut ids = got[at].ids.clone();
        ids.sort_unstable();
        (got[at].payload.as_str(), got[at].qos, ids)
    };
    assert_eq!([ids(0), ids(1)], [("a", 2, vec![1, 2]), ("b", 0, vec![2])]);
}

#[test]
fn what_retention_deleted_on_its_way_is_declared_until_a_message_with_that_is_through() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    for version in [Version::V311, Version::V5] {
        let mut world = World::new(setup.clone());
        let (client, _) = connect(&mut world, version, "s", &[]);
        world.subscribed(client, "t", 2);
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "t", "a", 1, 1);
        world.publish(publisher, "t", "b", 2, 1);
        world.settle();
        for number in 0..50 {
            if number == 49 {
                world.pass(1_000);
                world.hang_up(client);
            }
            world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
            world.settle();
        }
        world.commit();
        world.upkeep_keeping_nothing();
        world.publish(publisher, "t", "new", 1, 2);
        let (client, connack) = connect(&mut world, version, "s", &[]);
        assert_eq!(connack.session_present, version == Version::V5, "3.x is told by a new session");
        if version != Version::V5 {
            assert_eq!(world.take(client), []);
            continue;
        }
        let got = world.take(client);
        assert_eq!(short(&got), ["PubRel 2", "1 3new"]);
        let why = "1..2 deleted by retention while it was on its way";
        assert_eq!(got[1].user("firehose-gap"), Some(why));
        // Told again with what tells it, also after a crash, until that is acknowledged.
        world.pass(1_000);
        world.crash(false);
        let client = again(&mut world, version, "s");
        let got = world.take(client);
        assert_eq!(short(&got), ["PubRel 2", "1+ 3new"]);
        assert_eq!(got[1].user("firehose-gap"), Some(why));
        send_ack(&mut world, client, Packet::PubAck, 3);
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "t", "newer", 1, 1);
        let got = world.take(client);
        assert_eq!((short(&got), got[0].user("firehose-gap")), (vec!["1 4newer".to_owned()], None));
    }
}

/// Found by the simulation: the client drops a QoS 2 message that it has already.
#[test]
fn a_gap_is_not_told_by_a_qos_2_message_alone_that_is_sent_again() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    let mut world = World::new(setup);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribed(client, "t", 2);
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "t", "gone", 1, 1);
    for _ in 0..50 {
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    world.commit();
    world.upkeep_keeping_nothing();
    world.publish(publisher, "t", "a", 2, 2);
    world.settle();
    world.hang_up(client);
    world.publish(publisher, "t", "new", 1, 3);
    let client = again(&mut world, Version::V5, "s");
    let got = world.take(client);
    assert_eq!(short(&got), ["2+ 2a", "1 3new"]);
    for it in &got {
        assert!(it.user("firehose-gap").is_some_and(|gap| gap.starts_with("1..1 ")), "{it:?}");
    }
}
