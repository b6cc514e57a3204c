//! A disk in memory, for tests: it can fail, write short, lie about room, and forget what was not synced, all of it
//! or by the throw of a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, File, Space};
use crate::mem_file::{Content, Random};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// What a call to the disk does, for [`MemDisk::fail`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// [`File::write_at`].
    Write,
    /// [`File::sync_data`]. What was written since the last one is then never written, though it is still read, and
    /// a later sync says yes: as Linux does it.
    Sync,
    /// [`File::truncate`].
    Truncate,
    /// [`File::preallocate`].
    Preallocate,
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`File::read_at`] and [`File::read_at_nowait`].
    Read,
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Content>>>;

#[derive(Default)]
struct State {
    names: Names,
    durable_names: Names,
    /// Changes of names that are not durable, in order.
    renamed: Vec<Renamed>,
    locked: BTreeSet<PathBuf>,
    denied: BTreeSet<PathBuf>,
    faults: Vec<(DiskCall, ErrorKind)>,
    /// After how many more calls every one fails, and how.
    failing: Option<(u64, ErrorKind)>,
    short_write_bytes: Option<usize>,
    cold: bool,
    free_bytes: Option<u64>,
    monotonic_us: u64,
    random: u64,
    writes: u64,
}

/// A change of names.
enum Renamed {
    To(PathBuf, Arc<Mutex<Content>>),
    FromTo(PathBuf, PathBuf, Arc<Mutex<Content>>),
    Gone(PathBuf),
}

impl Renamed {
    fn is_in(&self, dir: &Path) -> bool {
        let (Renamed::To(path, _) | Renamed::FromTo(_, path, _) | Renamed::Gone(path)) = self;
        path.parent() == Some(dir)
    }

    fn apply(self, names: &mut Names) {
        match self {
            Renamed::To(path, content) => drop(names.insert(path, content)),
            Renamed::FromTo(from, to, content) => {
                names.remove(&from);
                names.insert(to, content);
            }
            Renamed::Gone(path) => drop(names.remove(&path)),
        }
    }
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// Lets the next such call fail. More than one wait in line.
    pub fn fail(&self, call: DiskCall, error: ErrorKind) {
        self.state().faults.push((call, error));
    }

    /// Lets every call that changes something fail, after `calls` more of them, until [`MemDisk::heal`]: a disk that
    /// is full from some moment on, or a machine that stops there.
    pub fn fail_after(&self, calls: u64, error: ErrorKind) {
        self.state().failing = Some((calls, error));
    }

    /// Whether [`MemDisk::fail_after`] has let a call fail.
    pub fn is_failing(&self) -> bool {
        matches!(self.state().failing, Some((0, _)))
    }

    /// Lets a file be someone else's: it cannot be opened.
    pub fn deny(&self, path: &Path) {
        self.state().denied.insert(path.to_owned());
    }

    /// Takes back every failure that was asked for and has not come yet.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.failing = None;
        state.short_write_bytes = None;
    }

    /// Lets the next write stop after so many bytes.
    pub fn write_short(&self, bytes: usize) {
        self.state().short_write_bytes = Some(bytes);
    }

    /// Whether nothing is in memory: reads that may not wait are blocked.
    pub fn set_cold(&self, cold: bool) {
        self.state().cold = cold;
    }

    /// What [`Disk::space`] says is free; `None`: plenty.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.state().free_bytes = free_bytes;
    }

    /// Sets the clock of [`Disk::monotonic_us`] forward.
    pub fn pass(&self, us: u64) {
        self.state().monotonic_us += us;
    }

    /// The power fails: what was not synced, bytes and names, is gone.
    pub fn lose_power(&self) {
        self.stop(None);
    }

    /// The power fails, and of what was not synced the seed says what is there all the same: each 4-KiB page of
    /// each file, each length, each file that was made, renamed or removed, for itself and in no order.
    pub fn lose_power_partly(&self, seed: u64) {
        self.stop(Some(Random::new(seed)));
    }

    /// Writes some of what was not synced to the disk, as a system does at any time; the seed says which pages.
    pub fn write_back(&self, seed: u64) {
        let mut random = Random::new(seed);
        for content in self.state().names.values() {
            lock(content).write_back(&mut random);
        }
    }

    /// Forgets what is in memory and counts as written, also what a failed sync has dropped: it is read from the
    /// disk again.
    pub fn evict(&self) {
        for content in self.state().names.values() {
            lock(content).evict();
        }
    }

    /// Turns a bit of what is on the disk, in any file; gives the file and the byte. `None` if there is no byte.
    pub fn flip_bit(&self, seed: u64) -> Option<(PathBuf, usize)> {
        let mut random = Random::new(seed);
        let state = self.state();
        let filled: Vec<_> =
            state.names.iter().filter(|(_, content)| !lock(content).bytes.is_empty()).collect();
        let (path, content) = filled.get(random.below(filled.len()))?;
        let mut content = lock(content);
        let byte = random.below(content.bytes.len());
        content.flip(byte, random.below(8) as u8);
        Some(((*path).clone(), byte))
    }

    fn stop(&self, mut random: Option<Random>) {
        let mut state = self.state();
        let mut names = std::mem::take(&mut state.durable_names);
        for change in std::mem::take(&mut state.renamed) {
            if random.as_mut().is_some_and(Random::coin) {
                change.apply(&mut names);
            }
        }
        for content in names.values() {
            lock(content).lose_power(random.as_mut());
        }
        state.names = names.clone();
        state.durable_names = names;
        state.locked.clear();
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.state().names.get(path).cloned()?;
        let bytes = lock(&content).bytes.clone();
        Some(bytes)
    }

    /// Sets the bytes of a file, durably.
    pub fn set_bytes(&self, path: &Path, bytes: &[u8]) {
        let content = Arc::new(Mutex::new(Content::durable(bytes)));
        let mut state = self.state();
        state.names.insert(path.to_owned(), Arc::clone(&content));
        state.durable_names.insert(path.to_owned(), content);
    }

    /// A disk of its own with the same files, all of them durable, and no lock held.
    pub fn copy(&self) -> MemDisk {
        let copy = MemDisk::new();
        for (path, content) in &self.state().names {
            copy.set_bytes(path, &lock(content).bytes);
        }
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn fault(&self, call: DiskCall) -> io::Result<()> {
        let mut state = self.state();
        if call != DiskCall::Read {
            match &mut state.failing {
                Some((0, error)) => return Err((*error).into()),
                Some((calls, _)) => *calls -= 1,
                None => {}
            }
        }
        match state.faults.iter().position(|(at, _)| *at == call) {
            Some(index) => Err(state.faults.remove(index).1.into()),
            None => Ok(()),
        }
    }

    fn file(&self, content: Arc<Mutex<Content>>) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.clone(), content })
    }
}

impl Disk for MemDisk {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.state().locked.insert(dir.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), dir: dir.to_owned() }))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.fault(DiskCall::Create)?;
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.names.insert(path.to_owned(), Arc::clone(&content));
        state.renamed.push(Renamed::To(path.to_owned(), Arc::clone(&content)));
        drop(state);
        Ok(self.file(content))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.state().denied.contains(path) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let content = self.state().names.get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(content))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fault(DiskCall::Rename)?;
        let mut state = self.state();
        let content = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), Arc::clone(&content));
        state.renamed.push(Renamed::FromTo(from.to_owned(), to.to_owned(), content));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fault(DiskCall::Remove)?;
        let mut state = self.state();
        state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.renamed.push(Renamed::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fault(DiskCall::SyncDir)?;
        let mut state = self.state();
        let State { durable_names, renamed, .. } = &mut *state;
        for change in renamed.extract_if(.., |change| change.is_in(dir)) {
            change.apply(durable_names);
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let total_bytes = 1 << 40;
        Ok(Space { free_bytes: self.state().free_bytes.unwrap_or(total_bytes), total_bytes })
    }

    fn monotonic_us(&self) -> u64 {
        self.state().monotonic_us
    }

    fn random(&self) -> u64 {
        let mut state = self.state();
        state.random =
            state.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.random
    }
}

struct Lock {
    disk: MemDisk,
    dir: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.dir);
    }
}

struct MemFile {
    disk: MemDisk,
    content: Arc<Mutex<Content>>,
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.disk.fault(DiskCall::Write)?;
        let short = {
            let mut state = self.disk.state();
            state.writes += 1;
            state.short_write_bytes.take()
        };
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(short.unwrap_or(usize::MAX));
        lock(&self.content).write(&bytes, position as usize);
        Ok(bytes.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.fault(DiskCall::Read)?;
        let content = lock(&self.content);
        let rest = content.bytes.get(position as usize..).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        if self.disk.state().cold {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.read_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.disk.fault(DiskCall::Sync);
        let mut content = lock(&self.content);
        match fault {
            Ok(()) => content.sync(),
            Err(_) => content.fail_sync(),
        }
        fault
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.fault(DiskCall::Truncate)?;
        lock(&self.content).set_len(len as usize);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.fault(DiskCall::Preallocate)?;
        let mut content = lock(&self.content);
        let len = content.bytes.len().max(len as usize);
        content.set_len(len);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
