//! SUBSCRIBE and UNSUBSCRIBE with very many filters: they are looked at a few in a turn, others are served between, and one
//! answer comes when all are done.

use crate::client::{Got, options, publish, subscribe_packet, unsubscribe_packet};
use crate::session::{VERSIONS, again, connect};
use crate::world::{Setup, World};
use firehose_auth::{AnonymousMode, AuthConfig, Identity};
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Packet, PacketKind, Property, Reason, Version};

const PINGREQ: [u8; 2] = [0xc0, 0];
/// Filters of one packet that a turn looks at.
const SHARE: usize = 256;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t/{number}")).collect()
}

fn unsubscribe(version: Version, filters: &[String]) -> Vec<u8> {
    unsubscribe_packet(version, 8, &filters.iter().map(String::as_str).collect::<Vec<_>>())
}

fn subscribe(version: Version, filters: &[String], list: &[Property<'_>]) -> Vec<u8> {
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options(0))).collect();
    subscribe_packet(version, 9, &filters, list)
}

/// Takes turns until the client has been sent something; gives it, and how many turns it took. `between` comes before each.
fn answered(world: &mut World, client: usize, mut between: impl FnMut(&mut World)) -> (Vec<Got>, usize) {
    for turn in 1..10_000 {
        between(world);
        world.exchange(0);
        world.flush(0);
        world.turn_of_state();
        let got = world.heard(client);
        if !got.is_empty() || world.clients[client].closed {
            return (got, turn);
        }
    }
    panic!("it is never answered");
}

#[test]
fn an_unsubscribe_of_16_000_filters_takes_many_turns_and_others_are_served_in_each() {
    for version in VERSIONS {
        let mut world = World::open();
        let (hostile, other) = (world.client(version, "hostile"), world.client(Version::V311, "other"));
        let filters = names(16_000);
        world.send(hostile, &subscribe(version, &filters[15_500..], &[]));
        world.settle();
        assert_eq!(world.take(hostile)[0].reasons, vec![Reason::Success; 500]);
        world.send(hostile, &[unsubscribe(version, &filters), PINGREQ.to_vec()].concat());
        assert!(world.clients[hostile].is_paused(), "what it sent behind that waits");
        let mut pings = 0;
        let (got, turns) = answered(&mut world, hostile, |world| {
            pings += world.heard(other).len();
            world.send(other, &PINGREQ);
        });
        assert!(turns >= 2 * 16_000 / SHARE, "{turns}");
        assert!(pings + 1 >= turns, "{pings} answers in {turns} turns");
        assert_eq!((got.len(), got[0].kind, got[0].id), (1, PacketKind::UnsubAck, 8));
        if version == Version::V5 {
            let (unknown, known) = got[0].reasons.split_at(15_500);
            assert!(unknown.iter().all(|it| *it == Reason::NoSubscriptionExisted));
            assert_eq!(known, vec![Reason::Success; 500]);
        }
        assert_eq!(world.take(hostile)[0].kind, PacketKind::PingResp, "behind its answer");
        assert_eq!((world.stats(0).subscriptions.get(), world.clients[hostile].is_paused()), (0, false));
    }
}

#[test]
fn ten_clients_with_very_many_filters_share_the_turns() {
    let mut world = World::open();
    let clients: Vec<usize> = (0..10).map(|it| world.client(Version::V5, &format!("c {it}"))).collect();
    let packet = unsubscribe(Version::V5, &names(2_000));
    clients.iter().for_each(|client| world.send(*client, &packet));
    let (_, first) = answered(&mut world, clients[0], |_| {});
    let looked_at_twice = 2 * 2_000;
    assert!(first > 2 * looked_at_twice / SHARE, "four of ten have a share in each turn: {first}");
    world.settle();
    assert!(clients[1..].iter().all(|client| world.take(*client)[0].reasons.len() == 2_000));
}

/// A level costs as much as a short filter, however few filters they stand in.
#[test]
fn filters_of_very_many_levels_have_their_turns_too() {
    let mut world = World::open();
    let deep = ["x/".repeat(6_400)];
    let both = [subscribe(Version::V5, &deep, &[]), unsubscribe(Version::V5, &deep)].concat();
    let clients: Vec<usize> = (0..20).map(|it| world.client(Version::V5, &format!("c {it}"))).collect();
    for client in &clients {
        world.send(*client, &both.repeat(3));
        assert!(world.clients[*client].is_paused(), "what it sent behind that waits");
    }
    let (mut turns, mut before) = (0, 0);
    while world.exchange(0) {
        turns += 1;
        let there = world.stats(0).subscriptions.get();
        assert!(there <= before + 6, "{before}, and a turn later {there}");
        before = there;
        world.flush(0);
    }
    assert!(turns >= 6 * clients.len() / 6, "{turns}");
    for client in clients {
        let kinds: Vec<PacketKind> = world.take(client).iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [PacketKind::SubAck, PacketKind::UnsubAck].repeat(3));
    }
}

#[test]
fn a_subscribe_with_many_filters_begins_for_all_of_them_at_one_place() {
    for version in VERSIONS {
        let limits = Limits {
            subscriptions_per_client_max: 3_000,
            subscription_bytes_per_client_max: 1 << 20,
            ..Limits::default()
        };
        let mut world = World::new(Setup { limits, ..Setup::default() });
        let (reader, publisher) = (world.client(version, "reader"), world.client(Version::V311, "publisher"));
        world.send(reader, &subscribe(version, &names(4_000), &[]));
        let mut round = 0;
        let publish_both = |world: &mut World, round: usize| {
            for topic in ["t/0", "t/2999"] {
                world.send_packet(publisher, &Packet::Publish(publish(topic, &round.to_string(), 0, 0)));
            }
        };
        let (mut got, turns) = answered(&mut world, reader, |world| {
            round += 1;
            publish_both(world, round);
        });
        assert!(turns >= 3_000 / SHARE, "{turns}");
        publish_both(&mut world, usize::MAX);
        got.extend(world.take(reader));
        let place = got.iter().position(|it| it.kind == PacketKind::SubAck).expect("a SUBACK");
        let suback = got.remove(place);
        let refused = if version == Version::V5 { Reason::QuotaExceeded } else { Reason::UnspecifiedError };
        let granted = |number: usize| if number < 3_000 { Reason::Success } else { refused };
        assert!(suback.reasons.iter().copied().eq((0..4_000).map(granted)));
        let of = |topic: &str| -> Vec<String> {
            got.iter().filter(|it| it.topic == topic).map(|it| it.payload.clone()).collect()
        };
        assert!(!of("t/0").is_empty());
        assert_eq!(of("t/0"), of("t/2999"));
    }
}

#[test]
fn one_malformed_filter_behind_many_closes_before_anything_changed() {
    for version in VERSIONS {
        for unsubscribes in [false, true] {
            let mut world = World::open();
            let client = world.client(version, "c");
            world.subscribed(client, "t/0", 0);
            let mut filters = names(900);
            filters.push("t/#/t".into());
            world.send(
                client,
                &match unsubscribes {
                    true => unsubscribe(version, &filters),
                    false => subscribe(version, &filters, &[]),
                },
            );
            for _ in 0..3 {
                assert_eq!(world.stats(0).subscriptions.get(), 1);
                world.exchange(0);
            }
            let told = world.take(client);
            assert!(world.clients[client].closed);
            match version {
                Version::V5 => assert_eq!(told[0].reasons, [Reason::MalformedPacket]),
                _ => assert!(told.is_empty()),
            }
            assert_eq!((world.stats(0).subscriptions.get(), world.kept.bytes()), (0, 0));
            let next = world.client(version, "c");
            assert_eq!(world.subscribed(next, "#", 0), Reason::Success);
        }
    }
}

/// Who is gone in the middle was answered nothing: of what it asked for, the first so many are done.
#[test]
fn who_is_gone_in_the_middle_has_a_session_that_agrees_with_itself() {
    for crashes in [false, true] {
        for turns in [1, 5, 6, 7] {
            let mut world = World::open();
            let publisher = world.client(Version::V311, "publisher");
            let (client, _) = connect(&mut world, Version::V5, "c", &[]);
            let filters = names(900);
            world.send(client, &subscribe(Version::V5, &filters, &[]));
            assert_eq!(world.take(client)[0].reasons, vec![Reason::Success; 900]);
            world.send(client, &unsubscribe(Version::V5, &filters));
            for _ in 0..turns {
                world.exchange(0);
            }
            let left = world.stats(0).subscriptions.get() as usize;
            assert!(world.heard(client).is_empty() && (turns == 1) == (left == 900), "{left} after {turns}");
            match crashes {
                true => world.crash(false),
                false => world.hang_up(client),
            }
            let publisher = if crashes { world.client(Version::V311, "publisher") } else { publisher };
            let client = again(&mut world, Version::V5, "c");
            // Nothing of it was acknowledged: whether it was saved before the bus died, nobody can say.
            let left = if crashes { world.stats(0).subscriptions.get() as usize } else { left };
            assert_eq!(world.stats(0).subscriptions.get() as usize, left);
            for filter in &filters {
                world.publish(publisher, filter, filter, 0, 0);
            }
            assert_eq!(world.payloads(client), filters[900 - left..]);
            world.send(client, &unsubscribe(Version::V5, &filters));
            assert_eq!(world.take(client)[0].reasons.len(), 900);
            assert_eq!(world.stats(0).subscriptions.get(), 0);
        }
    }
}

#[test]
fn rules_that_change_while_a_subscribe_is_looked_at_hold_for_it() {
    let setup = Setup {
        users: vec!["alice", "bob"],
        acl: Some("user bob\ntopic read #\nuser alice\ntopic write #\n"),
        ..Setup::default()
    };
    let mut world = World::new(setup);
    let (reader, publisher) = (world.user(Version::V5, "bob"), world.user(Version::V311, "alice"));
    world.send(reader, &subscribe(Version::V5, &names(900), &[]));
    world.exchange(0);
    assert!(world.heard(reader).is_empty());
    world.reload_acl("user bob\ntopic read #\ntopic deny t/1\nuser alice\ntopic write #\n");
    assert_eq!(world.take(reader)[0].reasons.len(), 900);
    for topic in ["t/0", "t/1", "t/2"] {
        world.publish(publisher, topic, topic, 0, 0);
    }
    assert_eq!(world.payloads(reader), ["t/0", "t/2"]);
}

/// Its first filters were looked at when the anonymous might still join groups.
#[test]
fn nobody_anonymous_joins_a_group_whom_the_rules_forbid_it_meanwhile() {
    let mut world = World::open();
    let reader = world.client(Version::V5, "reader");
    let mut filters = names(900);
    filters[0] = "$share/g/t/0".into();
    world.send(reader, &subscribe(Version::V5, &filters, &[]));
    world.exchange(0);
    assert!(world.heard(reader).is_empty());
    world
        .access
        .reload_with(AuthConfig { anonymous: AnonymousMode::Read, ..AuthConfig::default() })
        .expect("reloads");
    world.sequencer.send(0, Message::Reload);
    let reasons = world.take(reader)[0].reasons.clone();
    assert_eq!((reasons[0], reasons[1]), (Reason::NotAuthorized, Reason::Success));
    assert_eq!(world.state.state.group_names().count(), 0);
}

#[test]
fn filters_on_their_way_count_as_kept_until_they_are_answered() {
    let limits = Limits { kept_bytes_max: 4 << 20, packet_bytes_max: 1 << 20, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let packet = unsubscribe(Version::V5, &names(90_000));
    let mut open = Vec::new();
    for number in 0..6 {
        let name = format!("m {number}");
        let connect = crate::client::connect_packet(Version::V5, &name, &[]);
        let client = world.arrive(connect, Identity::user("mallory"), &name, None);
        while world.heard(client).is_empty() {
            world.exchange(0);
            world.flush(0);
        }
        world.send(client, &packet);
        open.push(client);
    }
    assert!(world.kept.bytes() <= 2 << 20, "{}", world.kept.bytes());
    world.settle();
    open.retain(|client| !world.clients[*client].closed);
    assert!((1..6).contains(&open.len()), "{} are left", open.len());
    assert!(open.into_iter().all(|client| world.take(client)[0].reasons.len() == 90_000));
    assert_eq!(world.kept.bytes(), 0);
}

#[test]
fn a_subscribe_keeps_nothing_of_what_its_client_may_not_have_and_a_turn_looks_at_few_long_filters() {
    for prefix in ["", "$share/g/", "$replay/-1h/"] {
        let limits = Limits { packet_bytes_max: 17 << 20, ..Limits::default() };
        let mut world = World::new(Setup { limits, ..Setup::default() });
        let client = world.client(Version::V5, "c");
        let long = |number: usize| format!("{prefix}{number}{}", "x".repeat(16_000));
        let filters: Vec<String> = (0..1_000).map(long).collect();
        world.send(client, &subscribe(Version::V5, &filters, &[]));
        // What was written, and what may be made of it until it has its place.
        let kept = world.kept.bytes();
        assert!((256 << 10..5 * (256 << 10)).contains(&kept), "{kept}");
        let (got, turns) = answered(&mut world, client, |_| {});
        assert!(turns + 1 >= (256 << 10) / (SHARE * 256), "{turns} and the first");
        let granted = got[0].reasons.iter().filter(|it| !it.is_error()).count();
        assert!((7..=16).contains(&granted), "{granted}");
        let (within, beyond) = got[0].reasons.split_at(16);
        assert!(within.iter().chain(beyond).all(|it| !it.is_error() || *it == Reason::QuotaExceeded));
        assert_eq!((within[0], beyond.len()), (Reason::Success, 984));
        assert!(beyond.iter().all(|it| *it == Reason::QuotaExceeded));
    }
}
