//! The first packet of a connection: no panic, no early end, and the same packet as from the general decoder.

use firehose_mqtt::{Decoded, Packet, decode, decode_connect};

const PACKET_BYTES_MAX: usize = 1 << 16;

pub fn connect(data: &[u8]) {
    match decode_connect(data, PACKET_BYTES_MAX) {
        Ok(None) => assert!(data.len() < PACKET_BYTES_MAX),
        Ok(Some((connect, len))) => {
            assert_eq!(
                decode(data, connect.version, PACKET_BYTES_MAX),
                Ok(Decoded::Packet(Packet::Connect(connect), len))
            );
            assert_eq!(decode_connect(&data[..len - 1], PACKET_BYTES_MAX), Ok(None));
        }
        Err(error) => assert!(error.reason().is_error() && !error.to_string().is_empty()),
    }
}
