//! Shared subscriptions: each message to one member of the group, wherever the members are, whatever they take.

use crate::client::{self, Got, options, unsubscribe_packet};
use crate::session::{VERSIONS, connect};
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_broker::sequencer::Deposit;
use firehose_log::{Attributes, Draft, Event, Flags, Origin};
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, SubscribeOptions, Version};

const GROUP: &str = "$share/g/t/#";

/// Three shards.
pub fn world() -> World {
    World::new(Setup { shards: 3, ..Setup::default() })
}

/// Clients of these names that subscribe to the group at these QoS.
fn members(world: &mut World, list: &[(&str, u8)]) -> Vec<usize> {
    let all: Vec<usize> = list.iter().map(|(name, _)| world.client(Version::V5, name)).collect();
    for (client, (_, qos)) in all.iter().zip(list) {
        world.clients[*client].acknowledges = true;
        assert!(!world.subscribed(*client, GROUP, *qos).is_error());
    }
    all
}

/// Publishes numbered messages to `t/x` at a QoS.
pub fn publish(world: &mut World, publisher: usize, numbers: std::ops::RangeInclusive<u16>, qos: u8) {
    for number in numbers {
        world.publish(publisher, "t/x", &number.to_string(), qos, number);
    }
    world.settle();
}

/// The PUBLISHes among what came.
pub fn publishes(world: &mut World, client: usize) -> Vec<Got> {
    world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

/// The numbers that came, in order.
pub fn numbers(world: &mut World, client: usize) -> Vec<u16> {
    publishes(world, client).iter().map(|it| it.payload.parse().expect("a number")).collect()
}

/// Whether together they are exactly these numbers, once each.
fn assert_once(parts: &[Vec<u16>], all: std::ops::RangeInclusive<u16>) {
    let mut got: Vec<u16> = parts.iter().flatten().copied().collect();
    got.sort_unstable();
    assert_eq!(got, all.collect::<Vec<_>>(), "{parts:?}");
}

#[test]
fn each_message_goes_to_one_member_and_all_members_have_their_turn() {
    for qos in 0..3 {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let mut all: Vec<usize> = Vec::new();
        for number in 0.. {
            let client = world.client(Version::V5, &format!("member {number}"));
            let host = world.clients[client].host;
            if all.iter().filter(|known| world.clients[**known].host == host).count() < 2 {
                all.push(client);
                world.clients[client].acknowledges = true;
                assert!(!world.subscribed(client, GROUP, qos).is_error());
            }
            if all.len() == 6 {
                break;
            }
        }
        publish(&mut world, publisher, 1..=50, 2);
        publish(&mut world, publisher, 51..=120, 2);
        let parts: Vec<Vec<u16>> = all.iter().map(|it| numbers(&mut world, *it)).collect();
        assert_once(&parts, 1..=120);
        for part in &parts {
            assert_eq!(part.len(), 20);
            assert!(part.is_sorted(), "in their order");
        }
    }
}

#[test]
fn each_member_gets_its_own_qos_and_every_version_may_be_one() {
    for version in VERSIONS {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let all: Vec<usize> = (0..3u8).map(|qos| world.client(version, &format!("member {qos}"))).collect();
        for (qos, client) in all.iter().enumerate() {
            world.clients[*client].acknowledges = true;
            assert_eq!(world.subscribed(*client, GROUP, qos as u8) as usize, qos);
        }
        publish(&mut world, publisher, 1..=9, 2);
        for (qos, client) in all.iter().enumerate() {
            let got = publishes(&mut world, *client);
            assert_eq!(got.len(), 3);
            assert!(got.iter().all(|it| usize::from(it.qos) == qos && !it.retain && !it.dup));
        }
    }
}

#[test]
fn what_no_member_can_take_waits_in_the_log_until_one_can() {
    for tail_bytes in [0, 1 << 20] {
        let mut world = World::new(Setup { shards: 3, tail_bytes, ..Setup::default() });
        let publisher = world.client(Version::V311, "p");
        let list = [Property::ReceiveMaximum(2)];
        let all: Vec<usize> =
            ["a", "b", "c"].iter().map(|name| world.client_with(Version::V5, name, &list)).collect();
        for client in &all {
            world.clients[*client].acknowledges = true;
            world.clients[*client].holds_acks = true;
            world.subscribed(*client, GROUP, 1);
        }
        publish(&mut world, publisher, 1..=40, 1);
        let mut parts: Vec<Vec<u16>> = all.iter().map(|it| numbers(&mut world, *it)).collect();
        assert!(parts.iter().all(|part| part.len() == 2), "{parts:?}");
        assert_once(&parts, 1..=6);
        // Who acknowledges gets more.
        world.release_acks(all[1], 2);
        parts[1].extend(numbers(&mut world, all[1]));
        assert_once(&parts, 1..=8);
        assert_eq!(parts[1].len(), 4);
        world.clients[all[2]].holds_acks = false;
        world.release_acks(all[2], 2);
        parts[2].extend(numbers(&mut world, all[2]));
        assert_once(&parts, 1..=40);
        publish(&mut world, publisher, 41..=50, 1);
        parts[2].extend(numbers(&mut world, all[2]));
        assert_once(&parts, 1..=50);
    }
}

#[test]
fn what_a_member_was_sent_and_did_not_acknowledge_goes_to_another_one_at_qos_1_only() {
    for qos in [1, 2] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let all = members(&mut world, &[("a", qos), ("b", qos)]);
        world.clients[all[0]].acknowledges = false;
        publish(&mut world, publisher, 1..=10, 2);
        let (dead, mut other) = (numbers(&mut world, all[0]), numbers(&mut world, all[1]));
        assert_eq!((dead.len(), other.len()), (5, 5));
        world.hang_up(all[0]);
        let again = publishes(&mut world, all[1]);
        assert!(again.iter().all(|it| !it.dup), "to this client it is new");
        other.extend(again.iter().map(|it| it.payload.parse::<u16>().unwrap()));
        match qos {
            1 => assert_once(&[other], 1..=10),
            _ => assert_eq!(other.len(), 5, "QoS 2 is nobody else's [MQTT-4.8.2-5]"),
        }
    }
}

#[test]
fn what_was_queued_and_not_sent_goes_to_another_one_at_every_qos() {
    for qos in 0..3 {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let all = members(&mut world, &[("a", qos), ("b", qos)]);
        world.clients[all[0]].room = 0;
        publish(&mut world, publisher, 1..=20, 2);
        let mut got = numbers(&mut world, all[1]);
        world.hang_up(all[0]);
        got.extend(numbers(&mut world, all[1]));
        assert_once(&[got], 1..=20);
    }
}

#[test]
fn a_member_that_does_not_read_holds_nothing_back() {
    let limits = Limits { outbox_bytes_max: 2_000, ..Limits::default() };
    for qos in 0..3 {
        let mut world = World::new(Setup { shards: 3, limits: limits.clone(), ..Setup::default() });
        let publisher = world.client(Version::V311, "p");
        let all = members(&mut world, &[("a", qos), ("b", qos)]);
        world.clients[all[0]].room = 10;
        let filler = " ".repeat(200);
        let mut got = Vec::new();
        for number in 1..=100u16 {
            world.publish(publisher, "t/x", &format!("{number}{filler}"), 2, number);
            world.settle();
            got.extend(publishes(&mut world, all[1]));
        }
        assert!(got.len() > 80, "only {} at QoS {qos}", got.len());
        world.drain_wire(all[0], usize::MAX);
        world.settle();
        got.extend(publishes(&mut world, all[1]));
        got.extend(publishes(&mut world, all[0]));
        let part = got.iter().map(|it| it.payload.trim().parse().unwrap()).collect();
        assert_once(&[part], 1..=100);
    }
}

#[test]
fn members_come_and_go_and_nothing_is_lost_or_doubled() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let all = members(&mut world, &[("a", 1), ("b", 1)]);
    publish(&mut world, publisher, 1..=10, 1);
    let late = members(&mut world, &[("c", 1)])[0];
    publish(&mut world, publisher, 11..=20, 1);
    world.send(all[0], &unsubscribe_packet(Version::V5, 5, &[GROUP]));
    publish(&mut world, publisher, 21..=30, 1);
    let mut parts: Vec<Vec<u16>> = vec![numbers(&mut world, all[1]), numbers(&mut world, late)];
    let left = world.take(all[0]);
    assert!(left.iter().any(|it| it.kind == PacketKind::UnsubAck && it.reason() == Reason::Success));
    parts.push(left.iter().filter_map(|it| it.payload.parse().ok()).collect());
    assert_once(&parts, 1..=30);
    assert!(parts[2].iter().all(|number| *number <= 20));
    world.send(all[0], &unsubscribe_packet(Version::V5, 6, &[GROUP]));
    assert_eq!(world.take(all[0])[0].reason(), Reason::NoSubscriptionExisted);
    for client in [all[1], late] {
        world.hang_up(client);
    }
    publish(&mut world, publisher, 31..=40, 1);
    world.subscribed(all[0], GROUP, 1);
    publish(&mut world, publisher, 41..=42, 1);
    assert_eq!(numbers(&mut world, all[0]), [41, 42], "the group ended with its last member");
    for shard in 0..3 {
        let expected = u64::from(world.clients[all[0]].host == shard);
        assert_eq!(world.stats(shard).subscriptions.get(), expected);
    }
}

#[test]
fn a_filter_that_is_left_and_subscribed_to_in_one_breath_goes_on() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let all = members(&mut world, &[("a", 1)]);
    let mut bytes = unsubscribe_packet(Version::V5, 5, &[GROUP]);
    bytes.extend(client::subscribe_packet(Version::V5, 6, &[(GROUP, options(0))], &[]));
    bytes.extend(client::subscribe_packet(Version::V5, 7, &[(GROUP, options(2))], &[]));
    world.send(all[0], &bytes);
    let kinds: Vec<PacketKind> = world.take(all[0]).iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [PacketKind::UnsubAck, PacketKind::SubAck, PacketKind::SubAck]);
    publish(&mut world, publisher, 1..=100, 2);
    let got = publishes(&mut world, all[0]);
    assert_eq!((got.len(), got[0].qos), (100, 2));
}

#[test]
fn names_and_options_that_the_standard_forbids_are_refused() {
    for version in VERSIONS {
        let mut world = world();
        let client = world.client(version, "c");
        for (filter, reason) in [
            ("$share/g", Reason::TopicFilterInvalid),
            ("$share/", Reason::TopicFilterInvalid),
            ("$share//t", Reason::TopicFilterInvalid),
            ("$share/g/", Reason::TopicFilterInvalid),
            ("$share/+/t", Reason::TopicFilterInvalid),
            ("$share/g/$share/h/t", Reason::TopicFilterInvalid),
            ("$share/g/$replay/earliest/t", Reason::TopicFilterInvalid),
            ("$replay/earliest/$share/g/t", Reason::TopicFilterInvalid),
        ] {
            let expected = if version == Version::V5 { reason } else { Reason::UnspecifiedError };
            assert_eq!(world.subscribed(client, filter, 0), expected, "{filter}");
        }
    }
    let mut world = world();
    let client = world.client(Version::V5, "c");
    world.subscribe(client, &[("$share/g/t", options(0))], &[Property::UserProperty("since", "earliest")]);
    assert_eq!(world.take(client)[0].reason(), Reason::TopicFilterInvalid);
    let no_local = SubscribeOptions { no_local: true, ..options(0) };
    world.subscribe(client, &[("t", options(0)), ("$share/g/t", no_local)], &[]);
    let got = world.take(client);
    assert_eq!((got[0].kind, got[0].reason()), (PacketKind::Disconnect, Reason::ProtocolError));
}

#[test]
fn nobody_anonymous_takes_messages_away_from_users() {
    let setup = Setup {
        shards: 3,
        anonymous: AnonymousMode::Read,
        acl: Some("topic read #\nuser u\ntopic readwrite #\n"),
        users: vec!["u"],
        ..Setup::default()
    };
    let mut world = World::new(setup);
    for (version, reason) in [(Version::V5, Reason::NotAuthorized), (Version::V311, Reason::UnspecifiedError)]
    {
        let anonymous = world.client(version, "c");
        assert_eq!(world.subscribed(anonymous, GROUP, 0), reason);
        assert_eq!(world.subscribed(anonymous, "t/#", 0), Reason::Success);
    }
    let user = world.user(Version::V5, "u");
    assert_eq!(world.subscribed(user, GROUP, 0), Reason::Success);
}

#[test]
fn groups_of_one_name_are_as_many_as_users_and_filters() {
    let setup = Setup { shards: 3, users: vec!["u", "v"], ..Setup::default() };
    let mut world = World::new(setup);
    let (u, v) = (world.user(Version::V5, "u"), world.user(Version::V5, "v"));
    let other = world.client(Version::V5, "other");
    for client in [u, v, other] {
        world.subscribed(client, GROUP, 0);
    }
    world.subscribed(other, "$share/g/#", 0);
    world.subscribed(other, "$share/h/t/#", 0);
    world.subscribed(other, "t/+", 0);
    publish(&mut world, other, 1..=4, 0);
    assert_eq!(numbers(&mut world, u), [1, 2, 3, 4]);
    assert_eq!(numbers(&mut world, v), [1, 2, 3, 4]);
    assert_eq!(numbers(&mut world, other).len(), 16, "its own subscription, and three groups");
}

#[test]
fn each_topic_is_checked_for_the_member_that_gets_it() {
    let acl = "user u\ntopic read t/open\ntopic write t/#\npattern read t/%c/#\n";
    let setup = Setup { shards: 3, acl: Some(acl), users: vec!["u"], ..Setup::default() };
    let mut world = World::new(setup);
    let arrive = |world: &mut World, name: &str| {
        let packet = client::connect_packet(Version::V5, name, &[]);
        let client = world.arrive(packet, firehose_auth::Identity::user("u"), name, None);
        world.take(client);
        client
    };
    let (one, two) = (arrive(&mut world, "one"), arrive(&mut world, "two"));
    assert_eq!(world.subscribed(one, "$share/g/x/#", 0), Reason::NotAuthorized);
    for client in [one, two] {
        assert_eq!(world.subscribed(client, GROUP, 0), Reason::Success);
    }
    for topic in ["t/open", "t/open", "t/one/a", "t/one/b", "t/secret", "t/two/a"] {
        world.publish(one, topic, "", 0, 0);
    }
    let topics = |got: Vec<Got>| got.into_iter().map(|it| it.topic).collect::<Vec<_>>();
    let (got_one, got_two) = (topics(publishes(&mut world, one)), topics(publishes(&mut world, two)));
    let of = |got: &[String], prefix: &str| got.iter().filter(|it| it.starts_with(prefix)).count();
    assert_eq!(of(&got_one, "t/open") + of(&got_two, "t/open"), 2);
    assert_eq!((of(&got_one, "t/one"), of(&got_two, "t/two")), (2, 1));
    assert_eq!((of(&got_one, "t/two"), of(&got_two, "t/one")), (0, 0));
    assert_eq!(of(&got_one, "t/secret") + of(&got_two, "t/secret"), 0);
    world.reload_acl("user u\ntopic read t/secret\ntopic write t/#\n");
    for topic in ["t/open", "t/secret"] {
        world.publish(one, topic, "", 0, 0);
    }
    let mut got = topics(publishes(&mut world, one));
    got.extend(topics(publishes(&mut world, two)));
    assert_eq!(got, ["t/secret"]);
}

#[test]
fn options_identifiers_and_cursors_are_those_of_the_member_and_what_is_retained_does_not_come() {
    let mut world = world();
    let publisher = world.client(Version::V5, "p");
    let mut retained = client::publish("t/r", "old", 1, 1);
    retained.retain = true;
    world.send_packet(publisher, &Packet::Publish(retained));
    world.settle();
    let one = world.client(Version::V5, "one");
    let two = world.client_with(Version::V5, "two", &[Property::UserProperty("firehose-cursor", "on")]);
    let as_published = SubscribeOptions { retain_as_published: true, ..options(0) };
    world.subscribe(one, &[(GROUP, as_published)], &[Property::SubscriptionId(7)]);
    world.subscribe(two, &[(GROUP, options(0))], &[]);
    assert!(publishes(&mut world, one).is_empty() && publishes(&mut world, two).is_empty());
    for _ in 0..2 {
        world.send_packet(publisher, &Packet::Publish(retained));
    }
    let (one, two) = (publishes(&mut world, one), publishes(&mut world, two));
    assert_eq!((one.len(), one[0].retain, one[0].ids.clone()), (1, true, vec![7]));
    assert_eq!((two.len(), two[0].retain, two[0].ids.clone()), (1, false, vec![]));
    assert!(one[0].user("firehose-cursor").is_none() && two[0].user("firehose-cursor").is_some());
}

#[test]
fn what_is_not_logged_is_shared_too_and_dropped_when_nobody_takes_it() {
    let unlogged = vec!["t/live".parse().expect("a filter")];
    let mut world = World::new(Setup { shards: 3, unlogged, ..Setup::default() });
    let publisher = world.client(Version::V311, "p");
    let list = [Property::ReceiveMaximum(1)];
    let all: Vec<usize> = ["a", "b"].iter().map(|name| world.client_with(Version::V5, name, &list)).collect();
    for client in &all {
        world.subscribed(*client, GROUP, 1);
    }
    for number in 1..=5u16 {
        world.publish(publisher, "t/live", &number.to_string(), 1, number);
    }
    let parts = [numbers(&mut world, all[0]), numbers(&mut world, all[1])];
    assert_once(&parts, 1..=2);
    let dropped: u64 = (0..3).map(|shard| world.stats(shard).messages_dropped.get()).sum();
    assert_eq!(dropped, 3);
}

#[test]
fn what_is_not_logged_and_expires_while_it_waits_for_a_member_takes_nothing_with_it() {
    let unlogged = vec!["t/live".parse().expect("a filter")];
    let mut world = World::new(Setup { shards: 3, unlogged, ..Setup::default() });
    let publisher = world.client(Version::V5, "p");
    let one = members(&mut world, &[("one", 1)])[0];
    world.clients[one].room = 0;
    let send = |world: &mut World, topic: &str, number: u16, expiry_secs: Option<u32>| {
        let list: Vec<Property<'_>> = expiry_secs.into_iter().map(Property::MessageExpiry).collect();
        let properties = client::properties(&list);
        let text = number.to_string();
        let packet = client::publish(topic, &text, 1, number);
        let packet = Publish { properties: properties.as_properties(), ..packet };
        world.send_packet(publisher, &Packet::Publish(packet));
        world.settle();
    };
    send(&mut world, "t/x", 1, None);
    send(&mut world, "t/live", 2, Some(5));
    send(&mut world, "t/live", 3, Some(100));
    send(&mut world, "t/live", 4, Some(5));
    send(&mut world, "t/x", 5, None);
    world.pass(30_000);
    // The logged one that expires has all of them given back.
    send(&mut world, "t/x", 6, Some(100));
    world.pass(1_000);
    world.drain_wire(one, usize::MAX);
    let got = numbers(&mut world, one);
    assert_eq!(got.iter().filter(|number| [1, 5, 6].contains(*number)).count(), 3, "{got:?}");
    assert!(!got.contains(&2) && !got.contains(&4), "{got:?}");
}

#[test]
fn a_redacted_event_that_waits_for_a_member_is_given_to_nobody() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let client = world.client_with(Version::V5, "a", &[Property::ReceiveMaximum(2)]);
    world.clients[client].acknowledges = true;
    world.clients[client].holds_acks = true;
    world.subscribed(client, GROUP, 1);
    publish(&mut world, publisher, 1..=6, 1);
    assert_eq!(numbers(&mut world, client), [1, 2]);
    world.commit();
    world.commit.redact(4, world.now.wall_us).expect("redacts");
    for shard in 0..3 {
        world.sequencer.send(shard, Message::Redacted { offset: 4, seen: None });
    }
    world.let_go();
    assert_eq!(numbers(&mut world, client), [3, 5, 6]);
}

/// Neither the member nor the group may go on counting what nobody will ever settle.
#[test]
fn a_member_takes_as_much_as_before_after_events_that_were_redacted_as_they_came() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let client = members(&mut world, &[("a", 1)])[0];
    for _ in 0..100 {
        let (flags, attributes) = (Flags::default(), Attributes::EMPTY);
        let event = Event { flags, topic: "t/x", attributes, payload: b"0" };
        let mut draft = Draft::new();
        draft.push(&event, &Origin::default()).expect("fits");
        let deposit = Deposit::Batch { ticket: 0, draft, wants_sync: false };
        let _ = world.sequencer.deposit(world.sequencer.port_slot(), [deposit]);
        world.commit();
        let offset = world.read.head();
        world.commit.redact(offset, world.now.wall_us).expect("redacts");
        for shard in 0..3 {
            world.sequencer.send(shard, Message::Redacted { offset, seen: None });
        }
        world.settle();
    }
    publish(&mut world, publisher, 1..=100, 1);
    assert_eq!(numbers(&mut world, client), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_session_may_be_a_member_of_many_groups_and_no_more_than_its_limit() {
    let limits = Limits { subscriptions_per_client_max: 3, ..Limits::default() };
    let mut world = World::new(Setup { shards: 3, limits, ..Setup::default() });
    let publisher = world.client(Version::V311, "p");
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.clients[client].acknowledges = true;
    let filters: Vec<String> = (0..4).map(|number| format!("$share/g{number}/t/#")).collect();
    for (number, filter) in filters.iter().enumerate() {
        let expected = if number < 3 { Reason::GrantedQoS1 } else { Reason::QuotaExceeded };
        assert_eq!(world.subscribed(client, filter, 1), expected);
    }
    publish(&mut world, publisher, 1..=200, 1);
    assert_eq!(numbers(&mut world, client).len(), 600);
}
