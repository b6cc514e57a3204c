//! One file per command.

pub mod check_config;
pub mod demo;
pub mod history;
pub mod passwd;
pub mod publish;
pub mod serve;
pub mod sub;
