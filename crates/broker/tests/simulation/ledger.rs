//! The truth: what was given a place in the log, in which order; what was published, and what was acknowledged.

use crate::group::Groups;
use crate::taken_back::TakenBack;
use firehose_log::{Batch, Cursor, Kind, Offset};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Names one transmission of a message: who published it, its number, and how often it had been sent before. Stands in
/// the payload, so that no two transmissions are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: char,
    pub publisher: u32,
    pub number: u32,
    pub attempt: u32,
}

impl Key {
    /// As a payload begins with it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "{}{}.{}.{};", self.kind, self.publisher, self.number, self.attempt);
        text
    }

    pub fn parse(payload: &[u8]) -> Option<Key> {
        let text = std::str::from_utf8(payload).ok()?.split(';').next()?;
        let kind = text.chars().next()?;
        let mut numbers = text[kind.len_utf8()..].split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Key { kind, publisher: next()?, number: next()?, attempt: next()? })
    }

    /// The message, whichever transmission.
    pub fn message(&self) -> (char, u32, u32) {
        (self.kind, self.publisher, self.number)
    }
}

/// One event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub topic: String,
    /// None: it is a retained message being cleared, by a client that cannot name it.
    pub key: Option<Key>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub time_us: i64,
}

/// How far the publication of a message got.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub qos: u8,
    pub acknowledged: bool,
    /// Refused at its first and only transmission.
    pub refused: bool,
    pub attempts: u32,
    /// It was stored, and a bit that turned has damaged it since.
    pub is_damaged: bool,
    /// Its session may have been replaced by a new one, which knows nothing of it.
    pub is_doubtful: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Entry `n` is at `n - 1`.
    entries: Vec<Entry>,
    by_key: HashMap<Key, Offset>,
    /// Offsets of a message's transmissions that are in the log.
    by_message: HashMap<(char, u32, u32), Vec<Offset>>,
    pub published: HashMap<(char, u32, u32), Published>,
    /// Ranges that are damaged on the disk, for all that is known.
    pub damaged: Vec<(Offset, Offset)>,
    /// The first offset that retention has left.
    pub oldest: Offset,
    /// Bits have turned: anything may be damaged.
    pub is_flipped: bool,
    /// The log could not be made durable: what is refused then may stand in it all the same.
    pub has_failed: bool,
    /// Up to here the log said that it is durable.
    pub durable: Offset,
    /// The latest epoch in which anything was recorded.
    pub epoch: u32,
    /// What cursors that clients got stand after: each for one event, for ever.
    cursors: HashMap<(u32, Offset), (Option<Key>, i64)>,
    pub groups: Groups,
    pub taken_back: TakenBack,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger { oldest: 1, ..Ledger::default() }
    }

    pub fn head(&self) -> Offset {
        self.entries.len() as Offset
    }

    pub fn get(&self, offset: Offset) -> Option<&Entry> {
        self.entries.get((offset as usize).checked_sub(1)?)
    }

    pub fn place_of(&self, key: &Key) -> Option<Offset> {
        self.by_key.get(key).copied()
    }

    /// Where an event stood before a bit of it turned.
    pub fn place_of_damaged(&self, key: &Key) -> Option<Offset> {
        let mut all = self.damaged.iter().filter(|_| self.is_flipped).flat_map(|(from, to)| *from..=*to);
        all.find(|offset| self.get(*offset).is_some_and(|entry| entry.key == Some(*key)))
    }

    /// Entries from one offset to another, both included.
    pub fn range(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &Entry)> {
        let to = to.min(self.head());
        (from.max(1)..=to).filter_map(|offset| Some((offset, self.get(offset)?)))
    }

    /// A batch got its place.
    pub fn placed(&mut self, batch: &Batch) {
        self.epoch = self.epoch.max(batch.epoch());
        for (offset, record) in batch.records() {
            assert_eq!(offset, self.head() + 1, "offsets are dense");
            let entry = entry_of(batch, &record);
            assert_eq!(record.kind(), Kind::Event);
            if let Some(key) = entry.key {
                let before = self.by_key.insert(key, offset);
                assert!(before.is_none(), "{key:?} stands in the log twice: at {before:?} and at {offset}");
                let all = self.by_message.entry(key.message()).or_default();
                all.push(offset);
                let published = self.published.get(&key.message());
                let is_exact = key.kind == 'w' || published.is_some_and(|it| it.qos == 2 && !it.is_doubtful);
                assert!(
                    !is_exact || all.len() == 1 || self.is_flipped,
                    "{key:?} is exactly once, and stands at {all:?}"
                );
                if key.kind != 'w' {
                    let published = published.unwrap_or_else(|| panic!("{key:?} was never published"));
                    assert!(
                        !published.refused || self.has_failed,
                        "{key:?} was refused, and is stored at {offset}"
                    );
                }
            }
            self.entries.push(entry);
        }
    }

    /// A batch that was read has to be what was placed.
    pub fn compare(&self, batch: &Batch, from: Offset, to: Offset) {
        for (offset, record) in batch.records().filter(|(offset, _)| (from..=to).contains(offset)) {
            let known = self.get(offset).unwrap_or_else(|| panic!("event {offset} comes from nowhere"));
            if record.kind() == Kind::Tombstone {
                assert!(self.taken_back.has(offset), "nobody took back {offset}, {known:?}");
                continue;
            }
            assert!(!self.taken_back.is_logged(offset), "{offset} was taken back, and is there: {known:?}");
            assert_eq!(*known, entry_of(batch, &record), "event {offset} was changed");
        }
    }

    /// After a crash the log ends at `head`.
    pub fn cut(&mut self, head: Offset) {
        assert!(head <= self.head(), "the log invents events: it ends at {head}, not at {}", self.head());
        self.groups.cut(head);
        self.taken_back.cut(head, self.is_flipped);
        for entry in self.entries.drain(head as usize..) {
            if let Some(key) = entry.key {
                self.by_key.remove(&key);
                if let Some(all) = self.by_message.get_mut(&key.message()) {
                    all.retain(|offset| *offset <= head);
                }
            }
        }
        self.damaged.retain_mut(|(from, to)| {
            *to = (*to).min(head);
            from <= to
        });
        self.durable = self.durable.min(head);
    }

    /// Everything that was acknowledged has to stand in the log (or be gone by retention, or damaged).
    pub fn check_acknowledged(&self) {
        for (message, published) in &self.published {
            let stored = self.by_message.get(message).is_some_and(|all| !all.is_empty());
            assert!(!published.acknowledged || stored, "{message:?} was acknowledged, and is lost");
        }
    }

    /// The events of this range are gone: they were not durable when the power failed, or a bit has turned.
    pub fn lose(&mut self, from: Offset, to: Offset) {
        if self.damaged.contains(&(from, to)) {
            return;
        }
        self.damaged.push((from, to));
        for offset in from..=to {
            let Some(key) = self.get(offset).and_then(|entry| entry.key) else { continue };
            self.by_key.remove(&key);
            if let Some(all) = self.by_message.get_mut(&key.message()) {
                all.retain(|known| *known != offset);
            }
            if let Some(published) = self.published.get_mut(&key.message()) {
                published.is_damaged |= self.is_flipped;
            }
        }
    }

    /// A client got a cursor.
    pub fn got_cursor(&mut self, cursor: &Cursor) {
        let Some(entry) = self.get(cursor.offset) else { return };
        let event = (entry.key, entry.time_us);
        let known = *self.cursors.entry((cursor.epoch, cursor.offset)).or_insert(event);
        assert!(
            known == event || self.is_flipped,
            "{cursor:?} stood after {known:?}, and now after {event:?}"
        );
    }

    /// `<from>..<to> <why>`: the events in this range are gone, and it has to be true.
    pub fn declared(&self, gap: &str) -> (Offset, Offset) {
        let range = gap.split(' ').next().and_then(|range| range.split_once(".."));
        let (from, to) = range.expect("a range");
        let (from, to): (Offset, Offset) = (from.parse().expect("a number"), to.parse().expect("a number"));
        let there = (from..=to).find(|offset| *offset >= self.oldest && !self.is_damaged(*offset));
        let there = there.filter(|_| !self.is_flipped && !gap.contains(" in part: "));
        assert_eq!(there, None, "declared to be gone, and is there: {gap}, oldest {}", self.oldest);
        (from, to)
    }

    pub fn is_stored(&self, message: (char, u32, u32)) -> bool {
        self.by_message.get(&message).is_some_and(|all| !all.is_empty())
    }

    /// Whether nobody can say any more that it had taken the place of what was retained before.
    pub fn is_hidden(&self, offset: Offset) -> bool {
        self.is_damaged(offset) || (self.taken_back.is_rebuilt && self.taken_back.has(offset))
    }

    pub fn is_damaged(&self, offset: Offset) -> bool {
        self.damaged.iter().any(|(from, to)| (*from..=*to).contains(&offset))
    }
}

fn entry_of(batch: &Batch, record: &firehose_log::Record<'_>) -> Entry {
    let event = record.event();
    let name = event.attributes.iter().find_map(|attribute| match attribute {
        firehose_log::Attribute::UserProperty("name", value) => Key::parse(value.as_bytes()),
        _ => None,
    });
    let key = if event.payload.is_empty() { name } else { Key::parse(event.payload) };
    Entry {
        topic: event.topic.into(),
        key,
        payload: event.payload.to_vec(),
        qos: event.flags.qos(),
        retain: event.flags.retain(),
        time_us: batch.time_us(),
    }
}
