//! Every interleaving of the hand-off between threads, by loom. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --profile ci -p firehose-broker --test handoff_loom`.
#![cfg(loom)]

use firehose_broker::handoff::{Mailbox, Reader, Turnstile};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::ops::ControlFlow;

fn append(order: &mut Vec<u32>, deposits: &mut Vec<u32>) -> ControlFlow<()> {
    order.append(deposits);
    ControlFlow::Continue(())
}

#[test]
fn every_deposit_is_taken_although_nobody_waits() {
    loom::model(|| {
        let turnstile = Arc::new(Turnstile::<u32, Vec<u32>>::new(2, Vec::new()));
        let other = {
            let turnstile = turnstile.clone();
            thread::spawn(move || {
                turnstile.deposit(1, [10]);
                let _ = turnstile.run(append);
                turnstile.deposit(1, [11]);
                let _ = turnstile.run(append);
            })
        };
        turnstile.deposit(0, [1]);
        let _ = turnstile.run(append);
        other.join().unwrap();
        let mut order = turnstile.with(|order| order.clone());
        let of_other: Vec<u32> = order.iter().copied().filter(|x| *x >= 10).collect();
        assert_eq!(of_other, [10, 11], "in the order of its slot");
        order.sort_unstable();
        assert_eq!(order, [1, 10, 11]);
    });
}

#[test]
fn who_leaves_the_section_early_knows_of_every_deposit_left_behind() {
    loom::model(|| {
        let shared = Arc::new((Turnstile::<u32, Vec<u32>>::new(2, Vec::new()), AtomicBool::new(false)));
        let deposit_and_leave = |(turnstile, rung): &(Turnstile<u32, Vec<u32>>, AtomicBool), slot| {
            turnstile.deposit(slot, [1]);
            let left = turnstile.run(|order, deposits| {
                order.append(deposits);
                ControlFlow::Break(())
            });
            if left.is_break() && !turnstile.is_empty() {
                rung.store(true, Ordering::SeqCst);
            }
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || deposit_and_leave(&shared, 1))
        };
        deposit_and_leave(&shared, 0);
        other.join().unwrap();
        assert!(
            shared.0.is_empty() || shared.1.load(Ordering::SeqCst),
            "somebody is called for what is left"
        );
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
}

impl Shard {
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
        drop(seen);
        asleep && !self.mailbox.is_left_behind()
    }
}

#[test]
fn no_message_sleeps_when_helpers_run_a_sleeping_shard() {
    bounded(|| {
        let shard = Arc::new(Shard { mailbox: Mailbox::default(), seen: Mutex::new(Vec::new()) });
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
            let _ = turnstile.run(|_, deposits| {
                for deposit in deposits.drain(..) {
                    boxes.iter().for_each(|mailbox| {
                        mailbox.push(deposit);
                    });
                }
                ControlFlow::Continue(())
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
