//! The HTTP interface: history and health.
