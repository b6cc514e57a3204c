//! `firehose check-config`: would `serve` start with this file?

use std::io::Write;

use crate::cli::CheckConfig;
use crate::config::{Config, load};
use crate::exit::Failure;

/// Reads the configuration as `serve` would; with `--print` shows what holds.
pub fn run(args: &CheckConfig) -> Result<(), Failure> {
    let config = load::load(&args.file, std::env::vars()).map_err(Failure::usage)?;
    let answer = match args.print {
        true => Config::to_toml(&config),
        false => format!("{}: ok\n", args.file.display()),
    };
    std::io::stdout().write_all(answer.as_bytes())?;
    Ok(())
}
