//! The seeded simulation: sequencer, shards, sessions, readers, log and a faulty disk in one thread, driven by one
//! seed, and held against what the bus promises. See `docs/simulation.md`.
//!
//! `SIM_SEED` runs one seed, `SIM_STEPS` (a list) those of its steps only; `SIM_SECONDS` runs new seeds for so long.

mod bus;
mod calm;
mod client;
mod engine;
mod group;
mod ledger;
mod packets;
mod plan;
mod publisher;
mod reader;
mod recovery;
mod redaction;
mod retained;
mod rng;
mod run;
mod shared;
mod state;
mod step;
mod taken_back;
mod will;
mod wire;
mod witness;
mod world;

use run::{Outcome, run};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seeds that every run of the tests takes.
const SEEDS: u64 = 12_000;
/// New seeds that every run of the tests takes.
const NEW_SEEDS: u64 = 500;
/// Threads: each runs seeds of its own.
const THREADS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn new_seed() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed, and above the fixed ones.
    1_000_000 + since_1970.as_micros() as u64 % 1_000_000_000_000
}

/// Runs seeds from `first` on, on all threads, as long as `go_on` says so; tells of the first failures.
fn run_all(first: u64, go_on: impl Fn(u64) -> bool + Sync) -> String {
    let next = AtomicU64::new(first);
    let (events, delivered) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = std::sync::Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(seed) || failures.lock().expect("whole").len() > 2 {
                return;
            }
            let Outcome { events: these, delivered: those, failure } =
                run(seed, u64::MAX, &BTreeSet::new(), false);
            events.fetch_add(these, Ordering::Relaxed);
            delivered.fetch_add(those, Ordering::Relaxed);
            if let Some(failure) = failure {
                let told = run::tell(seed, failure);
                failures.lock().expect("whole").push(told);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            std::thread::Builder::new()
                .name("simulation".into())
                .spawn_scoped(scope, work)
                .expect("a thread");
        }
    });
    let failures = failures.into_inner().expect("whole");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let ran = next.into_inner() - first - THREADS;
    let (events, delivered) = (events.into_inner(), delivered.into_inner());
    format!("{ran} seeds from {first}: {events} events, delivered {delivered} times")
}

#[test]
fn every_promise_is_kept_whatever_fails() {
    if let Some(seed) = number("SIM_SEED") {
        return one(seed);
    }
    if let Some(secs) = number("SIM_SECONDS") {
        let (first, until) = (new_seed(), Instant::now() + Duration::from_secs(secs));
        println!("new seeds from {first}");
        println!("{}", run_all(first, |_| Instant::now() < until));
        return;
    }
    println!("{}", run_all(0, |seed| seed < SEEDS));
    let first = new_seed();
    println!("new seeds from {first}");
    println!("{}", run_all(first, |seed| seed < first + NEW_SEEDS));
}

/// Runs one seed, and shows all of it.
fn one(seed: u64) {
    let steps: Option<BTreeSet<u64>> = std::env::var("SIM_STEPS")
        .ok()
        .map(|list| list.split(',').filter_map(|step| step.parse().ok()).collect());
    let (steps_max, left_out) = match steps {
        Some(steps) => {
            let max = steps.last().map_or(0, |last| last + 1);
            (max, (0..max).filter(|step| !steps.contains(step)).collect())
        }
        None => (u64::MAX, BTreeSet::new()),
    };
    let shown = std::thread::Builder::new().name("simulation".into());
    let outcome = shown.spawn(move || run(seed, steps_max, &left_out, true)).expect("a thread").join();
    let outcome = outcome.expect("a run catches its panics");
    println!("{:?}", plan::Plan::of(seed));
    if let Some(failure) = outcome.failure {
        println!("{}", failure.trace.join("\n"));
        panic!("SIM_SEED={seed} fails at step {}: {}", failure.steps, failure.why);
    }
    println!("{} events, delivered {} times", outcome.events, outcome.delivered);
}
