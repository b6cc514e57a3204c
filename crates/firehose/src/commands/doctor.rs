//! `firehose doctor`: how the bus is, and what the operator has to do.

use std::path::Path;

use firehose_broker::bus::wall_us;
use firehose_log::RealDisk;
use serde_json::Value;

use crate::admin_socket;
use crate::cli;
use crate::commands::redact::configure;
use crate::diagnosis::Diagnosis;
use crate::exit::{Exit, Failure};

/// Says it; ends with 1 if there is something to do.
pub fn run(args: &cli::Doctor) -> Result<(), Failure> {
    let config = configure(&args.place)?;
    let data = config.data_dir();
    if args.accept_clock {
        accept_clock(&data)?;
    }
    let target = if args.read { "/v1/doctor/read" } else { "/v1/doctor" };
    let diagnosis = match admin_socket::ask(&data, "GET", target, None)? {
        Some(diagnosis) => diagnosis,
        None => {
            let mut diagnosis = Diagnosis::of_folder(&data, config.log.disk_reserve_bytes.0);
            diagnosis.add_stopped(&data);
            if args.read {
                diagnosis.need("the log was not read, since that takes a running bus: start it".into());
            }
            diagnosis.to_json()
        }
    };
    say(&diagnosis)
}

fn accept_clock(data: &Path) -> Result<(), Failure> {
    let held = match admin_socket::ask(data, "POST", "/v1/clock", None)? {
        Some(answer) => answer["held"].as_bool().unwrap_or_default(),
        None => {
            let log = data.join("log");
            firehose_log::accept_clock(&log, &RealDisk::new(), wall_us())
                .map_err(|error| Failure::runtime(format!("{}: {error}", log.display())))?
        }
    };
    println!("{}", if held { "the clock is accepted" } else { "the clock was trusted already" });
    Ok(())
}

fn say(diagnosis: &Value) -> Result<(), Failure> {
    for (name, value) in diagnosis["facts"].as_object().into_iter().flatten() {
        match value {
            Value::String(text) => println!("{name}: {text}"),
            Value::Array(lines) => {
                lines.iter().filter_map(Value::as_str).for_each(|line| println!("{name}: {line}"));
            }
            other => println!("{name}: {other}"),
        }
    }
    let needs: Vec<&str> =
        diagnosis["needs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if needs.is_empty() {
        println!("all is well");
        return Ok(());
    }
    needs.iter().for_each(|need| println!("to do: {need}"));
    Err(Failure::silent(Exit::Runtime))
}
