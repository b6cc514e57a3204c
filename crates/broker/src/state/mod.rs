//! The state: what only sessions know, and a view of the log (retained messages, ids of received QoS 2 messages), in a
//! file beside the log. It is never ahead of the durable log (DESIGN section 3, "One truth").
//!
//! Shards never wait for it: they leave [`Request`]s, and get [`Answer`]s through their mailboxes.

mod backend;
mod change;
mod checked;
mod core;
mod file;
mod fire;
mod group_names;
mod groups;
mod known;
mod last_save;
mod names;
mod open;
mod overlay;
mod page;
mod pages;
mod queue;
mod reader;
mod record;
mod request;
mod rescue;
mod sessions;
mod stats;
mod store;
mod stored;
mod view;
mod wills;

pub use change::WillKey;
pub use core::{State, StateNote, Turn};
pub use fire::Firing;
pub use group_names::GroupNames;
pub(crate) use group_names::Membership;
pub use names::StoredNames;
pub use open::{StateError, StateReport};
pub use queue::{Job, Queue, Redacted};
pub use reader::{RetainedEntries, StateKeep, StateReader};
pub use record::Life;
pub use request::{Answer, Open, OpenRefusal, Opened, Operation, Request, Rescue, Resumed, WillFate};
pub use stats::StateStats;
pub use stored::{
    Progress, SessionName, StoredGroup, StoredInflight, StoredLane, StoredScan, StoredState,
    StoredSubscription, StoredWill,
};
pub use wills::{DueWill, WillOutcome};
