//! Acknowledgements: a queue for each connection, let go as the deposits of the shard become durable, in order.

use crate::connection::{AckKind, Pause, PendingAck};
use crate::outgoing::Sent;
use crate::shard::{Action, Shard, mark_dirty};
use firehose_log::{Offset, Refusal};
use firehose_mqtt::{AckKind as Packet, Reason, Version, encode_ack};
use std::collections::VecDeque;

/// The shard's deposits that are not acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Deposits {
    sent: VecDeque<(Sent, Option<Result<Offset, Refusal>>)>,
}

impl Deposits {
    pub(crate) fn sent(&mut self, sent: Vec<Sent>) {
        self.sent.extend(sent.into_iter().map(|sent| (sent, None)));
    }

    /// Whether a deposit that is not acknowledged yet took its place.
    pub(crate) fn has_place(&self, ticket: u64) -> bool {
        let found = self.sent.binary_search_by_key(&ticket, |(sent, _)| sent.ticket);
        found.is_ok_and(|index| matches!(self.sent[index].1, Some(Ok(_))))
    }

    /// The oldest deposit, once it is placed and durable (or refused).
    fn next_through(
        &mut self,
        durable: impl Fn(&Sent, Offset) -> bool,
    ) -> Option<(Sent, Result<Offset, Refusal>)> {
        match self.sent.front() {
            Some((sent, Some(Ok(offset)))) if durable(sent, *offset) => {}
            Some((_, Some(Err(_)))) => {}
            _ => return None,
        }
        let (sent, outcome) = self.sent.pop_front()?;
        Some((sent, outcome?))
    }
}

impl Shard {
    /// One of the shard's deposits took its place, or was refused.
    pub(crate) fn placed(&mut self, ticket: u64, outcome: Result<Offset, Refusal>) {
        let Ok(index) = self.deposits.sent.binary_search_by_key(&ticket, |(sent, _)| sent.ticket) else {
            return;
        };
        let (sent, place) = &mut self.deposits.sent[index];
        let outcome = match outcome {
            // It was on its way while the log failed.
            Ok(offset) if self.commit_has_failed && sent.wants_sync && offset > self.durable => {
                Err(never_durable())
            }
            outcome => outcome,
        };
        if outcome.is_err() {
            self.stats.messages_refused_disk.add(sent.events.into());
        }
        *place = Some(outcome);
        let mut counted = Vec::new();
        for (session, generation, bytes) in &sent.publishers {
            let Some(it) = self.sessions.get_mut(*session as usize) else { continue };
            if it.generation == *generation
                && let Some(connection) = it.connection.as_deref_mut()
                && let Some(publisher) = connection.publisher.as_deref_mut()
            {
                publisher.unplaced_bytes = publisher.unplaced_bytes.saturating_sub(*bytes);
                if connection.pauses.has(Pause::Unplaced)
                    && publisher.unplaced_bytes <= self.shared.limits.unplaced_bytes_max / 2
                {
                    connection.pauses.set(Pause::Unplaced, false);
                    self.actions.push(Action::Resume { session: *session });
                }
                if connection.keeping.is_some() || connection.pauses.has(Pause::Budget) {
                    counted.push(*session);
                }
            }
        }
        counted.into_iter().for_each(|session| self.count_placed(session));
        self.release();
    }

    /// Nothing that waits for the disk will be durable: it is refused, so that its publishers hear of it. It may have
    /// been delivered, and may be there after a restart; who publishes it again does no harm.
    pub(crate) fn commit_failed(&mut self) {
        self.commit_has_failed = true;
        for (sent, place) in &mut self.deposits.sent {
            if let Some(Ok(offset)) = place
                && sent.wants_sync
                && *offset > self.durable
            {
                *place = Some(Err(never_durable()));
                self.stats.messages_refused_disk.add(sent.events.into());
            }
        }
        self.release();
    }

    /// Lets go what is durable.
    pub(crate) fn release(&mut self) {
        let (durable, waits) = (self.durable, self.shared.acks_wait_for_sync);
        while let Some((sent, outcome)) =
            self.deposits.next_through(|sent, offset| !waits || !sent.wants_sync || offset <= durable)
        {
            for (session, generation, _) in &sent.publishers {
                if self.sessions.get(*session as usize).is_some_and(|it| it.generation == *generation) {
                    self.acknowledge(*session, sent.ticket, outcome.as_ref().err());
                }
            }
        }
    }

    /// Queues an acknowledgement behind those before it; lets it go at once if there are none.
    pub(crate) fn owe(&mut self, session: u32, ack: PendingAck) {
        let Some(connection) = self.connection(session) else { return };
        let publisher = connection.publisher.get_or_insert_default();
        publisher.pubacks += usize::from(ack.kind == AckKind::PubAck);
        publisher.acks.push_back(ack);
    }

    /// Queues an acknowledgement that waits for no deposit of its own (a refusal, a repetition, what is not stored): it
    /// leaves behind those of earlier publishes.
    pub(crate) fn owe_decided(&mut self, session: u32, packet_id: u16, kind: AckKind, reason: Reason) {
        let Some(connection) = self.connection(session) else { return };
        let publisher = connection.publisher.get_or_insert_default();
        match publisher.acks.back() {
            Some(last) => {
                let ticket = last.ticket;
                publisher.pubacks += usize::from(kind == AckKind::PubAck);
                publisher.acks.push_back(PendingAck { ticket, packet_id, kind, reason, decided: true });
            }
            None => {
                self.reply(session, |connection| {
                    let version = connection.version;
                    write_ack(connection.outbox.control(), version, packet_id, kind, reason);
                });
            }
        }
    }

    /// Sends the acknowledgements of everything up to a deposit.
    fn acknowledge(&mut self, session: u32, ticket: u64, refusal: Option<&Refusal>) {
        // What could not be made durable may stand in the log all the same, and its packet id with it: a client that was
        // told no would use that again, for a message that would be taken for this one.
        let is_kept = self.sessions.get(session as usize).is_some_and(|it| it.is_persistent());
        let is_unknown = self.commit_has_failed && refusal.is_some() && is_kept;
        let mut close = None;
        let Some(connection) =
            self.sessions.get_mut(session as usize).and_then(|it| it.connection.as_deref_mut())
        else {
            return;
        };
        if connection.closing {
            // It was refused something, in 3.x without a word: of what came with that, nothing may look stored.
            return;
        }
        let Some(publisher) = connection.publisher.as_deref_mut() else { return };
        while let Some(ack) = publisher.acks.front().filter(|ack| ack.ticket <= ticket).copied() {
            publisher.acks.pop_front();
            publisher.pubacks -= usize::from(ack.kind == AckKind::PubAck);
            let mut reason = ack.reason;
            if refusal.is_some() && ack.ticket == ticket && !ack.decided {
                reason = Reason::QuotaExceeded;
            }
            if is_unknown && ack.kind == AckKind::PubRec && !ack.decided {
                close = Some(reason);
                break;
            }
            if reason.is_error() {
                publisher.received.remove(&ack.packet_id);
                if connection.version != Version::V5 {
                    close = Some(reason);
                    break;
                }
            }
            write_ack(connection.outbox.control(), connection.version, ack.packet_id, ack.kind, reason);
        }
        publisher.give_room_back();
        mark_dirty(&mut self.dirty, session, &mut connection.dirty);
        if let Some(reason) = close {
            self.disconnect(session, reason, "a publish could not be stored or is not allowed");
        } else {
            self.limit_replies(session);
        }
    }
}

fn never_durable() -> Refusal {
    Refusal::ReadOnly("it could not be made durable".into())
}

fn write_ack(out: &mut Vec<u8>, version: Version, packet_id: u16, kind: AckKind, reason: Reason) {
    let packet = match kind {
        AckKind::PubAck => Packet::PubAck,
        AckKind::PubRec => Packet::PubRec,
    };
    encode_ack(out, packet, packet_id, reason, version);
}
