#![no_main]

#[path = "../targets/topic_trie.rs"]
#[allow(dead_code)]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::trie(data));
