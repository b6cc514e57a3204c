//! The subscriptions of a session: each has a place, and is found by its filter without looking at all of them. Clients that have many
//! and change them all the time so cost no more than others.

use crate::session::Subscription;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

/// So many are looked at one by one; an index is for more.
const FEW: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Subscriptions {
    places: Vec<Option<Subscription>>,
    changes: u32,
    index: Option<Box<Index>>,
}

/// Where filters stand, and which places are free.
#[derive(Default)]
struct Index {
    /// Hash of the filter's text, place.
    known: BTreeSet<(u64, u16)>,
    free: Vec<u16>,
    hasher: RandomState,
}

impl Subscription {
    /// The filter as the client wrote it.
    pub fn text(&self) -> &str {
        self.written.as_deref().unwrap_or(self.filter.as_str())
    }
}

impl Subscriptions {
    /// How many there are.
    pub fn count(&self) -> usize {
        match &self.index {
            Some(index) => index.known.len(),
            None => self.iter().count(),
        }
    }

    /// Another number since any of them came, went, or may have another lane.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// One more than the last place that was ever taken.
    pub fn end(&self) -> usize {
        self.places.len()
    }

    /// The subscription at a place.
    pub fn get(&self, place: usize) -> Option<&Subscription> {
        self.places.get(place)?.as_ref()
    }

    /// The subscription at a place. Its filter is not to be changed.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Subscription> {
        self.places.get_mut(place)?.as_mut()
    }

    /// All, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Subscription)> {
        self.places.iter().enumerate().filter_map(|(place, it)| Some((place, it.as_ref()?)))
    }

    /// All, with their places. Filters are not to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Subscription)> {
        self.changes = self.changes.wrapping_add(1);
        self.places.iter_mut().enumerate().filter_map(|(place, it)| Some((place, it.as_mut()?)))
    }

    /// The place of the filter that a client wrote so.
    pub fn find(&self, text: &str) -> Option<usize> {
        let is_it = |place: &usize| self.get(*place).is_some_and(|it| it.text() == text);
        match &self.index {
            Some(index) => index.candidates(text).find(is_it),
            None => (0..self.places.len()).find(is_it),
        }
    }

    /// The place that the next one gets.
    pub fn free(&self) -> usize {
        match &self.index {
            Some(index) => index.free.last().map_or(self.places.len(), |place| usize::from(*place)),
            None => self.places.iter().position(Option::is_none).unwrap_or(self.places.len()),
        }
    }

    /// Adds one, whose filter is not among them yet, at [`Subscriptions::free`]; there are never more than a `u16` counts.
    pub fn insert(&mut self, subscription: Subscription) {
        let place = self.free();
        self.changes = self.changes.wrapping_add(1);
        if let Some(index) = &mut self.index {
            index.free.pop();
            index.insert(place, &subscription);
        }
        if place == self.places.len() {
            if place == 0 {
                self.places.reserve_exact(1);
            }
            self.places.push(None);
        }
        self.places[place] = Some(subscription);
        if self.index.is_none() && self.places.len() > FEW {
            self.index = Some(Box::new(self.new_index()));
        }
    }

    /// Takes the one at a place out; the place is used again.
    pub fn take(&mut self, place: usize) -> Option<Subscription> {
        let subscription = self.places.get_mut(place)?.take()?;
        self.changes = self.changes.wrapping_add(1);
        if let Some(index) = &mut self.index {
            index.remove(place, &subscription);
        }
        Some(subscription)
    }

    fn new_index(&self) -> Index {
        let mut index = Index::default();
        for (place, subscription) in self.places.iter().enumerate() {
            match subscription {
                Some(subscription) => index.insert(place, subscription),
                None => index.free.push(place as u16),
            }
        }
        index
    }
}

impl Index {
    fn candidates(&self, text: &str) -> impl Iterator<Item = usize> {
        let hash = self.hasher.hash_one(text);
        self.known.range((hash, 0)..=(hash, u16::MAX)).map(|(_, place)| usize::from(*place))
    }

    fn insert(&mut self, place: usize, subscription: &Subscription) {
        self.known.insert((self.hasher.hash_one(subscription.text()), place as u16));
    }

    fn remove(&mut self, place: usize, subscription: &Subscription) {
        self.known.remove(&(self.hasher.hash_one(subscription.text()), place as u16));
        self.free.push(place as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::MAIN;
    use firehose_mqtt::SubscribeOptions;
    use firehose_topic::TopicFilter;

    fn subscription(text: &str) -> Subscription {
        let written = text.starts_with('$').then(|| text.into());
        let filter = TopicFilter::new(text.trim_start_matches("$replay/earliest/")).expect("a filter");
        Subscription {
            filter,
            options: SubscribeOptions::default(),
            id: 0,
            lane: MAIN,
            from: 1,
            place: 0,
            checked: false,
            written,
        }
    }

    #[test]
    fn few_and_many_are_found_by_what_the_client_wrote() {
        for count in [1, FEW - 1, FEW, FEW + 1, 1_000] {
            let mut all = Subscriptions::default();
            let text = |number: usize| match number % 2 {
                0 => format!("t/{number}"),
                _ => format!("$replay/earliest/t/{}", number - 1),
            };
            for number in 0..count {
                assert_eq!((all.find(&text(number)), all.free()), (None, number));
                all.insert(subscription(&text(number)));
            }
            for number in (0..count).step_by(3) {
                assert_eq!(all.find(&text(number)), Some(number));
                assert_eq!(all.take(number).map(|it| it.text().to_owned()), Some(text(number)));
                assert!(all.take(number).is_none());
            }
            for number in 0..count {
                assert_eq!(all.find(&text(number)), Some(number).filter(|it| it % 3 > 0), "{count}");
            }
            let taken = count.div_ceil(3);
            assert_eq!((all.count(), all.iter().count(), all.end()), (count - taken, count - taken, count));
            for number in 0..=taken {
                let place = all.free();
                all.insert(subscription(&format!("u/{number}")));
                assert_eq!(all.find(&format!("u/{number}")), Some(place));
            }
            assert_eq!((all.count(), all.end()), (count + 1, count + 1), "free places are used first");
        }
    }
}
