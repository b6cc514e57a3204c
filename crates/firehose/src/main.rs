//! firehose: the public event bus of an open infrastructure.

mod account;
mod cli;
mod commands;
mod config;
mod exit;
mod format;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("firehose: {}", failure.message);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::CheckConfig(args) => commands::check_config::run(args),
        Command::Sub(args) => commands::sub::run(args),
        Command::Pub(args) => commands::publish::run(args),
        Command::History(args) => commands::history::run(args),
        Command::Passwd(args) => commands::passwd::run(args),
        _ => Ok(()),
    }
}
