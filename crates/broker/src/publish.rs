//! PUBLISH: who may, what becomes of it, and which acknowledgement it gets.

use crate::connection::{AckKind, Connection, Pause, PendingAck, Publisher};
use crate::inbound::Flow;
use crate::shard::Shard;
use firehose_log::{Attribute, AttributesBuf, Event, Flags, Origin, WayIn};
use firehose_mqtt::{Properties, Property, Publish, QoS, Reason, Version};
use firehose_topic::TopicName;

/// Client properties with this prefix are names of ours (DESIGN section 4).
const OURS: &str = "firehose-";

impl Shard {
    /// A PUBLISH packet.
    pub(crate) fn publish(&mut self, session: u32, publish: &Publish<'_>) -> Flow {
        self.stats.messages_received.add(1);
        if let Err((reason, why)) = self.conforms(session, publish) {
            return self.violate(session, reason, why);
        }
        // The topic that an alias stands for lives in the connection: it is copied, which only users of aliases pay.
        let by_alias;
        let topic = match self.resolve_alias(session, publish) {
            Ok(None) => publish.topic,
            Ok(Some(topic)) => {
                by_alias = topic;
                &by_alias
            }
            Err((reason, why)) => return self.violate(session, reason, why),
        };
        if self.is_repeated(session, publish) {
            return self.owe_again(session, publish);
        }
        if !self.may_publish(session, topic, publish.properties) {
            return self.refuse(session, publish, topic);
        }
        self.accept(session, publish, topic)
    }

    /// What the specification and the limits ask of a PUBLISH, whoever sends it.
    fn conforms(&mut self, session: u32, publish: &Publish<'_>) -> Result<(), (Reason, &'static str)> {
        let inflight_max = usize::from(self.shared.limits.inflight_max);
        let Some(connection) = self.connection(session) else { return Ok(()) };
        let waiting = connection.publisher.as_deref().map_or(0, |publisher| publisher.acks.len());
        if waiting >= usize::from(u16::MAX) {
            return Err((Reason::ProtocolError, "more unacknowledged publishes than there are packet ids"));
        }
        if connection.version != Version::V5 {
            return Ok(());
        }
        if publish.properties.subscription_id().is_some() {
            return Err((
                Reason::ProtocolError,
                "a subscription identifier in a client's PUBLISH [MQTT-3.3.4-6]",
            ));
        }
        if let Some(publisher) = connection.publisher.as_deref()
            && publish.qos != QoS::AtMostOnce
            && publisher.in_flight() >= inflight_max
            && !publish.packet_id.is_some_and(|id| publisher.received.contains(&id.get()))
        {
            return Err((
                Reason::ReceiveMaximumExceeded,
                "more in flight than Receive Maximum [MQTT-3.3.4-9]",
            ));
        }
        Ok(())
    }

    /// MQTT 5: sets or looks up a topic alias. None: the packet has the topic itself.
    fn resolve_alias(
        &mut self,
        session: u32,
        publish: &Publish<'_>,
    ) -> Result<Option<Box<str>>, (Reason, &'static str)> {
        if publish.properties.is_empty() {
            return Ok(None);
        }
        let Some(alias) = publish.properties.topic_alias() else { return Ok(None) };
        let alias = usize::from(alias);
        let Some(connection) = self.connection(session) else { return Ok(None) };
        if alias == 0 || alias > usize::from(connection.aliases_max) {
            return Err((
                Reason::TopicAliasInvalid,
                "a topic alias above Topic Alias Maximum [MQTT-3.2.2-17]",
            ));
        }
        let aliases = &mut connection.publisher.get_or_insert_default().aliases;
        if !publish.topic.is_empty() {
            if aliases.len() < alias {
                aliases.resize(alias, None);
            }
            let before = aliases[alias - 1].replace(publish.topic.into());
            connection.alias_bytes += publish.topic.len();
            connection.alias_bytes -= before.map_or(0, |topic| topic.len());
            return Ok(None);
        }
        match aliases.get(alias - 1) {
            Some(Some(topic)) => Ok(Some(topic.clone())),
            _ => Err((Reason::ProtocolError, "a topic alias that was never set")),
        }
    }

    /// A QoS 2 message whose packet id is between PUBLISH and PUBREL is the same message again [MQTT-4.3.3-10].
    fn is_repeated(&mut self, session: u32, publish: &Publish<'_>) -> bool {
        match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => self
                .connection(session)
                .and_then(|connection| connection.publisher.as_deref())
                .is_some_and(|publisher| publisher.received.contains(&id.get())),
            _ => false,
        }
    }

    fn owe_again(&mut self, session: u32, publish: &Publish<'_>) -> Flow {
        if let Some(id) = publish.packet_id {
            self.owe_decided(session, id.get(), AckKind::PubRec, Reason::Success);
        }
        Flow::On
    }

    fn may_publish(&mut self, session: u32, topic: &str, properties: Properties<'_>) -> bool {
        let generation = self.auth_generation;
        let Some(it) = self.sessions.get_mut(session as usize) else { return false };
        let ours = has_names_of_ours(properties);
        let Some(connection) = it.connection.as_deref_mut().filter(|_| !ours) else { return false };
        let publisher = connection.publisher.get_or_insert_default();
        if let Some((known, of)) = &publisher.allowed
            && *of == generation
            && **known == *topic
        {
            return true;
        }
        let name = TopicName::trusted(topic);
        if firehose_auth::is_reserved(name) || !self.auth.may_publish(&it.identity, &it.client_id, name) {
            return false;
        }
        publisher.allowed = Some((topic.into(), generation));
        true
    }

    /// A publish that is not allowed (DESIGN section 4, "Anonymous").
    fn refuse(&mut self, session: u32, publish: &Publish<'_>, topic: &str) -> Flow {
        self.stats.messages_refused.add(1);
        let Some(connection) = self.connection(session) else { return Flow::Stop };
        tracing::debug!(topic, "publish refused");
        let waits = connection.publisher.as_deref().is_some_and(|publisher| !publisher.acks.is_empty());
        match (connection.version, ack_of(publish)) {
            (Version::V5, Some((id, kind))) => {
                self.owe_decided(session, id, kind, Reason::NotAuthorized);
                Flow::On
            }
            (_, Some((id, kind))) if waits => {
                // The acknowledgements of earlier publishes leave first, then the connection is closed.
                self.owe_decided(session, id, kind, Reason::NotAuthorized);
                Flow::On
            }
            _ => {
                self.disconnect(session, Reason::NotAuthorized, "published where it may not");
                Flow::Stop
            }
        }
    }

    fn accept(&mut self, session: u32, publish: &Publish<'_>, topic: &str) -> Flow {
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.clear();
        let payload_utf8 = keep_attributes(&mut attributes, publish.properties);
        let event = Event {
            flags: Flags::new(publish.qos as u8, publish.retain, payload_utf8),
            topic,
            attributes: attributes.as_attributes(),
            payload: publish.payload,
        };
        let flow = self.place_event(session, &event, publish);
        self.attributes = attributes;
        flow
    }

    fn place_event(&mut self, session: u32, event: &Event<'_>, publish: &Publish<'_>) -> Flow {
        let Some(it) = self.sessions.get(session as usize) else { return Flow::Stop };
        // With its id, a QoS 2 message is known again when its session goes on.
        let packet_id = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce && it.is_persistent());
        let origin = Origin {
            principal: it.identity.name().unwrap_or(""),
            session: it.hash,
            packet_id: packet_id.map_or(0, |id| id.get()),
            way_in: WayIn::Mqtt,
        };
        let name = TopicName::trusted(event.topic);
        let ack = ack_of(publish);
        if self.shared.unlogged.iter().any(|filter| filter.matches(name)) {
            if self.outgoing.unlogged(event, &origin).is_err() {
                return self.violate(session, Reason::PacketTooLarge, "larger than the log can hold");
            }
            if let Some((id, kind)) = ack {
                self.owe_decided(session, id, kind, Reason::Success);
                self.remember(session, publish);
            }
            return Flow::On;
        }
        let Ok((ticket, bytes)) =
            self.outgoing.event(event, &origin, (session, it.generation), ack.is_some())
        else {
            return self.violate(session, Reason::PacketTooLarge, "larger than the log can hold");
        };
        if let Some((packet_id, kind)) = ack {
            self.owe(
                session,
                PendingAck { ticket, packet_id, kind, reason: Reason::Success, decided: false },
            );
            self.remember(session, publish);
        }
        self.charge(session, bytes)
    }

    fn remember(&mut self, session: u32, publish: &Publish<'_>) {
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id)
            && let Some(connection) = self.connection(session)
        {
            connection.publisher.get_or_insert_default().received.insert(id.get());
        }
    }

    /// Counts what has no place yet, and the rate; over a limit the connection is not read for a while.
    fn charge(&mut self, session: u32, bytes: usize) -> Flow {
        let (now_secs, limits) = (self.now.secs(), self.shared.limits.clone());
        let Some(connection) = self.connection(session) else { return Flow::Stop };
        let Connection { publisher, pauses, .. } = connection;
        let publisher = publisher.get_or_insert_default();
        publisher.unplaced_bytes += bytes;
        if limits.publish_bytes_per_sec_max > 0 {
            if publisher.allowance_secs != now_secs {
                (publisher.allowance_secs, publisher.allowance_bytes) =
                    (now_secs, limits.publish_bytes_per_sec_max);
            }
            publisher.allowance_bytes = publisher.allowance_bytes.saturating_sub(bytes as u64);
            pauses.set(Pause::Rate, publisher.allowance_bytes == 0);
        }
        if publisher.unplaced_bytes > limits.unplaced_bytes_max {
            pauses.set(Pause::Unplaced, true);
        }
        if pauses.any() { Flow::Pause } else { Flow::On }
    }
}

impl Publisher {
    /// QoS 1 and 2 messages that the client may not count as done yet.
    fn in_flight(&self) -> usize {
        self.pubacks + self.received.len()
    }
}

fn ack_of(publish: &Publish<'_>) -> Option<(u16, AckKind)> {
    let id = publish.packet_id?.get();
    match publish.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => Some((id, AckKind::PubAck)),
        QoS::ExactlyOnce => Some((id, AckKind::PubRec)),
    }
}

/// Whether a client uses a property name that only the bus may use.
pub(crate) fn has_names_of_ours(properties: Properties<'_>) -> bool {
    !properties.is_empty() && properties.user_properties().any(|(name, _)| name.starts_with(OURS))
}

/// Keeps what MQTT 5 says is forwarded, in order; gives the payload format indicator.
pub(crate) fn keep_attributes(attributes: &mut AttributesBuf, properties: Properties<'_>) -> Option<bool> {
    let mut payload_utf8 = None;
    for property in properties.iter() {
        let _ = match property {
            Property::PayloadFormat(format) => {
                payload_utf8 = Some(format == 1);
                continue;
            }
            Property::MessageExpiry(secs) => attributes.push(&Attribute::MessageExpiry(secs)),
            Property::ContentType(text) => attributes.push(&Attribute::ContentType(text)),
            Property::ResponseTopic(topic) => attributes.push(&Attribute::ResponseTopic(topic)),
            Property::CorrelationData(data) => attributes.push(&Attribute::CorrelationData(data)),
            Property::UserProperty(name, value) => attributes.push(&Attribute::UserProperty(name, value)),
            _ => continue,
        };
    }
    payload_utf8
}
