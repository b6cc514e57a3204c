//! What stands in a shard's trie, and where. Each subscription, and each group, keeps its place among those of its filter, so
//! that thousands who subscribe to the same one cost each other nothing when they come and go.

use crate::groups::GROUP;
use crate::session::Interest;
use crate::shard::Shard;
use firehose_topic::{TopicFilter, Trie};

/// The place of a subscription that does not stand in the trie.
pub(crate) const NOWHERE: u32 = u32::MAX;

impl Shard {
    /// Takes what stands at a place of a filter out of the trie; who has that place from now on is told.
    pub(crate) fn remove_interest(&mut self, filter: &TopicFilter, place: u32) {
        let Some((removed, moved)) = self.trie.remove(filter, place) else { return };
        let Some(moved) = moved.copied() else { return };
        debug_assert_ne!(removed, moved, "each stands there once");
        let keeps = match moved.session & GROUP {
            0 => self.sessions.get_mut(moved.session as usize).and_then(|it| {
                let subscription = it.subscriptions.get_mut(usize::from(moved.subscription))?;
                Some(&mut subscription.place)
            }),
            _ => self.groups.all.get_mut((moved.session & !GROUP) as usize).map(|group| &mut group.place),
        };
        if let Some(keeps) = keeps {
            *keeps = place;
        }
    }
}

/// What stands at a place of a filter is another from now on, of the same subscription.
pub(crate) fn change_interest(
    trie: &mut Trie<Interest>,
    filter: &TopicFilter,
    place: u32,
    interest: Interest,
) {
    if let Some(known) = trie.get_mut(filter, place) {
        debug_assert_eq!((known.session, known.subscription), (interest.session, interest.subscription));
        *known = interest;
    }
}
