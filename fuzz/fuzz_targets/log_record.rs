#![no_main]

#[path = "../targets/log_record.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::record(data));
