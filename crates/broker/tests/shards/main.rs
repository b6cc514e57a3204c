//! Shards and the sequencer over a real log on a disk in memory, with a clock and wires of the tests' own: no socket,
//! no thread, and every step is taken by the test.

mod client;
mod conform_answers;
mod conform_delivery;
mod conform_in;
mod conform_shared;
mod conform_subscriptions;
mod conform_wills;
mod connect;
mod deliver;
mod disk;
mod hostile;
mod inbound;
mod publish;
mod redact;
mod replay;
mod retained;
mod retained_seam;
mod retained_view;
mod seam;
mod sequencer;
mod session;
mod session_arrive;
mod session_client;
mod session_in;
mod session_lanes;
mod session_out;
mod session_rescue;
mod session_seam;
mod setup;
mod slow;
mod state;
mod subscribe;
mod wills;
mod wire;
mod world;
