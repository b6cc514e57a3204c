//! What a source says about itself on `firehose/status/<name>`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::sink::NewEvent;

/// How a source stands with the service whose events it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is on its way: the first attempt, or the first one after the link was lost.
    Connecting,
    /// Events come as they happen.
    Live,
    /// The last attempt failed; it goes on trying.
    Failed,
}

/// Events that a source could not bring, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Lines that are no JSON object with a `type`: no topic can be computed for them.
    pub unreadable: u64,
    /// Lines above the limit of length; skipped without being kept.
    pub too_long: u64,
    /// Events that the bus refused for good.
    pub refused: u64,
    /// Notices (`dropped-output`) by which the service says that it dropped events for us.
    pub dropped_by_service: u64,
}

/// The status of a source; its JSON is what is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Connecting, live or failed.
    pub state: State,
    /// Since when, RFC 3339 in UTC.
    pub since: Timestamp,
    /// When the last event was made, by the service's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// How long after it was made that event was read, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_secs: Option<i64>,
    /// Why it is not live, or what was last lost; for everyone to read, so without paths of the bus's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What could not be brought.
    pub lost: Losses,
}

/// A source's status, for the page and the metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// The status as it is now.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Status {
            state: State::Connecting,
            since: now(),
            last_event: None,
            lag_secs: None,
            why: None,
            lost: Losses::default(),
        })))
    }

    /// Sets state and reason; true when either changed, so that the status is to be published.
    pub(crate) fn set(&self, state: State, why: Option<String>) -> bool {
        let mut status = self.lock();
        let changed = status.state != state || status.why != why;
        if status.state != state {
            status.since = now();
        }
        status.state = state;
        status.why = why;
        changed
    }

    /// Notes an event that was made at `made`.
    pub(crate) fn event(&self, made: Timestamp) {
        let mut status = self.lock();
        status.last_event = Some(made);
        status.lag_secs = Some((now().as_second() - made.as_second()).max(0));
    }

    /// Counts a loss and says what it was.
    pub(crate) fn lost(&self, what: impl FnOnce(&mut Losses) -> &mut u64, why: &str) {
        let mut status = self.lock();
        *what(&mut status.lost) += 1;
        status.why = Some(why.to_owned());
    }

    /// The publication of the present status.
    pub(crate) fn publication(&self, name: &str) -> NewEvent {
        let json = serde_json::to_vec(&*self.lock()).unwrap_or_default();
        NewEvent {
            topic: format!("firehose/status/{name}"),
            payload: Bytes::from(json),
            content_type: Some("application/json".to_owned()),
            attributes: Vec::new(),
            qos: 1,
            retain: true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, in whole seconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_state_or_reason_is_worth_a_publication() {
        let status = StatusHandle::new();
        assert!(!status.set(State::Connecting, None));
        assert!(status.set(State::Failed, Some("no route".into())));
        assert!(!status.set(State::Failed, Some("no route".into())));
        assert!(status.set(State::Failed, Some("refused".into())));
        assert!(status.set(State::Live, None));
    }

    #[test]
    fn the_publication_is_retained_json_with_the_documented_members() {
        let status = StatusHandle::new();
        status.set(State::Live, None);
        status.event(Timestamp::from_second(1_795_403_974).unwrap());
        status.lost(|lost| &mut lost.too_long, "a line of more than 16 MiB was skipped");
        let publication = status.publication("gerrit");
        assert_eq!(publication.topic, "firehose/status/gerrit");
        assert!(publication.retain);
        let json: serde_json::Value = serde_json::from_slice(&publication.payload).unwrap();
        assert_eq!(json["state"], "live");
        assert_eq!(json["last_event"], "2026-11-23T03:19:34Z");
        assert!(json["since"].as_str().unwrap().ends_with('Z'));
        assert!(json["lag_secs"].as_i64().unwrap() >= 0);
        assert_eq!(json["lost"]["too_long"], 1);
        assert_eq!(json["why"], "a line of more than 16 MiB was skipped");
    }
}
