//! Sessions that outlive their connection, and the bus.

use crate::bed::{Bed, Client, session_bytes};
use firehose_broker::Limits;
use firehose_mqtt::{Ack, Packet, Properties, QoS, Reason, Version};
use std::net::{Shutdown, TcpStream};

/// A client that goes on with its session; `present`: it is there.
fn come(bed: &Bed, version: Version, id: &str, present: bool) -> Client<TcpStream> {
    let mut client = bed.dial();
    client.version = version;
    client.send(&session_bytes(version, id));
    let expected = if present { "CONNACK present" } else { "CONNACK Success" };
    assert_eq!(client.next().as_deref(), Some(expected));
    client
}

fn ack(client: &mut Client<TcpStream>, make: fn(Ack<'static>) -> Packet<'static>, id: u16) {
    let packet_id = id.try_into().expect("not zero");
    client.send_packet(&make(Ack { packet_id, reason: Reason::Success, properties: Properties::EMPTY }));
}

#[test]
fn a_session_goes_on_after_its_connection_and_after_the_bus() {
    let mut bed = Bed::start(Limits::default());
    let versions = [Version::V311, Version::V5];
    for version in versions {
        let mut client = come(&bed, version, &format!("{version:?}"), false);
        client.subscribe("alice/#", QoS::AtLeastOnce);
    }
    for round in 0..3u16 {
        let mut alice = bed.alice(Version::V5, "alice");
        alice.publish("alice/x", &format!("missed {round}"), round + 1);
        assert_eq!(alice.next(), Some(format!("PUBACK {}", round + 1)));
        if round == 1 {
            bed = bed.restart();
        }
        for version in versions {
            let mut client = come(&bed, version, &format!("{version:?}"), true);
            assert_eq!(client.next(), Some(format!("missed {round}")));
            ack(&mut client, Packet::PubAck, round + 1);
            // Answered behind the acknowledgement: that was looked at.
            client.send(&[0xc0, 0]);
            assert_eq!(client.next().as_deref(), Some("PINGRESP"));
        }
    }
}

#[test]
fn a_qos_2_message_goes_all_its_way_over_a_lost_connection_and_a_restart() {
    let mut bed = Bed::start(Limits::default());
    let mut client = come(&bed, Version::V5, "s", false);
    client.subscribe("alice/#", QoS::ExactlyOnce);
    let mut alice = bed.alice(Version::V5, "alice");
    alice.send_packet(&Packet::Publish(firehose_mqtt::Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "alice/x",
        packet_id: 1.try_into().ok(),
        properties: Properties::EMPTY,
        payload: b"once",
    }));
    assert_eq!(alice.next().as_deref(), Some("PUBREC"));
    assert_eq!(client.next().as_deref(), Some("once"));
    drop((client, alice));
    let mut client = come(&bed, Version::V5, "s", true);
    assert_eq!(client.next().as_deref(), Some("once"), "sent again");
    ack(&mut client, Packet::PubRec, 1);
    assert_eq!(client.next().as_deref(), Some("PUBREL"));
    drop(client);
    bed = bed.restart();
    let mut client = come(&bed, Version::V5, "s", true);
    assert_eq!(client.next().as_deref(), Some("PUBREL"), "and never as a PUBLISH again");
    ack(&mut client, Packet::PubComp, 1);
    client.send(&[0xc0, 0]);
    assert_eq!(client.next().as_deref(), Some("PINGRESP"));
}

#[test]
fn a_live_session_is_taken_over_with_its_subscriptions() {
    let bed = Bed::start(Limits::default());
    let mut first = come(&bed, Version::V5, "s", false);
    first.subscribe("alice/#", QoS::AtMostOnce);
    let mut second = come(&bed, Version::V5, "s", true);
    assert_eq!(first.next().as_deref(), Some("DISCONNECT SessionTakenOver"));
    assert_eq!(first.next(), None);
    let mut alice = bed.alice(Version::V311, "alice");
    alice.publish("alice/x", "for the second", 0);
    assert_eq!(second.next().as_deref(), Some("for the second"));
}

#[test]
fn the_end_of_a_connection_is_seen_also_when_it_comes_together_with_the_last_bytes() {
    let bed = Bed::start(Limits::default());
    for round in 0..100 {
        let mut alice = bed.alice(Version::V311, "alice");
        alice.publish("alice/x", &format!("last words {round}"), 0);
        alice.stream.shutdown(Shutdown::Write).expect("it was open");
        // Without keep-alive nothing else would ever close it.
        assert_eq!(alice.next(), None);
    }
}
