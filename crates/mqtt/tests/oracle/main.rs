//! Our codec against codecs that others wrote: an oracle each.

mod flowsdk;
mod mqtt_protocol_core;
#[path = "../samples/mod.rs"]
mod samples;

use proptest::prelude::ProptestConfig;

/// So many cases for each property; `PROPTEST_CASES` may ask for more.
fn cases(least: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(least), failure_persistence: None, ..default }
}
