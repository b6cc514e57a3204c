//! Keys of the design that this version does not serve yet: refused with a reason rather than silently ignored.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};

/// `listener.tls`
pub fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refuse(
        deserializer,
        "this version of firehose does not serve TLS: put a TLS proxy before it and remove this key",
    )
}

/// `listener.proxy_from`
pub fn proxy_from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refuse(deserializer, "this version of firehose does not read the PROXY protocol: remove this key")
}

/// `listener.connections_max`
pub fn connections_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refuse(
        deserializer,
        "this version of firehose counts connections of all listeners together: use limits.connections_max",
    )
}

/// `source.webhook_secret_file`
pub fn webhook<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refuse(deserializer, "this version of firehose does not take webhooks: remove this key")
}

fn refuse<'de, D: Deserializer<'de>>(deserializer: D, why: &str) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(why))
}
