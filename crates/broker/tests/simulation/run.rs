//! A seed's run, from its plan to its end or its failure; and a failing one made shorter.

use crate::calm;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::step;
use crate::world::World;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Lines of a failing run that are shown.
const LINES_MAX: usize = 45;

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Events in the log at the end.
    pub events: u64,
    /// Events that clients got.
    pub delivered: u64,
    pub failure: Option<Failure>,
}

/// A run that showed a fault.
#[derive(Clone, Debug)]
pub struct Failure {
    pub why: String,
    /// How many steps it took.
    pub steps: u64,
    pub trace: Vec<String>,
}

/// Runs a seed, up to `steps_max` steps and without those in `left_out`.
pub fn run(seed: u64, steps_max: u64, left_out: &BTreeSet<u64>, has_trace: bool) -> Outcome {
    hush();
    let mut outcome = Outcome::default();
    let mut number = 0;
    let mut kept: Option<World> = None;
    let done = catch_unwind(AssertUnwindSafe(|| {
        let plan = Plan::of(seed);
        let steps = plan.steps.min(steps_max);
        let world = kept.insert(World::new(plan, has_trace));
        let weights = step::weights(world);
        while number < steps && !world.is_over {
            if !left_out.contains(&number) {
                step::take(world, &weights, number);
            }
            number += 1;
        }
        world.note(|| "-- the end".into());
        calm::calm(world);
        if world.plan.has_groups() && !world.is_over {
            calm::gather(world, &mut Rng::of_step(seed, u64::MAX - 3));
        }
        outcome.events = world.head();
        outcome.delivered = world.clients.iter().map(|client| client.reader.count).sum();
    }));
    // The end of a bus may fail as well.
    let done = done.and_then(|()| catch_unwind(AssertUnwindSafe(|| drop(kept.take()))));
    if done.is_err() {
        let why = SAID.take().unwrap_or_else(|| "a panic without a word".into());
        let trace = kept.map(|world| world.into_trace()).unwrap_or_default();
        outcome.failure = Some(Failure { why, steps: number, trace });
    }
    outcome
}

/// Leaves out steps as long as the run fails at all; gives those that are left out, and the last failure.
pub fn shrink(seed: u64, failure: Failure) -> (u64, BTreeSet<u64>, Failure) {
    let mut steps = failure.steps + 1;
    let mut left_out = BTreeSet::new();
    let mut last = failure;
    let mut size = (steps / 2).max(1);
    loop {
        let mut first = 0;
        while first < steps {
            let mut tried = left_out.clone();
            tried.extend(first..(first + size).min(steps));
            if tried.len() > left_out.len()
                && let Some(failure) = run(seed, steps, &tried, false).failure
            {
                steps = steps.min(failure.steps + 1);
                (left_out, last) = (tried, failure);
            }
            first += size;
        }
        if size == 1 {
            return (steps, left_out, last);
        }
        size /= 2;
    }
}

/// Tells of a failure, as briefly as it can be had, and how to see it again.
pub fn tell(seed: u64, failure: Failure) -> String {
    let first = failure.why.clone();
    let (steps, left_out, _) = shrink(seed, failure);
    let shown = run(seed, steps, &left_out, true);
    let Some(failure) = shown.failure else {
        return format!(
            "SIM_SEED={seed} fails, and not again, although a run depends on its seed alone: {first}"
        );
    };
    let taken: Vec<String> =
        (0..steps).filter(|step| !left_out.contains(step)).map(|step| step.to_string()).collect();
    let lines = failure.trace.len().saturating_sub(LINES_MAX);
    format!(
        "SIM_SEED={seed} fails: {first}\nshortened: SIM_SEED={seed} SIM_STEPS={} fails: {}\n{:?}\n{}",
        taken.join(","),
        failure.why,
        Plan::of(seed),
        failure.trace[lines..].join("\n")
    )
}

/// What a panic says goes to whoever runs the seed, not to the terminal.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = std::thread::current().name().is_some_and(|name| name == "simulation");
            if !is_ours {
                return before(info);
            }
            SAID.set(Some(format!("{info}")));
        }));
    });
}
