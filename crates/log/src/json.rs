//! The one JSON shape of an event, for the API, SSE and `--json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::attributes::Attribute;
use crate::cursor::Cursor;
use crate::event::Event;

/// The CloudEvents attributes that come first, in this order; others follow as they came.
const CONTEXT_FIRST: [&str; 5] = ["id", "source", "type", "subject", "time"];

/// Members that an attribute cannot take the place of.
const RESERVED: [&str; 11] = [
    "cursor",
    "topic",
    "recordedtime",
    "qos",
    "retain",
    "content_type",
    "response_topic",
    "correlation_data",
    "properties",
    "data",
    "data_base64",
];

/// Appends the event as one JSON object, on one line: `cursor topic recordedtime qos retain`, the CloudEvents
/// attributes, `content_type response_topic correlation_data message_expiry_secs`, `properties`, and the payload
/// as `data` if it is JSON (line ends between its tokens become spaces), else as `data_base64`. What is absent is
/// left out.
pub fn write_json(out: &mut Vec<u8>, cursor: &Cursor, time_us: i64, event: &Event<'_>) {
    out.extend_from_slice(b"{\"cursor\":\"");
    out.extend_from_slice(cursor.encode().as_bytes());
    out.extend_from_slice(b"\",\"topic\":");
    write_string(out, event.topic);
    out.extend_from_slice(b",\"recordedtime\":\"");
    out.extend_from_slice(format_time(time_us).as_bytes());
    out.extend_from_slice(b"\",\"qos\":");
    out.push(b'0' + event.flags.qos());
    out.extend_from_slice(b",\"retain\":");
    out.extend_from_slice(if event.flags.retain() { b"true" } else { b"false" });
    if !event.attributes.is_empty() {
        write_context(out, event);
        write_properties(out, event);
    }
    write_payload(out, event.payload);
    out.push(b'}');
}

/// A time (µs since 1970-01-01 UTC) in RFC 3339: UTC, microseconds, `Z`.
pub fn format_time(us: i64) -> String {
    let secs = us.div_euclid(1_000_000);
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let micros = us.rem_euclid(1_000_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day since 1970-01-01, counted in eras of 400 years that begin on a 1st of March, so
/// that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_month)
}

fn write_context(out: &mut Vec<u8>, event: &Event<'_>) {
    let context = || {
        event.attributes.iter().filter_map(|attribute| match attribute {
            Attribute::Context(name, value) => Some((name, value)),
            _ => None,
        })
    };
    for wanted in CONTEXT_FIRST {
        if let Some((name, value)) = context().find(|(name, _)| *name == wanted) {
            write_member(out, name, value);
        }
    }
    for (index, (name, value)) in context().enumerate() {
        let known =
            CONTEXT_FIRST.contains(&name) || RESERVED.contains(&name) || name == "message_expiry_secs";
        if !known && !context().take(index).any(|(earlier, _)| earlier == name) {
            write_member(out, name, value);
        }
    }
}

fn write_properties(out: &mut Vec<u8>, event: &Event<'_>) {
    let mut seen = [false; 4];
    for attribute in event.attributes.iter() {
        let place = match attribute {
            Attribute::ContentType(_) => 0,
            Attribute::ResponseTopic(_) => 1,
            Attribute::CorrelationData(_) => 2,
            Attribute::MessageExpiry(_) => 3,
            _ => continue,
        };
        if std::mem::replace(&mut seen[place], true) {
            continue;
        }
        match attribute {
            Attribute::ContentType(text) => write_member(out, "content_type", text),
            Attribute::ResponseTopic(text) => write_member(out, "response_topic", text),
            Attribute::CorrelationData(bytes) => {
                write_member(out, "correlation_data", &STANDARD.encode(bytes))
            }
            Attribute::MessageExpiry(secs) => {
                out.extend_from_slice(format!(",\"message_expiry_secs\":{secs}").as_bytes());
            }
            _ => {}
        }
    }
    let mut separator: &[u8] = b",\"properties\":[[";
    for attribute in event.attributes.iter() {
        if let Attribute::UserProperty(name, value) = attribute {
            out.extend_from_slice(separator);
            write_string(out, name);
            out.push(b',');
            write_string(out, value);
            separator = b"],[";
        }
    }
    if separator == b"],[" {
        out.extend_from_slice(b"]]");
    }
}

fn write_payload(out: &mut Vec<u8>, payload: &[u8]) {
    if is_json(payload) {
        out.extend_from_slice(b",\"data\":");
        // Line ends can only stand between tokens here: within strings JSON forbids them.
        out.extend(payload.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        return;
    }
    out.extend_from_slice(b",\"data_base64\":\"");
    let start = out.len();
    out.resize(start + payload.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(payload, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

fn write_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    write_string(out, name);
    out.push(b':');
    write_string(out, value);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Whether every strict parser will take the bytes as JSON. Builds nothing.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Checked>(bytes).is_ok()
}

/// Visits every token, so that strings, escapes, numbers and depth are looked at, and keeps none.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        while seq.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while map.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Attributes, AttributesBuf};
    use crate::event::Flags;
    use proptest::prelude::*;

    const CURSOR: Cursor = Cursor { log_id: 1, epoch: 1, offset: 1, recorded_secs: 0 };

    fn json(attributes: Attributes<'_>, topic: &str, payload: &[u8]) -> String {
        let mut out = Vec::new();
        write_json(
            &mut out,
            &CURSOR,
            0,
            &Event { flags: Flags::new(1, true, None), topic, attributes, payload },
        );
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn members_stand_in_the_fixed_order_and_absent_ones_are_left_out() {
        let mut attributes = AttributesBuf::new();
        for attribute in [
            Attribute::UserProperty("b", "1"),
            Attribute::Context("specversion", "1.0"),
            Attribute::Context("type", "t"),
            Attribute::Context("source", "s"),
            Attribute::Context("cursor", "forged"),
            Attribute::Context("type", "again"),
            Attribute::ContentType("application/json"),
            Attribute::UserProperty("a", "2"),
        ] {
            assert!(attributes.push(&attribute));
        }
        assert_eq!(
            json(attributes.as_attributes(), "a/\"b", b"{\"x\":\n1}"),
            format!(
                "{{\"cursor\":\"{CURSOR}\",\"topic\":\"a/\\\"b\",\"recordedtime\":\"1970-01-01T00:00:00.000000Z\",\
                 \"qos\":1,\"retain\":true,\"source\":\"s\",\"type\":\"t\",\"specversion\":\"1.0\",\
                 \"content_type\":\"application/json\",\"properties\":[[\"b\",\"1\"],[\"a\",\"2\"]],\
                 \"data\":{{\"x\": 1}}}}"
            )
        );
    }

    #[test]
    fn a_payload_that_a_strict_parser_would_refuse_goes_as_base64() {
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        for payload in
            [&b""[..], b"plain", b"{\"a\":1", b"1 2", b"\"\xff\"", b"1e999", b"\"\\ud800\"", deep.as_bytes()]
        {
            assert!(json(Attributes::EMPTY, "t", payload).contains("\"data_base64\":\""), "{payload:?}");
        }
        for payload in [&b"null"[..], b" {} ", b"[1,-2.5e3,\"\\u00e9\",true]", "\"é\"".as_bytes()] {
            assert!(json(Attributes::EMPTY, "t", payload).contains("\"data\":"), "{payload:?}");
        }
    }

    #[test]
    fn times_are_rfc_3339_with_microseconds_and_utc() {
        assert_eq!(format_time(1_795_406_400_000_001), "2026-11-23T04:00:00.000001Z");
        assert_eq!(format_time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(format_time(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn every_event_is_one_line_of_json_that_gives_its_parts_back(
            topic in any::<String>(), name in any::<String>(), value in any::<String>(),
            payload in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut attributes = AttributesBuf::new();
            attributes.push(&Attribute::UserProperty(&name, &value));
            attributes.push(&Attribute::Context(&name, &value));
            let text = json(attributes.as_attributes(), &topic, &payload);
            prop_assert!(!text.contains(['\n', '\r']));
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(parsed["topic"].as_str(), Some(&topic[..]));
            prop_assert_eq!(&parsed["properties"][0][0], &serde_json::Value::from(name));
            if let Some(encoded) = parsed["data_base64"].as_str() {
                prop_assert_eq!(STANDARD.decode(encoded).expect("base64"), payload);
            }
        }

        #[test]
        fn times_agree_with_a_calendar_of_others(us in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let time = jiff::Timestamp::from_microsecond(us).expect("in range");
            prop_assert_eq!(format_time(us), format!("{time:.6}"));
        }
    }
}
