//! What a client must not be told before it is saved: SUBACK and UNSUBACK, PUBREL and PUBCOMP, and QoS 2 messages, of
//! sessions that outlive their connection.
//!
//! A session has at most one save under way. What it wishes meanwhile is collected, and saved together after that: so
//! the state has one record to write for each session and commit, however many packets come.

use crate::connection::Connection;
use crate::inbound::Flow;
use crate::outbox::OwnFrame;
use crate::shard::{Action, Shard};
use crate::state::{Operation, Request};
use firehose_log::Offset;
use firehose_mqtt::{QoS, Version};

/// QoS 2 messages of one session that wait for the state.
const HELD_BYTES_MAX: usize = 64 << 10;
/// A session that was sent nothing is saved so often all the same, so that it does not fall behind the retention.
const QUIET_SECS_MAX: u32 = 60;
/// Or when the log went on so far.
const QUIET_OFFSETS_MAX: Offset = 100_000;

/// What leaves when a save is answered.
#[derive(Debug, Default)]
struct Held {
    replies: Vec<u8>,
    messages: Vec<OwnFrame>,
}

/// What a session wants to have saved.
#[derive(Debug, Default)]
struct Wish {
    /// Its progress, and its subscriptions if they changed.
    progress: bool,
    /// Packet ids that its client released.
    forget: Vec<u16>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// A save is under way.
    is_saving: bool,
    /// One was answered since the connection began: so what earlier connections of the session wished is saved too.
    has_saved: bool,
    /// It stands in the shard's list of sessions to save.
    listed: bool,
    /// Waits for the save that is under way.
    sealed: Held,
    /// Waits for the next one.
    open: Held,
    wish: Wish,
    /// Bytes of all messages.
    message_bytes: usize,
}

impl Hold {
    /// Whether messages wait: nothing may overtake them.
    pub(crate) fn has_messages(&self) -> bool {
        !self.sealed.messages.is_empty() || !self.open.messages.is_empty()
    }

    /// Bytes of the messages.
    pub(crate) fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Drops the messages' bytes, and says how many: they come from the log once they are saved.
    pub(crate) fn drop_bytes(&mut self) -> usize {
        for frame in self.sealed.messages.iter_mut().chain(&mut self.open.messages) {
            frame.bytes = Vec::new();
        }
        std::mem::take(&mut self.message_bytes)
    }

    /// Forgets packet ids with the next save.
    pub(crate) fn forget(&mut self, packet_ids: &[u16]) {
        self.wish.forget.extend(packet_ids);
    }

    /// Packet ids that were released and are not forgotten yet.
    pub(crate) fn take_forgets(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.wish.forget)
    }

    /// Whether everything that was wished so far is saved.
    fn is_settled(&self) -> bool {
        self.has_saved && !self.is_saving && !self.listed
    }

    /// Bytes of replies that wait for the state.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.sealed.replies.len() + self.open.replies.len()
    }
}

/// What a reply waits for.
pub(crate) enum Saving {
    /// The session's subscriptions and progress.
    Progress,
    /// That the id of a QoS 2 message of the client's is forgotten.
    Forget(u16),
    /// What was wished before, also by earlier connections of the session: the state may not have been written since.
    Earlier,
}

impl Shard {
    /// Writes a reply that leaves once something is saved; at once if the session ends with its connection.
    pub(crate) fn reply_when_saved(
        &mut self,
        session: u32,
        saving: Saving,
        write: impl FnOnce(&mut Vec<u8>, Version),
    ) -> Flow {
        let Some(it) = self.sessions.get_mut(session as usize) else { return Flow::Stop };
        let is_persistent = it.is_persistent();
        let (Some(connection), Some(persistence)) =
            (it.connection.as_deref(), it.persistence.as_deref_mut().filter(|_| is_persistent))
        else {
            return self
                .reply(session, |Connection { outbox, version, .. }| write(outbox.control(), *version));
        };
        let hold = &mut persistence.hold;
        match saving {
            Saving::Earlier if hold.is_settled() => {
                return self
                    .reply(session, |Connection { outbox, version, .. }| write(outbox.control(), *version));
            }
            Saving::Earlier | Saving::Progress => hold.wish.progress = true,
            Saving::Forget(id) => hold.wish.forget.push(id),
        }
        write(&mut hold.open.replies, connection.version);
        self.list_save(session);
        self.limit_replies(session)
    }

    /// Bytes of replies that wait for the state.
    pub(crate) fn held_reply_bytes(&self, session: u32) -> usize {
        let persistence = self.sessions.get(session as usize).and_then(|it| it.persistence.as_deref());
        persistence.map_or(0, |it| it.hold.reply_bytes())
    }

    /// Has the session's progress saved in this turn.
    pub(crate) fn save_soon(&mut self, session: u32) {
        if let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.is_persistent())
            && let Some(persistence) = it.persistence.as_deref_mut()
        {
            persistence.hold.wish.progress = true;
            self.list_save(session);
        }
    }

    fn list_save(&mut self, session: u32) {
        if let Some(it) = self.sessions.get_mut(session as usize)
            && let Some(persistence) = it.persistence.as_deref_mut()
            && !std::mem::replace(&mut persistence.hold.listed, true)
        {
            self.to_save.push((session, it.generation));
        }
    }

    /// Asks the state to save what the sessions wished in this turn.
    pub(crate) fn save_all(&mut self) {
        if self.to_save.is_empty() {
            return;
        }
        // Only a sealed frame tells its offset.
        self.frames.seal();
        for (session, generation) in std::mem::take(&mut self.to_save) {
            self.save(session, generation);
        }
    }

    fn save(&mut self, session: u32, generation: u32) {
        let (stand, now_secs) = (self.stand, self.now.secs());
        let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.generation == generation)
        else {
            return;
        };
        let Some(persistence) = it.persistence.as_deref_mut() else { return };
        let hold = &mut persistence.hold;
        if hold.is_saving {
            // Listed it stays: the answer to that one takes it up.
            return;
        }
        (hold.is_saving, hold.listed) = (true, false);
        hold.sealed = std::mem::take(&mut hold.open);
        let wish = std::mem::take(&mut hold.wish);
        let name = persistence.name.clone();
        let mut operations = match wish.progress {
            true => it.save_operations(stand, now_secs),
            false => Vec::new(),
        };
        if !wish.forget.is_empty() {
            operations.push(Operation::Forget { name, packet_ids: wish.forget });
        }
        self.actions.push(Action::State(Request { token: token(session, generation), operations }));
    }

    /// The state has saved what it was asked to: what waited for that leaves.
    pub(crate) fn saved(&mut self, token: u64) {
        if self.group_saved(token) {
            return;
        }
        let (session, generation) = (token as u32, (token >> 32) as u32);
        let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.generation == generation)
        else {
            return;
        };
        let (Some(persistence), Some(connection)) =
            (it.persistence.as_deref_mut(), it.connection.as_deref_mut())
        else {
            return;
        };
        let hold = &mut persistence.hold;
        (hold.is_saving, hold.has_saved) = (false, true);
        let Held { replies, messages } = std::mem::take(&mut hold.sealed);
        let message_bytes: usize = messages.iter().map(|frame| frame.bytes.len()).sum();
        hold.message_bytes -= message_bytes;
        self.held_bytes -= message_bytes;
        connection.outbox.control().extend_from_slice(&replies);
        connection.window_shut = false;
        messages.into_iter().for_each(|frame| persistence.resend.queue(frame));
        if persistence.hold.listed {
            self.to_save.push((session, generation));
        }
        self.shares_saved(session);
        self.dirty(session);
        self.limit_replies(session);
    }

    /// Takes QoS 2 messages, and what stands between them, from the front of the outbox, to be saved before they leave.
    /// False: none can be taken now.
    pub(crate) fn hold_messages(&mut self, session: u32) -> bool {
        let Some(it) = self.sessions.get_mut(session as usize) else { return false };
        let inflight_max = it.inflight_max;
        let (Some(persistence), Some(connection)) =
            (it.persistence.as_deref_mut(), it.connection.as_deref_mut())
        else {
            return false;
        };
        let window = it
            .inflight
            .get_or_insert_with(|| Box::new(crate::inflight::Inflight::resumed(inflight_max, &[], 1)));
        let hold = &mut persistence.hold;
        let waits = hold.has_messages();
        let wanted = match connection.outbox.front_qos() {
            Some(QoS::ExactlyOnce) => true,
            Some(QoS::AtLeastOnce) => waits,
            _ => false,
        };
        if !wanted || persistence.resend.is_busy() {
            return false;
        }
        // All sessions together hold a little; each one may always hold a message.
        let room = match self.held_bytes < self.shared.limits.parked_bytes_max {
            true => HELD_BYTES_MAX.saturating_sub(hold.message_bytes),
            false => usize::from(!waits),
        };
        let taken = connection.outbox.take_front(window, room, &mut hold.open.messages);
        hold.message_bytes += taken;
        self.held_bytes += taken;
        if taken == 0 {
            return false;
        }
        hold.wish.progress = true;
        self.list_save(session);
        true
    }

    /// Once a second: saves how far sessions got, without anybody waiting for it; and lets lanes read that had no room
    /// among the replays.
    pub(crate) fn sweep_persistent(&mut self) {
        let (now_secs, stand) = (self.now.secs(), self.stand);
        let mut due = Vec::new();
        let mut unbudgeted = Vec::new();
        for (session, it) in &self.sessions {
            let Some(persistence) = it.persistence.as_deref() else { continue };
            let is_old = stand > persistence.saved_stand
                && (now_secs.saturating_sub(persistence.saved_secs) >= QUIET_SECS_MAX
                    || stand - persistence.saved_stand >= QUIET_OFFSETS_MAX);
            if persistence.progress_changed || persistence.subscriptions_changed || is_old {
                due.push(session as u32);
            }
            if it.more_lanes.iter().flatten().any(|lane| lane.unbudgeted) {
                unbudgeted.push(session as u32);
            }
        }
        due.into_iter().for_each(|session| self.save_soon(session));
        unbudgeted.into_iter().for_each(|session| self.pump(session));
    }
}

/// Names the save of a session: it has one at a time.
fn token(session: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(session)
}
