//! Filters that make it long for everybody to find who gets a message: those who have them follow the log.

use crate::client::{options, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_mqtt::{PacketKind, Property, Reason, Version};
use firehose_topic::TopicFilter;

const NAME: &str = "a/a/a/a/a/a/a/a/a/a";

/// All filters that have `a` or `+` at each of nine levels, and an end that no name has.
fn forks() -> Vec<String> {
    let level = |number: usize, at: usize| if number >> at & 1 == 1 { "+" } else { "a" };
    (0..1 << 9)
        .map(|number| (0..9).map(|at| level(number, at)).chain(["z"]).collect::<Vec<_>>().join("/"))
        .collect()
}

fn world(limits: Limits) -> World {
    let unlogged = vec![TopicFilter::new("noise/#").expect("a filter")];
    World::new(Setup { limits, unlogged, ..Setup::default() })
}

fn subscribe_to_forks(world: &mut World, clients: &[usize]) {
    for (client, share) in clients.iter().zip(forks().chunks(forks().len().div_ceil(clients.len()))) {
        let filters: Vec<_> = share.iter().map(|filter| (filter.as_str(), options(0))).collect();
        world.subscribe(*client, &filters, &[]);
        world.settle();
        let answer = &world.take(*client)[0];
        assert!(answer.reasons.iter().all(|reason| !reason.is_error()), "{answer:?}");
    }
}

fn publish_all(world: &mut World, publisher: usize, topic: &str, numbers: std::ops::Range<u16>) {
    for number in numbers {
        world.publish(publisher, topic, &number.to_string(), 1, number + 1);
    }
    world.settle();
    world.take(publisher);
}

fn got(world: &mut World, client: usize) -> Vec<String> {
    let events = world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish);
    events.map(|it| it.payload).collect()
}

fn numbers(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn who_has_filters_that_take_long_to_match_follows_the_log_and_nobody_else_does() {
    for version in [Version::V311, Version::V5] {
        for qos in 0..3 {
            let mut world = world(Limits::default());
            let publisher = world.client(Version::V311, "p");
            let plain = world.client(version, "plain");
            world.subscribed(plain, "a/#", qos);
            let forked: Vec<usize> =
                (0..4).map(|number| world.client(version, &format!("forked {number}"))).collect();
            subscribe_to_forks(&mut world, &forked);
            for client in forked.iter().chain([&plain]) {
                world.clients[*client].acknowledges = true;
            }
            world.subscribed(forked[0], "a/a/#", qos);
            publish_all(&mut world, publisher, "a/b", 0..10);
            assert_eq!(world.stats(0).sessions_set_aside.get(), 0, "no walk was long");
            publish_all(&mut world, publisher, NAME, 10..200);
            assert_eq!(world.stats(0).sessions_set_aside.get(), 4);
            assert_eq!(world.payloads(plain), numbers(0..200));
            assert_eq!(world.payloads(forked[0]), numbers(10..200), "version {version:?}, QoS {qos}");
            assert_eq!(world.payloads(forked[1]), [""; 0]);
        }
    }
}

#[test]
fn a_follower_subscribes_unsubscribes_and_gets_what_is_in_no_log() {
    let mut world = world(Limits { match_steps_max: 0, ..Limits::default() });
    let (publisher, reader) = (world.client(Version::V311, "p"), world.client(Version::V5, "r"));
    world.subscribed(reader, "t/#", 1);
    world.subscribed(reader, "+/+/+", 1);
    world.clients[reader].acknowledges = true;
    publish_all(&mut world, publisher, "t", 0..1);
    assert_eq!(world.stats(0).sessions_set_aside.get(), 1);
    world.subscribed(reader, "noise/#", 1);
    publish_all(&mut world, publisher, "noise/x", 1..3);
    publish_all(&mut world, publisher, "t/x", 3..5);
    assert_eq!(world.payloads(reader), numbers(0..5));
    let bytes = unsubscribe_packet(Version::V5, 7, &["t/#"]);
    world.send(reader, &bytes);
    world.settle();
    world.take(reader);
    publish_all(&mut world, publisher, "t/x", 5..7);
    publish_all(&mut world, publisher, "t/x/y", 7..9);
    assert_eq!(world.payloads(reader), numbers(7..9));
    world.hang_up(reader);
    world.settle();
    let again = world.client(Version::V5, "r");
    world.subscribed(again, "t/#", 0);
    publish_all(&mut world, publisher, "t/x", 9..11);
    assert_eq!(world.payloads(again), numbers(9..11));
    assert_eq!(world.stats(0).sessions_set_aside.get(), 1, "it is another session");
}

#[test]
fn a_follower_replays_and_goes_on_with_one_lane() {
    let mut world = world(Limits { match_steps_max: 0, replays_max: 1, ..Limits::default() });
    let (publisher, reader) = (world.client(Version::V311, "p"), world.client(Version::V5, "r"));
    publish_all(&mut world, publisher, "t/x", 0..5);
    world.subscribed(reader, "+/+/+", 0);
    publish_all(&mut world, publisher, "u/v/w", 5..6);
    world.subscribe(reader, &[("$replay/earliest/t/#", options(0))], &[]);
    world.settle();
    publish_all(&mut world, publisher, "t/x", 6..9);
    assert_eq!(got(&mut world, reader), ["5", "0", "1", "2", "3", "4", "6", "7", "8"]);
    world.subscribe(reader, &[("t/x", options(0))], &[Property::UserProperty("since", "earliest")]);
    world.settle();
    assert_eq!(got(&mut world, reader), ["0", "1", "2", "3", "4", "6", "7", "8"]);
    publish_all(&mut world, publisher, "t/x", 9..10);
    assert_eq!(world.payloads(reader), ["9"], "overlapping subscriptions of one lane are one copy");
}

#[test]
fn a_follower_that_reads_slowly_or_whose_shard_missed_something_gets_everything_once_in_order() {
    let limits = Limits {
        match_steps_max: 0,
        outbox_bytes_max: 400,
        mailbox_bytes_max: 600,
        replay_chunk_bytes: 300,
        ..Limits::default()
    };
    let mut world = world(limits);
    let (publisher, reader) = (world.client(Version::V311, "p"), world.client(Version::V5, "r"));
    world.subscribed(reader, "+/+/+", 1);
    world.subscribed(reader, "t/#", 1);
    world.clients[reader].acknowledges = true;
    publish_all(&mut world, publisher, "t", 0..1);
    world.clients[reader].room = 50;
    for number in 1..100 {
        world.publish(publisher, "t", &number.to_string(), 1, number + 1);
        if number % 7 == 0 {
            world.settle();
        }
    }
    world.let_go();
    assert_eq!(world.payloads(reader), numbers(0..100));
    assert_eq!(world.subscribed(reader, "t/x", 0), Reason::Success);
}

#[test]
fn who_has_few_filters_misses_nothing_that_is_in_no_log_whatever_other_followers_have() {
    let mut world = world(Limits { match_steps_max: 0, ..Limits::default() });
    let publisher = world.client(Version::V311, "p");
    let greedy: Vec<usize> =
        (0..4).map(|number| world.client(Version::V5, &format!("greedy {number}"))).collect();
    for client in &greedy {
        subscribe_to_forks(&mut world, &[*client]);
    }
    // Who comes later is looked at later.
    publish_all(&mut world, publisher, "t", 0..1);
    let modest = world.client(Version::V5, "modest");
    world.subscribed(modest, "+/+/+/#", 0);
    publish_all(&mut world, publisher, "t", 1..2);
    assert_eq!(world.stats(0).sessions_set_aside.get(), 5);
    publish_all(&mut world, publisher, "noise/a/b", 2..4);
    assert_eq!(world.payloads(modest), numbers(2..4));
}

#[test]
fn what_one_long_walk_takes_out_of_the_trie_is_bounded_by_bytes() {
    let mut world = world(Limits { match_steps_max: 0, ..Limits::default() });
    let publisher = world.client(Version::V311, "p");
    for number in 0..8 {
        let client = world.client(Version::V5, &format!("deep {number}"));
        let filter = format!("x/{}#", "y/".repeat(7_000));
        assert!(!world.subscribed(client, &filter, 0).is_error());
    }
    publish_all(&mut world, publisher, "t", 0..1);
    assert_eq!(world.stats(0).sessions_set_aside.get(), 3);
    publish_all(&mut world, publisher, "t", 1..2);
    publish_all(&mut world, publisher, "t", 2..3);
    assert_eq!(world.stats(0).sessions_set_aside.get(), 8);
}

#[test]
fn those_for_whom_it_takes_long_to_look_at_the_log_do_so_one_after_the_other() {
    let mut world = world(Limits::default());
    let publisher = world.client(Version::V311, "p");
    let forked: Vec<usize> =
        (0..4).map(|number| world.client(Version::V5, &format!("forked {number}"))).collect();
    for client in &forked {
        subscribe_to_forks(&mut world, &[*client]);
    }
    let modest: Vec<usize> =
        (0..3).map(|number| world.client(Version::V5, &format!("modest {number}"))).collect();
    for client in forked.iter().chain(&modest) {
        world.subscribed(*client, "a/+/+/+/#", 0);
    }
    publish_all(&mut world, publisher, NAME, 0..1);
    assert_eq!(world.stats(0).sessions_set_aside.get(), 7);
    publish_all(&mut world, publisher, NAME, 1..2);
    world.delays_reads = true;
    publish_all(&mut world, publisher, NAME, 2..4);
    assert_eq!(world.questions.len(), modest.len() + 1, "one of the others has its turn");
    for _ in 0..modest.len() + forked.len() {
        world.answer(0);
        world.settle();
    }
    assert_eq!(world.questions.len(), 0);
    for client in forked.iter().chain(&modest) {
        assert_eq!(world.payloads(*client), numbers(0..4));
    }
}
