//! The thread that sources run on.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firehose_broker::Bus;
use firehose_source::Source;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bus_sink::BusSink;

/// Running sources.
pub struct Sources {
    shutdown: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Sources {
    /// Runs them all on one thread.
    pub fn start(sources: Vec<Box<dyn Source>>, bus: &Bus) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (shutdown, stopping) = watch::channel(false);
        let bus = bus.clone();
        let thread = std::thread::Builder::new().name("sources".into()).spawn(move || {
            runtime.block_on(async move {
                let mut running = JoinSet::new();
                for source in sources {
                    let sink = Arc::new(BusSink::new(bus.clone(), source.name()));
                    running.spawn(source.run(sink, stopping.clone()));
                }
                while running.join_next().await.is_some() {}
            });
        })?;
        Ok(Sources { shutdown, thread })
    }

    /// Tells them to hand on what they have read and to end, and waits so long for it.
    pub fn stop(self, grace: Duration) {
        let _ = self.shutdown.send(true);
        let deadline = Instant::now() + grace;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
