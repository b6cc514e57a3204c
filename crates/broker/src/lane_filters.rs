//! The filters of a lane that reads the log: compared one by one while they are few, else found by a trie that is made
//! for one answer of the log.

use crate::session::Session;
use firehose_topic::{TopicName, Trie};

/// So many filters are compared one by one: to look into a trie costs as much as that.
const FEW: usize = 8;

/// See the module.
pub(crate) struct LaneFilters {
    lane: u16,
    count: usize,
    /// Places of subscriptions in the session, if there are many.
    trie: Option<Trie<u16>>,
    found: Vec<u16>,
}

impl LaneFilters {
    /// Of a lane as it is now: to be made anew when its subscriptions change.
    pub(crate) fn of(it: &Session, lane: u16) -> LaneFilters {
        let count = it.of_lane(lane).count();
        let trie = (count > FEW).then(|| {
            let mut trie = Trie::new();
            for (place, subscription) in it.of_lane(lane) {
                trie.insert(&subscription.filter, place);
            }
            trie
        });
        LaneFilters { lane, count, trie, found: Vec::new() }
    }

    /// What looking for one event costs, in comparisons with a filter.
    pub(crate) fn comparisons(&self) -> usize {
        self.count.min(FEW)
    }

    /// The places of the subscriptions that match, in their order.
    pub(crate) fn find(&mut self, it: &Session, topic: TopicName<'_>) -> &[u16] {
        self.found.clear();
        match &self.trie {
            None => {
                let matching = it.of_lane(self.lane).filter(|(_, known)| known.filter.matches(topic));
                self.found.extend(matching.map(|(place, _)| place));
            }
            Some(trie) => {
                trie.for_each_match(topic, |place| self.found.push(*place));
                self.found.sort_unstable();
            }
        }
        &self.found
    }
}
