//! What the standard makes certain about each client's session, as far as steps and explanations depend on it.

use std::collections::{BTreeMap, BTreeSet};

use firehose_mqtt::Version;
use firehose_topic::{TopicFilter, TopicName};

use crate::{
    seen::{Delivery, Origin, WILL},
    session::{Action, Ending, Filter, Options, Role, Step, Will},
};

/// All clients of a session.
pub struct Model {
    roles: Vec<Role>,
    /// One for each client.
    pub states: Vec<State>,
    /// Whether the session of a client that shares has ended while it was away: what it had been given went elsewhere or nowhere.
    pub share_lost: bool,
}

/// A client.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether its connection stands.
    pub connected: bool,
    /// Whether the server has a session for it.
    pub session: bool,
    /// For how long that outlives the connection; 3.x: 0 or 1.
    pub expiry_secs: u32,
    /// Whether it holds acknowledgements back.
    pub held: bool,
    /// Whether it did so when it lost its connection: the rest comes when it is back.
    pub owed: bool,
    /// What is published when it is lost, or waits for its delay; and the step that said so.
    pub will: Option<(Will, usize)>,
    /// Its subscriptions.
    pub filters: BTreeMap<&'static str, Filter>,
    /// What `filters` was before this step: what it brings may still come by them.
    before: BTreeMap<&'static str, Filter>,
    /// Whether messages have waited for it, behind Receive Maximum or for its return, or were perhaps too large.
    pub has_waited: bool,
    /// Those that were subscribed to again with another No Local or Retain As Published.
    changed: BTreeSet<&'static str>,
    /// What `changed` was before this step.
    changed_before: BTreeSet<&'static str>,
}

/// How a step is played.
#[derive(Clone, Debug)]
pub struct Play {
    /// What is done; a little less than the step says, where it may not do that just then.
    pub action: Action,
    /// Before it the client acknowledges what it held back: without that it would be chance what it gets.
    pub release: bool,
    /// What the client saw before is not compared: what it would have got with it is lost now.
    pub forget: bool,
    /// How the client connects again in the middle of a step.
    pub again: Options,
    /// How many seconds pass at the end.
    pub pause_secs: u64,
    /// A will that the step makes due.
    pub due: Option<Due>,
}

/// A will that has to be published, in a case that a broker may overlook.
#[derive(Clone, Debug)]
pub struct Due {
    /// Which message it is.
    pub origin: Origin,
    /// Whether it is retained: who overlooks it differs from then on.
    pub retain: bool,
    /// Why it is due.
    pub cause: Cause,
}

/// Why a will is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its client was taken over by a new connection of the same name.
    TakenOver,
    /// Its delay is not over, but the session is.
    SessionEnded,
}

/// Longer than every short interval of a session, and what a broker needs to notice.
const PAUSE_SECS: u64 = 4;

impl Model {
    /// Nobody is connected.
    pub fn new(roles: &[Role]) -> Self {
        Self { roles: roles.to_vec(), states: vec![State::default(); roles.len()], share_lost: false }
    }

    /// Takes a step. `None`: it cannot be taken now.
    pub fn take(&mut self, step: &Step) -> Option<Play> {
        let version = self.roles.get(step.client)?.version;
        self.states.iter_mut().for_each(State::begin_step);
        let state = &mut self.states[step.client];
        let again = Options { expiry_secs: state.expiry_secs, ..Options::resuming() };
        let play = Play {
            action: step.action.clone(),
            release: false,
            forget: false,
            again,
            pause_secs: 0,
            due: None,
        };
        let needs_connection = !matches!(step.action, Action::Connect(_));
        if needs_connection && !state.connected {
            return None;
        }
        match &step.action {
            Action::Connect(options) => Some(self.connect(step, options, play)),
            Action::End(ending) => Some(self.end(step.client, *ending, play)),
            Action::Subscribe { filters, .. } => {
                filters.iter().for_each(|filter| state.subscribe(*filter));
                Some(Play { release: std::mem::take(&mut state.held), ..play })
            }
            Action::Unsubscribe(filters) => {
                state.filters.retain(|filter, _| !filters.contains(filter));
                state.changed.retain(|filter| !filters.contains(filter));
                Some(Play { release: std::mem::take(&mut state.held), ..play })
            }
            Action::Publish(_) => Some(play),
            Action::Resend(..) if state.expiry_secs == 0 => None,
            // Which of the two stays retained would be chance: QoS 2 counts from PUBLISH or from PUBREL [MQTT-4.3.3].
            Action::Resend(message, _) if state.retains_will_on(message.topic) => None,
            Action::Resend(..) => {
                state.will = None;
                Some(Play { release: std::mem::take(&mut state.held), ..play })
            }
            Action::Hold(_) => {
                state.has_waited = true;
                (!std::mem::replace(&mut state.held, true)).then_some(play)
            }
            Action::Release => std::mem::take(&mut state.held).then_some(play),
            Action::Lapse { .. } | Action::Expire(_) if version != Version::V5 => None,
            Action::Expire(_) => Some(Play { pause_secs: PAUSE_SECS, ..play }),
            Action::Lapse { expiry_secs, .. } => {
                let release = std::mem::take(&mut state.held);
                let ends = state.expiry_secs == 0;
                let due = state.due(step.client, Cause::TakenOver, |delay| ends || delay == 0);
                let lives = u64::from(*expiry_secs) > PAUSE_SECS;
                if !lives {
                    self.lose(step.client, true);
                }
                let state = &mut self.states[step.client];
                (state.connected, state.session, state.expiry_secs) = (false, lives, *expiry_secs);
                state.will = None;
                Some(Play { release, pause_secs: PAUSE_SECS, due, ..play })
            }
        }
    }

    /// The step by which a client comes back at the end: `None` if it is there, or nothing waits for it.
    pub fn coming_back(&self, client: usize, number: usize) -> Option<Step> {
        let state = &self.states[client];
        let action = if state.held {
            Action::Release
        } else if state.session && !state.connected {
            Action::Connect(Options { expiry_secs: state.expiry_secs, ..Options::resuming() })
        } else {
            return None;
        };
        Some(Step { number, client, action })
    }

    /// Whether what a client gets comes later in one broker than in the other, as both may have it.
    pub fn is_waiting(&self, client: usize) -> bool {
        let state = &self.states[client];
        state.held || state.owed
    }

    /// Whether a client takes so many messages at once, and no more.
    pub fn has_receive_maximum(&self, client: usize) -> bool {
        self.roles.get(client).is_some_and(|role| role.receive_maximum.is_some())
    }

    /// Whether all that goes to shared subscriptions must have come.
    pub fn shares_flow(&self) -> bool {
        let mut sharing = self.roles.iter().zip(&self.states).filter(|(role, _)| role.shares);
        sharing.all(|(_, state)| !state.session || state.connected && !state.held)
    }

    fn connect(&mut self, step: &Step, options: &Options, play: Play) -> Play {
        let client = step.client;
        let version = self.roles[client].version;
        let state = &mut self.states[client];
        let was_away = !state.connected;
        // What does not outlive its connection is not taken over with it.
        let ends = state.session && (options.clean || !was_away && state.expiry_secs == 0);
        let release = ends && state.held;
        let forget = options.clean && state.owed;
        let due = match was_away {
            true => state.due(client, Cause::SessionEnded, |_| options.clean),
            false => state.due(client, Cause::TakenOver, |delay| ends || delay == 0),
        };
        if ends {
            self.lose(client, was_away);
        }
        let state = &mut self.states[client];
        state.connected = true;
        state.session = true;
        state.expiry_secs = match version {
            Version::V5 => options.expiry_secs,
            _ => u32::from(!options.clean),
        };
        let delay_secs = |will: &Will| if version == Version::V5 { will.delay_secs } else { 0 };
        let will = options.will.clone();
        state.will = will.map(|will| (Will { delay_secs: delay_secs(&will), ..will }, step.number));
        state.has_waited |= options.packet_bytes_max.is_some();
        (state.held, state.owed) = (false, false);
        Play { release, forget, due, ..play }
    }

    fn end(&mut self, client: usize, ending: Ending, play: Play) -> Play {
        let v5 = self.roles[client].version == Version::V5;
        let state = &mut self.states[client];
        // Who connected without a Session Expiry Interval may not ask for one at the end [MQTT-3.1.2-23, 3.14.2.2.2].
        let ending = match ending {
            Ending::NormalExpiring(_) if !v5 || state.expiry_secs == 0 => Ending::Normal,
            other => other,
        };
        if let Ending::NormalExpiring(secs) = ending {
            state.expiry_secs = secs;
        }
        let lives = state.expiry_secs > 0;
        let is_lost = matches!(ending, Ending::Abrupt | Ending::WithWill);
        let due = state.due(client, Cause::SessionEnded, |delay| is_lost && !lives && v5 && delay > 0);
        state.will.take_if(|(will, _)| !(is_lost && lives && v5 && will.delay_secs > 0));
        state.connected = false;
        state.has_waited |= lives;
        let held = std::mem::take(&mut state.held);
        state.owed = held && lives;
        if !lives {
            // mosquitto 2.0 keeps a session as long as its will waits.
            self.lose(client, due.is_some());
        }
        Play { action: Action::End(ending), release: held && !lives, due, ..play }
    }

    /// Its session ends.
    fn lose(&mut self, client: usize, was_away: bool) {
        let shared = self.states[client].filters.keys().any(|filter| filter.starts_with("$share/"));
        self.share_lost |= shared && was_away;
        self.states[client].session = false;
        self.states[client].filters.clear();
        self.states[client].changed.clear();
    }
}

impl State {
    /// Its will, if it is due with that delay.
    fn due(&self, client: usize, cause: Cause, is_due: impl FnOnce(u32) -> bool) -> Option<Due> {
        let (Will { message, delay_secs }, step) = self.will.as_ref()?;
        let origin = Origin { client, step: *step, place: WILL, qos: message.qos as u8 };
        is_due(*delay_secs).then_some(Due { origin, retain: message.retain, cause })
    }

    fn retains_will_on(&self, topic: &str) -> bool {
        self.will.as_ref().is_some_and(|(Will { message, .. }, _)| message.retain && message.topic == topic)
    }

    fn begin_step(&mut self) {
        self.before.clone_from(&self.filters);
        self.changed_before.clone_from(&self.changed);
    }

    fn subscribe(&mut self, filter: Filter) {
        let options = |filter: &Filter| (filter.options.no_local, filter.options.retain_as_published);
        let before = self.filters.insert(filter.filter, filter);
        if before.is_some_and(|before| options(&before) != options(&filter)) {
            self.changed.insert(filter.filter);
        }
    }

    /// Whether a message matches a subscription of it with No Local.
    pub fn has_no_local(&self, message: &Delivery) -> bool {
        no_local(&self.filters, message).contains(&true)
    }

    /// Whether a message matches a subscription whose options were replaced.
    pub fn has_changed(&self, message: &Delivery) -> bool {
        self.changed.union(&self.changed_before).any(|filter| matches(filter, message))
    }

    /// How many of its subscriptions, shared ones apart, a message may match: those of now or those before the step; with
    /// and without No Local, if nobody knows whose message it is.
    pub fn matching(&self, client: usize, message: &Delivery) -> Vec<usize> {
        let mut counts = Vec::new();
        for filters in [&self.filters, &self.before] {
            let no_local = no_local(filters, message);
            let (all, own) = (no_local.len(), no_local.iter().filter(|no_local| !**no_local).count());
            match message.origin() {
                Some(origin) if origin.client == client => counts.push(own),
                Some(_) => counts.push(all),
                None => counts.extend([own, all]),
            }
        }
        counts
    }
}

/// For each subscription that matches, shared ones apart, whether it has No Local.
fn no_local(filters: &BTreeMap<&'static str, Filter>, message: &Delivery) -> Vec<bool> {
    let matching = filters.values().filter(|subscription| matches(subscription.filter, message));
    matching.map(|subscription| subscription.options.no_local).collect()
}

fn matches(filter: &str, message: &Delivery) -> bool {
    let topic = TopicName::new(&message.topic);
    let is_it = |topic| TopicFilter::new(filter).is_ok_and(|filter| filter.matches(topic));
    !filter.starts_with("$share/") && topic.is_ok_and(is_it)
}

impl Options {
    /// Goes on with the session, and asks for nothing else.
    pub fn resuming() -> Self {
        Self { clean: false, expiry_secs: 0, packet_bytes_max: None, aliases_max: None, will: None }
    }
}
