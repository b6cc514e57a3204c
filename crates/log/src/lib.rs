//! The event log: events, cursors, segments, append, commit, read, retention, recovery.
