//! How groups read the log: what members gave back, event by event, and what none could take when it came, at the pace
//! of the members.

use crate::fetched::FetchedEvents;
use crate::group::{Offered, Phase};
use crate::groups::GROUP;
use crate::message::LaneKey;
use crate::shard::{Action, Shard};
use firehose_log::{Chunk, Offset, ReadError};

/// Why one that was given back cannot be given again.
const GONE: &str = "gone from the log before anybody could take it";
/// Messages that were given back are read so many at a time.
const PAGE: usize = 32;

impl Shard {
    /// Gives members what waits: first what others gave back, then what the log has, as far as they take it.
    pub(crate) fn pump_group(&mut self, slot: u32) {
        let stand = self.stand;
        self.groups.list(slot);
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        let credit = group.credit();
        if credit == 0 || group.phase == Phase::Beginning || !group.fetching.is_empty() {
            return;
        }
        let returned = group.first_returned(credit.min(PAGE));
        if !returned.is_empty() {
            return self.fetch_returned(slot, returned);
        }
        let Phase::Replay { next, asked: false } = group.phase else { return };
        let before = group.ahead_bytes;
        let next = group.offer_ahead(&self.auth, self.now, next, stand);
        group.phase = Phase::Replay { next, asked: false };
        self.groups.ahead_bytes -= before - group.ahead_bytes;
        if !group.ahead.is_empty() {
            return;
        }
        if next > stand {
            group.phase = Phase::Live;
            return;
        }
        if !self.may_read_log() {
            return self.starve_group(slot);
        }
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        group.phase = Phase::Replay { next, asked: true };
        let lane = LaneKey { session: GROUP | slot, generation: group.generation, lane: 0 };
        self.reads += 1;
        let bytes_max = self.shared.limits.replay_chunk_bytes;
        self.actions.push(Action::Read { lane, from: next, upto: stand, bytes_max });
    }

    fn fetch_returned(&mut self, slot: u32, offsets: Vec<Offset>) {
        if !self.may_read_log() {
            return self.starve_group(slot);
        }
        let Some(group) = self.groups.all.get_mut(slot as usize) else { return };
        group.fetching.clone_from(&offsets);
        self.reads += 1;
        self.actions.push(Action::Fetch { session: (GROUP | slot, group.generation), offsets });
    }

    fn starve_group(&mut self, slot: u32) {
        if let Some(group) = self.groups.all.get_mut(slot as usize)
            && !std::mem::replace(&mut group.starving, true)
        {
            self.starving.push_back(GROUP | slot);
        }
    }

    /// There is room to read the log.
    pub(crate) fn feed_group(&mut self, slot: u32) {
        if let Some(group) = self.groups.all.get_mut(slot as usize) {
            group.starving = false;
            self.pump_group(slot);
        }
    }

    /// The log's answer to a group that reads it.
    pub(crate) fn group_answer(&mut self, key: LaneKey, chunk: Result<Chunk, ReadError>) {
        let slot = key.session & !GROUP;
        let room = self.shared.limits.parked_bytes_max;
        let Some(group) = self.groups.get(slot, key.generation) else { return };
        let Phase::Replay { next, .. } = group.phase else { return };
        group.phase = Phase::Replay { next, asked: false };
        match chunk {
            Ok(Chunk::Batches(batches)) => {
                let bytes: usize = batches.iter().map(|batch| batch.bytes_len()).sum();
                let before = std::mem::replace(&mut group.ahead_bytes, bytes);
                group.ahead = batches.into();
                self.groups.ahead_bytes = self.groups.ahead_bytes + bytes - before;
            }
            // The answer to an older question.
            Ok(Chunk::Gap { next: behind, .. }) if behind <= next => {}
            Ok(Chunk::Gap { next: behind, why }) => {
                let to = behind.saturating_sub(1);
                group.declare(next, to, why);
                group.phase = Phase::Replay { next: behind, asked: false };
                tracing::warn!(group = %group.key.written, next, behind, "a shared subscription was overtaken by the retention");
                self.stats.gaps_declared.add(1);
            }
            Ok(Chunk::End | Chunk::Blocked) => {}
            Err(error) => {
                // It is asked again when members come, go, or settle something, and once a second.
                tracing::warn!(group = %group.key.written, %error, "the log cannot be read for a shared subscription");
                group.changed = true;
                return;
            }
        }
        self.pump_group(slot);
        // What nobody takes now is kept while there is room, and read again else.
        if self.groups.ahead_bytes > room
            && let Some(group) = self.groups.all.get_mut(slot as usize)
        {
            self.groups.ahead_bytes -= group.ahead_bytes;
            group.drop_ahead();
        }
    }

    /// The log's answer for what was given back.
    pub(crate) fn group_fetched(
        &mut self,
        (slot, generation): (u32, u32),
        fetched: Result<FetchedEvents, ReadError>,
    ) {
        let slot = slot & !GROUP;
        let (auth, now) = (self.auth.clone(), self.now);
        let Some(group) = self.groups.get(slot, generation) else { return };
        let asked = std::mem::take(&mut group.fetching);
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::warn!(group = %group.key.written, %error, "the log cannot be read for a shared subscription");
                group.changed = true;
                return;
            }
        };
        let (mut gone, mut waits) = (0, false);
        for offset in asked {
            let offered = match fetched.batch_of(offset) {
                Some(batch) => group.offer(&auth, now, batch, (offset - batch.base()) as usize),
                None => {
                    // What was taken back is told to nobody.
                    if fetched.why_gone(offset).is_some() {
                        group.declare(offset, offset, GONE);
                        self.stats.gaps_declared.add(1);
                    }
                    Offered::Skipped
                }
            };
            match offered {
                Offered::Waits => {
                    waits = true;
                    break;
                }
                Offered::Skipped => gone += 1,
                Offered::Given => {}
            }
            group.forget_returned(offset);
        }
        self.stats.messages_dropped.add(gone);
        match waits {
            // Who may have it has no room: it is asked for again when somebody settles something.
            true => self.groups.list(slot),
            false => self.pump_group(slot),
        }
    }
}
