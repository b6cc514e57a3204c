//! What a session's subscriptions have still to get of the retained messages: one scan for each subscription, one
//! after the other, each page by page in the order of topics.
//!
//! A page is asked for when nothing is queued for the client, and the next one once it is out: a scan holds no more
//! than a page in memory, and a client that does not read stops it. What is dropped from the outbox is read again.

use crate::state::StoredScan;
use firehose_log::Offset;
use firehose_topic::TopicFilter;
use std::collections::BTreeMap;

/// The number under which retained messages lie in the outbox, in place of a lane's.
pub const RETAINED: u16 = u16::MAX;

/// Where a scan stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It wants the next page, but not before this time (milliseconds of the shard's clock).
    Wants { not_before_ms: u64 },
    /// It asked for it.
    Asked,
    /// The page is queued; `after` is where the next one begins, none: it was the last.
    Queued { after: Option<Box<str>> },
}

/// One subscription's.
#[derive(Clone, Debug)]
struct Scan {
    /// The subscription's place in its session.
    subscription: u16,
    /// Newer messages come by the subscription's lane.
    as_of: Offset,
    /// The last topic of the pages that are out.
    after: Option<Box<str>>,
    /// What comes before this topic is out too, although its page has to be read again.
    from: Option<Box<str>>,
    step: Step,
}

/// A page to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Names the question.
    pub number: u32,
    /// Whose filter and options hold.
    pub subscription: u16,
    /// The last topic that was looked at.
    pub after: Option<Box<str>>,
    /// Newer messages are left out.
    pub as_of: Offset,
}

/// A page that came for the scan whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose filter and options hold.
    pub subscription: u16,
    /// Newer messages are left out.
    pub as_of: Offset,
    /// Topics before this one are left out.
    pub from: Option<Box<str>>,
}

/// All scans of a session; see the module.
#[derive(Debug, Default)]
pub struct Scans {
    /// By their numbers, which ascend: the first one's turn it is.
    list: BTreeMap<u64, Box<Scan>>,
    /// The numbers by subscription, so that who subscribes anew again and again costs no more than others.
    numbers: BTreeMap<u16, u64>,
    next_number: u64,
    /// Names the last question.
    asked: u32,
}

impl Scans {
    /// A subscription is to get what is retained at `as_of`. A scan of it that goes on is begun anew.
    pub fn begin(&mut self, subscription: u16, as_of: Offset) {
        let step = Step::Wants { not_before_ms: 0 };
        self.push(Scan { subscription, as_of, after: None, from: None, step });
    }

    fn push(&mut self, scan: Scan) {
        self.end(scan.subscription);
        self.numbers.insert(scan.subscription, self.next_number);
        self.list.insert(self.next_number, Box::new(scan));
        self.next_number += 1;
    }

    /// The subscription is gone: nothing more is read for it.
    pub fn end(&mut self, subscription: u16) {
        if let Some(number) = self.numbers.remove(&subscription) {
            self.list.remove(&number);
        }
    }

    fn front(&self) -> Option<&Scan> {
        self.list.first_key_value().map(|(_, first)| &**first)
    }

    fn front_mut(&mut self) -> Option<&mut Scan> {
        self.list.first_entry().map(|first| &mut **first.into_mut())
    }

    /// Whether nothing is to be read.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Nothing is queued for the client: a page that was is out.
    pub fn page_is_out(&mut self) {
        let Some(first) = self.front_mut() else { return };
        match &mut first.step {
            Step::Queued { after: Some(after) } => {
                (first.after, first.from) = (Some(std::mem::take(after)), None);
                first.step = Step::Wants { not_before_ms: 0 };
            }
            Step::Queued { after: None } => {
                let subscription = first.subscription;
                self.end(subscription);
            }
            Step::Wants { .. } | Step::Asked => {}
        }
    }

    /// From when on a page is wanted, in milliseconds of the shard's clock; none: none is wanted now.
    pub fn wants(&self) -> Option<u64> {
        match self.front()?.step {
            Step::Wants { not_before_ms } => Some(not_before_ms),
            _ => None,
        }
    }

    /// Takes the wish for the next page. `number` names the question, and no other one of this session: an answer may
    /// come when these scans are long over and others have begun.
    pub fn ask(&mut self, number: u32) -> Option<Wish> {
        let first = self.front_mut().filter(|scan| matches!(scan.step, Step::Wants { .. }))?;
        first.step = Step::Asked;
        let (subscription, after, as_of) = (first.subscription, first.after.clone(), first.as_of);
        self.asked = number;
        Some(Wish { number, subscription, after, as_of })
    }

    /// The page that was asked for under `number` came, and is queued now; `after` is where the next one begins. None:
    /// nobody waits for it any more.
    pub fn came(&mut self, number: u32, after: Option<Box<str>>) -> Option<Turn> {
        let first = self.waiting(number)?;
        first.step = Step::Queued { after };
        Some(Turn { subscription: first.subscription, as_of: first.as_of, from: first.from.clone() })
    }

    /// The page could not be read: it is asked for again at that time. False: nobody waits for it.
    pub fn failed(&mut self, number: u32, retry_ms: u64) -> bool {
        let waiting = self.waiting(number);
        waiting.map(|first| first.step = Step::Wants { not_before_ms: retry_ms }).is_some()
    }

    fn waiting(&mut self, number: u32) -> Option<&mut Scan> {
        let is_asked = number == self.asked;
        self.front_mut().filter(|scan| scan.step == Step::Asked && is_asked)
    }

    /// What was queued is dropped; `topic` is the first one of it, none if there was none. The page is read again from
    /// there.
    pub fn dropped(&mut self, topic: Option<Box<str>>) {
        if let (Some(first), Some(topic)) = (self.front_mut(), topic)
            && matches!(first.step, Step::Queued { .. })
        {
            first.from = Some(topic);
            first.step = Step::Wants { not_before_ms: 0 };
        }
    }

    /// An event was taken back: a page that is under way may hold it, and is asked for again.
    pub fn forget_asked(&mut self) {
        if let Some(first) = self.front_mut().filter(|scan| scan.step == Step::Asked) {
            first.step = Step::Wants { not_before_ms: 0 };
        }
    }

    /// What is kept of the scans when the session goes on without its connection. `queued` is the first topic of the
    /// page that lies in the outbox, none: it is out. `filter` gives a subscription's filter.
    pub fn stored(
        &self,
        queued: Option<Box<str>>,
        filter: impl Fn(u16) -> Option<String>,
    ) -> Vec<StoredScan> {
        let mut stored = Vec::new();
        for (place, scan) in self.list.values().enumerate() {
            let Some(filter) = filter(scan.subscription) else { continue };
            let (mut after, mut from) = (scan.after.clone(), scan.from.clone());
            if let (0, Step::Queued { after: next }) = (place, &scan.step) {
                match (&queued, next) {
                    (Some(topic), _) => from = Some(topic.clone()),
                    (None, Some(next)) => (after, from) = (Some(next.clone()), None),
                    (None, None) => continue,
                }
            }
            let text = |text: Option<Box<str>>| text.map(String::from);
            stored.push(StoredScan { filter, as_of: scan.as_of, after: text(after), from: text(from) });
        }
        stored
    }

    /// Scans as they were kept. `subscription` finds a filter's subscription.
    pub fn resumed(
        stored: &[StoredScan],
        subscription: impl Fn(&TopicFilter) -> Option<u16>,
    ) -> Option<Box<Scans>> {
        let scan = |it: &StoredScan| {
            let filter = TopicFilter::new(&it.filter).ok()?;
            Some(Scan {
                subscription: subscription(&filter)?,
                as_of: it.as_of,
                after: it.after.as_deref().map(Box::from),
                from: it.from.as_deref().map(Box::from),
                step: Step::Wants { not_before_ms: 0 },
            })
        };
        let mut scans = Scans::default();
        stored.iter().filter_map(scan).for_each(|scan| scans.push(scan));
        (!scans.is_empty()).then(|| Box::new(scans))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(scans: &mut Scans, after: Option<&str>) -> Turn {
        let wish = scans.ask(1).expect("a wish");
        scans.came(wish.number, after.map(Box::from)).expect("it waits")
    }

    #[test]
    fn pages_come_one_after_the_other_and_scans_too() {
        let mut scans = Scans::default();
        scans.begin(3, 10);
        scans.begin(4, 11);
        assert_eq!(came(&mut scans, Some("m")).subscription, 3);
        assert_eq!(scans.ask(2), None, "the page is not out");
        scans.page_is_out();
        let wish = scans.ask(3).unwrap();
        assert_eq!((wish.subscription, wish.after.as_deref(), wish.as_of), (3, Some("m"), 10));
        scans.came(wish.number, None).unwrap();
        scans.page_is_out();
        assert_eq!(came(&mut scans, None), Turn { subscription: 4, as_of: 11, from: None });
        scans.page_is_out();
        assert!(scans.is_empty());
    }

    #[test]
    fn what_was_dropped_is_read_again_from_its_topic() {
        let mut scans = Scans::default();
        scans.begin(0, 10);
        came(&mut scans, Some("m"));
        scans.page_is_out();
        came(&mut scans, Some("z"));
        scans.dropped(Some("p".into()));
        let wish = scans.ask(4).unwrap();
        assert_eq!(wish.after.as_deref(), Some("m"));
        assert_eq!(scans.came(wish.number, None).unwrap().from.as_deref(), Some("p"));
    }

    #[test]
    fn late_answers_find_nobody() {
        let mut scans = Scans::default();
        scans.begin(0, 10);
        let wish = scans.ask(5).unwrap();
        scans.begin(0, 12);
        assert_eq!(scans.came(wish.number, None), None);
        let wish = scans.ask(6).unwrap();
        scans.forget_asked();
        assert!(!scans.failed(wish.number, 5));
        let wish = scans.ask(7).unwrap();
        assert!(scans.failed(wish.number, 5));
        assert_eq!(scans.wants(), Some(5));
        scans.end(0);
        assert!(scans.is_empty());
    }

    #[test]
    fn whose_subscription_is_made_anew_waits_behind_the_others() {
        let mut scans = Scans::default();
        (0..1_000).for_each(|subscription| scans.begin(subscription, 1));
        (0..1_000_u16)
            .filter(|number| number.is_multiple_of(2))
            .for_each(|subscription| scans.begin(subscription, 2));
        (0..1_000_u16)
            .filter(|number| number.is_multiple_of(5))
            .for_each(|subscription| scans.end(subscription));
        let mut turns = Vec::new();
        while !scans.is_empty() {
            let turn = came(&mut scans, None);
            turns.push((turn.as_of, turn.subscription));
            scans.page_is_out();
        }
        let all =
            (0..1_000).filter(|number| number % 5 > 0).map(|number| (2 - u64::from(number % 2), number));
        let (mut expected, again): (Vec<_>, Vec<_>) = all.partition(|(as_of, _)| *as_of == 1);
        expected.extend(again);
        assert_eq!(turns, expected);
    }

    #[test]
    fn what_is_kept_goes_on_where_it_was() {
        let filter = |number: u16| (number < 2).then(|| format!("f{number}"));
        let find = |filter: &TopicFilter| if filter.as_str() == "f0" { Some(5) } else { None };
        let mut scans = Scans::default();
        scans.begin(0, 10);
        scans.begin(1, 11);
        scans.begin(2, 12);
        came(&mut scans, Some("m"));
        let kept =
            |after: Option<&str>, from: Option<&str>| (after.map(str::to_owned), from.map(str::to_owned));
        let stored = scans.stored(Some("c".into()), filter);
        assert_eq!(stored.len(), 2, "the third subscription is gone");
        assert_eq!((stored[0].after.clone(), stored[0].from.clone()), kept(None, Some("c")));
        let mut again = Scans::resumed(&stored, find).expect("one of them");
        assert_eq!(came(&mut again, None).from.as_deref(), Some("c"));
        let stored = scans.stored(None, filter);
        assert_eq!((stored[0].after.clone(), stored[0].from.clone()), kept(Some("m"), None));
        scans.page_is_out();
        came(&mut scans, None);
        assert_eq!(scans.stored(None, filter).len(), 1, "the first one is through");
    }
}
