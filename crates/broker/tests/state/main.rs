//! The state without its thread, over a disk in memory and a real log on it.

mod bed;
mod sessions;
