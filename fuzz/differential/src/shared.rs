//! What comes by shared subscriptions: whichever member gets a message, the group as a whole gets it once.

use firehose_mqtt::Version;

use crate::{
    seen::{Delivery, Seen, WILL},
    session::Role,
};

/// The Subscription Identifier of every shared subscription of a 5.0 client, and of no other.
pub const IDENTIFIER: u32 = 1_000;

/// What all groups of a session were given, by topic and payload; who got it, and how, differs as members do.
#[derive(Default)]
pub struct Pool(Vec<(String, Vec<u8>)>);

impl Pool {
    /// Takes what came by shared subscriptions out of what a client saw.
    ///
    /// Wills are left out: mosquitto gives some to the client whose they are, or does not publish them.
    pub fn take_from(&mut self, role: Role, seen: &mut Vec<Seen>) {
        let shared = take(role, seen).into_iter();
        let others = shared.filter(|delivery| delivery.origin().is_none_or(|origin| origin.place != WILL));
        self.0.extend(others.map(|delivery| (delivery.topic, delivery.payload)));
    }
    /// What only this one has and what only that one has, as text; both empty when they are equal.
    pub fn differences(&self, other: &Self) -> (Vec<String>, Vec<String>) {
        (self.without(other), other.without(self))
    }

    fn without(&self, other: &Self) -> Vec<String> {
        let mut left = other.0.clone();
        let missing = self.0.iter().filter(|one| match left.iter().position(|it| it == *one) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        });
        missing.map(|(topic, payload)| format!("{topic:?} {:?}", shown(payload))).collect()
    }
}

/// Takes what came by shared subscriptions out of what a client saw, and gives it.
fn take(role: Role, seen: &mut Vec<Seen>) -> Vec<Delivery> {
    let mut shared = Vec::new();
    if role.shares {
        seen.retain(|seen| match seen.message().filter(|delivery| is_shared(role, delivery)) {
            Some(delivery) => {
                shared.push(delivery.clone());
                false
            }
            None => true,
        });
    }
    shared
}

/// Takes out of what a client saw when it subscribed what shared subscriptions brought it that had been retained. Tells how
/// much that was.
pub fn forget_retained(role: Role, seen: &mut Vec<Seen>) -> usize {
    let before = seen.len();
    let is_it = |delivery: &Delivery| role.shares && delivery.retain && is_shared(role, delivery);
    seen.retain(|seen| !seen.message().is_some_and(is_it));
    before - seen.len()
}

fn shown(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(24)]).into_owned()
}

fn is_shared(role: Role, delivery: &Delivery) -> bool {
    role.version != Version::V5 || delivery.identifiers == [IDENTIFIER]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_each_copy_that_came() {
        let given = |name: &&str| ("a".to_owned(), name.as_bytes().to_vec());
        let pool = |names: &[&str]| Pool(names.iter().map(given).collect());
        let (only_here, only_there) = pool(&["1", "1", "2"]).differences(&pool(&["2", "1", "3"]));
        assert_eq!((only_here, only_there), (vec![r#""a" "1""#.into()], vec![r#""a" "3""#.into()]));
    }
}
