//! What a session is told to be gone by messages of QoS 0, which nobody acknowledges: it is told again by its next connection,
//! until its client has acknowledged something that was sent behind it.

use crate::client::{Got, ack, options};
use crate::session::{again, connect, subscribed_and_left};
use crate::world::{Setup, World};
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_log::Disk;
use firehose_mqtt::{Packet, PacketKind, Property, Version};
use std::path::Path;

fn world() -> World {
    World::new(Setup {
        segment_bytes: 4_096,
        retention_bytes: Some(8_192),
        tail_bytes: 0,
        ..Setup::default()
    })
}

/// Everything that is in the log goes.
fn forget_all(world: &mut World) {
    let publisher = world.client(Version::V311, "filler");
    for _ in 0..50 {
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    world.commit();
    world.upkeep_keeping_nothing();
    world.hang_up(publisher);
}

/// A session that was away when event 1, which it was to have, was published and deleted; its subscription has this QoS.
fn overtaken(qos: u8) -> World {
    let mut world = world();
    subscribed_and_left(&mut world, Version::V5, "s", "t", qos);
    publish(&mut world, "lost", 1);
    forget_all(&mut world);
    world
}

fn publish(world: &mut World, payload: &str, qos: u8) {
    let publisher = world.client(Version::V311, "publisher");
    world.publish(publisher, "t", payload, qos, 1);
    world.settle();
    world.hang_up(publisher);
}

fn acknowledge(
    world: &mut World,
    client: usize,
    make: fn(firehose_mqtt::Ack<'static>) -> Packet<'static>,
    id: u16,
) {
    let bytes = ack(make, id, Version::V5);
    world.send(client, &bytes);
    world.settle();
}

/// The messages that came, and where the first range begins and ends that each one says to be gone.
fn told(world: &mut World, client: usize) -> Vec<(String, Option<String>)> {
    let range = |it: &Got| it.user("firehose-gap").and_then(|gap| gap.split(' ').next().map(str::to_owned));
    let got = world.take(client).into_iter().filter(|it| it.kind == PacketKind::Publish);
    got.map(|it| (it.payload.clone(), range(&it))).collect()
}

fn with(payload: &str, gap: Option<&str>) -> Vec<(String, Option<String>)> {
    vec![(payload.to_owned(), gap.map(str::to_owned))]
}

/// The range that the next message tells.
fn first_gap(world: &mut World, client: usize) -> String {
    let told = told(world, client);
    let gap = told[0].1.clone().unwrap_or_else(|| panic!("it tells nothing: {told:?}"));
    assert!(gap.starts_with("1..") && told[1..].iter().all(|it| it.1.is_none()), "{told:?}");
    gap
}

/// Found by the simulation (seed 453586121272): what was written to the socket counted as told.
#[test]
fn a_gap_that_a_message_of_qos_0_told_is_told_again_by_each_connection_and_once_by_each() {
    for qos in [0, 1] {
        let mut world = overtaken(qos);
        publish(&mut world, "0", 0);
        let mut client = again(&mut world, Version::V5, "s");
        let gap = first_gap(&mut world, client);
        for end in 0..5u8 {
            let live = format!("live {end}");
            publish(&mut world, &live, 0);
            assert_eq!(told(&mut world, client), with(&live, None), "this connection has told it");
            match end {
                0 => world.hang_up(client),
                1 => world.send(client, &[0xe0, 0]),
                2 => {}
                3 => {
                    world.pass(1_000);
                    world.crash(false);
                }
                _ => world.crash(false),
            }
            world.settle();
            client = again(&mut world, Version::V5, "s");
            publish(&mut world, "next", 0);
            assert_eq!(first_gap(&mut world, client), gap, "after end {end} at QoS {qos}");
        }
    }
}

#[test]
fn a_gap_that_a_message_of_qos_0_told_is_through_once_a_message_behind_it_is_acknowledged() {
    for (qos, make) in [(1, Packet::PubAck as fn(_) -> _), (2, Packet::PubRec)] {
        let mut world = overtaken(2);
        publish(&mut world, "0", 0);
        publish(&mut world, "proof", qos);
        let client = again(&mut world, Version::V5, "s");
        first_gap(&mut world, client);
        world.hang_up(client);
        let client = again(&mut world, Version::V5, "s");
        // It is sent again, and with that what was told before; a second time at QoS 2, which its client may drop.
        publish(&mut world, "more", 0);
        let got = told(&mut world, client);
        assert_eq!(got.iter().map(|it| it.1.is_some()).collect::<Vec<_>>(), [true, qos == 2], "{got:?}");
        acknowledge(&mut world, client, make, 1);
        publish(&mut world, "behind", qos);
        assert_eq!(told(&mut world, client).last(), with("behind", None).last());
        acknowledge(&mut world, client, make, 2);
        world.hang_up(client);
        publish(&mut world, "last", 0);
        let client = again(&mut world, Version::V5, "s");
        assert_eq!(told(&mut world, client).last(), with("last", None).last(), "QoS {qos}");
    }
}

#[test]
fn an_acknowledgement_of_what_was_sent_before_says_nothing_of_a_gap() {
    let mut world = world();
    let cursor = {
        publish(&mut world, "lost", 0);
        world.read.cursor(0, world.now.wall_us).encode()
    };
    forget_all(&mut world);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribed(client, "u", 1);
    let publisher = world.client(Version::V311, "p");
    world.publish(publisher, "u", "before", 1, 1);
    assert_eq!(told(&mut world, client), with("before", None));
    world.subscribe(client, &[("t", options(1))], &[Property::UserProperty("since", &cursor)]);
    publish(&mut world, "0", 0);
    first_gap(&mut world, client);
    acknowledge(&mut world, client, Packet::PubAck, 1);
    world.publish(publisher, "u", "behind", 1, 2);
    assert_eq!(told(&mut world, client), with("behind", None));
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    let again_told = first_gap(&mut world, client);
    acknowledge(&mut world, client, Packet::PubAck, 2);
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    publish(&mut world, "last", 0);
    assert_eq!(
        told(&mut world, client),
        with("last", None),
        "{again_told} was told at QoS 1, and acknowledged"
    );
}

#[test]
fn an_acknowledged_message_that_told_a_gap_told_it() {
    let mut world = overtaken(1);
    publish(&mut world, "1", 1);
    let client = again(&mut world, Version::V5, "s");
    first_gap(&mut world, client);
    acknowledge(&mut world, client, Packet::PubAck, 1);
    world.hang_up(client);
    publish(&mut world, "2", 1);
    let client = again(&mut world, Version::V5, "s");
    assert_eq!(told(&mut world, client), with("2", None));
}

#[test]
fn a_gap_whose_message_cannot_be_sent_again_after_all_is_told_by_another_one() {
    let mut world = World::new(Setup {
        limits: Limits { parked_bytes_max: 1, ..Limits::default() },
        segment_bytes: 4_096,
        retention_bytes: Some(8_192),
        tail_bytes: 0,
        ..Setup::default()
    });
    subscribed_and_left(&mut world, Version::V5, "s", "t", 1);
    publish(&mut world, "lost", 1);
    forget_all(&mut world);
    publish(&mut world, "1", 1);
    let client = again(&mut world, Version::V5, "s");
    let gap = first_gap(&mut world, client);
    world.hang_up(client);
    world.delays_reads = true;
    let client = again(&mut world, Version::V5, "s");
    world.clients[client].room = 0;
    // It is ready to be sent again, takes too much memory while the socket takes nothing, and then the log has it no more.
    while !world.questions.is_empty() {
        world.answer(0);
        world.settle();
        forget_all(&mut world);
    }
    world.delays_reads = false;
    world.let_go();
    publish(&mut world, "2", 0);
    assert_eq!(told(&mut world, client), with("2", Some(&gap)));
}

/// Found by the simulation (seed 462623415468): what was sent again told the main lane's gap, and a replay's came behind it.
#[test]
fn what_is_sent_again_tells_what_every_lane_has_to() {
    let mut world = World::new(Setup {
        limits: Limits { replay_chunk_bytes: 1, ..Limits::default() },
        segment_bytes: 4_096,
        retention_bytes: Some(8_192),
        tail_bytes: 0,
        ..Setup::default()
    });
    let cursor = world.read.cursor(0, world.now.wall_us).encode();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.subscribed(client, "u", 1);
    let publisher = world.client(Version::V311, "p");
    world.publish(publisher, "u", "on its way", 1, 1);
    world.settle();
    forget_all(&mut world);
    publish(&mut world, "1", 1);
    publish(&mut world, "2", 1);
    world.take(client);
    world.delays_reads = true;
    world.subscribe(client, &[("t", options(1))], &[Property::UserProperty("since", &cursor)]);
    world.settle();
    let mut got = Vec::new();
    while got.is_empty() {
        world.answer(0);
        got = told(&mut world, client);
    }
    let gap = got[0].1.clone().expect("it is told by the first");
    world.hang_up(client);
    world.delays_reads = false;
    let client = again(&mut world, Version::V5, "s");
    let got = world.take(client);
    let first = got.iter().find(|it| it.kind == PacketKind::Publish).expect("it is sent again");
    let told: Vec<&str> = first.user.iter().map(|(_, gap)| gap.as_str()).collect();
    assert!(first.dup && told.iter().any(|it| it.starts_with(&format!("{gap} "))), "{gap}: {told:?}");
    assert!(told.iter().any(|it| it.starts_with("1..1 ")), "{told:?}");
}

/// A bit that turned in the event's record: whatever stands behind it can be read.
fn damage(world: &World, payload: &str) {
    for name in world.disk.list(Path::new("/log")).expect("a folder") {
        let path = Path::new("/log").join(name);
        let Some(mut bytes) = world.disk.bytes(&path) else { continue };
        if let Some(at) = bytes.windows(payload.len()).position(|it| it == payload.as_bytes()) {
            bytes[at] ^= 1;
            world.disk.set_bytes(&path, &bytes);
            return;
        }
    }
    panic!("{payload} is in no file");
}

#[test]
fn a_damaged_event_is_told_to_5_0_and_by_a_new_session_to_3_x() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::new(Setup { tail_bytes: 0, ..Setup::default() });
        subscribed_and_left(&mut world, version, "s", "t", 1);
        publish(&mut world, "before", 1);
        publish(&mut world, "damaged", 1);
        publish(&mut world, "behind", 1);
        world.commit();
        damage(&world, "damaged");
        world.crash(false);
        let client = again(&mut world, version, "s");
        world.clients[client].acknowledges = true;
        let got = told(&mut world, client);
        assert_eq!(got[..1], with("before", None));
        if version == Version::V5 {
            assert_eq!(got[1..], with("behind", Some("2..2")));
            continue;
        }
        assert!(world.clients[client].closed && got.len() == 1, "3.x is closed: {got:?}");
        let (_, connack) = connect(&mut world, version, "s", &[]);
        assert!(!connack.session_present, "and hears that its session is gone");
    }
}

/// A redaction has what waits for the state read again, and retention may have deleted some of it meanwhile.
#[test]
fn what_is_found_to_be_gone_is_told_by_what_was_queued_behind_it() {
    let mut world = world();
    let (client, _) = connect(&mut world, Version::V5, "s", &[Property::ReceiveMaximum(2)]);
    assert!(!world.subscribed(client, "t", 2).is_error());
    world.clients[client].acknowledges = true;
    let publisher = world.client(Version::V311, "publisher");
    world.state.waits = true;
    for (packet_id, payload) in [(1, "redacted"), (2, "deleted")] {
        world.publish(publisher, "t", payload, 2, packet_id);
        world.settle();
    }
    for _ in 0..50 {
        world.publish(publisher, "other", &"x".repeat(1_000), 0, 0);
        world.settle();
    }
    world.publish(publisher, "t", "newer", 1, 3);
    world.settle();
    world.commit();
    world.upkeep_keeping_nothing();
    world.sequencer.send(0, Message::Redacted { offset: 1, seen: None });
    world.settle();
    world.state.waits = false;
    world.let_go();
    assert_eq!(told(&mut world, client), with("newer", Some("2..2")));
}
