//! Events that are taken back while they are queued.

use crate::client::{options, publish};
use crate::world::{Setup, World};
use firehose_broker::message::Message;
use firehose_broker::shard::Action;
use firehose_log::Wait;
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Version};

#[test]
fn of_what_is_queued_for_a_stopped_reader_only_the_redacted_event_is_missing() {
    for version in [Version::V311, Version::V5] {
        for qos in 0..3 {
            let mut world = World::new(Setup::default());
            let (publisher, slow) = (world.client(Version::V311, "p"), world.client(version, "s"));
            world.clients[slow].acknowledges = true;
            world.subscribed(slow, "t", qos);
            world.clients[slow].room = 0;
            for number in 1..=9u16 {
                world.publish(publisher, "t", &number.to_string(), 1, number);
                world.settle();
            }
            world.commit();
            // The first one queued may be half out; a later one was not begun.
            let redacted = world.commit.redact(5, world.now.wall_us).expect("redacts");
            assert_eq!(redacted.offset, 5);
            world.sequencer.send(0, Message::Redacted { offset: 5, seen: None });
            world.settle();
            assert!(!world.shard(0).is_idle() || world.stats(0).lanes_fallen_back.get() == 1);
            world.publish(publisher, "t", "10", 1, 10);
            world.settle();
            world.let_go();
            let got = world.take(slow);
            let got = got.iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload.as_str());
            assert_eq!(got.collect::<Vec<_>>(), ["1", "2", "3", "4", "6", "7", "8", "9", "10"]);
            assert_eq!(world.stats(0).messages_dropped.get(), 0);
        }
    }
}

#[test]
fn nobody_who_does_not_queue_the_event_notices_its_redaction() {
    let mut world = World::new(Setup::default());
    let (publisher, other) = (world.client(Version::V311, "p"), world.client(Version::V311, "o"));
    world.subscribed(other, "u", 0);
    world.clients[other].room = 0;
    for number in 1..=3 {
        world.publish(publisher, "t", "secret", 1, number);
    }
    world.publish(publisher, "u", "x", 1, 4);
    world.settle();
    world.commit();
    world.commit.redact(2, world.now.wall_us).expect("redacts");
    world.sequencer.send(0, Message::Redacted { offset: 2, seen: None });
    world.settle();
    assert_eq!(world.stats(0).lanes_fallen_back.get(), 0);
    world.let_go();
    assert_eq!(world.payloads(other), ["x"]);
}

#[test]
fn what_was_read_before_the_redaction_and_comes_after_it_lacks_the_event() {
    let mut world = World::new(Setup::default());
    let publisher = world.client(Version::V311, "p");
    for number in 1..=5u16 {
        world.publish(publisher, "t", &number.to_string(), 1, number);
    }
    world.settle();
    world.commit();
    let reader = world.client(Version::V5, "r");
    world.delays_reads = true;
    world.subscribe(reader, &[("$replay/earliest/t", options(0))], &[]);
    world.settle();
    while !matches!(world.questions.front(), Some((_, Action::Read { .. }))) {
        world.answer(0);
        world.settle();
    }
    let Some((host, Action::Read { lane, from, upto, bytes_max })) = world.questions.pop_front() else {
        panic!("a read")
    };
    let stale = Message::Read { lane, chunk: world.read.read(from, upto, bytes_max, Wait::Yes) };
    world.commit.redact(3, world.now.wall_us).expect("redacts");
    world.sequencer.send(0, Message::Redacted { offset: 3, seen: None });
    world.settle();
    world.sequencer.send(host, stale);
    world.delays_reads = false;
    world.settle();
    let got = world.take(reader);
    let got = got.iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload.as_str());
    assert_eq!(got.collect::<Vec<_>>(), ["1", "2", "4", "5"]);
}

#[test]
fn who_was_being_sent_it_by_a_topic_alias_loses_the_connection_and_never_gets_it() {
    let mut world = World::new(Setup::default());
    let publisher = world.client(Version::V311, "p");
    let reader = world.client_with(Version::V5, "r", &[Property::TopicAliasMaximum(4)]);
    let other = world.client_with(Version::V5, "o", &[Property::TopicAliasMaximum(4)]);
    for (client, filter) in [(reader, "t"), (other, "u")] {
        world.subscribed(client, filter, 0);
        world.take(client);
    }
    for client in [reader, other] {
        world.clients[client].room = 0;
    }
    for number in 1..=3u16 {
        world.publish(publisher, "t", &number.to_string(), 1, number);
        world.publish(publisher, "u", &number.to_string(), 1, number + 10);
    }
    world.settle();
    world.commit();
    world.commit.redact(3, world.now.wall_us).expect("redacts");
    world.sequencer.send(0, Message::Redacted { offset: 3, seen: None });
    world.settle();
    world.let_go();
    let got = world.take(reader);
    assert!(!got.iter().any(|it| it.payload == "2"), "{got:?}");
    assert!(world.clients[reader].closed);
    assert_eq!(world.payloads(other), ["1", "2", "3"]);
}

/// A page of retained messages lies in the order of their topics, whatever their places in the log.
#[test]
fn a_retained_message_that_is_queued_is_found_wherever_it_stands_in_its_page() {
    for redacted in 1..=3u64 {
        let mut world = World::new(Setup::default());
        let publisher = world.client(Version::V311, "p");
        for (topic, payload) in [("t/c", "1"), ("t/a", "2"), ("t/b", "3")] {
            let packet = Publish { retain: true, ..publish(topic, payload, 1, 77) };
            world.send_packet(publisher, &Packet::Publish(packet));
            world.settle();
        }
        let reader = world.client(Version::V311, "r");
        const SUBACK_BYTES: usize = 5;
        world.clients[reader].room = SUBACK_BYTES;
        world.subscribe(reader, &[("t/#", options(0))], &[]);
        world.settle();
        world.commit();
        world.commit.redact(redacted, world.now.wall_us).expect("redacts");
        world.state.state.queue().redact(redacted, Box::new(|outcome| outcome.expect("rewrites")));
        world.settle();
        world.sequencer.send(0, Message::Redacted { offset: redacted, seen: None });
        world.settle();
        world.let_go();
        let got = world.take(reader);
        let got = got.iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload.as_str());
        let expected = ["2", "3", "1"].into_iter().filter(|payload| *payload != redacted.to_string());
        assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
