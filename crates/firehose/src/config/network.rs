//! Networks as `203.0.113.0/24` or `2001:db8::/32`; a bare address is a network of one.

use serde::{Deserialize, Serialize};

/// A range of IP addresses, read from and shown as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub firehose_broker::Network);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Network)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.0.to_string()
    }
}
