//! The budget of what clients make the bus keep, of all shards: packets that have not come whole, what a connection sent
//! that is not read for a while, replies that nobody reads, topic aliases of publishers, wills.
//!
//! It is counted by *accounts*: a user has one, wherever its clients come from; the anonymous have one for each address
//! (IPv4, or IPv6 /64), and one for all that no address tells apart (loopback, unix sockets). An account may have a quarter of
//! `kept_bytes_max`, or one packet of the largest size with its replies; the anonymous together half of it. Beyond that
//! the connection that keeps the most is closed, in the account that has the most: who floods the bus pays for it, and
//! neither those who come by the same proxy nor a publisher whose large packet is on its way.
//!
//! Up to [`FREE_BYTES`] of a connection count for nothing, so that the budget is asked at the end of a read that leaves a
//! larger beginning behind, and never for a packet.

use crate::inbound::CONTROL_BYTES_MAX;
use crate::limits::{AddressKey, Limits};
use crate::message::Message;
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::sync::{Mutex, lock};
use firehose_auth::Identity;
use firehose_mqtt::Reason;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What one connection may make the bus keep without being counted.
pub const FREE_BYTES: usize = 4 << 10;

/// A connection, as shards name it to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keeper {
    /// Its shard.
    pub shard: usize,
    /// Its session's place there.
    pub session: u32,
    /// Tells the session from later ones in the same place.
    pub generation: u32,
}

/// Who pays for a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Payer {
    User(Identity),
    Anonymous(Option<AddressKey>),
}

impl Payer {
    fn of(identity: &Identity, address: Option<IpAddr>) -> Payer {
        match identity.is_anonymous() {
            true => Payer::Anonymous(AddressKey::of(address)),
            false => Payer::User(identity.clone()),
        }
    }

    fn is_anonymous(&self) -> bool {
        matches!(self, Payer::Anonymous(_))
    }
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    /// What each one keeps; none: it is being closed, and counts no more.
    keepers: BTreeMap<Keeper, Option<usize>>,
}

impl Account {
    fn largest(&self) -> Option<(Keeper, usize)> {
        let counting = self.keepers.iter().filter_map(|(keeper, bytes)| Some((*keeper, (*bytes)?)));
        counting.max_by_key(|(_, bytes)| *bytes)
    }
}

#[derive(Debug, Default)]
struct Inside {
    accounts: BTreeMap<Payer, Account>,
    user_bytes: usize,
    anonymous_bytes: usize,
}

impl Inside {
    fn sum(&mut self, payer: &Payer) -> &mut usize {
        if payer.is_anonymous() { &mut self.anonymous_bytes } else { &mut self.user_bytes }
    }

    /// A connection keeps so much from now on. False: it is being closed.
    fn set(&mut self, payer: &Payer, keeper: Keeper, bytes: usize) -> bool {
        let account = self.accounts.entry(payer.clone()).or_default();
        let Some(kept) = account.keepers.entry(keeper).or_insert(Some(0)) else { return false };
        let before = std::mem::replace(kept, bytes);
        account.bytes = account.bytes + bytes - before;
        let sum = self.sum(payer);
        *sum = *sum + bytes - before;
        true
    }

    fn remove(&mut self, payer: &Payer, keeper: Keeper) {
        self.set(payer, keeper, 0);
        if let Some(account) = self.accounts.get_mut(payer) {
            account.keepers.remove(&keeper);
            if account.keepers.is_empty() {
                self.accounts.remove(payer);
            }
        }
    }

    /// The connection of an account that keeps the most is to be closed: it counts no more.
    fn give_up_one(&mut self, payer: &Payer) -> Option<Keeper> {
        let account = self.accounts.get_mut(payer)?;
        let (keeper, bytes) = account.largest()?;
        account.bytes -= bytes;
        account.keepers.insert(keeper, None);
        *self.sum(payer) -= bytes;
        Some(keeper)
    }

    /// The account that has the most, of the anonymous or of the users.
    fn largest(&self, anonymous: bool) -> Option<Payer> {
        let accounts = self.accounts.iter().filter(|(payer, _)| payer.is_anonymous() == anonymous);
        accounts.max_by_key(|(_, account)| account.bytes).map(|(payer, _)| payer.clone())
    }
}

/// See the module.
#[derive(Debug)]
pub struct KeptBytes {
    bytes_max: usize,
    anonymous_bytes_max: usize,
    account_bytes_max: usize,
    inside: Mutex<Inside>,
}

impl KeptBytes {
    /// The budget that the limits give.
    pub fn new(limits: &Limits) -> KeptBytes {
        let packet_bytes_max = limits.packet_bytes_max.max(limits.packet_anonymous_bytes_max);
        let account_bytes_max =
            (limits.kept_bytes_max / 4).max(packet_bytes_max.saturating_add(CONTROL_BYTES_MAX));
        let bytes_max = limits.kept_bytes_max.max(account_bytes_max);
        let anonymous_bytes_max = (bytes_max / 2).max(limits.packet_anonymous_bytes_max);
        KeptBytes { bytes_max, anonymous_bytes_max, account_bytes_max, inside: Mutex::default() }
    }

    /// What all connections make the bus keep, as far as it counts.
    pub fn bytes(&self) -> usize {
        let inside = lock(&self.inside);
        inside.user_bytes + inside.anonymous_bytes
    }

    /// A connection keeps so much from now on. Gives those that are to be closed for it.
    fn set(&self, payer: &Payer, keeper: Keeper, bytes: usize) -> Vec<Keeper> {
        let inside = &mut *lock(&self.inside);
        let mut closing = Vec::new();
        if !inside.set(payer, keeper, bytes) {
            return closing;
        }
        while let Some(payer) = self.over(inside, payer) {
            match inside.give_up_one(&payer) {
                Some(keeper) => closing.push(keeper),
                None => break,
            }
        }
        closing
    }

    /// Whose turn it is to keep less, since this account has changed.
    fn over(&self, inside: &Inside, changed: &Payer) -> Option<Payer> {
        if inside.accounts.get(changed).is_some_and(|account| account.bytes > self.account_bytes_max) {
            return Some(changed.clone());
        }
        if inside.anonymous_bytes > self.anonymous_bytes_max {
            return inside.largest(true);
        }
        let is_over = inside.user_bytes + inside.anonymous_bytes > self.bytes_max;
        if is_over { inside.largest(false) } else { None }
    }
}

/// What one connection makes the bus keep; counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Keeping {
    budget: Arc<KeptBytes>,
    payer: Payer,
    keeper: Keeper,
    bytes: usize,
}

impl Keeping {
    /// A connection that has kept nothing so far.
    pub(crate) fn new(
        budget: &Arc<KeptBytes>,
        identity: &Identity,
        address: Option<IpAddr>,
        keeper: Keeper,
    ) -> Keeping {
        Keeping { budget: budget.clone(), payer: Payer::of(identity, address), keeper, bytes: 0 }
    }

    /// It keeps so much from now on. Gives the connections that are to be closed for it, itself perhaps.
    pub(crate) fn set(&mut self, bytes: usize) -> Vec<Keeper> {
        if bytes == self.bytes {
            return Vec::new();
        }
        self.bytes = bytes;
        self.budget.set(&self.payer, self.keeper, bytes)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        lock(&self.budget.inside).remove(&self.payer, self.keeper);
    }
}

impl Session {
    fn kept_bytes(&self) -> usize {
        let held = self.persistence.as_deref().map_or(0, |it| it.hold.reply_bytes());
        self.connection.as_deref().map_or(0, |connection| connection.kept_bytes() + held)
    }
}

impl Shard {
    /// Counts what the session's client makes the bus keep; beyond the budget a connection is closed for it.
    pub(crate) fn count_kept(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let bytes = it.kept_bytes();
        let Some(connection) = it.connection.as_deref_mut() else { return };
        if bytes <= FREE_BYTES {
            connection.keeping = None;
            return;
        }
        let keeper = Keeper { shard: self.number, session, generation: it.generation };
        let keeping = connection.keeping.get_or_insert_with(|| {
            Box::new(Keeping::new(&self.shared.kept, &it.identity, connection.address, keeper))
        });
        for Keeper { shard, session, generation } in keeping.set(bytes) {
            if shard == self.number {
                self.over_budget(session, generation);
            } else {
                self.actions
                    .push(Action::ToShard { shard, message: Message::OverBudget { session, generation } });
            }
        }
    }

    /// The session's client is the one that has to go.
    pub(crate) fn over_budget(&mut self, session: u32, generation: u32) {
        if self.sessions.get(session as usize).is_some_and(|it| it.generation == generation) {
            self.stats.connections_over_budget.add(1);
            let why =
                "it, and others of its user or address, made the bus keep too much: limits.kept_bytes_max";
            self.disconnect(session, Reason::QuotaExceeded, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Arc<KeptBytes> {
        let limits = Limits {
            kept_bytes_max: 8 << 20,
            packet_bytes_max: 1 << 20,
            packet_anonymous_bytes_max: 1000,
            ..Limits::default()
        };
        Arc::new(KeptBytes::new(&limits))
    }

    fn keeping(budget: &Arc<KeptBytes>, user: Option<&str>, address: Option<&str>, session: u32) -> Keeping {
        let identity = user.map_or_else(Identity::anonymous, Identity::user);
        let address = address.map(|text| text.parse().unwrap());
        Keeping::new(budget, &identity, address, Keeper { shard: 0, session, generation: 1 })
    }

    fn sessions(closing: &[Keeper]) -> Vec<u32> {
        closing.iter().map(|keeper| keeper.session).collect()
    }

    #[test]
    fn an_account_has_a_quarter_and_its_largest_goes_first() {
        let budget = budget();
        let mut all: Vec<Keeping> = (0..4).map(|it| keeping(&budget, Some("mallory"), None, it)).collect();
        assert!(all[0].set(800_000).is_empty());
        assert!(all[1].set(900_000).is_empty());
        assert_eq!(sessions(&all[2].set(500_000)), [1]);
        assert_eq!(budget.bytes(), 1_300_000);
        assert!(all[1].set(950_000).is_empty(), "it is being closed, and counts no more");
        assert_eq!(sessions(&all[3].set(1_000_000)), [3], "the one that asks may be the largest");
        assert_eq!(budget.bytes(), 1_300_000);
        let mut other = keeping(&budget, Some("alice"), None, 9);
        assert!(other.set(1 << 20).is_empty(), "another user pays for nothing");
        drop(other);
        drop(all);
        assert_eq!(budget.bytes(), 0);
        assert!(lock(&budget.inside).accounts.is_empty());
    }

    #[test]
    fn the_anonymous_have_an_account_for_each_address_and_half_of_all_together() {
        let budget = budget();
        let from = |last: u32| format!("203.0.113.{last}");
        let mut all: Vec<Keeping> = (0..3).map(|it| keeping(&budget, None, Some(&from(it)), it)).collect();
        assert!(all[0].set(2 << 20).is_empty());
        assert!(all[1].set((2 << 20) - 1000).is_empty());
        let mut user = keeping(&budget, Some("alice"), Some(&from(0)), 7);
        assert!(user.set(1 << 20).is_empty(), "a user behind the same address has its own");
        assert_eq!(sessions(&all[2].set(5000)), [0], "who has the most goes first");
        assert_eq!(budget.bytes(), (3 << 20) + 4000);
    }

    #[test]
    fn users_give_way_to_each_other_and_never_to_the_anonymous() {
        let budget = budget();
        let mut users: Vec<Keeping> =
            (0..4).map(|it| keeping(&budget, Some(&format!("user {it}")), None, it)).collect();
        for (index, user) in users.iter_mut().enumerate() {
            assert!(user.set((2 << 20) - 1000 - index).is_empty());
        }
        let mut anonymous = keeping(&budget, None, None, 9);
        assert_eq!(sessions(&anonymous.set(20_000)), [0]);
        drop(users);
        let mut flood: Vec<Keeping> =
            (0..4).map(|it| keeping(&budget, None, Some(&format!("2001:db8:0:{it}::1")), 10 + it)).collect();
        let closed: Vec<u32> = flood.iter_mut().flat_map(|it| sessions(&it.set(2_000_000))).collect();
        assert_eq!(closed.len(), 2);
        let mut user = keeping(&budget, Some("alice"), None, 20);
        assert!(user.set(1 << 20).is_empty());
    }

    #[test]
    fn one_packet_of_the_largest_size_always_has_room() {
        let limits = Limits { kept_bytes_max: 0, ..Limits::default() };
        let budget = Arc::new(KeptBytes::new(&limits));
        let mut user = keeping(&budget, Some("alice"), None, 1);
        assert!(user.set(limits.packet_bytes_max).is_empty());
        let mut anonymous = keeping(&budget, None, None, 2);
        assert!(anonymous.set(limits.packet_anonymous_bytes_max).is_empty());
    }
}
