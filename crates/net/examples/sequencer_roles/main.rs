//! Measures the sequencer's two roles against each other (ADR 2): its section run by whoever deposits, or by a thread
//! of its own; on the disk of this machine, on one that takes 20 ms for every write, on one that stalls now and then, on one whose `fdatasync` takes 5 ms,
//! and on one where it takes 2 s.
//!
//!     cargo build --release -p mqload
//!     cargo run --release -p firehose-net --example sequencer_roles -- --rounds 5 --seconds 2
//!
//! Every run is a bus of its own in a child process (this program, started anew), so that the CPU is the broker's alone;
//! `mqload` is its load; beside it this process pings from idle connections. The roles take turns, round by round.

mod broker;
mod case;
mod pings;
mod slow_disk;
mod table;

use case::{CASES, Case, Figures, ROLES};
use std::error::Error;
use std::path::PathBuf;

/// What the command line says.
struct Options {
    rounds: usize,
    seconds: u32,
    only: Vec<String>,
    data: PathBuf,
    mqload: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == "broker").is_some() {
        return broker::run(arguments);
    }
    let options = options(arguments)?;
    println!(
        "{} rounds of {} s; logs under {}; {} cores",
        options.rounds,
        options.seconds,
        options.data.display(),
        std::thread::available_parallelism()?
    );
    table::print_head();
    for case in CASES.iter().filter(|case| case.is_wanted(&options.only)) {
        table::print_case(case, &rounds(case, &options)?);
    }
    Ok(())
}

/// The figures of both roles, round by round.
fn rounds(case: &Case, options: &Options) -> Result<Vec<[Figures; 2]>, Box<dyn Error>> {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let [first, second] = ROLES;
        rounds.push([case.run(first, options)?, case.run(second, options)?]);
    }
    Ok(rounds)
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        rounds: 5,
        seconds: 2,
        only: Vec::new(),
        data: std::env::temp_dir(),
        mqload: beside_us("mqload")?,
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--only" => options.only.push(value),
            "--data" => options.data = value.into(),
            "--mqload" => options.mqload = value.into(),
            _ => return Err(format!("{option} is not known: --rounds, --seconds, --only DISK or WORK, --data FOLDER, --mqload FILE").into()),
        }
    }
    if !options.mqload.is_file() {
        return Err(
            format!("{} is not there: cargo build --release -p mqload", options.mqload.display()).into()
        );
    }
    Ok(options)
}

/// Examples are built into a folder beside the programs.
fn beside_us(name: &str) -> std::io::Result<PathBuf> {
    let us = std::env::current_exe()?;
    Ok(us.parent().and_then(|examples| examples.parent()).unwrap_or(&us).join(name))
}
