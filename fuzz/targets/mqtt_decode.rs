//! Whatever a peer sends: the decoder does not panic, is the same on every part of the input, and what it takes encodes
//! to what it took.

use firehose_mqtt::{Decoded, Packet, Version, decode, encode};

/// More than the inputs have, so that lengths beyond the input are asked for, and not so much that they are taken.
const PACKET_BYTES_MAX: usize = 1 << 20;

pub fn v31(data: &[u8]) {
    run(data, Version::V31);
}

pub fn v311(data: &[u8]) {
    run(data, Version::V311);
}

pub fn v5(data: &[u8]) {
    run(data, Version::V5);
}

fn run(data: &[u8], version: Version) {
    let mut rest = data;
    loop {
        match decode(rest, version, PACKET_BYTES_MAX) {
            Ok(Decoded::Incomplete { need }) => {
                assert!(need > rest.len() && need <= PACKET_BYTES_MAX);
                return;
            }
            Ok(Decoded::Packet(packet, len)) => {
                assert!(len <= rest.len() && len >= 2);
                // With one byte less it is not whole, and a limit of one byte less refuses it.
                assert!(matches!(decode(&rest[..len - 1], version, len), Ok(Decoded::Incomplete { .. })));
                assert!(decode(&rest[..len], version, len - 1).is_err());
                encodes_again(&packet, version);
                rest = &rest[len..];
            }
            Err(error) => {
                assert!(error.reason().is_error());
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

fn encodes_again(packet: &Packet<'_>, version: Version) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).expect("what was decoded can be encoded");
    assert_eq!(decode(&bytes, version, bytes.len()), Ok(Decoded::Packet(*packet, bytes.len())));
}
