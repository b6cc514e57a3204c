//! Pages of retained messages that were asked for lately: when many clients subscribe at once, as after a start, each
//! page is read for the first of them.

use crate::retained_page::RetainedPage;
use crate::sync::{Mutex, lock};
use firehose_log::Offset;
use firehose_topic::TopicFilter;
use std::collections::VecDeque;
use std::sync::Arc;

/// What all pages together may take, with what they were asked for.
const BYTES_MAX: usize = 2 << 20;
/// So many are kept at most: who asks looks at each of them.
const PAGES_MAX: usize = 256;

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageKey {
    pub filter: TopicFilter,
    pub after: Option<Box<str>>,
    pub as_of: Offset,
    pub bytes_max: usize,
    /// How many changes there had been when it was asked for.
    changes: u64,
}

impl PageKey {
    /// The memory it takes.
    fn bytes_len(&self) -> usize {
        size_of::<PageKey>() + self.filter.as_str().len() + self.after.as_deref().map_or(0, str::len)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pages(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// The oldest first.
    pages: VecDeque<(PageKey, Arc<RetainedPage>)>,
    bytes: usize,
    /// Something that is retained changed here last.
    changed_at: Offset,
    /// What was read before the last of so many changes is not kept.
    changes: u64,
}

impl Pages {
    /// The key of a page. Whoever asks behind the last change is shown the same.
    pub(crate) fn key(
        &self,
        filter: &TopicFilter,
        after: Option<&str>,
        as_of: Offset,
        bytes_max: usize,
    ) -> PageKey {
        let inside = lock(&self.0);
        let (as_of, changes) = (as_of.min(inside.changed_at), inside.changes);
        PageKey { filter: filter.clone(), after: after.map(Box::from), as_of, bytes_max, changes }
    }

    /// A page that was read before.
    pub(crate) fn get(&self, key: &PageKey) -> Option<Arc<RetainedPage>> {
        lock(&self.0).pages.iter().find(|(known, _)| known == key).map(|(_, page)| page.clone())
    }

    /// Keeps a page that was read for `key`; not if something changed since.
    pub(crate) fn put(&self, key: PageKey, page: Arc<RetainedPage>) {
        let inside = &mut *lock(&self.0);
        let bytes = |key: &PageKey, page: &RetainedPage| key.bytes_len() + page.bytes_len();
        let is_latest = (key.as_of, key.changes) == (inside.changed_at, inside.changes);
        if !is_latest || bytes(&key, &page) > BYTES_MAX / 4 {
            return;
        }
        inside.bytes += bytes(&key, &page);
        inside.pages.push_back((key, page));
        while (inside.bytes > BYTES_MAX || inside.pages.len() > PAGES_MAX)
            && let Some((key, page)) = inside.pages.pop_front()
        {
            inside.bytes -= bytes(&key, &page);
        }
    }

    /// What is retained is not the same any more, up to this offset; or an event was taken back. A file that is opened
    /// says so too: what it has came up to there, and who asks for less is shown less.
    pub(crate) fn changed(&self, offset: Offset) {
        let inside = &mut *lock(&self.0);
        let changed_at = inside.changed_at.max(offset);
        *inside = Inside { changed_at, changes: inside.changes + 1, ..Inside::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retained_page::PageDraft;

    fn page() -> Arc<RetainedPage> {
        Arc::new(PageDraft::default().finish(None))
    }

    #[test]
    fn whoever_asks_behind_the_last_change_is_shown_the_same() {
        let (pages, filter) = (Pages::default(), TopicFilter::new("t/#").unwrap());
        let key = |as_of| pages.key(&filter, Some("t/a"), as_of, 100);
        pages.changed(10);
        pages.put(key(12), page());
        assert!(pages.get(&key(15)).is_some());
        assert!(pages.get(&key(9)).is_none(), "before the change");
        assert!(pages.get(&pages.key(&filter, None, 15, 100)).is_none());
        let late = key(15);
        pages.changed(14);
        assert!(pages.get(&key(15)).is_none());
        pages.put(late, page());
        assert!(pages.get(&key(15)).is_none(), "it was read before the change");
        let late = key(15);
        pages.changed(0);
        pages.put(late, page());
        assert!(pages.get(&key(15)).is_none(), "it was read before an event was taken back");
    }

    /// Somebody may ask for ever other filters that match nothing, and nothing retained may change for days.
    #[test]
    fn pages_with_nothing_in_them_take_no_more_than_others() {
        let pages = Pages::default();
        for (bytes, kept) in [(10, PAGES_MAX), (60_000, BYTES_MAX / 60_000)] {
            for number in 0..1_000 {
                let filter = TopicFilter::new(&format!("{number}/{}/#", "z".repeat(bytes))).unwrap();
                pages.put(pages.key(&filter, None, 5, 100), page());
            }
            let inside = lock(&pages.0);
            let sum: usize = inside.pages.iter().map(|(key, page)| key.bytes_len() + page.bytes_len()).sum();
            assert_eq!((inside.pages.len(), inside.bytes), (kept, sum));
            assert!(sum <= BYTES_MAX);
        }
    }
}
