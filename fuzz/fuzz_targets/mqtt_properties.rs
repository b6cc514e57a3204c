#![no_main]

#[path = "../targets/mqtt_properties.rs"]
#[allow(dead_code)]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::properties(data));
