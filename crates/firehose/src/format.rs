//! How an event is written: mosquitto_sub's `-F`. Times are in UTC.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::fmt::strtime;
use serde_json::json;

/// An event, as far as it can be written.
#[derive(Clone, Debug, Default)]
pub struct Shown<'a> {
    /// `%t`
    pub topic: &'a str,
    /// `%p`
    pub payload: &'a [u8],
    /// `%q`
    pub qos: u8,
    /// `%r`
    pub retain: bool,
    /// `%m`; 0: none
    pub packet_id: u16,
    /// `%I`, `%U`, `@…`: when it came, or, of a past event, when it was recorded; µs since the epoch
    pub time_us: i64,
    /// `%C`
    pub content_type: Option<&'a str>,
    /// `%R`
    pub response_topic: Option<&'a str>,
    /// `%D`
    pub correlation_data: Option<&'a [u8]>,
    /// `%E`
    pub message_expiry_secs: Option<u32>,
    /// `%F`
    pub payload_utf8: Option<bool>,
    /// `%S`
    pub subscription_ids: &'a [u32],
    /// `%P`
    pub user_properties: &'a [(String, String)],
}

/// A format that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Field {
        field: char,
        pad: Pad,
    },
    /// One conversion of strftime.
    Time(String),
    Nanoseconds,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pad {
    zero: bool,
    left: bool,
    width: usize,
    longest: Option<usize>,
}

const FIELDS: &str = "ACDEFIJjlmPpqRrSstUuXx";
/// A width beyond this is a mistake.
const WIDTH_MAX: usize = 10_000;

impl Format {
    /// Reads a format.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let part = match c {
                '%' => field(&mut rest)?,
                '@' => time(rest.next())?,
                '\\' => Part::Text(vec![escape(rest.next())?]),
                c => Part::Text(c.to_string().into_bytes()),
            };
            match (parts.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(more)) => before.extend(more),
                (_, part) => parts.push(part),
            }
        }
        Ok(Format { parts })
    }

    /// Writes one event, without a line end.
    pub fn write(&self, out: &mut impl Write, event: &Shown<'_>) -> io::Result<()> {
        let time = Timestamp::from_microsecond(event.time_us).unwrap_or_default();
        for part in &self.parts {
            match part {
                Part::Text(bytes) => out.write_all(bytes)?,
                Part::Nanoseconds => write!(out, "{:09}", time.subsec_nanosecond())?,
                Part::Time(conversion) => out.write_all(strftime(conversion, time).as_bytes())?,
                Part::Field { field, pad } => write_field(out, *field, pad, event, time)?,
            }
        }
        Ok(())
    }
}

fn field(rest: &mut std::str::Chars<'_>) -> Result<Part, String> {
    let mut pad = Pad::default();
    let incomplete = || "the format ends within a %".to_string();
    let mut next = rest.next().ok_or_else(incomplete)?;
    while let '0' | '-' = next {
        pad.zero |= next == '0';
        pad.left |= next == '-';
        next = rest.next().ok_or_else(incomplete)?;
    }
    let mut number = |next: &mut char| {
        let mut number = 0;
        while let Some(digit) = next.to_digit(10) {
            number = number * 10 + digit as usize;
            if number > WIDTH_MAX {
                return Err(format!("a width of more than {WIDTH_MAX} in the format"));
            }
            *next = rest.next().ok_or_else(incomplete)?;
        }
        Ok(number)
    };
    pad.width = number(&mut next)?;
    if next == '.' {
        next = '0';
        pad.longest = Some(number(&mut next)?);
    }
    match next {
        '%' => Ok(Part::Text(b"%".to_vec())),
        field if FIELDS.contains(field) => Ok(Part::Field { field, pad }),
        other => Err(format!("there is no %{other} in a format")),
    }
}

fn time(conversion: Option<char>) -> Result<Part, String> {
    match conversion {
        None => Err("the format ends within a @".into()),
        Some('@') => Ok(Part::Text(b"@".to_vec())),
        Some('N') => Ok(Part::Nanoseconds),
        Some(c) => {
            let conversion = format!("%{c}");
            match strtime::format(&conversion, Timestamp::UNIX_EPOCH) {
                Ok(_) => Ok(Part::Time(conversion)),
                Err(_) => Err(format!("there is no @{c} in a format")),
            }
        }
    }
}

fn escape(escaped: Option<char>) -> Result<u8, String> {
    Ok(match escaped {
        Some('\\') => b'\\',
        Some('0') => 0,
        Some('a') => 7,
        Some('e') => 0x1b,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some(other) => return Err(format!("there is no \\{other} in a format")),
        None => return Err("the format ends within a \\".into()),
    })
}

/// A conversion that was tried when the format was read.
fn strftime(conversion: &str, time: Timestamp) -> String {
    strtime::format(conversion, time).unwrap_or_default()
}

fn write_field(
    out: &mut impl Write,
    field: char,
    pad: &Pad,
    event: &Shown<'_>,
    time: Timestamp,
) -> io::Result<()> {
    let number = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    match field {
        'p' => out.write_all(event.payload),
        'x' | 'X' => write_hex(out, event.payload, field == 'X'),
        'j' => write_quoted(out, event),
        'J' => write_unquoted(out, event),
        'D' => out.write_all(event.correlation_data.unwrap_or_default()),
        'q' => write!(out, "{}", event.qos),
        'r' => write!(out, "{}", u8::from(event.retain)),
        'U' => write!(out, "{}.{:09}", time.as_second(), time.subsec_nanosecond()),
        'P' => {
            let pairs = event.user_properties.iter().map(|(name, value)| format!("{name}:{value}"));
            out.write_all(pairs.collect::<Vec<_>>().join(" ").as_bytes())
        }
        'l' => padded(out, pad, true, &event.payload.len().to_string()),
        'm' => padded(out, pad, true, &event.packet_id.to_string()),
        'E' => padded(out, pad, true, &number(event.message_expiry_secs.map(u64::from))),
        'F' => padded(out, pad, true, &number(event.payload_utf8.map(u64::from))),
        'S' => padded(out, pad, true, &number(event.subscription_ids.first().copied().map(u64::from))),
        't' => padded(out, pad, false, event.topic),
        'C' => padded(out, pad, false, event.content_type.unwrap_or_default()),
        'R' => padded(out, pad, false, event.response_topic.unwrap_or_default()),
        'I' => padded(out, pad, false, &strftime("%Y-%m-%dT%H:%M:%S+0000", time)),
        // a topic alias never gets here: the client asks for none
        _ => padded(out, pad, true, ""),
    }
}

fn padded(out: &mut impl Write, pad: &Pad, is_number: bool, text: &str) -> io::Result<()> {
    let longest = if is_number { None } else { pad.longest };
    let text: String = text.chars().take(longest.unwrap_or(usize::MAX)).collect();
    let width = pad.width;
    match (pad.left, pad.zero && is_number && !text.is_empty()) {
        (true, _) => write!(out, "{text:<width$}"),
        (false, true) => write!(out, "{text:0>width$}"),
        (false, false) => write!(out, "{text:>width$}"),
    }
}

fn write_hex(out: &mut impl Write, bytes: &[u8], upper: bool) -> io::Result<()> {
    for byte in bytes {
        match upper {
            true => write!(out, "{byte:02X}")?,
            false => write!(out, "{byte:02x}")?,
        }
    }
    Ok(())
}

/// `%j`: the payload as a JSON string.
fn write_quoted(out: &mut impl Write, event: &Shown<'_>) -> io::Result<()> {
    let payload = serde_json::to_vec(&String::from_utf8_lossy(event.payload))?;
    write_object(out, event, &payload)
}

/// `%J`: the payload as it is, if it is JSON; else nothing, and a word on the standard error.
fn write_unquoted(out: &mut impl Write, event: &Shown<'_>) -> io::Result<()> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(event.payload) {
        Ok(_) => write_object(out, event, event.payload),
        Err(_) => {
            eprintln!("firehose: the payload is not valid JSON on topic {}", event.topic);
            Ok(())
        }
    }
}

/// The object of `%j` and `%J`: mosquitto_sub's members in its order.
fn write_object(out: &mut impl Write, event: &Shown<'_>, payload: &[u8]) -> io::Result<()> {
    let time = Timestamp::from_microsecond(event.time_us).unwrap_or_default();
    write!(
        out,
        "{{\"tst\":\"{}.{:06}Z+0000\"",
        strftime("%Y-%m-%dT%H:%M:%S", time),
        time.subsec_microsecond_total()
    )?;
    let topic = json!(event.topic);
    write!(out, ",\"topic\":{topic},\"qos\":{},\"retain\":{}", event.qos, u8::from(event.retain))?;
    write!(out, ",\"payloadlen\":{}", event.payload.len())?;
    if event.qos > 0 && event.packet_id > 0 {
        write!(out, ",\"mid\":{}", event.packet_id)?;
    }
    let properties = properties(event);
    if !properties.is_empty() {
        write!(out, ",\"properties\":{{{}}}", properties.join(","))?;
    }
    out.write_all(b",\"payload\":")?;
    out.write_all(payload)?;
    out.write_all(b"}")
}

fn properties(event: &Shown<'_>) -> Vec<String> {
    let mut members = Vec::new();
    if !event.user_properties.is_empty() {
        let pairs =
            event.user_properties.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value)));
        members.push(format!("\"user-properties\":{{{}}}", pairs.collect::<Vec<_>>().join(",")));
    }
    let mut add = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            members.push(format!("\"{name}\":{value}"));
        }
    };
    add("content-type", event.content_type.map(|text| json!(text)));
    add("correlation-data", event.correlation_data.map(|bytes| json!(String::from_utf8_lossy(bytes))));
    add("response-topic", event.response_topic.map(|text| json!(text)));
    add("payload-format-indicator", event.payload_utf8.map(|utf8| json!(u8::from(utf8))));
    add("message-expiry-interval", event.message_expiry_secs.map(|secs| json!(secs)));
    members
}

trait SubsecMicroseconds {
    fn subsec_microsecond_total(&self) -> i32;
}

impl SubsecMicroseconds for Timestamp {
    /// The microseconds within the second.
    fn subsec_microsecond_total(&self) -> i32 {
        self.subsec_nanosecond() / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: &str, event: &Shown<'_>) -> String {
        let mut out = Vec::new();
        Format::parse(format).expect("it is a format").write(&mut out, event).expect("it can be written");
        String::from_utf8(out).expect("it is UTF-8")
    }

    #[test]
    fn formats_are_written_as_mosquitto_sub_writes_them() {
        let properties = [("k".to_owned(), "v".to_owned()), ("k2".to_owned(), "v2".to_owned())];
        let event = Shown {
            topic: "a/b",
            payload: b"{\"x\": 1}",
            qos: 1,
            packet_id: 1,
            time_us: 1_795_413_163_698_190,
            content_type: Some("application/json"),
            response_topic: Some("r/t"),
            correlation_data: Some(b"cd"),
            message_expiry_secs: Some(30),
            payload_utf8: Some(true),
            user_properties: &properties,
            ..Shown::default()
        };
        // written by mosquitto_sub 2.0.11, but for the digits of %U that it has beyond microseconds
        let format = "[%10t|%-10t|%3.3t|%010l|%l|%q|%m|%05m|%p|%x|%X|%r|%I|%U|%P|%C|%D|%E|%F|%R|%S|%A|\
                      @Y-@m-@dT@H:@M:@S.@N@z|%%|@@|\\t|%20I|%-6l|%3.1R|%4F]";
        let written = "[       a/b|a/b       |a/b|0000000008|8|1|1|00001|{\"x\": 1}|7b2278223a20317d|7B2278223A20317D|0\
                       |2026-11-23T05:52:43+0000|1795413163.698190000|k:v k2:v2|application/json|cd|30|1|r/t|||\
                       2026-11-23T05:52:43.698190000+0000|%|@|\t|2026-11-23T05:52:43+0000|8     |  r|   1]";
        assert_eq!(shown(format, &event), written);
        let written = "{\"tst\":\"2026-11-23T05:52:43.698190Z+0000\",\"topic\":\"a/b\",\"qos\":1,\"retain\":0,\
                       \"payloadlen\":8,\"mid\":1,\"properties\":{\"user-properties\":{\"k\":\"v\",\"k2\":\"v2\"},\
                       \"content-type\":\"application/json\",\"correlation-data\":\"cd\",\"response-topic\":\"r/t\",\
                       \"payload-format-indicator\":1,\"message-expiry-interval\":30},\"payload\":";
        assert_eq!(shown("%j", &event), format!("{written}\"{{\\\"x\\\": 1}}\"}}"));
        assert_eq!(shown("%J", &event), format!("{written}{{\"x\": 1}}}}"));
    }

    #[test]
    fn a_payload_that_is_not_json_leaves_an_empty_line() {
        assert_eq!(shown("%J", &Shown { topic: "a", payload: b"hello", ..Shown::default() }), "");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for format in ["%", "%Z", "%10", "%d", "@", "\\", "\\q", "%99999999999t", "%0"] {
            assert!(Format::parse(format).is_err(), "{format}");
        }
    }
}
