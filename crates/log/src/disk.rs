//! The disk, as the log sees it: the seam where a faulty or simulated one is put in.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

/// A disk: folders, files by name, free space, and what else must be the same in each run of a simulation.
pub trait Disk: Send + Sync {
    /// Takes the folder for this process; it is given back when the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Makes the folder and those above it, if they are not there.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in the folder, in any order; what is not UTF-8 is left out.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a new file, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing. Never waits for another process.
    ///
    /// # Errors
    /// [`NotAFile`] inside, for what is no regular file; else as the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in the same folder; a file that had this name is gone.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; who has it open can read on.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the folder's names durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Room on the folder's file system.
    ///
    /// # Errors
    /// As the system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// µs on a clock that only goes forward.
    fn monotonic_us(&self) -> u64;

    /// A random number: the log's id and salt.
    fn random(&self) -> u64;
}

/// An open file.
pub trait File: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether its length is 0.
    ///
    /// # Errors
    /// As the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes the slices one after the other at `position`, in one call; gives how many bytes were written.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Reads at `position`; gives how many bytes were read, 0 at the end.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Reads at `position` what is in memory.
    ///
    /// # Errors
    /// `WouldBlock` if the disk would have to be waited for.
    fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Where, at or after `position`, a byte stands that may not be zero; `None` if only zeros follow. A file that
    /// was preallocated need not be read to its end. The position itself is always a right answer.
    ///
    /// # Errors
    /// As the system says.
    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        Ok(Some(position))
    }

    /// Whether the system is to read more than it is asked for, as it does at first. What was preallocated and read so
    /// counts as data for [`File::next_data`].
    fn set_read_ahead(&self, _on: bool) {}

    /// Makes the bytes that were written durable.
    ///
    /// # Errors
    /// As the system says. What was not durable before may be lost from then on, whatever a later call says.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Takes `len` bytes on the disk ahead of need; they read as zeros.
    ///
    /// # Errors
    /// As the system says; `Unsupported` where the file system cannot.
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// What stands under a file's name and is no regular file: it says what it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotAFile(pub &'static str);

impl NotAFile {
    /// What this error of [`Disk::open`] says that there is instead of a file.
    pub(crate) fn of(error: &io::Error) -> Option<NotAFile> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl std::fmt::Display for NotAFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAFile {}

/// Room on a file system, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an ordinary process may still write.
    pub free_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

/// The operating system's disk.
#[derive(Debug)]
pub struct RealDisk {
    started: Instant,
}

impl RealDisk {
    /// The disk of this machine.
    pub fn new() -> RealDisk {
        RealDisk { started: Instant::now() }
    }
}

impl Default for RealDisk {
    fn default() -> RealDisk {
        RealDisk::new()
    }
}

impl Disk for RealDisk {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let folder = std::fs::File::open(dir)?;
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(folder))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_file(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        check_regular(path)?;
        open_file(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        // Without the system's random numbers two logs could share an id, but nothing else goes wrong.
        getrandom::u64().unwrap_or_else(|_| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
        })
    }
}

struct RealFile(std::fs::File);

/// Looks before it is opened: that alone can hang, or do something, with what is no file.
fn check_regular(path: &Path) -> io::Result<()> {
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            let why = "it is a link to a file that is not there: mount its disk, or remove the link";
            return Err(io::Error::other(why));
        }
        Err(error) => return Err(error),
    };
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "is a folder",
        kind if kind.is_fifo() => "is a pipe",
        kind if kind.is_socket() => "is a socket",
        _ => "is a device",
    };
    Err(io::Error::other(NotAFile(what)))
}

fn open_file(path: &Path, flags: OFlags) -> io::Result<Arc<dyn File>> {
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    Ok(Arc::new(RealFile(std::fs::File::from(file))))
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pwritev(&self.0, slices, position) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pread(&self.0, &mut *buf, position) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn read_at_nowait(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buf)], position, ReadWriteFlags::NOWAIT) {
            // A file system that cannot say what it has in memory counts as one that has nothing there.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INTR) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => Ok(other?),
        }
    }

    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(position)) {
            Ok(found) => Ok(Some(found.max(position))),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(_) => Ok(Some(position)),
        }
    }

    fn set_read_ahead(&self, on: bool) {
        let advice = if on { Advice::Normal } else { Advice::Random };
        // Without it a start takes longer, and nothing else is wrong.
        let _ = rustix::fs::fadvise(&self.0, 0, None, advice);
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, len)?)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len)?)
    }
}
