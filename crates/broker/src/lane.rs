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

/// Ranges that a gap names one by one; what comes beyond them is told as one that is gone in part.
const RANGES_MAX: usize = 16;

/// Ranges of the log that a lane wanted and that are gone: told with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// A line for each.
    text: Box<str>,
    /// The message that tells it, once that is queued: it may be dropped from the outbox and be read again.
    told_at: Option<Offset>,
    /// That one is of QoS 0: see [`Gap::read_by`].
    read_by: Option<u64>,
}

impl Gap {
    /// A gap that nobody was told of.
    pub fn new(text: String) -> Gap {
        Gap { text: text.into(), told_at: None, read_by: None }
    }

    /// Another range behind it is gone before it was told, or while the message that tells it may have to be sent again:
    /// both are told at once. `next`: where the other begins. What stands between them is there, so that they are one
    /// only if they meet.
    pub fn and_then(self, next: Offset, to: Offset, why: &str) -> Gap {
        let (before, last) = match self.text.rsplit_once('\n') {
            Some((before, last)) => (Some(before), last),
            None => (None, &*self.text),
        };
        let parsed = parsed(last);
        let is_full = before.is_some_and(|before| before.lines().count() + 1 >= RANGES_MAX);
        let grown = match parsed {
            Some((from, end, known)) if next.checked_sub(1) == Some(end) && !known.starts_with("in part") => {
                Some(format!("{from}..{to} {why}"))
            }
            // What was given back to a group may be of before.
            Some((from, end, _)) if is_full => {
                Some(format!("{}..{} in part: {why}", from.min(next), to.max(end)))
            }
            _ => None,
        };
        Gap::new(match (before, grown) {
            (Some(before), Some(grown)) => format!("{before}\n{grown}"),
            (None, Some(grown)) => grown,
            (_, None) => format!("{}\n{next}..{to} {why}", self.text),
        })
    }

    /// That of another lane that goes on as one with this one's. Each may have to be told again as long as it is there.
    pub fn and(self, other: Option<Gap>) -> Gap {
        let Some(other) = other else { return self };
        let told_at = self.told_at.zip(other.told_at).map(|(one, another)| one.max(another));
        let read_by = self.read_by.max(other.read_by).filter(|_| told_at.is_some());
        let new = other.ranges().filter(|range| !self.ranges().any(|known| known == *range));
        let lines: Vec<&str> = self.ranges().chain(new).collect();
        Gap { text: few(&lines).into(), told_at, read_by }
    }

    /// Another range is gone beside what a lane has to declare: a message that is still to come tells them all.
    pub fn widened(gap: Option<Gap>, from: Offset, to: Offset, why: &str) -> Gap {
        let range = format!("{from}..{to} {why}");
        let Some(text) = gap.map(|gap| gap.text) else { return Gap::new(range) };
        if text.lines().filter_map(parsed).any(|(first, last, _)| first <= from && to <= last) {
            return Gap::new(text.into());
        }
        if text.lines().count() < RANGES_MAX {
            return Gap::new(format!("{text}\n{range}"));
        }
        let (before, last) = text.rsplit_once('\n').unwrap_or(("", &text));
        let (first, last, _) = parsed(last).unwrap_or((from, to, why));
        Gap::new(format!("{before}\n{}..{} in part: {why}", first.min(from), last.max(to)))
    }

    /// Whether each range of another one lies in one of these.
    pub fn covers(&self, other: &Gap) -> bool {
        let lies_here = |(from, to, _): (Offset, Offset, &str)| {
            self.ranges().filter_map(parsed).any(|(first, last, _)| first <= from && to <= last)
        };
        other.ranges().filter_map(parsed).all(lies_here)
    }

    /// Each range, as `<from>..<to> <why>`.
    pub fn ranges(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// As it is stored: each range in a line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The message that tells it, once that is queued.
    pub fn told_at(&self) -> Option<Offset> {
        self.told_at
    }

    /// Told by a message of QoS 0, which nobody acknowledges: who acknowledges the message of this number (of
    /// [`Inflight::number`](crate::inflight::Inflight::number)), or a later one, has read it.
    pub fn read_by(&self) -> Option<u64> {
        self.read_by
    }

    /// The message that tells it is not sent: another one has to.
    pub fn untold(&mut self) {
        (self.told_at, self.read_by) = (None, None);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Where it reads.
    pub reading: Reading,
    /// A gap it has to declare with the next message (MQTT 5).
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
        if let Some(gap) = self.gap.as_mut().filter(|gap| gap.told_at.is_some_and(|told_at| told_at >= from))
        {
            // The message that told it is read again.
            gap.untold();
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

    /// The message at `offset` is queued, and tells the gap. `read_by`: see [`Gap::read_by`]; none: it is acknowledged
    /// itself.
    pub fn told_gap(&mut self, offset: Offset, read_by: Option<u64>) {
        if let Some(gap) = &mut self.gap {
            (gap.told_at, gap.read_by) = (Some(offset), read_by);
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

/// The ranges as a text, of which the last are one if they are too many.
fn few(lines: &[&str]) -> String {
    if lines.len() <= RANGES_MAX {
        return lines.join("\n");
    }
    let (few, rest) = lines.split_at(RANGES_MAX - 1);
    let rest: Vec<_> = rest.iter().filter_map(|line| parsed(line)).collect();
    let from = rest.iter().map(|(from, ..)| *from).min().unwrap_or_default();
    let to = rest.iter().map(|(_, to, _)| *to).max().unwrap_or_default();
    let why = rest.last().map_or("", |(.., why)| why.trim_start_matches("in part: "));
    format!("{}\n{from}..{to} in part: {why}", few.join("\n"))
}

/// A line of a gap: first and last offset, why.
fn parsed(line: &str) -> Option<(Offset, Offset, &str)> {
    let (range, why) = line.split_once(' ')?;
    let (first, last) = range.split_once("..")?;
    Some((first.parse().ok()?, last.parse().ok()?, why))
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
        lane.told_gap(5, None);
        assert_eq!(text(lane.gap_before(6)), None, "the one before tells it");
        lane.fall_back(5);
        assert_eq!(text(lane.gap_before(5)).as_deref(), Some("2..4 gone"));
    }

    /// Found by the simulation: when nothing else was queued, the gap counted as told.
    #[test]
    fn a_gap_whose_message_is_dropped_counts_as_untold() {
        let mut lane = Lane { gap: Some(Gap::new("2..4 gone".into())), ..Lane::default() };
        lane.told_gap(5, None);
        lane.fall_back(6);
        assert_eq!(lane.gap.as_ref().and_then(Gap::told_at), Some(5), "its message is not among those");
        lane.fall_back(5);
        assert_eq!(lane.gap.as_ref().and_then(Gap::told_at), None);
    }

    /// Found by the simulation.
    #[test]
    fn a_gap_that_was_not_told_grows_by_the_next_one() {
        let untold = Gap::new("2..4 gone".into());
        assert_eq!(untold.clone().and_then(5, 9, "gone too").text(), "2..9 gone too");
        let to_be_read_again = Gap { told_at: Some(5), ..untold };
        assert_eq!(to_be_read_again.and_then(5, 9, "gone too").text(), "2..9 gone too");
    }

    #[test]
    fn a_gap_whose_message_is_on_its_way_is_told_again_with_the_next_one() {
        let on_its_way = Gap { told_at: Some(5), ..Gap::new("2..4 gone".into()) };
        let both = Gap::new("2..4 gone\n8..9 gone too".into());
        assert_eq!(on_its_way.clone().and_then(8, 9, "gone too"), both);
        assert_eq!(on_its_way.clone().and(Some(Gap::new("8..9 gone too".into()))), both);
        let other = Gap { told_at: Some(7), ..Gap::new("8..9 gone too".into()) };
        assert_eq!(on_its_way.and(Some(other)), Gap { told_at: Some(7), ..both });
    }

    #[test]
    fn a_range_that_is_gone_beside_others_is_told_by_a_message_that_is_still_to_come() {
        let told = Gap { told_at: Some(5), ..Gap::new("2..4 gone".into()) };
        assert_eq!(Gap::widened(Some(told.clone()), 3, 3, "too"), Gap::new("2..4 gone".into()));
        assert_eq!(Gap::widened(Some(told), 1, 7, "too").text(), "2..4 gone\n1..7 too");
        assert_eq!(Gap::widened(None, 1, 7, "gone").text(), "1..7 gone");
        let many = (1..1_000).fold(None, |gap, n| Some(Gap::widened(gap, n * 3, n * 3, "gone"))).unwrap();
        assert_eq!(many.ranges().count(), RANGES_MAX);
        assert_eq!(many.ranges().last(), Some("48..2997 in part: gone"));
    }

    /// Found by the simulation.
    #[test]
    fn what_stands_between_two_gaps_is_not_said_to_be_gone() {
        let gap = Gap::new("11..11 gone".into()).and_then(14, 17, "gone").and_then(18, 18, "gone");
        assert_eq!(gap.ranges().collect::<Vec<_>>(), ["11..11 gone", "14..18 gone"]);
        let both = gap.and(Some(Gap::new("3..4 gone".into())));
        assert_eq!(both.ranges().collect::<Vec<_>>(), ["11..11 gone", "14..18 gone", "3..4 gone"]);
    }

    #[test]
    fn very_many_gaps_take_no_more_than_a_few_lines() {
        let many = (1..1_000).fold(Gap::new("1..1 gone".into()), |gap, n| gap.and_then(n * 3, n * 3, "gone"));
        assert_eq!(many.ranges().count(), RANGES_MAX);
        assert_eq!(many.ranges().last(), Some("45..2997 in part: gone"));
    }

    #[test]
    fn a_gap_before_very_many_others_is_among_what_is_gone_in_part() {
        let many =
            (10..1_000).fold(Gap::new("9..9 gone".into()), |gap, n| gap.and_then(n * 3, n * 3, "gone"));
        assert_eq!(many.and_then(5, 5, "gone").ranges().last(), Some("5..2997 in part: gone"));
    }

    #[test]
    fn gaps_that_are_told_together_are_few_and_each_is_named_once() {
        let many = (1..1_000).fold(Gap::new("1..1 gone".into()), |gap, n| {
            gap.and(Some(Gap::new(format!("{0}..{0} gone\n1..1 gone", n * 3))))
        });
        assert_eq!(many.ranges().count(), RANGES_MAX);
        assert_eq!(many.ranges().filter(|range| *range == "1..1 gone").count(), 1);
        assert_eq!(many.ranges().last(), Some("45..2997 in part: gone"));
    }
}
