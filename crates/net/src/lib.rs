//! The lobby, the shards' loops, listeners and shutdown.
