//! A client takes less than comes: what is queued for it is counted, and dropped where it is too much; its lanes go on
//! from the log.

use crate::shard::Shard;
use firehose_log::Offset;

impl Shard {
    /// Counts what the connection's outbox keeps alive; over the limits its lanes go on from the log.
    pub(crate) fn park(&mut self, session: u32) {
        let (own_max, all_max) = (self.shared.limits.outbox_bytes_max, self.shared.limits.parked_bytes_max);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let own_bytes = it.persistence.as_deref().map_or(0, |it| it.resend.bytes());
        let Some(connection) = it.connection.as_deref_mut() else { return };
        let mut parked = own_bytes;
        if connection.outbox.has_messages() {
            parked += connection.outbox.pinned_bytes();
        }
        let over = connection.outbox.bytes() > own_max;
        let before = std::mem::replace(&mut connection.parked_bytes, parked);
        self.parked_bytes = self.parked_bytes + parked - before;
        if parked > 0 && (over || self.parked_bytes > all_max) {
            self.fall_back(session);
        }
    }

    /// Once a second: who does not take what may expire meanwhile gets it from the log instead, counted down, or not at
    /// all [MQTT-3.3.2-5, MQTT-3.3.2-6]. What is in no log is counted down where it waits.
    pub(crate) fn sweep_expiring(&mut self) {
        // Only a sealed frame tells what it is.
        self.frames.seal();
        let (mut logged, mut unlogged) = (Vec::new(), Vec::new());
        for (session, it) in &self.sessions {
            let waiting = it.connection.as_deref().filter(|it| it.blocked || it.window_shut);
            match waiting.map(|it| &it.outbox) {
                Some(outbox) if outbox.may_expire() => logged.push(session as u32),
                Some(outbox) if outbox.may_expire_unlogged() => unlogged.push(session as u32),
                _ => {}
            }
        }
        logged.into_iter().for_each(|session| self.fall_back(session));
        unlogged.into_iter().for_each(|session| self.count_down(session));
    }

    fn count_down(&mut self, session: u32) {
        let now_us = self.now.wall_us;
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        it.follow_outbox();
        let Some(connection) = it.connection.as_deref_mut() else { return };
        let expired = connection.outbox.count_down_unlogged(now_us);
        if !expired.is_empty() {
            it.forget_expired(&expired);
            self.settle_soon(session);
        }
        self.park(session);
    }

    /// Drops what is queued; the lanes go on from the log, at the pace of the socket.
    pub(crate) fn fall_back(&mut self, session: u32) {
        let it = self.sessions.get_mut(session as usize).filter(|it| it.connection.is_some());
        if let Some(persistence) = it.and_then(|it| it.persistence.as_deref_mut()) {
            persistence.resend.drop_bytes();
        }
        self.queue_again(session);
    }

    /// Drops what is queued: its lanes read it again.
    pub(crate) fn queue_again(&mut self, session: u32) {
        self.return_queued(session);
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(connection) = it.connection.as_deref_mut() else { return };
        let mut firsts: Vec<(u16, Offset)> = Vec::new();
        if let Some(scans) = it.scans.as_deref_mut() {
            scans.dropped(connection.outbox.first_retained_topic());
        }
        let lost = connection.outbox.drop_messages(|lane, offset| {
            if !firsts.iter().any(|(known, _)| *known == lane) {
                firsts.push((lane, offset));
            }
        });
        self.parked_bytes -= std::mem::take(&mut connection.parked_bytes);
        self.stats.messages_dropped.add(lost);
        for (lane, offset) in firsts {
            if let Some(lane) = it.lane_mut(lane) {
                if lane.is_live() {
                    self.stats.lanes_fallen_back.add(1);
                }
                lane.fall_back(offset);
            }
        }
    }
}
