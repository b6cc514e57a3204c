//! A disk whose power fails at a chosen call.

#![allow(dead_code)]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firehose_log::{Disk, File, MemDisk, Space};

/// Changes nothing any more once so many changing calls were made.
#[derive(Clone)]
pub struct CutDisk {
    pub disk: MemDisk,
    left: Arc<AtomicU64>,
}

impl CutDisk {
    pub fn new(disk: MemDisk) -> CutDisk {
        CutDisk { disk, left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// The power fails at the changing call after so many more.
    pub fn cut_after(&self, calls: u64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    pub fn is_off(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn change(&self) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(io::Error::other("the power is off"));
        }
        self.left.store(left - 1, Ordering::SeqCst);
        Ok(())
    }

    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CutFile { disk: self.clone(), file })
    }
}

impl Disk for CutDisk {
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
        self.change()?;
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?;
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

struct CutFile {
    disk: CutDisk,
    file: Arc<dyn File>,
}

impl File for CutFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.disk.change()?;
        self.file.write_at(slices, position)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at_nowait(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change()?;
        self.file.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.truncate(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.preallocate(len)
    }
}
