//! Replays the fuzz corpora of this crate's targets (see `fuzz/README.md`).

use std::{fs, path::Path};

#[path = "../../../fuzz/targets/topic_trie.rs"]
mod topic_trie;

#[test]
fn the_corpus_of_topic_trie_finds_no_fault() {
    replay("topic_trie", topic_trie::trie);
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
