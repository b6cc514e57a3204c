//! How many messages are queued.

use super::Outbox;
use crate::item::Item;
use firehose_mqtt::QoS;

impl Outbox {
    /// How many messages of a lane are queued.
    pub fn count(&self, lane: u16) -> usize {
        self.count_of(|item| item.lane == lane)
    }

    /// How many queued messages will get a packet id.
    pub fn unnumbered(&self) -> usize {
        self.count_of(|item| item.qos != QoS::AtMostOnce)
    }

    fn count_of(&self, is_one: impl Fn(&Item) -> bool) -> usize {
        let items = self.items.iter().filter(|item| is_one(item));
        items.map(|item| (item.range.end - item.range.first) as usize).sum()
    }
}
