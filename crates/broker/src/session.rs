//! What a client has at the bus: its subscriptions, its lanes, its window. Its connection comes and goes.

use crate::arrival::Scope;
use crate::connection::Connection;
use crate::followers::Follower;
use crate::inflight::Inflight;
use crate::lane::{Gap, Lane, MAIN};
use crate::member::Shares;
use crate::persistence::Persistence;
use crate::scan::Scans;
use crate::subscriptions::Subscriptions;
use firehose_auth::Identity;
use firehose_log::Offset;
use firehose_mqtt::{QoS, SubscribeOptions};
use firehose_topic::TopicFilter;

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// The filter as the trie has it (without `$replay/<from>/`).
    pub filter: TopicFilter,
    /// What was asked for: QoS, no-local, retain-as-published, retain handling.
    pub options: SubscribeOptions,
    /// The subscription identifier, 0: none (MQTT 5).
    pub id: u32,
    /// Which lane reads it.
    pub lane: u16,
    /// The first offset that counts for it.
    pub from: Offset,
    /// Its place in the trie, among those of the same filter; of no meaning where a group fills it.
    pub place: u32,
    /// Some topics that the filter matches may not be read: each one is checked.
    pub checked: bool,
    /// For `$replay` and `$share`: the filter as the client wrote it.
    pub written: Option<Box<str>>,
}

/// What the trie keeps for a subscription: enough to deliver without looking at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The session's place in the shard.
    pub session: u32,
    /// The subscription's place in the session.
    pub subscription: u16,
    /// Its lane.
    pub lane: u16,
    /// The granted QoS.
    pub qos: QoS,
    /// Something in it needs a closer look: no-local, retain-as-published, an identifier, checks.
    pub special: bool,
}

/// What a level of a filter takes in the trie beside its bytes, about half of the worst case.
const LEVEL_BYTES: usize = 32;

/// What a filter counts for in `subscription_bytes_per_client_max`: its bytes, those of the `$replay` filter as it was
/// written, and 32 for each slash, since each level is a node of the trie.
pub fn filter_cost_bytes(filter: &TopicFilter, written: Option<&str>) -> usize {
    let slashes = filter.as_str().bytes().filter(|byte| *byte == b'/').count();
    filter.as_str().len() + written.map_or(0, str::len) + LEVEL_BYTES * slashes
}

/// See the module.
pub struct Session {
    /// Tells it from other sessions that had the same place.
    pub generation: u32,
    /// Seconds of the shard's clock when the client was last heard.
    pub heard_secs: u32,
    /// The keep-alive that holds for it, 0: none.
    pub keep_alive_secs: u16,
    /// The session has, or had, overlapping candidates: more than one subscription.
    pub many: bool,
    /// Every PUBLISH carries its cursor (`firehose-cursor=on` at CONNECT).
    pub cursors: bool,
    /// Hash of scope and client id.
    pub hash: u64,
    /// Who it is.
    pub identity: Identity,
    /// Under which name it is found.
    pub scope: Scope,
    /// MQTT's client id.
    pub client_id: Box<str>,
    /// Its subscriptions.
    pub subscriptions: Subscriptions,
    /// What all of them count for: see [`filter_cost_bytes`].
    pub subscription_bytes: usize,
    /// The main lane.
    pub main: Lane,
    /// Lanes of `since` and `$replay`: lane `n` is at `n - 1`. None once it has joined the main one.
    pub more_lanes: Vec<Option<Lane>>,
    /// Retained messages that its subscriptions have still to get.
    pub scans: Option<Box<Scans>>,
    /// It follows the log.
    pub follower: Option<Box<Follower>>,
    /// It has, or had, a filter of many levels or many `+`.
    pub has_deep: bool,
    /// Groups whose member it is.
    pub shares: Option<Box<Shares>>,
    /// The size of its window.
    pub inflight_max: u16,
    /// QoS 1 and 2 messages on their way to the client.
    pub inflight: Option<Box<Inflight>>,
    /// Its connection.
    pub connection: Option<Box<Connection>>,
    /// What the state has of it; none: it ends with its connection, and began with it.
    pub persistence: Option<Box<Persistence>>,
}

impl Session {
    /// A lane by its number.
    pub fn lane(&self, lane: u16) -> Option<&Lane> {
        match lane {
            MAIN => Some(&self.main),
            more => self.more_lanes.get(usize::from(more) - 1)?.as_ref(),
        }
    }

    /// A lane by its number.
    pub fn lane_mut(&mut self, lane: u16) -> Option<&mut Lane> {
        match lane {
            MAIN => Some(&mut self.main),
            more => self.more_lanes.get_mut(usize::from(more) - 1)?.as_mut(),
        }
    }

    /// Adds a lane and gives its number.
    pub fn add_lane(&mut self, lane: Lane) -> u16 {
        match self.more_lanes.iter().position(Option::is_none) {
            Some(free) => {
                self.more_lanes[free] = Some(lane);
                free as u16 + 1
            }
            None => {
                self.more_lanes.push(Some(lane));
                self.more_lanes.len() as u16
            }
        }
    }

    /// The numbers of all its lanes.
    pub fn lanes(&self) -> impl Iterator<Item = u16> + use<> {
        let numbers: Vec<u16> = self
            .more_lanes
            .iter()
            .enumerate()
            .filter_map(|(index, lane)| lane.as_ref().map(|_| index as u16 + 1))
            .collect();
        std::iter::once(MAIN).chain(numbers)
    }

    /// Everything queued is out: gaps are told, but for those whose message may have to be sent again.
    #[inline]
    pub fn gaps_are_out(&mut self) {
        if self.main.gap.is_some() || !self.more_lanes.is_empty() {
            self.each_gap_is_out();
        }
    }

    fn each_gap_is_out(&mut self) {
        self.lanes().for_each(|lane| self.gap_is_out(lane));
    }

    /// Nothing is queued for a lane: its gap is told, unless its message may have to be sent again. What a message of QoS 0
    /// told stays with a session that outlives its connection until its client is known to have read it.
    pub fn gap_is_out(&mut self, number: u16) {
        let window = self.inflight.as_deref();
        let is_out = |told_at: Offset| {
            window.is_none_or(|window| window.stored().all(|entry| entry.offset != told_at))
        };
        let is_told = |gap: &&Gap| gap.read_by().is_some() || gap.told_at().is_some_and(is_out);
        if self.lane(number).and_then(|lane| lane.gap.as_ref()).filter(is_told).is_none() {
            return;
        }
        let gap = self.lane_mut(number).and_then(|lane| lane.gap.take());
        if let Some(gap) = gap.filter(|gap| gap.read_by().is_some())
            && self.is_persistent()
            && let Some(persistence) = self.persistence.as_deref_mut()
        {
            persistence.told.add(number, gap);
        }
    }

    /// Whether any lane reads the log.
    pub fn is_behind(&self) -> bool {
        !self.main.is_live() || self.more_lanes.iter().flatten().any(|lane| !lane.is_live())
    }

    /// Subscriptions that one lane reads.
    pub fn of_lane(&self, lane: u16) -> impl Iterator<Item = (u16, &Subscription)> {
        let of_lane = self.subscriptions.iter().filter(move |(_, it)| it.lane == lane);
        of_lane.map(|(place, it)| (place as u16, it))
    }
}

impl Subscription {
    /// What the trie keeps for it.
    pub fn interest(&self, session: u32, subscription: u16) -> Interest {
        let options = &self.options;
        Interest {
            session,
            subscription,
            lane: self.lane,
            qos: options.qos,
            special: options.no_local || options.retain_as_published || self.id != 0 || self.checked,
        }
    }
}
