//! The commit thread: `fdatasync`, then lets acknowledgements go; makes segments ahead of need and deletes old ones; publishes `$SYS`.

use crate::bus::{Bus, wall_us};
use crate::sequencer::Durability;
use crate::state::StateKeep;
use crate::sys::Sys;
use firehose_log::{Commit, Note, Refusal, Upkeep};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A log that got only QoS 0 is synced this often, and housekeeping is done.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// After an `fdatasync` that took this long or longer the next one waits for those who were just acknowledged: else
/// half of the publishers would wait for every other one.
const SLOW_SYNC: Duration = Duration::from_millis(2);
/// It waits for a fifth of what that took, but no longer than this, and looks a few times meanwhile.
const GATHER_MAX: Duration = Duration::from_millis(1);
const GATHER_LOOKS: u32 = 5;

/// Starts the thread; none if the system has no thread to give (then nothing is ever acknowledged, and `serve` fails).
pub(crate) fn spawn(bus: Bus, commit: Box<dyn Commit>, keep: StateKeep) -> Option<JoinHandle<()>> {
    let thread =
        std::thread::Builder::new().name("commit".into()).spawn(move || Turns::new(bus, commit, keep).run());
    match thread {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!(%error, "cannot start the commit thread");
            None
        }
    }
}

/// The last commit.
#[derive(Clone, Copy)]
struct Synced {
    ended: Instant,
    took: Duration,
    /// Events that it made durable, or that came meanwhile.
    in_flight: u64,
}

struct Turns {
    bus: Bus,
    commit: Box<dyn Commit>,
    keep: StateKeep,
    sys: Sys,
    housekept: Instant,
    /// The log makes nothing durable any more.
    failing: bool,
    synced: Synced,
    /// What did not work when upkeep was done last.
    failures: Vec<Upkeep>,
}

impl Turns {
    fn new(bus: Bus, commit: Box<dyn Commit>, keep: StateKeep) -> Turns {
        let sys = Sys::new(Instant::now());
        let (now, took) = (Instant::now(), Duration::ZERO);
        let synced = Synced { ended: now, took, in_flight: 0 };
        Turns { bus, commit, keep, sys, housekept: now, failing: false, synced, failures: Vec::new() }
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
        if let Err(error) = self.commit.close() {
            tracing::error!(%error, "the log's last commit failed");
        }
        self.commit.noticed().iter().for_each(tell);
        self.bus.errands().close();
    }

    fn turn(&mut self) {
        self.bus.errands().run(&mut *self.commit);
        let sequencer = self.bus.sequencer();
        if sequencer.wants_commit() {
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
        self.gather();
        let (began, before) = (Instant::now(), self.bus.sequencer().durable());
        match self.commit.commit() {
            Ok(durable) => {
                self.failing = false;
                self.synced = Synced {
                    ended: Instant::now(),
                    took: began.elapsed(),
                    in_flight: self.bus.sequencer().head().saturating_sub(before),
                };
                let sleepers = self.bus.sequencer().set_durable(durable);
                self.bus.rouse(sleepers);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "nothing that waits is acknowledged, and publishes are refused");
                    let refusal = Refusal::ReadOnly(error.0);
                    match self.bus.sequencer().durability() {
                        Durability::Sync => {
                            self.bus.rouse(self.bus.sequencer().set_commit_failed(&refusal));
                        }
                        // No acknowledgement waits for it, but the state is never ahead of what is durable.
                        Durability::Os => self.bus.state().log_failed(&refusal),
                    }
                }
            }
        }
    }

    /// Waits a little for as many events as were on their way when the last commit ended, if that was slow.
    fn gather(&self) {
        let Synced { ended, took, in_flight } = self.synced;
        let until = ended + (took / 5).min(GATHER_MAX);
        let sequencer = self.bus.sequencer();
        while took >= SLOW_SYNC
            && Instant::now() < until
            && sequencer.head().saturating_sub(sequencer.durable()) < in_flight
            && !self.bus.is_stopping()
        {
            std::thread::sleep(GATHER_MAX / GATHER_LOOKS);
        }
    }

    fn upkeep(&mut self) {
        let notes = self.commit.upkeep(wall_us(), &mut self.keep);
        for note in &notes {
            // What does not work is tried again and again; it is told when it begins.
            if !self.failures.contains(note) {
                tell(note);
            }
        }
        self.failures = notes;
        self.failures.retain(|note| matches!(note, Upkeep::Failed { .. }));
    }
}

/// Writes its log line.
fn tell(note: &Upkeep) {
    match note {
        Upkeep::Noticed(Note::EventsDamaged { .. } | Note::MoreDamaged) => tracing::error!("{note}"),
        _ => tracing::warn!("{note}"),
    }
}
