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
    store: RwLock<Option<Arc<Store>>>,
    /// Everything up to here is in the file.
    applied: AtomicU64,
    pub(crate) pages: Pages,
}

impl Shelf {
    pub(crate) fn store(&self) -> Option<Arc<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, store: Option<Store>) -> Option<Arc<Store>> {
        let mut place = self.store.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, store.map(Arc::new))
    }

    pub(crate) fn applied(&self) -> Offset {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn set_applied(&self, applied: Offset) {
        self.applied.store(applied, Ordering::Release);
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
        let store = self.0.store().ok_or_else(closed)?;
        scan(&store, filter, after, as_of, entries_max).map_err(|error| ReadError(error.to_string()))
    }
}

fn closed() -> ReadError {
    ReadError("the state file is not open".into())
}

fn scan(
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
        if self.0.applied() < last {
            return None;
        }
        wanted(&*self.0.store()?, first, last).ok()
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
