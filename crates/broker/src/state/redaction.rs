//! The state lets go of an event that is taken back.

use crate::redaction::Redacts;
use crate::state::queue::Queue;
use firehose_log::Offset;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Has the state's thread write the file anew without the event, and waits for it.
pub(crate) struct StateRedacts(pub(crate) Arc<Queue>);

impl Redacts for StateRedacts {
    fn redacted(&self, offset: Offset) -> Result<(), String> {
        let (says, outcome) = channel();
        // Nobody listens any more if the bus stops meanwhile.
        let done = move |result| drop(says.send(result));
        self.0.redact(offset, Box::new(done));
        outcome.recv().unwrap_or_else(|_| Err("the bus stops".into()))
    }
}
