//! Strings, wherever they stand in a packet: well-formed UTF-8 without U+0000, taken as they are.

use firehose_mqtt::{Decoded, Packet, Reason, Version, decode, decode_connect};

const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// What is no string: the null character, surrogates, an overlong form, beyond U+10FFFF, a part of a character.
const BROKEN: [&[u8]; 8] = [
    b"a\0b",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x92",
    b"\xff",
];

/// A string with its length.
fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

/// A packet of less than 128 bytes.
fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[first, body.len() as u8][..], &body].concat()
}

/// Properties of less than 128 bytes: one, of this identifier.
fn property(id: u8, value: &[u8]) -> Vec<u8> {
    [&[value.len() as u8 + 1, id][..], value].concat()
}

fn connect(version: Version, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    let head = [0, 4, b'M', b'Q', b'T', b'T', version.level(), flags, 0, 60];
    packet(0x10, &[&head, &rest.concat()])
}

/// Every CONNECT with this text in one of its strings.
fn connects(text: &[u8]) -> Vec<(Version, Vec<u8>)> {
    let (text, c) = (string(text), string(b"c"));
    let mut packets = vec![
        (V311, connect(V311, 0x02, &[&text])),
        (V311, connect(V311, 0x06, &[&c, &text, &c])),
        (V311, connect(V311, 0x82, &[&c, &text])),
        (V5, connect(V5, 0x02, &[&[0], &text])),
        (V5, connect(V5, 0x06, &[&[0], &c, &[0], &text, &c])),
        (V5, connect(V5, 0x82, &[&[0], &c, &text])),
        (V5, connect(V5, 0x02, &[&property(0x15, &text), &c])),
    ];
    for pair in [[&text[..], &c].concat(), [&c[..], &text].concat()] {
        packets.push((V5, connect(V5, 0x02, &[&property(0x26, &pair), &c])));
        packets.push((V5, connect(V5, 0x06, &[&[0], &c, &property(0x26, &pair), &c, &c])));
    }
    for id in [0x03, 0x08] {
        packets.push((V5, connect(V5, 0x06, &[&[0], &c, &property(id, &text), &c, &c])));
    }
    packets
}

/// Every other packet of a client's with this text in one of its strings.
fn others(text: &[u8]) -> Vec<(Version, Vec<u8>)> {
    let (text, c) = (string(text), string(b"c"));
    let id = [0, 1];
    let mut packets = vec![
        (V311, packet(0x30, &[&text])),
        (V5, packet(0x30, &[&text, &[0]])),
        (V311, packet(0x82, &[&id, &text, &[0]])),
        (V311, packet(0x82, &[&id, &c, &[0], &text, &[0]])),
        (V5, packet(0x82, &[&id, &[0], &text, &[0]])),
        (V311, packet(0xa2, &[&id, &text])),
        (V5, packet(0xa2, &[&id, &[0], &c, &text])),
        (V5, packet(0x30, &[&c, &property(0x03, &text)])),
        (V5, packet(0x30, &[&c, &property(0x08, &text)])),
        (V5, packet(0x40, &[&id, &[0], &property(0x1f, &text)])),
        (V5, packet(0x50, &[&id, &[0], &property(0x1f, &text)])),
        (V5, packet(0x62, &[&id, &[0], &property(0x1f, &text)])),
        (V5, packet(0x70, &[&id, &[0], &property(0x1f, &text)])),
        (V5, packet(0xe0, &[&[0], &property(0x1f, &text)])),
        (V5, packet(0xf0, &[&[0x19], &property(0x15, &text)])),
    ];
    for pair in [[&text[..], &c].concat(), [&c[..], &text].concat()] {
        let pair = property(0x26, &pair);
        packets.push((V5, packet(0x30, &[&c, &pair])));
        packets.push((V5, packet(0x40, &[&id, &[0], &pair])));
        packets.push((V5, packet(0x62, &[&id, &[0], &pair])));
        packets.push((V5, packet(0x82, &[&id, &pair, &c, &[0]])));
        packets.push((V5, packet(0xa2, &[&id, &pair, &c])));
        packets.push((V5, packet(0xe0, &[&[0], &pair])));
    }
    packets
}

#[test]
fn every_string_of_every_packet_is_well_formed_utf8_without_nul() {
    for (version, bytes) in connects(b"fine") {
        assert!(matches!(decode_connect(&bytes, 1000), Ok(Some(_))), "{version:?} {bytes:02x?}");
    }
    for (version, bytes) in others(b"fine") {
        assert!(matches!(decode(&bytes, version, 1000), Ok(Decoded::Packet(..))), "{version:?} {bytes:02x?}");
    }
    for broken in BROKEN {
        for (version, bytes) in connects(broken) {
            let error = decode_connect(&bytes, 1000).expect_err("it is refused");
            assert_eq!(error.reason(), Reason::MalformedPacket, "{bytes:02x?}");
            assert_eq!(error.answer.is_some(), version == V5, "{bytes:02x?}");
        }
        for (version, bytes) in others(broken) {
            let error = decode(&bytes, version, 1000).expect_err("it is refused");
            assert_eq!(error.reason(), Reason::MalformedPacket, "{version:?} {bytes:02x?}: {error}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_a_character_and_stays() {
    let mark = "\u{feff}a\u{feff}";
    for (version, bytes) in others(mark.as_bytes()).into_iter().take(2) {
        match decode(&bytes, version, 1000) {
            Ok(Decoded::Packet(Packet::Publish(publish), _)) => assert_eq!(publish.topic, mark),
            other => panic!("{other:?}"),
        }
    }
    for (_, bytes) in connects(mark.as_bytes()).into_iter().step_by(3).take(2) {
        let (connect, _) = decode_connect(&bytes, 1000).expect("a CONNECT").expect("whole");
        assert_eq!(connect.client_id, mark);
    }
}

#[test]
fn every_other_character_is_taken() {
    for text in ["ä€𝄞", "\u{1}", "\u{7f}", "\u{d7ff}", "\u{e000}", "\u{fffd}", "\u{ffff}", "\u{10ffff}"]
    {
        for (version, bytes) in others(text.as_bytes()) {
            assert!(decode(&bytes, version, 1000).is_ok(), "{version:?} {bytes:02x?}");
        }
    }
}
