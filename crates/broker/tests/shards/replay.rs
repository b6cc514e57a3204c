//! `$replay` and `since`: where they begin, what they cost, what they say of gaps.

use crate::client::{options, subscribe_packet, unsubscribe_packet};
use crate::world::{START_US, Setup, World};
use firehose_auth::AnonymousMode;
use firehose_broker::Limits;
use firehose_broker::shard::Action;
use firehose_log::{Cursor, DiskCall, KeepNothing, Offset};
use firehose_mqtt::{Packet, PacketKind, Property, Publish, Reason, Version};
use std::io::ErrorKind;
use std::net::IpAddr;

const CURSORS: Property<'_> = Property::UserProperty("firehose-cursor", "on");

/// Publishes the numbers, ten seconds apart.
fn publish(world: &mut World, numbers: std::ops::Range<u16>) {
    let publisher = world.client(Version::V311, "publisher");
    for number in numbers {
        world.publish(publisher, "t", &number.to_string(), 1, number.max(1));
        world.settle();
        world.pass(10_000);
        world.send_packet(publisher, &Packet::PingReq);
    }
    world.settle();
}

fn cursor_of(world: &World, offset: Offset) -> String {
    let (log_id, epoch) = (world.read.log_id(), world.read.epoch());
    Cursor { log_id, epoch, offset, recorded_secs: START_US / 1_000_000 }.encode()
}

fn payloads(world: &mut World, client: usize) -> Vec<String> {
    let got = world.take(client);
    got.into_iter().filter(|it| it.kind == PacketKind::Publish).map(|it| it.payload).collect()
}

/// What a subscriber gets who begins there, by `$replay` and on MQTT 5 by `since`.
fn begins(world: &mut World, from: &str) -> Vec<String> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for version in [Version::V31, Version::V311, Version::V5] {
        let client = world.client(version, "reader");
        assert_eq!(world.subscribed(client, &format!("$replay/{from}/t"), 0), Reason::Success, "{from}");
        found.push(payloads(world, client));
    }
    let client = world.client(Version::V5, "since");
    world.subscribe(client, &[("t", options(0))], &[Property::UserProperty("since", from)]);
    found.push(payloads(world, client));
    let first = found.remove(0);
    assert!(found.iter().all(|other| *other == first), "{from}: {first:?} {found:?}");
    first
}

#[test]
fn it_begins_where_each_kind_of_from_says() {
    let mut world = World::open();
    publish(&mut world, 0..10);
    let all: Vec<String> = (0..10).map(|it| it.to_string()).collect();
    assert_eq!(begins(&mut world, "earliest"), all);
    assert_eq!(begins(&mut world, "-1h"), all);
    // The clock stands 100 s behind the first one; number 7 was recorded 30 s ago.
    assert_eq!(begins(&mut world, "-30s"), all[7..]);
    assert_eq!(begins(&mut world, "-1s"), Vec::<String>::new());
    let time = firehose_log::format_time(START_US + 40_000_000);
    assert_eq!(begins(&mut world, &time), all[4..], "times are inclusive");
    let cursor = cursor_of(&world, 3);
    assert_eq!(begins(&mut world, &cursor), all[3..], "a cursor means after its event");
    let cursor = cursor_of(&world, 10);
    assert_eq!(begins(&mut world, &cursor), Vec::<String>::new());
    let cursor = cursor_of(&world, 0);
    assert_eq!(begins(&mut world, &cursor), all);
}

/// The process ends, and the next finds the disk full when it makes the first of each such call.
fn begun_on_full_disk(world: World, calls: &[DiskCall]) -> World {
    let (disk, now, setup) = (world.disk.clone(), world.now, world.setup.clone());
    drop(world);
    calls.iter().for_each(|call| disk.fail(*call, ErrorKind::StorageFull));
    World::on(disk, now, setup)
}

/// Found by the simulation (seed 442187183183): its epoch had not begun, and was another one at the next start.
#[test]
fn a_cursor_that_was_given_out_on_a_full_disk_holds_after_every_later_start() {
    let mut world = World::open();
    publish(&mut world, 0..2);
    world.commit();
    // One start names its first segment, and cannot make the name durable; the next finds it, cannot name its
    // own, and cannot make that of the first durable either.
    let world = begun_on_full_disk(world, &[DiskCall::SyncDir, DiskCall::SyncDir]);
    let mut world = begun_on_full_disk(world, &[DiskCall::Rename, DiskCall::SyncDir]);
    assert_eq!(world.read.epoch(), 3);
    let reader = world.client(Version::V5, "reader");
    world.subscribe(reader, &[("t", options(0))], &[CURSORS]);
    let cursor = world.take(reader)[0].user("firehose-cursor").expect("a cursor").to_owned();
    assert_eq!(Cursor::parse(&cursor).map(|it| (it.epoch, it.offset)), Ok((1, 2)), "of the newest event");
    let mut world = world.reopen(true);
    assert_eq!(world.read.epoch(), 2, "the power has taken what had a name");
    assert_eq!(begins(&mut world, &cursor), Vec::<String>::new());
    publish(&mut world, 2..3);
    assert_eq!(begins(&mut world, &cursor), ["2"]);
}

#[test]
fn a_message_that_a_gap_would_make_too_large_goes_without_and_the_next_that_has_room_tells_it() {
    let mut world = World::new(Setup {
        segment_bytes: 1 << 10,
        tail_bytes: 0,
        retention_bytes: Some(2 << 10),
        ..Setup::default()
    });
    let publisher = world.client(Version::V311, "publisher");
    let long = "x".repeat(100);
    for number in 1..=40 {
        world.publish(publisher, "t", &long, 1, number);
        world.settle();
        world.commit();
    }
    world.upkeep_keeping_nothing();
    let (cursor, left) = (cursor_of(&world, 1), 41 - world.read.oldest());
    let reader = world.client_with(Version::V5, "reader", &[Property::MaximumPacketSize(140)]);
    assert_eq!(world.subscribed(reader, &format!("$replay/{cursor}/t"), 1), Reason::GrantedQoS1);
    let taken = |world: &mut World| -> Vec<(usize, bool)> {
        let got = world.take(reader).into_iter().filter(|it| it.kind == PacketKind::Publish);
        got.map(|it| (it.payload.len(), it.user("firehose-gap").is_some())).collect()
    };
    assert_eq!(taken(&mut world), vec![(100, false); left as usize], "by the log");
    for payload in [&long, "short", "short"] {
        world.publish(publisher, "t", payload, 0, 0);
    }
    assert_eq!(taken(&mut world), [(100, false), (5, true), (5, false)], "as it comes");
}

#[test]
fn a_cursor_above_the_head_is_refused() {
    let mut world = World::open();
    publish(&mut world, 0..3);
    let cursor = cursor_of(&world, 4);
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    assert_eq!(world.subscribed(v5, &format!("$replay/{cursor}/t"), 0), Reason::TopicFilterInvalid);
    assert_eq!(world.subscribed(v3, &format!("$replay/{cursor}/t"), 0), Reason::UnspecifiedError);
}

#[test]
fn an_empty_log_replays_nothing_and_goes_on_live() {
    let mut world = World::open();
    let client = world.client(Version::V311, "c");
    assert_eq!(world.subscribed(client, "$replay/earliest/#", 0), Reason::Success);
    publish(&mut world, 0..2);
    assert_eq!(payloads(&mut world, client), ["0", "1"]);
}

#[test]
fn answers_that_overtake_each_other_begin_each_filter_where_it_asked() {
    let mut world = World::open();
    publish(&mut world, 0..10);
    world.delays_reads = true;
    let client = world.client(Version::V311, "c");
    let cursor = cursor_of(&world, 8);
    let (late, early) = (format!("$replay/{cursor}/t"), "$replay/earliest/+");
    world.subscribe(client, &[(&late, options(0)), (early, options(0))], &[]);
    world.settle();
    assert_eq!(world.questions.len(), 2);
    world.answer(1);
    world.settle();
    assert_eq!(world.take(client), [], "the other answer is missing");
    world.answer(0);
    world.settle();
    let suback = &world.take(client)[0];
    assert_eq!(suback.reasons, [Reason::Success, Reason::Success]);
    let packet = unsubscribe_packet(Version::V311, 1, &[early]);
    world.send(client, &packet);
    world.delays_reads = false;
    world.let_go();
    assert_eq!(payloads(&mut world, client), ["8", "9"]);
}

#[test]
fn packets_behind_a_subscribe_that_waits_for_the_log_come_behind_it() {
    let mut world = World::open();
    publish(&mut world, 0..2);
    world.delays_reads = true;
    let client = world.client(Version::V5, "c");
    let mut bytes = subscribe_packet(Version::V5, 1, &[("$replay/earliest/t", options(0))], &[]);
    bytes.extend([0xc0, 0]);
    bytes.extend(unsubscribe_packet(Version::V5, 2, &["$replay/earliest/t"]));
    world.send(client, &bytes);
    assert_eq!(world.take(client), []);
    world.let_go();
    let got: Vec<_> = world.take(client).iter().map(|it| it.kind).collect();
    assert!(got.contains(&PacketKind::PingResp));
    let place = |kind| got.iter().position(|it| *it == kind).unwrap();
    assert!(place(PacketKind::SubAck) < place(PacketKind::UnsubAck));
}

#[test]
fn a_client_that_leaves_while_the_log_is_asked_harms_nobody() {
    let mut world = World::open();
    publish(&mut world, 0..3);
    world.delays_reads = true;
    let client = world.client(Version::V5, "c");
    world.subscribe(client, &[("$replay/earliest/t", options(0))], &[]);
    world.settle();
    world.hang_up(client);
    let next = world.client(Version::V5, "next");
    world.subscribed(next, "t", 0);
    world.let_go();
    assert_eq!(payloads(&mut world, next), Vec::<String>::new());
    // The same while the log is read.
    let client = world.client(Version::V5, "c");
    world.subscribe(client, &[("$replay/earliest/t", options(0))], &[]);
    world.settle();
    world.answer(0);
    world.settle();
    assert_eq!(world.questions.len(), 1, "now it is read");
    world.hang_up(client);
    let next = world.client(Version::V5, "another");
    world.subscribed(next, "t", 0);
    world.let_go();
    assert_eq!(payloads(&mut world, next), Vec::<String>::new());
}

#[test]
fn the_same_replay_again_goes_on_and_a_since_begins_again() {
    let mut world = World::open();
    publish(&mut world, 0..3);
    let client = world.client(Version::V5, "c");
    world.subscribed(client, "$replay/earliest/t", 0);
    assert_eq!(payloads(&mut world, client).len(), 3);
    world.subscribed(client, "$replay/earliest/t", 0);
    assert_eq!(payloads(&mut world, client).len(), 0);
    for _ in 0..2 {
        world.subscribe(client, &[("+", options(0))], &[Property::UserProperty("since", "earliest")]);
        assert_eq!(payloads(&mut world, client).len(), 3);
    }
}

#[test]
fn a_cursor_resumes_with_exactly_the_rest() {
    let mut world = World::open();
    let client = world.client_with(Version::V5, "c", &[CURSORS]);
    world.subscribed(client, "t", 1);
    publish(&mut world, 0..8);
    let got = world.take(client);
    assert_eq!(got.len(), 8);
    for (index, event) in got.iter().enumerate() {
        let cursor = event.user("firehose-cursor").unwrap();
        let resumed = world.client_with(Version::V5, "resumed", &[CURSORS]);
        world.subscribe(resumed, &[("t", options(1))], &[Property::UserProperty("since", cursor)]);
        let rest: Vec<_> =
            world.take(resumed).into_iter().filter(|it| it.kind == PacketKind::Publish).collect();
        let cursors = |events: &[crate::client::Got]| -> Vec<_> {
            events.iter().map(|it| (it.payload.clone(), it.user.clone())).collect()
        };
        assert_eq!(cursors(&rest), cursors(&got[index + 1..]));
    }
}

/// A log that has lost its beginning.
fn shortened() -> (World, Offset) {
    let mut world = World::new(Setup {
        segment_bytes: 2_000,
        retention_bytes: Some(4_000),
        tail_bytes: 0,
        ..Setup::default()
    });
    let publisher = world.client(Version::V311, "publisher");
    for number in 0..100 {
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
        world.settle();
    }
    world.commit();
    world.commit.upkeep(world.now.wall_us, &mut KeepNothing);
    let oldest = world.read.oldest();
    assert!(oldest > 10, "{oldest}");
    (world, oldest)
}

#[test]
fn a_cursor_below_the_retention_declares_a_gap_on_5_and_is_refused_before() {
    let (mut world, oldest) = shortened();
    let cursor = cursor_of(&world, 4);
    let v3 = world.client(Version::V311, "3");
    assert_eq!(world.subscribed(v3, &format!("$replay/{cursor}/t"), 0), Reason::UnspecifiedError);
    let v5 = world.client(Version::V5, "5");
    world.subscribe(v5, &[("t", options(0))], &[Property::UserProperty("since", &cursor), CURSORS]);
    let got: Vec<_> = world.take(v5).into_iter().filter(|it| it.kind == PacketKind::Publish).collect();
    let gap = got[0].user("firehose-gap").unwrap();
    assert!(gap.starts_with(&format!("5..{} ", oldest - 1)), "{gap}");
    assert!(got[1..].iter().all(|it| it.user("firehose-gap").is_none()));
    assert_eq!(got.len() as u64, 100 - oldest + 1);
    for from in ["earliest", "-7d"] {
        assert_eq!(world.subscribed(v3, &format!("$replay/{from}/t"), 0), Reason::Success);
        assert_eq!(payloads(&mut world, v3).len() as u64, 100 - oldest + 1);
        world.send(v3, &unsubscribe_packet(Version::V311, 1, &[&format!("$replay/{from}/t")]));
    }
}

#[test]
fn a_gap_is_told_with_the_next_message_although_that_is_live() {
    let (mut world, _) = shortened();
    let cursor = cursor_of(&world, 4);
    let client = world.client(Version::V5, "c");
    world.subscribe(client, &[("other", options(0))], &[Property::UserProperty("since", &cursor)]);
    assert_eq!(payloads(&mut world, client), Vec::<String>::new());
    let publisher = world.client(Version::V311, "publisher");
    for payload in ["1", "2"] {
        world.publish(publisher, "other", payload, 0, 0);
    }
    let got = world.take(client);
    assert!(got[0].user("firehose-gap").is_some_and(|gap| gap.starts_with("5..")), "{got:?}");
    assert_eq!((got.len(), got[1].user("firehose-gap")), (2, None));
}

#[test]
fn a_reader_that_the_retention_passes_is_told_on_5_and_closed_before() {
    let limits = Limits { outbox_bytes_max: 500, replay_chunk_bytes: 500, ..Limits::default() };
    let mut world = World::new(Setup {
        limits,
        segment_bytes: 2_000,
        retention_bytes: Some(4_000),
        tail_bytes: 0,
        ..Setup::default()
    });
    let (v5, v3) = (world.client(Version::V5, "5"), world.client(Version::V311, "3"));
    for client in [v5, v3] {
        world.subscribed(client, "t", 0);
        world.clients[client].room = 300;
    }
    let publisher = world.client(Version::V311, "publisher");
    for number in 0..100 {
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(100)), 0, 0);
        world.settle();
    }
    world.commit();
    world.commit.upkeep(world.now.wall_us, &mut KeepNothing);
    world.let_go();
    assert!(world.clients[v3].closed && !world.clients[v5].closed);
    let got = world.take(v5);
    let numbers: Vec<u64> =
        got.iter().map(|it| it.payload.split(' ').next().unwrap().parse().unwrap()).collect();
    let at = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).unwrap() + 1;
    assert_eq!(numbers.last(), Some(&99));
    let told: Vec<usize> = (0..got.len()).filter(|it| got[*it].user("firehose-gap").is_some()).collect();
    assert_eq!(told, [at], "where the gap is, and nowhere else");
    let expected = format!("{}..{} ", numbers[at - 1] + 2, numbers[at]);
    assert!(got[at].user("firehose-gap").unwrap().starts_with(&expected), "{expected}: {:?}", got[at]);
}

fn from_address(world: &mut World, id: &str, address: &str) -> usize {
    let packet = crate::client::connect_packet(Version::V5, id, &[]);
    let address: Option<IpAddr> = Some(address.parse().unwrap());
    let client = world.arrive(packet, firehose_auth::Identity::anonymous(), id, address);
    world.take(client);
    client
}

#[test]
fn replays_are_counted_in_all_and_for_each_address_and_given_back() {
    let limits =
        Limits { replays_max: 3, replays_per_address_max: 2, outbox_bytes_max: 10, ..Limits::default() };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    publish(&mut world, 0..50);
    let begin = |world: &mut World, id: &str, address| {
        let client = from_address(world, id, address);
        // So that it does not come to its end: nothing but the SUBACK goes out.
        world.clients[client].room = 6;
        (client, world.subscribed(client, "$replay/earliest/t", 0))
    };
    let (first, reason) = begin(&mut world, "1", "203.0.113.1");
    assert_eq!(reason, Reason::Success);
    let (second, reason) = begin(&mut world, "2", "203.0.113.1");
    assert_eq!(reason, Reason::Success);
    assert_eq!(begin(&mut world, "3", "203.0.113.1").1, Reason::QuotaExceeded);
    assert_eq!(begin(&mut world, "4", "203.0.113.2").1, Reason::Success);
    assert_eq!(begin(&mut world, "5", "203.0.113.3").1, Reason::QuotaExceeded, "three run");
    world.hang_up(first);
    assert_eq!(begin(&mut world, "6", "203.0.113.3").1, Reason::Success, "an end gives its place back");
    world.drain_wire(second, usize::MAX);
    world.settle();
    assert_eq!(begin(&mut world, "7", "203.0.113.4").1, Reason::Success, "so does being live");
}

#[test]
fn an_address_gets_its_replay_rate_and_no_more() {
    let limits = Limits {
        replay_bytes_per_sec_per_address_max: 2_000,
        replay_chunk_bytes: 500,
        outbox_bytes_max: 500,
        ..Limits::default()
    };
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let publisher = world.client(Version::V311, "publisher");
    for number in 0..100 {
        world.publish(publisher, "t", &format!("{number} {}", "x".repeat(190)), 0, 0);
        world.settle();
    }
    let client = from_address(&mut world, "c", "203.0.113.1");
    let local = from_address(&mut world, "l", "127.0.0.1");
    world.subscribed(client, "$replay/earliest/t", 0);
    world.subscribed(local, "$replay/earliest/t", 0);
    assert_eq!(payloads(&mut world, local).len(), 100, "loopback has no such limit");
    let mut got = payloads(&mut world, client).len();
    assert!((5..20).contains(&got), "{got}");
    let mut seconds = 0;
    while got < 100 {
        seconds += 1;
        assert!(seconds < 20, "{got}");
        for _ in 0..20 {
            world.pass(50);
        }
        let more = payloads(&mut world, client).len();
        assert!(more < 18, "{more} in a second");
        got += more;
    }
    assert_eq!(got, 100);
}

#[test]
fn a_session_with_many_filters_reads_whole_chunks_and_misses_nothing() {
    let mut world = World::open();
    publish(&mut world, 0..300);
    let filters: Vec<String> = (0..900).map(|it| format!("none/{it}")).chain(["t".to_owned()]).collect();
    let filters: Vec<_> = filters.iter().map(|it| (it.as_str(), options(0))).collect();
    let client = world.client(Version::V5, "many");
    world.delays_reads = true;
    world.subscribe(client, &filters, &[Property::UserProperty("since", "earliest")]);
    world.settle();
    let (mut places, mut chunks) = (0, 0);
    while let Some((_, question)) = world.questions.front() {
        match question {
            Action::Resolve { .. } => places += 1,
            _ => chunks += 1,
        }
        world.answer(0);
        world.settle();
    }
    let all: Vec<String> = (0..300).map(|it| it.to_string()).collect();
    assert_eq!(payloads(&mut world, client), all);
    assert_eq!((places, chunks), (1, 1), "the place is sought once for all, the log is read once");
}

#[test]
fn who_may_not_publish_has_no_topic_aliases() {
    let mut world = World::new(Setup { anonymous: AnonymousMode::Read, ..Setup::default() });
    let client = world.client(Version::V5, "c");
    let properties = crate::client::properties(&[Property::TopicAlias(1)]);
    let publish = Publish { properties: properties.as_properties(), ..crate::client::publish("t", "", 1, 1) };
    world.send_packet(client, &Packet::Publish(publish));
    let last = world.take(client).pop().expect("an answer");
    assert_eq!((last.kind, last.reason()), (PacketKind::Disconnect, Reason::TopicAliasInvalid));
}
