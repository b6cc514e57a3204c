//! Followers: sessions whose filters make it long for everybody to find who gets a message. They are taken out of the trie and
//! follow the log instead: they get the same messages in the same order, at their own expense.
//!
//! A walk through the trie visits up to twice as many nodes for each level of a topic where filters have both it and `+`, and each
//! of them pays for filters that it does not have. So when a walk was long, the sessions that have filters of many levels or many
//! `+` are set aside, until their connections end. What is left has few nodes to visit, whatever the topic.

use crate::interests::NOWHERE;
use crate::lane::MAIN;
use crate::lane_filters::LaneFilters;
use crate::member::is_shared;
use crate::session::{Interest, Session, Subscription};
use crate::shard::Shard;
use firehose_log::Offset;
use firehose_topic::{TopicFilter, TopicName, Trie};

/// A filter of so many slashes or more is deep: without those and the next a walk visits 92 nodes at most.
const DEEP_SLASHES: usize = 7;
/// And so is one of so many `+`.
const DEEP_PLUSES: usize = 3;
/// So many bytes of filters (as they count for their clients) are taken out of the trie for one long walk, and all of the session
/// that is about to be set aside.
const SET_ASIDE_BYTES_MAX: usize = 512 << 10;
/// So many filters of followers are compared with a message that is in no log, beside the first few of each one.
const UNLOGGED_COMPARISONS_MAX: usize = 1_000;
/// Those few: who has no more never misses such a message, whatever others have.
const UNLOGGED_FEW: usize = 16;

/// What a session has as a follower.
#[derive(Debug, Default)]
pub struct Follower {
    /// The filters of its main lane, ready for the next answer of the log.
    filters: Option<LaneFilters>,
}

/// Those of a shard.
#[derive(Default)]
pub(crate) struct Followers {
    all: Vec<u32>,
    /// Sessions with a deep filter that are not set aside so far.
    candidates: Vec<u32>,
    /// Where the shard stood when they last looked at the log.
    stand: Offset,
    waking: Vec<u32>,
}

impl Followers {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Puts a subscription that the session is about to get into the trie, unless the session follows.
    pub(crate) fn enter(
        &mut self,
        trie: &mut Trie<Interest>,
        session: u32,
        it: &mut Session,
        subscription: &mut Subscription,
    ) {
        if it.follower.is_some() {
            subscription.place = NOWHERE;
            return;
        }
        let interest = subscription.interest(session, it.subscriptions.free() as u16);
        subscription.place = trie.insert(&subscription.filter, interest);
        if !it.has_deep && is_deep(&subscription.filter) {
            it.has_deep = true;
            self.candidates.push(session);
        }
    }

    /// The session leaves the shard.
    pub(crate) fn forget(&mut self, session: u32, it: &Session) {
        if it.has_deep {
            self.candidates.retain(|known| *known != session);
            self.all.retain(|known| *known != session);
        }
    }
}

impl Shard {
    /// A walk was long: those with deep filters follow the log from `next` on.
    #[cold]
    pub(crate) fn set_aside(&mut self, next: Offset) {
        let mut bytes = 0;
        while bytes < SET_ASIDE_BYTES_MAX
            && let Some(session) = self.followers.candidates.pop()
        {
            let Some(it) = self.sessions.get_mut(session as usize) else { continue };
            bytes += it.subscription_bytes;
            tracing::debug!(client = %it.client_id, "has filters that take long to match: it follows the log");
            it.follower = Some(Box::default());
            for lane in it.lanes() {
                if let Some(lane) = it.lane_mut(lane).filter(|lane| lane.is_live()) {
                    lane.fall_back(next);
                }
            }
            self.followers.all.push(session);
            self.stats.sessions_set_aside.add(1);
            self.take_interests(session);
        }
    }

    fn take_interests(&mut self, session: u32) {
        let end = self.sessions.get(session as usize).map_or(0, |it| it.subscriptions.end());
        for index in 0..end {
            let subscription =
                self.sessions.get_mut(session as usize).and_then(|it| it.subscriptions.get_mut(index));
            if let Some(subscription) = subscription.filter(|it| !is_shared(it.lane)) {
                let place = std::mem::replace(&mut subscription.place, NOWHERE);
                let filter = subscription.filter.clone();
                self.remove_interest(&filter, place);
            }
        }
    }

    /// The shard has looked at messages: followers look at the log.
    #[inline]
    pub(crate) fn wake_followers(&mut self) {
        if !self.followers.is_empty() && self.followers.stand != self.stand {
            self.followers.stand = self.stand;
            let mut waking = std::mem::take(&mut self.followers.waking);
            waking.extend(&self.followers.all);
            waking.drain(..).for_each(|session| self.pump(session));
            self.followers.waking = waking;
        }
    }

    /// Adds what followers want of a message that is in no log.
    pub(crate) fn match_followers(&self, topic: TopicName<'_>, matched: &mut Vec<Interest>) {
        let mut comparisons = 0;
        for session in &self.followers.all {
            let Some(it) = self.sessions.get(*session as usize) else { continue };
            let plain = it.subscriptions.iter().filter(|(_, it)| !is_shared(it.lane));
            for (number, (place, subscription)) in plain.enumerate() {
                comparisons += usize::from(number >= UNLOGGED_FEW);
                if comparisons > UNLOGGED_COMPARISONS_MAX && number >= UNLOGGED_FEW {
                    break;
                }
                if subscription.filter.matches(topic) {
                    matched.push(subscription.interest(*session, place as u16));
                }
            }
        }
    }
}

impl Session {
    /// Whether a lane has read all that a shard has looked at which stands at `stand`.
    pub(crate) fn is_up(&self, lane: u16, stand: Offset) -> bool {
        let follows = self.follower.is_some();
        self.lane(lane)
            .is_some_and(|lane| lane.is_live() || follows && lane.wants().is_some_and(|next| next > stand))
    }

    /// The filters of a lane that reads the log, to be given back by [`Session::keep_filters`].
    pub(crate) fn lane_filters(&mut self, lane: u16) -> LaneFilters {
        let follower = self.follower.as_deref_mut().filter(|_| lane == MAIN);
        let kept = follower.and_then(|follower| follower.filters.take());
        kept.filter(|kept| kept.are_of(self, lane)).unwrap_or_else(|| LaneFilters::of(self, lane))
    }

    /// See [`Session::lane_filters`].
    pub(crate) fn keep_filters(&mut self, filters: LaneFilters) {
        if let Some(follower) = self.follower.as_deref_mut()
            && filters.are_of_lane(MAIN)
        {
            follower.filters = Some(filters);
        }
    }
}

fn is_deep(filter: &TopicFilter) -> bool {
    let count = |wanted: u8| filter.as_str().bytes().filter(|byte| *byte == wanted).count();
    count(b'/') >= DEEP_SLASHES || count(b'+') >= DEEP_PLUSES
}
