//! The broker's core: the sequencer, the shards, and what lies between them. Sans-I/O: `net` brings bytes and time.
//!
//! The way of an event: a connection's bytes come to its [`shard::Shard`], PUBLISH becomes a record in the turn's draft,
//! the draft is deposited at the [`sequencer::Sequencer`], which gives it its offsets, writes it to the log and puts it
//! into the mailbox of every shard that subscribes; each shard matches it, encodes it once, queues it for its
//! connections, and flushes each of them once. See `ARCHITECTURE.md`.

mod acks;
mod arrivals;
mod arrive;
mod assigned;
mod backpressure;
mod connack;
mod deliver;
mod departure;
mod deposit;
mod ended;
mod errand;
mod filter_list;
mod group_reading;
mod groups;
mod hold;
mod inbound;
mod interests;
mod item;
mod lane_filters;
mod lost;
mod member;
mod partial;
mod pending;
mod plan;
mod publish;
mod reload;
mod replay;
mod rescue;
mod resend;
mod resume;
mod retained;
mod section;
mod sleepers;
mod starving;
mod state_thread;
mod suback;
mod subscribe;
pub mod subscriptions;
mod sync;
mod told;
mod unsubscribe;
mod will;

pub mod action;
pub mod aliases;
pub mod arrival;
pub mod bell;
pub mod bus;
pub mod commit;
pub mod connection;
pub mod fetched;
pub mod followers;
mod frames;
pub mod gate;
pub mod group;
mod group_member;
pub mod group_message;
pub mod handoff;
pub mod inflight;
pub mod kept;
pub mod lane;
pub mod limits;
pub mod message;
pub mod outbox;
pub mod outgoing;
pub mod persistence;
pub mod port;
pub mod redaction;
pub mod replays;
pub mod retained_page;
pub mod scan;
pub mod sequencer;
pub mod session;
pub mod shard;
pub mod state;
pub mod stats;
pub mod sys;

pub use bus::{Bus, BusConfig, PortEvent};
pub use limits::{Limits, Network};
pub use sequencer::{Durability, Role};
