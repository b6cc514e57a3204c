//! One connection: CONNECT, then packets both ways, keep-alive, acknowledgements.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use firehose_mqtt::{
    AckKind, Decoded, Disconnect, PINGREQ, Packet, PacketId, Properties, PropertiesBuf, Property, Publish,
    QoS, Reason, Subscribe, SubscribeItemsBuf, SubscribeOptions, Version, decode, encode, encode_ack,
};

use super::MqttConfig;
use super::handshake::{Welcome, open};
use super::input::Input;
use super::message::{CURSOR, Message};
use crate::stream::Stream;
use crate::{ClientError, Interrupt, Scheme, Url, tls};

/// From so many unsent bytes on they are sent without being asked.
const UNSENT_BYTES: usize = 64 << 10;

/// So many messages may come before the answer to SUBSCRIBE.
const EARLY_MESSAGES: usize = 100_000;

/// What came from the server.
#[derive(Debug)]
pub enum Received {
    /// A message. It is acknowledged by the next call of [`Connection::receive`].
    Message(Box<Message>),
    /// An answer to SUBSCRIBE.
    Subscribed {
        /// For each filter.
        reasons: Vec<Reason>,
        /// The server's words.
        why: Option<String>,
        /// The newest event's cursor, if the server gives cursors.
        head: Option<String>,
    },
    /// PUBACK, or PUBREC that refuses, or PUBCOMP: the publication of this id is done.
    Done {
        /// The packet id.
        packet_id: u16,
        /// How it ended.
        reason: Reason,
        /// The server's words.
        why: Option<String>,
    },
    /// PINGRESP.
    Pong,
    /// Nothing until the deadline.
    Nothing,
}

/// A connection whose CONNECT was accepted.
pub struct Connection {
    url: Url,
    stream: Stream,
    version: Version,
    welcome: Welcome,
    interrupt: Interrupt,
    timeout: Duration,
    packet_bytes_max: usize,
    input: Input,
    unsent: Vec<u8>,
    /// Came before the answer to SUBSCRIBE, which MQTT allows (5.0 section 3.8.4); neither handed out nor acknowledged.
    early: VecDeque<Message>,
    /// Sent with the next call of `receive`.
    unacknowledged: Option<(AckKind, u16)>,
    /// QoS 2 messages that were handed out and not released yet.
    pub(crate) unreleased: HashSet<u16>,
    last_sent: Instant,
    last_received: Instant,
    next_packet_id: u16,
}

impl Connection {
    /// Connects, and waits for the server's yes. Where 5.0 is not spoken and no version is asked for, 3.1.1 is tried.
    pub fn open(config: &MqttConfig) -> Result<Self, ClientError> {
        let roots = match config.url.scheme {
            Scheme::Mqtts => Some(tls::client_config(&config.roots)?),
            _ => None,
        };
        match config.version {
            Some(version) => open(config, version, roots.as_ref()).map_err(|failed| failed.error),
            None => open(config, Version::V5, roots.as_ref()).or_else(|failed| match failed.is_version {
                true => open(config, Version::V311, roots.as_ref()).map_err(|failed| failed.error),
                false => Err(failed.error),
            }),
        }
    }

    /// Over a stream on which the server said yes.
    pub(super) fn over(
        config: &MqttConfig,
        version: Version,
        stream: Stream,
        input: Input,
        welcome: Welcome,
    ) -> Self {
        let now = Instant::now();
        Connection {
            url: config.url.clone(),
            stream,
            version,
            welcome,
            interrupt: config.interrupt.clone(),
            timeout: config.timeout,
            packet_bytes_max: config.packet_bytes_max,
            input,
            unsent: Vec::new(),
            early: VecDeque::new(),
            unacknowledged: None,
            unreleased: HashSet::new(),
            last_sent: now,
            last_received: now,
            next_packet_id: 1,
        }
    }

    /// The version that is spoken.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the server said in CONNACK.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks for these filters, all in one packet, with these user properties (5.0 only).
    pub fn subscribe(
        &mut self,
        filters: &[String],
        qos: QoS,
        user_properties: &[(&str, &str)],
    ) -> Result<(), ClientError> {
        let usage = |error| ClientError::Usage(format!("the subscription cannot be sent: {error}"));
        let mut items = SubscribeItemsBuf::new();
        for filter in filters {
            items.push(filter, SubscribeOptions { qos, ..SubscribeOptions::default() }).map_err(usage)?;
        }
        let mut properties = PropertiesBuf::new();
        if self.version == Version::V5 {
            for (name, value) in user_properties {
                properties.push(&Property::UserProperty(name, value)).map_err(usage)?;
            }
        }
        let packet = Subscribe {
            packet_id: self.take_packet_id(),
            properties: properties.as_properties(),
            filters: items.as_items(),
        };
        encode(&Packet::Subscribe(packet), self.version, &mut self.unsent).map_err(usage)?;
        self.send()
    }

    /// Sends a message, sooner or later (see [`Connection::send`]). Gives its packet id, 0 for QoS 0.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Result<u16, ClientError> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.take_packet_id());
        let properties = Properties::EMPTY;
        let packet = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        encode(&Packet::Publish(packet), self.version, &mut self.unsent)
            .map_err(|error| ClientError::Usage(format!("the message cannot be sent: {error}")))?;
        if self.unsent.len() >= UNSENT_BYTES {
            self.send()?;
        }
        Ok(packet_id.map_or(0, NonZeroU16::get))
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.unsent.extend_from_slice(&PINGREQ);
        self.send()
    }

    /// Whether the next call of [`Connection::receive`] has a packet without waiting for the network.
    pub fn has_input(&self) -> bool {
        let decoded = || decode(self.input.bytes(), self.version, self.packet_bytes_max);
        !self.early.is_empty() || matches!(decoded(), Ok(Decoded::Packet(..)) | Err(_))
    }

    /// The next thing that the server says; acknowledges the message before. Waits until the deadline.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Received, ClientError> {
        if let Some((kind, packet_id)) = self.unacknowledged.take() {
            encode_ack(&mut self.unsent, kind, packet_id, Reason::Success, self.version);
        }
        while let Some(message) = self.early.pop_front() {
            if let Some(message) = self.accept(message) {
                return Ok(Received::Message(Box::new(message)));
            }
        }
        loop {
            match self.next_packet()? {
                Some(Heard::Message(message)) => {
                    if let Some(message) = self.accept(message) {
                        return Ok(Received::Message(Box::new(message)));
                    }
                }
                Some(Heard::Other(received)) => return Ok(received),
                Some(_) => {}
                None => {
                    self.send()?;
                    if !self.fill(deadline)? {
                        return Ok(Received::Nothing);
                    }
                }
            }
        }
    }

    /// The answer to SUBSCRIBE, or [`Received::Nothing`] at the deadline. Messages that come before it are kept for
    /// [`Connection::receive`].
    pub fn receive_answer(&mut self, deadline: Instant) -> Result<Received, ClientError> {
        loop {
            match self.next_packet()? {
                Some(Heard::Message(_)) if self.early.len() >= EARLY_MESSAGES => {
                    let what =
                        format!("{} sent {EARLY_MESSAGES} messages and no answer to SUBSCRIBE", self.url);
                    return Err(ClientError::Connection(what));
                }
                Some(Heard::Message(message)) => self.early.push_back(message),
                Some(Heard::Other(received @ Received::Subscribed { .. })) => return Ok(received),
                Some(_) => {}
                None => {
                    self.send()?;
                    if !self.fill(Some(deadline))? {
                        return Ok(Received::Nothing);
                    }
                }
            }
        }
    }

    /// Sends what waits to be sent.
    pub fn send(&mut self) -> Result<(), ClientError> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.unsent);
        self.unsent.clear();
        self.last_sent = Instant::now();
        sent.map_err(|error| self.lost(&error.to_string()))
    }

    /// Acknowledges the last message and says goodbye.
    pub fn close(mut self) {
        if let Some((kind, packet_id)) = self.unacknowledged.take() {
            encode_ack(&mut self.unsent, kind, packet_id, Reason::Success, self.version);
        }
        let goodbye = Disconnect { reason: Reason::Success, properties: Properties::EMPTY };
        if encode(&Packet::Disconnect(goodbye), self.version, &mut self.unsent).is_ok() {
            // a server that is gone already has nothing to be told
            let _ = self.send();
        }
    }

    /// What the next whole packet says to the caller; none: there is no whole packet. Answers what needs no caller.
    fn next_packet(&mut self) -> Result<Option<Heard>, ClientError> {
        loop {
            let decoded = decode(self.input.bytes(), self.version, self.packet_bytes_max);
            let decoded = decoded.map_err(|error| {
                ClientError::Connection(format!("{} does not keep to MQTT: {error}", self.url))
            })?;
            let Decoded::Packet(packet, taken) = decoded else { return Ok(None) };
            let heard = hear(&packet);
            self.input.take(taken);
            match heard {
                Heard::Rec(packet_id) => {
                    encode_ack(&mut self.unsent, AckKind::PubRel, packet_id, Reason::Success, self.version);
                }
                Heard::Rel(packet_id) => {
                    self.unreleased.remove(&packet_id);
                    encode_ack(&mut self.unsent, AckKind::PubComp, packet_id, Reason::Success, self.version);
                }
                Heard::Goodbye(reason, why) => return Err(goodbye(&self.url, reason, why)),
                Heard::Unexpected(kind) => {
                    return Err(ClientError::Connection(format!(
                        "{} sent {kind}, which it may not",
                        self.url
                    )));
                }
                Heard::Message(_) | Heard::Other(_) => return Ok(Some(heard)),
            }
        }
    }

    /// Notes what is owed for a message; none: it is a repetition of one that was handed out.
    fn accept(&mut self, message: Message) -> Option<Message> {
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.unacknowledged = Some((AckKind::PubAck, message.packet_id)),
            QoS::ExactlyOnce if self.unreleased.insert(message.packet_id) => {
                self.unacknowledged = Some((AckKind::PubRec, message.packet_id));
            }
            QoS::ExactlyOnce => {
                encode_ack(
                    &mut self.unsent,
                    AckKind::PubRec,
                    message.packet_id,
                    Reason::Success,
                    self.version,
                );
                return None;
            }
        }
        Some(message)
    }

    /// Reads more; false: the deadline came first. Keeps the connection alive meanwhile.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<bool, ClientError> {
        loop {
            if self.interrupt.is_raised() {
                return Err(ClientError::Interrupted);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(false);
            }
            let wake = self.keep_alive(now)?;
            let wake = deadline.map_or(wake, |deadline| deadline.min(wake));
            match self.input.fill(&mut self.stream, wake.saturating_duration_since(now)) {
                Ok(Some(0)) if self.interrupt.is_raised() => return Err(ClientError::Interrupted),
                Ok(Some(0)) => {
                    return Err(ClientError::Connection(format!("{} closed the connection", self.url)));
                }
                Ok(Some(_)) => {
                    self.last_received = Instant::now();
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(ClientError::Connection(format!(
                        "the connection to {} is lost: {error}",
                        self.url
                    )));
                }
            }
        }
    }

    /// Sends PINGREQ if it is time; gives when to look again.
    fn keep_alive(&mut self, now: Instant) -> Result<Instant, ClientError> {
        if self.welcome.keep_alive_secs == 0 {
            return Ok(now + Duration::from_secs(3_600));
        }
        let interval = Duration::from_secs(self.welcome.keep_alive_secs.into());
        let dead = self.last_received + interval + self.timeout;
        if now >= dead {
            let silent = (interval + self.timeout).as_secs();
            return Err(ClientError::Connection(format!("{} has been silent for {silent} s", self.url)));
        }
        // a ping also when much is sent and nothing comes back: the peer may be gone
        let due = self.last_sent.min(self.last_received) + interval;
        if now < due {
            return Ok(due.min(dead));
        }
        self.unsent.extend_from_slice(&PINGREQ);
        self.send()?;
        Ok(dead.min(now + interval))
    }

    /// A connection that failed while sending: what the server said before says more than the error.
    fn lost(&mut self, error: &str) -> ClientError {
        for _ in 0..16 {
            match self.input.fill(&mut self.stream, Duration::from_millis(50)) {
                Ok(Some(count)) if count > 0 => {}
                _ => break,
            }
        }
        while let Ok(Decoded::Packet(packet, taken)) =
            decode(self.input.bytes(), self.version, self.packet_bytes_max)
        {
            if let Heard::Goodbye(reason, why) = hear(&packet) {
                return goodbye(&self.url, reason, why);
            }
            self.input.take(taken);
        }
        ClientError::Connection(format!("the connection to {} is lost: {error}", self.url))
    }

    fn take_packet_id(&mut self) -> PacketId {
        let id = NonZeroU16::new(self.next_packet_id).unwrap_or(NonZeroU16::MIN);
        self.next_packet_id = id.get().checked_add(1).unwrap_or(1);
        id
    }
}

/// A packet of the server, without its bytes.
enum Heard {
    Message(Message),
    Rec(u16),
    Rel(u16),
    Goodbye(Reason, Option<String>),
    Unexpected(&'static str),
    Other(Received),
}

fn hear(packet: &Packet<'_>) -> Heard {
    let why = |properties: &Properties<'_>| properties.reason_string().map(str::to_owned);
    match packet {
        Packet::Publish(publish) => Heard::Message(Message::from_publish(publish)),
        Packet::PubRec(ack) if !ack.reason.is_error() => Heard::Rec(ack.packet_id.get()),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => Heard::Other(Received::Done {
            packet_id: ack.packet_id.get(),
            reason: ack.reason,
            why: why(&ack.properties),
        }),
        Packet::PubRel(ack) => Heard::Rel(ack.packet_id.get()),
        Packet::SubAck(suback) => Heard::Other(Received::Subscribed {
            reasons: suback.reasons.collect(),
            why: why(&suback.properties),
            head: suback
                .properties
                .user_properties()
                .find(|(name, _)| *name == CURSOR)
                .map(|(_, v)| v.to_owned()),
        }),
        Packet::PingResp => Heard::Other(Received::Pong),
        Packet::Disconnect(disconnect) => Heard::Goodbye(disconnect.reason, why(&disconnect.properties)),
        other => Heard::Unexpected(other.kind().name()),
    }
}

/// Why the server ended the connection: a refusal if trying again would end the same way.
fn goodbye(url: &Url, reason: Reason, why: Option<String>) -> ClientError {
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    let what = format!("{url} ended the connection: {}{why}", reason.name());
    match reason {
        Reason::ServerShuttingDown
        | Reason::ServerBusy
        | Reason::KeepAliveTimeout
        | Reason::UnspecifiedError
        | Reason::Success
        | Reason::QuotaExceeded
        | Reason::MessageRateTooHigh
        | Reason::MaximumConnectTime => ClientError::Connection(what),
        _ => ClientError::Refused(what),
    }
}
