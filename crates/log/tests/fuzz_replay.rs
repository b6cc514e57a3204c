//! Replays the fuzz corpora of this crate's targets (see `fuzz/README.md`).

use std::{fs, path::Path};

#[path = "../../../fuzz/targets/log_record.rs"]
mod log_record;
#[path = "../../../fuzz/targets/log_segment.rs"]
mod log_segment;
#[path = "../../../fuzz/targets/log_since.rs"]
mod log_since;

#[test]
fn the_corpora_of_the_logs_targets_find_no_fault() {
    replay("log_record", log_record::record);
    replay("log_since", log_since::since);
    replay("log_segment", log_segment::segment);
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
