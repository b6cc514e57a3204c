//! Filters and the trie against a naive matcher.

use firehose_topic::{TopicFilter, TopicName, Trie};
use std::collections::HashMap;

/// Each line is a filter, put into the trie, or, after a `-`, one to take out; after a `=`, a name to look up.
pub fn trie(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut trie = Trie::new();
    let mut model: Vec<(TopicFilter, usize)> = Vec::new();
    let mut places = HashMap::new();
    for (number, line) in text.lines().take(100).enumerate() {
        if let Some(name) = line.strip_prefix('=') {
            look_up(&trie, &model, name);
        } else if let Some(filter) = line.strip_prefix('-') {
            let Ok(filter) = TopicFilter::new(filter) else { continue };
            match model.iter().position(|(other, _)| *other == filter) {
                Some(at) => {
                    let (_, value) = model.swap_remove(at);
                    take(&mut trie, &mut places, &filter, value);
                }
                None => assert_eq!(trie.remove(&filter, 0), None),
            }
        } else if let Ok(filter) = TopicFilter::new(line) {
            places.insert(number, trie.insert(&filter, number));
            relations(&model, &filter);
            model.push((filter, number));
        }
        assert_eq!(trie.len(), model.len());
    }
    for (filter, value) in model {
        take(&mut trie, &mut places, &filter, value);
    }
    assert_eq!((trie.len(), trie.nodes()), (0, 0));
}

/// Takes a value out by its place, and notes that of the one that moved.
fn take(trie: &mut Trie<usize>, places: &mut HashMap<usize, u32>, filter: &TopicFilter, value: usize) {
    let place = places.remove(&value).expect("it stands somewhere");
    let (taken, moved) = trie.remove(filter, place).expect("it stands there");
    assert_eq!(taken, value);
    if let Some(moved) = moved {
        places.insert(*moved, place);
    }
}

fn look_up(trie: &Trie<usize>, model: &[(TopicFilter, usize)], name: &str) {
    let Ok(topic) = TopicName::new(name) else { return };
    let mut found = Vec::new();
    trie.for_each_match(topic, |value| found.push(*value));
    found.sort_unstable();
    let name: Vec<&str> = name.split('/').collect();
    let mut expected = Vec::new();
    for (filter, value) in model {
        let levels: Vec<&str> = filter.as_str().split('/').collect();
        let matches = naive(&levels, &name, true);
        assert_eq!(filter.matches(topic), matches, "{filter} and {topic}");
        if matches {
            expected.push(*value);
        }
        // A filter that covers another matches all that it matches.
        for (other, _) in model.iter().filter(|(other, _)| other.matches(topic)) {
            assert!(matches || !filter.covers(other), "{filter} covers {other}");
            assert!(!matches || filter.overlaps(other), "{filter} overlaps {other}");
        }
    }
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn relations(model: &[(TopicFilter, usize)], filter: &TopicFilter) {
    assert!(filter.covers(filter) && filter.overlaps(filter));
    for (other, _) in model {
        assert_eq!(filter.overlaps(other), other.overlaps(filter));
        assert!(!filter.covers(other) || filter.overlaps(other));
    }
}

/// The meaning of MQTT section 4.7, by recursion over the levels.
fn naive(filter: &[&str], name: &[&str], first: bool) -> bool {
    let hidden = first && name.first().is_some_and(|level| level.starts_with('$'));
    match (filter, name) {
        ([], []) => true,
        (["#"], _) => !hidden,
        (["+", filter @ ..], [_, name @ ..]) => !hidden && naive(filter, name, false),
        ([one, filter @ ..], [other, name @ ..]) => one == other && naive(filter, name, false),
        _ => false,
    }
}
