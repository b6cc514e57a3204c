//! Reading the state from other threads: retained messages, and what retention has to keep.

use crate::state::pages::Pages;
use crate::state::record::decode;
use crate::state::store::{PROGRESS, RETAINED, Store, StoreError};
use crate::state::stored::Progress;
use firehose_log::{Keep, Offset, ReadError};
use firehose_topic::{TopicFilter, TopicName};
use redb::ReadableTable;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Entries that one page looks at, whether they match or not.
const LOOKED_AT_MAX: usize = 20_000;

/// Where readers find the open file.
#[derive(Default)]
pub(crate) struct Shelf {
    place: RwLock<Place>,
    /// Everything up to here is in the file.
    applied: AtomicU64,
    pub(crate) pages: Pages,
}

#[derive(Default)]
struct Place {
    store: Option<Arc<Store>>,
    /// A file that was lost is made again from the log: before it is back here, it lacks what the lost one had.
    whole_at: Offset,
}

impl Shelf {
    pub(crate) fn store(&self) -> Option<Arc<Store>> {
        self.place.read().unwrap_or_else(PoisonError::into_inner).store.clone()
    }

    pub(crate) fn put(&self, store: Option<Store>) -> Option<Arc<Store>> {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place.store, store.map(Arc::new))
    }

    pub(crate) fn applied(&self) -> Offset {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn set_applied(&self, applied: Offset) {
        self.applied.store(applied, Ordering::Release);
    }

    /// What is open is as it was when it was closed last: of the log it has what comes up to here.
    pub(crate) fn found(&self, store: Store, applied: Offset) {
        self.put(Some(store));
        self.set_applied(applied);
        self.pages.changed(applied);
    }

    /// The file is lost, which had everything up to `view_at`.
    pub(crate) fn lose(&self, view_at: Offset) {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        place.whole_at = place.whole_at.max(view_at);
        self.set_applied(0);
        self.pages.changed(0);
    }

    /// The file, if everything up to `upto` is in it. It stays so for who has it, whatever is put here meanwhile.
    fn store_with(&self, upto: Offset) -> Option<Arc<Store>> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        place.store.clone().filter(|_| self.applied() >= upto)
    }

    /// The file, for a question of `as_of` that was let pass because what matters up to there was in it; none if it was
    /// lost since and is not made again.
    pub(crate) fn whole_store(&self, as_of: Offset) -> Option<Arc<Store>> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        place.store.clone().filter(|_| self.applied() >= place.whole_at.min(as_of))
    }
}

/// Reads the state; clones are cheap, and may be used on any thread that may wait for the disk.
#[derive(Clone)]
pub struct StateReader(pub(crate) Arc<Shelf>);

/// Retained messages that match a filter, in the order of their topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetainedEntries {
    /// Topics and the offsets of their messages.
    pub entries: Vec<(Box<str>, Offset)>,
    /// The last topic that was looked at; none: there are no more.
    pub after: Option<Box<str>>,
}

impl StateReader {
    /// Everything up to here is in the state file.
    pub fn applied(&self) -> Offset {
        self.0.applied()
    }

    /// Retained messages behind the topic `after` that match, at most `entries_max`; those above `as_of` are left out.
    /// Looks at a bounded number of entries: a page may have fewer, even none, and others still follow.
    ///
    /// # Errors
    /// The state file cannot be read now.
    pub fn retained(
        &self,
        filter: &TopicFilter,
        after: Option<&str>,
        as_of: Offset,
        entries_max: usize,
    ) -> Result<RetainedEntries, ReadError> {
        scan(&*self.store(as_of)?, filter, after, as_of, entries_max)
    }

    /// The file as it is to be read for a question of `as_of`.
    pub(crate) fn store(&self, as_of: Offset) -> Result<Arc<Store>, ReadError> {
        let missing = || ReadError("the state file is not open, or is being made again from the log".into());
        self.0.whole_store(as_of).ok_or_else(missing)
    }
}

/// As [`StateReader::retained`], in this file.
pub(crate) fn scan(
    store: &Store,
    filter: &TopicFilter,
    after: Option<&str>,
    as_of: Offset,
    entries_max: usize,
) -> Result<RetainedEntries, ReadError> {
    try_scan(store, filter, after, as_of, entries_max).map_err(|error| ReadError(error.to_string()))
}

fn try_scan(
    store: &Store,
    filter: &TopicFilter,
    after: Option<&str>,
    as_of: Offset,
    entries_max: usize,
) -> Result<RetainedEntries, StoreError> {
    let table = store.snapshot()?.open_table(RETAINED)?;
    let mut page = RetainedEntries::default();
    if !filter.has_wildcard() {
        let topic = filter.as_str();
        if after.is_none_or(|after| after < topic)
            && let Some(offset) = table.get(topic)?
        {
            page.entries.extend(Some((topic.into(), offset.value())).filter(|(_, at)| *at <= as_of));
        }
        return Ok(page);
    }
    let prefix = literal_prefix(filter);
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    for (looked_at, entry) in table.range::<&str>((from, Bound::Unbounded))?.enumerate() {
        let (topic, offset) = entry?;
        let topic = topic.value();
        if !topic.starts_with(prefix) {
            return Ok(page);
        }
        if offset.value() <= as_of && filter.matches(TopicName::trusted(topic)) {
            page.entries.push((topic.into(), offset.value()));
        }
        if page.entries.len() >= entries_max || looked_at + 1 >= LOOKED_AT_MAX {
            page.after = Some(topic.into());
            return Ok(page);
        }
    }
    Ok(page)
}

/// What every matching topic begins with. `a/#` matches `a` too, so the slash before a `#` is not part of it.
fn literal_prefix(filter: &TopicFilter) -> &str {
    let text = filter.as_str();
    let wildcard = text.find(['+', '#']).unwrap_or(text.len());
    let prefix = &text[..wildcard];
    match text[wildcard..].starts_with('#') {
        true => prefix.strip_suffix('/').unwrap_or(prefix),
        false => prefix,
    }
}

/// What retention has to keep: retained messages, and those in flight.
pub struct StateKeep(pub(crate) Arc<Shelf>);

impl Keep for StateKeep {
    fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
        wanted(&*self.0.store_with(last)?, first, last).ok()
    }
}

fn wanted(store: &Store, first: Offset, last: Offset) -> Result<Vec<Offset>, StoreError> {
    let txn = store.snapshot()?;
    let mut wanted = Vec::new();
    for entry in txn.open_table(RETAINED)?.iter()? {
        let offset = entry?.1.value();
        wanted.extend((first..=last).contains(&offset).then_some(offset));
    }
    for entry in txn.open_table(PROGRESS)?.iter()? {
        let progress: Option<Progress> = decode(entry?.1.value());
        let inflight = progress.into_iter().flat_map(|found| found.inflight).map(|sent| sent.offset);
        wanted.extend(inflight.filter(|offset| (first..=last).contains(offset)));
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_a_filter_is_that_of_every_topic_it_matches() {
        let prefix = |text: &str| literal_prefix(&TopicFilter::new(text).unwrap()).to_owned();
        assert_eq!(prefix("#"), "");
        assert_eq!(prefix("+/a"), "");
        assert_eq!(prefix("a/#"), "a");
        assert_eq!(prefix("a/b/+/c"), "a/b/");
        assert_eq!(prefix("/#"), "");
        assert_eq!(prefix("$SYS/#"), "$SYS");
    }
}
