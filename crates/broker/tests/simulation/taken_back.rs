//! Events that were taken back, or may have been: what may still come of them, and that no file has them.

use crate::ledger::{Key, Ledger};
use firehose_log::{Disk, MemDisk, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where files are.
const FOLDERS: [&str; 2] = ["/data", "/data/log"];

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It was begun: nothing is promised, neither way.
    Begun,
    /// The log has a tombstone in its place.
    Logged,
    /// It was said to be done.
    Done,
}

#[derive(Clone, Debug)]
struct Fate {
    stage: Stage,
    key: Option<Key>,
    /// When it was done, so many bytes were out to each connection.
    out: BTreeMap<usize, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct TakenBack {
    all: BTreeMap<Offset, Fate>,
    /// The state was made again from the log, in which nobody sees what stood where tombstones are.
    pub is_rebuilt: bool,
}

impl TakenBack {
    /// It is going to be taken back.
    pub fn begin(&mut self, offset: Offset, key: Option<Key>) {
        let fate = Fate { stage: Stage::Begun, key, out: BTreeMap::new() };
        self.all.entry(offset).or_insert(fate);
    }

    /// It has come so far.
    pub fn reach(&mut self, offset: Offset, stage: Stage) {
        self.all.entry(offset).and_modify(|it| it.stage = it.stage.max(stage));
    }

    /// It was said to be done, when so many bytes were out to each connection.
    pub fn done(&mut self, offset: Offset, out: BTreeMap<usize, u64>) {
        let Some(fate) = self.all.get_mut(&offset) else { return };
        if fate.stage < Stage::Done {
            (fate.stage, fate.out) = (Stage::Done, out);
        }
    }

    /// Every connection is over.
    pub fn crashed(&mut self) {
        self.all.values_mut().for_each(|it| it.out.clear());
    }

    /// The log was cut back to `head`.
    pub fn cut(&mut self, head: Offset, is_flipped: bool) {
        for (offset, it) in self.all.split_off(&(head + 1)) {
            assert!(it.stage == Stage::Begun || is_flipped, "the tombstone {offset} is gone: {head}");
        }
    }

    /// Whether it may be missing.
    pub fn has(&self, offset: Offset) -> bool {
        self.all.contains_key(&offset)
    }

    /// Whether the log has it no more.
    pub fn is_logged(&self, offset: Offset) -> bool {
        self.all.get(&offset).is_some_and(|it| it.stage >= Stage::Logged)
    }

    /// Those that were taken back, to the end.
    pub fn all_done(&self) -> Vec<Offset> {
        self.all.iter().filter(|(_, it)| it.stage == Stage::Done).map(|(offset, _)| *offset).collect()
    }

    /// Whether a message may come that begins behind so many bytes of a connection.
    pub fn may_come(&self, offset: Offset, connection: usize, begins: u64) -> bool {
        let Some(it) = self.all.get(&offset).filter(|it| it.stage == Stage::Done) else { return true };
        it.out.get(&connection).is_some_and(|out| begins < *out)
    }
}

impl Ledger {
    /// What was taken back stands in no file, but in segments that nobody can read, which were set aside.
    pub fn check_taken_back(&self, disk: &MemDisk) {
        let done = self.taken_back.all.iter().filter(|(_, it)| it.stage == Stage::Done);
        // A will that was lost with the power is published once more.
        let is_its_own = |offset: Offset, key: &Key| key.kind != 'w' || !self.is_damaged(offset);
        let keys: BTreeSet<Key> =
            done.filter_map(|(offset, it)| it.key.filter(|key| is_its_own(*offset, key))).collect();
        for folder in FOLDERS.iter().map(Path::new).filter(|_| !keys.is_empty()) {
            for name in disk.list(folder).expect("a folder") {
                let bytes = disk.bytes(&folder.join(&name)).unwrap_or_default();
                let found = keys_in(&bytes).find(|key| keys.contains(key));
                assert!(found.is_none() || name.ends_with(".damaged"), "{found:?} stands in {name}");
            }
        }
    }
}

/// The keys of messages that stand in a file.
fn keys_in(bytes: &[u8]) -> impl Iterator<Item = Key> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b';');
    ends.filter_map(|(end, _)| {
        let is_kind = |byte: &u8| b"mpfw".contains(byte);
        let before = bytes[end.saturating_sub(KEY_BYTES_MAX)..end].rsplit(|byte| *byte == b';').next()?;
        Key::parse(&before[before.iter().rposition(is_kind)?..])
    })
}

/// A key is not longer.
const KEY_BYTES_MAX: usize = 40;

#[test]
fn keys_are_found_wherever_they_stand() {
    let key = |number| Key { kind: 'm', publisher: 3, number, attempt: 0 };
    let bytes = format!("xx{}xx\0;m;{}", key(17).text(), key(4).text());
    assert_eq!(keys_in(bytes.as_bytes()).collect::<Vec<_>>(), [key(17), key(4)]);
}
