//! The commit thread: `fdatasync`, then lets acknowledgements go; has the sequencer's section while the disk is slow;
//! makes segments ahead of need and deletes old ones; publishes `$SYS`.

use crate::bus::{Bus, wall_us};
use crate::sequencer::Durability;
use crate::sys::Sys;
use firehose_log::{Commit, KeepNothing};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A log that got only QoS 0 is synced this often, and housekeeping is done.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Starts the thread; none if the system has no thread to give (then nothing is ever acknowledged, and `serve` fails).
pub(crate) fn spawn(bus: Bus, commit: Box<dyn Commit>) -> Option<JoinHandle<()>> {
    let thread =
        std::thread::Builder::new().name("commit".into()).spawn(move || Turns::new(bus, commit).run());
    match thread {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!(%error, "cannot start the commit thread");
            None
        }
    }
}

struct Turns {
    bus: Bus,
    commit: Box<dyn Commit>,
    sys: Sys,
    housekept: Instant,
    failing: bool,
}

impl Turns {
    fn new(bus: Bus, commit: Box<dyn Commit>) -> Turns {
        let sys = Sys::new(Instant::now());
        Turns { bus, commit, sys, housekept: Instant::now(), failing: false }
    }

    fn run(mut self) {
        self.upkeep();
        self.sys.publish(&self.bus, Instant::now());
        while !self.bus.is_stopping() {
            let due = HOUSEKEEPING.saturating_sub(self.housekept.elapsed());
            self.bus.sequencer().bell().wait(due);
            self.turn();
        }
        self.turn();
        self.sync();
    }

    fn turn(&mut self) {
        let sequencer = self.bus.sequencer();
        if sequencer.commit_thread_has_role() {
            self.bus.rouse(sequencer.run_round());
            if !sequencer.commit_thread_has_role() {
                // It goes back. Deposits that were left to us before are placed here; later ones see that it has.
                self.bus.rouse(sequencer.run_section());
            }
        }
        if sequencer.durability() == Durability::Sync && sequencer.wants_commit() {
            self.sync();
        }
        if self.housekept.elapsed() >= HOUSEKEEPING {
            self.housekept = Instant::now();
            self.sync();
            self.upkeep();
            self.sys.publish(&self.bus, Instant::now());
        } else if self.bus.sequencer().take_upkeep_wish() {
            self.upkeep();
        }
    }

    fn sync(&mut self) {
        if self.bus.sequencer().durable() >= self.bus.sequencer().head() {
            return;
        }
        match self.commit.commit() {
            Ok(durable) => {
                self.failing = false;
                let sleepers = self.bus.sequencer().set_durable(durable);
                self.bus.rouse(sleepers);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "nothing that waits is acknowledged");
                }
            }
        }
    }

    fn upkeep(&mut self) {
        for note in self.commit.upkeep(wall_us(), &mut KeepNothing) {
            tracing::warn!("{note}");
        }
    }
}
