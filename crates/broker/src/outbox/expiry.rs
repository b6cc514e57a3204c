//! Messages that may expire while they wait for their client.

use super::Outbox;

impl Outbox {
    /// Whether messages of the log are queued that have a Message Expiry Interval: what their frames say of it was true
    /// when they were made.
    pub fn may_expire(&self) -> bool {
        let expires = |range: &crate::frames::Range| {
            let mut frames = (range.first..range.end).filter_map(|index| range.frames.get(index));
            frames.any(|at| at.expires)
        };
        self.items.iter().any(|item| item.logged && expires(&item.range))
    }
}
