//! The state: what only sessions know, and a view of the log (retained messages, ids of received QoS 2 messages), in a
//! file beside the log. It is never ahead of the durable log (DESIGN section 3, "One truth").
//!
//! Shards never wait for it: they leave [`Request`]s, and get [`Answer`]s through their mailboxes.

mod names;
mod request;
mod stored;

pub use names::StoredNames;
pub use request::{Answer, Open, OpenRefusal, Opened, Operation, Request, Resumed, WillFate};
pub use stored::{
    Progress, SessionName, StoredInflight, StoredLane, StoredScan, StoredState, StoredSubscription,
    StoredWill,
};
