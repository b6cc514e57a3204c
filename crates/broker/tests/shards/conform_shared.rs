//! Shared subscriptions, statement by statement (docs/reference/mqtt.md).

use crate::client::{bytes_of, id, options};
use crate::session::{VERSIONS, again, arrive, connect};
use crate::shared::{numbers, publish, publishes, world};
use crate::world::World;
use firehose_mqtt::{Ack, Packet, PacketKind, Properties, Property, Reason, Version};

const GROUP: &str = "$share/g/t/#";

fn member(world: &mut World, name: &str, qos: u8) -> usize {
    let (client, _) = connect(world, Version::V5, name, &[Property::SessionExpiry(100)]);
    assert!(!world.subscribed(client, GROUP, qos).is_error());
    client
}

fn answer(
    world: &mut World,
    client: usize,
    make: fn(Ack<'static>) -> Packet<'static>,
    of: u16,
    reason: Reason,
) {
    let packet = make(Ack { packet_id: id(of), reason, properties: Properties::EMPTY });
    let bytes = bytes_of(&packet, world.clients[client].version);
    world.send(client, &bytes);
    world.settle();
}

#[test]
fn what_a_member_answers_with_an_error_goes_to_nobody_else() {
    for qos in [1, 2] {
        let mut world = world();
        let publisher = world.client(Version::V311, "p");
        let (one, two) = (member(&mut world, "one", qos), member(&mut world, "two", qos));
        world.clients[two].acknowledges = true;
        publish(&mut world, publisher, 1..=10, 2);
        let refused = publishes(&mut world, one);
        assert_eq!((refused.len(), numbers(&mut world, two).len()), (5, 5));
        for it in refused {
            let make = if qos == 1 { Packet::PubAck as fn(_) -> _ } else { Packet::PubRec };
            answer(&mut world, one, make, it.id, Reason::UnspecifiedError);
        }
        assert_eq!(world.take(one), [], "no PUBREL follows");
        assert_eq!(numbers(&mut world, two), [0; 0]);
        world.hang_up(one);
        assert_eq!(numbers(&mut world, two), [0; 0]);
        let one = again(&mut world, Version::V5, "one");
        assert_eq!(world.take(one), []);
        world.hang_up(one);
        let _clean = arrive(&mut world, Version::V5, true, "one", &[]);
        world.pass(200_000);
        assert_eq!(numbers(&mut world, two), [0; 0], "[MQTT-4.8.2-6]");
    }
}

#[test]
fn qos_2_that_was_begun_with_a_member_is_completed_with_it() {
    let mut world = world();
    let publisher = world.client(Version::V311, "p");
    let (one, two) = (member(&mut world, "one", 2), member(&mut world, "two", 2));
    world.clients[two].acknowledges = true;
    publish(&mut world, publisher, 1..=10, 2);
    let begun = publishes(&mut world, one);
    assert_eq!(begun.len(), 5);
    world.heard(two);
    // Of the first PUBREC got out; the others stand where PUBLISH is.
    answer(&mut world, one, Packet::PubRec, begun[0].id, Reason::Success);
    assert_eq!(world.take(one)[0].kind, PacketKind::PubRel);
    world.hang_up(one);
    let one = again(&mut world, Version::V5, "one");
    let got = world.take(one);
    let kinds: Vec<_> = got.iter().map(|it| (it.kind, it.id, it.dup)).collect();
    let mut expected = vec![(PacketKind::PubRel, begun[0].id, false)];
    expected.extend(begun[1..].iter().map(|it| (PacketKind::Publish, it.id, true)));
    assert_eq!(kinds, expected, "[MQTT-4.8.2-4]");
    assert_eq!(numbers(&mut world, two), [0; 0]);
}

#[test]
fn a_share_name_that_is_none_is_refused() {
    for version in VERSIONS {
        for filter in ["$share//t", "$share/a+/t", "$share/#/t", "$share/a#b/t", "$share/g", "$share/g/"] {
            let mut world = world();
            let client = world.client(version, "c");
            world.subscribe(client, &[(filter, options(0))], &[]);
            let got = world.take(client);
            // One with a wildcard in the midst of a level is no filter at all.
            let is_refused = got.first().is_none_or(|it| it.reason().is_error());
            assert!(is_refused && (world.clients[client].closed || !got.is_empty()), "{filter}: {got:?}");
        }
    }
}
