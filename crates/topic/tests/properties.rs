//! Filters, names and the trie against the naive meaning of MQTT section 4.7.

use firehose_topic::{TopicFilter, TopicName, Trie};
use proptest::prelude::*;
use std::collections::HashMap;

/// Few different levels, so that names and filters meet often.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["", "a", "b", "$x", "a-level-of-more-than-22-bytes"]),
        1..5,
    )
    .prop_map(|levels| levels.join("/"))
    .prop_filter("a name is not empty", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop::sample::select(vec!["", "a", "b", "$x", "+", "+", "a-level-of-more-than-22-bytes"]);
    (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("not empty", |(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        TopicFilter::new(&levels.join("/")).ok()
    })
}

/// The meaning, by recursion over the levels.
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

fn naive_match(filter: &TopicFilter, name: &str) -> bool {
    naive(&filter.as_str().split('/').collect::<Vec<_>>(), &name.split('/').collect::<Vec<_>>(), true)
}

/// All names of up to four of the levels that the filters know, and of one they do not: enough to tell apart any two
/// filters of up to four levels.
fn all_names() -> Vec<String> {
    let levels = ["", "a", "b", "$x", "a-level-of-more-than-22-bytes", "other"];
    let mut names: Vec<String> = levels.iter().map(|level| (*level).to_string()).collect();
    let mut last = names.clone();
    for _ in 0..4 {
        last =
            last.iter().flat_map(|name| levels.iter().map(move |level| format!("{name}/{level}"))).collect();
        names.extend(last.iter().cloned());
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Takes a value out by its place, and notes that of the one that moved.
fn take(
    trie: &mut Trie<usize>,
    places: &mut HashMap<usize, u32>,
    filter: &TopicFilter,
    value: usize,
) -> Option<usize> {
    let place = places.remove(&value)?;
    let (taken, moved) = trie.remove(filter, place)?;
    if let Some(moved) = moved {
        places.insert(*moved, place);
    }
    Some(taken)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_matches_as_the_naive_matcher_says(filter in filter(), name in name()) {
        prop_assert_eq!(filter.matches(TopicName::new(&name).unwrap()), naive_match(&filter, &name));
    }

    #[test]
    fn the_trie_finds_what_the_filters_match_after_any_inserts_and_removals(
        steps in prop::collection::vec((filter(), any::<prop::sample::Index>(), 0..4_u8), 1..60),
        names in prop::collection::vec(name(), 1..8),
    ) {
        let mut trie = Trie::new();
        let mut model: Vec<(TopicFilter, usize)> = Vec::new();
        let mut places = HashMap::new();
        for (number, (filter, which, kind)) in steps.into_iter().enumerate() {
            if kind == 0 && !model.is_empty() {
                let (filter, value) = model.swap_remove(which.index(model.len()));
                prop_assert_eq!(take(&mut trie, &mut places, &filter, value), Some(value));
            } else {
                places.insert(number, trie.insert(&filter, number));
                model.push((filter, number));
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        for name in &names {
            let mut found = Vec::new();
            trie.for_each_match(TopicName::new(name).unwrap(), |value| found.push(*value));
            found.sort_unstable();
            let mut expected: Vec<usize> =
                model.iter().filter(|(filter, _)| naive_match(filter, name)).map(|(_, value)| *value).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        for (filter, value) in model {
            prop_assert_eq!(take(&mut trie, &mut places, &filter, value), Some(value));
        }
        prop_assert_eq!(trie.nodes(), 0);
    }
}

#[test]
fn covering_and_overlap_mean_what_they_say_for_all_names() {
    let names = all_names();
    let levels = ["", "a", "$x", "+"];
    let mut filters = vec![];
    let mut last = vec![String::new()];
    for depth in 0..3 {
        let join = |prefix: &String, level: &str| {
            if depth == 0 { level.to_string() } else { format!("{prefix}/{level}") }
        };
        filters.extend(last.iter().map(|prefix| join(prefix, "#")));
        last = last.iter().flat_map(|prefix| levels.iter().map(move |level| join(prefix, level))).collect();
        filters.extend(last.iter().cloned());
    }
    let filters: Vec<TopicFilter> = filters.iter().filter_map(|text| TopicFilter::new(text).ok()).collect();
    let matched: Vec<Vec<bool>> =
        filters.iter().map(|filter| names.iter().map(|name| naive_match(filter, name)).collect()).collect();
    for (one, ours) in filters.iter().zip(&matched) {
        for (other, theirs) in filters.iter().zip(&matched) {
            let covers = ours.iter().zip(theirs).all(|(ours, theirs)| *ours || !theirs);
            let overlaps = ours.iter().zip(theirs).any(|(ours, theirs)| *ours && *theirs);
            assert_eq!(one.covers(other), covers, "{one} covers {other}");
            assert_eq!(one.overlaps(other), overlaps, "{one} overlaps {other}");
        }
    }
}
