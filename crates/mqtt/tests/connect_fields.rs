//! The fields behind CONNECT's head: each where its flag says so, in their order, and nothing else.

use firehose_mqtt::{Connect, DecodeError, PacketKind, QoS, Version, decode_connect};

const WILL: u8 = 0x04;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

fn connect(version: Version, flags: u8, fields: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', version.level(), flags | 2, 0, 60];
    if version == Version::V5 {
        bytes.push(0);
    }
    bytes.extend(fields);
    bytes[1] = bytes.len() as u8 - 2;
    bytes
}

/// The fields that go with these flags, each by itself.
fn fields(version: Version, flags: u8) -> Vec<Vec<u8>> {
    let mut fields = vec![b"\0\x02id".to_vec()];
    if flags & WILL != 0 {
        if version == Version::V5 {
            fields.push(vec![5, 0x18, 0, 0, 0, 9]);
        }
        fields.push(b"\0\x05topic".to_vec());
        fields.push(b"\0\x07payload".to_vec());
    }
    if flags & USER_NAME != 0 {
        fields.push(b"\0\x04user".to_vec());
    }
    if flags & PASSWORD != 0 {
        fields.push(b"\0\x06secret".to_vec());
    }
    fields
}

fn check(connect: &Connect<'_>, flags: u8) {
    assert_eq!(connect.client_id, "id");
    assert_eq!(connect.user_name, (flags & USER_NAME != 0).then_some("user"));
    assert_eq!(connect.password, (flags & PASSWORD != 0).then_some(&b"secret"[..]));
    let will = connect.will.as_ref().map(|will| (will.topic.as_str(), will.payload, will.qos, will.retain));
    let expected = ("topic", &b"payload"[..], QoS::AtMostOnce, false);
    assert_eq!(will, (flags & WILL != 0).then_some(expected));
}

#[test]
fn each_flag_of_connect_has_its_field_and_no_field_is_there_without_its_flag() {
    for version in [Version::V311, Version::V5] {
        for flags in [0, WILL].into_iter().flat_map(|will| [0, 0x80, 0x40, 0xc0].map(|user| will | user)) {
            if version == Version::V311 && flags & (USER_NAME | PASSWORD) == PASSWORD {
                continue;
            }
            let fields = fields(version, flags);
            let bytes = connect(version, flags, &fields.concat());
            let (whole, len) = decode_connect(&bytes, 1000).expect("a CONNECT").expect("whole");
            assert_eq!(len, bytes.len());
            check(&whole, flags);
            for count in 0..fields.len() {
                let bytes = connect(version, flags, &fields[..count].concat());
                let error = decode_connect(&bytes, 1000).expect_err("a field is missing").error;
                assert!(
                    matches!(error, DecodeError::Truncated(_)),
                    "{version:?} {flags:#x} {count}: {error}"
                );
            }
            let more = [fields.concat(), b"\0\x04more".to_vec()].concat();
            let error =
                decode_connect(&connect(version, flags, &more), 1000).expect_err("one too many").error;
            assert_eq!(error, DecodeError::TrailingBytes(PacketKind::Connect), "{version:?} {flags:#x}");
        }
    }
}

#[test]
fn the_client_ids_that_every_server_takes_are_taken() {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in [Version::V311, Version::V5] {
        for len in 1..=23 {
            for begin in 0..all.len() {
                let id: String = all.chars().cycle().skip(begin).take(len).collect();
                let field = [&[0, len as u8], id.as_bytes()].concat();
                let bytes = connect(version, 0, &field);
                let (connect, _) = decode_connect(&bytes, 1000).expect("a CONNECT").expect("whole");
                assert_eq!(connect.client_id, id);
            }
        }
    }
}

#[test]
fn any_other_client_id_that_is_a_string_is_taken_too() {
    for id in ["a b", "ä/+#", "$SYS", &"x".repeat(100)] {
        let field = [&[0, id.len() as u8], id.as_bytes()].concat();
        let bytes = connect(Version::V5, 0, &field);
        let (connect, _) = decode_connect(&bytes, 1000).expect("a CONNECT").expect("whole");
        assert_eq!(connect.client_id, id);
    }
}
