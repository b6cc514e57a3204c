//! The HTTP interface: history and health.
//!
//! [`Service`] runs on one thread of its own (tokio, axum over hyper's HTTP/1): `net`'s lobby hands it accepted
//! connections ([`Service::serve`]), or it accepts them itself ([`Service::listen`]). Reading the log and checking
//! passwords block, so they happen on a small pool beside it, so many at a time as [`HttpConfig`] says.
//!
//! | path | answer |
//! |---|---|
//! | `GET /v1/events` | past events, a page at a time: [`query`] has the parameters, [`scan`] what a page is |
//! | `GET /livez` | 200 while the process lives |
//!
//! By the operator's socket alone ([`Operator`]): `POST /v1/redactions`, `GET /v1/doctor`, `POST /v1/clock`.
//!
//! Every answer carries `Firehose-Cursor`: after a page the place to go on from, else the newest event.
//! Every error is a problem of RFC 9457.
//!
//! Invariants:
//! - One client cannot hold the others up: heads, bodies and stalled writes have deadlines, a page has a bound of events
//!   and of bytes that are looked at for it.
//! - One address has a share of the memory of pages that are not sent yet, and of the password checks that wait: who opens
//!   many connections and reads none holds up itself.
//! - An event that was taken back is in no answer that is not written yet, once [`UnderWay::take_back`] returns.
//! - What a reader may not read is left out of a page before anything is counted.

mod connection;
mod events;
mod link;
mod login;
mod operator;
mod problem;
pub mod query;
mod router;
pub mod scan;
mod service;
mod shares;
mod under_way;

pub use connection::Connection;
pub use operator::{Operator, OperatorError};
pub use problem::Problem;
pub use service::{Door, HttpConfig, Service};
pub use under_way::UnderWay;
