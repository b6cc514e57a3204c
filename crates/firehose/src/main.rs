//! firehose.

fn main() {}
