//! `firehose redact`: takes an event back, on a running bus or on one that is stopped.

use firehose_auth::{Access, AuthConfig};
use firehose_broker::{Bus, BusConfig};
use firehose_http::{Operator, OperatorError};
use firehose_log::Cursor;
use serde_json::{Value, json};

use crate::admin_socket;
use crate::cli;
use crate::config::{Config, load};
use crate::diagnosis::Found;
use crate::exit::{Exit, Failure};
use crate::operator::BusOperator;
use crate::serve;

/// Takes it back.
pub fn run(args: &cli::Redact) -> Result<(), Failure> {
    let cursor =
        Cursor::parse(&args.cursor).map_err(|error| Failure::usage(format!("{}: {error}", args.cursor)))?;
    let config = configure(&args.place)?;
    let asked = json!({ "cursor": args.cursor, "reason": args.reason });
    let answer = match admin_socket::ask(&config.data_dir(), "POST", "/v1/redactions", Some(&asked))? {
        Some(answer) => answer,
        None => offline(&config, &cursor, &args.reason)?,
    };
    say(&answer)
}

/// The configuration and the data folder that the operator's commands are about.
pub fn configure(place: &cli::Place) -> Result<Config, Failure> {
    let loaded = match &place.config {
        Some(path) => load::load(path, std::env::vars()),
        None => load::without_file(std::env::vars()),
    };
    let mut config = loaded.map_err(Failure::usage)?;
    if let Some(folder) = &place.data {
        config.server.data_dir = Some(folder.clone());
    }
    let data = config.data_dir();
    if !data.join("log").is_dir() {
        let why = "there is no log; name the folder with --data, or the configuration with --config";
        return Err(Failure::usage(format!("{}: {why}", data.display())));
    }
    Ok(config)
}

/// On a bus that is stopped: it is started for this alone, with nobody connected.
fn offline(config: &Config, cursor: &Cursor, reason: &str) -> Result<Value, Failure> {
    let log = serve::open_log(config)?;
    let access = Access::new(AuthConfig::default()).map_err(Failure::runtime)?;
    let bus_config = BusConfig { shards: 1, ..serve::bus_config(config) };
    let (state, _) = serve::open_state(config, &bus_config, &log)?;
    let bus = Bus::start(bus_config, log, state, access);
    let operator =
        BusOperator::new(bus.clone(), config.data_dir(), config.log.disk_reserve_bytes.0, Found::default());
    let answer = operator.redact(cursor, reason);
    bus.stop();
    answer.map_err(|error| match error {
        OperatorError::Malformed(why) => Failure::usage(why),
        OperatorError::NotThere(why) => Failure { exit: Exit::Refused, message: why },
        OperatorError::Failed(why) => Failure::runtime(why),
    })
}

fn say(answer: &Value) -> Result<(), Failure> {
    let offset = &answer["offset"];
    match answer["before"].as_bool() {
        Some(true) => println!("event {offset} was redacted before"),
        _ => println!("event {offset} is redacted"),
    }
    for name in answer["aside"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("firehose: {name} was set aside, and nobody can tell what it holds: delete it");
    }
    match answer["notice_refused"].as_str() {
        Some(why) => {
            Err(Failure::runtime(format!("the event is gone, but nobody was told: {why}; try again")))
        }
        None => Ok(()),
    }
}
