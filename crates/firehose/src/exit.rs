//! How the process ends: the exit codes that scripts may rely on.

use std::fmt;

/// Why the process did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is said on the standard error; empty: nothing.
    pub message: String,
}

/// The exit codes besides 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something went wrong while running.
    Runtime = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// There is no connection, or it was lost.
    Connection = 3,
    /// The server said no.
    Refused = 4,
    /// The time of `-W` is over.
    Timeout = 27,
    /// INT or TERM.
    Interrupted = 130,
}

impl Failure {
    /// Something went wrong while running.
    pub fn runtime(message: impl fmt::Display) -> Self {
        Failure { exit: Exit::Runtime, message: message.to_string() }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure { exit: Exit::Usage, message: message.to_string() }
    }

    /// An end that needs no words.
    pub fn silent(exit: Exit) -> Self {
        Failure { exit, message: String::new() }
    }
}

impl From<std::io::Error> for Failure {
    /// An error of the standard output or input.
    fn from(error: std::io::Error) -> Self {
        Failure::runtime(error)
    }
}
