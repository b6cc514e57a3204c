//! What the operator has done: by the socket on a running bus, or by the command itself on one that is stopped.

use std::path::PathBuf;
use std::sync::mpsc;

use firehose_broker::bus::wall_us;
use firehose_broker::{Bus, PortEvent};
use firehose_http::{Operator, OperatorError};
use firehose_log::{Cursor, Offset, Read, RedactError, Refusal, Since, SinceError, format_time};
use firehose_topic::encode_name;
use serde_json::{Value, json};

use crate::diagnosis::{Diagnosis, Found};

/// The longest reason of a redaction.
const REASON_BYTES_MAX: usize = 1_000;

/// The operator of one bus.
pub struct BusOperator {
    bus: Bus,
    data: PathBuf,
    reserve_bytes: u64,
    found: Found,
}

impl BusOperator {
    /// Of this bus, with its data there; `found` is what its start found amiss.
    pub fn new(bus: Bus, data: PathBuf, reserve_bytes: u64, found: Found) -> Self {
        BusOperator { bus, data, reserve_bytes, found }
    }

    /// Tells mirrors, by an event, which one was taken back. Says neither its topic nor anything else of it.
    fn tell(&self, cursor: &Cursor, principal: &str, reason: &str) -> Result<Offset, String> {
        let source = if principal.is_empty() { "bus".into() } else { encode_name(principal) };
        let payload = json!({
            "cursor": cursor.encode(),
            "offset": cursor.offset,
            "reason": reason,
            "time": format_time(wall_us()),
        });
        let event = PortEvent {
            topic: format!("firehose/redaction/{source}"),
            payload: payload.to_string().into_bytes(),
            content_type: Some("application/json".into()),
            qos: 1,
            ..PortEvent::default()
        };
        let (done, stored) = mpsc::channel::<Result<Offset, Refusal>>();
        let published = self.bus.publish_own(&[event], move |outcome| drop(done.send(outcome)));
        published.map_err(|_| format!("{source:?} cannot be part of a topic"))?;
        let outcome = stored.recv().map_err(|_| "the bus stops".to_owned())?;
        outcome.map_err(|refusal| refusal.to_string())
    }
}

impl Operator for BusOperator {
    fn redact(&self, cursor: &Cursor, reason: &str) -> Result<Value, OperatorError> {
        check_reason(reason)?;
        let read = self.bus.read();
        let offset = place_of(read.as_ref(), cursor)?;
        let (redacted, before) = match self.bus.redact(offset) {
            Ok(redacted) => (Some(redacted), false),
            // Whether everyone was told is not known, and to be told twice does no harm.
            Err(RedactError::Already { .. }) => (None, true),
            Err(error @ (RedactError::NeverWas { .. } | RedactError::Gone { .. })) => {
                return Err(OperatorError::NotThere(error.to_string()));
            }
            Err(error) => return Err(OperatorError::Failed(error.to_string())),
        };
        let principal = redacted.as_ref().map_or("", |redacted| &redacted.principal);
        let told = self.tell(cursor, principal, reason);
        tracing::warn!(offset, reason, "an event was redacted");
        Ok(json!({
            "cursor": cursor.encode(),
            "offset": offset,
            "before": before,
            "notice": told.as_ref().ok().map(|offset| read.cursor(*offset, wall_us()).encode()),
            "notice_refused": told.err(),
            "aside": redacted.map(|redacted| redacted.aside).unwrap_or_default(),
        }))
    }

    fn diagnose(&self) -> Value {
        let mut diagnosis = Diagnosis::of_folder(&self.data, self.reserve_bytes);
        diagnosis.add_running(self.bus.read().as_ref(), &self.found);
        let head = self.bus.read().head();
        diagnosis.add_state(self.bus.state().stats(), self.bus.state().lag(head));
        diagnosis.to_json()
    }

    fn accept_clock(&self) -> Result<Value, OperatorError> {
        let accepted = self.bus.on_commit_thread(|commit| commit.accept_clock(wall_us()));
        match accepted {
            Some(Ok(held)) => Ok(json!({ "held": held })),
            Some(Err(error)) => Err(OperatorError::Failed(error.to_string())),
            None => Err(OperatorError::Failed("the bus stops".into())),
        }
    }
}

/// A reason is public, stands in a log line, and is one line that tells something.
fn check_reason(reason: &str) -> Result<(), OperatorError> {
    let why = match reason {
        _ if reason.trim().is_empty() => "the reason is empty: say in a few words why".to_owned(),
        _ if reason.len() > REASON_BYTES_MAX => {
            format!("the reason has {} bytes, more than {REASON_BYTES_MAX}: make it shorter", reason.len())
        }
        _ if reason.chars().any(char::is_control) => {
            "the reason has control characters: leave them out".to_owned()
        }
        _ => return Ok(()),
    };
    Err(OperatorError::Malformed(why))
}

/// The offset of the very event that the cursor was given out for.
fn place_of(read: &dyn Read, cursor: &Cursor) -> Result<Offset, OperatorError> {
    let start = match read.resolve(&Since::After(*cursor), wall_us()) {
        Ok(start) => start,
        Err(SinceError::Io(why)) => return Err(OperatorError::Failed(why)),
        Err(error) => return Err(OperatorError::NotThere(error.to_string())),
    };
    if start.foreign {
        return Err(OperatorError::NotThere("the cursor is of another log".into()));
    }
    let stands = start.gap.map_or(start.next, |(first, _)| first).saturating_sub(1);
    if stands == cursor.offset {
        return Ok(stands);
    }
    let why = format!("event {} of that time was lost when the bus was killed", cursor.offset);
    Err(OperatorError::NotThere(why))
}
