//! Sockets of connections that the bus closed, while their peers may still send. The shard's turns close them.

use crate::addresses::Place;
use crate::socket::Socket;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a peer has to read why it was closed.
const LINGER: Duration = Duration::from_secs(1);
/// The most that wait in one shard; above, the one that has waited longest is closed.
const SOCKETS_MAX: usize = 256;

/// See the module. To close a socket whose peer still sends would reset it, and who fails to send, or is reset, mostly
/// never reads the DISCONNECT that says why. So our side is shut, what comes is left unread, and the rest follows later.
#[derive(Default)]
pub(crate) struct Lingering(VecDeque<Waiting>);

struct Waiting {
    until: Instant,
    _socket: Socket,
    /// It counts as a connection as long as it waits.
    _place: Place,
}

impl Lingering {
    /// Takes a socket of which our side is shut.
    pub(crate) fn add(&mut self, socket: Socket, place: Place, now: Instant) {
        if self.0.len() == SOCKETS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Waiting { until: now + LINGER, _socket: socket, _place: place });
    }

    /// Closes those whose time is over; gives how long the next one has. `None`: there are none.
    pub(crate) fn close_due(&mut self, now: Instant) -> Option<Duration> {
        while let Some(first) = self.0.front() {
            if first.until > now {
                return Some(first.until - now);
            }
            self.0.pop_front();
        }
        None
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::Addresses;
    use firehose_broker::Limits;
    use mio::net::UnixStream;
    use std::io::{ErrorKind, Write as _};

    fn place() -> Place {
        Addresses::default().admit(None, &Limits::default()).expect("a place")
    }

    #[test]
    fn a_peer_may_send_until_the_time_is_over() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let socket = Socket::Unix(ours).finish().expect("the peer has not closed");
        lingering.add(socket, place(), start);
        assert_eq!(lingering.close_due(start), Some(LINGER));
        assert_eq!(theirs.write(b"late").expect("nobody reset it"), 4);
        assert_eq!(lingering.close_due(start + LINGER), None);
        assert_eq!(theirs.write(b"late").map_err(|error| error.kind()), Err(ErrorKind::BrokenPipe));
    }

    #[test]
    fn who_has_closed_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(Socket::Unix(ours).finish().is_none());
    }

    #[test]
    fn their_number_is_bounded() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        let peers: Vec<_> = (0..=SOCKETS_MAX)
            .map(|_| {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                lingering.add(Socket::Unix(ours), place(), start);
                theirs
            })
            .collect();
        let is_open = |mut peer: &UnixStream| peer.write(b"x").is_ok();
        assert!(!is_open(&peers[0]), "the first one made room");
        assert!(peers[1..].iter().all(is_open));
    }
}
