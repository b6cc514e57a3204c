//! The decoder against that of the crate mqtt-protocol-core, for 3.1.1 and 5.0: random valid packets and random changes
//! of their bytes. Both take them, with the same content, or both refuse, except where one of the two is known to
//! deviate from the specification or to leave a check to another layer: these are listed below, one by one.

use std::sync::Arc;

use ::mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use firehose_mqtt::{DecodeError, Decoded, Packet, Reason, Version, decode};
use firehose_topic::TopicError;
use proptest::prelude::*;

use crate::{
    cases,
    samples::{mutate, sample},
};

proptest! {
    #![proptest_config(cases(6_000))]

    #[test]
    fn valid_packets_of_v311_mean_the_same_to_the_oracle(sample in sample(Version::V311)) {
        compare(&sample.bytes(), Version::V311)?;
    }

    #[test]
    fn valid_packets_of_v5_mean_the_same_to_the_oracle(sample in sample(Version::V5)) {
        compare(&sample.bytes(), Version::V5)?;
    }

    #[test]
    fn changed_packets_of_v311_are_judged_as_the_oracle_judges(
        sample in sample(Version::V311),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 1..4),
    ) {
        compare(&mutate(sample.bytes(), &changes), Version::V311)?;
    }

    #[test]
    fn changed_packets_of_v5_are_judged_as_the_oracle_judges(
        sample in sample(Version::V5),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 1..4),
    ) {
        compare(&mutate(sample.bytes(), &changes), Version::V5)?;
    }
}

fn compare(bytes: &[u8], version: Version) -> Result<(), TestCaseError> {
    let ours = decode(bytes, version, 100_000);
    let Some((header_len, total)) = whole(bytes) else {
        // The oracle's parsers take the bytes behind the fixed header only; ours must not have found a packet.
        prop_assert!(!matches!(ours, Ok(Decoded::Packet(..))), "{:?} from a part of a packet", ours);
        return Ok(());
    };
    let theirs = oracle(bytes[0], &bytes[header_len..total], version);
    match (ours, theirs) {
        (Ok(Decoded::Packet(ours, len)), Ok(theirs)) => {
            prop_assert_eq!(len, total);
            // What they read, written by them and read by us, is what we read.
            let Ok(Decoded::Packet(theirs, _)) = decode(&theirs, version, 100_000) else {
                return Err(TestCaseError::fail(format!(
                    "{ours:?} was taken by both, but not theirs: {theirs:?}"
                )));
            };
            prop_assert_eq!(ours, theirs);
        }
        (Ok(Decoded::Packet(ours, _)), Err(error)) => {
            prop_assert!(oracle_is_stricter(&ours, version), "only the oracle refuses {:?}: {}", ours, error);
        }
        (Ok(Decoded::Incomplete { need }), _) => {
            return Err(TestCaseError::fail(format!("{total} bytes are whole, but we need {need}")));
        }
        (Err(error), Ok(_)) => {
            prop_assert!(
                oracle_is_laxer(&error, bytes[0] >> 4, version),
                "only we refuse {:02x?}: {}",
                bytes,
                error
            );
        }
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

/// What the oracle refuses and we take.
fn oracle_is_stricter(ours: &Packet<'_>, version: Version) -> bool {
    let bad_share = |filter: &str| {
        filter.starts_with("$share") && firehose_topic::parse_share(filter).is_none_or(|share| share.is_err())
    };
    match ours {
        // It wants a user name beside a password in 5.0 too; 3.1.2.9 says in a non-normative comment that 5.0 allows a
        // password without one.
        Packet::Connect(connect) if connect.password.is_some() && connect.user_name.is_none() => true,
        // A CONNECT of another version than the connection's: ours reads it, and the broker refuses a second CONNECT.
        Packet::Connect(connect) => connect.version != version,
        // It checks share names (MQTT-4.8.2-1, -2) here; we leave filters to the broker, which refuses one by one.
        Packet::Subscribe(subscribe) => subscribe.filters.into_iter().any(|item| bad_share(item.filter)),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.into_iter().any(bad_share),
        // Table 2-6 lists 0x8C for DISCONNECT, the table in 3.14.2.1 does not; we go by the more generous.
        Packet::Disconnect(disconnect) => disconnect.reason == Reason::BadAuthenticationMethod,
        _ => false,
    }
}

/// What we refuse and the oracle takes.
fn oracle_is_laxer(error: &DecodeError, kind: u8, version: Version) -> bool {
    let v5 = version == Version::V5;
    match *error {
        // Its parsers do not see the flags of the fixed header (MQTT-2.1.3-1).
        DecodeError::Flags(..) => true,
        // It takes variable byte integers with more bytes than they need (MQTT-1.5.5-1).
        DecodeError::VarintNotMinimal(_) => v5,
        // It takes U+0000 in strings (MQTT-1.5.4-2).
        DecodeError::Nul(_) | DecodeError::Topic(TopicError::Nul) => true,
        // It takes wildcards (MQTT-3.3.2-2) in topic names, and no name at all (MQTT-4.7.3-1, 3.3.2.1).
        DecodeError::Topic(_) | DecodeError::TopicMissing => kind == 1 || kind == 3,
        // It looks for zero packet identifiers (MQTT-2.2.1-3) in PUBACK to PUBCOMP only.
        DecodeError::PacketIdZero(_) => !(4..=7).contains(&kind),
        // It does not look at the reserved flags of CONNACK (MQTT-3.2.2-1), nor whether a refused connection has a
        // session (MQTT-3.2.2-6).
        DecodeError::ConnAckFlags(_) | DecodeError::SessionPresentWithError => true,
        // It takes DUP at QoS 0 (MQTT-3.3.1-2).
        DecodeError::DupWithoutQoS => true,
        // It does not look at the reserved flag of CONNECT (MQTT-3.1.2-3), nor at the will's flags (MQTT-3.1.2-11 to -15).
        DecodeError::ConnectFlagReserved | DecodeError::WillFlagsWithoutWill | DecodeError::QoS("will") => {
            true
        }
        // It reads a reason code in 3.1.1's acknowledgements, which have none (3.1.1 section 3.4).
        DecodeError::Length(..) if !v5 => (4..=7).contains(&kind),
        // It reads subscription options in 3.1.1's SUBSCRIBE, where these bits are reserved (MQTT-3-8.3-4).
        DecodeError::SubscribeOptionsReserved(_) => !v5,
        // It takes a PUBLISH of 5.0 without a property length (3.3.2.3.1).
        DecodeError::Truncated("property length") => v5 && kind == 3,
        // It takes an AUTH that ends after its reason code; only the whole may be left out (3.15.2.1).
        DecodeError::Length(..) => kind == 15,
        // It takes an AUTH with properties of which none is the method, when the reason is success (3.15.2.2.2), and a
        // CONNECT with authentication data, but no method (3.1.2.11.10).
        DecodeError::AuthMethodMissing => kind == 15 || kind == 1,
        // It takes an empty client identifier without a clean session (3.1.1: MQTT-3.1.3-8).
        DecodeError::ClientIdEmpty(_) => !v5,
        // It takes wildcards in a response topic (MQTT-3.3.2-14), and none at all (MQTT-4.7.3-1).
        DecodeError::PropertyValue(0x08) => kind == 1 || kind == 3,
        // It takes two subscription identifiers in SUBSCRIBE (3.8.2.1.2).
        DecodeError::PropertyTwice(0x0b) => kind == 8,
        _ => false,
    }
}

/// The length of the fixed header and of the packet, when it is whole.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut remaining = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let total = at + 2 + remaining;
            return (total <= bytes.len()).then_some((at + 2, total));
        }
    }
    None
}

/// What the oracle reads, written again, or why it refuses. Bytes that it leaves over are an error, as its own framing
/// makes of them.
fn oracle(first: u8, body: &[u8], version: Version) -> Result<Vec<u8>, String> {
    macro_rules! parse {
        ($packet:ty) => {
            match <$packet>::parse(body) {
                Ok((packet, len)) if len == body.len() => Ok(packet.to_continuous_buffer()),
                Ok((_, len)) => Err(format!("only {len} bytes were used")),
                Err(error) => Err(format!("{error:?}")),
            }
        };
        ($packet:ty, flags) => {
            match <$packet>::parse(first & 0x0f, Arc::from(body)) {
                Ok((packet, _)) => Ok(packet.to_continuous_buffer()),
                Err(error) => Err(format!("{error:?}")),
            }
        };
    }
    match (version, first >> 4) {
        (Version::V5, 1) => parse!(v5_0::Connect),
        (Version::V5, 2) => parse!(v5_0::Connack),
        (Version::V5, 3) => parse!(v5_0::Publish, flags),
        (Version::V5, 4) => parse!(v5_0::Puback),
        (Version::V5, 5) => parse!(v5_0::Pubrec),
        (Version::V5, 6) => parse!(v5_0::Pubrel),
        (Version::V5, 7) => parse!(v5_0::Pubcomp),
        (Version::V5, 8) => parse!(v5_0::Subscribe),
        (Version::V5, 9) => parse!(v5_0::Suback),
        (Version::V5, 10) => parse!(v5_0::Unsubscribe),
        (Version::V5, 11) => parse!(v5_0::Unsuback),
        (Version::V5, 12) => parse!(v5_0::Pingreq),
        (Version::V5, 13) => parse!(v5_0::Pingresp),
        (Version::V5, 14) => parse!(v5_0::Disconnect),
        (Version::V5, 15) => parse!(v5_0::Auth),
        (_, 1) => parse!(v3_1_1::Connect),
        (_, 2) => parse!(v3_1_1::Connack),
        (_, 3) => parse!(v3_1_1::Publish, flags),
        (_, 4) => parse!(v3_1_1::Puback),
        (_, 5) => parse!(v3_1_1::Pubrec),
        (_, 6) => parse!(v3_1_1::Pubrel),
        (_, 7) => parse!(v3_1_1::Pubcomp),
        (_, 8) => parse!(v3_1_1::Subscribe),
        (_, 9) => parse!(v3_1_1::Suback),
        (_, 10) => parse!(v3_1_1::Unsubscribe),
        (_, 11) => parse!(v3_1_1::Unsuback),
        (_, 12) => parse!(v3_1_1::Pingreq),
        (_, 13) => parse!(v3_1_1::Pingresp),
        (_, 14) => parse!(v3_1_1::Disconnect),
        _ => Err("no such packet".into()),
    }
}
