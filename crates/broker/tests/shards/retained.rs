//! Retained messages: what new subscriptions get, and at which pace.

use crate::client::{Got, options, publish, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_log::{Attributes, Batch, Draft, Event, Flags, Origin, WayIn};
use firehose_mqtt::{
    Packet, PacketKind, PropertiesBuf, Property, Publish, Reason, RetainHandling, SubscribeOptions, Version,
};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn retain(world: &mut World, client: usize, topic: &str, payload: &str, qos: u8) {
    let packet = Publish { retain: true, ..publish(topic, payload, qos, if qos == 0 { 0 } else { 77 }) };
    world.send_packet(client, &Packet::Publish(packet));
    world.settle();
    world.heard(client);
}

/// A world with a client that publishes.
fn world() -> (World, usize) {
    with(Setup::default())
}

fn with(setup: Setup) -> (World, usize) {
    let mut world = World::new(setup);
    let publisher = world.client(Version::V311, "publisher");
    // It releases what it publishes with QoS 2.
    world.clients[publisher].acknowledges = true;
    (world, publisher)
}

/// The PUBLISHes among what came.
fn messages(world: &mut World, client: usize) -> Vec<Got> {
    world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

fn payloads(world: &mut World, client: usize) -> Vec<String> {
    messages(world, client).into_iter().map(|it| it.payload).collect()
}

fn handling(retain_handling: RetainHandling) -> SubscribeOptions {
    SubscribeOptions { retain_handling, ..options(1) }
}

#[test]
fn a_new_subscription_gets_the_newest_of_each_topic_with_the_retain_flag() {
    for version in VERSIONS {
        let (mut world, publisher) = world();
        for (topic, payload) in [("t/b", "old"), ("t/a", "1"), ("t/b", "2"), ("u", "3"), ("$t/x", "4")] {
            retain(&mut world, publisher, topic, payload, 1);
        }
        world.publish(publisher, "t/b", "not retained", 0, 0);
        let reader = world.client(version, "reader");
        world.subscribe(reader, &[("t/#", options(0))], &[]);
        let got: Vec<_> = messages(&mut world, reader);
        let told: Vec<_> = got.iter().map(|it| (&*it.topic, &*it.payload, it.retain, it.qos)).collect();
        assert_eq!(told, [("t/a", "1", true, 0), ("t/b", "2", true, 0)]);
        world.subscribe(reader, &[("#", options(0))], &[]);
        assert_eq!(payloads(&mut world, reader), ["1", "2", "3"], "no wildcard matches $t");
        world.subscribe(reader, &[("$t/+", options(0))], &[]);
        assert_eq!(payloads(&mut world, reader), ["4"]);
    }
}

#[test]
fn without_the_flag_nothing_is_stored_removed_or_replaced() {
    for version in VERSIONS {
        for qos in 0..3 {
            let (mut world, publisher) = world();
            retain(&mut world, publisher, "kept", "before", 1);
            for (topic, payload) in [("kept", "other"), ("kept", ""), ("none", "x")] {
                world.publish(publisher, topic, payload, qos, 5);
                world.settle();
            }
            let reader = world.client(version, "reader");
            world.subscribe(reader, &[("#", options(2))], &[]);
            let got: Vec<_> =
                messages(&mut world, reader).into_iter().map(|it| (it.topic, it.payload)).collect();
            assert_eq!(got, [("kept".to_owned(), "before".to_owned())], "{version:?} at QoS {qos}");
        }
    }
}

#[test]
fn an_empty_payload_clears_and_is_delivered() {
    for version in VERSIONS {
        let (mut world, publisher) = world();
        retain(&mut world, publisher, "t", "1", 0);
        let live = world.client(version, "live");
        world.subscribe(live, &[("t", options(0))], &[]);
        assert_eq!(payloads(&mut world, live), ["1"]);
        retain(&mut world, publisher, "t", "", 0);
        assert_eq!(payloads(&mut world, live), [""]);
        let late = world.client(version, "late");
        world.subscribe(late, &[("t", options(0))], &[]);
        assert_eq!(payloads(&mut world, late), Vec::<String>::new());
    }
}

#[test]
fn mqtt_5_may_retain_and_is_not_told_otherwise() {
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    retain(&mut world, client, "t", "x", 1);
    assert!(!world.clients[client].closed);
    world.subscribe(client, &[("t", options(1))], &[]);
    assert_eq!(payloads(&mut world, client), ["x"]);
}

#[test]
fn live_it_has_the_retain_flag_only_as_published() {
    let (mut world, publisher) = world();
    let (plain, as_published) = (world.client(Version::V5, "0"), world.client(Version::V5, "1"));
    let kept = SubscribeOptions { retain_as_published: true, ..options(0) };
    world.subscribe(plain, &[("t", options(0))], &[]);
    world.subscribe(as_published, &[("t", kept)], &[]);
    retain(&mut world, publisher, "t", "x", 0);
    assert_eq!(messages(&mut world, plain).iter().map(|it| it.retain).collect::<Vec<_>>(), [false]);
    assert_eq!(messages(&mut world, as_published).iter().map(|it| it.retain).collect::<Vec<_>>(), [true]);
}

#[test]
fn retain_handling_says_whether_they_come_with_a_subscription_that_is_there() {
    let cases = [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ];
    for (wish, first, second) in cases {
        let (mut world, publisher) = world();
        retain(&mut world, publisher, "t", "x", 0);
        let reader = world.client(Version::V5, "reader");
        for expected in [first, second] {
            world.subscribe(reader, &[("t", handling(wish))], &[]);
            assert_eq!(payloads(&mut world, reader).len(), usize::from(expected), "{wish:?}");
        }
        let packet = unsubscribe_packet(Version::V5, 1, &["t"]);
        world.send(reader, &packet);
        world.subscribe(reader, &[("t", handling(wish))], &[]);
        assert_eq!(payloads(&mut world, reader).len(), usize::from(first), "new again: {wish:?}");
    }
}

#[test]
fn in_3_x_they_come_with_each_subscribe() {
    for version in [Version::V31, Version::V311] {
        let (mut world, publisher) = world();
        retain(&mut world, publisher, "t", "x", 0);
        let reader = world.client(version, "reader");
        for _ in 0..2 {
            world.subscribe(reader, &[("t", options(0))], &[]);
            assert_eq!(payloads(&mut world, reader), ["x"]);
        }
    }
}

#[test]
fn the_qos_is_the_lesser_and_the_window_holds() {
    let (mut world, publisher) = world();
    for number in 0..10 {
        retain(&mut world, publisher, &format!("t/{number}"), &number.to_string(), number % 3);
    }
    let reader = world.client_with(Version::V5, "reader", &[Property::ReceiveMaximum(2)]);
    world.clients[reader].acknowledges = true;
    world.clients[reader].holds_acks = true;
    world.subscribe(reader, &[("t/#", options(1))], &[]);
    let mut got = messages(&mut world, reader);
    assert_eq!(got.iter().filter(|it| it.qos > 0).count(), 2, "Receive Maximum");
    while !world.clients[reader].acks.is_empty() {
        world.release_acks(reader, 1);
        got.extend(messages(&mut world, reader));
    }
    let qos: Vec<u8> = got.iter().map(|it| it.qos).collect();
    assert_eq!(qos, [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]);
}

#[test]
fn identifiers_and_cursors_come_along() {
    let (mut world, publisher) = world();
    retain(&mut world, publisher, "t", "x", 0);
    let reader = world.client(Version::V5, "reader");
    let on = [Property::SubscriptionId(7), Property::UserProperty("firehose-cursor", "on")];
    world.subscribe(reader, &[("t", options(0))], &on);
    let got = messages(&mut world, reader);
    assert_eq!(got[0].ids, [7]);
    let cursor = got[0].user("firehose-cursor").expect("a cursor").to_owned();
    assert_eq!(firehose_log::Cursor::parse(&cursor).expect("a cursor").offset, 1);
}

#[test]
fn expiry_is_counted_down_and_what_expired_is_not_sent() {
    let mut world = World::open();
    let publisher = world.client(Version::V5, "publisher");
    for (topic, secs) in [("short", 10), ("long", 100)] {
        let mut properties = PropertiesBuf::new();
        properties.push(&Property::MessageExpiry(secs)).unwrap();
        let packet =
            Publish { retain: true, properties: properties.as_properties(), ..publish(topic, "x", 0, 0) };
        world.send_packet(publisher, &Packet::Publish(packet));
    }
    world.settle();
    world.pass(30_000);
    let reader = world.client(Version::V5, "reader");
    world.subscribe(reader, &[("#", options(0))], &[]);
    let got = messages(&mut world, reader);
    assert_eq!(got.len(), 1);
    assert!(got[0].has("MessageExpiry(70)"), "{:?}", got[0].properties);
}

#[test]
fn what_may_not_be_read_does_not_come() {
    let acl = "topic read open/#\nuser w\ntopic #\n";
    let setup = Setup { acl: Some(acl), anonymous: AnonymousMode::Read, ..Setup::default() };
    let mut world = World::new(setup);
    let writer = world.user(Version::V311, "w");
    for topic in ["open/1", "closed/1", "open/2"] {
        retain(&mut world, writer, topic, topic, 0);
    }
    let reader = world.client(Version::V311, "reader");
    world.subscribe(reader, &[("#", options(0))], &[]);
    assert_eq!(payloads(&mut world, reader), ["open/1", "open/2"]);
}

#[test]
fn no_local_holds_for_one_s_own_retained_messages() {
    let mut world = World::open();
    let (own, other) = (world.client(Version::V5, "own"), world.client(Version::V5, "other"));
    retain(&mut world, own, "t/own", "own", 0);
    retain(&mut world, other, "t/other", "other", 0);
    let wish = SubscribeOptions { no_local: true, ..options(0) };
    world.subscribe(own, &[("t/+", wish)], &[]);
    assert_eq!(payloads(&mut world, own), ["other"], "[MQTT-3.8.3-3]");
}

#[test]
fn what_is_too_large_for_the_client_is_left_out() {
    let (mut world, publisher) = world();
    retain(&mut world, publisher, "t/1", &"x".repeat(200), 0);
    retain(&mut world, publisher, "t/2", "small", 0);
    let reader = world.client_with(Version::V5, "reader", &[Property::MaximumPacketSize(100)]);
    world.subscribe(reader, &[("#", options(0))], &[]);
    assert_eq!(payloads(&mut world, reader), ["small"]);
}

#[test]
fn a_replay_brings_them_as_events_only() {
    let (mut world, publisher) = world();
    retain(&mut world, publisher, "t", "x", 0);
    let reader = world.client(Version::V5, "reader");
    world.subscribed(reader, "$replay/earliest/t", 0);
    let got = messages(&mut world, reader);
    assert_eq!(got.iter().map(|it| it.retain).collect::<Vec<_>>(), [false]);
    let other = world.client(Version::V5, "other");
    world.subscribe(other, &[("t", options(0))], &[Property::UserProperty("since", "earliest")]);
    assert_eq!(messages(&mut world, other).iter().map(|it| it.retain).collect::<Vec<_>>(), [false]);
}

#[test]
fn what_is_not_logged_is_delivered_and_not_kept() {
    let unlogged = vec![firehose_topic::TopicFilter::new("u/#").unwrap()];
    let (mut world, publisher) = with(Setup { unlogged, ..Setup::default() });
    let live = world.client(Version::V311, "live");
    world.subscribed(live, "#", 0);
    retain(&mut world, publisher, "u/1", "x", 0);
    assert_eq!(payloads(&mut world, live), ["x"]);
    let late = world.client(Version::V311, "late");
    world.subscribe(late, &[("#", options(0))], &[]);
    assert_eq!(payloads(&mut world, late), Vec::<String>::new());
}

#[test]
fn one_that_changes_meanwhile_comes_live_and_once() {
    let (mut world, publisher) = world();
    for topic in ["a", "b", "c"] {
        retain(&mut world, publisher, topic, "old", 0);
    }
    world.delays_reads = true;
    let reader = world.client(Version::V311, "reader");
    world.subscribe(reader, &[("#", options(0))], &[]);
    world.settle();
    retain(&mut world, publisher, "b", "new", 0);
    world.let_go();
    let got: Vec<_> =
        messages(&mut world, reader).into_iter().map(|it| (it.topic, it.payload, it.retain)).collect();
    let expected = [("b", "new", false), ("a", "old", true), ("c", "old", true)];
    assert_eq!(got, expected.map(|(topic, payload, retain)| (topic.into(), payload.into(), retain)));
}

fn many(world: &mut World, publisher: usize, count: usize) -> Vec<String> {
    let payload = "p".repeat(100);
    (0..count)
        .map(|number| {
            let topic = format!("t/{number:04}");
            retain(world, publisher, &topic, &payload, 1);
            topic
        })
        .collect()
}

fn small_pages() -> Setup {
    let limits = Limits { replay_chunk_bytes: 1000, outbox_bytes_max: 2000, ..Limits::default() };
    Setup { limits, ..Setup::default() }
}

fn retained_topics(got: Vec<Got>) -> Vec<String> {
    got.into_iter().filter(|it| it.retain).map(|it| it.topic).collect()
}

#[test]
fn pages_wait_for_the_reader() {
    let (mut world, publisher) = with(small_pages());
    let topics = many(&mut world, publisher, 100);
    let reader = world.client(Version::V311, "reader");
    world.clients[reader].room = 300;
    world.subscribe(reader, &[("t/#", options(0))], &[]);
    world.settle();
    assert!(world.shard(0).queued_bytes() <= 8000, "a page, not all of it");
    let mut got = retained_topics(messages(&mut world, reader));
    assert!(got.len() < 5);
    world.let_go();
    got.extend(retained_topics(messages(&mut world, reader)));
    assert_eq!(got, topics);
}

#[test]
fn a_reader_that_is_slow_neither_loses_nor_doubles_any() {
    for qos in [0, 1] {
        let (mut world, publisher) = with(small_pages());
        let topics = many(&mut world, publisher, 60);
        let reader = world.client(Version::V311, "reader");
        world.clients[reader].acknowledges = true;
        world.clients[reader].room = 10;
        world.subscribe(reader, &[("t/#", options(qos))], &[]);
        let mut all = messages(&mut world, reader);
        for round in 0..250 {
            // Live messages fill the outbox again and again, so that what is queued is dropped and read from the log.
            for number in 0..if round < 50 { 3 } else { 0 } {
                let payload = format!("{:04}{}", 3 * round + number, "l".repeat(300));
                world.publish(publisher, "t/live", &payload, 0, 0);
            }
            world.drain_wire(reader, 457);
            all.extend(messages(&mut world, reader));
        }
        assert!(world.stats(0).lanes_fallen_back.get() > 0);
        world.let_go();
        all.extend(messages(&mut world, reader));
        let live: Vec<String> =
            all.iter().filter(|it| !it.retain).map(|it| it.payload[..4].to_owned()).collect();
        assert_eq!(live, (0..150).map(|number| format!("{number:04}")).collect::<Vec<_>>());
        assert_eq!(retained_topics(all), topics, "QoS {qos}");
    }
}

#[test]
fn unsubscribe_ends_it() {
    let (mut world, publisher) = with(small_pages());
    many(&mut world, publisher, 100);
    let reader = world.client(Version::V311, "reader");
    world.clients[reader].room = 300;
    world.subscribe(reader, &[("t/#", options(0))], &[]);
    world.settle();
    let packet = unsubscribe_packet(Version::V311, 1, &["t/#"]);
    world.send(reader, &packet);
    world.settle();
    world.let_go();
    let got = world.take(reader);
    assert!(got.iter().any(|it| it.kind == PacketKind::UnsubAck));
    assert!(got.len() < 20, "what was queued may come, no more: {}", got.len());
}

#[test]
fn a_second_subscribe_begins_again_and_each_filter_gets_its_own() {
    let (mut world, publisher) = with(small_pages());
    let topics = many(&mut world, publisher, 30);
    let reader = world.client(Version::V311, "reader");
    world.subscribe(reader, &[("t/#", options(0)), ("t/+", options(0)), ("t/0003", options(0))], &[]);
    let expected = [&topics[..], &topics[..], &topics[3..4]].concat();
    assert_eq!(retained_topics(messages(&mut world, reader)), expected);
}

#[test]
fn the_rate_of_an_address_holds_for_retained_messages_too() {
    let limits =
        Limits { replay_bytes_per_sec_per_address_max: 2000, replay_chunk_bytes: 1000, ..Limits::default() };
    let (mut world, publisher) = with(Setup { limits, ..Setup::default() });
    let topics = many(&mut world, publisher, 100);
    let packet = crate::client::connect_packet(Version::V311, "reader", &[]);
    let from = Some("203.0.113.1".parse().unwrap());
    let reader = world.arrive(packet, firehose_auth::Identity::anonymous(), "reader", from);
    world.settle();
    assert_eq!(world.take(reader)[0].reason(), Reason::Success);
    world.subscribe(reader, &[("t/#", options(0))], &[]);
    let mut got = retained_topics(messages(&mut world, reader));
    assert!((10..60).contains(&got.len()), "about a second's worth ahead: {}", got.len());
    for _ in 0..20 {
        world.pass(1000);
        got.extend(retained_topics(messages(&mut world, reader)));
    }
    assert_eq!(got, topics);
}

#[test]
fn the_last_values_of_sys_come_as_retained_messages() {
    let mut world = World::open();
    let mut draft = Draft::new();
    for (topic, payload) in [("$SYS/broker/uptime", "7 seconds"), ("$SYS/broker/version", "firehose")] {
        let event = Event {
            flags: Flags::default(),
            topic,
            attributes: Attributes::EMPTY,
            payload: payload.as_bytes(),
        };
        draft.push(&event, &Origin { principal: "", session: 0, packet_id: 0, way_in: WayIn::Bus }).unwrap();
    }
    world.sys.set(&Batch::unlogged(draft, 0, 0));
    for version in VERSIONS {
        let reader = world.client(version, "reader");
        world.subscribe(reader, &[("#", options(2))], &[]);
        assert_eq!(messages(&mut world, reader), []);
        world.subscribe(reader, &[("$SYS/broker/+", options(2))], &[]);
        let got = messages(&mut world, reader);
        let told: Vec<_> = got.iter().map(|it| (&*it.payload, it.retain, it.qos)).collect();
        assert_eq!(told, [("7 seconds", true, 0), ("firehose", true, 0)]);
        world.subscribe(reader, &[("$SYS/broker/version", options(0))], &[]);
        assert_eq!(payloads(&mut world, reader), ["firehose"]);
    }
}

#[test]
fn a_page_that_was_asked_for_before_an_event_was_taken_back_is_asked_for_again() {
    let (mut world, publisher) = world();
    retain(&mut world, publisher, "t", "x", 0);
    let reader = world.client(Version::V311, "reader");
    world.state.waits = true;
    world.subscribe(reader, &[("t", options(0))], &[]);
    world.settle();
    world.sequencer.send(0, Message::Redacted { offset: 5, seen: None });
    world.settle();
    world.state.waits = false;
    assert_eq!(payloads(&mut world, reader), ["x"], "the answer to the first question is not taken");
    assert_eq!(world.shard(0).queued_bytes(), 0);
}

/// Found by the simulation: questions of one scan after the other had the same number.
#[test]
fn the_answer_to_a_scan_that_was_ended_is_not_taken_for_that_of_a_later_one() {
    let (mut world, publisher) = world();
    retain(&mut world, publisher, "old/a", "old", 0);
    retain(&mut world, publisher, "new/a", "new", 0);
    let client = world.client(Version::V5, "c");
    world.delays_reads = true;
    world.subscribed(client, "old/#", 0);
    world.send(client, &unsubscribe_packet(Version::V5, 10, &["old/#"]));
    world.settle();
    world.subscribed(client, "new/#", 0);
    assert_eq!(world.questions.len(), 2, "each waits for its answer");
    world.answer(0);
    assert_eq!(payloads(&mut world, client), Vec::<String>::new());
    world.let_go();
    assert_eq!(payloads(&mut world, client), ["new"]);
}
