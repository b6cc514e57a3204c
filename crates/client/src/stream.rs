//! A connection to the server: TCP, or TLS over it, with deadlines for everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::{ClientError, Interrupt, Url};

/// A peer that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected stream.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Connects to the first of the host's addresses that answers; with `tls`, shakes hands.
    pub(crate) fn connect(
        url: &Url,
        tls: Option<&Arc<ClientConfig>>,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<Self, ClientError> {
        let socket = tcp(url, timeout)?;
        let lost = |error: io::Error| ClientError::Connection(format!("cannot connect to {url}: {error}"));
        // an answer waits for nothing: no reason to collect small packets
        socket.set_nodelay(true).map_err(lost)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(lost)?;
        socket.set_read_timeout(Some(timeout)).map_err(lost)?;
        interrupt.watch(&socket);
        let Some(config) = tls else { return Ok(Stream::Plain(socket)) };
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| ClientError::Usage(format!("{:?} cannot be the name in a certificate", url.host)))?;
        let connection = ClientConnection::new(config.clone(), name)
            .map_err(|error| ClientError::Usage(format!("TLS cannot be set up: {error}")))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .map_err(|error| ClientError::Connection(format!("no TLS connection to {url}: {error}")))?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Reads what is there, waiting at most so long; none: nothing came. Zero bytes: the peer is gone.
    pub(crate) fn read(&mut self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        // a timeout of zero would mean none at all
        let timeout = timeout.max(Duration::from_millis(1));
        let read = match self {
            Stream::Plain(socket) => {
                socket.set_read_timeout(Some(timeout))?;
                socket.read(buffer)
            }
            Stream::Tls(stream) => {
                stream.sock.set_read_timeout(Some(timeout))?;
                stream.read(buffer)
            }
        };
        match read {
            Ok(count) => Ok(Some(count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            // a peer that closes TCP without closing TLS first is gone as well
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Writes all of it.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}

fn tcp(url: &Url, timeout: Duration) -> Result<TcpStream, ClientError> {
    let addresses = (url.host.as_str(), url.port).to_socket_addrs();
    let addresses =
        addresses.map_err(|error| ClientError::Connection(format!("cannot find {}: {error}", url.host)))?;
    let mut last = format!("cannot connect to {url}: the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = format!("cannot connect to {url} ({address}): {error}"),
        }
    }
    Err(ClientError::Connection(last))
}
