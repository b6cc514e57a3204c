//! redb's storage over the log's file seam, so that the same fake disk carries log and state.

use firehose_log::File;
use redb::StorageBackend;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a sync or a write of a file has failed: what is on the disk is not what is read, whatever a later sync says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// See the type.
    pub(crate) fn is_cast(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
            self.0.store(true, Ordering::Release);
        }
        outcome
    }
}

/// A file as redb sees it.
pub(crate) struct Backend {
    pub file: Arc<dyn File>,
    pub doubt: Doubt,
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
        read_exact(&*self.file, offset, out)
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
        self.file.truncate(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.doubt.check()?;
        self.doubt.judge(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.doubt.check()?;
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
