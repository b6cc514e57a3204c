//! The thread that has the sequencer's section while the disk is slow: so that a `write` that takes long keeps no shard,
//! and an `fdatasync` that takes long keeps no delivery. At rest it sleeps.

use crate::bus::Bus;
use std::thread::JoinHandle;
use std::time::Duration;

/// It is rung for all that it has to do; this is how long it sleeps if there is nothing.
const SLEEP: Duration = Duration::from_secs(3600);

/// Starts the thread; none if the system has no thread to give (then a slow disk stops the bus).
pub(crate) fn spawn(bus: Bus) -> Option<JoinHandle<()>> {
    match std::thread::Builder::new().name("section".into()).spawn(move || run(&bus)) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!(%error, "cannot start the section's thread");
            None
        }
    }
}

fn run(bus: &Bus) {
    while !bus.is_section_stopping() {
        bus.sequencer().section_bell().wait(SLEEP);
        turn(bus);
    }
    turn(bus);
}

fn turn(bus: &Bus) {
    let sequencer = bus.sequencer();
    if sequencer.thread_has_section() {
        bus.rouse(sequencer.run_round());
        if !sequencer.thread_has_section() {
            // It goes back. Deposits that were left to us before are placed here; later ones see that it has.
            bus.rouse(sequencer.run_section());
        }
    }
}
