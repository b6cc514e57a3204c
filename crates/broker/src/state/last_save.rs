//! Whether redb has found the last save of a file whole, or goes on from the one before it. redb
//! does not say so: its repair tells how far it is, and nothing at all where the header alone is damaged.

use crate::sync::{Mutex, lock};
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::io;
use std::sync::Arc;

/// What stands at the front of redb's file: flags, of which one says which of two slots the last save is, and in each
/// slot the number of its transaction. The tests of damaged last saves hold this against redb.
const HEADER_BYTES: usize = 320;
const FLAGS_AT: usize = 9;
const SLOTS_AT: [usize; 2] = [64, 192];
const NUMBER_IN_SLOT: usize = 104;

/// Opens a file, or makes one of an empty one, and says whether the last save that its header names did not count: it
/// is not whole, or the header itself is not.
///
/// # Errors
/// redb's own.
pub(super) fn open(
    builder: &Builder,
    backend: impl StorageBackend,
) -> Result<(Database, bool), DatabaseError> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let database = builder.create_with_backend(Watched { backend, seen: seen.clone() })?;
    let seen = lock(&seen);
    Ok((database, seen.before.zip(seen.now).is_some_and(|(before, now)| before.is_passed_over(now))))
}

#[derive(Copy, Clone, Debug)]
struct Header([u8; HEADER_BYTES]);

impl Header {
    /// Whether, as `now` shows, redb went on from another save than the last that this says.
    fn is_passed_over(&self, now: Header) -> bool {
        let [last, other] = self.numbers();
        // To open a file and look at all its pages takes one transaction.
        let went_on_from = now.numbers()[0].wrapping_sub(1);
        // A newer one was about to be named here, and all of it is there: as redb counts, the next or the one after. Two
        // saves of one number there are not: the number is damaged.
        let is_found = (0..=2).contains(&went_on_from.wrapping_sub(last));
        let is_new = last == 0;
        !is_new && (!is_found || last == other)
    }

    /// The numbers of what it says is the last save, and of the other one.
    fn numbers(&self) -> [u64; 2] {
        let number = |slot: usize| {
            let number = self.0[slot + NUMBER_IN_SLOT..].first_chunk();
            number.map_or(0, |number| u64::from_le_bytes(*number))
        };
        let [first, second] = SLOTS_AT.map(number);
        if self.0[FLAGS_AT] & 1 == 0 { [first, second] } else { [second, first] }
    }
}

/// What redb read and wrote of the header.
#[derive(Debug, Default)]
struct Seen {
    before: Option<Header>,
    now: Option<Header>,
}

/// A file whose header is looked at on its way.
#[derive(Debug)]
struct Watched<B> {
    backend: B,
    seen: Arc<Mutex<Seen>>,
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> Result<u64, io::Error> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.backend.read(offset, out)?;
        if offset == 0
            && let Some(header) = out.first_chunk()
        {
            lock(&self.seen).before.get_or_insert(Header(*header));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        if offset == 0
            && let Some(header) = data.first_chunk()
        {
            lock(&self.seen).now = Some(Header(*header));
        }
        self.backend.write(offset, data)
    }
}
