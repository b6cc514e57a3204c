//! Arrivals that wait for the state: who goes first, who is refused, who does not have to wait.

use crate::client::start_packet;
use crate::session::{VERSIONS, again, arrive, connect, subscribed_and_left};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{PacketKind, Property, Reason, Version};

#[test]
fn who_wants_no_session_and_has_none_does_not_wait_for_the_state() {
    let mut world = World::open();
    world.state.waits = true;
    for version in VERSIONS {
        world.client(version, "passing");
    }
}

#[test]
fn a_second_arrival_of_a_name_takes_over_the_first_which_still_waited() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
    world.state.waits = true;
    let clients: Vec<usize> = (0..3).map(|_| arrive(&mut world, Version::V5, false, "s", &[])).collect();
    world.settle();
    assert!(clients.iter().all(|client| world.clients[*client].packets.is_empty()));
    world.state.waits = false;
    world.settle();
    for (index, client) in clients.iter().enumerate() {
        let packets = world.heard(*client);
        assert!(packets[0].session_present);
        assert_eq!(world.clients[*client].closed, index < 2);
        if index < 2 {
            assert_eq!(packets[1].reason(), Reason::SessionTakenOver);
        }
    }
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "t", "x", 1, 1);
    assert_eq!(world.payloads(clients[2]), ["x"]);
}

#[test]
fn a_clean_one_that_comes_while_another_waits_stands_behind_it() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
    world.state.waits = true;
    let first = arrive(&mut world, Version::V5, false, "s", &[]);
    let packet = start_packet(Version::V5, true, "s", &[]);
    let second = world.arrive(packet, Identity::anonymous(), "s", None);
    world.settle();
    world.state.waits = false;
    let connack = world.take(second).remove(0);
    assert!(!connack.session_present && world.clients[first].closed);
    world.hang_up(second);
    let (_, connack) = connect(&mut world, Version::V5, "s", &[]);
    assert!(!connack.session_present);
}

#[test]
fn who_waits_too_long_is_told_that_the_bus_is_not_available() {
    let limits = Limits { connect_timeout_secs: 10, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    subscribed_and_left(&mut world, Version::V311, "s", "t", 1);
    world.state.waits = true;
    let late = arrive(&mut world, Version::V311, false, "s", &[]);
    let behind = arrive(&mut world, Version::V5, false, "s", &[]);
    world.settle();
    world.pass(9_000);
    assert!(!world.clients[late].closed);
    world.pass(3_000);
    assert_eq!(world.heard(late)[0].reason(), Reason::ServerUnavailable);
    assert_eq!(world.heard(behind)[0].reason(), Reason::ServerUnavailable);
    assert!(world.clients[late].closed && world.clients[behind].closed);
    let third = arrive(&mut world, Version::V311, false, "s", &[]);
    world.state.waits = false;
    assert!(world.take(third)[0].session_present, "nothing is lost by it");
    world.hang_up(third);
    again(&mut world, Version::V311, "s");
}

#[test]
fn the_bus_stops_while_one_waits() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V311, "s", "t", 1);
    world.state.waits = true;
    let client = arrive(&mut world, Version::V311, false, "s", &[]);
    world.settle();
    world.sequencer.send(0, Message::Shutdown);
    world.settle();
    assert_eq!(world.heard(client)[0].reason(), Reason::ServerUnavailable);
    assert!(world.shard(0).is_empty());
    world.state.waits = false;
    world.settle();
    world.crash(true);
    again(&mut world, Version::V311, "s");
}

#[test]
fn over_a_cap_a_new_session_is_refused_and_an_old_one_goes_on() {
    let limits = Limits { anonymous_sessions_per_address_max: 1, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let from = Some("203.0.113.1".parse().unwrap());
    let mut come = |version, id: &str| {
        let list = [Property::SessionExpiry(100)];
        let packet = start_packet(version, false, id, if version == Version::V5 { &list } else { &[] });
        let client = world.arrive(packet, Identity::anonymous(), id, from);
        (world.take(client).remove(0), world.clients[client].closed)
    };
    assert_eq!(come(Version::V5, "one").0.reason(), Reason::Success);
    let (connack, closed) = come(Version::V5, "two");
    assert_eq!((connack.reason(), closed), (Reason::QuotaExceeded, true));
    // Return code 3.
    let (connack, closed) = come(Version::V311, "two");
    assert_eq!((connack.reason(), closed), (Reason::ServerUnavailable, true));
    assert!(come(Version::V5, "one").0.session_present);
}

#[test]
fn an_anonymous_session_is_its_address_s_but_one_with_a_drawn_id_roams() {
    let mut world = World::open();
    let mut come = |id: &str, from: &str| {
        let packet = start_packet(Version::V5, false, id, &[Property::SessionExpiry(100)]);
        let client = world.arrive(packet, Identity::anonymous(), id, Some(from.parse().unwrap()));
        world.take(client).remove(0).session_present
    };
    assert!(!come("s", "203.0.113.1"));
    assert!(!come("s", "203.0.113.2"));
    assert!(come("s", "203.0.113.1"));
    assert!(!come("auto-1", "203.0.113.1"));
    assert!(come("auto-1", "203.0.113.2"));
}

#[test]
fn a_user_who_goes_while_waiting_is_refused() {
    let mut world = World::new(Setup { users: vec!["a", "b"], ..Setup::default() });
    world.state.waits = true;
    let packet = start_packet(Version::V311, false, "s", &[]);
    let client = world.arrive(packet, Identity::user("a"), "s", None);
    world.settle();
    world.remove_user("a");
    world.state.waits = false;
    assert_eq!(world.take(client)[0].reason(), Reason::NotAuthorized);
    assert!(world.clients[client].closed);
}

#[test]
fn what_follows_connect_is_looked_at_once_the_session_is_there() {
    let mut world = World::open();
    subscribed_and_left(&mut world, Version::V5, "s", "t", 0);
    let mut bytes = start_packet(Version::V5, false, "s", &[Property::SessionExpiry(100)]);
    let publish = firehose_mqtt::Packet::Publish(crate::client::publish("t", "x", 0, 0));
    bytes.extend(crate::client::bytes_of(&publish, Version::V5));
    let client = world.arrive(bytes, Identity::anonymous(), "s", None);
    let got: Vec<_> = world.take(client).into_iter().map(|it| it.kind).collect();
    assert_eq!(got, [PacketKind::ConnAck, PacketKind::Publish]);
}

#[test]
fn what_waits_for_the_state_is_bounded_and_the_largest_are_refused() {
    let limits = Limits { connecting_bytes_max: 10_000, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    world.state.waits = true;
    let text = "x".repeat(4_000);
    let large = [Property::UserProperty("a", &text), Property::SessionExpiry(3600)];
    let send = |world: &mut World, id: &str, list: &[Property<'_>]| {
        let packet = start_packet(Version::V5, false, id, list).into_boxed_slice().into_vec();
        world.arrive(packet, Identity::anonymous(), id, None)
    };
    let larges: Vec<usize> = (0..2).map(|n| send(&mut world, &format!("large-{n}"), &large)).collect();
    let smalls: Vec<usize> = (0..20).map(|n| send(&mut world, &format!("small-{n}"), &large[1..])).collect();
    world.settle();
    assert!(larges.iter().chain(&smalls).all(|client| !world.clients[*client].closed));
    let third = send(&mut world, "large-2", &large);
    world.settle();
    let all: Vec<usize> = larges.into_iter().chain([third]).collect();
    let refused: Vec<usize> = all.iter().copied().filter(|client| world.clients[*client].closed).collect();
    assert_eq!(refused.len(), 1, "one of the large ones");
    assert_eq!(world.heard(refused[0])[0].reason(), Reason::ServerUnavailable);
    world.state.waits = false;
    world.settle();
    for client in smalls.into_iter().chain(all).filter(|client| *client != refused[0]) {
        assert_eq!(world.heard(client)[0].reason(), Reason::Success);
    }
    // Nothing counts any more.
    world.state.waits = true;
    let again = send(&mut world, "large-3", &large);
    world.settle();
    assert!(!world.clients[again].closed);
}

/// Leaves a session that lives for 100 s, and comes back 50 s later to be refused before the state has looked at it, or while it does.
fn refused(expiry_secs: u32, stops: bool, steps: usize) -> World {
    let limits = Limits { connect_timeout_secs: 10, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let (client, _) = connect(&mut world, Version::V5, "s", &[Property::SessionExpiry(100)]);
    world.hang_up(client);
    world.pass(50_000);
    world.state.waits = true;
    let client = arrive(&mut world, Version::V5, false, "s", &[Property::SessionExpiry(expiry_secs)]);
    world.settle();
    match stops {
        true => drop(world.sequencer.send(0, Message::Shutdown)),
        false => world.pass(12_000),
    }
    world.settle();
    assert_eq!(world.heard(client)[0].reason(), Reason::ServerUnavailable);
    world.state.waits = false;
    _ = (0..steps).any(|_| !world.step());
    world
}

#[test]
fn who_is_refused_after_it_waited_leaves_its_session_as_it_was() {
    for expiry_secs in [0, 10, 100, 100_000] {
        for steps in [1, 2, 100] {
            for power in [None, Some(false), Some(true)] {
                let open = |stops, later_ms| {
                    let mut world = refused(expiry_secs, stops, steps);
                    if let Some(loses_power) = power.or(stops.then_some(false)) {
                        world.crash(loses_power);
                    }
                    world.pass(later_ms);
                    connect(&mut world, Version::V5, "s", &[]).1.session_present
                };
                assert!(open(false, 30_000), "expiry {expiry_secs}, {steps} steps, {power:?}");
                assert!(open(true, 30_000), "expiry {expiry_secs}, {steps} steps, {power:?}");
                if steps == 100 {
                    assert!(!open(false, 40_000), "it lives no longer for it");
                }
            }
        }
    }
}

#[test]
fn at_whatever_step_of_its_return_the_bus_dies_a_session_has_its_new_expiry_once_its_client_was_let_in() {
    for loses_power in [false, true] {
        let mut outcomes = Vec::new();
        for steps in 0.. {
            let mut world = World::open();
            subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
            let back = arrive(&mut world, Version::V5, false, "s", &[Property::SessionExpiry(0)]);
            let is_over = (0..steps).any(|_| !world.step());
            let let_in = !world.heard(back).is_empty();
            world.crash(loses_power);
            outcomes.push((let_in, connect(&mut world, Version::V5, "s", &[]).1.session_present));
            if is_over {
                break;
            }
        }
        assert!(outcomes.iter().all(|(let_in, goes_on)| !(*let_in && *goes_on)), "{outcomes:?}");
        assert_eq!((outcomes[0], outcomes.last()), ((false, true), Some(&(true, false))), "{outcomes:?}");
        assert!(outcomes.is_sorted_by_key(|(_, goes_on)| !goes_on), "{outcomes:?}");
    }
}

#[test]
fn a_new_session_whose_client_is_refused_after_it_waited_is_none() {
    let limits = Limits { connect_timeout_secs: 10, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    world.state.waits = true;
    let client = arrive(&mut world, Version::V5, false, "s", &[]);
    world.settle();
    world.pass(12_000);
    assert_eq!(world.heard(client)[0].reason(), Reason::ServerUnavailable);
    world.state.waits = false;
    world.settle();
    assert!(!connect(&mut world, Version::V5, "s", &[]).1.session_present, "[MQTT-3.2.2-4]");
}
