//! Events that cannot be read: each range is told once, and kept for the operator.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::event::Offset;
use crate::note::Note;
use crate::segment::lock;

/// Ranges that get a line of their own, and are named one by one.
const NAMED_MAX: usize = 16;
/// Ranges that are told from each other; more are not even counted.
const RANGES_MAX: usize = 1_024;

/// Damage that was met since the start: events that are in the log and cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// First and last offset of each range, ascending: the first 16.
    pub named: Vec<(Offset, Offset)>,
    /// How many ranges there are, with those that are not named; at 1,024 the count stops.
    pub ranges: u64,
    /// How many events lie in them.
    pub events: u64,
}

/// The ranges of a log. Whoever comes upon damage says so here; who reads what is whole never comes here.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<Ranges>);

#[derive(Debug, Default)]
struct Ranges {
    /// First offset to last; no two have an offset in common.
    known: BTreeMap<Offset, Offset>,
    /// Lines that were given out.
    told: usize,
}

impl Damaged {
    /// With ranges that were told already, first and last offset each.
    pub(crate) fn told(ranges: &[(Offset, Offset)]) -> Damaged {
        let mut found = Ranges::default();
        for (first, last) in ranges {
            let _ = found.add(*first, *last);
        }
        Damaged(Mutex::new(found))
    }

    /// The events from `first` to `last` cannot be read. Gives the line that says so, if it was not said before.
    pub(crate) fn found(&self, first: Offset, last: Offset) -> Option<Note> {
        let mut ranges = lock(&self.0);
        let (first, last) = ranges.add(first, last)?;
        ranges.told = ranges.told.saturating_add(1);
        match ranges.told {
            0..=NAMED_MAX => Some(Note::EventsDamaged { first, last }),
            told if told == NAMED_MAX + 1 => Some(Note::MoreDamaged),
            _ => None,
        }
    }

    /// What is known of those ranges that are `there` still.
    pub(crate) fn known(&self, there: impl Fn(Offset, Offset) -> bool) -> Damage {
        let mut damage = Damage::default();
        for (first, last) in lock(&self.0).known.iter().filter(|(first, last)| there(**first, **last)) {
            damage.ranges += 1;
            damage.events += last - first + 1;
            if damage.named.len() < NAMED_MAX {
                damage.named.push((*first, *last));
            }
        }
        damage
    }
}

impl Ranges {
    /// Gives the range as it is known now, if this was not known.
    fn add(&mut self, first: Offset, last: Offset) -> Option<(Offset, Offset)> {
        if first > last {
            return None;
        }
        let overlaps = |(_, end): &(&Offset, &Offset)| **end >= first;
        let before: Vec<_> =
            self.known.range(..=last).rev().take_while(overlaps).map(|(at, to)| (*at, *to)).collect();
        if before.iter().any(|(at, to)| *at <= first && *to >= last) {
            return None;
        }
        if before.is_empty() && self.known.len() >= RANGES_MAX {
            return Some((first, last));
        }
        let merged = before.iter().fold((first, last), |(first, last), (at, to)| {
            self.known.remove(at);
            (first.min(*at), last.max(*to))
        });
        self.known.insert(merged.0, merged.1);
        Some(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(first: Offset, last: Offset) -> Option<Note> {
        Some(Note::EventsDamaged { first, last })
    }

    #[test]
    fn a_range_is_told_once_and_once_more_when_it_has_grown() {
        let damaged = Damaged::told(&[(100, 110)]);
        assert_eq!(damaged.found(5, 9), line(5, 9));
        for (first, last) in [(5, 9), (7, 9), (6, 6), (100, 110), (105, 105), (9, 8)] {
            assert_eq!(damaged.found(first, last), None, "{first} to {last}");
        }
        assert_eq!(damaged.found(10, 12), line(10, 12), "beside it is another one");
        assert_eq!(damaged.found(8, 10), line(5, 12));
        assert_eq!(damaged.found(1, 200), line(1, 200));
        let known = damaged.known(|_, _| true);
        assert_eq!(known, Damage { named: vec![(1, 200)], ranges: 1, events: 200 });
    }

    #[test]
    fn after_16_ranges_one_line_says_that_more_are_only_counted() {
        let damaged = Damaged::default();
        let lines: Vec<Note> = (1..=2_000).filter_map(|n| damaged.found(n * 10, n * 10 + 1)).collect();
        assert_eq!(lines.len(), NAMED_MAX + 1);
        assert_eq!(Some(&lines[15]), line(160, 161).as_ref());
        assert_eq!(lines[16], Note::MoreDamaged);
        let known = damaged.known(|_, _| true);
        assert_eq!((known.named.len(), known.ranges, known.events), (16, 1_024, 2_048));
        let later = damaged.known(|first, _| first >= 170);
        assert_eq!((later.named[0], later.ranges), ((170, 171), 1_008));
    }
}
