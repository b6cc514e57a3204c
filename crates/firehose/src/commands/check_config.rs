//! `firehose check-config`: would `serve` start with this file?

use std::io::Write;

use firehose_auth::Auth;

use crate::cli::CheckConfig;
use crate::config::load;
use crate::exit::Failure;
use crate::{output, serve};

/// Reads the configuration as `serve` would, and the files it names; with `--print` shows what holds.
pub fn run(args: &CheckConfig) -> Result<(), Failure> {
    let config = load::load(&args.file, std::env::vars()).map_err(Failure::usage)?;
    Auth::load(&serve::auth_config(&config)).map_err(Failure::usage)?;
    serve::sources(&config)?;
    let answer = match args.print {
        true => config.to_toml(),
        false => format!("{}: ok\n", args.file.display()),
    };
    std::io::stdout().write_all(answer.as_bytes()).map_err(output::failure)
}
