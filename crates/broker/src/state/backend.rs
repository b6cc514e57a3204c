//! redb's storage over the log's file seam, so that the same fake disk carries log and state.

use crate::state::checked::Checked;
use crate::sync::{Mutex, lock};
use firehose_log::{Disk, File};
use redb::StorageBackend;
use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Whether a sync or a write of a file has failed: what is on the disk is not what is read, whatever a later sync says.
///
/// redb also writes and syncs when it is dropped, where nobody hears of a failure. So it is the doubt itself that leaves
/// its mark for the next start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<Cast>);

#[derive(Default)]
struct Cast {
    is_cast: AtomicBool,
    mark: OnceLock<(Arc<dyn Disk>, PathBuf)>,
}

impl std::fmt::Debug for Cast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cast").field(&self.is_cast).finish()
    }
}

impl Doubt {
    /// From now on an empty file of this name is made when there is doubt.
    pub(crate) fn leave_mark(&self, disk: Arc<dyn Disk>, path: PathBuf) {
        let _ = self.0.mark.set((disk, path));
    }

    /// See the type.
    pub(crate) fn is_cast(&self) -> bool {
        self.0.is_cast.load(Ordering::Acquire)
    }

    /// From now on there is doubt.
    pub(crate) fn cast(&self) {
        self.0.is_cast.store(true, Ordering::Release);
        let Some((disk, mark)) = self.0.mark.get() else { return };
        // Once more, since nothing else stands between this and a file that a power cut damages after the next start.
        if disk.open(mark).is_err() && disk.create(mark).is_err() {
            let _ = disk.create(mark);
        }
    }

    /// Nothing is written any more once there is doubt: the last good state is not to be written over.
    fn check(&self) -> io::Result<()> {
        match self.is_cast() {
            true => Err(io::Error::other("an earlier write of the file failed")),
            false => Ok(()),
        }
    }

    fn judge<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.cast();
        }
        outcome
    }
}

/// A file as redb sees it.
pub(crate) struct Backend {
    file: Arc<dyn File>,
    doubt: Doubt,
    checked: Mutex<Checked>,
}

impl Backend {
    pub(crate) fn new(file: Arc<dyn File>, doubt: Doubt) -> Backend {
        Backend { file, doubt, checked: Mutex::default() }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        read_exact(&*self.file, offset, out)?;
        lock(&self.checked).read(offset, out)
    }

    /// What it grows by is taken on the disk at once: a write into it does not find the disk full later, when redb is in
    /// the middle of something, or repairs the file after a kill.
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.doubt.check()?;
        if len > self.file.len()? {
            match self.file.preallocate(len) {
                Err(error) if error.kind() != ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
        }
        self.file.truncate(len)?;
        lock(&self.checked).set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.doubt.check()?;
        self.doubt.judge(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.doubt.check()?;
        lock(&self.checked).write(offset, data);
        let mut written = 0;
        while written < data.len() {
            match self.file.write_at(&[IoSlice::new(&data[written..])], offset + written as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                // Nothing was written, and nothing was lost.
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    return Err(error);
                }
                Err(error) => return self.doubt.judge(Err(error)),
            }
        }
        Ok(())
    }
}

/// Fills `out`, or says that the file ends before.
pub(crate) fn read_exact(file: &dyn File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut read = 0;
    while read < out.len() {
        match file.read_at(&mut out[read..], offset + read as u64)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            bytes => read += bytes,
        }
    }
    Ok(())
}
