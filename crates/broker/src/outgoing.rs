//! What a shard deposits at the end of a turn's input, in the order in which its clients sent it.

use crate::sequencer::Deposit;
use firehose_log::{Draft, Event, Origin, TooLarge};

/// A draft is closed beyond this many bytes.
const DRAFT_BYTES: usize = 1 << 20;

/// What [`crate::shard::Shard::take_outgoing`] gives.
pub struct Outgoing {
    /// Set the shard's interest to this before depositing.
    pub interest: Option<bool>,
    /// The deposits, in order.
    pub deposits: Vec<Deposit>,
}

/// A deposit on its way, and the connections that wait for it.
#[derive(Debug)]
pub struct Sent {
    /// Names it.
    pub ticket: u64,
    /// Whether any acknowledgement waits for it.
    pub wants_sync: bool,
    /// Who published in it: (session, generation, bytes).
    pub publishers: Vec<(u32, u32, usize)>,
    /// How many events it has.
    pub events: u32,
}

/// Deposits and who waits for them.
pub(crate) struct Sealed {
    pub(crate) outgoing: Outgoing,
    pub(crate) waiting: Vec<Sent>,
}

/// Collects a turn's deposits.
#[derive(Default)]
pub struct OutgoingBuilder {
    interest: Option<bool>,
    deposits: Vec<Deposit>,
    waiting: Vec<Sent>,
    open: Draft,
    /// What the last draft came to: room that the next one begins with.
    open_bytes: usize,
    open_sent: Option<Sent>,
    open_unlogged: Draft,
    next_ticket: u64,
}

impl OutgoingBuilder {
    /// Adds an event for the log; gives the ticket of its deposit, and the bytes it takes there.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        origin: &Origin<'_>,
        publisher: (u32, u32),
        wants_sync: bool,
    ) -> Result<(u64, usize), TooLarge> {
        self.close_unlogged();
        if self.open.bytes_len() >= DRAFT_BYTES {
            self.close_open();
        }
        if self.open.is_empty() {
            self.open = Draft::with_capacity(self.open_bytes);
        }
        let before = self.open.bytes_len();
        self.open.push(event, origin)?;
        let bytes = self.open.bytes_len() - before;
        let next_ticket = &mut self.next_ticket;
        let sent = self.open_sent.get_or_insert_with(|| {
            *next_ticket += 1;
            Sent { ticket: *next_ticket, wants_sync: false, publishers: Vec::new(), events: 0 }
        });
        sent.wants_sync |= wants_sync;
        sent.events += 1;
        match sent.publishers.last_mut() {
            Some((session, generation, sum)) if (*session, *generation) == publisher => *sum += bytes,
            _ => sent.publishers.push((publisher.0, publisher.1, bytes)),
        }
        Ok((sent.ticket, bytes))
    }

    /// Adds a publication that is delivered but not stored.
    pub(crate) fn unlogged(&mut self, event: &Event<'_>, origin: &Origin<'_>) -> Result<(), TooLarge> {
        self.close_open();
        self.open_unlogged.push(event, origin)
    }

    /// Asks for a place in the order, behind everything so far.
    pub(crate) fn mark(&mut self, token: u64) {
        self.close_open();
        self.close_unlogged();
        self.deposits.push(Deposit::Mark { token });
    }

    /// Says whether any client of the shard subscribes.
    pub(crate) fn interest(&mut self, interest: bool) {
        self.interest = Some(interest);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deposits.is_empty()
            && self.open.is_empty()
            && self.open_unlogged.is_empty()
            && self.interest.is_none()
    }

    pub(crate) fn take(&mut self) -> Option<Sealed> {
        self.close_open();
        self.close_unlogged();
        if self.deposits.is_empty() && self.interest.is_none() {
            return None;
        }
        let outgoing =
            Outgoing { interest: self.interest.take(), deposits: std::mem::take(&mut self.deposits) };
        Some(Sealed { outgoing, waiting: std::mem::take(&mut self.waiting) })
    }

    fn close_open(&mut self) {
        if let Some(sent) = self.open_sent.take() {
            let mut draft = std::mem::take(&mut self.open);
            draft.fit();
            self.open_bytes = draft.bytes_len();
            self.deposits.push(Deposit::Batch { ticket: sent.ticket, draft, wants_sync: sent.wants_sync });
            self.waiting.push(sent);
        }
    }

    fn close_unlogged(&mut self) {
        if !self.open_unlogged.is_empty() {
            self.deposits.push(Deposit::Unlogged(std::mem::take(&mut self.open_unlogged)));
        }
    }
}
