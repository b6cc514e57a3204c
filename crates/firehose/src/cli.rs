//! What people type.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::config::address::{Address, AdminAddress};
use crate::config::source::GerritUrl;

/// The public event bus of an open infrastructure.
#[derive(Debug, Parser)]
#[command(name = "firehose", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a bus on loopback that plays recorded events: the newcomer's command
    Demo,
    /// Run the bus
    Serve(Serve),
    /// Read events as they happen, or from a point in the past on
    Sub(Sub),
    /// Publish events
    Pub(Publish),
    /// Read past events over HTTP
    History(History),
    /// Edit a password file
    Passwd(Passwd),
    /// Check a configuration file and what it names
    CheckConfig(CheckConfig),
    /// Take an event back: its bytes go, and a notice says so
    Redact(Redact),
    /// Say how the bus is, and what there is to do
    Doctor(Doctor),
}

/// `firehose serve`
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// The configuration; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the log is kept
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Listen there for MQTT, instead of where the configuration says
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Vec<Address>,
    /// Listen there for HTTP, instead of where the configuration says
    #[arg(long, value_name = "ADDR")]
    pub http: Vec<Address>,
    /// Publish the events of this Gerrit, ssh://user@host:29418
    #[arg(long, value_name = "URL")]
    pub gerrit: Vec<GerritUrl>,
    /// Listen there for health checks and metrics
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<AdminAddress>,
    /// How log lines are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Who one is, and whom one trusts: for `sub`, `pub` and `history`.
#[derive(Clone, Debug, Default, Args)]
pub struct Account {
    /// The user's name
    #[arg(short, value_name = "USER")]
    pub user: Option<String>,
    /// The password; better by --password-file or $FIREHOSE_PASSWORD, where no other process sees it
    #[arg(short = 'P', value_name = "PASSWORD")]
    pub password: Option<String>,
    /// The first line of this file is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,
    /// Trust these certificates (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
}

/// `firehose sub`
#[derive(Clone, Debug, Default, Args)]
pub struct Sub {
    /// mqtt, mqtts, ws or wss [default: $FIREHOSE_URL, else mqtt://127.0.0.1:1883]
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// Read topics that match; may be repeated [default: #]
    #[arg(short = 't', value_name = "FILTER")]
    pub topics: Vec<String>,
    /// From there on: earliest, -90m, 2026-11-23T04:00:00Z, or a cursor
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Stop after so many events
    #[arg(short = 'n', short_alias = 'C', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after so many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_secs: Option<u64>,
    /// How an event is written, as mosquitto_sub's: %t %p %j %J %q %r %l %m %U %x %I ...
    #[arg(short = 'F', value_name = "FORMAT", conflicts_with_all = ["json", "verbose"])]
    pub format: Option<String>,
    /// One JSON object a line
    #[arg(long, conflicts_with = "verbose")]
    pub json: bool,
    /// The topic before the payload
    #[arg(short)]
    pub verbose: bool,
    /// The quality of service asked for
    #[arg(short, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// The client id [default: the server chooses]
    #[arg(short, value_name = "ID")]
    pub id: Option<String>,
    /// Go on with the session of this client id
    #[arg(short = 'c', requires = "id")]
    pub keep_session: bool,
    /// Who one is.
    #[command(flatten)]
    pub account: Account,
    /// Remember in this file how far one has read, and go on from there
    #[arg(long, value_name = "F")]
    pub cursor_file: Option<PathBuf>,
}

/// `firehose pub`
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Publish {
    /// mqtt, mqtts, ws or wss [default: $FIREHOSE_URL, else mqtt://127.0.0.1:1883]
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// The topic
    #[arg(short, value_name = "TOPIC")]
    pub topic: String,
    /// Publish this text
    #[arg(short, value_name = "TEXT", group = "what", allow_hyphen_values = true)]
    pub message: Option<String>,
    /// Publish each line of the standard input
    #[arg(short, group = "what")]
    pub lines: bool,
    /// Publish this file; - is the standard input
    #[arg(short, value_name = "FILE", group = "what")]
    pub file: Option<PathBuf>,
    /// The quality of service
    #[arg(short, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Retain it
    #[arg(short)]
    pub retain: bool,
    /// Who one is.
    #[command(flatten)]
    pub account: Account,
}

/// `firehose history`
#[derive(Clone, Debug, Default, Args)]
pub struct History {
    /// http or https [default: $FIREHOSE_URL, else http://127.0.0.1:8080]
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// Topics that match; may be repeated [default: #]
    #[arg(short = 't', value_name = "FILTER")]
    pub topics: Vec<String>,
    /// From there on: earliest, -90m, 2026-11-23T04:00:00Z, or a cursor [default: earliest]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Up to then: -90m or 2026-11-23T04:00:00Z [default: now]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// At most so many events
    #[arg(short = 'n', short_alias = 'C', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Oldest or newest first
    #[arg(long, value_name = "asc|desc", default_value = "asc", hide_possible_values = true)]
    pub order: Order,
    /// How an event is written, as mosquitto_sub's: %t %p %j %J %q %r %l %m %U %x %I ...
    #[arg(short = 'F', value_name = "FORMAT", conflicts_with_all = ["json", "raw"])]
    pub format: Option<String>,
    /// One JSON object a line
    #[arg(long, conflicts_with = "raw")]
    pub json: bool,
    /// The payload alone, a line each
    #[arg(long)]
    pub raw: bool,
    /// Who one is.
    #[command(flatten)]
    pub account: Account,
}

/// Which event comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The oldest.
    #[default]
    Asc,
    /// The newest.
    Desc,
}

/// `firehose passwd`
#[derive(Clone, Debug, Args)]
pub struct Passwd {
    /// Create the file; one that exists is overwritten
    #[arg(short, conflicts_with_all = ["delete", "upgrade"])]
    pub create: bool,
    /// Take the password from the command line
    #[arg(short, requires = "password", conflicts_with_all = ["delete", "upgrade"])]
    pub batch: bool,
    /// Delete the user
    #[arg(short = 'D', conflicts_with = "upgrade")]
    pub delete: bool,
    /// Hash the passwords of a file that holds them in plain text
    #[arg(short = 'U', conflicts_with = "user")]
    pub upgrade: bool,
    /// How the password is hashed
    #[arg(
        short = 'H',
        value_name = "argon2id|sha512-pbkdf2",
        default_value = "sha512-pbkdf2",
        hide_possible_values = true
    )]
    pub hash: HashKind,
    /// The password file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The user
    #[arg(value_name = "USER", required_unless_present = "upgrade")]
    pub user: Option<String>,
    /// The password, with -b
    #[arg(value_name = "PASSWORD", requires = "batch")]
    pub password: Option<String>,
}

/// How a password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HashKind {
    /// `$argon2id$`, as mosquitto 2.1.
    Argon2id,
    /// `$7$`, as mosquitto 2.0.
    Sha512Pbkdf2,
}

/// `firehose check-config`
#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// Show the configuration as it will hold, with all defaults
    #[arg(long)]
    pub print: bool,
    /// The configuration
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Which bus an operator's command is about.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// The configuration of the bus
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its data folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `firehose redact`
#[derive(Clone, Debug, Args)]
pub struct Redact {
    /// The event's cursor
    #[arg(value_name = "CURSOR")]
    pub cursor: String,
    /// Why; everyone can read it
    #[arg(long, value_name = "R")]
    pub reason: String,
    /// Which bus.
    #[command(flatten)]
    pub place: Place,
}

/// `firehose doctor`
#[derive(Clone, Debug, Default, Args)]
pub struct Doctor {
    /// Trust the clock again: events are deleted for their age
    #[arg(long)]
    pub accept_clock: bool,
    /// Read every event in the log of the running bus, to find what is damaged; it takes the disk's time
    #[arg(long)]
    pub read: bool,
    /// Which bus.
    #[command(flatten)]
    pub place: Place,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_design_fixes_is_understood() {
        for line in [
            "firehose demo",
            "firehose serve",
            "firehose serve --config f --data d --mqtt 127.0.0.1:0 --mqtt [::1]:1 --http unix:/x --gerrit ssh://u@h:1",
            "firehose serve --admin off --log-format json",
            "firehose serve --admin 127.0.0.1:9180",
            "firehose sub",
            "firehose sub mqtts://h -t a/# -t b --since -90m -n 3 -W 5 -F %t -q 1 -i me -c -u u --password-file p",
            "firehose sub --json --cafile c --cursor-file f -C 2 -P pw",
            "firehose sub -v --since earliest",
            "firehose pub -t a -m hello -q 2 -r -u u -P pw",
            "firehose pub mqtt://h -t a -l",
            "firehose pub -t a -f file --password-file f",
            "firehose pub -t a -m -5",
            "firehose history http://h -t a --since -7d --until -1h -n 20 --order desc -F %p -u u",
            "firehose history --json",
            "firehose history --raw",
            "firehose passwd -c -b -H argon2id f u pw",
            "firehose passwd f u",
            "firehose passwd -D f u",
            "firehose passwd -U f",
            "firehose check-config --print f",
            "firehose redact cAQ --reason r --config f --data d",
            "firehose doctor --accept-clock --config f --data d",
            "firehose doctor",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err().map(|e| e.to_string()));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "firehose",
            "firehose serve --mqtt nowhere",
            "firehose serve --admin unix:/x",
            "firehose serve --gerrit https://h",
            "firehose sub -q 3",
            "firehose sub -c",
            "firehose sub -n 0",
            "firehose sub --json -v",
            "firehose sub --json -F %p",
            "firehose pub -t a",
            "firehose pub -m a",
            "firehose pub -t a -m a -l",
            "firehose history --order up",
            "firehose passwd f",
            "firehose passwd f u pw",
            "firehose passwd -b f u",
            "firehose passwd -U f u",
            "firehose passwd -c -D f u",
            "firehose check-config",
            "firehose redact cAQ",
            "firehose redact --reason r",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
