//! The subscription trie.
//!
//! All nodes lie in one vector and know their parent; the edges to named children of all nodes lie in one hash table.
//! A node with one subscriber thus costs some 70 bytes and two halves of slots, and no allocation of its own. The
//! wildcard children are fields of their parent. Levels are hashed with a seed of each trie's own, so that nobody
//! outside can choose filters that collide.
//!
//! The values of a filter lie one behind the other, so that a match walks through a slice, however many there are. Who put one in
//! keeps its place, four bytes, and is told when it changes: thousands may subscribe to `#`, and each of them leaves without a
//! look at the others. (An index of each filter's values would take several times that, and a hash for each change.)

mod edges;
mod level;
mod values;

use crate::{TopicFilter, TopicName};
use edges::{Edges, Hasher};
use level::Level;
use values::Values;

/// Values by topic filter; finds all whose filter matches a name.
///
/// The same filter can hold many values, and equal ones: `insert` never replaces. No operation recurses.
#[derive(Debug)]
pub struct Trie<T> {
    /// The first is the root; a free one has `parent` = next free one.
    nodes: Vec<Node<T>>,
    edges: Edges,
    hasher: Hasher,
    free: u32,
    /// How many are free.
    free_count: usize,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    parent: u32,
    /// The child for `+`, or 0.
    plus: u32,
    /// The child for `#`, or 0.
    hash: u32,
    /// How many children are in `edges`.
    named: u32,
    /// The level that leads here, when this is a named child.
    level: Level,
    values: Values<T>,
}

const ROOT: u32 = 0;
/// So many nodes are kept, however few of them are in use.
const NODES_MIN: usize = 256;

impl<T> Trie<T> {
    /// An empty trie.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new(ROOT, Level::EMPTY)],
            edges: Edges::default(),
            hasher: Hasher::default(),
            free: 0,
            free_count: 0,
            len: 0,
        }
    }

    /// Adds a value to those of `filter`; gives its place among them, by which it is taken out again.
    pub fn insert(&mut self, filter: &TopicFilter, value: T) -> u32 {
        let mut node = ROOT;
        for level in filter.levels() {
            node = match self.child(node, level.as_bytes()) {
                0 => self.add_child(node, level.as_bytes()),
                child => child,
            };
        }
        self.len += 1;
        self.nodes[node as usize].values.push(value)
    }

    /// Takes the value at a place of exactly this filter out. If it was not the last one, that one has its place from now on,
    /// and is given as well.
    pub fn remove(&mut self, filter: &TopicFilter, place: u32) -> Option<(T, Option<&T>)> {
        let node = self.find(filter)?;
        let value = self.nodes[node as usize].values.take(place)?;
        self.len -= 1;
        if self.nodes[node as usize].values.as_slice().is_empty() {
            self.prune(node);
            return Some((value, None));
        }
        Some((value, self.nodes[node as usize].values.as_slice().get(place as usize)))
    }

    /// The value at a place of exactly this filter.
    pub fn get_mut(&mut self, filter: &TopicFilter, place: u32) -> Option<&mut T> {
        let node = self.find(filter)?;
        self.nodes[node as usize].values.as_mut_slice().get_mut(place as usize)
    }

    /// All values of exactly this filter, each at its place.
    pub fn get(&self, filter: &TopicFilter) -> &[T] {
        self.find(filter).map_or(&[], |node| self.nodes[node as usize].values.as_slice())
    }

    /// Calls `found` with every value whose filter matches `name`, in no particular order; a value that stands under
    /// several filters that match is found once for each. Gives how many steps that took: nodes that were visited, which can be
    /// twice as many for each level of the name where filters have both it and `+`.
    pub fn for_each_match(&self, name: TopicName<'_>, mut found: impl FnMut(&T)) -> usize {
        let bytes = name.as_str().as_bytes();
        let dollar = name.is_dollar();
        // Where the walk still has to go: a node, and where in the name the next level begins.
        let mut ways: Vec<(u32, usize)> = Vec::new();
        let mut way = Some((ROOT, 0));
        let mut steps = 0;
        while let Some((at, begin)) = way {
            steps += 1;
            let node = &self.nodes[at as usize];
            let wildcards = !(dollar && at == ROOT);
            if node.hash != 0 && wildcards {
                self.nodes[node.hash as usize].values.as_slice().iter().for_each(&mut found);
            }
            if begin > bytes.len() {
                node.values.as_slice().iter().for_each(&mut found);
                way = ways.pop();
                continue;
            }
            let rest = &bytes[begin..];
            let level = &rest[..rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())];
            let next = begin + level.len() + 1;
            let plus = if wildcards { node.plus } else { 0 };
            let named = if node.named == 0 { 0 } else { self.named_child(at, level) };
            way = match (named, plus) {
                (0, 0) => ways.pop(),
                (child, 0) | (0, child) => Some((child, next)),
                (named, plus) => {
                    ways.push((plus, next));
                    Some((named, next))
                }
            };
        }
        steps
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many nodes there are, without the root: the distinct beginnings of all filters.
    pub fn nodes(&self) -> usize {
        self.nodes.len() - 1 - self.free_count
    }

    /// The memory of nodes and edges in bytes, without what long levels and filters of many values hold besides.
    pub fn capacity_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<T>>() + self.edges.capacity_bytes()
    }

    fn find(&self, filter: &TopicFilter) -> Option<u32> {
        let mut node = ROOT;
        for level in filter.levels() {
            node = self.child(node, level.as_bytes());
            if node == 0 {
                return None;
            }
        }
        Some(node)
    }

    /// The child for a level of a filter, or 0.
    fn child(&self, parent: u32, level: &[u8]) -> u32 {
        let node = &self.nodes[parent as usize];
        match level {
            b"+" => node.plus,
            b"#" => node.hash,
            level => self.named_child(parent, level),
        }
    }

    fn named_child(&self, parent: u32, level: &[u8]) -> u32 {
        self.edges.find(self.hasher.hash(parent, level), |child| {
            let node = &self.nodes[child as usize];
            node.parent == parent && node.level.is(level)
        })
    }

    fn add_child(&mut self, parent: u32, level: &[u8]) -> u32 {
        let named = !matches!(level, b"+" | b"#");
        let child = self.place(Node::new(parent, if named { Level::new(level) } else { Level::EMPTY }));
        let node = &mut self.nodes[parent as usize];
        match level {
            b"+" => node.plus = child,
            b"#" => node.hash = child,
            level => {
                node.named += 1;
                self.edges.insert(self.hasher.hash(parent, level), child);
            }
        }
        child
    }

    fn place(&mut self, node: Node<T>) -> u32 {
        if self.free != 0 {
            let at = self.free;
            self.free = self.nodes[at as usize].parent;
            self.free_count -= 1;
            self.nodes[at as usize] = node;
            return at;
        }
        if self.nodes.len() == self.nodes.capacity() {
            // Growing by a quarter, not by doubling, keeps the unused part small: there may be tens of thousands.
            self.nodes.reserve_exact(self.nodes.len() / 4 + 4);
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Frees `at` and its parents as long as they lead to nothing.
    fn prune(&mut self, mut at: u32) {
        if self.len == 0 {
            *self = Self::new();
            return;
        }
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let free = Node::new(self.free, Level::EMPTY);
            let node = std::mem::replace(&mut self.nodes[at as usize], free);
            self.free = at;
            self.free_count += 1;
            let parent = &mut self.nodes[node.parent as usize];
            if parent.plus == at {
                parent.plus = 0;
            } else if parent.hash == at {
                parent.hash = 0;
            } else {
                parent.named -= 1;
                self.edges.remove(self.hasher.hash(node.parent, node.level.as_bytes()), at);
            }
            at = node.parent;
        }
        if self.nodes.len() > NODES_MIN && self.nodes() < self.nodes.len() / 4 {
            self.close_up();
        }
    }

    /// Gives back what filters took that are gone, so that it is not held for as long as anybody subscribes. It costs as much as
    /// they did, and so no more than a part of what it took to put them in.
    fn close_up(&mut self) {
        let mut places: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut count = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            let stays = at == ROOT as usize || !node.is_bare();
            places.push(if stays { count } else { 0 });
            count += u32::from(stays);
        }
        let place = |at: u32| places.get(at as usize).copied().unwrap_or(ROOT);
        let before = std::mem::take(&mut self.nodes);
        self.nodes.reserve_exact(count as usize + count as usize / 4 + 4);
        for (at, node) in before.into_iter().enumerate() {
            if at == ROOT as usize || !node.is_bare() {
                let (parent, plus, hash) = (place(node.parent), place(node.plus), place(node.hash));
                self.nodes.push(Node { parent, plus, hash, ..node });
            }
        }
        (self.free, self.free_count, self.edges) = (0, 0, Edges::default());
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            let (at, parent) = (at as u32, &self.nodes[node.parent as usize]);
            if parent.plus != at && parent.hash != at {
                self.edges.insert(self.hasher.hash(node.parent, node.level.as_bytes()), at);
            }
        }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    fn new(parent: u32, level: Level) -> Self {
        Self { parent, plus: 0, hash: 0, named: 0, level, values: Values::None }
    }

    /// Whether nothing is here and nothing below.
    fn is_bare(&self) -> bool {
        self.named == 0 && self.plus == 0 && self.hash == 0 && self.values.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    fn matches(trie: &Trie<u32>, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.for_each_match(TopicName::new(name).unwrap(), |value| found.push(*value));
        found.sort_unstable();
        found
    }

    #[test]
    fn every_kind_of_filter_is_found() {
        let mut trie = Trie::new();
        for (value, text) in
            ["#", "a/#", "a/+", "a/b", "+/b", "+/+", "a", "$SYS/#", "a/+/c", "/a"].iter().enumerate()
        {
            trie.insert(&filter(text), value as u32);
        }
        assert_eq!(matches(&trie, "a/b"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(matches(&trie, "a"), [0, 1, 6]);
        assert_eq!(matches(&trie, "a/b/c"), [0, 1, 8]);
        assert_eq!(matches(&trie, "/a"), [0, 5, 9]);
        assert_eq!(matches(&trie, "$SYS"), [7]);
        assert_eq!(matches(&trie, "$SYS/b"), [7]);
        assert_eq!(matches(&trie, "a/"), [0, 1, 2, 5]);
    }

    #[test]
    fn removal_prunes_what_leads_nowhere() {
        let mut trie = Trie::new();
        trie.insert(&filter("a/b/c/d"), 1);
        assert_eq!(trie.insert(&filter("a/b"), 2), 0);
        assert_eq!(trie.insert(&filter("a/b"), 3), 1);
        assert_eq!(trie.nodes(), 4);
        assert_eq!(trie.remove(&filter("a/b/c"), 0), None);
        assert_eq!(trie.remove(&filter("a/b/c/d"), 1), None);
        assert_eq!(trie.remove(&filter("a/b/c/d"), 0), Some((1, None)));
        assert_eq!(trie.nodes(), 2);
        assert_eq!(trie.remove(&filter("a/b"), 0), Some((2, Some(&3))));
        assert_eq!(matches(&trie, "a/b"), [3]);
        assert_eq!((trie.len(), trie.nodes()), (1, 2));
        assert_eq!(trie.remove(&filter("a/b"), 0), Some((3, None)));
        assert_eq!((trie.is_empty(), trie.nodes()), (true, 0));
    }

    #[test]
    fn a_value_can_be_changed_in_place() {
        let mut trie = Trie::new();
        trie.insert(&filter("a/#"), 1);
        let place = trie.insert(&filter("a/#"), 2);
        *trie.get_mut(&filter("a/#"), place).unwrap() = 5;
        assert_eq!(trie.get(&filter("a/#")), [1, 5]);
        assert_eq!(trie.get(&filter("a")), [0_u32; 0]);
        assert!(trie.get_mut(&filter("a"), 0).is_none());
        assert!(trie.get_mut(&filter("a/#"), 2).is_none());
    }

    #[test]
    fn a_match_tells_how_many_nodes_it_visited() {
        let mut trie = Trie::new();
        let name = ["a"; 10].join("/");
        let steps = |trie: &Trie<u32>| trie.for_each_match(TopicName::new(&name).unwrap(), |_| ());
        assert_eq!(steps(&trie), 1);
        trie.insert(&filter("#"), 0);
        trie.insert(&filter("a/a/x"), 0);
        assert_eq!(steps(&trie), 3);
        for number in 0..1_u32 << 9 {
            let level = |at: u32| if number >> at & 1 == 1 { "+" } else { "a" };
            let levels: Vec<&str> = (0..9).map(level).chain(["z"]).collect();
            trie.insert(&filter(&levels.join("/")), number);
        }
        assert_eq!(steps(&trie), (1 << 10) - 1);
    }

    /// What cannot be compared cannot be searched for.
    #[test]
    fn one_of_ten_thousand_is_taken_out_without_a_look_at_the_others() {
        struct Incomparable(u32);
        let (all, mut trie) = (filter("#"), Trie::new());
        let mut places: Vec<u32> =
            (0..10_000).map(|number| trie.insert(&all, Incomparable(number))).collect();
        let mut at = 0;
        for round in 0..20_000 {
            at = (at + 7_919) % places.len();
            let number = at as u32;
            let (taken, moved) = trie.remove(&all, places[at]).unwrap();
            assert_eq!(taken.0, number);
            let moved = moved.map(|it| it.0);
            if let Some(moved) = moved {
                places[moved as usize] = places[at];
            }
            places[at] = trie.insert(&all, Incomparable(number));
            assert_eq!(trie.get_mut(&all, places[at]).unwrap().0, number, "round {round}");
        }
        let stand = |number: u32| trie.get(&all)[places[number as usize] as usize].0;
        assert!((0..10_000).all(|number| stand(number) == number));
    }

    /// Somebody had very many filters, and others stay.
    #[test]
    fn what_filters_took_that_are_gone_is_given_back() {
        let mut trie = Trie::new();
        let (few, many) = (["#", "a/+/b", "a/#", "x/7/y/3", "+/c", "a/c"], 20_000_u32);
        let text = |number: u32| format!("x/{}/+/{number}/y/#", number % 9);
        for number in 0..many {
            trie.insert(&filter(&text(number)), number);
            if number % 4_000 == 3_000 {
                let place = (number / 4_000) as usize;
                trie.insert(&filter(few[place]), many + place as u32);
            }
        }
        trie.insert(&filter(few[5]), many + 5);
        let before = trie.capacity_bytes();
        for number in (0..many).rev() {
            let number = (number * 7_919) % many;
            assert_eq!(trie.remove(&filter(&text(number)), 0), Some((number, None)));
            if number % 500 == 0 {
                assert_eq!(matches(&trie, "a/c"), [many, many + 2, many + 4, many + 5]);
            }
        }
        assert!(trie.capacity_bytes() < before / 20, "{} of {before}", trie.capacity_bytes());
        assert_eq!(matches(&trie, "a/z/b"), [many, many + 1, many + 2]);
        assert_eq!(matches(&trie, "x/7/y/3"), [many, many + 3]);
        assert_eq!((trie.len(), trie.nodes()), (6, 12));
        for (place, text) in few.iter().enumerate() {
            assert_eq!(trie.remove(&filter(text), 0), Some((many + place as u32, None)));
        }
        assert_eq!((trie.is_empty(), trie.nodes()), (true, 0));
    }

    #[test]
    fn eighteen_thousand_filters_of_one_subscriber_cost_little() {
        let mut trie: Trie<[u64; 2]> = Trie::new();
        for client in 0..18_000 {
            trie.insert(&filter(&format!("idle/client-{client}/inbox")), [client, 0]);
        }
        let each = trie.capacity_bytes() / 18_000;
        assert!(each < 250, "{each} bytes for each filter with two nodes of its own");
    }
}
