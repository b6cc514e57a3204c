use std::{fmt, sync::Arc};

/// Who is at the other end of a connection. A clone costs one counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Option<Arc<str>>);

impl Identity {
    /// Somebody who gave no user name.
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// A user whose password was right.
    pub fn user(name: impl Into<Arc<str>>) -> Self {
        Self(Some(name.into()))
    }

    /// The user's name; none for the anonymous.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether nobody vouches for this client.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Identity {
    /// The user's name, or `(anonymous)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("(anonymous)"))
    }
}
