//! firehose: the public event bus of an open infrastructure.
//!
//! The life of the process: the command line says what to be; a command runs until it is done, fails or is told to stop;
//! how it ended is the exit code, and why stands on the standard error.

mod account;
mod admin_socket;
mod bus_sink;
mod cli;
mod commands;
mod config;
mod diagnosis;
mod exit;
mod format;
mod full_read;
mod logging;
mod operator;
mod output;
mod redaction_note;
mod serve;
mod signals;
mod sources;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit, message }) => {
            if !message.is_empty() {
                eprintln!("firehose: {message}");
            }
            ExitCode::from(exit as u8)
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Demo => commands::demo::run(),
        Command::Serve(args) => commands::serve::run(args),
        Command::Sub(args) => commands::sub::run(args),
        Command::Pub(args) => commands::publish::run(args),
        Command::History(args) => commands::history::run(args),
        Command::Passwd(args) => commands::passwd::run(args),
        Command::CheckConfig(args) => commands::check_config::run(args),
        Command::Redact(args) => commands::redact::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
    }
}
