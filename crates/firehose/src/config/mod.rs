//! The configuration: one file, `conf.d/*.toml` beside it, and the environment.
//!
//! Every table and key is optional; [`Config::default`] is what `serve` runs without a file. Reading is in [`load`], the
//! rules that concern more than one key in [`check`].

pub mod address;
pub mod age;
pub mod check;
pub mod filter;
pub mod limits;
pub mod load;
pub mod locate;
pub mod network;
pub mod refused;
pub mod size;
pub mod source;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use address::{Address, AdminAddress};
use age::Age;
use filter::Filter;
use limits::Limits;
use size::Size;
use source::Source;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[log]`
    pub log: Log,
    /// `[auth]`
    pub auth: Auth,
    /// `[limits]`
    pub limits: Limits,
    /// `[admin]`
    pub admin: Admin,
    /// `[[listener]]`; none: loopback, see [`Config::listeners`].
    pub listener: Vec<Listener>,
    /// `[[source]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Source>,
}

/// `[server]`: the process as a whole.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where the log and the state are; none: `$STATE_DIRECTORY`, else `./firehose-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// How many shards; 0: one per core.
    pub shards: usize,
    /// The address by which the world reaches the HTTP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

/// `[log]`: what is kept and how safely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// When a publication is acknowledged.
    pub durability: Durability,
    /// Segments whose newest event is older than this are deleted; 0: none for its age.
    pub retention_age: Age,
    /// The oldest segments are deleted while the log is larger than this; 0: no bound.
    pub retention_bytes: Size,
    /// Publishing is refused while less than this, or than 5 % of the file system, is free.
    pub disk_reserve_bytes: Size,
    /// How often the free space is looked at.
    pub disk_check_secs: Age,
    /// Topics that are delivered live only.
    pub unlogged: Vec<Filter>,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            durability: Durability::Sync,
            retention_age: Age::from_days(365),
            retention_bytes: Size(20 << 30),
            disk_reserve_bytes: Size(256 << 20),
            disk_check_secs: Age::from_secs(1),
            unlogged: Vec::new(),
        }
    }
}

/// When a publication is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After `fdatasync`.
    Sync,
    /// After `write`.
    Os,
}

/// `[auth]`: who may do what.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Users and their passwords, in mosquitto's format; none: no users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The access list, in mosquitto's format; none: everyone reads everything, a user writes `<user>/#`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl_file: Option<PathBuf>,
    /// What those without an account may do.
    pub anonymous: Anonymous,
}

/// What those without an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Read what the access list lets them read.
    #[default]
    Read,
    /// Nothing: not even connect.
    None,
    /// All that the access list allows, as with a plain broker.
    Full,
}

/// `[[listener]]`: one place where connections are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ListenerTable")]
pub struct Listener {
    /// Its name in log lines and metrics; by default the protocol.
    pub name: String,
    /// What is spoken there; by default MQTT.
    pub protocol: Protocol,
    /// Where; by default the protocol's port on loopback.
    pub address: Address,
}

impl Listener {
    /// A listener named for its protocol.
    pub fn new(protocol: Protocol, address: Address) -> Self {
        Listener { name: protocol.to_string(), protocol, address }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT over TCP.
    #[default]
    Mqtt,
    /// The HTTP interface.
    Http,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Mqtt => "mqtt",
            Protocol::Http => "http",
        })
    }
}

/// A listener as it stands in the file, where each key may be absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerTable {
    name: Option<String>,
    #[serde(default)]
    protocol: Protocol,
    address: Option<Address>,
    #[serde(default, rename = "connections_max", deserialize_with = "refused::connections_max")]
    _connections_max: (),
    #[serde(default, rename = "tls", deserialize_with = "refused::tls")]
    _tls: (),
    #[serde(default, rename = "proxy_from", deserialize_with = "refused::proxy_from")]
    _proxy_from: (),
}

impl From<ListenerTable> for Listener {
    fn from(table: ListenerTable) -> Self {
        let port = match table.protocol {
            Protocol::Mqtt => 1883,
            Protocol::Http => 8080,
        };
        Listener {
            name: table.name.unwrap_or_else(|| table.protocol.to_string()),
            protocol: table.protocol,
            address: table.address.unwrap_or_else(|| Address::loopback(port)),
        }
    }
}

/// `[admin]`: the listener for metrics and health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where, or `off`.
    pub address: AdminAddress,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { address: AdminAddress::At(Address::loopback(9180)) }
    }
}

impl Config {
    /// The configuration when there is no file: as the default, with the admin listener off.
    pub fn without_file() -> Self {
        Config { admin: Admin { address: AdminAddress::Off }, ..Config::default() }
    }

    /// The listeners that are to be opened: the file's, or MQTT and HTTP on loopback if it has none.
    pub fn listeners(&self) -> Vec<Listener> {
        if !self.listener.is_empty() {
            return self.listener.clone();
        }
        vec![
            Listener::new(Protocol::Mqtt, Address::loopback(1883)),
            Listener::new(Protocol::Http, Address::loopback(8080)),
        ]
    }

    /// Puts these addresses in the place of all listeners of the protocol; none: leaves them as they are.
    pub fn replace_listeners(&mut self, protocol: Protocol, addresses: &[Address]) {
        if addresses.is_empty() {
            return;
        }
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.protocol != protocol);
        for (index, address) in addresses.iter().enumerate() {
            let mut listener = Listener::new(protocol, address.clone());
            if index > 0 {
                listener.name = format!("{protocol}-{}", index + 1);
            }
            listeners.push(listener);
        }
        self.listener = listeners;
    }

    /// The data folder: the configured one, else systemd's `$STATE_DIRECTORY`, else `./firehose-data`.
    pub fn data_dir(&self) -> PathBuf {
        if let Some(folder) = &self.server.data_dir {
            return folder.clone();
        }
        match std::env::var_os("STATE_DIRECTORY") {
            // systemd gives several, separated by colons, if the unit names several: the first is ours
            Some(folders) if !folders.is_empty() => {
                let folders = folders.to_string_lossy().into_owned();
                PathBuf::from(folders.split(':').next().unwrap_or_default())
            }
            _ => PathBuf::from("firehose-data"),
        }
    }

    /// The configuration as a file that would be read the same.
    pub fn to_toml(&self) -> String {
        let shown = Config { listener: self.listeners(), ..self.clone() };
        toml::to_string(&shown).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_listens_on_loopback_only() {
        let config = Config::without_file();
        assert!(config.listeners().iter().all(|listener| listener.address.is_local()));
        assert_eq!(config.listeners().len(), 2);
        assert_eq!(config.admin.address, AdminAddress::Off);
    }

    #[test]
    fn addresses_of_the_command_line_replace_the_listeners_of_their_protocol_only() {
        let mut config = Config::default();
        config.replace_listeners(Protocol::Mqtt, &[Address::loopback(1), Address::loopback(2)]);
        let shown: Vec<_> = config.listeners().iter().map(|l| format!("{} {}", l.name, l.address)).collect();
        assert_eq!(shown, ["http 127.0.0.1:8080", "mqtt 127.0.0.1:1", "mqtt-2 127.0.0.1:2"]);
    }

    #[test]
    fn a_shown_configuration_reads_the_same() {
        let mut config = Config::default();
        config.listener = config.listeners();
        assert_eq!(toml::from_str::<Config>(&config.to_toml()), Ok(config));
    }
}
