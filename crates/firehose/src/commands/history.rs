//! `firehose history`: past events, over HTTP.

use std::io::Write;

use firehose_client::{ClientError, History, HistoryEvent, HistoryRequest};
use firehose_log::Since;
use firehose_topic::TopicFilter;
use serde_json::value::RawValue;

use crate::account;
use crate::cli::{self, Order};
use crate::exit::Failure;
use crate::format::{Format, Shown};
use crate::output::{self, Output};

/// Writes all that was asked for.
pub fn run(args: &cli::History) -> Result<(), Failure> {
    let style = Style::of(args)?;
    let mut out = Output::new();
    for event in History::open(request(args)?)? {
        match event {
            Ok(event) => style.write(&mut out, &event)?,
            Err(error) => {
                out.flush().map_err(output::failure)?;
                return Err(error.into());
            }
        }
    }
    out.flush().map_err(output::failure)
}

fn request(args: &cli::History) -> Result<HistoryRequest, Failure> {
    let url = account::url(args.url.as_deref(), "http://127.0.0.1:8080")?;
    for filter in &args.topics {
        TopicFilter::new(filter)
            .map_err(|error| Failure::usage(format!("-t {filter:?} is not a filter: {error}")))?;
    }
    for (option, value) in [("--since", &args.since), ("--until", &args.until)] {
        if let Some(text) = value {
            Since::parse(text).map_err(|error| Failure::usage(format!("{option}: {error}")))?;
        }
    }
    Ok(HistoryRequest {
        account: account::account(&args.account, &url)?,
        roots: account::roots(&args.account),
        url,
        topics: args.topics.clone(),
        since: args.since.clone(),
        until: args.until.clone(),
        descending: args.order == Order::Desc,
        count_max: args.count,
    })
}

/// How an event is written.
enum Style {
    /// Time, topic and payload.
    Line,
    Raw,
    Json,
    Format(Format),
}

impl Style {
    fn of(args: &cli::History) -> Result<Self, Failure> {
        Ok(match (&args.format, args.json, args.raw) {
            (Some(format), _, _) => {
                Style::Format(Format::parse(format).map_err(|error| Failure::usage(format!("-F: {error}")))?)
            }
            (None, true, _) => Style::Json,
            (None, false, true) => Style::Raw,
            (None, false, false) => Style::Line,
        })
    }

    fn write(&self, out: &mut impl Write, event: &HistoryEvent) -> Result<(), Failure> {
        if let Style::Json = self {
            out.write_all(event.json.as_bytes()).map_err(output::failure)?;
            return out.write_all(b"\n").map_err(output::failure);
        }
        let members = Members::of(event)?;
        match self {
            Style::Line => write!(out, "{} {} ", members.recorded, members.topic)
                .and_then(|()| out.write_all(&members.payload)),
            Style::Raw => out.write_all(&members.payload),
            Style::Format(format) => format.write(out, &members.shown()),
            Style::Json => Ok(()),
        }
        .and_then(|()| out.write_all(b"\n"))
        .map_err(output::failure)
    }
}

/// An event's members, as far as they can be shown.
#[derive(Default)]
struct Members {
    topic: String,
    recorded: String,
    time_us: i64,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    message_expiry_secs: Option<u32>,
    user_properties: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Members {
    fn of(event: &HistoryEvent) -> Result<Self, Failure> {
        let broken = || ClientError::Connection("the server sent what is not an event".into());
        let mut members = Members { payload: event.payload().ok_or_else(broken)?, ..Members::default() };
        for (name, value) in HistoryEvent::members(&event.json).map_err(|_| broken())? {
            members.take(&name, value).map_err(|_| broken())?;
        }
        Ok(members)
    }

    fn take(&mut self, name: &str, value: &RawValue) -> Result<(), serde_json::Error> {
        let json = value.get();
        match name {
            "topic" => self.topic = serde_json::from_str(json)?,
            "recordedtime" => {
                self.recorded = serde_json::from_str(json)?;
                if let Ok(Since::At(time_us)) = Since::parse(&self.recorded) {
                    self.time_us = time_us;
                }
            }
            "qos" => self.qos = serde_json::from_str(json)?,
            "retain" => self.retain = serde_json::from_str(json)?,
            "content_type" => self.content_type = serde_json::from_str(json)?,
            "response_topic" => self.response_topic = serde_json::from_str(json)?,
            "correlation_data" => {
                let encoded: String = serde_json::from_str(json)?;
                self.correlation_data = Some(firehose_client::history::decode_base64(&encoded));
            }
            "message_expiry_secs" => self.message_expiry_secs = serde_json::from_str(json)?,
            "properties" => self.user_properties.extend(serde_json::from_str::<Vec<(String, String)>>(json)?),
            "cursor" | "data" | "data_base64" => {}
            // what remains is a source's: a user property on MQTT
            other => self.user_properties.push((other.to_owned(), serde_json::from_str(json)?)),
        }
        Ok(())
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            time_us: self.time_us,
            content_type: self.content_type.as_deref(),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            message_expiry_secs: self.message_expiry_secs,
            user_properties: &self.user_properties,
            ..Shown::default()
        }
    }
}
