//! The rules of properties (MQTT 5.0 section 2.2.2), one by one.

#[path = "samples/property.rs"]
mod property;

use firehose_mqtt::{DecodeError, Properties, PropertiesBuf, Property, PropertyPlace};
use property::{ids_of, property};

const PLACES: [PropertyPlace; 11] = [
    PropertyPlace::Connect,
    PropertyPlace::Will,
    PropertyPlace::ConnAck,
    PropertyPlace::Publish,
    PropertyPlace::Ack,
    PropertyPlace::Subscribe,
    PropertyPlace::SubAck,
    PropertyPlace::Unsubscribe,
    PropertyPlace::UnsubAck,
    PropertyPlace::Disconnect,
    PropertyPlace::Auth,
];

const IDS: [u8; 27] = [
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x1f,
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
];

fn encoded(properties: &[Property<'_>]) -> Vec<u8> {
    let mut buf = PropertiesBuf::new();
    for property in properties {
        buf.push(property).unwrap();
    }
    let mut bytes = vec![buf.as_properties().as_bytes().len() as u8];
    bytes.extend(buf.as_properties().as_bytes());
    bytes
}

#[test]
fn each_place_takes_its_own_properties_and_no_other() {
    for place in PLACES {
        for id in IDS {
            let bytes = encoded(&[property(0x15, 0, "m", "m"), property(id, 1, "t", "n")]);
            // The method stands before its data, but only where that is allowed.
            let bytes = if id == 0x16 { bytes } else { encoded(&[property(id, 1, "t", "n")]) };
            let result = Properties::decode(&bytes, place);
            if ids_of(place).contains(&id) {
                assert!(result.is_ok(), "{place} {id:#x}: {result:?}");
            } else {
                assert!(
                    matches!(result, Err(DecodeError::PropertyNotAllowed(..))),
                    "{place} {id:#x}: {result:?}"
                );
            }
        }
        for id in (0..=255).filter(|id| !IDS.contains(id)) {
            assert_eq!(Properties::decode(&[2, id, 0], place), Err(DecodeError::PropertyUnknown(id)));
        }
    }
}

/// Every property but `id`, and that one behind them all.
fn behind_all_others(id: u8) -> PropertiesBuf {
    let mut buf = PropertiesBuf::new();
    for other in IDS.iter().filter(|other| **other != id) {
        buf.push(&property(*other, 1, "text", "name")).unwrap();
    }
    buf.push(&property(id, 1, "text", "name")).unwrap();
    buf
}

#[test]
fn each_property_is_found_behind_all_others() {
    macro_rules! finds {
        ($($name:ident $variant:ident,)*) => {$(
            let id = IDS.into_iter().map(|id| property(id, 1, "text", "name"));
            let id = id.filter(|it| matches!(it, Property::$variant(_))).map(|it| it.id()).next().unwrap();
            let buf = behind_all_others(id);
            let found = buf.as_properties().$name().map(Property::$variant);
            assert_eq!(found, Some(property(id, 1, "text", "name")));
            assert_eq!(buf.as_properties().iter().last(), found);
            assert_eq!(Properties::EMPTY.$name(), None);
        )*};
    }
    finds! {
        payload_format PayloadFormat, message_expiry MessageExpiry, content_type ContentType,
        response_topic ResponseTopic, correlation_data CorrelationData, subscription_id SubscriptionId,
        session_expiry SessionExpiry, assigned_client_id AssignedClientId, server_keep_alive ServerKeepAlive,
        auth_method AuthMethod, auth_data AuthData, request_problem_information RequestProblem,
        will_delay WillDelay, request_response_information RequestResponse,
        response_information ResponseInformation, server_reference ServerReference, reason_string ReasonString,
        receive_maximum ReceiveMaximum, topic_alias_maximum TopicAliasMaximum, topic_alias TopicAlias,
        maximum_qos MaximumQos, retain_available RetainAvailable, maximum_packet_size MaximumPacketSize,
        wildcard_available WildcardAvailable, subscription_ids_available SubscriptionIdsAvailable,
        shared_available SharedAvailable,
    }
}

#[test]
fn each_property_stands_once_but_user_properties_and_the_subscription_ids_of_publish() {
    for place in PLACES {
        for &id in ids_of(place) {
            let one = property(id, 1, "t", "n");
            let bytes = encoded(&[one, one]);
            let repeats = id == 0x26 || id == 0x0b && place == PropertyPlace::Publish;
            let expected = if repeats { None } else { Some(DecodeError::PropertyTwice(id)) };
            assert_eq!(Properties::decode(&bytes, place).err(), expected, "{place} {id:#x}");
        }
    }
}

#[test]
fn values_outside_their_range_are_refused() {
    for (id, place, values) in [
        (0x01, PropertyPlace::Publish, &[&[2][..], &[255]][..]),
        (0x17, PropertyPlace::Connect, &[&[2]]),
        (0x19, PropertyPlace::Connect, &[&[2]]),
        (0x24, PropertyPlace::ConnAck, &[&[2]]),
        (0x25, PropertyPlace::ConnAck, &[&[2]]),
        (0x28, PropertyPlace::ConnAck, &[&[2]]),
        (0x29, PropertyPlace::ConnAck, &[&[2]]),
        (0x2a, PropertyPlace::ConnAck, &[&[2]]),
        (0x21, PropertyPlace::Connect, &[&[0, 0]]),
        (0x27, PropertyPlace::Connect, &[&[0, 0, 0, 0]]),
        (0x23, PropertyPlace::Publish, &[&[0, 0]]),
        (0x0b, PropertyPlace::Subscribe, &[&[0]]),
        (0x08, PropertyPlace::Publish, &[b"\0\x01+", b"\0\x03a/#", b"\0\0"]),
    ] {
        for value in values {
            let mut bytes = vec![1 + value.len() as u8, id];
            bytes.extend(*value);
            assert_eq!(Properties::decode(&bytes, place).err(), Some(DecodeError::PropertyValue(id)));
        }
    }
}

#[test]
fn properties_end_where_their_length_says() {
    let place = PropertyPlace::Publish;
    assert_eq!(Properties::decode(&[], place).err(), Some(DecodeError::Truncated("property length")));
    assert_eq!(Properties::decode(&[5, 1, 0], place).err(), Some(DecodeError::Truncated("properties")));
    assert_eq!(
        Properties::decode(&[2, 2, 0, 0, 0], place).err(),
        Some(DecodeError::Truncated("message expiry interval"))
    );
    assert_eq!(
        Properties::decode(&[0x80, 0], place).err(),
        Some(DecodeError::VarintNotMinimal("property length"))
    );
    assert_eq!(
        Properties::decode(&[3, 0x0b, 0x81, 0], place).err(),
        Some(DecodeError::VarintNotMinimal("subscription identifier"))
    );
    assert_eq!(Properties::decode(b"\x04\x03\0\x01\0", place).err(), Some(DecodeError::Nul("content type")));
    assert_eq!(
        Properties::decode(b"\x06\x26\0\x01a\0\x05", place).err(),
        Some(DecodeError::Truncated("user property"))
    );
    let data = b"\x04\x16\0\x01x";
    assert_eq!(Properties::decode(data, PropertyPlace::Connect).err(), Some(DecodeError::AuthMethodMissing));
}
