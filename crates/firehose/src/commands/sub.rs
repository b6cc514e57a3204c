//! `firehose sub`: events as they happen, or from a point in the past on.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firehose_client::{CursorFile, Message, MqttConfig, Subscriber, SubscriberConfig, Update};
use firehose_log::{Attribute, AttributesBuf, Cursor, Event, Flags, Since, write_json};
use firehose_topic::TopicFilter;

use crate::cli::Sub;
use crate::exit::{Exit, Failure};
use crate::format::{Format, Shown};
use crate::output::{self, Output};
use crate::{account, signals};

/// Where events come without a pause, the cursor file is replaced each time so many were written.
const EVENTS_UNREMEMBERED: u64 = 1_000;

/// Reads until `-n`, `-W` or a signal.
pub fn run(args: &Sub) -> Result<(), Failure> {
    let style = Style::of(args)?;
    let mut cursor_file = args.cursor_file.as_deref().map(CursorFile::open).transpose()?;
    let config = config(args, cursor_file.as_ref())?;
    signals::raise_on_signal(config.mqtt.interrupt.clone())?;
    let deadline = args.timeout_secs.map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut subscriber = Subscriber::open(config)?;
    let mut out = Output::new();
    let mut count = 0;
    let mut position = None;
    let ended = loop {
        // what was written must be out before the message is acknowledged or its cursor stored
        if subscriber.would_wait() || count % EVENTS_UNREMEMBERED == 0 {
            out.flush().map_err(output::failure)?;
            remember(cursor_file.as_mut(), position)?;
        }
        match subscriber.receive(deadline) {
            Ok(Update::Message(message)) => {
                warn_of_gap(&message);
                style.write(&mut out, &message).map_err(output::failure)?;
                position = message.cursor.or(position);
                count += 1;
                if args.count.is_some_and(|wanted| count >= wanted) {
                    break Ok(());
                }
            }
            Ok(Update::Note(note)) => eprintln!("firehose: {note}"),
            Ok(Update::Nothing) => break Err(Failure::silent(Exit::Timeout)),
            Err(error) => break Err(error.into()),
        }
    };
    out.flush().map_err(output::failure)?;
    remember(cursor_file.as_mut(), position)?;
    subscriber.close();
    ended
}

fn config(args: &Sub, cursor_file: Option<&CursorFile>) -> Result<SubscriberConfig, Failure> {
    let url = account::url(args.url.as_deref(), "mqtt://127.0.0.1:1883")?;
    let mut mqtt = MqttConfig::new(url)?;
    mqtt.account = account::account(&args.account, &mqtt.url)?;
    mqtt.roots = account::roots(&args.account);
    mqtt.client_id.clone_from(&args.id);
    mqtt.keep_session = args.keep_session;
    let mut filters = args.topics.clone();
    if filters.is_empty() {
        filters.push("#".into());
    }
    for filter in &filters {
        TopicFilter::new(filter)
            .map_err(|error| Failure::usage(format!("-t {filter:?} is not a filter: {error}")))?;
    }
    let asked = args.since.as_deref().map(Since::parse).transpose();
    let asked = asked.map_err(|error| Failure::usage(format!("--since: {error}")))?;
    let since = cursor_file.and_then(CursorFile::cursor).map(Since::After).or(asked);
    let qos = firehose_mqtt::QoS::from_u8(args.qos).unwrap_or_default();
    Ok(SubscriberConfig { mqtt, filters, qos, since })
}

fn remember(file: Option<&mut CursorFile>, position: Option<Cursor>) -> Result<(), Failure> {
    match (file, position) {
        (Some(file), Some(position)) => file
            .store(position)
            .map_err(|error| Failure::runtime(format!("the cursor file cannot be replaced: {error}"))),
        _ => Ok(()),
    }
}

fn warn_of_gap(message: &Message) {
    if let Some(gap) = &message.gap {
        eprintln!("firehose: events are gone: {gap}");
    }
}

/// How a message is written.
enum Style {
    Payload,
    Verbose,
    Json,
    Format(Format),
}

impl Style {
    fn of(args: &Sub) -> Result<Self, Failure> {
        Ok(match (&args.format, args.json, args.verbose) {
            (Some(format), _, _) => {
                Style::Format(Format::parse(format).map_err(|error| Failure::usage(format!("-F: {error}")))?)
            }
            (None, true, _) => Style::Json,
            (None, false, true) => Style::Verbose,
            (None, false, false) => Style::Payload,
        })
    }

    fn write(&self, out: &mut impl Write, message: &Message) -> std::io::Result<()> {
        match self {
            Style::Payload => out.write_all(&message.payload)?,
            Style::Verbose => {
                write!(out, "{} ", message.topic)?;
                out.write_all(&message.payload)?;
            }
            Style::Json => out.write_all(&json(message))?,
            Style::Format(format) => format.write(out, &shown(message))?,
        }
        out.write_all(b"\n")
    }
}

/// The bus's own attribute of a CloudEvent: when it was recorded.
const RECORDED: &str = "recordedtime";

fn shown(message: &Message) -> Shown<'_> {
    Shown {
        topic: &message.topic,
        payload: &message.payload,
        qos: message.qos as u8,
        retain: message.retain,
        packet_id: message.packet_id,
        time_us: now_us(),
        content_type: message.content_type.as_deref(),
        response_topic: message.response_topic.as_deref(),
        correlation_data: message.correlation_data.as_deref(),
        message_expiry_secs: message.message_expiry_secs,
        payload_utf8: message.payload_utf8,
        subscription_ids: &message.subscription_ids,
        user_properties: &message.user_properties,
    }
}

/// The log's JSON shape. MQTT does not tell a source's attributes from a client's properties: they are a source's where
/// CloudEvents' `specversion` is among them. The time recorded is then among them too; else it is that of the cursor, to
/// the second; without one, now.
fn json(message: &Message) -> Vec<u8> {
    let is_cloud_event = message.user_properties.iter().any(|(name, _)| name == "specversion");
    let recorded_us = message.user_properties.iter().find(|(name, _)| is_cloud_event && name == RECORDED);
    let recorded_us = recorded_us.and_then(|(_, time)| match Since::parse(time) {
        Ok(Since::At(time_us)) => Some(time_us),
        _ => None,
    });
    let mut attributes = AttributesBuf::new();
    let mut add = |attribute: Attribute<'_>| {
        // false: too long for the log's format, so no firehose sent it
        attributes.push(&attribute);
    };
    if let Some(secs) = message.message_expiry_secs {
        add(Attribute::MessageExpiry(secs));
    }
    if let Some(text) = &message.content_type {
        add(Attribute::ContentType(text));
    }
    if let Some(text) = &message.response_topic {
        add(Attribute::ResponseTopic(text));
    }
    if let Some(bytes) = &message.correlation_data {
        add(Attribute::CorrelationData(bytes));
    }
    for (name, value) in &message.user_properties {
        if recorded_us.is_some() && name == RECORDED {
            continue;
        }
        match is_cloud_event && is_context(name) {
            true => add(Attribute::Context(name, value)),
            false => add(Attribute::UserProperty(name, value)),
        }
    }
    let event = Event {
        flags: Flags::new(message.qos as u8, message.retain, message.payload_utf8),
        topic: &message.topic,
        attributes: attributes.as_attributes(),
        payload: &message.payload,
    };
    let mut out = Vec::new();
    match &message.cursor {
        Some(cursor) => {
            let to_the_second = cursor.recorded_secs.saturating_mul(1_000_000);
            write_json(&mut out, cursor, recorded_us.unwrap_or(to_the_second), &event);
        }
        None => {
            let nowhere = Cursor { log_id: 0, epoch: 0, offset: 0, recorded_secs: 0 };
            write_json(&mut out, &nowhere, recorded_us.unwrap_or_else(now_us), &event);
            without_cursor(&mut out, &nowhere);
        }
    }
    out
}

/// Takes the cursor out again: a server that gives none has none.
fn without_cursor(out: &mut Vec<u8>, cursor: &Cursor) {
    let member = format!("\"cursor\":\"{}\",", cursor.encode());
    if out[1..].starts_with(member.as_bytes()) {
        out.drain(1..=member.len());
    }
}

/// Whether CloudEvents 1.0 could call an attribute so (section "Naming Conventions").
fn is_context(name: &str) -> bool {
    !name.is_empty() && name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_shape_of_the_log() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut message =
            Message { topic: "a/b".into(), payload: b"{\"x\": 1}".to_vec(), ..Message::default() };
        message.user_properties = vec![pair("specversion", "1.0"), pair("type", "t"), pair("X-Own", "v")];
        message.cursor = Some(Cursor { log_id: 1, epoch: 1, offset: 2, recorded_secs: 1_790_000_000 });
        let cursor = message.cursor.map(|cursor| cursor.encode()).unwrap_or_default();
        let written = String::from_utf8(json(&message)).expect("it is UTF-8");
        let expected = format!(
            "{{\"cursor\":\"{cursor}\",\"topic\":\"a/b\",\"recordedtime\":\"2026-09-21T14:13:20.000000Z\",\"qos\":0,\
             \"retain\":false,\"type\":\"t\",\"specversion\":\"1.0\",\"properties\":[[\"X-Own\",\"v\"]],\
             \"data\":{{\"x\": 1}}}}"
        );
        assert_eq!(written, expected);
        message.cursor = None;
        let written = String::from_utf8(json(&message)).expect("it is UTF-8");
        assert!(written.starts_with("{\"topic\":\"a/b\","), "{written}");
    }
}
