//! The disk as the state sees it, and what nobody else could tell of what happened there: whether a damaged state file has
//! the one excuse that there is. A write or sync of it failed, the file that tells the next start of that could not be
//! made, the bus was killed before it had written the state anew, and then the power failed: in that order.

use crate::engine::{Shared, lock};
use crate::world::Crash;
use firehose_log::{Disk, File, MemDisk, Space};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where the state is.
pub const STATE: &str = "/data/state.redb";
/// What is made when a write or sync of it failed.
const IN_DOUBT: &str = "/data/state.redb.in-doubt";

/// How much of it has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    /// A write or sync failed, and nothing says so but the bus's memory.
    Untold,
    /// And the bus was killed.
    Forgotten,
    /// And the power failed: the file may be damaged.
    Damaging,
}

#[derive(Debug, Default)]
struct Seen {
    doubt: Doubt,
    /// A file was set aside that may have been damaged so.
    is_excused: bool,
}

/// See the module; clones share it.
#[derive(Clone)]
pub struct Witness {
    disk: MemDisk,
    seen: Shared<Seen>,
}

impl Witness {
    pub fn new(disk: MemDisk) -> Witness {
        Witness { disk, seen: Shared::default() }
    }

    /// The bus has ended so.
    pub fn crashed(&self, crash: Crash) {
        let mut seen = lock(&self.seen);
        seen.doubt = match (seen.doubt, crash) {
            (Doubt::Untold, Crash::Kill) => Doubt::Forgotten,
            // With the power goes what differs between what is read and what is on the disk.
            (Doubt::Untold, Crash::PowerCut) => Doubt::None,
            (Doubt::Forgotten, Crash::PowerCut) => Doubt::Damaging,
            (doubt, _) => doubt,
        };
    }

    /// Whether a file was set aside, since this was last asked, that had the excuse.
    pub fn take_excuse(&self) -> bool {
        std::mem::take(&mut lock(&self.seen).is_excused)
    }
}

impl Disk for Witness {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let created = self.disk.create(path);
        if path == Path::new(IN_DOUBT) {
            let mut seen = lock(&self.seen);
            seen.doubt = match (seen.doubt, created.is_ok()) {
                (Doubt::None, false) => Doubt::Untold,
                (Doubt::Untold, true) => Doubt::None,
                (doubt, _) => doubt,
            };
        }
        created
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let mut seen = lock(&self.seen);
        if from == Path::new(STATE) {
            seen.is_excused |= seen.doubt == Doubt::Damaging;
        }
        if to == Path::new(STATE) {
            // It was written anew.
            seen.doubt = Doubt::None;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn monotonic_us(&self) -> u64 {
        self.disk.monotonic_us()
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}

#[test]
fn nothing_but_a_missing_mark_then_a_kill_then_a_power_cut_excuses_a_damaged_state() {
    use Crash::{Kill, PowerCut};
    let excused = |mark_fails: bool, crashes: &[Crash], is_written_anew: bool| {
        let disk = MemDisk::new();
        let witness = Witness::new(disk.clone());
        witness.create(Path::new(STATE)).expect("it is made");
        if mark_fails {
            disk.fail(firehose_log::DiskCall::Create, io::ErrorKind::Other);
        }
        let _mark = witness.create(Path::new(IN_DOUBT));
        crashes.iter().for_each(|crash| witness.crashed(*crash));
        if is_written_anew {
            witness.create(Path::new("/data/new")).expect("it is made");
            witness.rename(Path::new("/data/new"), Path::new(STATE)).expect("it is there");
        }
        witness.rename(Path::new(STATE), Path::new("/data/aside")).expect("it is there");
        witness.take_excuse()
    };
    assert!(excused(true, &[Kill, PowerCut], false));
    assert!(excused(true, &[Kill, Kill, PowerCut, Kill], false));
    assert!(!excused(false, &[Kill, PowerCut], false));
    assert!(!excused(true, &[Kill, PowerCut], true));
    for crashes in [&[][..], &[Kill], &[PowerCut], &[PowerCut, Kill], &[PowerCut, Kill, PowerCut]] {
        assert!(!excused(true, crashes, false), "{crashes:?}");
    }
}
