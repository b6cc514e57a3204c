//! The disk of this machine, made slow.

use firehose_log::{Disk, File, RealDisk, Space};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How slow.
#[derive(Clone, Copy, Debug)]
pub struct Slowness {
    /// So long takes a write that is slow.
    pub write: Duration,
    /// One in so many is.
    pub one_in: u64,
    /// So long takes every `fdatasync`.
    pub sync: Duration,
}

/// The disk of this machine, made slow.
pub struct SlowDisk {
    disk: RealDisk,
    slowness: Slowness,
}

struct SlowFile {
    file: Arc<dyn File>,
    slowness: Slowness,
    writes: AtomicU64,
}

impl SlowDisk {
    pub fn new(slowness: Slowness) -> SlowDisk {
        SlowDisk { disk: RealDisk::new(), slowness }
    }

    fn slow(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(SlowFile { file, slowness: self.slowness, writes: AtomicU64::new(0) })
    }
}

impl Disk for SlowDisk {
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
        self.disk.create(path).map(|file| self.slow(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path).map(|file| self.slow(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
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

impl File for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        if writes % self.slowness.one_in == self.slowness.one_in - 1 {
            std::thread::sleep(self.slowness.write);
        }
        self.file.write_at(slices, position)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at_nowait(buf, position)
    }

    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        self.file.next_data(position)
    }

    /// Only slow: what this machine's disk would take on top says nothing about the roles.
    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(self.slowness.sync);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }
}
