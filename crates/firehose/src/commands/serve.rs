//! `firehose serve`: the bus, until TERM or INT.

use std::io::Write;

use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Serve;
use crate::config::{Admin, Config, Protocol, check, load, source::Source};
use crate::exit::Failure;
use crate::logging;
use crate::serve::Running;

/// Runs the bus.
pub fn run(args: &Serve) -> Result<(), Failure> {
    logging::start(args.log_format);
    let mut config = configure(args)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // signals count from here on: one that comes while the log is opened is not lost
    let (mut stop, mut hangup) = {
        let _inside = runtime.enter();
        (Stop::new()?, signal(SignalKind::hangup())?)
    };
    let running = Running::start(&config)?;
    say(&running);
    notify(&[NotifyState::Ready]);
    runtime.block_on(async {
        loop {
            tokio::select! {
                () = stop.asked() => break,
                _ = hangup.recv() => reload(args, &mut config, &running),
            }
        }
    });
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    running.stop();
    Ok(())
}

/// INT and TERM.
pub struct Stop {
    int: Signal,
    term: Signal,
}

impl Stop {
    /// Catches them from now on. Only inside a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Stop { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        tokio::select! { _ = self.int.recv() => {}, _ = self.term.recv() => {} }
    }
}

/// Says on the standard output where the bus listens, and that it is ready.
pub fn say(running: &Running) {
    let mut lines = String::new();
    for (protocol, address) in running.addresses() {
        lines.push_str(&format!("listening {protocol} {address}\n"));
    }
    lines.push_str("ready\n");
    // a bus whose standard output nobody reads is no worse for it
    let _ = std::io::stdout().write_all(lines.as_bytes());
    let _ = std::io::stdout().flush();
}

/// The file and the environment, then the command line.
fn configure(args: &Serve) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(path) => load::load(path, std::env::vars()),
        None => load::without_file(std::env::vars()),
    }
    .map_err(Failure::usage)?;
    if let Some(folder) = &args.data {
        config.server.data_dir = Some(folder.clone());
    }
    if let Some(address) = &args.admin {
        config.admin = Admin { address: address.clone() };
    }
    config.replace_listeners(Protocol::Mqtt, &args.mqtt);
    config.replace_listeners(Protocol::Http, &args.http);
    for url in &args.gerrit {
        let name = free_name(&config);
        config.source.push(Source::gerrit(name, url.clone()));
    }
    check::check(&config, &[]).map_err(|error| Failure::usage(error.what))?;
    Ok(config)
}

/// `gerrit`, or `gerrit-2` and so on, where that is taken.
fn free_name(config: &Config) -> String {
    let taken = |name: &String| config.source.iter().any(|source| source.name == *name);
    let numbered = (2..).map(|number| format!("gerrit-{number}"));
    std::iter::once("gerrit".to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// Reads the configuration again: access rules hold at once, the rest is named.
fn reload(args: &Serve, config: &mut Config, running: &Running) {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
    match configure(args) {
        Err(failure) => {
            tracing::error!(error = failure.message, "the configuration is not reloaded: the old one holds")
        }
        Ok(new) => match running.reload_access(&new) {
            Err(error) => tracing::error!(%error, "the access rules are not reloaded: the old ones hold"),
            Ok(changed) => {
                for what in &changed {
                    tracing::info!(what, "reloaded");
                }
                let waiting = needs_restart(config, &new);
                if !waiting.is_empty() {
                    tracing::warn!(keys = waiting.join(", "), "changed, and takes a restart");
                }
                if changed.is_empty() && waiting.is_empty() {
                    tracing::info!("reloaded: nothing changed");
                }
                // what takes a restart is compared with what runs, also the next time
                config.auth = new.auth;
            }
        },
    }
    notify(&[NotifyState::Ready]);
}

/// The keys outside `[auth]` that differ.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
    let (old, new) = (table(old), table(new));
    let mut keys = Vec::new();
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        match (old.get(name), new.get(name)) {
            _ if name == "auth" => {}
            (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) => {
                let inner = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
                let changed = inner.filter(|key| old.get(*key) != new.get(*key));
                keys.extend(changed.map(|key| format!("{name}.{key}")));
            }
            (old, new) if old != new => keys.push(name.clone()),
            _ => {}
        }
    }
    keys.sort();
    keys
}

/// Tells systemd, if it started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_take_a_restart_are_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.auth.acl_file = Some("/acl".into());
        assert!(needs_restart(&old, &new).is_empty());
        new.server.shards = 3;
        new.server.public_url = Some("x".into());
        new.limits.inflight_max = 7;
        new.listener = new.listeners();
        assert_eq!(
            needs_restart(&old, &new),
            ["limits.inflight_max", "listener", "server.public_url", "server.shards"]
        );
    }

    #[test]
    fn sources_of_the_command_line_get_names_of_their_own() {
        let url = || "ssh://u@h".parse().expect("it is valid");
        let args = Serve { gerrit: vec![url(), url()], ..Serve::default() };
        let config = configure(&args).expect("it is valid");
        assert_eq!(config.source.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["gerrit", "gerrit-2"]);
    }
}
