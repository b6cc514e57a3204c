//! `[[source]]`: where events come from.

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

/// `ssh://user@host[:port]`; Gerrit's ssh port is 29418 by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GerritUrl(pub firehose_source::GerritUrl);

impl FromStr for GerritUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(GerritUrl).map_err(|error: firehose_source::gerrit::UrlError| error.to_string())
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
        url.0.to_string()
    }
}
