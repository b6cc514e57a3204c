//! What subscribers get of an event, live and replayed alike.

use crate::client::{ack, options, properties, publish};
use crate::world::{Setup, World};
use firehose_mqtt::{Packet, PacketKind, Property, Publish, SubscribeOptions, Version};

/// Each way to get an event: live, and from the log.
const WAYS: [&str; 2] = ["", "$replay/earliest/"];

/// Publishes before or after `subscribe`, as the way has it.
fn by(
    way: &str,
    world: &mut World,
    publish: impl Fn(&mut World),
    subscribe: impl Fn(&mut World, &dyn Fn(&str) -> String),
) {
    let written = |filter: &str| format!("{way}{filter}");
    if way.is_empty() {
        subscribe(world, &written);
        world.settle();
        publish(world);
    } else {
        publish(world);
        world.settle();
        subscribe(world, &written);
    }
    world.settle();
}

fn publishes(world: &mut World, client: usize) -> Vec<crate::client::Got> {
    world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish).collect()
}

#[test]
fn overlapping_filters_are_one_copy_with_the_highest_qos_and_all_identifiers() {
    for since in [None, Some("earliest")] {
        let mut world = World::open();
        let (publisher, reader) = (world.client(Version::V5, "p"), world.client(Version::V5, "r"));
        let subscribe = |world: &mut World| {
            let since = since.map(|since| Property::UserProperty("since", since));
            for (filter, qos, id) in [("a/#", 0, 1), ("a/+", 2, 2), ("+/b", 1, 300), ("c", 2, 4)] {
                let mut list = vec![Property::SubscriptionId(id)];
                list.extend(since);
                if since.is_none() {
                    world.subscribe(reader, &[(filter, options(qos))], &list);
                }
            }
            if let Some(since) = since {
                let filters = [("a/#", options(0)), ("a/+", options(2)), ("+/b", options(1))];
                world.subscribe(reader, &filters, &[Property::SubscriptionId(7), since]);
            }
            world.settle();
        };
        if since.is_none() {
            subscribe(&mut world);
            world.publish(publisher, "a/b", "x", 2, 1);
        } else {
            world.publish(publisher, "a/b", "x", 2, 1);
            world.settle();
            subscribe(&mut world);
        }
        let mut got = publishes(&mut world, reader);
        assert_eq!(got.len(), 1);
        got[0].ids.sort_unstable();
        let ids: &[u32] = if since.is_none() { &[1, 2, 300] } else { &[7, 7, 7] };
        assert_eq!((got[0].qos, got[0].ids.as_slice()), (2, ids));
    }
}

#[test]
fn no_local_spares_the_publisher_only() {
    for way in WAYS {
        let mut world = World::open();
        let (own, other) = (world.client(Version::V5, "own"), world.client(Version::V5, "other"));
        let no_local = SubscribeOptions { no_local: true, ..options(0) };
        let publish = |world: &mut World| {
            for (client, payload) in [(own, "1"), (other, "2"), (own, "3"), (other, "4")] {
                world.publish(client, "t", payload, 0, 0);
            }
        };
        by(way, &mut world, publish, |world, written| {
            for client in [own, other] {
                world.subscribe(client, &[(&written("t"), no_local)], &[]);
            }
        });
        let payloads = |world: &mut World, client| -> Vec<String> {
            publishes(world, client).into_iter().map(|it| it.payload).collect()
        };
        assert_eq!(payloads(&mut world, own), ["2", "4"], "{way}");
        assert_eq!(payloads(&mut world, other), ["1", "3"], "{way}");
    }
}

#[test]
fn own_events_come_by_the_subscriptions_without_no_local_alone() {
    let mut world = World::open();
    let (own, other) = (world.client(Version::V5, "own"), world.client(Version::V5, "other"));
    let no_local = SubscribeOptions { no_local: true, ..options(2) };
    world.subscribe(own, &[("#", no_local)], &[Property::SubscriptionId(1)]);
    world.subscribe(own, &[("t", options(1))], &[Property::SubscriptionId(2)]);
    world.take(own);
    world.publish(own, "t", "own", 2, 1);
    world.publish(other, "t", "other", 2, 1);
    let got = publishes(&mut world, own);
    assert_eq!((got[0].payload.as_str(), got[0].qos, got[0].ids.as_slice()), ("own", 1, &[2][..]));
    assert_eq!((got[1].payload.as_str(), got[1].qos, got[1].ids.len()), ("other", 2, 2));
}

#[test]
fn the_retain_flag_is_kept_for_those_who_ask_only() {
    for way in WAYS {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let (asks, not, old) = (
            world.client(Version::V5, "1"),
            world.client(Version::V5, "2"),
            world.client(Version::V311, "3"),
        );
        let as_published = SubscribeOptions { retain_as_published: true, ..options(1) };
        let publish = |world: &mut World| {
            let packet = Publish { retain: true, ..publish("t", "x", 1, 1) };
            world.send_packet(publisher, &Packet::Publish(packet));
            world.publish(publisher, "t", "y", 1, 2);
        };
        by(way, &mut world, publish, |world, written| {
            world.subscribe(asks, &[(&written("t"), as_published)], &[]);
            world.subscribe(not, &[(&written("t"), options(1))], &[]);
            world.subscribe(old, &[(&written("t"), options(1))], &[]);
        });
        let flags = |world: &mut World, client| -> Vec<bool> {
            publishes(world, client).iter().map(|it| it.retain).collect()
        };
        assert_eq!(flags(&mut world, asks), [true, false]);
        assert_eq!(flags(&mut world, not), [false, false]);
        assert_eq!(flags(&mut world, old), [false, false]);
    }
}

#[test]
fn properties_pass_unaltered_and_in_order() {
    for way in WAYS {
        let mut world = World::open();
        let (publisher, reader, old) = (
            world.client(Version::V5, "p"),
            world.client(Version::V5, "r"),
            world.client(Version::V311, "o"),
        );
        let list = [
            Property::PayloadFormat(1),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("re"),
            Property::CorrelationData(b"42"),
            Property::UserProperty("b", "1"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("b", "3"),
        ];
        let publish = |world: &mut World| {
            let properties = properties(&list);
            let packet = Publish { properties: properties.as_properties(), ..publish("t", "x", 0, 0) };
            world.send_packet(publisher, &Packet::Publish(packet));
        };
        by(way, &mut world, publish, |world, written| {
            world.subscribe(reader, &[(&written("t"), options(0))], &[]);
            world.subscribe(old, &[(&written("t"), options(0))], &[]);
        });
        let got = &publishes(&mut world, reader)[0];
        let user: Vec<_> = got.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(user, [("b", "1"), ("a", "2"), ("b", "3")]);
        for property in list.iter().take(4) {
            assert!(got.has(&format!("{property:?}")), "{property:?} in {got:?}");
        }
        assert_eq!(publishes(&mut world, old)[0].payload, "x");
    }
}

#[test]
fn a_message_expires_while_it_waits_in_the_log() {
    let mut world = World::open();
    let (publisher, reader) = (world.client(Version::V5, "p"), world.client(Version::V5, "r"));
    for (payload, secs) in [("short", 10), ("long", 100)] {
        let properties = properties(&[Property::MessageExpiry(secs)]);
        let packet = Publish { properties: properties.as_properties(), ..publish("t", payload, 0, 0) };
        world.send_packet(publisher, &Packet::Publish(packet));
    }
    world.settle();
    world.pass(30_000);
    world.subscribe(reader, &[("$replay/earliest/t", options(0))], &[]);
    let got = publishes(&mut world, reader);
    assert_eq!(got.len(), 1);
    assert!(got[0].payload == "long" && got[0].has("MessageExpiry(70)"), "{got:?}");
}

#[test]
fn what_is_too_large_for_a_client_is_left_out() {
    for way in WAYS {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let small = world.client_with(Version::V5, "r", &[Property::MaximumPacketSize(100)]);
        let publish = |world: &mut World| {
            for (payload, id) in [("1".to_owned(), 1), ("x".repeat(200), 2), ("3".to_owned(), 3)] {
                world.publish(publisher, "t", &payload, 1, id);
            }
        };
        by(way, &mut world, publish, |world, written| {
            world.subscribe(small, &[(&written("t"), options(1))], &[]);
        });
        let payloads: Vec<_> = publishes(&mut world, small).into_iter().map(|it| it.payload).collect();
        assert_eq!(payloads, ["1", "3"], "{way}");
    }
}

#[test]
fn the_window_of_a_client_is_kept() {
    for way in WAYS {
        let mut world = World::open();
        let publisher = world.client(Version::V311, "p");
        let reader = world.client_with(Version::V5, "r", &[Property::ReceiveMaximum(2)]);
        let publish = |world: &mut World| {
            for id in 1..6 {
                world.publish(publisher, "t", &id.to_string(), 2, id);
            }
        };
        by(way, &mut world, publish, |world, written| {
            world.subscribe(reader, &[(&written("t"), options(2))], &[]);
        });
        let got = publishes(&mut world, reader);
        let ids: Vec<_> = got.iter().map(|it| (it.payload.as_str(), it.id)).collect();
        assert_eq!(ids, [("1", 1), ("2", 2)], "{way}");
        world.send(reader, &ack(Packet::PubRec, 1, Version::V5));
        let release = world.take(reader);
        assert_eq!((release.len(), release[0].kind, release[0].id), (1, PacketKind::PubRel, 1));
        world.send(reader, &ack(Packet::PubComp, 1, Version::V5));
        let got = publishes(&mut world, reader);
        assert_eq!((got.len(), got[0].payload.as_str(), got[0].id), (1, "3", 3));
    }
}

#[test]
fn a_whole_batch_with_cursors_comes_although_it_fills_many_buffers() {
    let mut world = World::open();
    let publisher = world.client(Version::V311, "p");
    let reader = world.client_with(Version::V5, "r", &[Property::UserProperty("firehose-cursor", "on")]);
    world.subscribed(reader, "#", 0);
    let mut bytes = Vec::new();
    for number in 0..1000 {
        let payload = format!("{number} {}", "x".repeat(700));
        let packet = crate::client::publish("t", &payload, 0, 0);
        bytes.extend(crate::client::bytes_of(&Packet::Publish(packet), Version::V311));
    }
    world.send(publisher, &bytes);
    assert_eq!(publishes(&mut world, reader).len(), 1000);
}

#[test]
fn several_shards_see_one_order() {
    let mut world = World::new(Setup { shards: 4, ..Setup::default() });
    let publishers: Vec<usize> = (0..8).map(|it| world.client(Version::V311, &format!("p{it}"))).collect();
    let readers: Vec<usize> = (0..16).map(|it| world.client(Version::V311, &format!("r{it}"))).collect();
    for reader in &readers {
        world.subscribed(*reader, "#", 0);
    }
    for round in 0..50 {
        for publisher in &publishers {
            world.publish(*publisher, "t", &format!("{round} of {publisher}"), 0, 0);
        }
        world.exchange(round % 4);
    }
    let first = world.payloads(readers[0]);
    assert_eq!(first.len(), 400);
    for publisher in &publishers {
        let of = format!(" of {publisher}");
        let rounds: Vec<_> = first.iter().filter_map(|it| it.strip_suffix(&of)).collect();
        assert_eq!(rounds, (0..50).map(|round| round.to_string()).collect::<Vec<_>>(), "in its order");
    }
    for reader in &readers[1..] {
        assert_eq!(world.payloads(*reader), first);
    }
}

#[test]
fn topics_go_by_an_alias_once_it_is_set_to_who_takes_some() {
    let mut world = World::open();
    let publisher = world.client(Version::V5, "p");
    let takes = [(None, 0), (Some(0), 0), (Some(1), 1), (Some(2), 2), (Some(65_535), 16)];
    let readers = takes.map(|(max, limit)| {
        let list: Vec<_> = max.map(Property::TopicAliasMaximum).into_iter().collect();
        let reader = world.client_with(Version::V5, &format!("r{max:?}"), &list);
        world.subscribed(reader, "#", 2);
        world.take(reader);
        (reader, limit)
    });
    for round in 0..2_u16 {
        for number in 1..=20_u16 {
            let (topic, id) = (format!("topic/{number}"), round * 20 + number);
            world.publish(publisher, &topic, &topic, (number % 3) as u8, id);
        }
    }
    world.settle();
    for (reader, limit) in readers {
        let got = publishes(&mut world, reader);
        assert_eq!(got.len(), 40);
        for (index, it) in got.iter().enumerate() {
            let number = index % 20 + 1;
            let by_name = format!("topic/{number}");
            assert_eq!((&it.payload, it.id != 0), (&by_name, number % 3 > 0));
            let alias = it.has(&format!("TopicAlias({number})"));
            assert_eq!(alias, number <= limit, "{limit} {it:?}");
            let is_named = !alias || index < 20;
            assert_eq!(it.topic, if is_named { by_name } else { String::new() }, "{limit} {it:?}");
        }
    }
}

#[test]
fn aliases_wait_for_the_window_and_the_wire_as_everything_does() {
    let mut world = World::open();
    let publisher = world.client(Version::V311, "p");
    let list = [Property::TopicAliasMaximum(1), Property::ReceiveMaximum(1)];
    let reader = world.client_with(Version::V5, "r", &list);
    world.subscribed(reader, "#", 2);
    world.take(reader);
    for id in 1..=3 {
        world.publish(publisher, "t", "payload", 1, id);
    }
    world.settle();
    for (id, topic) in [(1, "t"), (2, ""), (3, "")] {
        let got = publishes(&mut world, reader);
        assert_eq!(got.iter().map(|it| (it.id, it.topic.as_str())).collect::<Vec<_>>(), [(id, topic)]);
        world.send(reader, &ack(Packet::PubAck, id, Version::V5));
        world.settle();
    }
}
