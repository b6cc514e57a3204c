//! Each rule of the specifications that one packet by itself can break, with a packet that breaks it.

use firehose_mqtt::{
    Ack, AckKind, ConnAck, DecodeError, Decoded, EncodeError, Packet, PacketId, PacketKind, Properties,
    PropertiesBuf, Property, PropertyPlace, Publish, QoS, Reason, ReasonsBuf, SubAck, Version, decode,
    decode_connect, encode, encode_ack,
};
use firehose_topic::TopicError;

const V31: Version = Version::V31;
const V311: Version = Version::V311;
const V5: Version = Version::V5;

fn error(bytes: &[u8], version: Version) -> DecodeError {
    match decode(bytes, version, 100_000) {
        Err(error) => error,
        Ok(decoded) => panic!("{bytes:02x?} decodes to {decoded:?}"),
    }
}

fn packet(bytes: &[u8], version: Version) -> Packet<'_> {
    match decode(bytes, version, 100_000) {
        Ok(Decoded::Packet(packet, len)) if len == bytes.len() => packet,
        other => panic!("{bytes:02x?} decodes to {other:?}"),
    }
}

/// A CONNECT with these connect flags and this behind the keep-alive.
fn connect(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let name = version.protocol_name();
    let mut bytes = vec![0x10, (name.len() + 6 + rest.len()) as u8, 0, name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.extend([version.level(), flags, 0, 60]);
    bytes.extend(rest);
    bytes
}

fn connect_error(bytes: &[u8]) -> (DecodeError, Option<Version>) {
    let error = decode_connect(bytes, 100_000).expect_err("the CONNECT is refused");
    (error.error, error.answer)
}

#[test]
fn reserved_packet_types_are_refused_at_the_first_byte() {
    for version in [V31, V311, V5] {
        assert_eq!(error(&[0x00], version), DecodeError::PacketKind(0));
    }
    assert_eq!(error(&[0xf0], V31), DecodeError::PacketKind(15));
    assert_eq!(error(&[0xf0], V311), DecodeError::PacketKind(15));
}

#[test]
fn reserved_flags_of_the_first_byte_are_checked_before_the_length_is_there() {
    for kind in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15_u8] {
        let right = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        for flags in (0..16_u8).filter(|flags| *flags != right) {
            let expected = DecodeError::Flags(PacketKind::from_u8(kind).unwrap(), flags);
            assert_eq!(error(&[kind << 4 | flags], V5), expected);
            if kind != 15 {
                assert_eq!(error(&[kind << 4 | flags], V311), expected);
            }
        }
    }
}

#[test]
fn v31_may_set_dup_where_v311_may_not() {
    assert!(matches!(packet(&[0x6a, 2, 0, 1], V31), Packet::PubRel(_)));
    assert!(matches!(packet(&[0x8a, 6, 0, 1, 0, 1, b'a', 0], V31), Packet::Subscribe(_)));
    let Packet::Publish(publish) = packet(b"\x38\x03\0\x01a", V31) else { panic!() };
    assert!(!publish.dup);
}

#[test]
fn remaining_lengths_have_four_bytes_at_most_and_in_v5_no_more_than_needed() {
    assert_eq!(error(&[0x30, 0xff, 0xff, 0xff, 0xff], V311), DecodeError::VarintTooLong("remaining length"));
    assert_eq!(error(&[0x30, 0x80, 0x80, 0x80, 0x80], V5), DecodeError::VarintTooLong("remaining length"));
    assert_eq!(error(&[0xc0, 0x80, 0x00], V5), DecodeError::VarintNotMinimal("remaining length"));
    assert_eq!(packet(&[0xc0, 0x80, 0x00], V311), Packet::PingReq);
    let mut long = connect(V5, 2, &[0, 0, 0]);
    long.splice(1..2, [long[1] | 0x80, 0]);
    assert_eq!(connect_error(&long), (DecodeError::VarintNotMinimal("remaining length"), Some(V5)));
}

#[test]
fn too_large_packets_are_refused_when_their_length_is_known_and_none_is_awaited_beyond_the_limit() {
    let header = [0x30, 0xff, 0xff, 0xff, 0x7f];
    let expected = DecodeError::PacketTooLarge { bytes: 268_435_460, bytes_max: 1000 };
    assert_eq!(decode(&header, V5, 1000), Err(expected));
    assert_eq!(expected.reason(), Reason::PacketTooLarge);
    assert_eq!(decode(&header, V5, 268_435_460), Ok(Decoded::Incomplete { need: 268_435_460 }));
    assert!(decode(&header[..3], V5, 3).is_err());
    assert!(decode_connect(&[0x10, 0xff, 0x7f], 1000).is_err());
}

#[test]
fn packets_of_a_fixed_length_are_refused_before_they_are_there() {
    for (first, version) in [
        (0xc0, V5),
        (0xd0, V5),
        (0xc0, V311),
        (0xd0, V31),
        (0xe0, V311),
        (0x40, V311),
        (0x50, V31),
        (0x62, V311),
        (0x70, V311),
        (0x20, V311),
        (0xb0, V311),
    ] {
        assert!(matches!(error(&[first, 100], version), DecodeError::Length(_, 100)), "{first:#x}");
    }
    for (first, version) in [(0x40, V5), (0x40, V311), (0x20, V5), (0xf0, V5), (0xb0, V5)] {
        assert!(matches!(error(&[first, 1], version), DecodeError::Length(_, 1)), "{first:#x}");
    }
}

#[test]
fn zero_packet_ids_are_refused_everywhere() {
    for bytes in [
        &b"\x32\x06\0\x01a\0\0\0"[..],
        b"\x40\x02\0\0",
        b"\x50\x02\0\0",
        b"\x62\x02\0\0",
        b"\x70\x02\0\0",
        b"\x82\x07\0\0\0\0\x01a\0",
        b"\x90\x04\0\0\0\0",
        b"\xa2\x06\0\0\0\0\x01a",
        b"\xb0\x04\0\0\0\0",
    ] {
        let error = error(bytes, V5);
        assert!(matches!(error, DecodeError::PacketIdZero(_)), "{bytes:02x?}: {error}");
        assert_eq!(error.reason(), Reason::ProtocolError);
    }
    for bytes in [
        &b"\x32\x05\0\x01a\0\0"[..],
        b"\x34\x05\0\x01a\0\0",
        b"\x40\x02\0\0",
        b"\x50\x02\0\0",
        b"\x62\x02\0\0",
        b"\x70\x02\0\0",
        b"\x82\x06\0\0\0\x01a\0",
        b"\x90\x03\0\0\0",
        b"\xa2\x05\0\0\0\x01a",
        b"\xb0\x02\0\0",
    ] {
        for version in [V31, V311] {
            let error = error(bytes, version);
            assert!(matches!(error, DecodeError::PacketIdZero(_)), "{version:?} {bytes:02x?}: {error}");
        }
    }
}

#[test]
fn publish_flags_are_checked() {
    for version in [V31, V311, V5] {
        assert_eq!(error(b"\x36\x05\0\x01a\0\x01", version), DecodeError::QoS("PUBLISH"));
    }
    assert_eq!(error(b"\x38\x03\0\x01a", V311), DecodeError::DupWithoutQoS);
    assert_eq!(error(b"\x38\x04\0\x01a\0", V5), DecodeError::DupWithoutQoS);
}

#[test]
fn topic_names_of_publications_are_checked() {
    for (bytes, expected, reason) in [
        (&b"\x30\x04\0\x02a+"[..], TopicError::WildcardInName, Reason::MalformedPacket),
        (b"\x30\x04\0\x02#a", TopicError::WildcardInName, Reason::MalformedPacket),
        (b"\x30\x04\0\x02a\0", TopicError::Nul, Reason::MalformedPacket),
        (b"\x30\x04\0\x02a\xff", TopicError::NotUtf8, Reason::MalformedPacket),
        (b"\x30\x02\0\0", TopicError::Empty, Reason::ProtocolError),
    ] {
        assert_eq!(error(bytes, V311), DecodeError::Topic(expected));
        assert_eq!(error(bytes, V311).reason(), reason);
    }
    assert_eq!(error(b"\x30\x04\0\x05ab", V311), DecodeError::Truncated("topic name"));
    assert_eq!(error(b"\x30\x03\0\0\0", V5), DecodeError::TopicMissing);
    let Packet::Publish(publish) = packet(b"\x30\x06\0\0\x03\x23\0\x05", V5) else { panic!() };
    assert_eq!((publish.topic, publish.properties.topic_alias()), ("", Some(5)));
    assert_eq!(error(b"\x30\x06\0\0\x03\x23\0\0", V5).reason(), Reason::TopicAliasInvalid);
}

#[test]
fn connect_flags_are_checked() {
    let id = b"\0\x01c";
    let id5 = b"\0\0\x01c";
    assert_eq!(connect_error(&connect(V311, 3, id)), (DecodeError::ConnectFlagReserved, None));
    assert_eq!(connect_error(&connect(V5, 3, id5)), (DecodeError::ConnectFlagReserved, Some(V5)));
    for flags in [0x0a, 0x12, 0x22] {
        assert_eq!(connect_error(&connect(V311, flags, id)).0, DecodeError::WillFlagsWithoutWill);
        assert_eq!(connect_error(&connect(V5, flags, id5)).0, DecodeError::WillFlagsWithoutWill);
    }
    for version in [V31, V311, V5] {
        assert_eq!(connect_error(&connect(version, 0x1e, id5)).0, DecodeError::QoS("will"));
    }
    let password = b"\0\x01c\0\x01p";
    assert_eq!(connect_error(&connect(V311, 0x42, password)).0, DecodeError::PasswordWithoutUserName);
    assert_eq!(connect_error(&connect(V31, 0x42, password)).0, DecodeError::PasswordWithoutUserName);
    let bytes = connect(V5, 0x42, b"\0\0\x01c\0\x01p");
    let (connect, _) = decode_connect(&bytes, 100).unwrap().unwrap();
    assert_eq!((connect.user_name, connect.password), (None, Some(&b"p"[..])));
}

#[test]
fn before_5_0_a_connect_that_does_not_conform_is_not_answered() {
    for (rest, rest5) in [(&b"\0\x01cx"[..], &b"\0\0\x01cx"[..]), (b"\0\x01\0", b"\0\0\x01\0")] {
        assert_eq!(connect_error(&connect(V31, 2, rest)).1, None);
        assert_eq!(connect_error(&connect(V311, 2, rest)).1, None);
        assert_eq!(connect_error(&connect(V5, 2, rest5)).1, Some(V5));
    }
}

#[test]
fn a_connect_that_ends_before_its_client_identifier_does_is_not_answered() {
    for rest in [&b"\0\0\x02c"[..], b"\0\0", b"\0"] {
        let (error, answer) = connect_error(&connect(V5, 2, rest));
        assert_eq!((error.reason(), answer), (Reason::MalformedPacket, None), "{rest:02x?}");
    }
    // Of what comes behind it, there is somebody to tell.
    let (error, answer) = connect_error(&connect(V5, 6, b"\0\0\x01c\0\0\x01"));
    assert_eq!((error, answer), (DecodeError::Truncated("will topic"), Some(V5)));
}

#[test]
fn empty_client_ids_are_taken_where_the_version_allows_them() {
    let refused = |version, flags| {
        let (error, answer) = connect_error(&connect(version, flags, b"\0\0"));
        assert_eq!((error.reason().connack_v3(), answer), (2, Some(version)));
    };
    refused(V311, 0);
    refused(V31, 0);
    refused(V31, 2);
    assert!(decode_connect(&connect(V311, 2, b"\0\0"), 100).unwrap().is_some());
    assert!(decode_connect(&connect(V5, 0, b"\0\0\0"), 100).unwrap().is_some());
    assert!(decode_connect(&connect(V31, 2, &[&[0, 40][..], &[b'c'; 40]].concat()), 100).unwrap().is_some());
}

#[test]
fn v31_may_leave_out_user_name_and_password_whose_flags_are_set() {
    let bytes = connect(V31, 0xc2, b"\0\x01c");
    let (packet, _) = decode_connect(&bytes, 100).unwrap().unwrap();
    assert_eq!((packet.user_name, packet.password), (None, None));
    let bytes = connect(V31, 0xc2, b"\0\x01c\0\x01u");
    let (packet, _) = decode_connect(&bytes, 100).unwrap().unwrap();
    assert_eq!((packet.user_name, packet.password), (Some("u"), None));
    assert_eq!(connect_error(&connect(V311, 0xc2, b"\0\x01c")).0, DecodeError::Truncated("user name"));
    assert_eq!(connect_error(&connect(V311, 0xc2, b"\0\x01c\0\x01u")).0, DecodeError::Truncated("password"));
}

#[test]
fn other_versions_and_protocols_are_told_apart() {
    let level = |name: &[u8], level: u8| {
        let mut bytes = vec![0x10, 9 + name.len() as u8, 0, name.len() as u8];
        bytes.extend(name);
        bytes.extend([level, 2, 0, 0, 0, 1, b'c']);
        connect_error(&bytes)
    };
    assert_eq!(level(b"MQTT", 3), (DecodeError::UnsupportedVersion(3), Some(V311)));
    assert_eq!(level(b"MQTT", 6), (DecodeError::UnsupportedVersion(6), Some(V5)));
    assert_eq!(level(b"MQIsdp", 4), (DecodeError::UnsupportedVersion(4), Some(V311)));
    assert_eq!(level(b"MQTT", 0x84), (DecodeError::UnsupportedVersion(0x84), Some(V311)), "a bridge");
    assert_eq!(level(b"mqtt", 4), (DecodeError::ProtocolName, None));
    let unsupported = DecodeError::UnsupportedVersion(3).reason();
    assert_eq!((unsupported as u8, unsupported.connack_v3()), (0x84, 1));
    assert_eq!(connect_error(b"GET / HTTP/1.1"), (DecodeError::NotConnect(b'G'), None));
    assert_eq!(connect_error(&[0xc0, 0]), (DecodeError::NotConnect(0xc0), None));
}

#[test]
fn the_rest_of_connect_is_checked() {
    assert_eq!(
        connect_error(&connect(V311, 2, b"\0\x01cx")).0,
        DecodeError::TrailingBytes(PacketKind::Connect)
    );
    assert_eq!(connect_error(&connect(V311, 2, b"\0\x02a\0")).0, DecodeError::Nul("client identifier"));
    assert_eq!(connect_error(&connect(V311, 2, b"\0\x02a\xff")).0, DecodeError::NotUtf8("client identifier"));
    assert_eq!(
        connect_error(&connect(V311, 6, b"\0\x01c\0\x01#\0\0")).0,
        DecodeError::Topic(TopicError::WildcardInName)
    );
    assert_eq!(connect_error(&connect(V311, 6, b"\0\x01c\0\0\0\0")).0, DecodeError::Topic(TopicError::Empty));
    assert_eq!(connect_error(&connect(V311, 6, b"\0\x01c\0\x01a")).0, DecodeError::Truncated("will payload"));
    assert_eq!(
        connect_error(&[0x11, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'c']).0,
        DecodeError::Flags(PacketKind::Connect, 1)
    );
}

#[test]
fn subscriptions_are_checked() {
    assert_eq!(error(b"\x82\x02\0\x01", V311), DecodeError::NoFilters(PacketKind::Subscribe));
    assert_eq!(error(b"\x82\x03\0\x01\0", V5), DecodeError::NoFilters(PacketKind::Subscribe));
    assert_eq!(error(b"\xa2\x02\0\x01", V311), DecodeError::NoFilters(PacketKind::Unsubscribe));
    assert_eq!(error(b"\xa2\x03\0\x01\0", V5), DecodeError::NoFilters(PacketKind::Unsubscribe));
    let options = |options: u8| [0x82, 7, 0, 1, 0, 0, 1, b'a', options];
    assert_eq!(error(&options(3), V5), DecodeError::MaximumQoS);
    assert_eq!(DecodeError::MaximumQoS.reason(), Reason::ProtocolError, "3.8.3.1");
    assert_eq!(error(&options(0x40), V5), DecodeError::SubscribeOptionsReserved(0x40));
    assert_eq!(error(&options(0x80), V5), DecodeError::SubscribeOptionsReserved(0x80));
    assert_eq!(error(&options(0x30), V5), DecodeError::RetainHandling);
    let options = |options: u8| [0x82, 6, 0, 1, 0, 1, b'a', options];
    assert_eq!(error(&options(4), V311), DecodeError::SubscribeOptionsReserved(4));
    assert_eq!(error(&options(3), V31), DecodeError::MaximumQoS);
    assert!(matches!(packet(&options(4), V31), Packet::Subscribe(_)));
    assert_eq!(error(b"\x82\x05\0\x01\0\x01a", V311), DecodeError::Truncated("subscription options"));
    assert_eq!(error(b"\x82\x07\0\x01\0\x02a\0\0", V311), DecodeError::Nul("topic filter"));
    assert_eq!(error(b"\xa2\x05\0\x01\0\x02a", V311), DecodeError::Truncated("topic filter"));
}

#[test]
fn filters_that_are_none_are_left_to_the_broker() {
    let Packet::Subscribe(subscribe) = packet(b"\x82\x0b\0\x01\0\x02a#\x01\0\x01b\0", V311) else { panic!() };
    let filters: Vec<&str> = subscribe.filters.into_iter().map(|item| item.filter).collect();
    assert_eq!(filters, ["a#", "b"]);
}

#[test]
fn answers_of_the_server_are_checked() {
    assert_eq!(error(&[0x20, 2, 2, 0], V311), DecodeError::ConnAckFlags(2));
    assert_eq!(error(&[0x20, 3, 0x80, 0, 0], V5), DecodeError::ConnAckFlags(0x80));
    assert_eq!(error(&[0x20, 2, 1, 5], V311), DecodeError::SessionPresentWithError);
    assert_eq!(error(&[0x20, 3, 1, 0x87, 0], V5), DecodeError::SessionPresentWithError);
    assert_eq!(error(&[0x20, 2, 0, 6], V311), DecodeError::ReasonCode(PacketKind::ConnAck, 6));
    assert_eq!(error(&[0x20, 3, 0, 1, 0], V5), DecodeError::ReasonCode(PacketKind::ConnAck, 1));
    assert!(matches!(packet(&[0x20, 2, 9, 0], V31), Packet::ConnAck(ack) if !ack.session_present));
    assert_eq!(error(&[0x90, 3, 0, 1, 0], V5), DecodeError::NoReasonCodes(PacketKind::SubAck));
    assert_eq!(error(&[0x90, 3, 0, 1, 3], V311), DecodeError::ReasonCode(PacketKind::SubAck, 3));
    assert_eq!(error(&[0x90, 3, 0, 1, 0x87], V311), DecodeError::ReasonCode(PacketKind::SubAck, 0x87));
    assert_eq!(error(&[0x40, 3, 0, 1, 1], V5), DecodeError::ReasonCode(PacketKind::PubAck, 1));
    assert_eq!(error(&[0x40, 5, 0, 1, 0, 0, 0], V5), DecodeError::TrailingBytes(PacketKind::PubAck));
    assert_eq!(error(&[0xe0, 1, 1], V5), DecodeError::ReasonCode(PacketKind::Disconnect, 1));
    assert_eq!(error(&[0xf0, 2, 0x18, 0], V5), DecodeError::AuthMethodMissing);
    assert_eq!(error(&[0xf0, 2, 0x01, 0], V5), DecodeError::ReasonCode(PacketKind::Auth, 1));
}

#[test]
fn acknowledgements_may_leave_out_what_is_success() {
    let id = PacketId::new(1).unwrap();
    let ack = Ack { packet_id: id, reason: Reason::Success, properties: Properties::EMPTY };
    for bytes in [&[0x40, 2, 0, 1][..], &[0x40, 3, 0, 1, 0], &[0x40, 4, 0, 1, 0, 0]] {
        assert_eq!(packet(bytes, V5), Packet::PubAck(ack));
    }
    for bytes in [&[0xe0, 0][..], &[0xe0, 1, 0], &[0xe0, 2, 0, 0]] {
        assert!(
            matches!(packet(bytes, V5), Packet::Disconnect(disconnect) if disconnect.reason == Reason::Success)
        );
    }
    let mut out = Vec::new();
    encode_ack(&mut out, AckKind::PubRel, 0x0102, Reason::PacketIdentifierNotFound, V5);
    encode_ack(&mut out, AckKind::PubRel, 0x0102, Reason::PacketIdentifierNotFound, V311);
    assert_eq!(out, [0x62, 3, 1, 2, 0x92, 0x62, 2, 1, 2]);
}

#[test]
fn what_cannot_be_a_packet_is_not_encoded_and_leaves_nothing_behind() {
    let mut out = vec![7];
    let long = "x".repeat(65_536);
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    };
    let mut refused = |packet: Packet<'_>, version| {
        let error = encode(&packet, version, &mut out).expect_err("it is refused");
        assert_eq!(out, [7]);
        error
    };
    assert_eq!(
        refused(Packet::Publish(Publish { topic: &long, ..publish }), V5),
        EncodeError::TooLong("topic name")
    );
    assert_eq!(
        refused(Packet::Publish(Publish { qos: QoS::AtLeastOnce, ..publish }), V5),
        EncodeError::PacketId
    );
    for packet in [
        Publish { topic: "", ..publish },
        Publish { topic: "a/#", ..publish },
        Publish { dup: true, ..publish },
    ] {
        assert!(matches!(refused(Packet::Publish(packet), V5), EncodeError::Invalid(_)));
    }
    let mut properties = PropertiesBuf::new();
    properties.push(&Property::ReceiveMaximum(5)).unwrap();
    assert!(properties.push(&Property::ReceiveMaximum(0)).is_err());
    assert!(properties.push(&Property::ContentType(&long)).is_err());
    assert!(properties.push(&Property::ContentType("a\0")).is_err());
    let packet = Packet::Publish(Publish { properties: properties.as_properties(), ..publish });
    assert_eq!(
        refused(packet, V5),
        EncodeError::Invalid(DecodeError::PropertyNotAllowed(0x21, PropertyPlace::Publish))
    );
}

#[test]
fn what_a_version_cannot_say_is_told_as_near_as_it_can_be() {
    let mut properties = PropertiesBuf::new();
    properties.push(&Property::ReasonString("full")).unwrap();
    let properties = properties.as_properties();
    let mut out = Vec::new();
    let connack = ConnAck { session_present: false, reason: Reason::QuotaExceeded, properties };
    encode(&Packet::ConnAck(connack), V311, &mut out).unwrap();
    assert_eq!(out, [0x20, 2, 0, 3]);
    out.clear();
    let reasons: ReasonsBuf = [Reason::GrantedQoS1, Reason::NotAuthorized].into_iter().collect();
    let suback = SubAck { packet_id: PacketId::new(1).unwrap(), properties, reasons: reasons.as_reasons() };
    encode(&Packet::SubAck(suback), V311, &mut out).unwrap();
    assert_eq!(out, [0x90, 4, 0, 1, 1, 0x80]);
}
