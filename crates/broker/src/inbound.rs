//! What a client's connection brings: packets out of bytes, and what each one does.

use crate::connection::{Connection, Pause};
use crate::hold::Saving;
use crate::inflight::Acknowledged;
use crate::shard::{Action, Appetite, Shard};
use firehose_mqtt::{
    Ack, AckKind, Decoded, Disconnect, PINGRESP, Packet, Reason, Version, decode, encode, encode_ack,
};

/// What a packet leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next packet.
    On,
    /// Nothing more until the session is resumed; what follows stays in the input.
    Pause,
    /// The connection is closing: what follows is not looked at.
    Stop,
}

/// Replies that a client does not read; beyond it the connection is closed.
pub(crate) const CONTROL_BYTES_MAX: usize = 1 << 20;

impl Shard {
    /// Bytes from the session's socket.
    pub fn receive(&mut self, session: u32, bytes: &[u8]) -> Appetite {
        let now_secs = self.now.secs();
        let Some(it) = self.sessions.get_mut(session as usize) else { return Appetite::Gone };
        it.heard_secs = now_secs;
        let Some(connection) = it.connection.as_deref_mut() else { return Appetite::Gone };
        self.stats.received_bytes.add(bytes.len() as u64);
        let mut input = std::mem::take(&mut connection.input);
        if connection.pauses.any() {
            input.extend_from_slice(bytes);
            return self.keep(session, input);
        }
        let behind = if input.is_empty() { bytes } else { self.complete(session, &mut input, bytes) };
        if behind.is_empty() {
            return self.keep(session, input);
        }
        let consumed = self.process(session, behind);
        self.keep(session, behind.get(consumed..).unwrap_or(&[]).to_vec())
    }

    /// Adds to the beginning of a packet what it lacks, and looks at it once it is whole. Gives what lies behind it: that
    /// is looked at where it is, and the beginning takes no more memory than its packet.
    fn complete<'a>(&mut self, session: u32, input: &mut Vec<u8>, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(lacks) = self.lacks(session, input) {
            let (more, behind) = bytes.split_at(lacks.min(bytes.len()));
            input.extend_from_slice(more);
            bytes = behind;
            let consumed = self.process(session, input);
            input.drain(..consumed);
            if input.is_empty() {
                *input = Vec::new();
                return bytes;
            }
            if more.is_empty() && consumed == 0 {
                break;
            }
        }
        input.extend_from_slice(bytes);
        &[]
    }

    /// How many bytes more it takes until it is worth looking at the input again; none: it is not looked at for now.
    fn lacks(&mut self, session: u32, input: &[u8]) -> Option<usize> {
        let connection = self.connection(session)?;
        if connection.closing || connection.pauses.any() {
            return None;
        }
        match decode(input, connection.version, connection.sends_bytes_max as usize) {
            Ok(Decoded::Incomplete { need }) => Some(need.saturating_sub(input.len())),
            Ok(Decoded::Packet(..)) | Err(_) => Some(0),
        }
    }

    /// A pause of the session is over: looks at what it had sent before.
    pub fn resume(&mut self, session: u32) -> Appetite {
        let now_secs = self.now.secs();
        let Some(it) = self.sessions.get_mut(session as usize) else { return Appetite::Gone };
        // What it sent while it was not read counts as heard.
        it.heard_secs = now_secs;
        let Some(connection) = it.connection.as_deref_mut() else { return Appetite::Gone };
        let input = std::mem::take(&mut connection.input);
        self.go_on(session, input)
    }

    fn go_on(&mut self, session: u32, mut input: Vec<u8>) -> Appetite {
        let consumed = self.process(session, &input);
        input.drain(..consumed);
        if input.len() < input.capacity() / 2 {
            input.shrink_to_fit();
        }
        self.keep(session, input)
    }

    /// Keeps what is left of the input for the next time.
    fn keep(&mut self, session: u32, rest: Vec<u8>) -> Appetite {
        match self.connection(session) {
            Some(connection) if !connection.closing => connection.input = rest,
            _ => return Appetite::Gone,
        }
        self.count_kept(session);
        match self.connection(session) {
            Some(connection) if connection.closing => Appetite::Gone,
            Some(connection) if connection.pauses.any() => Appetite::Paused,
            Some(_) => Appetite::More,
            None => Appetite::Gone,
        }
    }

    /// Looks at the packets in `input`, unless the connection is not read for now; gives how many bytes it took.
    fn process(&mut self, session: u32, input: &[u8]) -> usize {
        let Some(connection) = self.connection(session) else { return 0 };
        if connection.closing || connection.pauses.any() {
            return 0;
        }
        let (version, bytes_max) = (connection.version, connection.sends_bytes_max as usize);
        let mut at = 0;
        while at < input.len() {
            match decode(&input[at..], version, bytes_max) {
                Ok(Decoded::Packet(packet, len)) => {
                    at += len;
                    match self.packet(session, &packet) {
                        Flow::On => {}
                        Flow::Pause | Flow::Stop => break,
                    }
                }
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => {
                    self.stats.protocol_errors.add(1);
                    self.disconnect(session, error.reason(), &error.to_string());
                    break;
                }
            }
        }
        at
    }

    fn packet(&mut self, session: u32, packet: &Packet<'_>) -> Flow {
        match packet {
            Packet::Publish(publish) => self.publish(session, publish),
            Packet::PubAck(ack) => self.acknowledged(session, AckKind::PubAck, ack),
            Packet::PubRec(ack) => self.acknowledged(session, AckKind::PubRec, ack),
            Packet::PubComp(ack) => self.acknowledged(session, AckKind::PubComp, ack),
            Packet::PubRel(ack) => self.released(session, ack),
            Packet::Subscribe(subscribe) => self.subscribe(session, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(session, unsubscribe),
            Packet::PingReq => self.reply(session, |connection| {
                connection.outbox.control().extend_from_slice(&PINGRESP);
            }),
            Packet::Disconnect(disconnect) => self.left(session, disconnect),
            Packet::Auth(_) => {
                self.violate(session, Reason::ProtocolError, "AUTH without enhanced authentication")
            }
            Packet::Connect(_) => {
                self.violate(session, Reason::ProtocolError, "a second CONNECT [MQTT-3.1.0-2]")
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.violate(session, Reason::ProtocolError, "a packet that only a server sends")
            }
        }
    }

    /// The client broke the protocol.
    pub(crate) fn violate(&mut self, session: u32, reason: Reason, why: &str) -> Flow {
        self.stats.protocol_errors.add(1);
        self.disconnect(session, reason, why);
        Flow::Stop
    }

    /// Writes a reply.
    pub(crate) fn reply(&mut self, session: u32, write: impl FnOnce(&mut Connection)) -> Flow {
        match self.connection(session) {
            Some(connection) if !connection.closing => write(connection),
            // Nothing may follow a DISCONNECT [MQTT-3.14.4-1].
            _ => return Flow::Stop,
        }
        self.dirty(session);
        self.limit_replies(session)
    }

    /// Closes a connection whose client sends and sends, and does not read what it is answered.
    pub(crate) fn limit_replies(&mut self, session: u32) -> Flow {
        let held = self.held_reply_bytes(session);
        match self.connection(session) {
            Some(connection) if connection.outbox.control_bytes() + held <= CONTROL_BYTES_MAX => Flow::On,
            Some(_) => {
                self.hang_up(session, "does not read its replies");
                Flow::Stop
            }
            None => Flow::Stop,
        }
    }

    /// PUBACK, PUBREC or PUBCOMP for a message that was sent to the client.
    fn acknowledged(&mut self, session: u32, kind: AckKind, ack: &Ack<'_>) -> Flow {
        let Some(it) = self.sessions.get_mut(session as usize) else { return Flow::Stop };
        let id = ack.packet_id.get();
        let shared = it.shared_place(id);
        let number = it.inflight.as_deref().filter(|_| it.has_told()).map(|window| window.number(id));
        let outcome = match (it.inflight.as_deref_mut(), kind) {
            (None, _) => Acknowledged::Unknown,
            (Some(window), AckKind::PubAck) => window.puback(id),
            (Some(window), AckKind::PubRec) => window.pubrec(id, ack.reason.is_error()),
            (Some(window), _) => window.pubcomp(id),
        };
        if outcome == Acknowledged::Mismatch {
            let why =
                "an acknowledgement that is not the one its message waits for [MQTT-4.3.2-2, MQTT-4.3.3-4]";
            return self.violate(session, Reason::ProtocolError, why);
        }
        let resending = it.is_resending();
        if let Some(persistence) = it.persistence.as_deref_mut() {
            persistence.progress_changed |= outcome != Acknowledged::Unknown && persistence.expiry_secs > 0;
        }
        if let Some(number) = number.filter(|_| outcome != Acknowledged::Unknown) {
            it.has_read(number);
        }
        if outcome == Acknowledged::Through && it.shares.is_some() {
            self.window_opened(session, shared);
        }
        let Some(it) = self.sessions.get_mut(session as usize) else { return Flow::Stop };
        let Some(connection) = it.connection.as_deref_mut() else { return Flow::Stop };
        let version = connection.version;
        match (outcome, kind) {
            (Acknowledged::Through, _) => {
                connection.window_shut = false;
                if connection.outbox.has_messages() || it.is_behind() || resending || it.scans.is_some() {
                    self.dirty(session);
                }
                Flow::On
            }
            // That it was received is saved first: it is never sent again as a PUBLISH.
            (Acknowledged::Release, _) => self.reply_when_saved(session, Saving::Progress, |out, version| {
                encode_ack(out, AckKind::PubRel, id, Reason::Success, version);
            }),
            // MQTT 5 has a reason for it; 3.1.1 goes on with PUBREL all the same [MQTT-4.3.3-1].
            (Acknowledged::Unknown, AckKind::PubRec) if !ack.reason.is_error() => {
                let reason =
                    if version == Version::V5 { Reason::PacketIdentifierNotFound } else { Reason::Success };
                self.reply(session, |connection| {
                    encode_ack(connection.outbox.control(), AckKind::PubRel, id, reason, version);
                })
            }
            (Acknowledged::Unknown | Acknowledged::Mismatch, _) => Flow::On,
        }
    }

    /// PUBREL: the publisher of a QoS 2 message forgets it, and so do we. A session that outlives its connection is told
    /// so once that is saved: from then on the id may stand for another message.
    fn released(&mut self, session: u32, ack: &Ack<'_>) -> Flow {
        let id = ack.packet_id.get();
        let Some(connection) = self.connection(session) else { return Flow::Stop };
        let publisher = connection.publisher.as_deref_mut();
        let known = publisher.is_some_and(|publisher| publisher.received.remove(&id));
        let saving = if known { Saving::Forget(id) } else { Saving::Earlier };
        self.reply_when_saved(session, saving, |out, version| {
            let reason = match version {
                Version::V5 if !known => Reason::PacketIdentifierNotFound,
                _ => Reason::Success,
            };
            encode_ack(out, AckKind::PubComp, id, reason, version);
        })
    }

    /// DISCONNECT: the client leaves; its will goes with it if all was well, and is published otherwise [MQTT-3.14.4-3].
    fn left(&mut self, session: u32, disconnect: &Disconnect<'_>) -> Flow {
        if !self.hear_farewell(session, disconnect) {
            let why = "a session expiry that CONNECT did not have";
            return self.violate(session, Reason::ProtocolError, why);
        }
        self.end(session);
        Flow::Stop
    }

    /// Tells the client why, where its version can, and closes the connection once that is out.
    pub(crate) fn disconnect(&mut self, session: u32, reason: Reason, why: &str) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(connection) = it.connection.as_deref_mut() else { return };
        if connection.closing {
            return;
        }
        tracing::debug!(client = %it.client_id, address = ?connection.address, reason = reason.name(), why, "closing");
        let has_left = self.leave_session(session);
        let Some(connection) = self.connection(session) else { return };
        connection.closing = true;
        connection.input = Vec::new();
        connection.outbox.keep_only_control();
        let parked_bytes = std::mem::take(&mut connection.parked_bytes);
        if connection.version == Version::V5 && !has_left {
            let packet =
                Packet::Disconnect(Disconnect { reason, properties: firehose_mqtt::Properties::EMPTY });
            let _ = encode(&packet, Version::V5, connection.outbox.control());
        }
        self.parked_bytes -= parked_bytes;
        self.dirty(session);
    }

    /// Resumes those who were paused for their rate.
    pub(crate) fn resume_paused(&mut self) {
        let paused: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, it)| {
                it.connection.as_deref().is_some_and(|connection| connection.pauses.has(Pause::Rate))
            })
            .map(|(session, _)| session as u32)
            .collect();
        for session in paused {
            if let Some(connection) = self.connection(session) {
                connection.pauses.set(Pause::Rate, false);
            }
            self.actions.push(Action::Resume { session });
        }
    }
}
