//! A disk in memory, for tests: it can fail, write short, lie about room, and forget what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, File, Space};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// What a call to the disk does, for [`MemDisk::fail`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// [`File::write_at`].
    Write,
    /// [`File::sync_data`].
    Sync,
    /// [`File::truncate`].
    Truncate,
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`File::read_at`] and [`File::read_at_nowait`].
    Read,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    durable_names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    locked: BTreeSet<PathBuf>,
    faults: Vec<(DiskCall, ErrorKind)>,
    short_write_bytes: Option<usize>,
    cold: bool,
    free_bytes: Option<u64>,
    monotonic_us: u64,
    random: u64,
    writes: u64,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
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

    /// Takes back every failure that was asked for and has not come yet.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
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
        let mut state = self.state();
        state.names = state.durable_names.clone();
        state.locked.clear();
        for content in state.names.values() {
            let mut content = lock(content);
            content.bytes = content.durable.clone();
        }
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
        let content = Content { bytes: bytes.to_vec(), durable: bytes.to_vec() };
        let content = Arc::new(Mutex::new(content));
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
        drop(state);
        Ok(self.file(content))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let content = self.state().names.get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(content))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fault(DiskCall::Rename)?;
        let mut state = self.state();
        let content = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().names.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.fault(DiskCall::SyncDir)?;
        let mut state = self.state();
        state.durable_names = state.names.clone();
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
        let mut content = lock(&self.content);
        let (start, end) = (position as usize, position as usize + bytes.len());
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(&bytes);
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
        self.disk.fault(DiskCall::Sync)?;
        let mut content = lock(&self.content);
        content.durable = content.bytes.clone();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.fault(DiskCall::Truncate)?;
        lock(&self.content).bytes.resize(len as usize, 0);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut content = lock(&self.content);
        if content.bytes.len() < len as usize {
            content.bytes.resize(len as usize, 0);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
