//! Messages to the server, each of them accounted for.

use std::collections::HashSet;
use std::time::Instant;

use firehose_mqtt::{QoS, Reason};

use super::MqttConfig;
use super::connection::{Connection, Received};
use crate::ClientError;

/// How many acknowledgements are waited for at a time, if the server takes so many.
const WINDOW_MAX: usize = 1_000;

/// Publishes over one connection. A lost connection is not made again: nobody knows what of it arrived.
pub struct Publisher {
    connection: Connection,
    config: MqttConfig,
    window: usize,
    in_flight: HashSet<u16>,
    acknowledged: u64,
}

impl Publisher {
    /// Connects.
    pub fn open(config: MqttConfig) -> Result<Self, ClientError> {
        let connection = Connection::open(&config)?;
        let window = usize::from(connection.welcome().receive_maximum).clamp(1, WINDOW_MAX);
        Ok(Publisher { connection, config, window, in_flight: HashSet::new(), acknowledged: 0 })
    }

    /// How many messages the server has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Publishes one message; with QoS 1 and 2 waits while too many are not acknowledged.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Result<(), ClientError> {
        self.check(payload, qos, retain)?;
        while self.in_flight.len() >= self.window {
            self.wait()?;
        }
        let packet_id = self.connection.publish(topic, payload, qos, retain)?;
        if qos != QoS::AtMostOnce {
            self.in_flight.insert(packet_id);
        }
        Ok(())
    }

    /// Sends what was collected, without waiting for answers.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.connection.send()
    }

    /// Waits until everything is acknowledged and says goodbye.
    pub fn finish(mut self) -> Result<(), ClientError> {
        while !self.in_flight.is_empty() {
            self.wait()?;
        }
        // QoS 0 has no answer; but a server that took offence has said so before it answers this
        self.connection.ping()?;
        let deadline = Instant::now() + self.config.timeout;
        loop {
            match self.connection.receive(Some(deadline))? {
                Received::Pong => break,
                Received::Nothing => return Err(self.silent()),
                _ => {}
            }
        }
        self.connection.close();
        Ok(())
    }

    /// What the server said that it does not take.
    fn check(&self, payload: &[u8], qos: QoS, retain: bool) -> Result<(), ClientError> {
        let welcome = self.connection.welcome();
        let refused = |what: &str| Err(ClientError::Refused(format!("{} {what}", self.config.url)));
        if qos > welcome.maximum_qos {
            return refused("does not take this quality of service");
        }
        if retain && !welcome.retain_available {
            return refused("does not keep retained messages");
        }
        if payload.len() >= welcome.maximum_packet_size {
            return refused(&format!("takes packets of at most {} bytes", welcome.maximum_packet_size));
        }
        Ok(())
    }

    /// Waits for one acknowledgement.
    fn wait(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.config.timeout;
        loop {
            match self.connection.receive(Some(deadline))? {
                Received::Done { packet_id, reason, why } => return self.done(packet_id, reason, why),
                Received::Nothing => return Err(self.silent()),
                _ => {}
            }
        }
    }

    fn done(&mut self, packet_id: u16, reason: Reason, why: Option<String>) -> Result<(), ClientError> {
        if reason.is_error() {
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            return Err(ClientError::Refused(format!(
                "{} refused the message: {}{why}",
                self.config.url,
                reason.name()
            )));
        }
        if self.in_flight.remove(&packet_id) {
            self.acknowledged += 1;
        }
        Ok(())
    }

    fn silent(&self) -> ClientError {
        ClientError::Connection(format!("{} does not answer", self.config.url))
    }
}
