//! A client arrives: who it is and whether it may, an older connection of the same name is taken over, a session begins
//! or goes on, CONNECT is answered.

use crate::aliases::Aliases;
use crate::arrival::{Arrival, Scope};
use crate::connack::{Granted, write_connack};
use crate::connection::Connection;
use crate::lane::Lane;
use crate::limits::Limits;
use crate::persistence::Persistence;
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::{Opened, SessionName};
use crate::subscriptions::Subscriptions;
use crate::will::stored_will;
use firehose_auth::Identity;
use firehose_mqtt::{Connect, Reason, Version, decode_connect};
use std::sync::Arc;

/// How a client comes in.
pub(crate) enum Entry {
    /// Its session begins and ends with its connection.
    New,
    /// The state has its session, or has made it.
    Opened { name: Arc<SessionName>, expiry_secs: u32, opened: Opened },
    /// It is told why not.
    Refused(Reason),
}

impl Shard {
    /// Answers the CONNECT of an arrival, at once or when the state has said what it knows of the session.
    pub(crate) fn arrive(&mut self, mut arrival: Arrival) {
        let input = std::mem::take(&mut arrival.input);
        // The lobby decoded it before; what it would not pass on does not come here.
        let decoded = decode_connect(&input, self.shared.limits.packet_bytes_max);
        let Ok(Some((connect, consumed))) = decoded else { return };
        let behind = &input[consumed..];
        if let Some(reason) = self.refusal(&connect, &arrival) {
            return self.let_in(arrival, &connect, behind, Entry::Refused(reason));
        }
        let expiry_secs = expiry_secs(&connect, &self.shared.limits);
        if !self.has_room_for_connack(&connect, &arrival, expiry_secs) {
            // It never gets in: it takes nobody's place, and calls no will back.
            let why = "its Maximum Packet Size has no room for CONNACK [MQTT-3.1.2-24]";
            tracing::debug!(client = %arrival.client_id, why, "refused");
            let refused = Entry::Refused(Reason::ImplementationSpecificError);
            return self.let_in(arrival, &connect, behind, refused);
        }
        let scope = Scope::of(&arrival.identity, arrival.address, arrival.assigned);
        let hash = scope.hash_with(&self.shared.secret, &arrival.client_id);
        let is_known = self.arrivals.contains(hash) || self.shared.stored.contains(hash);
        if expiry_secs == 0 && connect.will.is_none() && !is_known {
            let live = self.find(hash, &scope, &arrival.client_id);
            let is_stored =
                |live: u32| self.sessions.get(live as usize).is_some_and(|it| it.persistence.is_some());
            if !live.is_some_and(is_stored) {
                return self.let_in(arrival, &connect, behind, Entry::New);
            }
        }
        let clean = connect.clean_start;
        let (client_id, assigned) = (arrival.client_id.clone(), arrival.assigned);
        let name = SessionName { hash, scope, client_id, assigned };
        arrival.input = input;
        self.wait_for_state(arrival, name, clean, expiry_secs);
    }

    /// Answers a client that waited.
    pub(crate) fn enter(&mut self, mut arrival: Arrival, entry: Entry) {
        let input = std::mem::take(&mut arrival.input);
        let decoded = decode_connect(&input, self.shared.limits.packet_bytes_max);
        let Ok(Some((connect, consumed))) = decoded else { return };
        self.let_in(arrival, &connect, &input[consumed..], entry);
    }

    /// Lets the client in, or tells it why not; and looks at what came behind its CONNECT.
    fn let_in(&mut self, mut arrival: Arrival, connect: &Connect<'_>, behind: &[u8], entry: Entry) {
        let socket = arrival.socket.take();
        let limits = self.shared.limits.clone();
        let v5 = connect.version == Version::V5;
        let (refused, state) = match entry {
            Entry::New => (None, None),
            Entry::Refused(reason) => (Some(reason), None),
            Entry::Opened { name, expiry_secs, opened } => (None, Some((name, expiry_secs, opened))),
        };
        let resumed = state.as_ref().and_then(|(_, _, opened)| opened.going_on(v5));
        let granted = Granted {
            expiry_secs: state.as_ref().map_or(0, |(_, expiry_secs, _)| *expiry_secs),
            session_present: resumed.is_some(),
            ..self.grants(connect, &arrival)
        };
        let mut connection = Connection::new(connect.version, arrival.address, granted.sends_bytes_max);
        connection.aliases_max = granted.aliases_max;
        if refused.is_none() {
            connection.will = stored_will(connect, &arrival.identity).map(Box::new);
        }
        connection.packet_bytes_max = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        connection.problem_information =
            connection.version != Version::V5 || connect.properties.request_problem_information() != Some(0);
        connection.asked_for_expiry = connect.properties.session_expiry().is_some_and(|secs| secs > 0);
        let reason = refused.unwrap_or(Reason::Success);
        write_connack(connection.outbox.control(), connect, &arrival, reason, &limits, &granted);
        connection.closing = refused.is_some();
        if connection.outbox.control_bytes() > connection.packet_bytes_max as usize {
            connection.outbox.control().clear();
        }
        let aliases_max = connect.properties.topic_alias_maximum().unwrap_or(0).min(limits.topic_aliases_max);
        if aliases_max > 0 {
            connection.outbox.use_aliases(Aliases::new(aliases_max, connection.packet_bytes_max));
        }
        let session = self.begin(arrival, connect, connection, granted.keep_alive_secs, refused.is_some());
        self.actions.push(Action::Attach { session, socket });
        self.dirty(session);
        if let Some((name, expiry_secs, opened)) = &state {
            self.remember_session(session, name.clone(), *expiry_secs, opened, v5);
            self.count_kept(session);
        }
        if state.is_some() && self.dismiss(session) {
            return;
        }
        if refused.is_none() && !behind.is_empty() {
            self.receive(session, behind);
        }
    }

    /// Sends a client away that had to be let in, although the bus stops or its user is gone meanwhile: nothing of what it
    /// sent is looked at. False: it may stay.
    fn dismiss(&mut self, session: u32) -> bool {
        let Some(it) = self.sessions.get(session as usize) else { return true };
        match (self.stopping, self.is_gone(&it.identity)) {
            (true, _) => self.disconnect(session, Reason::ServerShuttingDown, "the bus stops"),
            (false, true) => self.disconnect(session, Reason::NotAuthorized, "the user is gone"),
            (false, false) => return false,
        }
        true
    }

    /// Whether the user is none of the password file's any more.
    pub(crate) fn is_gone(&self, identity: &Identity) -> bool {
        identity.name().is_some_and(|user| !self.auth.knows_user(user))
    }

    fn grants(&self, connect: &Connect<'_>, arrival: &Arrival) -> Granted {
        let limits = &self.shared.limits;
        let mut keep_alive_secs = connect.keep_alive_secs;
        let is_too_long = keep_alive_secs == 0 || keep_alive_secs > limits.keep_alive_secs_max;
        if connect.version == Version::V5 && is_too_long {
            keep_alive_secs = limits.keep_alive_secs_max;
        }
        // Who may not publish needs no aliases, and gets no memory for them.
        let anonymous = arrival.identity.is_anonymous() && !self.auth.is_open();
        let (sends_bytes_max, aliases_max) = match anonymous {
            true => (limits.packet_anonymous_bytes_max, 0),
            false => (limits.packet_bytes_max, limits.topic_aliases_max),
        };
        Granted { sends_bytes_max, aliases_max, keep_alive_secs, expiry_secs: 0, session_present: false }
    }

    /// Whether the client takes a packet as large as the CONNACK that lets it in.
    fn has_room_for_connack(&self, connect: &Connect<'_>, arrival: &Arrival, expiry_secs: u32) -> bool {
        let Some(bytes_max) = connect.properties.maximum_packet_size() else { return true };
        let granted = Granted { expiry_secs, ..self.grants(connect, arrival) };
        let mut connack = Vec::new();
        write_connack(&mut connack, connect, arrival, Reason::Success, &self.shared.limits, &granted);
        connack.len() <= bytes_max as usize
    }

    /// Why the CONNECT is refused, if it is, although the password was right.
    fn refusal(&self, connect: &Connect<'_>, arrival: &Arrival) -> Option<Reason> {
        if self.stopping {
            // 0x8B is no reason code of CONNACK.
            return Some(Reason::ServerUnavailable);
        }
        self.will_refusal(connect, &arrival.identity)
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
        if !refused {
            self.take_over(hash, &scope, &arrival.client_id);
        }
        let user = |wanted: &str| connect.properties.user_properties().any(|it| it == (wanted, "on"));
        let receive_max = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        let window = receive_max.min(self.shared.limits.inflight_max);
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
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
            subscriptions: Subscriptions::default(),
            subscription_bytes: 0,
            main: Lane::default(),
            more_lanes: Vec::new(),
            scans: None,
            follower: None,
            has_deep: false,
            shares: None,
            inflight: None,
            inflight_max: window,
            connection: Some(Box::new(connection)),
            persistence: None,
        }) as u32;
        if !refused {
            self.by_id.entry(hash).or_default().push(session);
        }
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        session
    }

    /// What the state has of the session that has just begun.
    fn remember_session(
        &mut self,
        session: u32,
        name: Arc<SessionName>,
        expiry_secs: u32,
        opened: &Opened,
        v5: bool,
    ) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let has_will = it.connection.as_deref().is_some_and(|it| it.will.is_some());
        if expiry_secs > 0 || opened.resumed.is_some() || has_will {
            it.persistence = Some(Box::new(Persistence::new(name, expiry_secs)));
        }
        match (opened.going_on(v5), &opened.resumed) {
            (Some(resumed), _) => {
                self.resume_session(session, resumed);
                self.lose(session, &opened.lost);
            }
            (None, Some(overtaken)) => self.start_anew(session, overtaken),
            (None, None) => {}
        }
    }

    /// Ends the session of this name, if there is one.
    pub(crate) fn take_over(&mut self, hash: u64, scope: &Scope, client_id: &str) {
        if let Some(old) = self.find(hash, scope, client_id) {
            self.disconnect(old, Reason::SessionTakenOver, "the same client id connected again");
            self.forget_name(old);
        }
    }

    /// The connection that an arrival is going to take over.
    pub fn namesake(&self, arrival: &Arrival) -> Option<u32> {
        let scope = Scope::of(&arrival.identity, arrival.address, arrival.assigned);
        let hash = scope.hash_with(&self.shared.secret, &arrival.client_id);
        self.find(hash, &scope, &arrival.client_id)
    }

    fn find(&self, hash: u64, scope: &Scope, client_id: &str) -> Option<u32> {
        let candidates = self.by_id.get(&hash)?;
        candidates.iter().copied().find(|session| {
            self.sessions
                .get(*session as usize)
                .is_some_and(|it| it.scope == *scope && *it.client_id == *client_id)
        })
    }
}

/// How long the session lives on after its connection: as long as the client asks (3.x: for ever, unless it is clean), at
/// most as long as `[limits]` have it.
fn expiry_secs(connect: &Connect<'_>, limits: &Limits) -> u32 {
    let asked = match connect.version {
        Version::V5 => connect.properties.session_expiry().unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    asked.min(limits.session_expiry_secs_max)
}
