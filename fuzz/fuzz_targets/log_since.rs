#![no_main]

#[path = "../targets/log_since.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::since(data));
