//! A client leaves properly while it is not read for a while: whatever ends its connection then, it has left.

use crate::client::{bytes_of, connect_packet, options, properties, publish, subscribe_packet};
use crate::wills::{CLIENT, Client, KEPT, count, reader, users};
use crate::world::{Setup, World};
use firehose_auth::Identity;
use firehose_broker::Limits;
use firehose_broker::message::Message;
use firehose_mqtt::{Disconnect, Packet, Property, Reason, Version};

const NEXT: Client<'_> = Client { session: KEPT, clean: false, has_will: false, ..CLIENT };

/// How the connection of a client that is not read ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    TakenOver,
    WireFails,
    BusStops,
    PauseIsOver,
}

const ENDS: [End; 4] = [End::TakenOver, End::WireFails, End::BusStops, End::PauseIsOver];

fn many_filters(version: Version) -> Vec<u8> {
    let filters: Vec<String> = (0..600).map(|number| format!("t/{number}")).collect();
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options(0))).collect();
    subscribe_packet(version, 9, &filters, &[])
}

fn leaves(version: Version, reason: Reason, list: &[Property<'_>]) -> Vec<u8> {
    let list = properties(list);
    bytes_of(&Packet::Disconnect(Disconnect { reason, properties: list.as_properties() }), version)
}

/// How often the will is published of a client that sends this behind a SUBSCRIBE, until which it is not read.
fn published(client: &Client<'_>, behind: &[u8], end: End) -> usize {
    let mut world = World::new(users());
    let mut reader = reader(&mut world);
    let old = client.arrive(&mut world);
    world.send(old, &[many_filters(client.version), behind.to_vec()].concat());
    assert!(world.clients[old].is_paused());
    match end {
        End::TakenOver => _ = Client { version: client.version, ..NEXT }.arrive(&mut world),
        End::WireFails => world.cut(old),
        End::BusStops => {
            world.sequencer.send(0, Message::Shutdown);
            world.settle();
            world = world.reopen(false);
            reader = crate::wills::reader(&mut world);
        }
        End::PauseIsOver => world.settle(),
    }
    world.pass(120_000);
    count(&mut world, reader)
}

#[test]
fn who_left_properly_while_it_was_not_read_has_no_will_published_however_its_connection_ends() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let session = if version == Version::V5 { KEPT } else { &[] };
        let client = Client { version, session, ..CLIENT };
        let ping = [0xc0, 0];
        let hello = bytes_of(&Packet::Publish(publish("a/x/y", "hello", 0, 0)), version);
        for end in ENDS {
            let bye = leaves(version, Reason::Success, &[]);
            assert_eq!(published(&client, &bye, end), 0, "{version:?} {end:?}");
            let bye = [&ping[..], &many_filters(version), &bye].concat();
            assert_eq!(published(&client, &bye, end), 0, "{version:?} {end:?}");
        }
        let seen =
            published(&client, &[hello, leaves(version, Reason::Success, &[])].concat(), End::PauseIsOver);
        assert_eq!(seen, 1, "what it published before");
    }
}

#[test]
fn who_has_not_left_properly_has_its_will_published() {
    let (client, passing) = (Client { session: KEPT, ..CLIENT }, CLIENT);
    let bye = leaves(Version::V5, Reason::Success, &[]);
    let again = [connect_packet(Version::V5, "a", &[]), bye.clone()].concat();
    let malformed = [&[0xf1, 0][..], &bye].concat();
    let longer = leaves(Version::V5, Reason::Success, &[Property::SessionExpiry(5)]);
    let cases: [(&str, &Client<'_>, &[u8]); 6] = [
        ("nothing", &client, &[]),
        ("half of it", &client, &bye[..1]),
        ("it wants its will", &client, &leaves(Version::V5, Reason::DisconnectWithWill, &[])),
        ("a second CONNECT before", &client, &again),
        ("a malformed packet before", &client, &malformed),
        ("an expiry that CONNECT did not have", &passing, &longer),
    ];
    for end in ENDS {
        for (what, client, behind) in cases {
            let is_going_on = end == End::PauseIsOver && ["nothing", "half of it"].contains(&what);
            assert_eq!(published(client, behind, end), usize::from(!is_going_on), "{what}, {end:?}");
        }
    }
}

#[test]
fn how_long_its_session_is_to_live_is_heard_too() {
    for (secs, expected) in [(0, false), (50, true)] {
        let mut world = World::new(users());
        let old = Client { session: KEPT, ..CLIENT }.arrive(&mut world);
        let bye = leaves(Version::V5, Reason::Success, &[Property::SessionExpiry(secs)]);
        world.send(old, &[many_filters(Version::V5), bye].concat());
        assert!(world.clients[old].is_paused());
        let next = world.arrive(NEXT.connect(), Identity::user("a"), "a", None);
        assert_eq!(world.take(old), [], "nor is it told that it was taken over");
        assert_eq!(world.take(next)[0].session_present, expected);
    }
}

#[test]
fn who_left_properly_while_it_published_too_fast_has_no_will_published() {
    for end in [End::TakenOver, End::WireFails, End::PauseIsOver] {
        let limits = Limits { publish_bytes_per_sec_max: 10, ..Limits::default() };
        let mut world = World::new(Setup { limits, ..users() });
        let reader = reader(&mut world);
        let old = Client { session: KEPT, ..CLIENT }.arrive(&mut world);
        let hello = bytes_of(&Packet::Publish(publish("b", "hello", 0, 0)), Version::V5);
        world.send(old, &[hello.repeat(3), leaves(Version::V5, Reason::Success, &[])].concat());
        assert!(world.clients[old].is_paused());
        match end {
            End::TakenOver => _ = NEXT.arrive(&mut world),
            End::WireFails => world.cut(old),
            _ => (0..5).for_each(|_| world.pass(1_000)),
        }
        world.pass(120_000);
        assert!(world.clients[old].closed);
        assert_eq!(count(&mut world, reader), 0, "{end:?}");
    }
}
