//! redb's storage over the log's file seam, so that the same fake disk carries log and state.

use firehose_log::File;
use redb::StorageBackend;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// A file as redb sees it.
pub(crate) struct Backend(pub(crate) Arc<dyn File>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let mut read = 0;
        while read < out.len() {
            match self.0.read_at(&mut out[read..], offset + read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => read += bytes,
            }
        }
        Ok(())
    }

    /// What it grows by is taken on the disk at once: a write into it does not find the disk full later, when redb is in
    /// the middle of something, or repairs the file after a kill.
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if len > self.0.len()? {
            match self.0.preallocate(len) {
                Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
        }
        self.0.truncate(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut written = 0;
        while written < data.len() {
            match self.0.write_at(&[IoSlice::new(&data[written..])], offset + written as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                bytes => written += bytes,
            }
        }
        Ok(())
    }
}
