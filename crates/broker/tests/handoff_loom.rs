//! Every interleaving of the hand-off between threads, by loom. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --profile ci -p firehose-broker --test handoff_loom`.
#![cfg(loom)]

use firehose_broker::handoff::{Mailbox, Reader, Turnstile};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

#[test]
fn every_deposit_is_taken_although_nobody_waits() {
    loom::model(|| {
        let turnstile = Arc::new(Turnstile::<u32, Vec<u32>>::new(2, Vec::new()));
        let other = {
            let turnstile = turnstile.clone();
            thread::spawn(move || {
                turnstile.deposit(1, [10]);
                turnstile.run(|order, deposits| order.append(deposits));
                turnstile.deposit(1, [11]);
                turnstile.run(|order, deposits| order.append(deposits));
            })
        };
        turnstile.deposit(0, [1]);
        turnstile.run(|order, deposits| order.append(deposits));
        other.join().unwrap();
        let mut order = turnstile.with(|order| order.clone());
        let of_other: Vec<u32> = order.iter().copied().filter(|x| *x >= 10).collect();
        assert_eq!(of_other, [10, 11], "in the order of its slot");
        order.sort_unstable();
        assert_eq!(order, [1, 10, 11]);
    });
}

/// With three threads that loop, all interleavings of at most so many preemptions: the races that were found by hand
/// need two.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// A shard as `net` runs it: its state behind a lock, its thread, and helpers that push and run it if it sleeps.
struct Shard {
    mailbox: Mailbox<u32>,
    seen: Mutex<Vec<u32>>,
    pauses: AtomicUsize,
}

impl Shard {
    /// Before a lock is let go: others may come in between here, which loom does not try by itself, since it takes
    /// everybody for one who waits for a lock.
    fn pause(&self) {
        self.pauses.load(Ordering::SeqCst);
    }

    fn drain(&self, seen: &mut Vec<u32>) {
        let mut messages = Vec::new();
        self.mailbox.take(&mut messages);
        seen.append(&mut messages);
    }

    fn push_and_help(&self, message: u32) {
        if self.mailbox.push(message) == Reader::Awake {
            return;
        }
        loop {
            let Ok(mut seen) = self.seen.try_lock() else { return };
            self.drain(&mut seen);
            self.pause();
            drop(seen);
            if !self.mailbox.is_left_behind() {
                return;
            }
        }
    }

    /// One turn of its own thread, as `crew.rs` of net takes it; true once it may wait for its sockets.
    fn turn(&self) -> bool {
        let mut seen = self.seen.lock().unwrap();
        self.mailbox.wake_up();
        self.drain(&mut seen);
        let asleep = self.mailbox.fall_asleep();
        self.pause();
        drop(seen);
        asleep && !self.mailbox.is_left_behind()
    }
}

#[test]
fn no_message_sleeps_when_helpers_run_a_sleeping_shard() {
    bounded(|| {
        let shard = Arc::new(Shard {
            mailbox: Mailbox::default(),
            seen: Mutex::new(Vec::new()),
            pauses: AtomicUsize::new(0),
        });
        let helpers: Vec<_> = [1, 2]
            .into_iter()
            .map(|message| {
                let shard = shard.clone();
                thread::spawn(move || shard.push_and_help(message))
            })
            .collect();
        // Its own thread: turns until it may sleep, and then only a waker could get it out of epoll again.
        while !shard.turn() {
            thread::yield_now();
        }
        for helper in helpers {
            helper.join().unwrap();
        }
        let mut seen = shard.seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2], "nothing lies in the mailbox of a sleeping shard");
    });
}

#[test]
fn two_mailboxes_get_the_sections_order() {
    loom::model(|| {
        let boxes = Arc::new([Mailbox::<u32>::default(), Mailbox::default()]);
        let turnstile = Arc::new(Turnstile::<u32, ()>::new(2, ()));
        let run = |turnstile: &Turnstile<u32, ()>, boxes: &[Mailbox<u32>; 2]| {
            turnstile.run(|_, deposits| {
                for deposit in deposits.drain(..) {
                    boxes.iter().for_each(|mailbox| {
                        mailbox.push(deposit);
                    });
                }
            });
        };
        let other = {
            let (turnstile, boxes) = (turnstile.clone(), boxes.clone());
            thread::spawn(move || {
                turnstile.deposit(1, [2]);
                run(&turnstile, &boxes);
            })
        };
        turnstile.deposit(0, [1]);
        run(&turnstile, &boxes);
        other.join().unwrap();
        let [mut left, mut right] = [Vec::new(), Vec::new()];
        boxes[0].take(&mut left);
        boxes[1].take(&mut right);
        assert_eq!(left.len(), 2);
        assert_eq!(left, right);
    });
}
