//! Events that are taken back while they are queued.

use crate::world::{Setup, World};
use firehose_broker::message::Message;
use firehose_mqtt::{PacketKind, Version};

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
            world.sequencer.send(0, Message::Redacted { offset: 5 });
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
    world.sequencer.send(0, Message::Redacted { offset: 2 });
    world.settle();
    assert_eq!(world.stats(0).lanes_fallen_back.get(), 0);
    world.let_go();
    assert_eq!(world.payloads(other), ["x"]);
}
