//! Connections whose CONNECT is not done, and what they have sent so far: of all together no more than
//! `connecting_bytes_max`. Who has sent the most, and still no whole CONNECT, goes first; an honest one is small.

use crate::addresses::Place;
use crate::socket::Socket;
use slab::Slab;
use std::net::IpAddr;
use std::time::Instant;

/// A connection whose CONNECT is not done.
pub(crate) struct Guest {
    pub(crate) socket: Socket,
    pub(crate) place: Place,
    pub(crate) address: Option<IpAddr>,
    pub(crate) deadline: Instant,
    /// Its password is being checked, under this number.
    pub(crate) checking: Option<u64>,
    input: Vec<u8>,
}

impl Guest {
    /// One that has sent nothing.
    pub(crate) fn new(socket: Socket, place: Place, address: Option<IpAddr>, deadline: Instant) -> Guest {
        Guest { socket, place, address, deadline, checking: None, input: Vec::new() }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Guests {
    slab: Slab<Guest>,
    input_bytes: usize,
}

impl Guests {
    /// Gives one its token.
    pub(crate) fn insert(&mut self, guest: Guest) -> usize {
        self.slab.insert(guest)
    }

    /// One by its token.
    pub(crate) fn get_mut(&mut self, token: usize) -> Option<&mut Guest> {
        self.slab.get_mut(token)
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, token: usize) -> Option<Guest> {
        let guest = self.slab.try_remove(token)?;
        self.input_bytes -= guest.input.capacity();
        Some(guest)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Guest)> {
        self.slab.iter()
    }

    /// What one has sent: to be given back with [`Guests::keep_input`], unless it is done.
    pub(crate) fn take_input(&mut self, token: usize) -> Vec<u8> {
        let Some(guest) = self.slab.get_mut(token) else { return Vec::new() };
        let input = std::mem::take(&mut guest.input);
        self.input_bytes -= input.capacity();
        input
    }

    /// Keeps what one has sent so far.
    pub(crate) fn keep_input(&mut self, token: usize, input: Vec<u8>) {
        if let Some(guest) = self.slab.get_mut(token) {
            self.input_bytes = self.input_bytes - guest.input.capacity() + input.capacity();
            guest.input = input;
        }
    }

    /// The one that has sent the most, if all together have sent more than this.
    pub(crate) fn largest_above(&self, bytes_max: usize) -> Option<usize> {
        if self.input_bytes <= bytes_max {
            return None;
        }
        self.slab.iter().max_by_key(|(_, guest)| guest.input.capacity()).map(|(token, _)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::Addresses;
    use firehose_broker::Limits;

    fn guest() -> Guest {
        let (socket, _) = mio::net::UnixStream::pair().unwrap();
        let place = Addresses::default().admit(None, &Limits::default()).unwrap();
        Guest::new(Socket::Unix(socket), place, None, Instant::now())
    }

    #[test]
    fn who_sent_the_most_goes_first_and_only_while_all_is_too_much() {
        let mut guests = Guests::default();
        let tokens: Vec<usize> = (0..3).map(|_| guests.insert(guest())).collect();
        for (token, len) in tokens.iter().zip([100, 300, 200]) {
            guests.keep_input(*token, Vec::with_capacity(len));
        }
        assert_eq!(guests.largest_above(600), None);
        assert_eq!(guests.largest_above(599), Some(tokens[1]));
        guests.remove(tokens[1]);
        assert_eq!(guests.largest_above(300), None);
        let input = guests.take_input(tokens[2]);
        assert_eq!(guests.largest_above(100), None);
        guests.keep_input(tokens[2], input);
        assert_eq!(guests.largest_above(100), Some(tokens[2]));
        guests.keep_input(tokens[2], Vec::new());
        guests.remove(tokens[0]);
        assert_eq!(guests.largest_above(0), None);
    }
}
