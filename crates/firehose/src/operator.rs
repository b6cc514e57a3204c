//! What the operator has done: by the socket on a running bus, or by the command itself on one that is stopped.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use firehose_broker::bus::wall_us;
use firehose_broker::{Bus, PortEvent};
use firehose_http::{Operator, OperatorError};
use firehose_log::{
    Batch, Cursor, Fetched, Offset, Read, RedactError, Refusal, Since, SinceError, Wait, format_time,
};
use firehose_topic::encode_name;
use serde_json::{Value, json};

use crate::diagnosis::{Diagnosis, Found};
use crate::redaction_note::RedactionNote;

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

    /// Finishes what was cut off. Waits for the disk.
    pub fn finish_redactions(&self) {
        let offsets = RedactionNote::offsets(&self.data).unwrap_or_else(|error| {
            tracing::error!(%error, "whether a redaction was cut off cannot be seen");
            Vec::new()
        });
        for offset in offsets {
            let noted = match RedactionNote::load(&self.data, offset) {
                Ok(Some(note)) => self.redact(&note.cursor, &note.reason).map_err(|error| match error {
                    OperatorError::NotThere(why) => {
                        self.forget_note(offset);
                        why
                    }
                    OperatorError::Malformed(why) | OperatorError::Failed(why) => why,
                }),
                Ok(None) => continue,
                Err(error) => Err(format!("its note cannot be read: {error}")),
            };
            match noted {
                Ok(_) => tracing::warn!(offset, "a redaction that was cut off was finished"),
                Err(why) => tracing::error!(offset, why, "a redaction was cut off: do it again"),
            }
        }
    }

    /// Notes that the event is to go. Gives who published it, who is not known any more once it has gone; empty: nobody
    /// knows.
    fn note(&self, offset: Offset, cursor: &Cursor, reason: &str) -> Result<String, String> {
        let earlier = RedactionNote::load(&self.data, offset).ok().flatten();
        let earlier = earlier.filter(|note| note.cursor == *cursor).map(|note| note.principal);
        let principal = match earlier {
            Some(principal) => principal,
            None => self.publisher(offset)?,
        };
        let note = RedactionNote { cursor: *cursor, principal, reason: reason.to_owned() };
        note.store(&self.data).map_err(|error| {
            format!("nothing was done: that event {offset} is to be redacted could not be noted: {error}")
        })?;
        Ok(note.principal)
    }

    /// One that stays does no harm: everyone is told again.
    fn forget_note(&self, offset: Offset) {
        if let Err(error) = RedactionNote::remove(&self.data, offset) {
            tracing::error!(offset, %error, "the note of a redaction that is done stays");
        }
    }

    fn publisher(&self, offset: Offset) -> Result<String, String> {
        let Fetched::Events(events) =
            self.bus.read().fetch(&[offset], Wait::Yes).map_err(|error| error.to_string())?
        else {
            return Ok(String::new());
        };
        let of = |(offset, batch): (Offset, Arc<Batch>)| {
            let index = usize::try_from(offset - batch.base()).ok()?;
            Some(batch.record(index).origin().principal.to_owned())
        };
        Ok(events.into_iter().next().and_then(of).unwrap_or_default())
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
        let principal = self.note(offset, cursor, reason).map_err(OperatorError::Failed)?;
        let (redacted, before) = match self.bus.redact(offset) {
            Ok(redacted) => (Some(redacted), false),
            // Whether everyone was told is not known, and to be told twice does no harm.
            Err(RedactError::Already { .. }) => (None, true),
            Err(error @ (RedactError::NeverWas { .. } | RedactError::Gone { .. })) => {
                self.forget_note(offset);
                return Err(OperatorError::NotThere(error.to_string()));
            }
            Err(error) => return Err(OperatorError::Failed(error.to_string())),
        };
        let told = self.tell(cursor, &principal, reason);
        if told.is_ok() {
            self.forget_note(offset);
        }
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

    fn diagnose(&self, reads_all: bool) -> Value {
        let mut diagnosis = Diagnosis::of_folder(&self.data, self.reserve_bytes);
        if reads_all {
            diagnosis.add_full_read(self.bus.read().as_ref());
        }
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
