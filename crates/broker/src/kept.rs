//! The budget of what clients make the bus keep, of all shards: packets that have not come whole, what a connection sent
//! that is not read for a while, filters that have no place yet, replies that nobody reads, topic aliases of publishers,
//! acknowledgements that publishers wait for, QoS 2 packet ids, wills, subscriptions while their client is connected.
//!
//! It is counted by *accounts*: a user has one, wherever its clients come from; the anonymous have one for each address
//! (IPv4, or IPv6 /64), and one for all that no address tells apart (loopback, unix sockets). An account may have a quarter of
//! `kept_bytes_max`, or one packet of the largest size with its replies; the anonymous together half of it. Beyond that
//! the connection that keeps the most is closed, in the account that has the most: who floods the bus pays for it, and
//! neither those who come by the same proxy nor a publisher whose large packet is on its way.
//!
//! Up to [`FREE_BYTES`] of a connection count for nothing, so that the budget is asked at the end of a read that leaves a
//! larger beginning behind, and never for a packet.
//!
//! What was published and has no place in the log yet counts too, but closes nobody: it is the disk that is slow, and the more honest
//! a publisher, the more it sends. While an account has more than its part, or all have more than there is, a connection
//! that has more than [`UNPLACED_FREE_BYTES`] of it is not read before all of that has its place. A log that keeps up has
//! a place for everything before the next read, and the budget is not asked at all.

use crate::connection::Pause;
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
/// What one connection may have published without a place in the log, and without being counted: about what one read of its
/// socket brings.
pub const UNPLACED_FREE_BYTES: usize = 128 << 10;

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

/// What one connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    kept: usize,
    unplaced: usize,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    unplaced_bytes: usize,
    /// What each one has; none: it is being closed, and counts no more.
    keepers: BTreeMap<Keeper, Option<Amount>>,
}

impl Account {
    fn largest(&self) -> Option<(Keeper, usize)> {
        let counting = self.keepers.iter().filter_map(|(keeper, amount)| Some((*keeper, (*amount)?.kept)));
        counting.max_by_key(|(_, bytes)| *bytes)
    }
}

#[derive(Debug, Default)]
struct Inside {
    accounts: BTreeMap<Payer, Account>,
    user_bytes: usize,
    anonymous_bytes: usize,
    unplaced_bytes: usize,
}

impl Inside {
    fn sum(&mut self, payer: &Payer) -> &mut usize {
        if payer.is_anonymous() { &mut self.anonymous_bytes } else { &mut self.user_bytes }
    }

    /// A connection has so much from now on. False: it is being closed.
    fn set(&mut self, payer: &Payer, keeper: Keeper, amount: Amount) -> bool {
        let account = self.accounts.entry(payer.clone()).or_default();
        let known = account.keepers.entry(keeper).or_insert(Some(Amount::default()));
        let Some(known) = known else { return false };
        let before = std::mem::replace(known, amount);
        account.bytes = account.bytes + amount.kept - before.kept;
        account.unplaced_bytes = account.unplaced_bytes + amount.unplaced - before.unplaced;
        self.unplaced_bytes = self.unplaced_bytes + amount.unplaced - before.unplaced;
        let sum = self.sum(payer);
        *sum = *sum + amount.kept - before.kept;
        true
    }

    fn remove(&mut self, payer: &Payer, keeper: Keeper) {
        self.set(payer, keeper, Amount::default());
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
        let (keeper, _) = account.largest()?;
        let amount = account.keepers.insert(keeper, None)??;
        account.bytes -= amount.kept;
        account.unplaced_bytes -= amount.unplaced;
        self.unplaced_bytes -= amount.unplaced;
        *self.sum(payer) -= amount.kept;
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

    /// What was published and has no place yet, as far as it counts.
    pub fn unplaced_bytes(&self) -> usize {
        lock(&self.inside).unplaced_bytes
    }

    /// A connection has so much from now on. Gives those that are to be closed for it, and whether what it published is to get its
    /// place before it is read again.
    fn set(&self, payer: &Payer, keeper: Keeper, amount: Amount) -> (Vec<Keeper>, bool) {
        let inside = &mut *lock(&self.inside);
        let mut closing = Vec::new();
        if !inside.set(payer, keeper, amount) {
            return (closing, false);
        }
        while let Some(payer) = self.over(inside, payer) {
            match inside.give_up_one(&payer) {
                Some(keeper) => closing.push(keeper),
                None => break,
            }
        }
        (closing, amount.unplaced > 0 && self.is_short(inside, payer))
    }

    /// Whether an account, or all together, have more than there is, with what has no place yet.
    fn is_short(&self, inside: &Inside, payer: &Payer) -> bool {
        let of_account =
            inside.accounts.get(payer).map_or(0, |account| account.bytes + account.unplaced_bytes);
        let of_all = inside.user_bytes + inside.anonymous_bytes + inside.unplaced_bytes;
        of_account > self.account_bytes_max || of_all > self.bytes_max
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
    amount: Amount,
}

impl Keeping {
    /// A connection that has kept nothing so far.
    pub(crate) fn new(
        budget: &Arc<KeptBytes>,
        identity: &Identity,
        address: Option<IpAddr>,
        keeper: Keeper,
    ) -> Keeping {
        Keeping {
            budget: budget.clone(),
            payer: Payer::of(identity, address),
            keeper,
            amount: Amount::default(),
        }
    }

    /// It has so much from now on. Gives the connections that are to be closed for it, itself perhaps, and whether it is to be read
    /// again only once what it published has its place.
    fn set(&mut self, amount: Amount) -> (Vec<Keeper>, bool) {
        if amount == self.amount {
            return (Vec::new(), false);
        }
        self.amount = amount;
        self.budget.set(&self.payer, self.keeper, amount)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        lock(&self.budget.inside).remove(&self.payer, self.keeper);
    }
}

impl Session {
    /// Whether it is plain that nothing counts, and nothing did: a reader that keeps up. Asked at each flush.
    pub(crate) fn keeps_nothing(&self) -> bool {
        let Some(connection) = self.connection.as_deref() else { return true };
        connection.keeping.is_none()
            && connection.input.is_empty()
            && !connection.blocked
            && connection.publisher.is_none()
            && connection.will.is_none()
            && connection.sequencing_bytes + connection.alias_bytes == 0
            && self.subscription_bytes <= FREE_BYTES
            && self.persistence.is_none()
    }

    /// What its client makes the bus keep, as far as it counts.
    fn kept(&self) -> Amount {
        let Some(connection) = self.connection.as_deref() else { return Amount::default() };
        let held = self.persistence.as_deref().map_or(0, |it| it.hold.reply_bytes());
        let above = |bytes: usize, free: usize| if bytes > free { bytes } else { 0 };
        Amount {
            kept: above(connection.kept_bytes() + held + self.subscription_bytes, FREE_BYTES),
            unplaced: above(connection.unplaced_bytes(), UNPLACED_FREE_BYTES),
        }
    }
}

impl Shard {
    /// Counts what the session's client makes the bus keep; beyond the budget a connection is closed for it, or this one is not
    /// read until what it published has its place.
    pub(crate) fn count_kept(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let amount = it.kept();
        let Some(connection) = it.connection.as_deref_mut() else { return };
        if amount == Amount::default() {
            connection.keeping = None;
            return;
        }
        let keeper = Keeper { shard: self.number, session, generation: it.generation };
        let keeping = connection.keeping.get_or_insert_with(|| {
            Box::new(Keeping::new(&self.shared.kept, &it.identity, connection.address, keeper))
        });
        let (closing, waits) = keeping.set(amount);
        if waits {
            connection.pauses.set(Pause::Budget, true);
        }
        for Keeper { shard, session, generation } in closing {
            if shard == self.number {
                self.over_budget(session, generation);
            } else {
                self.actions
                    .push(Action::ToShard { shard, message: Message::OverBudget { session, generation } });
            }
        }
    }

    /// Some of what a connection published that is counted has its place now.
    pub(crate) fn count_placed(&mut self, session: u32) {
        self.count_kept(session);
        if let Some(connection) = self.connection(session)
            && connection.pauses.has(Pause::Budget)
            && connection.unplaced_bytes() == 0
        {
            connection.pauses.set(Pause::Budget, false);
            self.actions.push(Action::Resume { session });
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

    impl Keeping {
        fn keeps(&mut self, bytes: usize) -> Vec<Keeper> {
            self.set(Amount { kept: bytes, unplaced: 0 }).0
        }

        /// Whether it is not to be read on.
        fn publishes(&mut self, bytes: usize) -> bool {
            let (closing, waits) = self.set(Amount { kept: 0, unplaced: bytes });
            assert!(closing.is_empty(), "nobody is closed for what the disk is too slow for");
            waits
        }
    }

    fn sessions(closing: &[Keeper]) -> Vec<u32> {
        closing.iter().map(|keeper| keeper.session).collect()
    }

    #[test]
    fn an_account_has_a_quarter_and_its_largest_goes_first() {
        let budget = budget();
        let mut all: Vec<Keeping> = (0..4).map(|it| keeping(&budget, Some("mallory"), None, it)).collect();
        assert!(all[0].keeps(800_000).is_empty());
        assert!(all[1].keeps(900_000).is_empty());
        assert_eq!(sessions(&all[2].keeps(500_000)), [1]);
        assert_eq!(budget.bytes(), 1_300_000);
        assert!(all[1].keeps(950_000).is_empty(), "it is being closed, and counts no more");
        assert_eq!(sessions(&all[3].keeps(1_000_000)), [3], "the one that asks may be the largest");
        assert_eq!(budget.bytes(), 1_300_000);
        let mut other = keeping(&budget, Some("alice"), None, 9);
        assert!(other.keeps(1 << 20).is_empty(), "another user pays for nothing");
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
        assert!(all[0].keeps(2 << 20).is_empty());
        assert!(all[1].keeps((2 << 20) - 1000).is_empty());
        let mut user = keeping(&budget, Some("alice"), Some(&from(0)), 7);
        assert!(user.keeps(1 << 20).is_empty(), "a user behind the same address has its own");
        assert_eq!(sessions(&all[2].keeps(5000)), [0], "who has the most goes first");
        assert_eq!(budget.bytes(), (3 << 20) + 4000);
    }

    #[test]
    fn users_give_way_to_each_other_and_never_to_the_anonymous() {
        let budget = budget();
        let mut users: Vec<Keeping> =
            (0..4).map(|it| keeping(&budget, Some(&format!("user {it}")), None, it)).collect();
        for (index, user) in users.iter_mut().enumerate() {
            assert!(user.keeps((2 << 20) - 1000 - index).is_empty());
        }
        let mut anonymous = keeping(&budget, None, None, 9);
        assert_eq!(sessions(&anonymous.keeps(20_000)), [0]);
        drop(users);
        let mut flood: Vec<Keeping> =
            (0..4).map(|it| keeping(&budget, None, Some(&format!("2001:db8:0:{it}::1")), 10 + it)).collect();
        let closed: Vec<u32> = flood.iter_mut().flat_map(|it| sessions(&it.keeps(2_000_000))).collect();
        assert_eq!(closed.len(), 2);
        let mut user = keeping(&budget, Some("alice"), None, 20);
        assert!(user.keeps(1 << 20).is_empty());
    }

    #[test]
    fn one_packet_of_the_largest_size_always_has_room() {
        let limits = Limits { kept_bytes_max: 0, ..Limits::default() };
        let budget = Arc::new(KeptBytes::new(&limits));
        let mut user = keeping(&budget, Some("alice"), None, 1);
        assert!(user.keeps(limits.packet_bytes_max).is_empty());
        let mut anonymous = keeping(&budget, None, None, 2);
        assert!(anonymous.keeps(limits.packet_anonymous_bytes_max).is_empty());
    }

    #[test]
    fn what_has_no_place_yet_stops_who_published_it_and_closes_nobody() {
        let budget = budget();
        let mut all: Vec<Keeping> = (0..4).map(|it| keeping(&budget, Some("alice"), None, it)).collect();
        assert!(!all[0].publishes(1 << 20));
        assert!(!all[1].publishes(1 << 20), "2 MiB are its part");
        assert!(all[2].publishes(200_000));
        assert!(all[1].publishes((1 << 20) + 1), "and so does each one that goes on");
        let mut bob = keeping(&budget, Some("bob"), None, 7);
        assert!(!bob.publishes(1 << 20), "another user has a part of its own");
        drop(all);
        assert_eq!(budget.unplaced_bytes(), 1 << 20);
        let mut others: Vec<Keeping> =
            (0..4).map(|it| keeping(&budget, Some(&format!("user {it}")), None, 10 + it)).collect();
        let waiting = others.iter_mut().filter_map(|it| it.publishes(2 << 20).then_some(())).count();
        assert_eq!(waiting, 1, "all together have 8 MiB");
        drop((others, bob));
        assert_eq!((budget.unplaced_bytes(), budget.bytes()), (0, 0));
        assert!(lock(&budget.inside).accounts.is_empty());
    }
}
