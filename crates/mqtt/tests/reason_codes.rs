//! Which reason code belongs to which packet, as the sections of the specifications list them.

use firehose_mqtt::{Ack, DecodeError, Decoded, Packet, PacketId, PacketKind, Properties, Reason, Version};
use firehose_mqtt::{ConnAck, Disconnect, decode, encode};

const ACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASE: &[u8] = &[0x00, 0x92];
const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];
const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
/// 0x8c is in table 2-6 alone, not in 3.14.2.1.
const DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];
const AUTH: &[u8] = &[0x00, 0x18, 0x19];

/// A packet with this reason code.
fn packet(kind: PacketKind, code: u8) -> Vec<u8> {
    match kind {
        PacketKind::ConnAck => vec![0x20, 3, 0, code, 0],
        PacketKind::PubAck => vec![0x40, 3, 0, 1, code],
        PacketKind::PubRec => vec![0x50, 3, 0, 1, code],
        PacketKind::PubRel => vec![0x62, 3, 0, 1, code],
        PacketKind::PubComp => vec![0x70, 3, 0, 1, code],
        PacketKind::SubAck => vec![0x90, 4, 0, 1, 0, code],
        PacketKind::UnsubAck => vec![0xb0, 4, 0, 1, 0, code],
        PacketKind::Disconnect => vec![0xe0, 1, code],
        _ => vec![0xf0, 6, code, 4, 0x15, 0, 1, b'm'],
    }
}

#[test]
fn each_packet_takes_its_own_reason_codes_and_no_other() {
    for (kind, codes) in [
        (PacketKind::ConnAck, CONNACK),
        (PacketKind::PubAck, ACK),
        (PacketKind::PubRec, ACK),
        (PacketKind::PubRel, RELEASE),
        (PacketKind::PubComp, RELEASE),
        (PacketKind::SubAck, SUBACK),
        (PacketKind::UnsubAck, UNSUBACK),
        (PacketKind::Disconnect, DISCONNECT),
        (PacketKind::Auth, AUTH),
    ] {
        for code in 0..=255 {
            let bytes = packet(kind, code);
            let expected = codes.contains(&code);
            match decode(&bytes, Version::V5, 100) {
                Ok(Decoded::Packet(_, len)) => assert!(expected && len == bytes.len(), "{kind} {code:#04x}"),
                Err(error) => {
                    assert!(!expected, "{kind} {code:#04x}: {error}");
                    assert_eq!(error, DecodeError::ReasonCode(kind, code));
                }
                other => panic!("{kind} {code:#04x}: {other:?}"),
            }
        }
    }
}

#[test]
fn before_5_0_there_are_six_return_codes_of_connack_and_four_of_suback() {
    for (kind, codes) in
        [(PacketKind::ConnAck, &[0, 1, 2, 3, 4, 5][..]), (PacketKind::SubAck, &[0, 1, 2, 0x80])]
    {
        for code in 0..=255 {
            let bytes = match kind {
                PacketKind::ConnAck => vec![0x20, 2, 0, code],
                _ => vec![0x90, 3, 0, 1, code],
            };
            let is_taken = decode(&bytes, Version::V311, 100).is_ok();
            assert_eq!(is_taken, codes.contains(&code), "{kind} {code:#04x}");
        }
    }
}

#[test]
fn no_packet_is_encoded_with_a_reason_code_of_another() {
    let packet_id = PacketId::new(1).expect("not zero");
    let properties = Properties::EMPTY;
    for reason in (0..=255).filter_map(Reason::from_u8) {
        let ack = Ack { packet_id, reason, properties };
        for (packet, codes) in [
            (Packet::ConnAck(ConnAck { session_present: false, reason, properties }), CONNACK),
            (Packet::PubAck(ack), ACK),
            (Packet::PubRec(ack), ACK),
            (Packet::PubRel(ack), RELEASE),
            (Packet::PubComp(ack), RELEASE),
            (Packet::Disconnect(Disconnect { reason, properties }), DISCONNECT),
        ] {
            let mut out = Vec::new();
            let is_encoded = encode(&packet, Version::V5, &mut out).is_ok();
            assert_eq!(is_encoded, codes.contains(&(reason as u8)), "{packet:?}");
            assert_eq!(is_encoded, !out.is_empty());
        }
    }
}
