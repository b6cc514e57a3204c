//! The network side as a whole: start, where it listens, stop.

use crate::crew::Crew;
use crate::listener::{BindError, Bound, Listener, ListenerConfig, Protocol};
use crate::lobby::{HttpHandoff, Lobby, LobbyHandle};
use crate::readers::Readers;
use firehose_broker::Bus;
use firehose_broker::message::Message;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Open listeners that nobody serves yet: so that a bus that cannot listen does not even open its log.
pub struct Listeners(Vec<(Listener, ListenerConfig)>);

impl Listeners {
    /// Opens all of them.
    ///
    /// # Errors
    /// [`BindError`] names the first that cannot be opened.
    pub fn bind(configs: &[ListenerConfig]) -> Result<Listeners, BindError> {
        let bind = |config: &ListenerConfig| {
            Listener::bind(&config.address).map(|listener| (listener, config.clone())).map_err(|error| {
                BindError { name: config.name.clone(), address: config.address.to_string(), error }
            })
        };
        configs.iter().map(bind).collect::<Result<_, _>>().map(Listeners)
    }

    /// Protocol and address of each, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(Protocol, Bound)> {
        let bound =
            |(listener, config): &(Listener, ListenerConfig)| Some((config.protocol, listener.bound().ok()?));
        self.0.iter().filter_map(bound).collect()
    }
}

/// The running network side.
pub struct Server {
    bus: Bus,
    crew: Crew,
    lobby: Arc<LobbyHandle>,
    lobby_thread: Option<JoinHandle<()>>,
    shard_threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve. `http` takes the connections of HTTP listeners over.
    ///
    /// # Errors
    /// When the system has no epoll instance, thread or random numbers to give.
    pub fn start(bus: &Bus, listeners: Listeners, http: Option<HttpHandoff>) -> io::Result<Server> {
        raise_open_files();
        let readers = Readers::start(bus)?;
        let (crew, shard_threads) = Crew::start(bus, &readers)?;
        let listeners =
            listeners.0.into_iter().map(|(listener, config)| (listener, config.protocol)).collect();
        let (lobby, handle) = Lobby::new(bus, listeners, http)?;
        let thread = std::thread::Builder::new().name("lobby".into()).spawn(move || lobby.run())?;
        Ok(Server { bus: bus.clone(), crew, lobby: handle, lobby_thread: Some(thread), shard_threads })
    }

    /// Stops to accept, tells every client (MQTT 5: DISCONNECT 0x8B), waits for that to be out for `grace`, and ends the
    /// threads. The bus is to be stopped after it.
    pub fn stop(mut self, grace: Duration) {
        self.lobby.stop();
        if let Some(thread) = self.lobby_thread.take() {
            let _ = thread.join();
        }
        self.bus.tell_all(|| Message::Shutdown);
        let began = Instant::now();
        while !self.crew.is_empty() && began.elapsed() < grace {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.crew.stop();
        for thread in self.shard_threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Raises the soft limit of open files to the hard one; logs what it is if that does not work.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, open_files = ?limit.current, "cannot raise the limit of open files");
    }
}
