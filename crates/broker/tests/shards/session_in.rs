//! What a client of a session publishes at QoS 2: once, whatever happens between PUBLISH and PUBCOMP.

use crate::client::{self, bytes_of, publish};
use crate::session::{again, arrive, connect, short};
use crate::world::{Setup, World};
use firehose_broker::sequencer::Durability;
use firehose_mqtt::{Packet, Reason, Version};

/// Publishes at QoS 2.
fn send(world: &mut World, client: usize, payload: &str, id: u16, dup: bool) {
    let mut packet = publish("t", payload, 2, id);
    packet.dup = dup;
    world.send_packet(client, &Packet::Publish(packet));
}

fn release(world: &mut World, client: usize, id: u16) {
    let bytes = client::ack(Packet::PubRel, id, world.clients[client].version);
    world.send(client, &bytes);
}

/// A world in which a session publishes, and a reader of everything.
fn world() -> (World, usize, usize) {
    let mut world = World::open();
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    let reader = world.client(Version::V311, "reader");
    world.subscribed(reader, "#", 0);
    (world, client, reader)
}

/// How many events with this payload the log has.
fn stored(world: &mut World, payload: &str) -> usize {
    let (client, _) = connect(world, Version::V311, "counter", &[]);
    world.subscribed(client, "$replay/earliest/#", 0);
    let count = world.payloads(client).iter().filter(|it| *it == payload).count();
    world.send(client, &[0xe0, 0]);
    world.settle();
    count
}

#[test]
fn a_message_that_comes_again_after_a_loss_is_not_stored_twice() {
    for crash in [None, Some(false), Some(true)] {
        let (mut world, client, _) = world();
        send(&mut world, client, "a", 5, false);
        assert_eq!(short(&world.take(client)), ["PubRec 5"]);
        world.commit();
        match crash {
            Some(power) => world.crash(power),
            None => world.hang_up(client),
        }
        let client = again(&mut world, Version::V5, "s");
        send(&mut world, client, "a", 5, true);
        assert_eq!(short(&world.take(client)), ["PubRec 5"]);
        release(&mut world, client, 5);
        let got = world.take(client);
        assert_eq!((short(&got), got[0].reason()), (vec!["PubComp 5".to_owned()], Reason::Success));
        assert_eq!(stored(&mut world, "a"), 1, "{crash:?}");
        send(&mut world, client, "b", 5, false);
        assert_eq!(short(&world.take(client)), ["PubRec 5"]);
        assert_eq!(stored(&mut world, "b"), 1);
    }
}

#[test]
fn a_message_that_was_stored_and_whose_pubrec_was_lost_is_known() {
    let (mut world, client, _) = world();
    send(&mut world, client, "a", 5, false);
    // It dies before it reads.
    world.clients[client].room = 0;
    world.settle();
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    send(&mut world, client, "a", 5, true);
    world.settle();
    assert_eq!(stored(&mut world, "a"), 1);
}

#[test]
fn a_takeover_in_the_turn_of_a_publish_knows_its_packet_id() {
    let mut world = World::open();
    let first = arrive(&mut world, Version::V5, false, "s", &[]);
    world.clients[first].to_read = Vec::new();
    world.settle();
    // The publish and the takeover in one turn; then the publish again.
    send(&mut world, first, "a", 5, false);
    let second = arrive(&mut world, Version::V5, false, "s", &[]);
    world.settle();
    send(&mut world, second, "a", 5, true);
    let got = world.take(second);
    assert!(got[0].session_present);
    assert_eq!(short(&got[1..]), ["PubRec 5"]);
    assert_eq!(stored(&mut world, "a"), 1);
}

#[test]
fn publishes_behind_a_connect_that_is_taken_over_at_once_are_known() {
    let mut world = World::open();
    let mut bytes =
        client::start_packet(Version::V5, false, "s", &[firehose_mqtt::Property::SessionExpiry(100)]);
    bytes.extend(bytes_of(&Packet::Publish(publish("t", "a", 2, 5)), Version::V5));
    world.arrive(bytes, firehose_auth::Identity::anonymous(), "s", None);
    let second = arrive(&mut world, Version::V5, false, "s", &[]);
    world.settle();
    send(&mut world, second, "a", 5, true);
    world.settle();
    assert_eq!(stored(&mut world, "a"), 1);
}

#[test]
fn pubcomp_waits_until_the_id_is_forgotten() {
    let (mut world, client, _) = world();
    send(&mut world, client, "a", 5, false);
    world.take(client);
    world.state.waits = true;
    release(&mut world, client, 5);
    release(&mut world, client, 5);
    assert_eq!(world.take(client), []);
    world.state.waits = false;
    assert_eq!(short(&world.take(client)), ["PubComp 5", "PubComp 5"]);
    world.state.waits = true;
    release(&mut world, client, 5);
    let got = world.take(client);
    assert_eq!(got[0].reason(), Reason::PacketIdentifierNotFound, "nothing is to be saved for it");
}

/// Found by the simulation.
#[test]
fn while_the_state_cannot_be_written_no_pubcomp_says_that_an_id_is_free() {
    let (mut world, client, _) = world();
    send(&mut world, client, "a", 5, false);
    world.take(client);
    world.pass(1_000);
    world.disk.set_free_bytes(Some(0));
    world.disk.fail(firehose_log::DiskCall::Write, std::io::ErrorKind::StorageFull);
    release(&mut world, client, 5);
    assert_eq!(world.take(client), []);
    world.pass(2_000);
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    release(&mut world, client, 5);
    assert_eq!(world.take(client), [], "neither for one that an earlier connection released");
    world.disk.set_free_bytes(None);
    world.pass(2_000);
    assert_eq!(short(&world.take(client)), ["PubComp 5"]);
    world.crash(false);
    let client = again(&mut world, Version::V5, "s");
    send(&mut world, client, "b", 5, false);
    world.settle();
    assert_eq!(stored(&mut world, "b"), 1, "its id was free");
}

#[test]
fn a_crash_before_the_id_was_forgotten_lets_the_client_release_again() {
    for power in [false, true] {
        let (mut world, client, _) = world();
        send(&mut world, client, "a", 5, false);
        world.take(client);
        world.commit();
        world.state.waits = true;
        release(&mut world, client, 5);
        world.settle();
        world.crash(power);
        let client = again(&mut world, Version::V5, "s");
        release(&mut world, client, 5);
        let got = world.take(client);
        assert_eq!((short(&got), got[0].reason()), (vec!["PubComp 5".to_owned()], Reason::Success));
        assert_eq!(stored(&mut world, "a"), 1);
    }
}

#[test]
fn an_id_that_was_released_when_the_connection_ended_is_free() {
    let (mut world, client, _) = world();
    send(&mut world, client, "a", 5, false);
    world.take(client);
    world.state.waits = true;
    release(&mut world, client, 5);
    world.hang_up(client);
    world.state.waits = false;
    let client = again(&mut world, Version::V5, "s");
    send(&mut world, client, "a", 5, false);
    world.settle();
    assert_eq!(stored(&mut world, "a"), 2);
}

#[test]
fn a_refused_publish_leaves_no_id() {
    let acl = Some("topic readwrite #\ntopic deny secret\n");
    let mut world = World::new(Setup { acl, ..Setup::default() });
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.send_packet(client, &Packet::Publish(publish("secret", "x", 2, 5)));
    assert_eq!(world.take(client)[0].reason(), Reason::NotAuthorized);
    world.hang_up(client);
    let client = again(&mut world, Version::V5, "s");
    send(&mut world, client, "a", 5, false);
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
    assert_eq!(stored(&mut world, "a"), 1);
}

#[test]
fn a_publish_that_the_log_refused_leaves_no_id() {
    let mut world = World::new(Setup { durability: Durability::Sync, ..Setup::default() });
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    world.disk.set_free_bytes(Some(0));
    world.disk.fail(firehose_log::DiskCall::Write, std::io::ErrorKind::StorageFull);
    send(&mut world, client, "a", 5, false);
    let got = world.take(client);
    assert!(got[0].reason().is_error(), "{got:?}");
    world.disk.heal();
    world.disk.set_free_bytes(None);
    send(&mut world, client, "a", 5, false);
    world.settle();
    world.commit();
    assert_eq!(short(&world.take(client)), ["PubRec 5"]);
}

#[test]
fn a_clean_start_forgets_the_ids() {
    let (mut world, client, _) = world();
    send(&mut world, client, "a", 5, false);
    world.settle();
    let client_again = arrive(&mut world, Version::V5, true, "s", &[]);
    world.settle();
    assert!(world.clients[client].closed);
    send(&mut world, client_again, "a", 5, false);
    world.settle();
    assert_eq!(stored(&mut world, "a"), 2);
}

#[test]
fn a_session_that_ends_with_its_connection_keeps_no_ids() {
    let mut world = World::open();
    let client = world.client(Version::V5, "s");
    send(&mut world, client, "a", 5, false);
    world.settle();
    world.hang_up(client);
    let (client, _) = connect(&mut world, Version::V5, "s", &[]);
    send(&mut world, client, "a", 5, false);
    world.settle();
    assert_eq!(stored(&mut world, "a"), 2);
}
