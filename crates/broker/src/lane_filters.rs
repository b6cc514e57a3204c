//! The filters of a lane that reads the log: compared one by one while they are few, else found by a trie that is made
//! for one answer of the log; a follower's main lane keeps it.

use crate::session::Session;
use firehose_topic::{TopicName, Trie};

/// So many filters are compared one by one: to look into a trie costs as much as that.
const FEW: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct LaneFilters {
    lane: u16,
    /// Which change of the session's subscriptions was the last.
    changes: u32,
    /// Places of subscriptions in the session, if there are many.
    trie: Option<Trie<u16>>,
    comparisons: usize,
    found: Vec<u16>,
}

impl LaneFilters {
    /// Of a lane as it is now: to be made anew when its subscriptions change.
    pub(crate) fn of(it: &Session, lane: u16) -> LaneFilters {
        let count = it.of_lane(lane).count();
        let mut comparisons = 0;
        let trie = (count > FEW).then(|| {
            let mut trie = Trie::new();
            for (place, subscription) in it.of_lane(lane) {
                comparisons += subscription.filter.levels().count();
                trie.insert(&subscription.filter, place);
            }
            trie
        });
        LaneFilters { lane, changes: it.subscriptions.changes(), trie, comparisons, found: Vec::new() }
    }

    /// Whether they are still those of the lane.
    pub(crate) fn are_of(&self, it: &Session, lane: u16) -> bool {
        self.lane == lane && self.changes == it.subscriptions.changes()
    }

    /// Whether that is their lane.
    pub(crate) fn are_of_lane(&self, lane: u16) -> bool {
        self.lane == lane
    }

    /// What looking for events cost since this was last asked, in comparisons with a filter or a level of it; and to make all this.
    pub(crate) fn take_comparisons(&mut self) -> usize {
        std::mem::take(&mut self.comparisons)
    }

    /// The places of the subscriptions that match, in their order.
    pub(crate) fn find(&mut self, it: &Session, topic: TopicName<'_>) -> &[u16] {
        self.found.clear();
        match &self.trie {
            None => {
                for (place, known) in it.of_lane(self.lane) {
                    self.comparisons += 1;
                    if known.filter.matches(topic) {
                        self.found.push(place);
                    }
                }
            }
            Some(trie) => {
                self.comparisons += trie.for_each_match(topic, |place| self.found.push(*place));
                self.found.sort_unstable();
            }
        }
        &self.found
    }
}
