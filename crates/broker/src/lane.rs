//! A lane: a next offset, and the subscriptions that read by it.

use firehose_log::Offset;

/// The number of a session's main lane.
pub const MAIN: u16 = 0;

/// Where a lane reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At the end of the log: gets what the shard's mailbox brings.
    Live,
    /// Behind: reads the log from `next` at the pace of the socket, until it stands where the shard stands.
    Replay {
        /// The first offset it has not looked at.
        next: Offset,
        /// The log was asked and has not answered yet.
        asked: bool,
    },
}

/// A range of the log that a lane wanted and that is gone: told with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    text: Box<str>,
    /// The message that tells it, once that is queued: it may be dropped from the outbox and be read again.
    told_at: Option<Offset>,
}

impl Gap {
    /// A gap that nobody was told of.
    pub fn new(text: String) -> Gap {
        Gap { text: text.into(), told_at: None }
    }

    /// Another range behind it is gone before it was told: both are told as one. `next`: where the other begins.
    pub fn and_then(self, next: Offset, to: Offset, why: &str) -> Gap {
        let is_told = self.told_at.is_some_and(|told_at| told_at < next);
        let from = self.text.split_once("..").map(|(from, _)| from).filter(|_| !is_told);
        match from {
            Some(from) => Gap::new(format!("{from}..{to} {why}")),
            None => Gap::new(format!("{next}..{to} {why}")),
        }
    }

    /// As `<from>..<to> <why>`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The message that tells it, once that is queued.
    pub fn told_at(&self) -> Option<Offset> {
        self.told_at
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Where it reads.
    pub reading: Reading,
    /// A gap it has to declare with the next message (MQTT 5), as `<from>..<to> <why>`.
    pub gap: Option<Gap>,
    /// It counts as a replay in the budget of `[limits]`.
    pub counted: bool,
    /// It reads what its client asked to have again, or was away for: at the pace that `[limits]` give an address.
    pub paced: bool,
    /// It waits for room in the budget of replays.
    pub unbudgeted: bool,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane { reading: Reading::Live, gap: None, counted: false, paced: false, unbudgeted: false }
    }
}

impl Lane {
    /// The lane of a replay that begins at an offset, and counts as one.
    pub fn replay(next: Offset) -> Lane {
        let reading = Reading::Replay { next, asked: false };
        Lane { reading, counted: true, paced: true, ..Lane::default() }
    }

    /// A lane of a session that goes on. It reads nothing before [`Lane::begin`].
    pub fn resumed(next: Offset, gap: Option<Gap>, is_replay: bool) -> Lane {
        let reading = Reading::Replay { next, asked: true };
        Lane { reading, gap, counted: false, paced: true, unbudgeted: is_replay }
    }

    /// The shard's place in the log is known: a lane that goes on may read.
    pub fn begin(&mut self) {
        if let Reading::Replay { asked, .. } = &mut self.reading {
            *asked = false;
        }
    }

    /// The first offset that it has not looked at, in a shard that stands at `stand`.
    pub fn next(&self, stand: Offset) -> Offset {
        match self.reading {
            Reading::Live => stand + 1,
            Reading::Replay { next, .. } => next,
        }
    }

    /// Whether it gets what the mailbox brings.
    pub fn is_live(&self) -> bool {
        self.reading == Reading::Live
    }

    /// Falls back to the log, to go on at `from`; a lane that is already behind stays where it is.
    pub fn fall_back(&mut self, from: Offset) {
        if let Some(gap) = &mut self.gap {
            // The message that told it is read again.
            gap.told_at = gap.told_at.filter(|told_at| *told_at < from);
        }
        match &mut self.reading {
            Reading::Live => self.reading = Reading::Replay { next: from, asked: false },
            Reading::Replay { next, .. } => *next = from.min(*next),
        }
    }

    /// The gap that the message at `offset` tells of: the first one that is sent, however often it is read. What is
    /// queued behind that one tells nothing, and both may be dropped and read again.
    pub fn gap_before(&self, offset: Offset) -> Option<Gap> {
        self.gap.clone().filter(|gap| gap.told_at.is_none_or(|told_at| told_at >= offset))
    }

    /// The message at `offset` is queued, and tells the gap.
    pub fn told_gap(&mut self, offset: Offset) {
        if let Some(gap) = &mut self.gap {
            gap.told_at = Some(offset);
        }
    }

    /// The next offset, if it reads the log and no answer is under way.
    pub fn wants(&self) -> Option<Offset> {
        match self.reading {
            Reading::Replay { next, asked: false } => Some(next),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(gap: Option<Gap>) -> Option<String> {
        gap.map(|gap| gap.text().to_owned())
    }

    /// Found by the simulation.
    #[test]
    fn a_gap_is_told_again_when_its_message_and_those_behind_it_are_dropped() {
        let mut lane = Lane { gap: Some(Gap::new("2..4 gone".into())), ..Lane::default() };
        assert_eq!(text(lane.gap_before(5)).as_deref(), Some("2..4 gone"));
        lane.told_gap(5);
        assert_eq!(text(lane.gap_before(6)), None, "the one before tells it");
        lane.fall_back(5);
        assert_eq!(text(lane.gap_before(5)).as_deref(), Some("2..4 gone"));
    }

    /// Found by the simulation.
    #[test]
    fn a_gap_that_was_not_told_grows_by_the_next_one() {
        let untold = Gap::new("2..4 gone".into());
        assert_eq!(untold.clone().and_then(5, 9, "gone too").text(), "2..9 gone too");
        let told = Gap { told_at: Some(5), ..untold.clone() };
        assert_eq!(told.and_then(8, 9, "gone too").text(), "8..9 gone too");
        let to_be_read_again = Gap { told_at: Some(5), ..untold };
        assert_eq!(to_be_read_again.and_then(5, 9, "gone too").text(), "2..9 gone too");
    }
}
