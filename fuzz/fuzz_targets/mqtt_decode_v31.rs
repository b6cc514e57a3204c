#![no_main]

#[path = "../targets/mqtt_decode.rs"]
#[allow(dead_code)]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::v31(data));
