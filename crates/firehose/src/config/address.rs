//! Where to listen: `127.0.0.1:1883`, `[::]:1883`, `localhost:1883`, `unix:/run/firehose/mqtt.sock`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A host (name or number, IPv6 without brackets) and a port; port 0 lets the system choose.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// An address on IPv4's loopback.
    pub fn loopback(port: u16) -> Self {
        Address::Tcp { host: "127.0.0.1".into(), port }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Address::Unix(path.into())),
                false => {
                    Err(format!("{text:?} is not an address: the path after \"unix:\" must begin with /"))
                }
            };
        }
        tcp(text).ok_or_else(|| {
            format!("{text:?} is not an address: write host:port, [IPv6]:port or unix:/path, as in \"127.0.0.1:1883\"")
        })
    }
}

fn tcp(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.bytes().all(|b| b.is_ascii_digit()).then_some(port)?.parse().ok()?;
    if let Some(inside) = host.strip_prefix('[') {
        let host = inside.strip_suffix(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return Some(Address::Tcp { host: host.into(), port });
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    (!host.is_empty() && host.bytes().all(named)).then(|| Address::Tcp { host: host.into(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// The admin listener's address: one, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AdminAddress {
    /// No such listener.
    Off,
    /// Listen there.
    At(Address),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(AdminAddress::Off),
            text => match text.parse()? {
                Address::Unix(_) => Err(format!("{text:?}: the admin listener takes host:port or \"off\"")),
                address => Ok(AdminAddress::At(address)),
            },
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Off => f.write_str("off"),
            AdminAddress::At(address) => address.fmt(f),
        }
    }
}

impl TryFrom<String> for AdminAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AdminAddress> for String {
    fn from(address: AdminAddress) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_were_read() {
        for text in ["127.0.0.1:1883", "[::]:1883", "[::1]:0", "localhost:80", "unix:/run/firehose/mqtt.sock"]
        {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "1883",
            ":1883",
            "::1:1883",
            "[::1]",
            "host:99999",
            "host:+1",
            "unix:relative",
            "a b:1",
            "[zz]:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_and_unix_sockets_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("unix:/x", true),
            ("[::]:1", false),
            ("0.0.0.0:1", false),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.is_local()), Ok(local), "{text}");
        }
    }
}
