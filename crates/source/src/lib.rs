//! Sources of events, and the sink they publish to.
//!
//! A [`Source`] brings the events of one service (a Gerrit, later webhooks and mail) to the bus; a [`Sink`] is where it
//! puts them. The binary wires the two: sources never see a connection, a session or the log.
//!
//! Invariants:
//! - The payload is the source's bytes; what we say about it travels beside it ([`NewEvent::attributes`]).
//! - What a source read, it publishes in the order in which it was read.
//! - A source never ends because of what comes from the other side: it counts, says so in its [`Status`], and goes on.
//! - An event that could not be brought is counted in [`Losses`], never silently skipped.

mod backoff;
pub mod gerrit;
mod sink;
mod status;

pub use backoff::BackoffConfig;
pub use gerrit::{GerritConfig, GerritSource, GerritUrl};
pub use sink::{NewEvent, Refused, Sink, Source, Stored};
pub use status::{Losses, State, Status, StatusHandle};
