//! How the process ends: the exit codes that scripts may rely on.

use std::fmt;

use firehose_client::ClientError;

/// Why the process did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is said on the standard error; empty: nothing.
    pub message: String,
}

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nobody reads the output any more.
    Success = 0,
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

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::Usage(_) => Exit::Usage,
            ClientError::Connection(_) => Exit::Connection,
            ClientError::Refused(_) => Exit::Refused,
            ClientError::Interrupted => return Failure::silent(Exit::Interrupted),
        };
        Failure { exit, message: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    /// An error of the standard output or input.
    fn from(error: std::io::Error) -> Self {
        Failure::runtime(error)
    }
}
