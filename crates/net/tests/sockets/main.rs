//! The bus behind real sockets: few tests, of what only sockets show.

mod bed;
mod fan_out;
mod kept;
mod lobby;
mod retained;
mod sessions;
mod slow_disk;
