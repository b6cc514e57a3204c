//! The access rules have a new generation: it holds for who is connected too.

use crate::shard::Shard;
use firehose_auth::Verdict;
use firehose_mqtt::Reason;

impl Shard {
    /// Takes the new rules; users who are gone are disconnected.
    pub(crate) fn reload(&mut self) {
        self.auth = self.shared.access.current();
        self.auth_generation = self.shared.access.generation();
        let gone: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, it)| self.is_gone(&it.identity))
            .map(|(session, _)| session as u32)
            .collect();
        for session in gone {
            self.disconnect(session, Reason::NotAuthorized, "the user is gone");
        }
        if !self.auth.is_open() {
            self.end_anonymous_members();
        }
        self.recheck_subscriptions();
        self.recheck_groups();
    }

    /// Nobody anonymous takes messages away from others any more.
    fn end_anonymous_members(&mut self) {
        let members =
            self.sessions.iter().filter(|(_, it)| it.shares.is_some() && it.identity.is_anonymous());
        for session in members.map(|(session, _)| session as u32).collect::<Vec<_>>() {
            self.disconnect(
                session,
                Reason::NotAuthorized,
                "the anonymous may not share subscriptions any more",
            );
        }
    }

    /// The access rules changed: what may no longer be read is checked topic by topic, and so delivers nothing.
    fn recheck_subscriptions(&mut self) {
        for (session, it) in &mut self.sessions {
            for (index, subscription) in it.subscriptions.iter_mut() {
                let verdict = self.auth.read_verdict(&it.identity, &it.client_id, &subscription.filter);
                subscription.checked = verdict != Verdict::All;
                let interest = subscription.interest(session as u32, index as u16);
                let place = |known: &crate::session::Interest| {
                    known.session == interest.session && known.subscription == interest.subscription
                };
                if let Some(known) = self.trie.get_mut(&subscription.filter, place) {
                    *known = interest;
                }
            }
        }
    }
}
