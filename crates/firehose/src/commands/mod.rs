//! One file per command.

pub mod check_config;
pub mod demo;
pub mod doctor;
pub mod history;
pub mod passwd;
pub mod publish;
pub mod redact;
pub mod serve;
pub mod sub;
