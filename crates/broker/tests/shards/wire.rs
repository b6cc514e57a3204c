//! A client's wire in memory: it takes so many bytes, then it blocks.

use crate::client::Got;
use firehose_broker::outbox::Wire;
use firehose_mqtt::Version;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// A client's wire, and what it has got.
pub struct Client {
    pub version: Version,
    pub host: usize,
    pub session: Option<u32>,
    /// Sent by the client and not yet read by the shard.
    pub to_read: Vec<u8>,
    pub paused: bool,
    /// Bytes that its wire takes before it blocks.
    pub room: usize,
    pub received: Vec<u8>,
    pub packets: Vec<Got>,
    pub closed: bool,
    /// Acknowledges what it gets.
    pub acknowledges: bool,
    /// Acknowledgements are kept back in `acks`.
    pub holds_acks: bool,
    pub acks: VecDeque<Vec<u8>>,
}

impl Client {
    /// A wire that takes everything, and on which nothing has come.
    pub fn new(version: Version, host: usize) -> Client {
        Client {
            version,
            host,
            session: None,
            to_read: Vec::new(),
            paused: false,
            room: usize::MAX,
            received: Vec::new(),
            packets: Vec::new(),
            closed: false,
            acknowledges: false,
            holds_acks: false,
            acks: VecDeque::new(),
        }
    }

    /// Whether the shard does not read it.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
}

impl Wire for Client {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for piece in pieces {
            let take = piece.len().min(self.room);
            self.received.extend_from_slice(&piece[..take]);
            if self.room != usize::MAX {
                self.room -= take;
            }
            written += take;
            if take < piece.len() {
                break;
            }
        }
        Ok(written)
    }
}
