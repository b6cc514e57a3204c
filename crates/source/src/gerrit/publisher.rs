//! Takes lines from the queue, makes events of them, and publishes them in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::event::GerritEvent;
use super::lines::Line;
use super::queue::{Item, QueueReceiver};
use super::{GerritConfig, topic};
use crate::backoff::Backoff;
use crate::sink::{NewEvent, Sink};
use crate::status::StatusHandle;

/// The task that publishes; it ends when the queue is closed and empty.
pub(super) struct Publisher {
    pub(super) config: Arc<GerritConfig>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) status: StatusHandle,
    pub(super) queue: QueueReceiver,
}

/// Events that go to the sink together, and the shares of the queue's budget that they hold until they are stored.
#[derive(Default)]
struct Batch {
    events: Vec<NewEvent>,
    bytes: usize,
    shares: Vec<OwnedSemaphorePermit>,
}

impl Publisher {
    pub(super) async fn run(mut self) {
        let source_uri = self.config.source_uri.clone().unwrap_or_else(|| self.config.url.source_uri());
        let mut losses_said = self.status.get().lost;
        let mut say_at = Instant::now();
        loop {
            let losses = self.status.get().lost;
            let first = tokio::select! {
                biased;
                () = sleep_until(say_at), if losses != losses_said => {
                    tracing::warn!(source = self.config.name, ?losses, "events were lost");
                    losses_said = losses;
                    say_at = Instant::now() + self.config.losses_interval;
                    self.publish(vec![self.status.publication(&self.config.name)]).await;
                    continue;
                }
                item = self.queue.recv() => match item {
                    Some(item) => item,
                    None => return,
                },
            };
            let batch = self.batch(first, &source_uri);
            self.publish(batch.events).await;
        }
    }

    /// The first item and what stands behind it, up to the limits of a batch.
    fn batch(&mut self, first: Item, source_uri: &str) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(item) = next {
            taken += 1;
            match item {
                Item::Status(publication) => batch.events.push(publication),
                Item::Line(line, share) => {
                    if let Some(event) = self.event(line, source_uri) {
                        batch.bytes += event.payload.len();
                        batch.events.push(event);
                        batch.shares.push(share);
                    }
                }
            }
            let full = taken >= self.config.batch_events_max || batch.bytes >= self.config.batch_bytes_max;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        batch
    }

    /// The event of a line; none if it cannot be one, which is counted.
    fn event(&self, line: Line, source_uri: &str) -> Option<NewEvent> {
        match line {
            Line::TooLong(bytes) => {
                tracing::debug!(source = self.config.name, bytes, "a line is too long");
                let why = format!("a line of {bytes} bytes was skipped: more than line_bytes_max");
                self.status.lost(|lost| &mut lost.too_long, &why);
                None
            }
            Line::Whole(line) => self.readable(&line, source_uri).or_else(|| {
                let start = String::from_utf8_lossy(&line[..line.len().min(200)]);
                tracing::debug!(source = self.config.name, %start, "a line is no event");
                self.status.lost(
                    |lost| &mut lost.unreadable,
                    "a line was skipped: no JSON object with a type that a topic can name",
                );
                None
            }),
        }
    }

    fn readable(&self, line: &Bytes, source_uri: &str) -> Option<NewEvent> {
        let event = GerritEvent::parse(line)?;
        let topic = topic::topic(&self.config.topic, &event)?;
        if let Some(created) = event.created {
            self.status.event(created);
        }
        if event.kind == "dropped-output" {
            self.status.lost(
                |lost| &mut lost.dropped_by_service,
                "gerrit dropped events: it said dropped-output because the stream was not read fast enough",
            );
        }
        Some(NewEvent {
            topic,
            payload: line.clone(),
            content_type: Some("application/json".to_owned()),
            attributes: topic::attributes(source_uri, &event),
            qos: 1,
            retain: false,
        })
    }

    /// Publishes in order and for as long as it takes. What the sink refuses for good is counted as lost, alone.
    async fn publish(&self, events: Vec<NewEvent>) {
        if events.is_empty() || self.stored(&events).await {
            return;
        }
        if events.len() == 1 {
            self.status.lost(|lost| &mut lost.refused, "the bus refused an event for good");
            return;
        }
        for event in events {
            if !self.stored(std::slice::from_ref(&event)).await {
                self.status.lost(|lost| &mut lost.refused, "the bus refused an event for good");
            }
        }
    }

    /// True when stored; false when refused for good.
    async fn stored(&self, events: &[NewEvent]) -> bool {
        let mut backoff = Backoff::new(self.config.publish_backoff);
        loop {
            let Err(refused) = self.sink.publish(events.to_vec()).await else {
                return true;
            };
            let topic = &events[0].topic;
            tracing::warn!(source = self.config.name, %refused, events = events.len(), topic, "not stored");
            if !refused.retry {
                return false;
            }
            sleep(backoff.next().max(Duration::from_millis(1))).await;
        }
    }
}
