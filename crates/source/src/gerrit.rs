//! Gerrit's events, from `ssh … gerrit stream-events`.
//!
//! The way of an event: ssh's output is read by a task that does nothing else (`link`), cut into lines (`lines`),
//! queued within a budget of bytes (`queue`), and published in order (`publisher`) on the topic that germqtt gave it
//! (`topic`). The queue outlives a link: a slow sink does not keep us from connecting again.

mod command;
mod complaint;
mod event;
mod lines;
mod link;
mod publisher;
mod queue;
mod recording;
mod topic;
mod url;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use firehose_topic::TopicName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::link::{Lost, follow, stopped};
use self::publisher::Publisher;
use self::queue::{QueueSender, queue};
pub use self::recording::recorded_event;
pub use self::url::{DEFAULT_PORT, GerritUrl, UrlError};
use crate::backoff::{Backoff, BackoffConfig};
use crate::sink::{Sink, Source};
use crate::status::{State, StatusHandle};

/// Which Gerrit, as whom, and how patiently. [`GerritConfig::new`] gives the defaults named here.
#[derive(Clone, Debug)]
pub struct GerritConfig {
    /// The source's name: its status is on `firehose/status/<name>`.
    pub name: String,
    /// Where Gerrit is, and the account.
    pub url: GerritUrl,
    /// The account's private key; none: what ssh finds by itself.
    pub identity_file: Option<PathBuf>,
    /// The host keys that are accepted; none: the known_hosts files of the user who runs the bus.
    pub known_hosts_file: Option<PathBuf>,
    /// The first level of the topics; `gerrit`.
    pub topic: String,
    /// The CloudEvents `source`; none: `https://<host>/`.
    pub source_uri: Option<String>,
    /// The ssh client; `ssh`, sought in the PATH.
    pub ssh_program: PathBuf,
    /// Pauses between attempts to connect: 0.5 s, each 1.5 times the one before, up to 60 s.
    pub backoff: BackoffConfig,
    /// How long a link must have been live for the pauses to begin anew; 30 s.
    pub stable_after: Duration,
    /// How long logging in may take; 60 s.
    pub connect_timeout: Duration,
    /// How long after the login Gerrit may take to begin or refuse the stream; 1 s.
    pub settle: Duration,
    /// Without an event for so long, connect anew; none (the default): a quiet night is not an error.
    pub silence_max: Option<Duration>,
    /// How often ssh asks a silent server whether it lives, in seconds; 15.
    pub server_alive_interval_secs: u32,
    /// After how many questions without an answer the link is dead; 3.
    pub server_alive_count_max: u32,
    /// How long ssh may take to end after it is asked to; 2 s.
    pub stop_grace: Duration,
    /// How long, when the source is stopped, storing what was read may take; 5 s.
    pub drain_timeout: Duration,
    /// A longer line is skipped and counted; 16 MiB.
    pub line_bytes_max: usize,
    /// What may be read and not yet stored; 32 MiB. When it is full, reading waits.
    pub queue_bytes_max: usize,
    /// How many events go to the sink at once; 256.
    pub batch_events_max: usize,
    /// About how many bytes go to the sink at once; 1 MiB.
    pub batch_bytes_max: usize,
    /// Pauses between attempts to store the same events: 0.1 s, doubled up to 5 s.
    pub publish_backoff: BackoffConfig,
    /// How often at most the status is published because of losses; 10 s.
    pub losses_interval: Duration,
}

impl GerritConfig {
    /// The defaults for a source of this name.
    pub fn new(name: &str, url: GerritUrl) -> Self {
        Self {
            name: name.to_owned(),
            url,
            identity_file: None,
            known_hosts_file: None,
            topic: "gerrit".to_owned(),
            source_uri: None,
            ssh_program: "ssh".into(),
            backoff: BackoffConfig::default(),
            stable_after: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(60),
            settle: Duration::from_secs(1),
            silence_max: None,
            server_alive_interval_secs: 15,
            server_alive_count_max: 3,
            stop_grace: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
            line_bytes_max: 16 << 20,
            queue_bytes_max: 32 << 20,
            batch_events_max: 256,
            batch_bytes_max: 1 << 20,
            publish_backoff: BackoffConfig {
                first: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(5),
                jitter: 0.25,
            },
            losses_interval: Duration::from_secs(10),
        }
    }
}

/// Which key of a source's config is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The events of one Gerrit.
#[derive(Debug)]
pub struct GerritSource {
    config: Arc<GerritConfig>,
    status: StatusHandle,
}

impl GerritSource {
    /// Checks the config; connects to nothing yet.
    pub fn new(config: GerritConfig) -> Result<Self, ConfigError> {
        if config.name.contains('/') || TopicName::new(&config.name).is_err() {
            return Err(ConfigError(format!("name = {:?}: it must be one level of a topic", config.name)));
        }
        if TopicName::new(&config.topic).is_err() || config.topic.starts_with('$') {
            return Err(ConfigError(format!("topic = {:?}: events cannot be published there", config.topic)));
        }
        if config.source_uri.as_deref().is_some_and(|uri| uri.is_empty() || uri.contains('\0')) {
            return Err(ConfigError("source_uri: it must be a URI, or absent".to_owned()));
        }
        for (key, file) in
            [("identity_file", &config.identity_file), ("known_hosts_file", &config.known_hosts_file)]
        {
            if let Some(file) = file {
                command::check_path(file, key)?;
            }
        }
        Ok(Self { config: Arc::new(config), status: StatusHandle::new() })
    }

    /// The status, for who wants it without subscribing to it.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }
}

impl Source for GerritSource {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn run(
        self: Box<Self>,
        sink: Arc<dyn Sink>,
        shutdown: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(run(*self, sink, shutdown))
    }
}

async fn run(source: GerritSource, sink: Arc<dyn Sink>, mut shutdown: watch::Receiver<bool>) {
    let GerritSource { config, status } = source;
    let (sender, receiver) = queue(config.queue_bytes_max);
    let mut publisher = JoinSet::new();
    publisher.spawn(
        Publisher { config: Arc::clone(&config), sink, status: status.clone(), queue: receiver }.run(),
    );
    let herald = Herald { config: &config, status: &status, queue: &sender };
    sender.status(status.publication(&config.name));
    connect_for_ever(&config, &herald, &mut shutdown).await;
    drop(sender);
    if timeout(config.drain_timeout, publisher.join_next()).await.is_err() {
        tracing::warn!(source = config.name, "stopped before all that was read was stored");
    }
}

async fn connect_for_ever(config: &GerritConfig, herald: &Herald<'_>, shutdown: &mut watch::Receiver<bool>) {
    let mut backoff = Backoff::new(config.backoff);
    loop {
        let Lost { why, live_for } =
            follow(config, herald.queue, shutdown, || herald.say(State::Live, None)).await;
        let Some(why) = why else { return };
        if live_for.is_some_and(|live_for| live_for >= config.stable_after) {
            backoff.reset();
        }
        // Who was live and has lost the link tries again at once; failed is who tried in vain.
        herald.say(if live_for.is_some() { State::Connecting } else { State::Failed }, Some(why));
        tokio::select! {
            () = stopped(shutdown) => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Says how the source stands: in the log, and on its status topic.
struct Herald<'a> {
    config: &'a GerritConfig,
    status: &'a StatusHandle,
    queue: &'a QueueSender,
}

impl Herald<'_> {
    fn say(&self, state: State, why: Option<String>) {
        if !self.status.set(state, why.clone()) {
            return;
        }
        let (source, url) = (&self.config.name, &self.config.url);
        match why {
            None => tracing::info!(source, %url, ?state, "gerrit source"),
            Some(why) => tracing::warn!(source, %url, ?state, why, "gerrit source"),
        }
        self.queue.status(self.status.publication(&self.config.name));
    }
}
