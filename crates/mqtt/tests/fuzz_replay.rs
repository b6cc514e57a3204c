//! Replays the fuzz corpora of this crate's targets (see `fuzz/README.md`).

use std::{fs, path::Path};

#[path = "../../../fuzz/targets/mqtt_connect.rs"]
mod mqtt_connect;
#[path = "../../../fuzz/targets/mqtt_decode.rs"]
mod mqtt_decode;
#[path = "../../../fuzz/targets/mqtt_properties.rs"]
mod mqtt_properties;

#[test]
fn the_corpus_of_mqtt_decode_v31_finds_no_fault() {
    replay("mqtt_decode_v31", mqtt_decode::v31);
}

#[test]
fn the_corpus_of_mqtt_decode_v311_finds_no_fault() {
    replay("mqtt_decode_v311", mqtt_decode::v311);
}

#[test]
fn the_corpus_of_mqtt_decode_v5_finds_no_fault() {
    replay("mqtt_decode_v5", mqtt_decode::v5);
}

#[test]
fn the_corpus_of_mqtt_connect_finds_no_fault() {
    replay("mqtt_connect", mqtt_connect::connect);
}

#[test]
fn the_corpus_of_mqtt_properties_finds_no_fault() {
    replay("mqtt_properties", mqtt_properties::properties);
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for file in files {
        run(&fs::read(file.expect("an entry of the corpus").path()).expect("a file of the corpus"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}
