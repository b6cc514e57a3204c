//! Wills that a client calls back by coming: whenever the bus dies, none is lost to a client that was turned away, and none
//! is published although its client was let in.

use crate::client::{Got, publish};
use crate::wills::{CLIENT, Client, DELAYED, KEPT, count, reader, users};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Packet, PacketKind, Property, Reason, Version};

const BACK: Client<'_> = Client { session: KEPT, clean: false, has_will: false, ..CLIENT };

/// A client has left a will that waits for its delay, or for the client of a bus that was killed.
fn left(setup: Setup, is_orphan: bool) -> (World, usize) {
    let mut world = World::new(setup);
    let client = come(&mut world, &Client { session: KEPT, will: DELAYED, ..CLIENT });
    assert!(is_let_in(&world.take(client)));
    match is_orphan {
        true => world = world.reopen(true),
        false => world.hang_up(client),
    }
    let reader = reader(&mut world);
    (world, reader)
}

/// A client of this name comes, and is not answered yet.
pub fn come(world: &mut World, client: &Client<'_>) -> usize {
    world.arrive(client.connect(), Identity::anonymous(), "a", None)
}

/// The client comes back, and its will is to leave the file: nothing turns it away any more.
fn entering(world: &mut World, client: &Client<'_>) -> usize {
    world.state.waits = true;
    let back = come(world, client);
    world.settle();
    world.state.waits = false;
    assert!(world.turn_of_state(), "its session is opened");
    world.state.waits = true;
    world.settle();
    assert_eq!(world.heard(back), []);
    back
}

/// How often the will is published by the next bus, if nobody comes.
fn published_after(world: World, loses_power: bool) -> usize {
    let mut world = world.reopen(loses_power);
    let reader = reader(&mut world);
    world.pass(120_000);
    count(&mut world, reader)
}

pub fn is_let_in(packets: &[Got]) -> bool {
    packets.iter().any(|it| it.kind == PacketKind::ConnAck && it.reason() == Reason::Success)
}

#[test]
fn at_whatever_step_of_its_return_the_bus_dies_the_will_of_a_client_that_was_let_in_is_not_published() {
    for (is_orphan, loses_power) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut outcomes = Vec::new();
        for steps in 0.. {
            let (mut world, _) = left(Setup::default(), is_orphan);
            let back = come(&mut world, &BACK);
            let is_over = (0..steps).any(|_| !world.step());
            let let_in = is_let_in(&world.heard(back));
            outcomes.push((let_in, published_after(world, loses_power)));
            if is_over {
                break;
            }
        }
        let lost = |(let_in, count): &&(bool, usize)| *let_in && *count > 0;
        assert_eq!(outcomes.iter().find(lost), None, "{outcomes:?}");
        assert_eq!((outcomes[0], outcomes.last()), ((false, 1), Some(&(true, 0))), "{outcomes:?}");
        // It leaves the file at one step, and CONNACK follows that.
        let gone = outcomes.iter().position(|(_, count)| *count == 0).unwrap();
        assert!(outcomes[gone..].iter().all(|(_, count)| *count == 0), "{outcomes:?}");
    }
}

#[test]
fn at_whatever_step_the_bus_dies_the_will_of_a_client_that_was_turned_away_is_published_once() {
    for (is_orphan, has_will, stops) in
        [(false, false, false), (false, true, true), (true, false, true), (true, true, false)]
    {
        let limits = Limits { connect_timeout_secs: 3, ..Limits::default() };
        for steps in 0.. {
            let setup = Setup { limits: limits.clone(), ..Setup::default() };
            let (mut world, _) = left(setup, is_orphan);
            world.state.waits = true;
            let back = come(&mut world, &Client { has_will, ..BACK });
            world.settle();
            match stops {
                true => drop(world.sequencer.send(0, Message::Shutdown)),
                false => world.pass(5_000),
            }
            world.settle();
            assert_eq!(world.heard(back)[0].reason(), Reason::ServerUnavailable);
            world.state.waits = false;
            // The state opens its session only now.
            let is_over = (0..steps).any(|_| !world.step());
            let own = if has_will && !is_over { 0..=1 } else { 0..=0 };
            let count = published_after(world, steps % 2 == 0);
            assert!(own.contains(&(count - 1)), "{is_orphan} {has_will} {stops}, step {steps}: {count}");
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn who_calls_nothing_back_is_let_in_after_one_turn_of_the_state() {
    let mut world = World::open();
    for client in [&CLIENT, &Client { session: KEPT, clean: false, ..CLIENT }, &BACK] {
        world.state.waits = true;
        let client = come(&mut world, client);
        world.settle();
        world.state.waits = false;
        world.turn_of_state();
        world.state.waits = true;
        world.settle();
        assert!(is_let_in(&world.heard(client)));
        world.state.waits = false;
        world.hang_up(client);
    }
}

#[test]
fn who_is_about_to_be_let_in_is_not_refused_for_the_time_it_takes() {
    let (mut world, reader) = left(Setup::default(), false);
    let back = entering(&mut world, &BACK);
    let behind = come(&mut world, &BACK);
    world.settle();
    world.pass(15_000);
    assert_eq!(world.heard(behind)[0].reason(), Reason::ServerUnavailable);
    assert_eq!(world.heard(back), []);
    world.state.waits = false;
    let connack = world.take(back).remove(0);
    assert!(is_let_in(std::slice::from_ref(&connack)) && connack.session_present);
    world.pass(60_000);
    assert_eq!(count(&mut world, reader), 0);
}

#[test]
fn a_bus_that_stops_lets_in_who_is_about_to_be_and_says_goodbye() {
    for version in [Version::V311, Version::V5] {
        let (mut world, _) = left(Setup::default(), true);
        let back = entering(&mut world, &Client { version, ..BACK });
        world.sequencer.send(0, Message::Shutdown);
        world.settle();
        assert!(!world.shard(0).is_empty(), "it is waited for");
        world.state.waits = false;
        let got = world.take(back);
        assert!(is_let_in(&got) && world.clients[back].closed);
        let goodbye = got[1..].iter().map(Got::reason).collect::<Vec<_>>();
        let expected: &[Reason] = if version == Version::V5 { &[Reason::ServerShuttingDown] } else { &[] };
        assert_eq!(goodbye, expected);
        assert!(world.shard(0).is_empty());
        assert_eq!(published_after(world, false), 0);
    }
}

#[test]
fn a_user_who_goes_while_it_is_let_in_is_sent_away_and_nothing_that_it_sent_is_looked_at() {
    for client in [BACK, Client { clean: true, session: &[], ..BACK }] {
        let mut world = World::new(users());
        Client { session: KEPT, will: DELAYED, ..CLIENT }.arrive(&mut world);
        let mut world = world.reopen(true);
        let reader = reader(&mut world);
        world.state.waits = true;
        let mut input = client.connect();
        let publish = Packet::Publish(publish("a/x", "x", 0, 0));
        input.extend(crate::client::bytes_of(&publish, Version::V5));
        let back = world.arrive(input, Identity::user("a"), "a", None);
        world.settle();
        world.state.waits = false;
        world.turn_of_state();
        world.state.waits = true;
        world.settle();
        world.remove_user("a");
        world.state.waits = false;
        let got = world.take(back);
        assert!(is_let_in(&got) && world.clients[back].closed);
        assert_eq!(got[1].reason(), Reason::NotAuthorized);
        world.pass(120_000);
        assert_eq!(count(&mut world, reader), 0);
    }
}

#[test]
fn who_takes_no_packet_as_large_as_connack_calls_no_will_back_and_takes_nobody_s_place() {
    for (is_orphan, bytes_max, has_will) in
        [(false, 4, true), (false, 12, false), (true, 4, false), (true, 12, true)]
    {
        let (mut world, reader) = left(Setup::default(), is_orphan);
        let session = [Property::SessionExpiry(100), Property::MaximumPacketSize(bytes_max)];
        let narrow = Client { session: &session, has_will, ..BACK };
        let back = come(&mut world, &narrow);
        assert!(!is_let_in(&world.take(back)) && world.clients[back].closed);
        world.pass(90_000);
        assert_eq!(count(&mut world, reader), 1, "the one that was left, and no other");
        let there = come(&mut world, &BACK);
        assert!(is_let_in(&world.take(there)));
        let back = come(&mut world, &narrow);
        assert!(!is_let_in(&world.take(back)) && world.clients[back].closed);
        assert!(!world.clients[there].closed);
    }
}
