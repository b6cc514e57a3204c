//! MQTT: [`connection`] speaks the protocol over one connection; [`subscriber`] and [`publisher`] are what one wants of it.

pub mod connection;
mod handshake;
mod input;
pub mod message;
pub mod publisher;
pub mod subscriber;

pub use handshake::Welcome;

use std::time::Duration;

use firehose_mqtt::Version;

use crate::{ClientError, Interrupt, Roots, Scheme, Url};

/// Who one is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The user; none: nobody in particular.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct MqttConfig {
    /// Where to.
    pub url: Url,
    /// As whom.
    pub account: Account,
    /// Who may vouch for the server, with `mqtts`.
    pub roots: Roots,
    /// The version; none: 5.0, and 3.1.1 where that is not spoken.
    pub version: Option<Version>,
    /// The client id; none: the server chooses.
    pub client_id: Option<String>,
    /// Go on with the session of this client id, and keep it afterwards.
    pub keep_session: bool,
    /// The longest silence.
    pub keep_alive_secs: u16,
    /// For connecting, and for each answer that the server owes.
    pub timeout: Duration,
    /// The largest packet that is taken.
    pub packet_bytes_max: usize,
    /// Stops everything.
    pub interrupt: Interrupt,
}

impl MqttConfig {
    /// Keep-alive 60 s, answers within 20 s, packets of up to 256 MiB, no session.
    pub fn new(url: Url) -> Result<Self, ClientError> {
        match url.scheme {
            Scheme::Mqtt | Scheme::Mqtts => {}
            Scheme::Ws | Scheme::Wss => {
                let name = url.scheme_name();
                let what =
                    format!("{url}: this version of firehose does not speak {name}: use mqtt:// or mqtts://");
                return Err(ClientError::Usage(what));
            }
            Scheme::Http | Scheme::Https => {
                return Err(ClientError::Usage(format!("{url}: this needs an mqtt:// or mqtts:// URL")));
            }
        }
        Ok(MqttConfig {
            url,
            account: Account::default(),
            roots: Roots::System,
            version: None,
            client_id: None,
            keep_session: false,
            keep_alive_secs: 60,
            timeout: Duration::from_secs(20),
            packet_bytes_max: 256 << 20,
            interrupt: Interrupt::new(),
        })
    }
}
