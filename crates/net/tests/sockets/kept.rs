//! What clients make the bus keep, over sockets: who floods it loses connections, and nobody else does.

use crate::bed::{Bed, Client};
use firehose_broker::Limits;
use firehose_mqtt::{QoS, Version};
use std::io::Write;
use std::net::TcpStream;

/// A PUBLISH of 700,005 bytes.
fn packet() -> Vec<u8> {
    let mut packet = vec![0x30, 0xe0, 0xdc, 0x2a, 0, 7];
    packet.extend_from_slice(b"alice/t");
    packet.resize(4 + 700_000, b'z');
    packet
}

#[test]
fn beginnings_of_packets_that_never_come_whole_cost_their_senders_connections_only() {
    let limits = Limits { kept_bytes_max: 8 << 20, packet_bytes_max: 1 << 20, ..Limits::default() };
    let bed = Bed::start(limits);
    let packet = packet();
    let mut all: Vec<Client<TcpStream>> =
        (0..5).map(|it| bed.alice(Version::V311, &format!("c {it}"))).collect();
    for client in &mut all {
        // It may be closed meanwhile.
        let _ = client.stream.write_all(&packet[..packet.len() - 1]);
    }
    // Two of them fit into 2 MiB, in whatever order they are read.
    while bed.bus.stats().connections_over_budget.get() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut reader = bed.client(Version::V5, "reader");
    reader.subscribe("alice/#", QoS::AtMostOnce);
    let mut honest = bed.alice(Version::V5, "honest");
    honest.publish("alice/x", "small", 3);
    assert_eq!(honest.next().as_deref(), Some("PUBACK 3"));
    assert_eq!(reader.next().as_deref(), Some("small"));
    let answers = all.iter_mut().map(|client| {
        let _ = client.stream.write_all(&[b'z', 0xc0, 0]);
        client.next()
    });
    let went_on = answers.filter(|answer| answer.as_deref() == Some("PINGRESP")).count();
    assert_eq!(went_on, 2, "their packets came whole after all");
}
