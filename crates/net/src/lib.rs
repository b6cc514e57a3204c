//! The network side of the bus: the lobby, the shards' loops, listeners and shutdown. Around sans-I/O shards it runs
//! plain readiness loops; nothing here knows what an event is.

mod addresses;
mod client_id;
mod crew;
mod guests;
mod lingering;
mod listener;
mod lobby;
mod passwords;
mod readers;
mod runner;
mod server;
mod socket;

pub use addresses::Place;
pub use listener::{Address, BindError, Bound, ListenerConfig, Protocol};
pub use lobby::{HttpConnection, HttpHandoff, HttpStream};
pub use server::{Listeners, Server};
