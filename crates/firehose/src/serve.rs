//! The bus as a whole: what the configuration becomes, started and stopped in order.

use std::fs::DirBuilder;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use firehose_auth::{Access, AnonymousMode, AuthConfig};
use firehose_broker::action::Now;
use firehose_broker::bus::wall_us;
use firehose_broker::state::State;
use firehose_broker::{Bus, BusConfig, Durability, Role};
use firehose_http::{Connection, Door, HttpConfig, Service};
use firehose_log::{Log, LogConfig, RealDisk};
use firehose_net::{HttpConnection, HttpHandoff, HttpStream, ListenerConfig, Listeners, Server};
use firehose_source::{GerritConfig, GerritSource, Source};

use crate::admin_socket;
use crate::config::address::{Address, AdminAddress};
use crate::config::{self, Config};
use crate::diagnosis::Found;
use crate::exit::Failure;
use crate::operator::BusOperator;
use crate::redaction_note::RedactionNote;
use crate::sources::Sources;

/// How long clients get to hear that the bus stops.
const CLIENTS_GRACE: Duration = Duration::from_secs(2);
/// How long sources get to hand on what they have read.
const SOURCES_GRACE: Duration = Duration::from_secs(8);
/// How long HTTP answers get to end.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// A running bus.
pub struct Running {
    bus: Bus,
    server: Server,
    http: Arc<Service>,
    sources: Sources,
    addresses: Vec<(String, String)>,
    data: PathBuf,
}

impl Running {
    /// Listens, opens the log, and serves: in this order, so that a bus that cannot listen touches nothing.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        let access = Access::new(auth_config(config)).map_err(Failure::usage)?;
        let sources = sources(config)?;
        warn_of_open_doors(config);
        let listeners = Listeners::bind(&listener_configs(config)?).map_err(Failure::runtime)?;
        let admin = bind_admin(config)?;
        let mut addresses: Vec<_> =
            listeners.addresses().iter().map(|(p, at)| (p.to_string(), at.to_string())).collect();
        let log = open_log(config)?;
        let bus_config = bus_config(config);
        let mut found = Found::of(&log.recovery);
        let (state, notes) = open_state(config, &bus_config, &log)?;
        found.add(notes);
        let bus = Bus::start(bus_config, log, state, access.clone());
        let mut http = HttpConfig::new(bus.read().clone(), access);
        http.head_timeout = Duration::from_secs(config.limits.connect_timeout_secs.secs);
        let http = Arc::new(Service::start(http)?);
        let under_way = http.under_way().clone();
        bus.set_take_back(Box::new(move |offset| under_way.take_back(offset)));
        let server = Server::start(&bus, listeners, Some(handoff(&http)))?;
        if let Some(listener) = admin {
            addresses.push(("admin".into(), http.listen(listener, Door::Admin)?.to_string()));
        }
        let data = config.data_dir();
        listen_to_operator(config, &data, &bus, &http, found);
        let sources = Sources::start(sources, &bus)?;
        Ok(Running { bus, server, http, sources, addresses, data })
    }

    /// What is spoken where.
    pub fn addresses(&self) -> &[(String, String)] {
        &self.addresses
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Puts these access rules in force; gives what changed. With a mistake in a file the old rules stay.
    pub fn reload_access(&self, config: &Config) -> Result<Vec<String>, firehose_auth::LoadError> {
        let changed = self.bus.access().reload_with(auth_config(config))?;
        self.bus.tell_all(|| firehose_broker::message::Message::Reload);
        Ok(changed)
    }

    /// Stops accepting, lets sources and clients end, commits.
    pub fn stop(self) {
        self.sources.stop(SOURCES_GRACE);
        admin_socket::remove(&self.data);
        self.server.stop(CLIENTS_GRACE);
        // the lobby held the other handle, and is gone
        if let Ok(http) = Arc::try_unwrap(self.http) {
            http.shutdown(HTTP_GRACE);
        }
        self.bus.stop();
    }
}

/// `[auth]`
pub fn auth_config(config: &Config) -> AuthConfig {
    AuthConfig {
        password_file: config.auth.password_file.clone(),
        acl_file: config.auth.acl_file.clone(),
        anonymous: match config.auth.anonymous {
            config::Anonymous::Read => AnonymousMode::Read,
            config::Anonymous::None => AnonymousMode::None,
            config::Anonymous::Full => AnonymousMode::Full,
        },
    }
}

/// `[[source]]`
pub fn sources(config: &Config) -> Result<Vec<Box<dyn Source>>, Failure> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for source in &config.source {
        let mut gerrit = GerritConfig::new(&source.name, source.url.0.clone());
        gerrit.identity_file.clone_from(&source.identity_file);
        gerrit.known_hosts_file.clone_from(&source.known_hosts_file);
        if let Some(topic) = &source.topic {
            gerrit.topic.clone_from(topic);
        }
        let gerrit = GerritSource::new(gerrit);
        sources.push(Box::new(
            gerrit.map_err(|error| Failure::usage(format!("source {}: {error}", source.name)))?,
        ));
    }
    Ok(sources)
}

/// `[server]`, `[log]` and `[limits]`
pub fn bus_config(config: &Config) -> BusConfig {
    BusConfig {
        shards: config.server.shards,
        durability: match config.log.durability {
            config::Durability::Sync => Durability::Sync,
            config::Durability::Os => Durability::Os,
        },
        role: Role::Depositor,
        unlogged: config.log.unlogged.iter().map(|filter| filter.0.clone()).collect(),
        limits: config.limits.to_broker(),
    }
}

fn listener_configs(config: &Config) -> Result<Vec<ListenerConfig>, Failure> {
    let listeners = config.listeners();
    let configs = listeners.iter().map(|listener| {
        let protocol = match listener.protocol {
            config::Protocol::Mqtt => firehose_net::Protocol::Mqtt,
            config::Protocol::Http => firehose_net::Protocol::Http,
        };
        let address = listener.address.to_string().parse().map_err(Failure::usage)?;
        Ok(ListenerConfig { name: listener.name.clone(), protocol, address })
    });
    configs.collect()
}

fn bind_admin(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let AdminAddress::At(Address::Tcp { host, port }) = &config.admin.address else { return Ok(None) };
    let bound = TcpListener::bind((host.as_str(), *port));
    bound.map(Some).map_err(|error| {
        Failure::runtime(format!("the admin listener cannot listen on {}: {error}", config.admin.address))
    })
}

/// Opens the log, and logs what was found.
pub fn open_log(config: &Config) -> Result<Log, Failure> {
    let folder = config.data_dir();
    let made = DirBuilder::new().recursive(true).mode(0o750).create(&folder);
    made.map_err(|error| {
        Failure::runtime(format!("data folder {} cannot be made: {error}", folder.display()))
    })?;
    let log = firehose_log::open(log_config(config, folder), Arc::new(RealDisk::new()), wall_us());
    let log = log.map_err(Failure::runtime)?;
    let recovery = &log.recovery;
    tracing::info!(
        head = recovery.head,
        epoch = recovery.epoch,
        cut_bytes = recovery.cut_bytes,
        duration_us = recovery.duration_us,
        "the log is open"
    );
    for (first, last) in &recovery.gaps {
        tracing::error!(first, last, "events of the log are damaged: they are declared as a gap");
    }
    for note in &recovery.notes {
        tracing::warn!("{note}");
    }
    Ok(log)
}

/// The state's file stands beside the log's folder. Gives what was found amiss with it, a line each.
pub fn open_state(config: &Config, bus: &BusConfig, log: &Log) -> Result<(State, Vec<String>), Failure> {
    let path = config.data_dir().join("state.redb");
    let limits = Arc::new(bus.limits.clone());
    let now = Now { ms: 0, wall_us: wall_us() };
    let (state, report) = State::open(Arc::new(RealDisk::new()), &path, log.read.clone(), limits, now)
        .map_err(Failure::runtime)?;
    tracing::info!(
        sessions = report.sessions,
        wills = report.wills,
        applied = report.applied,
        "the state is open"
    );
    for note in &report.notes {
        tracing::error!("{note}");
    }
    Ok((state, report.notes.iter().map(ToString::to_string).collect()))
}

fn log_config(config: &Config, folder: PathBuf) -> LogConfig {
    let mut log = LogConfig::new(folder.join("log"));
    log.retention_age_secs = Some(config.log.retention_age.secs).filter(|secs| *secs > 0);
    log.retention_bytes = Some(config.log.retention_bytes.0).filter(|bytes| *bytes > 0);
    log.disk_reserve_bytes = config.log.disk_reserve_bytes.0;
    log.disk_check_secs = config.log.disk_check_secs.secs;
    log
}

/// By the socket in the data folder. A bus that cannot make it serves all the same.
fn listen_to_operator(config: &Config, data: &Path, bus: &Bus, http: &Service, found: Found) {
    let reserve_bytes = config.log.disk_reserve_bytes.0;
    let operator = Arc::new(BusOperator::new(bus.clone(), data.to_owned(), reserve_bytes, found));
    finish_redactions(data, &operator);
    let listening = admin_socket::bind(data).and_then(|listener| http.listen_to_operator(listener, operator));
    if let Err(error) = listening {
        let socket = admin_socket::path(data);
        tracing::error!(%error, socket = %socket.display(), "redact and doctor cannot reach this bus");
    }
}

/// What was cut off before everyone was told; nobody has to wait for it.
fn finish_redactions(data: &Path, operator: &Arc<BusOperator>) {
    if RedactionNote::offsets(data).is_ok_and(|offsets| offsets.is_empty()) {
        return;
    }
    let operator = Arc::clone(operator);
    let named = std::thread::Builder::new().name("redactions".into());
    if let Err(error) = named.spawn(move || operator.finish_redactions()) {
        tracing::error!(%error, "a redaction that was cut off is not finished");
    }
}

/// Hands the lobby's HTTP connections to the HTTP service.
fn handoff(http: &Arc<Service>) -> HttpHandoff {
    let http = http.clone();
    Box::new(move |connection: HttpConnection| {
        let stream = match connection.stream {
            HttpStream::Tcp(stream) => Connection::Tcp(stream),
            HttpStream::Unix(stream) => Connection::Unix(stream),
        };
        http.serve(stream, connection.address, Vec::new(), Door::Public, connection.place);
    })
}

/// A bus that anyone may write to is for tests and private networks.
fn warn_of_open_doors(config: &Config) {
    let open = config.listeners().into_iter().find(|listener| !listener.address.is_local());
    if let (config::Anonymous::Full, Some(listener)) = (config.auth.anonymous, open) {
        tracing::warn!(listener = listener.name, address = %listener.address, "anonymous = \"full\": anyone may publish");
    }
}
