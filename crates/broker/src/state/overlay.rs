//! A file that redb may open, repair and read, and that stays as it is: what redb writes goes to memory, a few pages of
//! it. So a file of which nobody knows what the disk has is read without making it worse.

use crate::state::backend::read_exact;
use crate::sync::{Mutex, lock};
use firehose_log::File;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

const PAGE_BYTES: u64 = 4096;

/// See the module.
pub(crate) struct Overlay {
    file: Arc<dyn File>,
    changed: Mutex<Changed>,
}

struct Changed {
    len: u64,
    /// Of the file's own bytes so many count; what is above was cut off.
    file_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Over a file, as if that were `len` bytes long.
    ///
    /// # Errors
    /// It does not say its length.
    pub(crate) fn new(file: Arc<dyn File>, len: u64) -> io::Result<Overlay> {
        let file_len = file.len()?.min(len);
        let changed = Mutex::new(Changed { len, file_len, pages: BTreeMap::new() });
        Ok(Overlay { file, changed })
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overlay")
    }
}

impl Changed {
    /// A page as it stands: what is behind the file's end is zeros.
    fn page(&self, file: &dyn File, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(page) = self.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_BYTES as usize];
        let start = number * PAGE_BYTES;
        let len = self.file_len.saturating_sub(start).min(PAGE_BYTES);
        read_exact(file, start, &mut page[..len as usize])?;
        Ok(page.into())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(lock(&self.changed).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let changed = lock(&self.changed);
        let end = offset + out.len() as u64;
        if end > changed.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let is_changed = changed.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).next().is_some();
        if !is_changed && end <= changed.file_len {
            drop(changed);
            return read_exact(&*self.file, offset, out);
        }
        let mut at = offset;
        for (number, within) in pieces(offset, end) {
            let page = changed.page(&*self.file, number)?;
            let to = (at - offset) as usize;
            out[to..to + within.len()].copy_from_slice(&page[within.clone()]);
            at += within.len() as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut changed = lock(&self.changed);
        if len < changed.len {
            drop(changed.pages.split_off(&len.div_ceil(PAGE_BYTES)));
            if let Some(last) = changed.pages.get_mut(&(len / PAGE_BYTES)) {
                last[(len % PAGE_BYTES) as usize..].fill(0);
            }
        }
        changed.file_len = changed.file_len.min(len);
        changed.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut changed = lock(&self.changed);
        let mut rest = data;
        for (number, within) in pieces(offset, offset + data.len() as u64) {
            let mut page = changed.page(&*self.file, number)?;
            let (these, others) = rest.split_at(within.len());
            page[within].copy_from_slice(these);
            rest = others;
            changed.pages.insert(number, page);
        }
        changed.len = changed.len.max(offset + data.len() as u64);
        Ok(())
    }
}

/// The pages from `offset` to `end`, and which bytes of each.
fn pieces(offset: u64, end: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |number| {
        let start = number * PAGE_BYTES;
        let from = offset.saturating_sub(start) as usize;
        (number, from..(end - start).min(PAGE_BYTES) as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_log::{Disk, MemDisk};
    use proptest::prelude::*;
    use std::path::Path;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..20_000, proptest::collection::vec(any::<u8>(), 0..6_000))
                .prop_map(|(offset, bytes)| Step::Write(offset, bytes)),
            (0u64..30_000).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_as_a_file_that_was_written_and_the_file_below_stays_as_it_was(
            len in 0usize..20_000,
            steps in proptest::collection::vec(steps(), 0..12),
        ) {
            let (disk, path) = (MemDisk::new(), Path::new("/file"));
            let first: Vec<u8> = (0..len).map(|at| (at % 251) as u8 + 1).collect();
            disk.set_bytes(path, &first);
            let overlay = Overlay::new(disk.open(path).unwrap(), len as u64).unwrap();
            let mut model = first.clone();
            for step in steps {
                match step {
                    Step::Write(offset, bytes) => {
                        overlay.write(offset, &bytes).unwrap();
                        let end = offset as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&bytes);
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let from = model.len() / 3;
                let mut read = vec![0; model.len() - from];
                overlay.read(from as u64, &mut read).unwrap();
                prop_assert_eq!(&read[..], &model[from..]);
            }
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            prop_assert_eq!(disk.bytes(path).unwrap(), first);
        }
    }
}
