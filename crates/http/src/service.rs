//! The thread that HTTP runs on.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use firehose_auth::Access;
use firehose_log::Read;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::connection::Connection;
use crate::operator::{self, Operator};
use crate::router::{self, State};
use crate::shares::Peer;
use crate::under_way::{Cut, UnderWay};

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The threads that read the log and check passwords.
const BLOCKING_THREADS_MAX: usize = 8;

/// What the service works with, and its bounds.
#[derive(Clone)]
pub struct HttpConfig {
    /// The log.
    pub read: Arc<dyn Read>,
    /// Who may read what.
    pub access: Access,
    /// How long the head of a request may take; also how long a connection may be idle.
    pub head_timeout: Duration,
    /// How many connections there may be; one more is closed at once.
    pub connections_max: usize,
    /// How many pages are read from the log at a time.
    pub pages_max: usize,
}

impl HttpConfig {
    /// Deadline 10 s, 2,000 connections, 4 pages at a time.
    pub fn new(read: Arc<dyn Read>, access: Access) -> Self {
        let head_timeout = Duration::from_secs(10);
        HttpConfig { read, access, head_timeout, connections_max: 2_000, pages_max: 4 }
    }
}

/// Which interface a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The world's.
    Public,
    /// The operator's: health (and later metrics).
    Admin,
}

/// The running HTTP interface. Any thread may hand it connections.
pub struct Service {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    under_way: UnderWay,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    public: Router,
    admin: Router,
    head_timeout: Duration,
    connections: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    /// Each connection holds a clone; the thread ends when all are gone.
    alive: mpsc::Sender<()>,
}

impl Service {
    /// Starts the thread.
    pub fn start(config: HttpConfig) -> io::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = watch::channel(false);
        let (alive, all_gone) = mpsc::channel(1);
        let under_way = UnderWay::default();
        let state = State::new(&config, under_way.clone());
        let shared = Arc::new(Shared {
            public: router::public(state.clone()),
            admin: router::admin(state),
            head_timeout: config.head_timeout,
            connections: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
            stopping: stopping.clone(),
            alive,
        });
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(run_until(stopping, all_gone));
            // a page that is being read is not waited for: nobody will get it
            runtime.shutdown_background();
        })?;
        Ok(Service { shared, runtime: handle, stop, under_way, thread: Some(thread) })
    }

    /// The answers that are under way: whoever takes an event back does so there too.
    pub fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Serves one accepted connection from `address` (none: a unix socket); `read_before` are the bytes that were taken from
    /// it already. `held` is dropped when the connection ends.
    pub fn serve(
        &self,
        connection: impl Into<Connection>,
        address: Option<IpAddr>,
        read_before: Vec<u8>,
        door: Door,
        held: impl Send + 'static,
    ) {
        let (shared, connection) = (self.shared.clone(), connection.into());
        self.runtime.spawn(async move {
            serve(shared, connection, Peer(address), read_before, door).await;
            drop(held);
        });
    }

    /// Accepts connections there until the service ends; gives the address, with the port if the system chose it.
    pub fn listen(&self, listener: TcpListener, door: Door) -> io::Result<SocketAddr> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _inside = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.runtime.spawn(accept(self.shared.clone(), listener, door));
        Ok(address)
    }

    /// Serves the operator by this socket until the service ends; who may connect is the operator.
    ///
    /// # Errors
    /// As the system says.
    pub fn listen_to_operator(&self, listener: UnixListener, operator: Arc<dyn Operator>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let _inside = self.runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (stopping, alive) = (self.shared.stopping.clone(), self.shared.alive.clone());
        self.runtime.spawn(operator::accept(listener, operator, stopping, alive));
        Ok(())
    }

    /// Takes no more requests, lets those that are being answered end, at most for `grace`, and ends the thread.
    pub fn shutdown(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        let deadline = std::time::Instant::now() + grace;
        let Some(thread) = self.thread.take() else { return };
        // the thread waits for the last clone of `alive`, and ours is one
        drop(self);
        while !thread.is_finished() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

async fn run_until(mut stopping: watch::Receiver<bool>, mut all_gone: mpsc::Receiver<()>) {
    until(&mut stopping).await;
    all_gone.recv().await;
}

/// Waits until the service is to stop, or is gone.
pub(crate) async fn until(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener, door: Door) {
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until(&mut stopping) => return,
        };
        match accepted.and_then(|(stream, from)| Ok((stream.into_std()?, Peer(Some(from.ip()))))) {
            Ok((stream, peer)) => {
                drop(tokio::spawn(serve(shared.clone(), stream.into(), peer, Vec::new(), door)))
            }
            Err(error) => {
                // out of file descriptors, or a peer that is gone again: never a reason to stop accepting
                tracing::debug!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: Connection, peer: Peer, read_before: Vec<u8>, door: Door) {
    let Ok(_place) = shared.connections.clone().try_acquire_owned() else {
        tracing::debug!("an HTTP connection was closed: there are too many");
        return;
    };
    let _alive = shared.alive.clone();
    let stream = match connection.into_async(read_before) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "an HTTP connection could not be served"),
    };
    let router = match door {
        Door::Public => shared.public.clone(),
        Door::Admin => shared.admin.clone(),
    };
    let router = TowerToHyperService::new(router);
    let mut stopping = shared.stopping.clone();
    let cut = Cut::default();
    let of_requests = cut.clone();
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |mut request| {
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(of_requests.clone());
                router.call(request)
            }),
        );
    drop(shared);
    let serving = async move {
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = until(&mut stopping) => None,
        };
        match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = cut.ended() => return tracing::debug!("an HTTP connection was ended: what it was being sent was taken back"),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
