//! Messages of some filters, across lost connections.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use firehose_log::{Cursor, Since, format_time};
use firehose_mqtt::{QoS, Version};

use super::MqttConfig;
use super::connection::{Connection, Received};
use super::message::{CURSOR, Message};
use crate::ClientError;
use crate::backoff::Backoff;

/// What to read.
#[derive(Clone, Debug)]
pub struct SubscriberConfig {
    /// How to connect.
    pub mqtt: MqttConfig,
    /// The filters.
    pub filters: Vec<String>,
    /// The highest QoS that is wanted.
    pub qos: QoS,
    /// From where on; none: what happens from now on.
    pub since: Option<Since>,
}

/// What [`Subscriber::receive`] gives.
#[derive(Debug)]
pub enum Update {
    /// A message.
    Message(Box<Message>),
    /// Something that whoever sits before the screen may want to know: the connection was lost, or is there again.
    Note(String),
    /// Nothing until the deadline.
    Nothing,
}

/// Reads messages; connects again when the connection is lost, and goes on after the last message.
pub struct Subscriber {
    config: SubscriberConfig,
    connection: Option<Connection>,
    backoff: Backoff,
    /// The place after the last message, or where the first subscription began.
    position: Option<Cursor>,
    /// QoS 2 messages of a session that are not released yet.
    unreleased: HashSet<u16>,
    /// Not before this.
    retry_at: Option<Instant>,
}

impl Subscriber {
    /// Connects and subscribes. What goes wrong here is final: only later losses are tried again.
    pub fn open(mut config: SubscriberConfig) -> Result<Self, ClientError> {
        if let Some(Since::Ago(ago)) = config.since {
            config.since =
                Some(Since::At(now_us().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))));
        }
        let mut subscriber = Subscriber {
            config,
            connection: None,
            backoff: Backoff::new(),
            position: None,
            unreleased: HashSet::new(),
            retry_at: None,
        };
        subscriber.connect()?;
        Ok(subscriber)
    }

    /// The next message or note; acknowledges the message before.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Update, ClientError> {
        loop {
            let Some(connection) = &mut self.connection else {
                match self.connect_again(deadline)? {
                    Some(update) => return Ok(update),
                    None => continue,
                }
            };
            match connection.receive(deadline) {
                Ok(Received::Message(message)) => {
                    if self.is_new(&message) {
                        return Ok(Update::Message(message));
                    }
                }
                Ok(Received::Nothing) => return Ok(Update::Nothing),
                Ok(_) => {}
                Err(ClientError::Connection(what)) => {
                    self.disconnect();
                    return Ok(Update::Note(format!("{what}; connecting again")));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether [`Subscriber::receive`] would have to wait.
    pub fn would_wait(&self) -> bool {
        !self.connection.as_ref().is_some_and(Connection::has_input)
    }

    /// Acknowledges the last message and says goodbye.
    pub fn close(self) {
        if let Some(connection) = self.connection {
            connection.close();
        }
    }

    /// Whether the message was not handed out before; notes how far we are.
    fn is_new(&mut self, message: &Message) -> bool {
        let Some(cursor) = message.cursor.filter(|_| !message.retain) else { return true };
        let repeated = self.position.is_some_and(|position| is_after(&position, &cursor));
        if !repeated {
            self.position = Some(cursor);
        }
        !repeated
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.unreleased = connection.unreleased;
        }
        self.retry_at = Some(Instant::now() + self.backoff.wait());
    }

    /// Waits for its time, then connects; none: connected without a word.
    fn connect_again(&mut self, deadline: Option<Instant>) -> Result<Option<Update>, ClientError> {
        let now = Instant::now();
        let retry_at = self.retry_at.unwrap_or(now);
        let wake = deadline.map_or(retry_at, |deadline| deadline.min(retry_at));
        if self.config.mqtt.interrupt.wait(wake.saturating_duration_since(now)) {
            return Err(ClientError::Interrupted);
        }
        if wake < retry_at {
            return Ok(Some(Update::Nothing));
        }
        match self.connect() {
            Ok(()) => Ok(Some(Update::Note(format!("connected to {} again", self.config.mqtt.url)))),
            Err(ClientError::Connection(what)) => {
                self.retry_at = Some(Instant::now() + self.backoff.wait());
                Ok(Some(Update::Note(format!("{what}; trying again"))))
            }
            Err(error) => Err(error),
        }
    }

    fn connect(&mut self) -> Result<(), ClientError> {
        let mut connection = Connection::open(&self.config.mqtt)?;
        let has_session = connection.welcome().session_present;
        if has_session {
            connection.unreleased = std::mem::take(&mut self.unreleased);
        }
        // a session that the server kept goes on by itself: asking anew would begin it anew
        if !(has_session && self.config.mqtt.keep_session) {
            self.subscribe(&mut connection)?;
        }
        self.connection = Some(connection);
        self.backoff.reset();
        Ok(())
    }

    /// Asks for the filters from where we are, and waits for the answer.
    fn subscribe(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        let from = self.position.map(Since::After).or(self.config.since);
        let text = from.map(|from| shown(&from));
        let mut properties = vec![(CURSOR, "on")];
        let mut filters = self.config.filters.clone();
        match (&text, connection.version()) {
            (Some(text), Version::V5) => properties.push(("since", text)),
            (Some(text), _) => {
                filters.iter_mut().for_each(|filter| *filter = format!("$replay/{text}/{filter}"))
            }
            (None, _) => {}
        }
        connection.subscribe(&filters, self.config.qos, &properties)?;
        match connection.receive_answer(Instant::now() + self.config.mqtt.timeout)? {
            Received::Subscribed { reasons, why, head } => {
                self.subscribed(connection.version(), &filters, &reasons, why, head)
            }
            _ => {
                let what = format!("{} does not answer SUBSCRIBE", self.config.mqtt.url);
                Err(ClientError::Connection(what))
            }
        }
    }

    fn subscribed(
        &mut self,
        version: Version,
        filters: &[String],
        reasons: &[firehose_mqtt::Reason],
        why: Option<String>,
        head: Option<String>,
    ) -> Result<(), ClientError> {
        let refused = filters.iter().zip(reasons).find(|(_, reason)| reason.is_error());
        if let Some((filter, reason)) = refused {
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            let what = format!("{} refused {filter:?}: {}{why}", self.config.mqtt.url, reason.name());
            return Err(ClientError::Refused(what));
        }
        let head = head.and_then(|head| Cursor::parse(&head).ok());
        if self.config.since.is_some() && head.is_none() && version == Version::V5 {
            let what = format!("{} cannot read the past: it is no firehose", self.config.mqtt.url);
            return Err(ClientError::Refused(what));
        }
        if self.config.since.is_none() && self.position.is_none() {
            // nothing was read yet: should the connection be lost now, we go on from here
            self.position = head;
        }
        Ok(())
    }
}

/// Whether the place is after this event. Offsets of a later epoch may begin below the place: after a power cut the end
/// of the earlier epoch is gone.
fn is_after(place: &Cursor, event: &Cursor) -> bool {
    place.log_id == event.log_id
        && (place.epoch > event.epoch || place.epoch == event.epoch && place.offset >= event.offset)
}

/// A place as it is asked for.
fn shown(since: &Since) -> String {
    match since {
        Since::At(time_us) => format_time(*time_us),
        other => other.to_string(),
    }
}

fn now_us() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since_epoch.unwrap_or(Duration::ZERO).as_micros()).unwrap_or(i64::MAX)
}
