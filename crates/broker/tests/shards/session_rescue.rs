//! The state file is damaged while the bus runs: sessions and wills of connected clients are saved anew, and outlive the next
//! crash.

use crate::client::{self, publish};
use crate::session::{again, connect, short};
use crate::wills::{CLIENT, Client, DELAYED, KEPT, count, reader};
use crate::wills_recalled::{come, is_let_in};
use crate::world::World;
use firehose_broker::state::StateNote;
use firehose_log::DiskCall;
use firehose_mqtt::{Disconnect, Packet, Properties, Property, Reason, Version};
use std::io::ErrorKind;
use std::path::Path;

/// The file turns out to be damaged when it has to be opened again; a second later it has been made anew.
fn lose_state(world: &mut World, bystander: usize) {
    fail_state(world, bystander);
    find_it_lost(world, bystander);
}

/// The file has to be opened again, and is damaged.
fn fail_state(world: &mut World, bystander: usize) {
    world.settle();
    world.commit();
    world.disk.set_bytes(Path::new("/state.redb"), b"rubbish");
    break_state(world, bystander);
}

/// The file has to be opened again.
fn break_state(world: &mut World, bystander: usize) {
    world.disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    world.subscribe(bystander, &[("nothing", firehose_mqtt::SubscribeOptions::default())], &[]);
    world.settle();
    world.disk.heal();
    assert!(world.state.state.failing().is_some());
}

fn find_it_lost(world: &mut World, bystander: usize) {
    world.pass(1_000);
    world.settle();
    let told = |note: &StateNote| matches!(note, StateNote::Bad(line) if line.contains("saved anew"));
    assert_eq!(world.state.notes.iter().filter(|note| told(note)).count(), 1, "{:?}", world.state.notes);
    world.take(bystander);
}

fn send2(world: &mut World, client: usize, payload: &str, id: u16, dup: bool) {
    let mut packet = publish("t", payload, 2, id);
    packet.dup = dup;
    world.send_packet(client, &Packet::Publish(packet));
}

/// How many events with this payload the log has.
fn stored(world: &mut World, payload: &str) -> usize {
    let reader = world.client(Version::V311, "counter");
    world.subscribed(reader, "$replay/earliest/t", 0);
    let count = world.payloads(reader).iter().filter(|it| *it == payload).count();
    world.hang_up(reader);
    count
}

#[test]
fn a_connected_session_outlives_the_loss_of_the_state_and_a_crash_after_it() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::open();
        let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
        let (client, _) = connect(&mut world, version, "s", &[]);
        assert!(!world.subscribed(client, "a/#", 1).is_error());
        lose_state(&mut world, bystander);
        world.commit();
        world.crash(false);
        let publisher = world.client(Version::V311, "publisher");
        world.publish(publisher, "a/b", "1", 1, 1);
        world.settle();
        let client = again(&mut world, version, "s");
        assert_eq!(world.payloads(client), ["1"]);
    }
}

#[test]
fn what_was_in_flight_to_it_is_sent_again_and_what_it_said_is_known() {
    let mut world = World::open();
    let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    assert!(!world.subscribed(client, "a", 2).is_error());
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "a", "1", 2, 1);
    assert_eq!(short(&world.take(client)), ["2 11"]);
    lose_state(&mut world, bystander);
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(short(&world.take(client)), ["2+ 11"]);
}

#[test]
fn an_event_that_it_published_at_qos_2_is_stored_once() {
    for released in [false, true] {
        let mut world = World::open();
        let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
        let (client, _) = connect(&mut world, Version::V5, "s", &[]);
        send2(&mut world, client, "a", 5, false);
        assert_eq!(short(&world.take(client)), ["PubRec 5"]);
        if released {
            let bytes = client::ack(Packet::PubRel, 5, Version::V5);
            world.send(client, &bytes);
            assert_eq!(short(&world.take(client)), ["PubComp 5"]);
        }
        lose_state(&mut world, bystander);
        world.crash(false);
        let client = again(&mut world, Version::V5, "s");
        send2(&mut world, client, "a", 5, true);
        assert_eq!(short(&world.take(client)), ["PubRec 5"]);
        assert_eq!(stored(&mut world, "a"), if released { 2 } else { 1 });
    }
}

#[test]
fn what_it_publishes_while_the_state_is_rebuilt_is_known_too() {
    let mut world = World::open();
    let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.settle();
    world.commit();
    world.disk.set_bytes(Path::new("/state.redb"), b"rubbish");
    world.disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    world.subscribe(bystander, &[("nothing", firehose_mqtt::SubscribeOptions::default())], &[]);
    world.settle();
    world.disk.heal();
    // Published while nothing is saved, and while the view is behind.
    send2(&mut world, client, "a", 5, false);
    assert_eq!(short(&world.take(client)), ["PubRec 5"]);
    world.state.waits = true;
    world.pass(1_000);
    world.state.waits = false;
    world.turn_of_state();
    send2(&mut world, client, "b", 6, false);
    world.settle();
    world.commit();
    world.settle();
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    for (payload, id) in [("a", 5), ("b", 6)] {
        send2(&mut world, client, payload, id, true);
        assert_eq!(short(&world.take(client)), [format!("PubRec {id}")]);
        assert_eq!(stored(&mut world, payload), 1, "{payload}");
    }
}

/// A client with a will is connected when the state is lost.
fn with_will(session: &[Property<'_>]) -> (World, usize) {
    let mut world = World::open();
    let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
    let client = come(&mut world, &Client { session, will: DELAYED, ..CLIENT });
    assert!(is_let_in(&world.take(client)));
    lose_state(&mut world, bystander);
    (world, client)
}

#[test]
fn the_will_of_a_connected_client_outlives_the_loss_of_the_state() {
    for session in [&[][..], KEPT] {
        let (mut world, client) = with_will(session);
        let seen = reader(&mut world);
        world.hang_up(client);
        world.pass(29_000);
        let at_once = usize::from(session.is_empty());
        assert_eq!(count(&mut world, seen), at_once, "it ends with its session, or waits for its delay");
        world.pass(2_000);
        assert_eq!(count(&mut world, seen), 1 - at_once);
        world.commit();
        world.settle();
        world.crash(false);
        let seen = reader(&mut world);
        world.pass(120_000);
        assert_eq!(count(&mut world, seen), 0, "once");
    }
}

#[test]
fn the_will_of_a_connected_client_outlives_the_loss_of_the_state_and_a_crash_after_it() {
    for (session, loses_power) in [(&[][..], false), (&[], true), (KEPT, false), (KEPT, true)] {
        let (mut world, _) = with_will(session);
        world.crash(loses_power);
        let seen = reader(&mut world);
        world.pass(58_000);
        assert_eq!(count(&mut world, seen), 0);
        world.pass(4_000);
        assert_eq!(count(&mut world, seen), 1);
    }
}

#[test]
fn who_left_properly_or_takes_its_place_after_the_loss_of_the_state_has_no_old_will_published() {
    for takes_over in [false, true] {
        let (mut world, client) = with_will(KEPT);
        let next = Client { session: KEPT, clean: false, has_will: false, ..CLIENT };
        if takes_over {
            let next = come(&mut world, &next);
            let connack = world.take(next).remove(0);
            assert!(connack.session_present, "it is the session that was saved anew");
        } else {
            world.send_packet(
                client,
                &Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::EMPTY }),
            );
        }
        world.settle();
        world.crash(false);
        let seen = reader(&mut world);
        world.pass(120_000);
        assert_eq!(count(&mut world, seen), 0, "takes over: {takes_over}");
    }
}

/// When a client dies: before the state knows that its file is lost, before the shard knows it, and before it has saved the
/// client anew.
#[test]
fn the_will_of_a_client_that_dies_while_the_state_is_lost_is_published_once() {
    for (session, of_will) in [(&[][..], &[][..]), (KEPT, &[]), (KEPT, DELAYED)] {
        for moment in 0..4 {
            let mut world = World::open();
            let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
            let seen = reader(&mut world);
            let dies = Client { session, will: of_will, ..CLIENT };
            // It has died before, and its will had the same number.
            for _ in 0..2 {
                let client = come(&mut world, &dies);
                assert!(is_let_in(&world.take(client)));
                world.hang_up(client);
                world.pass(40_000);
                assert_eq!(count(&mut world, seen), 1);
            }
            let client = come(&mut world, &dies);
            assert!(is_let_in(&world.take(client)));
            fail_state(&mut world, bystander);
            match moment {
                0 => world.hang_up(client),
                moment => {
                    world.state.waits = true;
                    world.pass(1_000);
                    world.state.waits = false;
                    world.turn_of_state();
                    world.state.waits = true;
                    (1..moment).for_each(|_| _ = world.step());
                    world.cut(client);
                    world.state.waits = false;
                }
            }
            find_it_lost(&mut world, bystander);
            world.pass(35_000);
            assert_eq!(count(&mut world, seen), 1, "{session:?} {of_will:?} {moment}");
            world.commit();
            world.settle();
            world.crash(false);
            let seen = reader(&mut world);
            world.pass(120_000);
            assert_eq!(count(&mut world, seen), 0, "once");
        }
    }
}

#[test]
fn who_leaves_properly_or_dies_and_comes_back_while_the_state_cannot_be_read_has_no_will_published() {
    for leaves in [false, true] {
        let mut world = World::open();
        let seen = reader(&mut world);
        let client = come(&mut world, &Client { session: KEPT, will: DELAYED, ..CLIENT });
        assert!(is_let_in(&world.take(client)));
        let (bystander, _) = connect(&mut world, Version::V311, "bystander", &[]);
        break_state(&mut world, bystander);
        match leaves {
            true => world.send(client, &[0xe0, 0]),
            false => world.hang_up(client),
        }
        world.pass(2_000);
        assert_eq!(world.state.state.failing(), None);
        let next = Client { session: KEPT, clean: false, has_will: false, ..CLIENT };
        let next = come(&mut world, &next);
        assert!(world.take(next)[0].session_present, "the file is whole");
        world.pass(120_000);
        assert_eq!(count(&mut world, seen), 0);
    }
}
