//! What was on its way when its client went, and a bit that turned in the log has taken since: it cannot be sent again, and
//! is told as a gap.

use crate::client::Got;
use crate::session::{again, connect};
use crate::shared::publishes;
use crate::world::{Setup, World};
use firehose_log::{Disk, MemDisk};
use firehose_mqtt::{Property, Version};
use std::path::Path;

const GROUP: &str = "$share/g/t";

/// Events 1 to 6 stand in the log, and 2 to 4 of them, at this QoS, were sent to a session by its subscription and not
/// acknowledged. Then the bus ends, and event 3 is damaged.
fn damaged(version: Version, filter: &str, qos: u8) -> World {
    let setup = Setup { shards: 3, tail_bytes: 0, ..Setup::default() };
    let mut world = World::new(setup);
    let (client, _) = connect(&mut world, version, "s", &[Property::ReceiveMaximum(3)]);
    assert!(!world.subscribed(client, filter, qos).is_error());
    let publisher = world.client(Version::V311, "p");
    world.publish(publisher, "other", "first", 1, 1);
    for number in 2..=4u16 {
        world.publish(publisher, "t", &text(number), 2, number);
    }
    assert_eq!(payloads(&publishes(&mut world, client)), [text(2), text(3), text(4)]);
    world.hang_up(client);
    for number in 5..=6u16 {
        world.publish(publisher, "other", &text(number), 1, number);
    }
    world.settle();
    world.commit();
    world.pass(1_000);
    flip(&world.disk, &text(3));
    world.reopen(false)
}

fn text(number: u16) -> String {
    format!("this is number {number}")
}

fn payloads(got: &[Got]) -> Vec<String> {
    got.iter().map(|it| it.payload.clone()).collect()
}

/// Turns a bit in a payload.
fn flip(disk: &MemDisk, text: &str) {
    let folder = Path::new("/log");
    for name in disk.list(folder).expect("lists").iter().filter(|name| name.ends_with(".log")) {
        let path = folder.join(name);
        let mut bytes = disk.bytes(&path).expect("it is there");
        if let Some(at) = bytes.windows(text.len()).position(|it| it == text.as_bytes()) {
            bytes[at + 5] ^= 1;
            return disk.set_bytes(&path, &bytes);
        }
    }
    panic!("{text:?} is nowhere");
}

/// The gaps among what came.
fn gaps(got: &[Got]) -> Vec<&str> {
    got.iter().filter_map(|it| it.user("firehose-gap")).collect()
}

fn publish(world: &mut World, number: u16) {
    let publisher = world.client(Version::V311, "p2");
    world.publish(publisher, "t", &text(number), 1, number);
    world.settle();
}

#[test]
fn it_is_told_by_what_comes_next_to_a_session() {
    for qos in 1..3 {
        let mut world = damaged(Version::V5, "t", qos);
        let client = again(&mut world, Version::V5, "s");
        let mut got = publishes(&mut world, client);
        // QoS 2 messages that are sent again alone do not tell it: the client may drop them.
        publish(&mut world, 7);
        got.extend(publishes(&mut world, client));
        assert_eq!(payloads(&got), [text(2), text(4), text(7)]);
        assert!(gaps(&got).iter().any(|gap| gap.starts_with("3..3 damaged")), "{got:?}");
        assert_eq!(got[0].user("firehose-gap"), None);
    }
}

#[test]
fn a_client_of_3_1_1_is_cut_off_and_finds_a_new_session() {
    for qos in 1..3 {
        let mut world = damaged(Version::V311, "t", qos);
        let client = again(&mut world, Version::V311, "s");
        world.settle();
        assert!(world.clients[client].closed);
        let (client, connack) = connect(&mut world, Version::V311, "s", &[]);
        assert!(!connack.session_present && !world.clients[client].closed);
    }
}

#[test]
fn it_is_told_to_a_member_of_the_group_that_had_given_it() {
    for qos in 1..3 {
        let mut world = damaged(Version::V5, GROUP, qos);
        let client = again(&mut world, Version::V5, "s");
        let mut got = publishes(&mut world, client);
        publish(&mut world, 7);
        got.extend(publishes(&mut world, client));
        assert_eq!(payloads(&got), [text(2), text(4), text(7)]);
        assert_eq!(gaps(&got).len(), 1, "{got:?}");
        assert!(got[2].user("firehose-gap").is_some_and(|gap| gap.starts_with("3..3 damaged")), "{got:?}");
    }
}

#[test]
fn while_no_member_can_hear_of_it_the_group_keeps_it_over_the_end_of_the_bus() {
    for qos in 1..3 {
        let mut world = damaged(Version::V311, GROUP, qos);
        let client = again(&mut world, Version::V311, "s");
        assert_eq!(payloads(&publishes(&mut world, client)), [text(2), text(4)]);
        publish(&mut world, 7);
        assert_eq!(payloads(&publishes(&mut world, client)), [text(7)]);
        world.commit();
        world.settle();
        world.hang_up(client);
        let mut world = world.reopen(true);
        let (heir, _) = connect(&mut world, Version::V5, "heir", &[]);
        assert!(!world.subscribed(heir, GROUP, 1).is_error());
        publish(&mut world, 8);
        let got = publishes(&mut world, heir);
        assert!(gaps(&got).iter().any(|gap| gap.contains("3..3 damaged")), "{got:?}");
    }
}
