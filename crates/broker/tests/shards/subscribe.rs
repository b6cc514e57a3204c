//! SUBSCRIBE and UNSUBSCRIBE: reason codes, rules, limits, and their place in the order.

use crate::client::{options, subscribe_packet, unsubscribe_packet};
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::Limits;
use firehose_log::Cursor;
use firehose_mqtt::{PacketKind, Property, Reason, Version};

const V3: [Version; 2] = [Version::V31, Version::V311];

#[test]
fn filters_are_refused_with_the_reason_of_the_version() {
    let cases = [
        ("$share/group/t", Reason::Success),
        ("$share/", Reason::TopicFilterInvalid),
        ("$replay/earliest/$share/g/t", Reason::TopicFilterInvalid),
        ("$replay", Reason::Success),
        ("$replay/", Reason::TopicFilterInvalid),
        ("$replay/earliest", Reason::TopicFilterInvalid),
        ("$replay/yesterday/t", Reason::TopicFilterInvalid),
        ("$replay/earliest/", Reason::TopicFilterInvalid),
        ("$replay/cAAAA/t", Reason::TopicFilterInvalid),
    ];
    for (filter, reason) in cases {
        let mut world = World::open();
        let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
        assert_eq!(world.subscribed(v5, filter, 0), reason, "{filter}");
        let expected = if reason == Reason::Success { reason } else { Reason::UnspecifiedError };
        assert_eq!(world.subscribed(v3, filter, 0), expected, "{filter}");
        assert!(!world.clients[v5].closed && !world.clients[v3].closed);
    }
}

#[test]
fn a_malformed_filter_is_a_malformed_packet() {
    for filter in ["", "a/#/b", "a#", "a+", "ab/+c", "$replay/earliest/a+", "$share/a+/t", "$share/g/a#"] {
        for version in [Version::V31, Version::V311, Version::V5] {
            let filters = [("fine", options(0)), (filter, options(0))];
            let packets = [
                subscribe_packet(version, 1, &filters, &[]),
                unsubscribe_packet(version, 1, &["fine", filter]),
            ];
            for packet in packets {
                let mut world = World::open();
                let client = world.client(version, "c");
                world.send(client, &packet);
                let told: Vec<_> = world.take(client).iter().map(|it| (it.kind, it.reason())).collect();
                let expected = [(PacketKind::Disconnect, Reason::MalformedPacket)];
                assert_eq!(told, if version == Version::V5 { &expected[..] } else { &[] }, "{filter}");
                assert!(world.clients[client].closed, "{filter}");
            }
        }
    }
}

#[test]
fn one_bad_filter_does_not_spoil_the_others() {
    for (version, bad) in [
        (Version::V31, Reason::UnspecifiedError),
        (Version::V311, Reason::UnspecifiedError),
        (Version::V5, Reason::TopicFilterInvalid),
    ] {
        let mut world = World::open();
        let client = world.client(version, "c");
        world.subscribe(client, &[("a", options(1)), ("$replay/b/c", options(1)), ("c", options(2))], &[]);
        let reasons = world.take(client)[0].reasons.clone();
        assert_eq!(reasons, [Reason::GrantedQoS1, bad, Reason::GrantedQoS2], "{version:?}");
    }
}

#[test]
fn what_may_not_be_read_at_all_is_refused_and_the_rest_checked_topic_by_topic() {
    let acl = "topic read open/#\nuser w\ntopic #\n";
    for way in ["", "$replay/earliest/"] {
        let mut world =
            World::new(Setup { acl: Some(acl), anonymous: AnonymousMode::Read, ..Setup::default() });
        let writer = world.user(Version::V311, "w");
        let write = |world: &mut World| {
            for topic in ["open/1", "closed/1", "open/2"] {
                world.publish(writer, topic, topic, 0, 0);
            }
            world.settle();
        };
        if !way.is_empty() {
            write(&mut world);
        }
        let clients: Vec<usize> = [Version::V5, Version::V311, Version::V31]
            .into_iter()
            .map(|version| world.client(version, &format!("{version:?}")))
            .collect();
        let denied: Vec<Reason> =
            clients.iter().map(|client| world.subscribed(*client, &format!("{way}closed/#"), 0)).collect();
        let expected = [Reason::NotAuthorized, Reason::UnspecifiedError, Reason::Success];
        assert_eq!(denied, expected, "3.1 is granted, and nothing comes");
        for client in &clients {
            world.subscribe(*client, &[(&format!("{way}#"), options(0))], &[]);
        }
        world.settle();
        if way.is_empty() {
            write(&mut world);
        }
        for client in clients {
            let got: Vec<_> = world
                .take(client)
                .into_iter()
                .filter(|it| it.kind == PacketKind::Publish)
                .map(|it| it.payload)
                .collect();
            assert_eq!(got, ["open/1", "open/2"], "{way}");
        }
    }
}

#[test]
fn a_reload_holds_for_subscriptions_that_are_there() {
    let mut world = World::new(Setup { acl: Some("topic #\n"), ..Setup::default() });
    let client = world.client(Version::V5, "c");
    let writer = world.client(Version::V5, "w");
    world.subscribed(client, "t/#", 0);
    world.reload_acl("topic read t/1\ntopic write #\n");
    for topic in ["t/1", "t/2"] {
        world.publish(writer, topic, topic, 0, 0);
    }
    assert_eq!(world.payloads(client), ["t/1"]);
    world.reload_acl("topic #\n");
    world.publish(writer, "t/2", "again", 0, 0);
    assert_eq!(world.payloads(client), ["again"]);
}

#[test]
fn above_the_limits_of_subscriptions_is_0x97() {
    let limits = Limits {
        subscriptions_per_client_max: 3,
        subscription_bytes_per_client_max: 40,
        ..Limits::default()
    };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let client = world.client(Version::V5, "c");
    assert_eq!(world.subscribed(client, &"x".repeat(41), 0), Reason::QuotaExceeded);
    for filter in ["a", "b", "c", "a", "b"] {
        assert_eq!(world.subscribed(client, filter, 0), Reason::Success, "the same filter is no new one");
    }
    assert_eq!(world.subscribed(client, "d", 0), Reason::QuotaExceeded);
    let packet = unsubscribe_packet(Version::V5, 1, &["a"]);
    world.send(client, &packet);
    world.take(client);
    assert_eq!(world.subscribed(client, "d", 0), Reason::Success);
    // Also when many packets come before the first one has its place in the order.
    let other = world.client(Version::V311, "o");
    let mut bytes = Vec::new();
    for number in 1..10 {
        let filter = number.to_string();
        bytes.extend(subscribe_packet(Version::V311, number, &[(&filter, options(0))], &[]));
    }
    world.send(other, &bytes);
    let granted = world.take(other).iter().filter(|it| it.reason() == Reason::Success).count();
    assert_eq!(granted, 3);
    assert_eq!(world.stats(0).subscriptions.get(), 6);
}

#[test]
fn unsubscribe_behind_subscribe_in_one_read_comes_behind_it() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::open();
        let (client, publisher) = (world.client(version, "c"), world.client(version, "p"));
        let mut bytes = subscribe_packet(version, 1, &[("a", options(0)), ("b", options(0))], &[]);
        bytes.extend(unsubscribe_packet(version, 2, &["a", "never"]));
        world.send(client, &bytes);
        let got = world.take(client);
        let kinds: Vec<_> = got.iter().map(|it| (it.kind, it.id)).collect();
        assert_eq!(kinds, [(PacketKind::SubAck, 1), (PacketKind::UnsubAck, 2)]);
        if version == Version::V5 {
            let expected = [Reason::Success, Reason::NoSubscriptionExisted];
            assert_eq!(got[1].reasons, expected);
        }
        for topic in ["a", "b"] {
            world.publish(publisher, topic, topic, 0, 0);
        }
        assert_eq!(world.payloads(client), ["b"]);
    }
}

#[test]
fn a_publish_behind_a_subscribe_in_one_read_is_delivered_by_it() {
    let mut world = World::open();
    let client = world.client(Version::V5, "c");
    let before = crate::client::publish("t", "before", 0, 0);
    let behind = crate::client::publish("t", "behind", 0, 0);
    let bytes = |packet| crate::client::bytes_of(&firehose_mqtt::Packet::Publish(packet), Version::V5);
    let mut all = bytes(before);
    let cursor = [Property::UserProperty("firehose-cursor", "on")];
    all.extend(subscribe_packet(Version::V5, 1, &[("t", options(0))], &cursor));
    all.extend(bytes(behind));
    world.send(client, &all);
    let got = world.take(client);
    assert_eq!(got[0].kind, PacketKind::SubAck);
    let head = Cursor::parse(got[0].user("firehose-cursor").unwrap()).unwrap();
    assert_eq!((head.offset, got.len(), got[1].payload.as_str()), (1, 2, "behind"));
    let cursor = Cursor::parse(got[1].user("firehose-cursor").unwrap()).unwrap();
    assert_eq!(cursor.offset, 2);
}

#[test]
fn nothing_but_subscriptions_of_this_shard_costs_it_a_message() {
    for version in V3 {
        let mut world = World::new(Setup { shards: 2, ..Setup::default() });
        let clients: Vec<usize> = (0..8).map(|it| world.client(version, &it.to_string())).collect();
        let publisher = clients[0];
        let busy = world.clients[publisher].host;
        let other = *clients.iter().find(|it| world.clients[**it].host != busy).unwrap();
        let host = world.clients[other].host;
        world.publish(publisher, "t", "x", 0, 0);
        world.exchange(busy);
        assert!(!world.exchange(host), "nobody there subscribes");
        world.subscribed(other, "t", 0);
        world.publish(publisher, "t", "y", 0, 0);
        assert_eq!(world.payloads(other), ["y"]);
        world.hang_up(other);
        world.publish(publisher, "t", "x", 0, 0);
        world.exchange(busy);
        assert!(!world.exchange(host), "nobody there subscribes any more");
    }
}

#[test]
fn deep_filters_and_long_ways_to_write_a_time_count_for_the_memory_they_take() {
    let limits = Limits { subscription_bytes_per_client_max: 1_000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let client = world.client(Version::V5, "c");
    assert_eq!(world.subscribed(client, &"/".repeat(40), 0), Reason::QuotaExceeded);
    let written = format!("$replay/-{}1s/t", "0".repeat(1_000));
    assert_eq!(world.subscribed(client, &written, 0), Reason::QuotaExceeded);
    for _ in 0..3 {
        assert_eq!(world.subscribed(client, &"/".repeat(25), 0), Reason::Success, "given back each time");
        let packet = unsubscribe_packet(Version::V5, 1, &[&"/".repeat(25)]);
        world.send(client, &packet);
        world.take(client);
    }
}
