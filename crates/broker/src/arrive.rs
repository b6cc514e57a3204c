//! A client arrives: CONNECT is answered, an older connection of the same name is taken over, a session begins; and
//! how it ends.

use crate::arrival::{Arrival, Scope};
use crate::connection::{Connection, Will};
use crate::lane::Lane;
use crate::publish::{has_names_of_ours, keep_attributes};
use crate::session::Session;
use crate::shard::{Action, Shard};
use firehose_log::{AttributesBuf, Event, Flags, Origin, WayIn};
use firehose_mqtt::{
    ConnAck, Connect, Packet, PropertiesBuf, Property, Reason, Version, decode_connect, encode,
};
use firehose_topic::TopicName;

impl Shard {
    /// Answers the CONNECT of an arrival, and looks at what came behind it.
    pub(crate) fn arrive(&mut self, mut arrival: Arrival) {
        let socket = arrival.socket.take();
        let input = std::mem::take(&mut arrival.input);
        let limits = self.shared.limits.clone();
        let anonymous = arrival.identity.is_anonymous() && !self.auth.is_open();
        let sends = match anonymous {
            // Who may not publish needs no aliases, and gets no memory for them.
            true => Sends { bytes_max: limits.packet_anonymous_bytes_max, aliases_max: 0 },
            false => Sends { bytes_max: limits.packet_bytes_max, aliases_max: limits.topic_aliases_max },
        };
        // The lobby decoded it before; what it would not pass on does not come here.
        let Ok(Some((connect, consumed))) = decode_connect(&input, limits.packet_bytes_max) else { return };
        let version = connect.version;
        let mut connection = Connection::new(version, arrival.address, sends.bytes_max);
        connection.aliases_max = sends.aliases_max;
        let refused = self.refusal(&connect, &arrival);
        if refused.is_none() {
            connection.will = self.will(&connect);
        }
        let mut keep_alive_secs = connect.keep_alive_secs;
        if version == Version::V5 && (keep_alive_secs == 0 || keep_alive_secs > limits.keep_alive_secs_max) {
            keep_alive_secs = limits.keep_alive_secs_max;
        }
        connection.packet_bytes_max = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        connection.asked_for_expiry = connect.properties.session_expiry().is_some_and(|secs| secs > 0);
        let reason = refused.unwrap_or(Reason::Success);
        write_connack(&mut connection, &connect, &arrival, reason, &limits, &sends, keep_alive_secs);
        connection.closing = refused.is_some();
        let session = self.begin(arrival, &connect, connection, keep_alive_secs, refused.is_some());
        self.actions.push(Action::Attach { session, socket });
        self.dirty(session);
        if refused.is_none() && consumed < input.len() {
            self.receive(session, &input[consumed..]);
        }
    }

    /// Why the CONNECT is refused, if it is, although the password was right.
    fn refusal(&self, connect: &Connect<'_>, arrival: &Arrival) -> Option<Reason> {
        if self.stopping {
            // 0x8B is no reason code of CONNACK.
            return Some(Reason::ServerUnavailable);
        }
        let will = connect.will.as_ref()?;
        if !self.auth.may_have_will(&arrival.identity) {
            return Some(Reason::NotAuthorized);
        }
        if firehose_auth::is_reserved(will.topic) || has_names_of_ours(will.properties) {
            return Some(Reason::NotAuthorized);
        }
        None
    }

    fn will(&self, connect: &Connect<'_>) -> Option<Box<Will>> {
        let will = connect.will.as_ref()?;
        let mut attributes = AttributesBuf::new();
        let payload_utf8 = keep_attributes(&mut attributes, will.properties);
        Some(Box::new(Will {
            topic: will.topic.as_str().into(),
            payload: will.payload.into(),
            attributes,
            flags: Flags::new(will.qos as u8, will.retain, payload_utf8),
        }))
    }

    /// Enters the session; an older one of the same name is taken over [MQTT-3.1.4-3].
    fn begin(
        &mut self,
        arrival: Arrival,
        connect: &Connect<'_>,
        connection: Connection,
        keep_alive_secs: u16,
        refused: bool,
    ) -> u32 {
        let scope = Scope::of(&arrival.identity, arrival.address, arrival.assigned);
        let hash = scope.hash_with(&self.shared.secret, &arrival.client_id);
        if !refused && let Some(old) = self.find(hash, &scope, &arrival.client_id) {
            self.disconnect(old, Reason::SessionTakenOver, "the same client id connected again");
            self.forget_name(old);
        }
        let user = |wanted: &str| connect.properties.user_properties().any(|it| it == (wanted, "on"));
        let receive_max = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        let window = receive_max.min(self.shared.limits.inflight_max);
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let session = self.sessions.insert(Session {
            generation,
            heard_secs: self.now.secs(),
            keep_alive_secs,
            many: false,
            cursors: user("firehose-cursor"),
            hash,
            identity: arrival.identity,
            scope,
            client_id: arrival.client_id,
            subscriptions: Vec::new(),
            subscription_bytes: 0,
            main: Lane::default(),
            more_lanes: Vec::new(),
            scans: None,
            inflight: None,
            inflight_max: window,
            connection: Some(Box::new(connection)),
        }) as u32;
        if !refused {
            self.by_id.entry(hash).or_default().push(session);
        }
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        session
    }

    fn find(&self, hash: u64, scope: &Scope, client_id: &str) -> Option<u32> {
        let candidates = self.by_id.get(&hash)?;
        candidates.iter().copied().find(|session| {
            self.sessions
                .get(*session as usize)
                .is_some_and(|it| it.scope == *scope && *it.client_id == *client_id)
        })
    }

    fn forget_name(&mut self, session: u32) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        if let std::collections::hash_map::Entry::Occupied(mut entry) = self.by_id.entry(it.hash) {
            entry.get_mut().retain(|known| *known != session);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// The connection is over, and the session with it: its will is published unless it left properly.
    pub(crate) fn end(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let will = it.connection.as_deref_mut().and_then(|connection| connection.will.take());
        if let Some(will) = will {
            self.publish_will(session, &will);
        }
        let count = self.sessions.get(session as usize).map_or(0, |it| it.subscriptions.len());
        for index in 0..count {
            self.remove_subscription(session, index);
        }
        self.forget_name(session);
        let Some(it) = self.sessions.try_remove(session as usize) else { return };
        if let Some(connection) = it.connection {
            self.parked_bytes -= connection.parked_bytes;
            self.fresh_bytes -= connection.fresh_bytes;
        }
        self.stats.connections.sub(1);
        self.actions.push(Action::Close { session });
        self.feed();
        if self.trie.is_empty() && self.pending.is_empty() {
            self.outgoing.interest(false);
        }
    }

    /// The rules that hold now decide, not those of the CONNECT.
    fn publish_will(&mut self, session: u32, will: &Will) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        let topic = TopicName::trusted(&will.topic);
        let gone = it.identity.name().is_some_and(|user| !self.auth.knows_user(user));
        if gone || !self.auth.may_publish(&it.identity, &it.client_id, topic) {
            self.stats.messages_refused.add(1);
            tracing::debug!(client = %it.client_id, topic = %will.topic, "a will was refused by the access rules");
            return;
        }
        let event = Event {
            flags: will.flags,
            topic: &will.topic,
            attributes: will.attributes.as_attributes(),
            payload: &will.payload,
        };
        let principal = it.identity.name().unwrap_or("");
        let origin = Origin { principal, session: it.hash, packet_id: 0, way_in: WayIn::Mqtt };
        let placed = match self.shared.unlogged.iter().any(|filter| filter.matches(topic)) {
            true => self.outgoing.unlogged(&event, &origin),
            false => self.outgoing.event(&event, &origin, (session, it.generation), false).map(|_| ()),
        };
        if placed.is_err() {
            self.stats.messages_refused.add(1);
        }
    }
}

/// What a client may send.
struct Sends {
    bytes_max: usize,
    aliases_max: u16,
}

/// CONNACK, which says truthfully what is not there.
fn write_connack(
    connection: &mut Connection,
    connect: &Connect<'_>,
    arrival: &Arrival,
    reason: Reason,
    limits: &crate::limits::Limits,
    sends: &Sends,
    keep_alive_secs: u16,
) {
    let mut properties = PropertiesBuf::new();
    if connect.version == Version::V5 && reason == Reason::Success {
        let mut say = |property: Property<'_>| {
            let _ = properties.push(&property);
        };
        if connect.properties.session_expiry().is_some_and(|secs| secs > 0) {
            say(Property::SessionExpiry(0));
        }
        say(Property::ReceiveMaximum(limits.inflight_max));
        say(Property::MaximumPacketSize(u32::try_from(sends.bytes_max).unwrap_or(u32::MAX)));
        if arrival.assigned && connect.client_id.is_empty() {
            say(Property::AssignedClientId(&arrival.client_id));
        }
        say(Property::TopicAliasMaximum(sends.aliases_max));
        say(Property::SharedAvailable(0));
        if keep_alive_secs != connect.keep_alive_secs {
            say(Property::ServerKeepAlive(keep_alive_secs));
        }
    }
    let packet = ConnAck { session_present: false, reason, properties: properties.as_properties() };
    let _ = encode(&Packet::ConnAck(packet), connect.version, connection.outbox.control());
}
