//! Messages of groups that a member has, and that nobody can get any more.

use crate::outbox::Expired;
use crate::session::Session;
use firehose_log::Offset;

impl Session {
    /// Messages of groups have expired in the outbox, which was followed up to them: nobody gets them.
    pub(crate) fn forget_expired(&mut self, expired: &[Expired]) {
        let Some(shares) = self.shares.as_deref_mut() else { return };
        for (lane, place) in expired.iter().rev() {
            if let Some(share) = shares.of_lane(*lane) {
                share.queued.remove(*place);
            }
        }
    }

    /// A message that a group gave is gone from the log, so that it cannot be sent again. False: the session is in no such
    /// group any more.
    pub(crate) fn lost_of_group(&mut self, lane: u16, offset: Offset, why: &'static str) -> bool {
        let share = self.shares.as_deref_mut().and_then(|shares| shares.of_lane(lane));
        let Some(share) = share else { return false };
        share.lost.push((offset, why));
        share.unsaved_lost.push((offset, why));
        // Nor does it tell what it was to tell.
        share.untold.push(offset);
        share.done.push(offset);
        true
    }
}
