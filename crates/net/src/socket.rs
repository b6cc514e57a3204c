//! A client's socket: TCP, or a unix socket.

use firehose_broker::outbox::Wire;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;

/// See the module.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket: whoever may open it counts as local.
    Unix(UnixStream),
}

impl Socket {
    /// The peer's address; none for unix sockets.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Unix(_) => None,
        }
    }

    /// Watches the socket for both directions, by edges: it is registered once for its whole life.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Stops watching it.
    pub fn deregister(&mut self, registry: &Registry) {
        // It fails only for a socket that is not registered, which is what is wanted.
        let _ = self.source().deregister(registry);
    }

    /// Reads what is there.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Unix(stream) => stream.read(into),
        }
    }

    /// Tells the peer that nothing more comes, and reads what it still sent, so that closing resets nothing that it
    /// has not seen. Gives the socket if the peer has not closed it, and so may send more.
    pub fn finish(mut self) -> Option<Self> {
        let _ = match &self {
            Socket::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
        let mut rest = [0; 4096];
        for _ in 0..16 {
            match self.read(&mut rest) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(self),
                _ => return None,
            }
        }
        Some(self)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Socket::Tcp(stream) => stream,
            Socket::Unix(stream) => stream,
        }
    }
}

impl Wire for Socket {
    #[inline]
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, pieces) {
            (Socket::Tcp(stream), [piece]) => stream.write(piece),
            (Socket::Tcp(stream), pieces) => stream.write_vectored(pieces),
            (Socket::Unix(stream), pieces) => stream.write_vectored(pieces),
        }
    }
}

/// A socket while its connection is flushed. Where it fails, it seems to take no more for now: what came by it can still be
/// read before the connection ends.
pub(crate) struct Writing<'a> {
    socket: &'a mut Socket,
    failure: Option<io::Error>,
}

impl Writing<'_> {
    /// Nothing was written yet.
    pub(crate) fn new(socket: &mut Socket) -> Writing<'_> {
        Writing { socket, failure: None }
    }

    /// How it failed, if it did.
    pub(crate) fn failure(self) -> Option<io::Error> {
        self.failure
    }
}

impl Wire for Writing<'_> {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        self.socket.write_vectored(pieces).map_err(|error| match error.kind() {
            Interrupted | WouldBlock => error,
            _ => {
                self.failure = Some(error);
                WouldBlock.into()
            }
        })
    }
}
