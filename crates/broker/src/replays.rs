//! The budget of replays: how many run at once, and how much they may send to one address. Shared by all shards;
//! asked when a replay begins, ends or has sent a chunk, never on the way of a live event.

use crate::limits::{AddressKey, Limits};
use crate::sync::{Mutex, lock};
use std::collections::HashMap;
use std::net::IpAddr;

/// As many addresses cost nothing worth saving.
const FORGET_ABOVE: usize = 64;
/// How far an address may run ahead of its rate: one second's worth.
const BURST_MS: u64 = 1000;

#[derive(Default)]
struct PerAddress {
    running: usize,
    /// When everything that was sent so far will have been within the rate.
    paid_until_us: u64,
}

#[derive(Default)]
struct Inside {
    running: usize,
    addresses: HashMap<AddressKey, PerAddress>,
    /// The newest time that anybody told.
    now_ms: u64,
    /// With more addresses than this, it is time to look which can be forgotten.
    forget_above: usize,
}

impl Inside {
    /// An address is forgotten when nothing runs for it and all is paid: who ends a replay and begins the next one
    /// does not get a new allowance by that.
    fn forget_idle(&mut self) {
        let now_us = self.now_ms * 1000;
        self.addresses.retain(|_, it| it.running > 0 || it.paid_until_us > now_us);
    }
}

/// See the module.
pub struct Replays {
    replays_max: usize,
    per_address_max: usize,
    bytes_per_sec: u64,
    inside: Mutex<Inside>,
}

impl Replays {
    /// The budget that the limits give.
    pub fn new(limits: &Limits) -> Replays {
        Replays {
            replays_max: limits.replays_max,
            per_address_max: limits.replays_per_address_max,
            bytes_per_sec: limits.replay_bytes_per_sec_per_address_max,
            inside: Mutex::default(),
        }
    }

    /// A replay wants to begin; false: there are too many.
    pub fn begin(&self, address: Option<IpAddr>) -> bool {
        let inside = &mut *lock(&self.inside);
        if inside.running >= self.replays_max {
            return false;
        }
        if let Some(key) = AddressKey::of(address) {
            let of_address = inside.addresses.entry(key).or_default();
            if of_address.running >= self.per_address_max {
                return false;
            }
            of_address.running += 1;
        }
        inside.running += 1;
        true
    }

    /// A replay has ended.
    pub fn end(&self, address: Option<IpAddr>) {
        let mut inside = lock(&self.inside);
        inside.running = inside.running.saturating_sub(1);
        if let Some(key) = AddressKey::of(address)
            && let Some(of_address) = inside.addresses.get_mut(&key)
        {
            of_address.running = of_address.running.saturating_sub(1);
            if of_address.running == 0 {
                inside.forget_idle();
            }
        }
    }

    /// Whether the address may be sent more of a replay now.
    pub fn may_send(&self, address: Option<IpAddr>, now_ms: u64) -> bool {
        match AddressKey::of(address) {
            Some(key) if self.bytes_per_sec > 0 => {
                let inside = &mut *lock(&self.inside);
                inside.now_ms = inside.now_ms.max(now_ms);
                inside.addresses.get(&key).is_none_or(|it| it.paid_until_us <= (now_ms + BURST_MS) * 1000)
            }
            _ => true,
        }
    }

    /// So many bytes of a replay, or of retained messages, were queued for the address.
    pub fn sent(&self, address: Option<IpAddr>, bytes: usize, now_ms: u64) {
        if self.bytes_per_sec == 0 {
            return;
        }
        if let Some(key) = AddressKey::of(address) {
            let inside = &mut *lock(&self.inside);
            inside.now_ms = inside.now_ms.max(now_ms);
            if inside.addresses.len() >= inside.forget_above {
                inside.forget_idle();
                inside.forget_above = FORGET_ABOVE.max(2 * inside.addresses.len());
            }
            let of_address = inside.addresses.entry(key).or_default();
            let cost_us = bytes as u64 * 1_000_000 / self.bytes_per_sec;
            of_address.paid_until_us = of_address.paid_until_us.max(now_ms * 1000) + cost_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn counts_all_and_each_address_but_not_loopback() {
        let replays =
            Replays::new(&Limits { replays_max: 3, replays_per_address_max: 1, ..Limits::default() });
        assert!(replays.begin(address("203.0.113.1")));
        assert!(!replays.begin(address("203.0.113.1")));
        assert!(replays.begin(address("127.0.0.1")));
        assert!(replays.begin(address("127.0.0.1")));
        assert!(!replays.begin(address("203.0.113.2")), "three run");
        replays.end(address("203.0.113.1"));
        assert!(replays.begin(address("203.0.113.1")));
    }

    #[test]
    fn an_address_is_held_to_its_rate() {
        let limits = Limits { replay_bytes_per_sec_per_address_max: 1000, ..Limits::default() };
        let (replays, who) = (Replays::new(&limits), address("203.0.113.1"));
        assert!(replays.begin(who));
        assert!(replays.may_send(who, 0));
        replays.sent(who, 3000, 0);
        assert!(!replays.may_send(who, 0));
        assert!(!replays.may_send(who, 1999));
        assert!(replays.may_send(who, 2000), "a second's worth ahead of the rate");
        replays.end(who);
        assert!(replays.begin(who));
        assert!(!replays.may_send(who, 1999), "the next replay pays for the last one");
    }
}
