//! What was read or written of a file, page by page: a page that is another one when it is read again was changed by
//! the disk. redb looks at its checksums when it opens a file, and would panic at such a page later.

use std::io::{self, ErrorKind};
use std::ops::Range;

const PAGE_BYTES: u64 = 4096;

/// Checksums of pages, four bytes each; none of what was not seen whole.
#[derive(Debug, Default)]
pub(crate) struct Checked(Vec<Option<u32>>);

impl Checked {
    /// These bytes were read at `offset`.
    ///
    /// # Errors
    /// `InvalidData`: a page is not what it was.
    pub(crate) fn read(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (page, range) in whole(offset, bytes.len()) {
            let sum = crc32c::crc32c(&bytes[range]);
            if self.0.get(page).copied().flatten().is_some_and(|known| known != sum) {
                let why = format!("page {page} is not what was written there");
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            }
            self.put(page, Some(sum));
        }
        Ok(())
    }

    /// These bytes are going to be written at `offset`.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            self.put(page as usize, None);
        }
        for (page, range) in whole(offset, bytes.len()) {
            self.put(page, Some(crc32c::crc32c(&bytes[range])));
        }
    }

    /// The file has this length now.
    pub(crate) fn set_len(&mut self, len: u64) {
        self.0.truncate((len / PAGE_BYTES) as usize);
    }

    fn put(&mut self, page: usize, sum: Option<u32>) {
        if self.0.len() <= page && sum.is_some() {
            self.0.resize(page + 1, None);
        }
        if let Some(place) = self.0.get_mut(page) {
            *place = sum;
        }
    }
}

/// The pages of which all bytes are there, and where.
fn whole(offset: u64, len: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let end = offset + len as u64;
    (offset.div_ceil(PAGE_BYTES)..end / PAGE_BYTES).map(move |page| {
        let start = (page * PAGE_BYTES - offset) as usize;
        (page as usize, start..start + PAGE_BYTES as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_changed_is_found_and_one_that_was_written_is_not() {
        let mut checked = Checked::default();
        let mut bytes = vec![1; 3 * 4096];
        checked.read(0, &bytes).unwrap();
        checked.read(4096, &bytes[4096..8192]).unwrap();
        bytes[5000] ^= 4;
        assert!(checked.read(4096, &bytes[4096..8192]).is_err());
        assert!(checked.read(100, &bytes[100..5000]).is_ok(), "no page of that is whole");
        checked.write(4096, &bytes[4096..8192]);
        checked.read(0, &bytes).unwrap();
        bytes[10] = 9;
        checked.write(10, &[9]);
        checked.read(0, &bytes).unwrap();
        checked.set_len(8192);
        bytes[9000] = 7;
        checked.read(0, &bytes).unwrap();
    }
}
