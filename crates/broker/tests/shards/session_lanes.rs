//! Lanes of sessions that go on: main, `since`, `$replay`, and the retention that overtakes them.

use crate::client::options;
use crate::session::{again, connect, short, subscribed_and_left};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::shard::Action;
use firehose_mqtt::{Packet, Property, Version};

fn publish_numbers(world: &mut World, topic: &str, numbers: std::ops::Range<u16>) {
    let publisher = world.client(Version::V311, "publisher");
    for number in numbers {
        // Each in a batch of its own: chunks are of whole batches.
        world.publish(publisher, topic, &number.to_string(), 1, number + 1);
        world.settle();
    }
}

fn numbers(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_replay_that_was_cut_off_goes_on_where_it_was() {
    for (version, filter, since) in [
        (Version::V311, "$replay/earliest/t", None),
        (Version::V5, "t", Some(Property::UserProperty("since", "earliest"))),
    ] {
        for crash in [false, true] {
            let limits = Limits { replay_chunk_bytes: 200, ..Limits::default() };
            let mut world = World::new(Setup { limits, ..Setup::default() });
            publish_numbers(&mut world, "t", 0..100);
            let (client, _) = connect(&mut world, version, "s", &[]);
            world.clients[client].acknowledges = true;
            world.clients[client].room = 300;
            world.subscribe(client, &[(filter, options(1))], since.as_slice());
            world.settle();
            world.pass(1_000);
            let before: Vec<String> =
                world.heard(client).into_iter().filter(|it| it.qos == 1).map(|it| it.payload).collect();
            assert!(!before.is_empty() && before.len() < 90, "{} came", before.len());
            match crash {
                true => world.crash(true),
                false => world.hang_up(client),
            }
            publish_numbers(&mut world, "t", 100..105);
            let client = again(&mut world, version, "s");
            world.clients[client].acknowledges = true;
            let mut after: Vec<String> = world.take(client).into_iter().map(|it| it.payload).collect();
            // What was on its way comes again; a crash may double a little more of QoS 1.
            let doubled = after.iter().take_while(|it| before.contains(it)).count();
            after.drain(..doubled);
            let all: Vec<String> = before.into_iter().chain(after).collect();
            assert_eq!(all, numbers(0..105), "{version:?} crash {crash}");
            publish_numbers(&mut world, "t", 105..106);
            assert_eq!(world.payloads(client), ["105"], "it is live");
        }
    }
}

#[test]
fn each_lane_goes_on_from_its_own_place() {
    let mut world = World::open();
    publish_numbers(&mut world, "a", 0..3);
    let (client, _) = connect(&mut world, Version::V311, "s", &[]);
    world.clients[client].acknowledges = true;
    world.clients[client].holds_acks = true;
    world.subscribed(client, "b", 1);
    world.delays_reads = true;
    world.subscribe(client, &[("$replay/earliest/a", options(1))], &[]);
    publish_numbers(&mut world, "b", 3..5);
    // The main lane has delivered, the replay has not begun.
    world.answer(0);
    world.settle();
    world.release_acks(client, usize::MAX);
    world.settle();
    world.hang_up(client);
    world.delays_reads = false;
    publish_numbers(&mut world, "b", 5..6);
    publish_numbers(&mut world, "a", 6..7);
    let client = again(&mut world, Version::V311, "s");
    let mut got = world.payloads(client);
    got.sort();
    assert_eq!(got, ["0", "1", "2", "5", "6"]);
}

#[test]
fn a_session_of_3_x_that_was_overtaken_is_a_new_one_and_5_0_is_told_the_gap() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    for (left, comes) in
        [(Version::V311, Version::V311), (Version::V5, Version::V5), (Version::V5, Version::V311)]
    {
        let mut world = World::new(setup.clone());
        subscribed_and_left(&mut world, left, "s", "t", 1);
        for _ in 0..50 {
            let publisher = world.client(Version::V311, "publisher");
            world.publish(publisher, "t", &"x".repeat(1_000), 0, 0);
            world.settle();
        }
        world.commit();
        world.upkeep_keeping_nothing();
        let (client, connack) = connect(&mut world, comes, "s", &[]);
        assert_eq!(connack.session_present, comes == Version::V5);
        let got = world.take(client);
        match comes {
            Version::V5 => {
                let gap = got[0].user("firehose-gap").expect("a gap");
                assert!(gap.starts_with("1.."), "{gap}");
                assert!(got[1..].iter().all(|it| it.user("firehose-gap").is_none()));
            }
            _ => {
                assert_eq!(got, []);
                publish_numbers(&mut world, "t", 0..1);
                assert_eq!(world.take(client), [], "it has no subscriptions");
                world.hang_up(client);
                let (_, connack) = connect(&mut world, comes, "s", &[]);
                assert!(connack.session_present, "the new one");
            }
        }
    }
}

#[test]
fn a_gap_that_was_not_told_is_told_when_the_session_goes_on() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    let mut world = World::new(setup);
    subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
    for _ in 0..50 {
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    world.commit();
    world.upkeep_keeping_nothing();
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(world.take(client), [], "nothing that it could be told with");
    world.hang_up(client);
    world.crash(true);
    publish_numbers(&mut world, "t", 0..2);
    let client = again(&mut world, Version::V5, "s");
    let got = world.take(client);
    assert!(got[0].user("firehose-gap").is_some(), "{got:?}");
    assert!(got[1].user("firehose-gap").is_none());
}

#[test]
fn replays_of_sessions_that_go_on_wait_for_room_and_are_not_refused() {
    let limits = Limits { replays_max: 1, replay_chunk_bytes: 200, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    publish_numbers(&mut world, "t", 0..50);
    for id in ["one", "two"] {
        let (client, _) = connect(&mut world, Version::V311, id, &[]);
        world.clients[client].room = 100;
        world.subscribe(client, &[("$replay/earliest/t", options(0))], &[]);
        world.settle();
        world.hang_up(client);
    }
    let one = again(&mut world, Version::V311, "one");
    world.heard(one);
    world.hang_up(one);
    let (one, _) = connect(&mut world, Version::V311, "one", &[]);
    world.heard(one);
    // A third one takes the only place.
    let third = world.client(Version::V311, "third");
    world.clients[third].room = 100;
    world.subscribe(third, &[("$replay/earliest/t", options(0))], &[]);
    world.settle();
    assert!(!world.clients[third].packets[0].reason().is_error());
    let two = again(&mut world, Version::V311, "two");
    world.pass(5_000);
    assert!(world.heard(two).is_empty(), "there is no room");
    world.drain_wire(third, usize::MAX);
    world.settle();
    world.pass(2_000);
    let got = world.payloads(two);
    assert_eq!(got.last().map(String::as_str), Some("49"));
}

#[test]
fn a_session_that_reads_what_it_missed_is_held_to_the_rate_of_its_address() {
    let limits = Limits {
        replay_bytes_per_sec_per_address_max: 10_000,
        replay_chunk_bytes: 5_000,
        ..Limits::default()
    };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let come = |world: &mut World| {
        let packet = crate::client::start_packet(Version::V311, false, "s", &[]);
        let from = Some("203.0.113.1".parse().unwrap());
        let client = world.arrive(packet, firehose_auth::Identity::anonymous(), "s", from);
        world.settle();
        world.clients[client].packets.remove(0);
        client
    };
    let client = come(&mut world);
    world.subscribed(client, "t", 0);
    world.hang_up(client);
    let publisher = world.client(Version::V311, "publisher");
    for _ in 0..100 {
        world.publish(publisher, "t", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    let client = come(&mut world);
    let soon = world.take(client).len();
    assert!((10..40).contains(&soon), "{soon} at once");
    for _ in 0..5 {
        world.pass(1_000);
    }
    let later = world.take(client).len();
    assert!((40..70).contains(&later), "{later} in 5 s");
    for _ in 0..10 {
        world.pass(1_000);
    }
    assert_eq!(soon + later + world.take(client).len(), 100);
}

#[test]
fn a_quiet_session_does_not_fall_behind_the_retention_while_it_is_connected() {
    let setup =
        Setup { segment_bytes: 4_096, retention_bytes: Some(8_192), tail_bytes: 0, ..Setup::default() };
    let mut world = World::new(setup);
    let (client, _) = connect(&mut world, Version::V311, "s", &[]);
    world.subscribed(client, "quiet", 1);
    for _ in 0..50 {
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    for _ in 0..7 {
        world.pass(10_000);
        world.send_packet(client, &Packet::PingReq);
    }
    world.commit();
    world.upkeep_keeping_nothing();
    world.crash(true);
    let client = again(&mut world, Version::V311, "s");
    publish_numbers(&mut world, "quiet", 0..1);
    assert_eq!(short(&world.take(client)), ["1 10"]);
}

#[test]
fn a_session_comes_back_to_a_shard_that_looked_at_nothing_meanwhile() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V311, "s", "t", 1);
    // Nobody subscribes: the shard does not even hear of these.
    publish_numbers(&mut world, "t", 0..10);
    let client = again(&mut world, Version::V311, "s");
    publish_numbers(&mut world, "t", 10..12);
    assert_eq!(world.payloads(client), numbers(0..12));
}

/// Found by the simulation: the copy that is sent again named the replay too, and then that brought its own.
#[test]
fn what_is_sent_again_names_only_subscriptions_whose_lanes_have_come_past_it() {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribe(client, &[("t", options(1))], &[Property::SubscriptionId(1)]);
    publish_numbers(&mut world, "t", 0..1);
    world.take(client);
    world.delays_reads = true;
    world.subscribe(client, &[("$replay/earliest/t", options(1))], &[Property::SubscriptionId(2)]);
    world.settle();
    while matches!(world.questions.front(), Some((_, Action::Resolve { .. }))) {
        world.answer(0);
        world.settle();
    }
    world.hang_up(client);
    world.questions.clear();
    let client = again(&mut world, Version::V5, "s");
    let place = world.questions.iter().position(|(_, question)| matches!(question, Action::Fetch { .. }));
    world.answer(place.expect("the log was asked for what is sent again"));
    let got = world.take(client);
    assert_eq!((short(&got), &got[0].ids[..]), (vec!["1+ 10".to_owned()], &[1][..]));
    world.delays_reads = false;
    world.let_go();
    let got = world.take(client);
    assert_eq!((short(&got), &got[0].ids[..]), (vec!["1 20".to_owned()], &[2][..]));
}
