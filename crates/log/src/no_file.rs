//! A file that is not there: where a segment has none that can be read, or none that can be written yet.

use std::io::{self, ErrorKind, IoSlice};

use crate::disk::File;

/// Reads as empty; has no room for anything.
pub(crate) struct NoFile;

impl File for NoFile {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn read_at_nowait(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::StorageFull.into())
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::StorageFull.into())
    }
}
