//! A TCP connection to a broker that speaks packets, and waits for them.

use std::{
    error::Error,
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use firehose_mqtt::{DecodeError, Decoded, EncodeError, Packet, Version, decode, encode};

/// No packet of a session is longer.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// A connection. What comes is read when it is asked for.
pub struct Connection {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
    /// How many bytes of `received` were handed out.
    taken: usize,
}

/// Why no packet came.
#[derive(Debug)]
pub enum Broken {
    /// The broker closed the connection, in whichever way.
    Closed,
    /// Nothing came in time.
    Silent,
    /// It sent what is no packet.
    Malformed(DecodeError),
    /// This program tried to send what is no packet: a fault of its own.
    Unsendable(EncodeError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the broker closed the connection"),
            Self::Silent => f.write_str("the broker does not answer"),
            Self::Malformed(error) => write!(f, "the broker sent no valid packet: {error}"),
            Self::Unsendable(error) => write!(f, "this program made no valid packet, report it: {error}"),
        }
    }
}

impl Error for Broken {}

impl Connection {
    /// Connects to a broker of this machine.
    pub fn open(address: SocketAddr, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, version, received: Vec::new(), taken: 0 })
    }

    /// Sends packets in one piece.
    pub fn send(&mut self, packets: &[Packet<'_>]) -> Result<(), Broken> {
        let mut bytes = Vec::new();
        for packet in packets {
            encode(packet, self.version, &mut bytes).map_err(Broken::Unsendable)?;
        }
        self.stream.write_all(&bytes).map_err(|_| Broken::Closed)
    }

    /// Sends nothing any more, as if the client had died. What was sent arrives.
    pub fn end_sending(&mut self) {
        // A connection that is closed already has ended too.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits for the next packet. Gives how many bytes it has; [`Connection::packet`] is what it says.
    pub fn wait(&mut self, deadline: Instant) -> Result<usize, Broken> {
        loop {
            match decode(&self.received[self.taken..], self.version, PACKET_BYTES_MAX) {
                Ok(Decoded::Packet(_, bytes)) => return Ok(bytes),
                Ok(Decoded::Incomplete { .. }) => self.read(deadline)?,
                Err(error) => return Err(Broken::Malformed(error)),
            }
        }
    }

    /// The packet that was waited for, until [`Connection::take`].
    pub fn packet(&self) -> Option<Packet<'_>> {
        match decode(&self.received[self.taken..], self.version, PACKET_BYTES_MAX) {
            Ok(Decoded::Packet(packet, _)) => Some(packet),
            _ => None,
        }
    }

    /// Goes on to what comes after these bytes.
    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken == self.received.len() {
            self.received.clear();
            self.taken = 0;
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<(), Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Silent);
        }
        let mut chunk = [0; 16 * 1024];
        let limit = Some(left.max(Duration::from_millis(1)));
        let read = self.stream.set_read_timeout(limit).and_then(|()| self.stream.read(&mut chunk));
        match read {
            Ok(0) => Err(Broken::Closed),
            Ok(bytes) => {
                self.received.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Broken::Silent)
            }
            Err(_) => Err(Broken::Closed),
        }
    }
}
