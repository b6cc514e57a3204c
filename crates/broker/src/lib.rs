//! The broker's core: sequencer, shards, sessions, lanes. No I/O in a shard.
