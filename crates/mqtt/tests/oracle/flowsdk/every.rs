//! What can be gone through as a whole: each value of each byte that is a code or a set of flags, and each property in each
//! place.

use firehose_mqtt::Version;

use super::{case::Case, explained};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[test]
fn every_first_byte_is_judged_as_flowsdk_judges() {
    let bodies: [&[u8]; 8] =
        [b"", b"\0", b"\0\0", b"\0\x01", b"\0\x01\0", b"\0\x01\0\0", b"\0\x01a\0\x01", b"\0\x01\0\0\x01a\0"];
    for version in VERSIONS {
        for first in 0..=0xff {
            bodies.iter().for_each(|body| judge(version, first, &[body]));
        }
    }
}

#[test]
fn every_reason_code_is_judged_as_flowsdk_judges() {
    for code in 0..=0xff {
        for version in [Version::V31, Version::V311] {
            judge(version, 0x20, &[&[0, code]]);
            judge(version, 0x20, &[&[1, code]]);
            judge(version, 0x90, &[&[0, 1, code, 0]]);
        }
        judge(Version::V5, 0x20, &[&[0, code, 0]]);
        judge(Version::V5, 0x20, &[&[1, code, 0]]);
        for first in [0x40, 0x50, 0x62, 0x70] {
            judge(Version::V5, first, &[&[0, 1, code]]);
            judge(Version::V5, first, &[&[0, 1, code, 0]]);
        }
        judge(Version::V5, 0x90, &[&[0, 1, 0, code, 0]]);
        judge(Version::V5, 0xb0, &[&[0, 1, 0, 0, code]]);
        judge(Version::V5, 0xe0, &[&[code]]);
        judge(Version::V5, 0xe0, &[&[code, 0]]);
        judge(Version::V5, 0xf0, &[&[code]]);
        judge(Version::V5, 0xf0, &[&[code, 4], METHOD]);
    }
}

#[test]
fn every_byte_of_subscription_options_is_judged_as_flowsdk_judges() {
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
        for options in 0..=0xff {
            for filter in [&b"\0\x01a"[..], b"\0\x0a$share/g/a"] {
                judge(version, 0x82, &[b"\0\x01", properties, filter, &[options]]);
            }
        }
    }
}

#[test]
fn every_byte_of_connect_flags_is_judged_as_flowsdk_judges() {
    for version in VERSIONS {
        let name = version.protocol_name().as_bytes();
        let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
        for flags in 0..=0xff {
            let head = [&[0, name.len() as u8], name, &[version.level(), flags, 0, 60], properties].concat();
            for client_id in [&b"\0\x01c"[..], b"\0\0"] {
                let mut fields = Vec::new();
                // The packet ends behind the identifier, the will, the user name, the password.
                for (flag, field) in [
                    (4, [properties, b"\0\x01t\0\x01p"].concat()),
                    (0x80, b"\0\x01u".into()),
                    (0x40, b"\0\x01p".into()),
                ] {
                    judge(version, 0x10, &[&head, client_id, &fields]);
                    if flags & flag != 0 {
                        fields.extend(field);
                    }
                }
                judge(version, 0x10, &[&head, client_id, &fields]);
            }
        }
    }
}

#[test]
fn every_property_in_every_place_is_judged_as_flowsdk_judges() {
    // Of each form, in its range and at its ends.
    let values: [&[u8]; 18] = [
        b"\0",
        b"\x01",
        b"\x02",
        b"\xff",
        b"\x80\x01",
        b"\xff\xff\xff\x7f",
        b"\0\0",
        b"\0\x01",
        b"\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"\xff\xff\xff\xff",
        b"\0\x01a",
        b"\0\x01#",
        b"\0\x01\0",
        b"\0\x02\xc3\xa4",
        b"\0\x01a\0\x01b",
        b"\0\x01a\0\0",
    ];
    for (first, before, behind) in PLACES {
        for id in 0..=0x2b {
            for value in values {
                let one = [&[id], value].concat();
                for properties in [one.clone(), [&one[..], &one].concat(), [&one[..], METHOD].concat()] {
                    judge(Version::V5, *first, &[before, &[properties.len() as u8], &properties, behind]);
                }
            }
        }
    }
}

/// The property Authentication Method.
const METHOD: &[u8] = b"\x15\0\x01m";

/// A packet's first byte, and what stands before and behind its properties.
const PLACES: &[(u8, &[u8], &[u8])] = &[
    (0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\x01c"),
    (0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\x01c", b"\0\x01t\0\x01p"),
    (0x20, b"\0\0", b""),
    (0x30, b"\0\x01t", b"payload"),
    (0x32, b"\0\0\0\x01", b"payload"),
    (0x40, b"\0\x01\0", b""),
    (0x50, b"\0\x01\0", b""),
    (0x62, b"\0\x01\0", b""),
    (0x70, b"\0\x01\0", b""),
    (0x82, b"\0\x01", b"\0\x01a\0"),
    (0x90, b"\0\x01", b"\0"),
    (0xa2, b"\0\x01", b"\0\x01a"),
    (0xb0, b"\0\x01", b"\0"),
    (0xe0, b"\0", b""),
    (0xf0, b"\0", b""),
];

/// The packet of this first byte and these parts.
fn judge(version: Version, first: u8, parts: &[&[u8]]) {
    let body = parts.concat();
    assert!(body.len() < 0x80, "a length of one byte");
    let bytes = [&[first, body.len() as u8], &body[..]].concat();
    explained(&Case::of_bytes(&bytes, version)).unwrap_or_else(|error| panic!("{error}"));
}
