//! Messages that may expire while they wait for their client.

use super::Outbox;
use crate::member::is_shared;

/// A message that expired: the lane for which it was queued, and its place among those that were.
pub(crate) type Expired = (u16, usize);

impl Outbox {
    /// Whether messages of the log are queued that have a Message Expiry Interval: the log gives them again, counted down.
    pub(crate) fn may_expire(&self) -> bool {
        self.items.iter().any(|item| item.logged && item.range.may_expire())
    }

    /// Whether such messages are queued that are in no log.
    pub(crate) fn may_expire_unlogged(&self) -> bool {
        self.items.iter().any(|item| !item.logged && item.range.may_expire())
    }

    /// Counts down, to `now_us`, the intervals of messages that are in no log, and drops those whose interval is over. Gives
    /// those among them that groups had given, in order.
    pub(crate) fn count_down_unlogged(&mut self, now_us: i64) -> Vec<Expired> {
        let mut expired = Vec::new();
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at).filter(|item| !item.logged && item.range.may_expire()) else {
                continue;
            };
            let (range, gone) = item.range.counted_down(now_us);
            if !gone.is_empty() && is_shared(item.lane) {
                let before = self.items.iter().take(at).filter(|it| it.lane == item.lane);
                let before: usize = before.map(|it| (it.range.end - it.range.first) as usize).sum();
                let went = expired.iter().filter(|(lane, _)| *lane == item.lane).count();
                expired.extend(gone.iter().map(|index| (item.lane, before + went + index)));
            }
            let lost_bytes = (item.range.bytes - range.bytes) as usize;
            self.bytes = self.bytes.saturating_sub(lost_bytes);
            if let Some(item) = self.items.get_mut(at) {
                item.range = range;
            }
        }
        self.items.retain(|item| item.range.first != item.range.end);
        expired
    }
}
