//! Readers that ask for much: many filters, many replays, many places to begin at.

use crate::client::{options, subscribe_packet};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::shard::Action;
use firehose_mqtt::{PacketKind, Property, Reason, Version};

/// Publishes the numbers.
fn publish(world: &mut World, numbers: std::ops::Range<u16>) {
    let publisher = world.client(Version::V311, "publisher");
    for number in numbers {
        world.publish(publisher, "t", &number.to_string(), 1, number.max(1));
        world.settle();
    }
}

fn payloads(world: &mut World, client: usize) -> Vec<String> {
    let got = world.take(client);
    got.into_iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload).collect()
}

#[test]
fn many_filters_that_overlap_are_one_copy_with_the_highest_qos() {
    let mut world = World::open();
    publish(&mut world, 0..50);
    let names = ["t", "+", "#", "t/#", "none", "+/none", "none/#", "a", "b", "c", "d", "e"];
    let filters: Vec<_> = names.iter().map(|it| (*it, options(if *it == "+" { 1 } else { 0 }))).collect();
    let client = world.client(Version::V5, "many");
    world.subscribe(
        client,
        &filters,
        &[Property::SubscriptionId(7), Property::UserProperty("since", "earliest")],
    );
    let got = world.take(client);
    let got: Vec<_> = got.iter().filter(|it| it.kind == PacketKind::Publish).collect();
    assert_eq!(got.len(), 50);
    assert!(got.iter().all(|it| it.ids == [7, 7, 7, 7]), "four of them match: {:?}", got[0].ids);
    assert!(got.iter().all(|it| it.qos == 1), "one of them asks for QoS 1");
}

#[test]
fn who_subscribes_faster_than_that_is_placed_is_not_read_meanwhile() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::open();
        let client = world.client(version, "many");
        let mut bytes = Vec::new();
        for number in 1..=1_000 {
            bytes.extend(subscribe_packet(version, number, &[(&number.to_string(), options(0))], &[]));
        }
        bytes.extend([0xc0, 0]);
        world.send(client, &bytes);
        assert!(world.clients[client].is_paused());
        let mut got = world.take(client);
        assert_eq!(got.pop().map(|it| it.kind), Some(PacketKind::PingResp));
        assert!(got.iter().map(|it| (it.kind, it.id)).eq((1..=1_000).map(|id| (PacketKind::SubAck, id))));
        assert!(!world.clients[client].is_paused());
    }
}

#[test]
fn places_that_no_replay_could_begin_at_are_not_even_sought() {
    let limits = Limits { replays_max: 5, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    publish(&mut world, 0..3);
    let client = world.client(Version::V5, "many");
    world.delays_reads = true;
    let filters: Vec<String> = (1..1000).map(|it| format!("$replay/-{it}s/t")).collect();
    let filters: Vec<_> = filters.iter().map(|it| (it.as_str(), options(0))).collect();
    world.subscribe(client, &filters, &[]);
    world.settle();
    assert_eq!(world.questions.len(), 5);
    world.let_go();
    let suback = world.take(client).into_iter().find(|it| it.kind == PacketKind::SubAck).expect("an answer");
    let granted = suback.reasons.iter().filter(|it| !it.is_error()).count();
    assert_eq!((granted, suback.reasons[999 - 1]), (5, Reason::QuotaExceeded));
}

#[test]
fn replays_of_one_ipv6_64_count_together() {
    let limits = Limits { replays_per_address_max: 2, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    publish(&mut world, 0..3);
    world.delays_reads = true;
    let mut ask = |name: &str, address: &str| {
        let packet = crate::client::connect_packet(Version::V5, name, &[]);
        let client = world.arrive(packet, firehose_auth::Identity::anonymous(), name, address.parse().ok());
        world.settle();
        world.take(client);
        world.subscribe(client, &[("$replay/earliest/t", options(0))], &[]);
        world.settle();
        // Where it begins is answered, what it reads is not.
        let place = world.questions.iter().position(|(_, it)| matches!(it, Action::Resolve { .. }));
        world.answer(place.expect("a question"));
        world.take(client).pop().expect("a SUBACK").reason()
    };
    assert_eq!(ask("1", "2001:db8::1"), Reason::Success);
    assert_eq!(ask("2", "2001:db8::2"), Reason::Success);
    assert_eq!(ask("3", "2001:db8::3"), Reason::QuotaExceeded);
    assert_eq!(ask("4", "2001:db8:0:1::1"), Reason::Success);
    assert_eq!(ask("5", "127.0.0.1"), Reason::Success);
}

#[test]
fn live_events_go_before_those_that_are_replayed() {
    let mut world = World::open();
    publish(&mut world, 0..100);
    let (live, replaying) = (world.client(Version::V311, "live"), world.client(Version::V311, "replaying"));
    world.subscribed(live, "t", 0);
    world.delays_reads = true;
    world.subscribe(replaying, &[("$replay/earliest/t", options(0))], &[]);
    world.settle();
    world.answer(0);
    world.settle();
    assert!(matches!(world.questions.front(), Some((_, Action::Read { .. }))), "it reads");
    publish(&mut world, 100..110);
    let live_got = payloads(&mut world, live);
    assert_eq!(live_got.len(), 10, "however long the log takes");
    assert!(payloads(&mut world, replaying).is_empty());
    world.let_go();
    assert_eq!(payloads(&mut world, replaying).len(), 110);
}
