//! What is encoded is decoded as the same, and what is decoded encodes to the same meaning.

mod samples;

use firehose_mqtt::{Decoded, Packet, Version, decode, decode_connect, encode};
use proptest::prelude::*;
use samples::{Sample, mutate, sample};

fn any_sample() -> impl Strategy<Value = Sample> {
    prop_oneof![sample(Version::V31), sample(Version::V311), sample(Version::V5)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_an_encoded_packet_gives_the_same_packet(sample in any_sample(), behind in any::<[u8; 3]>()) {
        let mut bytes = sample.bytes();
        let len = bytes.len();
        bytes.extend(behind);
        prop_assert_eq!(decode(&bytes, sample.version, len), Ok(Decoded::Packet(sample.packet(), len)));
        if let Packet::Connect(connect) = sample.packet() {
            prop_assert_eq!(decode_connect(&bytes, len), Ok(Some((connect, len))));
        }
    }

    #[test]
    fn every_beginning_of_a_packet_is_incomplete_and_its_need_is_right(sample in any_sample()) {
        let bytes = sample.bytes();
        for len in 0..bytes.len() {
            let Ok(Decoded::Incomplete { need }) = decode(&bytes[..len], sample.version, bytes.len()) else {
                return Err(TestCaseError::fail(format!("{len} bytes of {bytes:?} are not incomplete")));
            };
            prop_assert!(need > len && need <= bytes.len());
            prop_assert!(len < 5 || need == bytes.len());
            if let Packet::Connect(_) = sample.packet() {
                prop_assert_eq!(decode_connect(&bytes[..len], bytes.len()), Ok(None));
            }
        }
    }

    #[test]
    fn a_packet_above_the_limit_is_refused_before_it_is_there(sample in any_sample()) {
        let bytes = sample.bytes();
        for len in 0..=bytes.len() {
            match decode(&bytes[..len], sample.version, bytes.len() - 1) {
                Ok(Decoded::Incomplete { need }) => prop_assert!(len < 5 && need < bytes.len()),
                Ok(Decoded::Packet(..)) => return Err(TestCaseError::fail("it was taken")),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn what_decodes_after_mutations_encodes_to_the_same(
        sample in any_sample(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 1..4),
    ) {
        let bytes = mutate(sample.bytes(), &changes);
        if let Ok(Decoded::Packet(packet, _)) = decode(&bytes, sample.version, 10_000) {
            let version = match packet {
                Packet::Connect(connect) => connect.version,
                _ => sample.version,
            };
            let mut again = Vec::new();
            encode(&packet, version, &mut again).expect("a decoded packet can be encoded");
            prop_assert_eq!(decode(&again, version, 10_000), Ok(Decoded::Packet(packet, again.len())));
        }
    }
}
