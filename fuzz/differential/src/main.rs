//! Plays the same random but valid session of several clients against firehose and mosquitto, and compares what each
//! client sees. See `fuzz/README.md`.

mod broker;
mod client;
mod compare;
mod connection;
mod explained;
mod generate;
mod incoming;
mod model;
mod random;
mod receiving;
mod round;
mod seen;
mod session;
mod shared;
mod shrink;
mod stage;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    broker::Broker,
    explained::{RULES, Tally},
    round::{Brokers, Outcome},
    session::Session,
};

/// Plays random sessions against firehose and mosquitto, and compares what their clients see.
#[derive(Parser)]
struct Arguments {
    /// The seed of the first session; the next has the next number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many sessions.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// For how long, instead of how many.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only these steps of each session, as the shortest form of a difference names them.
    #[arg(long, value_delimiter = ',')]
    steps: Option<Vec<usize>>,
    /// For how many milliseconds a difference may last before it counts.
    #[arg(long, default_value_t = 5_000)]
    patience_ms: u64,
    /// Goes on after a difference, and does not look for its shortest form.
    #[arg(short, long)]
    keep_going: bool,
    /// Prints each session before it is played.
    #[arg(short, long)]
    verbose: bool,
    /// The firehose binary.
    #[arg(long, env = "FIREHOSE_BIN", default_value = "target/ci/firehose")]
    firehose: PathBuf,
    /// The mosquitto binary.
    #[arg(long, default_value = "mosquitto")]
    mosquitto: PathBuf,
}

/// What all sessions together came to.
#[derive(Default)]
struct Sum {
    sessions: u64,
    steps: u64,
    messages: u64,
    differences: u64,
    tally: Tally,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything was equal or explained.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let mosquitto = Broker::mosquitto(&arguments.mosquitto)?;
    let firehose = Broker::firehose(&arguments.firehose.canonicalize().map_err(|error| {
        format!("{}: {error}; build it, and name it with --firehose", arguments.firehose.display())
    })?)?;
    let brokers = Brokers {
        mosquitto: mosquitto.address,
        firehose: firehose.address,
        patience: Duration::from_millis(arguments.patience_ms),
    };
    let began = Instant::now();
    let mut sum = Sum::default();
    while sum.goes_on(arguments, began) {
        let session = arguments.session(arguments.seed + sum.sessions);
        if arguments.verbose {
            print!("{session}");
        }
        let outcome = round::play(&session, brokers, &format!("d{}", sum.sessions));
        sum.add(&outcome);
        if let Some(difference) = outcome.difference {
            print!("seed {}: {difference}", session.seed);
            sum.differences += 1;
            if arguments.keep_going {
                continue;
            }
            arguments.shorten(&session, brokers);
            sum.print(began.elapsed());
            eprint!("{}", firehose.words());
            return Ok(false);
        }
    }
    sum.print(began.elapsed());
    Ok(sum.differences == 0)
}

impl Arguments {
    fn session(&self, seed: u64) -> Session {
        let mut session = generate::session(seed);
        if let Some(steps) = &self.steps {
            session.steps.retain(|step| steps.contains(&step.number));
        }
        session
    }

    /// Prints the shortest session that still differs, and how to play it.
    fn shorten(&self, session: &Session, brokers: Brokers) {
        // Each try that differs waits for as long as that; brokers at rest need a hundredth of it.
        let brokers = Brokers { patience: brokers.patience.min(Duration::from_millis(700)), ..brokers };
        let mut tries = 0;
        let short = shrink::shrink(session, |session| {
            tries += 1;
            round::play(session, brokers, &format!("s{tries}")).difference.is_some()
        });
        let last = round::play(&short, brokers, "last");
        print!("the shortest that differs, {short}");
        match last.difference {
            Some(difference) => print!("{difference}"),
            None => println!("it does not differ each time"),
        }
        let steps: Vec<String> = short.steps.iter().map(|step| step.number.to_string()).collect();
        println!(
            "again: cargo run --profile ci -p firehose-differential -- --seed {} --rounds 1 --steps {}",
            session.seed,
            steps.join(",")
        );
    }
}

impl Sum {
    fn goes_on(&self, arguments: &Arguments, began: Instant) -> bool {
        match arguments.seconds {
            Some(seconds) => began.elapsed() < Duration::from_secs(seconds),
            None => self.sessions < arguments.rounds,
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.sessions += 1;
        self.steps += outcome.steps;
        self.messages += outcome.messages;
        self.tally.iter_mut().zip(outcome.tally).for_each(|(sum, count)| *sum += count);
    }

    fn print(&self, elapsed: Duration) {
        let Self { sessions, steps, messages, differences, .. } = self;
        println!(
            "{sessions} sessions, {steps} steps, {messages} messages seen, {differences} unexplained, {} s",
            elapsed.as_secs()
        );
        for (rule, count) in RULES.iter().zip(&self.tally) {
            println!("explained: {} {count} [{}]: {}", rule.name, rule.statement, rule.why);
        }
    }
}
