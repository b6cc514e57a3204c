//! The state without its thread, over a disk in memory and a real log on it.

mod bed;
mod damage;
mod failed_sync;
mod full_disk;
mod groups;
mod power;
mod redact;
mod redact_running;
mod sessions;
mod start;
mod view;
mod wills;
