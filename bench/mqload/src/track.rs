//! Exact bookkeeping of sequences, and the closed-loop delivery window.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

/// Missing ranges kept per (publisher, subscriber); beyond this the oldest are forgotten (and stay lost).
const MAX_RANGES: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    New,
    /// First arrival, behind a later message. `true`: of the same topic.
    Late(bool),
    Dup,
}

/// What one subscriber has seen of one publisher.
#[derive(Debug, Default, Clone)]
pub struct Tracker {
    /// One above the highest sequence seen.
    pub next: u64,
    /// Distinct sequences received.
    pub unique: u64,
    pub cold: Option<Box<Cold>>,
}

#[derive(Debug, Default, Clone)]
pub struct Cold {
    /// Disjoint, ascending, half-open.
    missing: Vec<(u64, u64)>,
    pub forgotten: u64,
    pub dup: u64,
    /// Of `dup`, those that carried the DUP flag.
    pub dup_flagged: u64,
    pub order: u64,
    pub cross_topic: u64,
    /// Times that a message skipped ahead of the expected sequence.
    pub gaps: u64,
}

impl Tracker {
    #[inline(always)]
    pub fn on(&mut self, seq: u64, dup_flag: bool, topics: u64) -> Seen {
        if seq == self.next {
            self.next += 1;
            self.unique += 1;
            return Seen::New;
        }
        self.on_cold(seq, dup_flag, topics)
    }

    #[cold]
    #[inline(never)]
    fn on_cold(&mut self, seq: u64, dup_flag: bool, topics: u64) -> Seen {
        let c = self.cold.get_or_insert_with(Default::default);
        if seq > self.next {
            c.gaps += 1;
            c.missing.push((self.next, seq));
            if c.missing.len() > MAX_RANGES {
                let cut = MAX_RANGES / 2;
                c.forgotten += c.missing[..cut].iter().map(|r| r.1 - r.0).sum::<u64>();
                c.missing.drain(..cut);
            }
            self.next = seq + 1;
            self.unique += 1;
            return Seen::New;
        }
        let i = c.missing.partition_point(|r| r.1 <= seq);
        let hit = c.missing.get(i).is_some_and(|r| r.0 <= seq);
        if !hit {
            c.dup += 1;
            c.dup_flagged += dup_flag as u64;
            return Seen::Dup;
        }
        let (a, b) = c.missing[i];
        match (a == seq, b == seq + 1) {
            (true, true) => {
                c.missing.remove(i);
            }
            (true, false) => c.missing[i].0 = seq + 1,
            (false, true) => c.missing[i].1 = seq,
            (false, false) => {
                c.missing[i].1 = seq;
                c.missing.insert(i + 1, (seq + 1, b));
            }
        }
        self.unique += 1;
        // the same topic carries seq, seq + topics, seq + 2 * topics ...
        let t = topics.max(1);
        let mut same = false;
        let mut s = seq + t;
        let mut tries = 0;
        while s < self.next {
            let i = c.missing.partition_point(|r| r.1 <= s);
            if c.missing.get(i).is_none_or(|r| r.0 > s) {
                same = true;
                break;
            }
            s += t;
            tries += 1;
            if tries > 10_000 {
                same = true;
                break;
            }
        }
        if same {
            c.order += 1;
        } else {
            c.cross_topic += 1;
        }
        Seen::Late(same)
    }

    pub fn has(&self, seq: u64) -> bool {
        if seq >= self.next {
            return false;
        }
        match &self.cold {
            None => true,
            Some(c) => {
                let i = c.missing.partition_point(|r| r.1 <= seq);
                c.missing.get(i).is_none_or(|r| r.0 > seq)
            }
        }
    }
}

/// Closed-loop window of one publisher: how far ALL its subscribers have come.
///
/// Progress is counted in blocks of `1 << shift` messages. A subscriber adds one
/// to a block's counter when it has passed the block (delivered, or skipped by a
/// gap); counters are cumulative per ring slot, so that they are never reset.
pub struct PubWindow {
    nsubs: u64,
    pub shift: u32,
    ring: Box<[AtomicU64]>,
    complete: AtomicU64,
    pub blocked: AtomicBool,
    /// Worker and local index of the publisher.
    pub owner: (usize, u32),
    pub window: u64,
}

impl PubWindow {
    pub fn new(nsubs: u64, window: u64, shift: u32, owner: (usize, u32)) -> Self {
        let blocks = ((window >> shift) + 4).next_power_of_two() as usize;
        PubWindow {
            nsubs,
            shift,
            ring: (0..blocks).map(|_| AtomicU64::new(0)).collect(),
            complete: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            owner,
            window,
        }
    }

    /// Messages known to have been delivered to all (or skipped by all).
    #[inline]
    pub fn base(&self) -> u64 {
        self.complete.load(SeqCst) << self.shift
    }

    /// A subscriber moved from `old` to `new`; true where the publisher must be woken.
    #[inline]
    pub fn advance(&self, old: u64, new: u64) -> bool {
        let n = self.ring.len() as u64;
        let mut wake = false;
        for b in (old >> self.shift)..(new >> self.shift) {
            let c = self.ring[(b & (n - 1)) as usize].fetch_add(1, SeqCst) + 1;
            if c == self.nsubs * (b / n + 1) {
                self.complete.fetch_max(b + 1, SeqCst);
                wake = true;
            }
        }
        wake && self.blocked.swap(false, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order() {
        let mut t = Tracker::default();
        for s in 0..100 {
            assert_eq!(t.on(s, false, 1), Seen::New);
        }
        assert_eq!((t.next, t.unique), (100, 100));
        assert!(t.cold.is_none() && t.has(99) && !t.has(100));
    }

    #[test]
    fn gap_late_dup() {
        let mut t = Tracker::default();
        for s in [0, 1, 5, 9] {
            t.on(s, false, 1);
        }
        assert_eq!((t.next, t.unique), (10, 4));
        assert!(!t.has(3) && t.has(5) && !t.has(8));
        assert_eq!(t.on(3, false, 1), Seen::Late(true));
        assert_eq!(t.on(3, true, 1), Seen::Dup);
        assert_eq!(t.on(2, false, 1), Seen::Late(true));
        assert_eq!(t.on(4, false, 1), Seen::Late(true));
        assert_eq!(t.on(6, false, 1), Seen::Late(true));
        assert_eq!(t.on(8, false, 1), Seen::Late(true));
        assert_eq!(t.on(9, false, 1), Seen::Dup);
        let c = t.cold.clone().unwrap();
        assert_eq!((t.unique, c.dup, c.dup_flagged, c.order, c.gaps), (9, 2, 1, 5, 2));
        assert_eq!(t.next - t.unique, 1);
        assert!(!t.has(7));
    }

    #[test]
    fn cross_topic_is_not_an_order_violation() {
        let mut t = Tracker::default();
        // topic = seq % 4: 0 1 3 2: message 2 is late, but nothing newer of its own topic has come
        for s in [0, 1, 3] {
            t.on(s, false, 4);
        }
        assert_eq!(t.on(2, false, 4), Seen::Late(false));
        // 4 5 7 10 6: 6 comes after 10 of the same topic
        for s in [4, 5, 7, 10] {
            t.on(s, false, 4);
        }
        assert_eq!(t.on(6, false, 4), Seen::Late(true));
        let c = t.cold.unwrap();
        assert_eq!((c.order, c.cross_topic), (1, 1));
    }

    #[test]
    fn random_against_a_set() {
        let mut x = 12345u64;
        for topics in [1, 3] {
            let mut t = Tracker::default();
            let mut set = std::collections::HashSet::new();
            let mut dup = 0;
            for i in 0..20_000u64 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let seq = i / 2 + x % 50;
                if set.insert(seq) {
                    assert_ne!(t.on(seq, false, topics), Seen::Dup);
                } else {
                    assert_eq!(t.on(seq, false, topics), Seen::Dup);
                    dup += 1;
                }
            }
            assert_eq!(t.unique, set.len() as u64);
            assert_eq!(t.cold.as_ref().unwrap().dup, dup);
            for s in 0..t.next + 5 {
                assert_eq!(t.has(s), set.contains(&s));
            }
        }
    }

    #[test]
    fn window_waits_for_the_slowest() {
        let w = PubWindow::new(2, 64, 2, (0, 0));
        w.blocked.store(true, SeqCst);
        assert!(!w.advance(0, 9)); // fast subscriber: blocks 0 and 1
        assert_eq!(w.base(), 0);
        assert!(!w.advance(0, 3));
        assert!(w.advance(3, 4));
        assert_eq!(w.base(), 4);
        assert!(!w.advance(4, 9)); // not blocked any more
        assert_eq!(w.base(), 8);
        // many laps of the ring
        let (mut a, mut b) = (9u64, 9u64);
        for _ in 0..1000 {
            w.advance(a, a + 7);
            a += 7;
            w.advance(b, b + 7);
            b += 7;
            assert_eq!(w.base(), (b / 4) * 4);
        }
    }
}
