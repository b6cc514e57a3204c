//! What can go wrong, by whose fault it is.

use std::fmt;

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// What was asked makes no sense: a malformed URL, a file that holds no certificate.
    Usage(String),
    /// There is no connection, or it was lost.
    Connection(String),
    /// The server said no.
    Refused(String),
    /// The caller interrupted it ([`crate::Interrupt`]).
    Interrupted,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Usage(what) | ClientError::Connection(what) | ClientError::Refused(what) => {
                f.write_str(what)
            }
            ClientError::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for ClientError {}
