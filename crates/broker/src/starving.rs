//! Lanes that wait for their turn to read the log: there is room for so many answers, and those that take long are given one
//! after the other, so that who has few filters never waits for more than one of who has very many.

use crate::groups::GROUP;
use crate::message::LaneKey;
use crate::shard::Shard;
use std::collections::VecDeque;

/// An answer was dear if it took more comparisons for each event that it looked at.
const COMPARISONS_PER_EVENT_MAX: usize = 16;

/// See the module.
#[derive(Default)]
pub(crate) struct Starving {
    list: VecDeque<u32>,
    /// Those whose last answer was dear.
    dear: VecDeque<u32>,
    /// The question of one of those that is not answered yet.
    dear_read: Option<LaneKey>,
}

impl Starving {
    /// Adds a session or group, which knows itself that it is here.
    pub(crate) fn push_back(&mut self, session: u32) {
        self.list.push_back(session);
    }

    /// A question was answered.
    pub(crate) fn answered(&mut self, key: LaneKey) {
        self.dear_read.take_if(|it| *it == key);
    }
}

/// Whether it is dear to answer who made so many comparisons for so many events.
pub(crate) fn is_dear(comparisons: usize, events: usize) -> bool {
    comparisons > COMPARISONS_PER_EVENT_MAX * events
}

impl Shard {
    /// Whether one more chunk fits: when many lanes fall back at once, they read one after the other.
    pub(crate) fn may_read_log(&self) -> bool {
        self.has_room_for_chunks(1)
    }

    fn has_room_for_chunks(&self, count: usize) -> bool {
        let limits = &self.shared.limits;
        let waiting = (self.reads + count) * limits.replay_chunk_bytes + self.fresh_bytes;
        waiting <= limits.parked_bytes_max || (self.reads == 0 && self.fresh_bytes == 0)
    }

    /// One of those that are dear always may, even if others take all the room.
    fn may_read_dear(&self) -> bool {
        self.starving.dear_read.is_none() && (self.has_room_for_chunks(0) || self.may_read_log())
    }

    /// Whether a lane of the session may read the log now.
    pub(crate) fn has_turn(&self, session: u32) -> bool {
        if self.is_dear(session) { self.may_read_dear() } else { self.may_read_log() }
    }

    fn is_dear(&self, session: u32) -> bool {
        let it = self.sessions.get(session as usize).and_then(|it| it.connection.as_deref());
        it.is_some_and(|connection| connection.dear)
    }

    /// The log is asked for a lane.
    pub(crate) fn asks_log(&mut self, key: LaneKey) {
        self.reads += 1;
        if self.is_dear(key.session) {
            self.starving.dear_read = Some(key);
        }
    }

    pub(crate) fn starve(&mut self, session: u32) {
        let Some(connection) = self.connection(session) else { return };
        let is_dear = connection.dear;
        if !std::mem::replace(&mut connection.starving, true) {
            if is_dear { self.starving.dear.push_back(session) } else { self.starving.push_back(session) }
        }
    }

    /// Lets lanes read that had to wait.
    #[inline]
    pub(crate) fn feed(&mut self) {
        if !self.starving.list.is_empty() || !self.starving.dear.is_empty() {
            self.feed_starving();
        }
    }

    fn feed_starving(&mut self) {
        // What a session waits for may be another thing than a lane's turn: then it waits again.
        for _ in 0..self.starving.dear.len() {
            if !self.may_read_dear() {
                break;
            }
            let Some(session) = self.starving.dear.pop_front() else { break };
            self.let_read(session);
        }
        while self.may_read_log()
            && let Some(session) = self.starving.list.pop_front()
        {
            self.let_read(session);
        }
    }

    fn let_read(&mut self, session: u32) {
        if session & GROUP != 0 {
            self.feed_group(session & !GROUP);
        } else if let Some(connection) = self.connection(session) {
            connection.starving = false;
            self.pump(session);
        }
    }
}
