//! The `ssh` command line that reads a Gerrit's events.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::{ConfigError, GerritConfig};

/// The command, ready to be spawned: in a process group of its own, killed when its handle is dropped.
pub(super) fn command(config: &GerritConfig) -> Command {
    let mut command = Command::new(&config.ssh_program);
    command
        .args(arguments(config))
        // The messages that `complaint` reads are in English then.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Refuses file names that ssh would read as a pattern or as several names.
pub(super) fn check_path(path: &Path, key: &'static str) -> Result<(), ConfigError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let bad = bytes.is_empty() || bytes.iter().any(|b| b"%\"\\$".contains(b) || b.is_ascii_control());
    match bad {
        true => Err(ConfigError(format!(
            "{key} = {path:?}: ssh takes no file name that is empty or has %, $, \\, quotes or control characters"
        ))),
        false => Ok(()),
    }
}

fn arguments(config: &GerritConfig) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |text: &str| {
        arguments.push("-o".into());
        arguments.push(text.into());
    };
    option("BatchMode=yes");
    option("StrictHostKeyChecking=yes");
    option(&format!("ServerAliveInterval={}", config.server_alive_interval_secs));
    option(&format!("ServerAliveCountMax={}", config.server_alive_count_max));
    option(&format!("ConnectTimeout={}", config.connect_timeout.as_secs().max(1)));
    // At this level ssh says when it has logged in, which is how we know that the stream begins.
    option("LogLevel=VERBOSE");
    // A connection of our own: one shared with others is not watched by the options above, and ends with them.
    option("ControlMaster=no");
    option("ControlPath=none");
    option("ClearAllForwardings=yes");
    if let Some(file) = &config.known_hosts_file {
        arguments.push("-o".into());
        arguments.push(quoted("UserKnownHostsFile=", file));
    }
    if let Some(file) = &config.identity_file {
        arguments.push("-o".into());
        arguments.push("IdentitiesOnly=yes".into());
        arguments.push("-i".into());
        arguments.push(file.into());
    }
    arguments.extend(["-T", "-a", "-x", "-p"].map(OsString::from));
    arguments.push(config.url.port().to_string().into());
    arguments.push(format!("{}@{}", config.url.user(), config.url.host()).into());
    arguments.extend(["gerrit", "stream-events"].map(OsString::from));
    arguments
}

/// An option whose value is one file name, spaces or not.
fn quoted(option: &str, file: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(OsStr::new("\""));
    text.push(file);
    text.push(OsStr::new("\""));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_checked_and_the_link_is_watched_whatever_the_users_own_config_says() {
        let mut config = GerritConfig::new("gerrit", "ssh://bot@[::1]:2222".parse().unwrap());
        config.identity_file = Some("/keys/id 1".into());
        config.known_hosts_file = Some("/keys/known hosts".into());
        let arguments: Vec<String> =
            arguments(&config).into_iter().map(|a| a.into_string().unwrap()).collect();
        let line = arguments.join("|");
        for expected in [
            "-o|BatchMode=yes|-o|StrictHostKeyChecking=yes|-o|ServerAliveInterval=15|-o|ServerAliveCountMax=3",
            "-o|UserKnownHostsFile=\"/keys/known hosts\"",
            "-o|IdentitiesOnly=yes|-i|/keys/id 1",
        ] {
            assert!(line.contains(expected), "{line}");
        }
        assert!(line.ends_with("-p|2222|bot@::1|gerrit|stream-events"), "{line}");
    }

    #[test]
    fn file_names_that_ssh_would_expand_are_refused() {
        for path in ["", "a%h", "a\"b", "a\nb", "${HOME}/x"] {
            let error = check_path(Path::new(path), "identity_file").unwrap_err().to_string();
            assert!(error.contains("identity_file"), "{error}");
        }
        assert!(check_path(Path::new("/etc/firehose/gerrit key"), "identity_file").is_ok());
    }
}
