//! `[[source]]`: where events come from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::refused;

/// One source of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What kind of service it is.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// Its name: in `firehose/status/<name>`, in log lines and as the principal of its events.
    #[serde(default = "default_name")]
    pub name: String,
    /// Where it is.
    pub url: GerritUrl,
    /// The private key for ssh; none: as ssh itself finds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
    /// The known host keys; none: ssh's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_file: Option<PathBuf>,
    /// The first levels of its topics; none: `gerrit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Whether an event that comes twice is stored once.
    #[serde(default)]
    pub dedup: bool,
    /// How events that were missed are fetched later.
    #[serde(default)]
    pub catch_up: CatchUp,
    #[serde(
        default,
        rename = "webhook_secret_file",
        skip_serializing,
        deserialize_with = "refused::webhook"
    )]
    webhook_secret_file: (),
}

impl Source {
    /// A Gerrit source of the command line.
    pub fn gerrit(name: String, url: GerritUrl) -> Self {
        Source {
            kind: SourceKind::Gerrit,
            name,
            url,
            identity_file: None,
            known_hosts_file: None,
            topic: None,
            dedup: false,
            catch_up: CatchUp::default(),
            webhook_secret_file: (),
        }
    }
}

fn default_name() -> String {
    "gerrit".into()
}

/// What kind of service a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Gerrit's `stream-events` over ssh.
    Gerrit,
}

/// How events that were missed are fetched later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// The best way that the server offers.
    #[default]
    Auto,
    /// Both of the plugin's ways.
    Events,
    /// The events-log plugin.
    EventsLog,
    /// Gerrit's own REST interface.
    Rest,
    /// Never.
    Off,
}

/// `ssh://[user@]host[:port]`; Gerrit's ssh port is 29418 by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GerritUrl {
    /// The account; none: as ssh itself chooses.
    pub user: Option<String>,
    /// The host's name or number, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

const GERRIT_PORT: u16 = 29418;

impl FromStr for GerritUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!("{text:?} is not a Gerrit URL: write ssh://user@host:port, as in \"ssh://firehose@review.example.org:29418\"")
        })
    }
}

fn parse(text: &str) -> Option<GerritUrl> {
    let rest = text.strip_prefix("ssh://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = port.map_or(Ok(GERRIT_PORT), str::parse).ok()?;
    // neither may look like an option of ssh, nor hold what a shell or ssh's configuration reads otherwise
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%' | '+');
    let well = |part: &str| !part.is_empty() && !part.starts_with('-') && part.chars().all(plain);
    if !well(host) || !user.is_none_or(well) || port == 0 {
        return None;
    }
    Some(GerritUrl { user: user.map(str::to_owned), host: host.to_owned(), port })
}

impl fmt::Display for GerritUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl TryFrom<String> for GerritUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<GerritUrl> for String {
    fn from(url: GerritUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gerrit_urls_are_read_with_and_without_user_and_port() {
        for (text, shown) in [
            ("ssh://firehose@review.example.org:29418", "ssh://firehose@review.example.org:29418"),
            ("ssh://review.example.org", "ssh://review.example.org:29418"),
            ("ssh://a@[::1]:22/", "ssh://a@[::1]:22"),
        ] {
            assert_eq!(text.parse::<GerritUrl>().map(|url| url.to_string()), Ok(shown.to_string()));
        }
    }

    #[test]
    fn what_is_not_a_gerrit_url_is_refused() {
        for text in [
            "",
            "https://x",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a@",
            "ssh://h:x",
            "ssh://h:0",
            "ssh://h/p",
        ] {
            assert!(text.parse::<GerritUrl>().is_err(), "{text}");
        }
    }
}
