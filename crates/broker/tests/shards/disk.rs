//! A disk that is full, or that fails: publishers are told, readers go on, and nothing is acknowledged that is not stored.

use crate::world::{START_US, Setup, World};
use firehose_broker::Durability;
use firehose_log::{DiskCall, Refusal, Upkeep};
use firehose_mqtt::{PacketKind, Reason, Version};
use std::io::ErrorKind;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const RESERVE_BYTES: u64 = 1_000_000;

fn world(durability: Durability) -> World {
    let disk = Setup { disk_reserve_bytes: RESERVE_BYTES, disk_check_secs: 5, ..Setup::default() };
    World::new(Setup { durability, ..disk })
}

/// What the commit thread would log after so many seconds of the disk's clock.
fn look(world: &mut World, secs: u64) -> Vec<Upkeep> {
    world.disk.pass(secs * 1_000_000);
    world.commit.upkeep(START_US, &mut firehose_log::KeepNothing)
}

fn fill(world: &mut World) {
    world.disk.set_free_bytes(Some(RESERVE_BYTES - 1));
    assert!(matches!(look(world, 5)[..], [Upkeep::DiskLow { .. }]));
}

#[test]
fn a_full_disk_refuses_every_publish_with_a_reason_and_counts_it() {
    for version in VERSIONS {
        for qos in 0..3 {
            let mut world = world(Durability::Os);
            assert_eq!(look(&mut world, 0), []);
            let (client, reader) = (world.client(version, "c"), world.client(version, "r"));
            world.subscribed(reader, "#", 1);
            fill(&mut world);
            world.publish(client, "t", "refused", qos, 7);
            let got = world.take(client);
            match (qos, version) {
                (0, _) => assert_eq!(got, []),
                (_, Version::V5) => {
                    let kind = if qos == 1 { PacketKind::PubAck } else { PacketKind::PubRec };
                    assert_eq!((got[0].kind, got[0].id, got[0].reason()), (kind, 7, Reason::QuotaExceeded));
                }
                _ => assert_eq!(got, []),
            }
            assert_eq!(world.clients[client].closed, qos > 0 && version != Version::V5);
            assert_eq!(world.payloads(reader), Vec::<String>::new());
            let stats = world.stats(0);
            assert_eq!((stats.messages_refused_disk.get(), stats.messages_refused.get()), (1, 0));
        }
    }
}

#[test]
fn reads_replays_and_subscriptions_go_on_while_the_disk_is_full_and_it_recovers_alone() {
    for version in VERSIONS {
        let mut world = world(Durability::Os);
        assert_eq!(look(&mut world, 0), []);
        let (publisher, live) = (world.client(Version::V5, "p"), world.client(version, "live"));
        world.subscribed(live, "#", 0);
        for payload in ["1", "2"] {
            world.publish(publisher, "t", payload, 0, 0);
        }
        assert_eq!(world.payloads(live), ["1", "2"]);
        fill(&mut world);
        for _ in 0..3 {
            world.publish(publisher, "t", "refused", 0, 0);
        }
        assert_eq!(world.payloads(live), Vec::<String>::new());
        let resuming = world.client(version, "resuming");
        assert!((world.subscribed(resuming, "$replay/earliest/t", 1) as u8) < 3);
        assert_eq!(world.payloads(resuming), ["1", "2"]);
        // There is room again, and nobody looks before `disk_check_secs`.
        world.disk.set_free_bytes(Some(RESERVE_BYTES));
        assert_eq!(look(&mut world, 4), []);
        world.publish(publisher, "t", "refused", 0, 0);
        world.settle();
        assert!(matches!(look(&mut world, 1)[..], [Upkeep::DiskRecovered { .. }]));
        world.publish(publisher, "t", "3", 1, 1);
        assert_eq!(world.take(publisher)[0].reason(), Reason::Success);
        for reader in [live, resuming] {
            assert_eq!(world.payloads(reader), ["3"]);
        }
        assert_eq!(world.stats(0).messages_refused_disk.get(), 4);
        assert_eq!(look(&mut world, 5), [], "one line when it begins, one when it ends");
    }
}

#[test]
fn a_write_that_finds_the_disk_full_refuses_until_the_next_look() {
    let mut world = world(Durability::Sync);
    assert_eq!(look(&mut world, 0), []);
    let client = world.client(Version::V5, "c");
    world.disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    for id in 1..4 {
        world.publish(client, "t", "refused", 1, id);
        assert_eq!(world.take(client)[0].reason(), Reason::QuotaExceeded);
    }
    assert!(matches!(look(&mut world, 0)[..], [Upkeep::DiskFull { .. }]));
    world.publish(client, "t", "refused", 1, 4);
    assert_eq!(world.take(client)[0].reason(), Reason::QuotaExceeded);
    assert_eq!(look(&mut world, 5), []);
    world.publish(client, "t", "stored", 1, 5);
    world.settle();
    world.commit();
    assert_eq!(world.take(client)[0].reason(), Reason::Success);
    assert!(matches!(look(&mut world, 5)[..], [Upkeep::DiskRecovered { .. }]));
}

#[test]
fn a_short_write_is_refused_and_seen_by_nobody_and_the_next_is_stored() {
    for tail_bytes in [0, 1 << 20] {
        let mut world = World::new(Setup { durability: Durability::Sync, tail_bytes, ..Setup::default() });
        let (client, live) = (world.client(Version::V5, "c"), world.client(Version::V5, "live"));
        world.subscribed(live, "#", 0);
        for (bytes, id) in [(0, 1), (1, 2), (40, 3)] {
            world.disk.write_short(bytes);
            world.publish(client, "t", "short", 1, id);
            assert_eq!(world.take(client)[0].reason(), Reason::QuotaExceeded);
            world.publish(client, "t", &format!("whole {id}"), 1, id);
            world.settle();
            world.commit();
            assert_eq!(world.take(client)[0].reason(), Reason::Success);
        }
        let replaying = world.client(Version::V311, "replaying");
        world.subscribed(replaying, "$replay/earliest/#", 0);
        for reader in [live, replaying] {
            assert_eq!(world.payloads(reader), ["whole 1", "whole 2", "whole 3"]);
        }
    }
}

#[test]
fn one_failed_fdatasync_is_made_good_and_everything_is_acknowledged_and_seen_once() {
    let mut world = world(Durability::Sync);
    assert_eq!(look(&mut world, 0), []);
    let (client, live) = (world.client(Version::V311, "c"), world.client(Version::V311, "live"));
    world.subscribed(live, "#", 0);
    for id in 1..4 {
        world.publish(client, "t", &id.to_string(), 1, id);
        world.settle();
    }
    assert_eq!(world.take(client), []);
    world.disk.fail(DiskCall::Sync, ErrorKind::Other);
    assert_eq!(world.commit(), 3);
    assert_eq!(world.take(client).len(), 3);
    assert!(matches!(look(&mut world, 0)[..], [Upkeep::Rewritten { .. }]));
    world.publish(client, "t", "4", 1, 4);
    world.settle();
    world.commit();
    assert_eq!(world.take(client).len(), 1);
    let replaying = world.client(Version::V311, "replaying");
    world.subscribed(replaying, "$replay/earliest/#", 0);
    for reader in [live, replaying] {
        assert_eq!(world.payloads(reader), ["1", "2", "3", "4"]);
    }
}

/// Two failures in a row; what the commit thread does then.
fn fail_for_good(world: &mut World) {
    world.disk.fail(DiskCall::Sync, ErrorKind::Other);
    world.disk.fail(DiskCall::Sync, ErrorKind::Other);
    let error = world.commit.commit().expect_err("it fails for good");
    world.sequencer.set_commit_failed(&Refusal::ReadOnly(error.0));
}

#[test]
fn after_two_failed_fdatasyncs_nothing_that_waits_is_acknowledged_and_everybody_is_told() {
    let mut world = world(Durability::Sync);
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    let live = world.client(Version::V311, "live");
    world.subscribed(live, "#", 0);
    world.publish(v5, "t", "durable", 1, 1);
    world.settle();
    world.commit();
    assert_eq!(world.take(v5)[0].reason(), Reason::Success);
    world.publish(v5, "t", "waits", 1, 2);
    world.publish(v5, "t", "waits too", 2, 3);
    world.publish(v3, "t", "waits as well", 1, 2);
    world.settle();
    fail_for_good(&mut world);
    let answers: Vec<_> = world.take(v5).iter().map(|it| (it.kind, it.id, it.reason())).collect();
    let refused = Reason::QuotaExceeded;
    assert_eq!(answers, [(PacketKind::PubAck, 2, refused), (PacketKind::PubRec, 3, refused)]);
    assert_eq!(world.take(v3), [], "3.x is closed without an acknowledgement");
    assert!(world.clients[v3].closed);
    world.publish(v5, "t", "later", 1, 4);
    world.publish(v5, "t", "later", 0, 0);
    assert_eq!(world.take(v5)[0].reason(), refused, "and it does not wait behind anything");
    assert_eq!(world.stats(0).messages_refused_disk.get(), 5);
    let replaying = world.client(Version::V5, "replaying");
    world.subscribed(replaying, "$replay/earliest/#", 0);
    for reader in [live, replaying] {
        assert_eq!(world.payloads(reader), ["durable", "waits", "waits too", "waits as well"]);
    }
}

#[test]
fn what_was_on_its_way_while_the_log_failed_is_refused_too() {
    let mut world = world(Durability::Sync);
    let client = world.client(Version::V5, "c");
    world.publish(client, "t", "waits", 1, 1);
    let outgoing = world.shard(0).take_outgoing().expect("a deposit");
    let _ = world.sequencer.deposit(0, outgoing.deposits);
    // It stands in the log, and its shard has not heard of it.
    fail_for_good(&mut world);
    assert_eq!(world.take(client)[0].reason(), Reason::QuotaExceeded);
}

/// Found by the simulation: the rest of a refused batch was acknowledged with the next batch that was stored, before the
/// connection was closed.
#[test]
fn after_a_refusal_in_3x_nothing_that_came_with_it_looks_stored() {
    let unlogged = vec![firehose_topic::TopicFilter::new("live/#").expect("a filter")];
    let mut world = World::new(Setup { unlogged, ..Setup::default() });
    let publisher = world.client(Version::V311, "p");
    world.disk.fail(DiskCall::Write, ErrorKind::Other);
    // An unlogged message between them makes two batches of it: the first is refused, the second is stored.
    let mut bytes = Vec::new();
    for (topic, packet_id) in [("t/1", 1), ("t/2", 2), ("live/x", 3), ("t/4", 4)] {
        let packet = firehose_mqtt::Packet::Publish(crate::client::publish(topic, "x", 1, packet_id));
        bytes.extend(crate::client::bytes_of(&packet, Version::V311));
    }
    world.send(publisher, &bytes);
    assert_eq!(world.take(publisher), []);
    assert!(world.clients[publisher].closed);
}

/// Found by the simulation: told no, the client used the packet id for another message, which was taken for this one.
#[test]
fn a_session_is_not_told_no_of_a_qos_2_message_that_may_stand_in_the_log_all_the_same() {
    for version in [Version::V311, Version::V5] {
        let mut world = world(Durability::Sync);
        let (client, _) = crate::session::connect(&mut world, version, "s", &[]);
        world.publish(client, "t", "waits", 2, 5);
        world.settle();
        fail_for_good(&mut world);
        let kinds: Vec<PacketKind> = world.take(client).iter().map(|it| it.kind).collect();
        let told = if version == Version::V5 { &[PacketKind::Disconnect][..] } else { &[] };
        assert_eq!(kinds, told);
        assert!(world.clients[client].closed);
    }
}
