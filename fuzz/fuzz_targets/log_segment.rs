#![no_main]

#[path = "../targets/log_segment.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::segment(data));
