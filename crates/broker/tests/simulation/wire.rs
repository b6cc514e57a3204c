//! A connection between a client and the bus: bytes on their way in both directions, and a socket that may be full.

use firehose_broker::outbox::Wire;
use std::io::{self, IoSlice};

/// See the module.
#[derive(Debug)]
pub struct Connection {
    /// The shard at the other end.
    pub host: usize,
    /// The session, once the shard has taken it.
    pub session: Option<u32>,
    pub to_bus: Vec<u8>,
    /// The shard does not read.
    pub paused: bool,
    /// Written by the bus, not yet read by the client.
    pub to_client: Vec<u8>,
    /// Bytes that the bus has written.
    pub written: u64,
    /// Bytes that the socket takes before it blocks.
    pub room: usize,
    /// The bus has closed its end: what was written before is still to be read.
    pub closed_by_bus: bool,
    /// The client has gone.
    pub left: bool,
}

impl Connection {
    pub fn new(host: usize, room: usize) -> Connection {
        Connection {
            host,
            session: None,
            to_bus: Vec::new(),
            paused: false,
            to_client: Vec::new(),
            written: 0,
            room,
            closed_by_bus: false,
            left: false,
        }
    }
}

impl Wire for Connection {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.left {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for piece in pieces {
            let take = piece.len().min(self.room - written);
            self.to_client.extend_from_slice(&piece[..take]);
            written += take;
            if take < piece.len() {
                break;
            }
        }
        self.room -= written;
        self.written += written as u64;
        Ok(written)
    }
}
