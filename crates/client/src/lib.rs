//! A client of the bus: MQTT for what happens and what happened ([`Subscriber`], [`Publisher`]), HTTP for what happened
//! ([`History`]). Blocking, for programs that do one thing at a time.
//!
//! The ways: `mqtt://` and `mqtts://` by [`mqtt`], `http://` and `https://` by [`history`]. TLS is rustls with the
//! system's certificates or a file of one's own.
//!
//! Invariants:
//! - A message is acknowledged when the next one is asked for, never before: what the caller had in hand when it died
//!   comes again.
//! - A subscriber that loses its connection goes on after the last message it handed out, each once and in order, when
//!   the server gives cursors.

mod backoff;
pub mod cursor_file;
mod error;
pub mod history;
mod interrupt;
pub mod mqtt;
mod stream;
mod tls;
mod url;

pub use cursor_file::CursorFile;
pub use error::ClientError;
pub use history::{History, HistoryEvent, HistoryRequest};
pub use interrupt::Interrupt;
pub use mqtt::message::Message;
pub use mqtt::publisher::Publisher;
pub use mqtt::subscriber::{Subscriber, SubscriberConfig, Update};
pub use mqtt::{Account, MqttConfig};
pub use tls::Roots;
pub use url::{Scheme, Url};
