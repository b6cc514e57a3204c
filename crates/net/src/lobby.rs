//! The lobby: accepts, applies the limits per address, reads CONNECT under one deadline, has the password checked, and
//! moves the connection, once, to its home shard. Storms end here, before a shard. One thread.

use crate::addresses::{Addresses, Place, TurnedAway};
use crate::client_id::ClientIds;
use crate::guests::{Guest, Guests};
use crate::listener::{Listener, Protocol};
use crate::passwords::{Checked, Passwords};
use crate::runner::Newcomer;
use crate::socket::Socket;
use firehose_auth::{Identity, Refused};
use firehose_broker::Bus;
use firehose_broker::arrival::{Arrival, Scope, home_shard};
use firehose_broker::handoff::Reader;
use firehose_broker::message::Message;
use firehose_broker::outbox::Wire;
use firehose_broker::sequencer::Sleepers;
use firehose_mqtt::{ConnAck, Connect, Packet, Properties, Reason, Version, decode_connect, encode};
use mio::{Events, Poll, Token, Waker};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVENTS_MAX: usize = 256;
/// Connections accepted in a row before those that wait get their turn.
const ACCEPTS_MAX: usize = 64;
/// The lobby looks at the deadlines this often.
const SWEEP: Duration = Duration::from_millis(250);
/// How long it accepts nothing after the system had no file descriptor left.
const BREATH: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 16 << 10;

const WAKER: Token = Token(usize::MAX);
/// Listeners' tokens begin here; below are connections.
const LISTENERS: usize = usize::MAX / 2;

/// An accepted HTTP connection, for the HTTP server.
pub struct HttpConnection {
    /// The socket, non-blocking.
    pub stream: HttpStream,
    /// Where it comes from; none for unix sockets.
    pub address: Option<IpAddr>,
    /// Its place among the connections: to be dropped when it is closed.
    pub place: Place,
}

/// The socket of an HTTP connection.
pub enum HttpStream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Takes HTTP connections over.
pub type HttpHandoff = Box<dyn Fn(HttpConnection) + Send>;

/// What wakes and stops the lobby from outside.
pub(crate) struct LobbyHandle {
    waker: Waker,
    stopping: AtomicBool,
    checked: Mutex<Vec<Checked>>,
}

impl LobbyHandle {
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }

    fn checked(&self, checked: Checked) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).push(checked);
        let _ = self.waker.wake();
    }
}

/// See the module.
pub(crate) struct Lobby {
    bus: Bus,
    poll: Poll,
    handle: Arc<LobbyHandle>,
    listeners: Vec<(Listener, Protocol)>,
    /// Listeners that may have more to accept.
    ready: Vec<usize>,
    resting_until: Option<Instant>,
    guests: Guests,
    addresses: Addresses,
    ids: ClientIds,
    passwords: Passwords,
    next_check: u64,
    http: Option<HttpHandoff>,
    sleepers: Sleepers,
}

impl Lobby {
    pub(crate) fn new(
        bus: &Bus,
        listeners: Vec<(Listener, Protocol)>,
        http: Option<HttpHandoff>,
    ) -> io::Result<(Lobby, Arc<LobbyHandle>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let handle =
            Arc::new(LobbyHandle { waker, stopping: AtomicBool::new(false), checked: Mutex::default() });
        let of_checks = handle.clone();
        let passwords =
            Passwords::start(bus.access(), bus.limits(), move |checked| of_checks.checked(checked))?;
        let mut lobby = Lobby {
            bus: bus.clone(),
            poll,
            handle: handle.clone(),
            ready: (0..listeners.len()).collect(),
            listeners,
            resting_until: None,
            guests: Guests::default(),
            addresses: Addresses::default(),
            ids: ClientIds::new(bus.secret().clone()),
            passwords,
            next_check: 0,
            http,
            sleepers: Sleepers::default(),
        };
        for (index, (listener, _)) in lobby.listeners.iter_mut().enumerate() {
            listener.register(lobby.poll.registry(), Token(LISTENERS + index))?;
        }
        Ok((lobby, handle))
    }

    /// The lobby's thread.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut swept = Instant::now();
        while !self.handle.stopping.load(Ordering::Acquire) {
            let timeout =
                if self.ready.is_empty() || self.resting_until.is_some() { SWEEP } else { Duration::ZERO };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the lobby's epoll failed");
                std::thread::sleep(BREATH);
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if token >= LISTENERS => self.ready.push(token - LISTENERS),
                    Token(guest) => self.read(guest),
                }
            }
            self.accept_all();
            self.hear_checks();
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep();
            }
            self.bus.rouse(std::mem::take(&mut self.sleepers));
        }
    }

    fn accept_all(&mut self) {
        if self.resting_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.resting_until = None;
        self.ready.sort_unstable();
        self.ready.dedup();
        for index in std::mem::take(&mut self.ready) {
            if self.accept(index) {
                self.ready.push(index);
            }
        }
    }

    /// Accepts for a while; true: there may be more.
    fn accept(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPTS_MAX {
            match self.listeners[index].0.accept() {
                Ok(socket) => self.admit(socket, self.listeners[index].1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The peer was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept; resting for a moment");
                    self.resting_until = Some(Instant::now() + BREATH);
                    return true;
                }
            }
        }
        true
    }

    fn admit(&mut self, socket: Socket, protocol: Protocol) {
        let address = socket.address();
        let place = match self.addresses.admit(address, self.bus.limits()) {
            Ok(place) => place,
            Err(why) => {
                let limit = match why {
                    TurnedAway::Denied => "limits.deny",
                    TurnedAway::Full => "limits.connections_max",
                    TurnedAway::AddressFull => "limits.connections_per_address_max",
                };
                tracing::debug!(?address, limit, "turned away");
                return;
            }
        };
        if protocol == Protocol::Http {
            return self.hand_to_http(socket, address, place);
        }
        let deadline = Instant::now() + Duration::from_secs(self.bus.limits().connect_timeout_secs);
        let token = self.guests.insert(Guest::new(socket, place, address, deadline));
        // Often its CONNECT is there already: then it never needs to be watched here.
        self.read(token);
        if let Some(guest) = self.guests.get_mut(token).filter(|guest| guest.checking.is_none())
            && guest.socket.register(self.poll.registry(), Token(token)).is_err()
        {
            self.guests.remove(token);
        }
    }

    fn hand_to_http(&mut self, socket: Socket, address: Option<IpAddr>, place: Place) {
        let Some(http) = &self.http else { return };
        let stream = match socket {
            Socket::Tcp(stream) => HttpStream::Tcp(stream.into()),
            Socket::Unix(stream) => HttpStream::Unix(stream.into()),
        };
        http(HttpConnection { stream, address, place });
    }

    fn read(&mut self, token: usize) {
        let bytes_max = self.bus.limits().packet_anonymous_bytes_max;
        let Some(mut guest) = self.guests.get_mut(token).filter(|guest| guest.checking.is_none()) else {
            return;
        };
        let mut buffer = [0; READ_BYTES];
        loop {
            let n = match guest.socket.read(&mut buffer) {
                Ok(0) => return self.dismiss(token),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.dismiss(token),
            };
            let address = guest.address;
            let mut input = self.guests.take_input(token);
            input.extend_from_slice(&buffer[..n]);
            match decode_connect(&input, bytes_max) {
                Ok(None) => self.keep(token, input),
                Ok(Some((connect, _))) => return self.check(token, &connect, input.clone()),
                Err(error) => {
                    tracing::debug!(?address, %error, "not a CONNECT");
                    return match error.answer {
                        Some(version) => self.refuse(token, version, error.reason()),
                        None => self.dismiss(token),
                    };
                }
            }
            match self.guests.get_mut(token) {
                Some(kept) => guest = kept,
                None => return,
            }
        }
    }

    /// Keeps what a guest has sent so far; closes those who have sent the most, if all of them have sent too much.
    fn keep(&mut self, token: usize, input: Vec<u8>) {
        self.guests.keep_input(token, input);
        let bytes_max = self.bus.limits().connecting_bytes_max;
        while let Some(largest) = self.guests.largest_above(bytes_max) {
            tracing::debug!("closed with most of a CONNECT: limits.connecting_bytes_max");
            self.dismiss(largest);
        }
    }

    /// CONNECT is whole: who is it?
    fn check(&mut self, token: usize, connect: &Connect<'_>, input: Vec<u8>) {
        self.keep(token, input);
        let Some(guest) = self.guests.get_mut(token) else { return };
        if connect.properties.auth_method().is_some() {
            return self.refuse(token, connect.version, Reason::BadAuthenticationMethod);
        }
        if connect.user_name.is_none() {
            let outcome = self.bus.access().current().authenticate(None, connect.password);
            return self.known(token, outcome);
        }
        self.next_check += 1;
        guest.checking = Some(self.next_check);
        // Not watched while its password is checked; the shard watches it anew.
        guest.socket.deregister(self.poll.registry());
        let address = guest.address;
        if !self.passwords.check(self.next_check, address, connect.user_name, connect.password) {
            self.refuse(token, connect.version, Reason::ServerBusy);
        }
    }

    fn hear_checks(&mut self) {
        let checked =
            std::mem::take(&mut *self.handle.checked.lock().unwrap_or_else(PoisonError::into_inner));
        for Checked { number, outcome } in checked {
            let found =
                self.guests.iter().find(|(_, guest)| guest.checking == Some(number)).map(|(token, _)| token);
            if let Some(token) = found {
                self.known(token, outcome);
            }
        }
    }

    /// It is known who it is, or that nobody knows.
    fn known(&mut self, token: usize, outcome: Result<Identity, Refused>) {
        let input = self.guests.take_input(token);
        let Ok(Some((connect, _))) = decode_connect(&input, usize::MAX) else { return self.dismiss(token) };
        let identity = match outcome {
            Ok(identity) => identity,
            Err(Refused::BadUserNameOrPassword) => {
                return self.refuse(token, connect.version, unknown_user(connect.version));
            }
            Err(Refused::NotAuthorized) => return self.refuse(token, connect.version, Reason::NotAuthorized),
        };
        let Ok((client_id, assigned)) = self.client_id(&connect, &identity) else {
            return self.dismiss(token);
        };
        let Some(mut guest) = self.guests.remove(token) else { return };
        guest.socket.deregister(self.poll.registry());
        let scope = Scope::of(&identity, guest.address, assigned);
        let shard = home_shard(scope.hash_with(self.bus.secret(), &client_id), self.bus.shards());
        let address = guest.address;
        let newcomer = Newcomer { socket: guest.socket, place: guest.place };
        let arrival =
            Arrival { input, identity, client_id, assigned, address, socket: Some(Box::new(newcomer)) };
        if self.bus.sequencer().send(shard, Message::Arrival(Box::new(arrival))) == Reader::Asleep {
            self.sleepers.insert(shard);
        }
    }

    /// The client's own id, or one that is drawn for the shard with the fewest clients.
    fn client_id(
        &self,
        connect: &Connect<'_>,
        identity: &Identity,
    ) -> Result<(Box<str>, bool), getrandom::Error> {
        if !connect.client_id.is_empty() {
            return Ok((connect.client_id.into(), self.ids.knows(connect.client_id)));
        }
        let shards = self.bus.shards();
        let quiet =
            (0..shards).min_by_key(|shard| self.bus.shard_stats(*shard).connections.get()).unwrap_or(0);
        let scope = Scope::of(identity, None, true);
        Ok((self.ids.draw(&scope, quiet, shards)?, true))
    }

    /// Answers with a CONNACK that says why, and closes.
    fn refuse(&mut self, token: usize, version: Version, reason: Reason) {
        let Some(mut guest) = self.guests.remove(token) else { return };
        guest.socket.deregister(self.poll.registry());
        tracing::debug!(address = ?guest.address, reason = reason.name(), "CONNECT refused");
        let mut out = Vec::new();
        let connack = ConnAck { session_present: false, reason, properties: Properties::EMPTY };
        if encode(&Packet::ConnAck(connack), version, &mut out).is_ok() {
            // A few bytes into an empty socket buffer: if they do not fit, the peer is not worth waiting for.
            let _ = guest.socket.write_vectored(&[IoSlice::new(&out)]);
        }
        guest.socket.finish();
    }

    fn dismiss(&mut self, token: usize) {
        if let Some(mut guest) = self.guests.remove(token) {
            guest.socket.deregister(self.poll.registry());
        }
    }

    /// Closes those who did not finish CONNECT in time.
    fn sweep(&mut self) {
        let now = Instant::now();
        let late = self.guests.iter().filter(|(_, guest)| guest.deadline <= now);
        let late: Vec<_> = late.map(|(token, guest)| (token, guest.address)).collect();
        for (token, address) in late {
            tracing::debug!(?address, "no CONNECT within limits.connect_timeout_secs");
            self.dismiss(token);
        }
    }
}

/// What is said to who is not known, or gives another password. 3.1.1 keeps code 4 for what is malformed (table 3.1).
fn unknown_user(version: Version) -> Reason {
    match version {
        Version::V311 => Reason::NotAuthorized,
        Version::V31 | Version::V5 => Reason::BadUserNameOrPassword,
    }
}
