//! Gaps that a client was told of by messages of QoS 0, which nobody acknowledges. They stay with a session that outlives its
//! connection until its client acknowledges a message that was sent behind them: a connection keeps the order, so it has
//! read them by then. Else its next connection tells them again; the one that has told them does not.

use crate::lane::{Gap, MAIN};
use crate::session::Session;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// One for each lane.
    gaps: Vec<(u16, Gap)>,
}

impl Told {
    /// The message that tells a lane's gap has left.
    pub(crate) fn add(&mut self, lane: u16, gap: Gap) {
        match self.gaps.iter_mut().find(|(known, _)| *known == lane) {
            Some((_, before)) => *before = before.clone().and(Some(gap)),
            None => self.gaps.push((lane, gap)),
        }
    }

    /// What a lane has to tell again on the next connection.
    pub(crate) fn of_lane(&self, lane: u16) -> Option<&Gap> {
        self.gaps.iter().find(|(known, _)| *known == lane).map(|(_, gap)| gap)
    }

    /// A lane goes on as the main one.
    pub(crate) fn join_main(&mut self, lane: u16) {
        if let Some(gap) = self.take(lane) {
            self.add(MAIN, gap);
        }
    }

    /// A lane is over, or what it told is.
    pub(crate) fn take(&mut self, lane: u16) -> Option<Gap> {
        let at = self.gaps.iter().position(|(known, _)| *known == lane)?;
        Some(self.gaps.swap_remove(at).1)
    }

    fn read(&mut self, number: u64) {
        self.gaps.retain(|(_, gap)| gap.read_by().is_some_and(|read_by| read_by > number));
    }
}

impl Session {
    /// For a gap that a message of QoS 0 tells, which is queued now: see [`Gap::read_by`].
    pub(crate) fn read_by(&self) -> u64 {
        let sent = self.inflight.as_deref().map_or(0, |window| window.next_number());
        sent + self.connection.as_deref().map_or(0, |it| it.outbox.unnumbered() as u64)
    }

    /// Whether an acknowledgement may say that gaps were read.
    pub(crate) fn has_told(&self) -> bool {
        let mut lanes = std::iter::once(&self.main).chain(self.more_lanes.iter().flatten());
        self.persistence.as_deref().is_some_and(|it| !it.told.gaps.is_empty())
            || lanes.any(|lane| lane.gap.as_ref().is_some_and(|gap| gap.read_by().is_some()))
            || self.shares.as_deref().is_some_and(|shares| shares.has_told())
    }

    /// Its client has the message of this number, of [`Inflight::number`](crate::inflight::Inflight::number), and so has read
    /// what was sent before.
    pub(crate) fn has_read(&mut self, number: u64) {
        if let Some(persistence) = self.persistence.as_deref_mut() {
            persistence.told.read(number);
        }
        for lane in self.lanes() {
            if let Some(lane) = self.lane_mut(lane) {
                lane.gap.take_if(|gap| gap.read_by().is_some_and(|read_by| read_by <= number));
            }
        }
        if let Some(shares) = self.shares.as_deref_mut() {
            shares.has_read(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Lane;

    fn told(text: &str, read_by: u64) -> Gap {
        let mut lane = Lane { gap: Some(Gap::new(text.into())), ..Lane::default() };
        lane.told_gap(9, Some(read_by));
        lane.gap.unwrap()
    }

    fn text(told: &Told, lane: u16) -> Option<&str> {
        told.of_lane(lane).map(Gap::text)
    }

    #[test]
    fn what_was_sent_behind_a_gap_says_that_it_was_read_and_what_was_sent_before_does_not() {
        let mut all = Told::default();
        all.add(MAIN, told("2..4 gone", 3));
        all.add(1, told("2..2 gone", 5));
        all.read(2);
        assert_eq!([text(&all, MAIN), text(&all, 1)], [Some("2..4 gone"), Some("2..2 gone")]);
        all.read(3);
        assert_eq!([text(&all, MAIN), text(&all, 1)], [None, Some("2..2 gone")]);
        all.read(7);
        assert!(all.gaps.is_empty());
    }

    #[test]
    fn gaps_of_one_lane_are_read_with_the_last_of_them() {
        let mut all = Told::default();
        all.add(MAIN, told("2..4 gone", 3));
        all.add(1, told("6..6 gone", 4));
        all.join_main(1);
        assert_eq!([text(&all, MAIN), text(&all, 1)], [Some("2..4 gone\n6..6 gone"), None]);
        all.read(3);
        assert!(text(&all, MAIN).is_some());
        all.read(4);
        assert_eq!(text(&all, MAIN), None);
    }
}
