//! Where sources publish: into the bus of this process.

use firehose_broker::{Bus, PortEvent};
use firehose_source::{NewEvent, Refused, Sink, Stored};
use tokio::sync::oneshot;

/// Publishes a source's events for a principal.
pub struct BusSink {
    bus: Bus,
    principal: String,
}

impl BusSink {
    /// The principal is the source's name.
    pub fn new(bus: Bus, principal: &str) -> Self {
        BusSink { bus, principal: principal.to_owned() }
    }
}

impl Sink for BusSink {
    fn publish(&self, events: Vec<NewEvent>) -> Stored<'_> {
        let events: Vec<PortEvent> = events.into_iter().map(port_event).collect();
        let (done, stored) = oneshot::channel();
        let submitted = self.bus.publish(&self.principal, &events, move |outcome| {
            // nobody waits any more: the source was stopped
            let _ = done.send(outcome);
        });
        Box::pin(async move {
            if let Err(index) = submitted {
                let topic = events.get(index).map_or("", |event| event.topic.as_str());
                let why = format!(
                    "the bus cannot store an event of topic {topic:?}: it is too large, or no topic name"
                );
                return Err(Refused { why, retry: false });
            }
            match stored.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(refusal)) => Err(Refused { why: refusal.to_string(), retry: true }),
                Err(_) => Err(Refused { why: "the bus is stopping".into(), retry: true }),
            }
        })
    }
}

fn port_event(event: NewEvent) -> PortEvent {
    PortEvent {
        topic: event.topic,
        payload: event.payload.to_vec(),
        content_type: event.content_type,
        attributes: event.attributes,
        qos: event.qos,
        retain: event.retain,
    }
}
