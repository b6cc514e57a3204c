//! The state without its thread, over a disk in memory and a real log on it.

mod bed;
mod damage;
mod full_disk;
mod power;
mod redact;
mod sessions;
mod view;
mod wills;
