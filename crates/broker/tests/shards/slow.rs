//! Readers that do not keep up.

use crate::client::options;
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_mqtt::{PacketKind, Property, Version};
use firehose_topic::TopicFilter;

fn limits() -> Limits {
    Limits {
        outbox_bytes_max: 4_000,
        parked_bytes_max: 16_000,
        replay_chunk_bytes: 4_000,
        ..Limits::default()
    }
}

/// Publishes so many numbers.
fn flood(world: &mut World, publisher: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        world.publish(
            publisher,
            "t",
            &format!("{number} {}", "x".repeat(100)),
            1,
            (number % 60_000) as u16 + 1,
        );
        world.settle();
        let queued = world.shard(0).queued_bytes();
        assert!(queued <= 32_000, "{queued} bytes are queued at {number}");
    }
    world.take(publisher);
}

fn numbers(world: &mut World, client: usize) -> Vec<usize> {
    let got = world.take(client);
    let events = got.iter().filter(|it| it.kind == PacketKind::Publish);
    events.map(|it| it.payload.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn readers_that_stop_and_go_on_get_everything_once_in_order_and_pin_little() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for qos in 0..3 {
            let mut world = World::new(Setup { limits: limits(), ..Setup::default() });
            let publisher = world.client(Version::V311, "p");
            let lively = world.client(version, "lively");
            world.subscribed(lively, "t", 0);
            let slow: Vec<usize> = (0..20)
                .map(|number| {
                    let client = world.client(version, &format!("slow {number}"));
                    world.clients[client].acknowledges = true;
                    world.subscribed(client, "t", qos);
                    world.clients[client].room = 50;
                    client
                })
                .collect();
            flood(&mut world, publisher, 0..1000);
            assert_eq!(numbers(&mut world, lively).len(), 1000, "nobody else notices");
            assert!(world.stats(0).lanes_fallen_back.get() >= 20);
            for client in &slow {
                world.drain_wire(*client, 3_000);
                world.settle();
            }
            flood(&mut world, publisher, 1000..1100);
            world.let_go();
            let all: Vec<usize> = (0..1100).collect();
            for client in slow {
                assert_eq!(numbers(&mut world, client), all);
            }
            assert_eq!((world.shard(0).queued_bytes(), world.stats(0).messages_dropped.get()), (0, 0));
        }
    }
}

#[test]
fn many_clients_with_shut_windows_do_not_keep_the_shard_busy() {
    let mut world = World::new(Setup { limits: limits(), ..Setup::default() });
    let publisher = world.client(Version::V311, "p");
    let readers: Vec<usize> = (0..30)
        .map(|number| {
            let one = Property::ReceiveMaximum(1);
            let client = world.client_with(Version::V5, &format!("r {number}"), &[one]);
            world.subscribed(client, "t", 1);
            client
        })
        .collect();
    // Their wires take everything, and nobody acknowledges: every turn has to come to rest.
    flood(&mut world, publisher, 0..300);
    // The same once their lanes read the log, and what they have read is more than may be parked.
    for id in 1..3 {
        for client in &readers {
            assert_eq!(numbers(&mut world, *client), [usize::from(id) - 1]);
            world.send(*client, &crate::client::ack(firehose_mqtt::Packet::PubAck, id, Version::V5));
        }
        world.settle();
    }
    for client in &readers {
        assert_eq!(numbers(&mut world, *client), [2]);
        world.clients[*client].acknowledges = true;
        world.send(*client, &crate::client::ack(firehose_mqtt::Packet::PubAck, 3, Version::V5));
    }
    world.let_go();
    for client in readers {
        assert_eq!(numbers(&mut world, client), (3..300).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_mailbox_sends_every_lane_to_the_log_and_loses_nothing() {
    let limits = Limits { mailbox_bytes_max: 2_000, ..limits() };
    let mut world = World::new(Setup { limits, shards: 2, ..Setup::default() });
    let clients: Vec<usize> = (0..40).map(|it| world.client(Version::V311, &format!("c {it}"))).collect();
    for client in &clients {
        world.subscribed(*client, "t", 0);
    }
    let publisher = clients[0];
    let busy = world.clients[publisher].host;
    for round in 0..10 {
        for number in round * 50..(round + 1) * 50 {
            world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
            world.exchange(busy);
        }
        // The other shard has not looked at its mailbox all the while.
        world.settle();
        for host in 0..2 {
            assert!(world.shard(host).queued_bytes() <= 32_000);
        }
    }
    assert!(world.stats(1 - busy).mailbox_overflows.get() > 0);
    for client in clients {
        assert_eq!(numbers(&mut world, client), (0..500).collect::<Vec<_>>());
    }
}

#[test]
fn many_lanes_that_fall_back_at_once_read_one_after_the_other() {
    let limits = Limits { mailbox_bytes_max: 2_000, ..limits() };
    let mut world = World::new(Setup { limits, tail_bytes: 0, shards: 2, ..Setup::default() });
    world.disk.set_cold(true);
    let clients: Vec<usize> = (0..100).map(|it| world.client(Version::V311, &format!("c {it}"))).collect();
    for client in &clients {
        world.subscribed(*client, "t", 0);
    }
    world.delays_reads = true;
    let publisher = clients[0];
    let busy = world.clients[publisher].host;
    for number in 0..100 {
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
        world.exchange(busy);
    }
    for _ in 0..100 {
        world.settle();
        let asked = world.questions.iter().filter(|(host, _)| *host != busy).count();
        assert!(asked <= 4, "{asked} at once, of 4,000 bytes each");
        world.answer(0);
    }
    world.let_go();
    for client in clients {
        assert_eq!(numbers(&mut world, client), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn only_what_is_in_no_log_is_dropped_for_a_slow_reader_and_that_is_counted() {
    let unlogged = vec![TopicFilter::new("noise").unwrap()];
    let mut world = World::new(Setup { limits: limits(), unlogged, ..Setup::default() });
    let (publisher, slow) = (world.client(Version::V311, "p"), world.client(Version::V311, "s"));
    world.subscribe(slow, &[("noise", options(0)), ("t", options(0))], &[]);
    world.settle();
    world.clients[slow].room = 0;
    for number in 0..200 {
        world.publish(publisher, "noise", &"x".repeat(100), 0, 0);
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
        world.settle();
    }
    world.let_go();
    let got = world.take(slow);
    let noise = got.iter().filter(|it| it.topic == "noise").count() as u64;
    let logged: Vec<_> = got.iter().filter(|it| it.topic == "t").collect();
    assert_eq!(logged.len(), 200);
    assert!(noise < 200);
    assert_eq!(noise + world.stats(0).messages_dropped.get(), 200);
}

#[test]
fn a_new_subscription_of_a_slow_reader_gets_nothing_from_before_it() {
    let mut world = World::new(Setup { limits: limits(), ..Setup::default() });
    let (publisher, slow) = (world.client(Version::V311, "p"), world.client(Version::V311, "s"));
    world.subscribed(slow, "t", 0);
    world.clients[slow].room = 10;
    for number in 0..200 {
        world.publish(publisher, "other", "before", 0, 0);
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
        world.settle();
    }
    world.subscribe(slow, &[("other", options(0))], &[]);
    world.settle();
    world.publish(publisher, "other", "after", 0, 0);
    world.let_go();
    let got: Vec<_> = world.take(slow).into_iter().filter(|it| it.topic == "other").collect();
    assert_eq!(got.iter().map(|it| it.payload.as_str()).collect::<Vec<_>>(), ["after"]);
}
