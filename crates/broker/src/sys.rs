//! `$SYS`: the public part of what mosquitto publishes there, under its names. Never stored; the last values are kept in
//! memory for new subscriptions, as retained messages.

use crate::bus::{Bus, PortEvent};
use crate::retained_page::{PageDraft, RetainedPage};
use crate::sync::{Mutex, lock};
use firehose_log::Batch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is published, as mosquitto's `sys_interval` has it by default.
const INTERVAL: Duration = Duration::from_secs(10);

/// The last values of all topics of `$SYS`, for new subscriptions: they are in no log.
#[derive(Debug, Default)]
pub struct LatestSys(Mutex<Option<Arc<RetainedPage>>>);

impl LatestSys {
    /// The values are these now.
    pub fn set(&self, batch: &Batch) {
        let mut page = PageDraft::default();
        // What a batch can hold, a page can.
        let _ = (batch.base()..=batch.last()).try_for_each(|offset| page.push(offset, batch));
        *lock(&self.0) = Some(Arc::new(page.finish(None)));
    }

    /// The values that were published last; none before that.
    pub fn latest(&self) -> Option<Arc<RetainedPage>> {
        lock(&self.0).clone()
    }
}

/// See the module.
pub struct Sys {
    started: Instant,
    published: Option<Instant>,
}

impl Sys {
    /// The bus started then.
    pub fn new(started: Instant) -> Sys {
        Sys { started, published: None }
    }

    /// Publishes, if it is time.
    pub fn publish(&mut self, bus: &Bus, now: Instant) {
        if self.published.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return;
        }
        self.published = Some(now);
        let topics = topics(bus, now.duration_since(self.started).as_secs());
        let events: Vec<PortEvent> = topics
            .into_iter()
            .map(|(name, value)| PortEvent {
                topic: format!("$SYS/broker/{name}"),
                payload: value.into_bytes(),
                ..PortEvent::default()
            })
            .collect();
        if let Err(index) = bus.publish_sys(&events) {
            tracing::error!(topic = %events[index].topic, "cannot publish $SYS");
        }
    }
}

fn topics(bus: &Bus, uptime_secs: u64) -> Vec<(&'static str, String)> {
    let stats = bus.stats();
    let state = bus.state().stats();
    let damage = bus.read().damage();
    vec![
        ("version", format!("firehose version {}", env!("CARGO_PKG_VERSION"))),
        ("uptime", format!("{uptime_secs} seconds")),
        ("clients/connected", stats.connections.get().to_string()),
        ("clients/total", stats.connections.get().to_string()),
        ("clients/closed/budget", stats.connections_over_budget.get().to_string()),
        ("subscriptions/count", stats.subscriptions.get().to_string()),
        ("messages/received", stats.messages_received.get().to_string()),
        ("messages/sent", stats.messages_sent.get().to_string()),
        ("publish/messages/received", stats.messages_received.get().to_string()),
        ("publish/messages/sent", stats.messages_sent.get().to_string()),
        ("publish/messages/dropped", stats.messages_dropped.get().to_string()),
        ("publish/messages/refused", stats.messages_refused.get().to_string()),
        ("publish/messages/refused/disk", stats.messages_refused_disk.get().to_string()),
        ("log/damaged/ranges", damage.ranges.to_string()),
        ("log/damaged/events", damage.events.to_string()),
        ("bytes/received", stats.received_bytes.get().to_string()),
        ("state/sessions", state.sessions().to_string()),
        ("state/wills", state.wills().to_string()),
        ("state/lag", bus.state().lag(bus.sequencer().head()).to_string()),
        ("state/commits", state.commits.get().to_string()),
        ("state/commits/seconds", format!("{:.3}", state.commit_us.get() as f64 / 1e6)),
        ("state/rebuilds", state.rebuilds.get().to_string()),
    ]
}
