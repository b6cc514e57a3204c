//! The filters of a packet that is not through yet, as the client wrote them: in one piece of memory that is hardly larger than they
//! were on the wire, however short each one is.

/// So many levels are as much work as a filter of few.
const LEVELS: usize = 32;

/// So many bytes are as much work to look at as a filter of few.
const BYTES: usize = 256;

/// How many filters of few bytes it takes to be as much to look at as this one.
pub(crate) fn worth(filter: &str) -> usize {
    1 + filter.len() / BYTES
}

/// See the module.
#[derive(Default)]
pub(crate) struct FilterList {
    /// Each one, and a NUL, which no string of MQTT has [MQTT-1.5.4-2].
    text: String,
    /// Where the next one begins.
    next: usize,
    count: usize,
    slashes: usize,
}

impl FilterList {
    /// How much work they are, also those that were taken, as so many filters of few levels: each level is a node of the trie.
    pub(crate) fn weight(&self) -> usize {
        self.count + self.slashes / LEVELS
    }

    /// How many they are, also those that were taken.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity()
    }

    /// Whether all were taken.
    pub(crate) fn is_through(&self) -> bool {
        self.next == self.text.len()
    }

    /// The next one.
    pub(crate) fn take_next(&mut self) -> Option<&str> {
        let (filter, _) = self.text.get(self.next..)?.split_once('\0')?;
        self.next += filter.len() + 1;
        Some(filter)
    }

    /// Begins with the first one again.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }
}

impl<'a> FromIterator<&'a str> for FilterList {
    fn from_iter<I: IntoIterator<Item = &'a str>>(filters: I) -> FilterList {
        let mut list = FilterList::default();
        for filter in filters {
            list.text.push_str(filter);
            list.text.push('\0');
            list.count += 1;
            list.slashes += filter.bytes().filter(|byte| *byte == b'/').count();
        }
        list.text.shrink_to_fit();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order_and_once_more() {
        let filters = ["a/b", "", "\u{fc}/+", "#"];
        let mut list: FilterList = filters.into_iter().collect();
        for _ in 0..2 {
            for filter in filters {
                assert!(!list.is_through());
                assert_eq!(list.take_next(), Some(filter));
            }
            assert!(list.is_through());
            assert_eq!(list.take_next(), None);
            list.rewind();
        }
        assert_eq!((list.weight(), list.bytes()), (4, "a/b..\u{fc}/+.#.".len()));
        assert_eq!(FilterList::from_iter(["a", &"/".repeat(6_400)]).weight(), 202);
        assert!(FilterList::default().is_through());
    }
}
