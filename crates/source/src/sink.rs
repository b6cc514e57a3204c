//! What a source publishes, where it publishes, and what a source is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

/// One event that a source brings, before it has an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// A valid topic name; names from outside are percent-encoded in it.
    pub topic: String,
    /// The source's bytes, unaltered.
    pub payload: Bytes,
    /// The payload's media type, for example `application/json`.
    pub content_type: Option<String>,
    /// CloudEvents 1.0 context attributes: name and value, in the order in which they are to be carried.
    pub attributes: Vec<(String, String)>,
    /// The quality of service it is published with: 0, 1 or 2.
    pub qos: u8,
    /// Whether it becomes the retained message of its topic.
    pub retain: bool,
}

/// What [`Sink::publish`] gives: resolves when the events are stored.
pub type Stored<'a> = Pin<Box<dyn Future<Output = Result<(), Refused>> + Send + 'a>>;

/// Where sources publish.
pub trait Sink: Send + Sync + 'static {
    /// Publishes the events in their order, and resolves when all of them are stored at the configured durability.
    ///
    /// After an error some of them may be stored: a source that tries again delivers at least once.
    fn publish(&self, events: Vec<NewEvent>) -> Stored<'_>;
}

/// Why a sink did not take a batch of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What went wrong, and whose fault it is.
    pub why: String,
    /// Whether the same events may be taken later (a full disk: yes; an event that is too large: no).
    pub retry: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.why, if self.retry { " (will be tried again)" } else { "" })
    }
}

impl std::error::Error for Refused {}

/// A service whose events are brought to the bus.
pub trait Source: Send + 'static {
    /// The source's name in the config: its status is published on `firehose/status/<name>`.
    fn name(&self) -> &str;

    /// Runs until `shutdown` becomes true (or its sender is gone), then hands on what it has read and ends.
    ///
    /// Must be run on a tokio runtime with I/O and time. Dropping the future stops everything that it started.
    fn run(
        self: Box<Self>,
        sink: Arc<dyn Sink>,
        shutdown: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
