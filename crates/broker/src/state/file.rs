//! The state file among its neighbours: made, set aside, written anew.

use crate::state::backend::Doubt;
use crate::state::store::{Meta, Store, StoreError};
use firehose_log::{Disk, File, Offset};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that were set aside and are kept; older ones are removed.
const SET_ASIDE_MAX: usize = 3;
/// Free bytes without which no transaction is begun, besides what it writes: a transaction that fails half way costs a
/// reopening, and reads go on without one.
const ROOM_BYTES: u64 = 1 << 20;

/// redb's page.
const PAGE_BYTES: u64 = 4096;
/// What the file is called that says that the state file is to be written anew.
const DOUBT: &str = "in-doubt";

/// Where the state file is.
///
/// After a write or a sync that failed, what is read of the file and what is on the disk may differ for ever. Such a file
/// is never written again, but read, and written anew into another one. That it is so has to outlive the process, not the
/// machine: with the power goes what differs. So a file beside it says it, which needs no sync.
pub(crate) struct StateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether nobody knows any more what the disk has of it.
    doubt: Doubt,
    /// With too little room on the disk it has had no free page of its own either.
    is_used_up: bool,
}

impl StateFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: &Path) -> StateFile {
        StateFile { disk, path: path.to_owned(), doubt: Doubt::default(), is_used_up: false }
    }

    /// Its path, as it is told.
    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Opens it; none if there is no such file. If nobody knows what the disk has of it, it is a view, to be written anew.
    pub(crate) fn open(&mut self, log_id: u64, head: Offset) -> Result<Option<(Store, Meta)>, StoreError> {
        let _ = self.disk.remove(&self.beside("new"));
        // What a start before this one renamed last may not be durable.
        let synced = self.disk.sync_dir(self.dir()).map_err(|error| unavailable(&error));
        let file = match self.disk.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return synced.map(|()| None),
            Err(error) => return Err(unavailable(&error)),
        };
        match synced {
            Ok(()) => {}
            Err(StoreError::Full(_)) => return self.view(file, log_id, head).map(Some),
            Err(error) => return Err(error),
        }
        if self.doubt.is_cast() || self.disk.open(&self.beside(DOUBT)).is_ok() {
            self.doubt.cast();
            return self.view(file, log_id, head).map(Some);
        }
        let len = self.len(&*file)?;
        if file.len().is_ok_and(|found| found != len) {
            // The power failed while it grew or shrank: every page that counts is there.
            file.truncate(len).map_err(|error| unavailable(&error))?;
        }
        self.doubt = Doubt::default();
        self.doubt.leave_mark(self.disk.clone(), self.beside(DOUBT));
        match Store::open(file.clone(), self.doubt.clone()) {
            Ok(store) => {
                let meta = check(&store, log_id, head)?;
                Ok(Some((store, meta)))
            }
            Err(StoreError::Full(_)) => self.view(file, log_id, head).map(Some),
            Err(error) => Err(error),
        }
    }

    fn view(&self, file: Arc<dyn File>, log_id: u64, head: Offset) -> Result<(Store, Meta), StoreError> {
        let len = self.len(&*file)?;
        let store = Store::view(file, len)?;
        let meta = check(&store, log_id, head)?;
        Ok((store, meta))
    }

    /// In whole pages.
    fn len(&self, file: &dyn File) -> Result<u64, StoreError> {
        match file.len().map_err(|error| unavailable(&error))? {
            0 => Err(StoreError::Damaged("it is empty".into())),
            // Its header takes a page.
            len @ 1..PAGE_BYTES => {
                Err(StoreError::Damaged(format!("it is cut short: only {len} bytes of it are left")))
            }
            len => Ok(len.next_multiple_of(PAGE_BYTES)),
        }
    }

    /// Makes a new one. It gets its name when it is whole.
    pub(crate) fn make(&mut self, meta: &Meta) -> Result<Store, StoreError> {
        self.replace(|store| store.begin(meta))
    }

    /// Writes it anew, without what has this offset (0: with all of it), and without the bytes of what is gone.
    pub(crate) fn rewrite(&mut self, store: &Store, without: Offset) -> Result<Store, StoreError> {
        if let Ok(len) = self.disk.open(&self.path).and_then(|file| file.len()) {
            self.check_room(usize::try_from(len).unwrap_or(usize::MAX), false)?;
        }
        self.replace(|new| store.copy_into(new, without))
    }

    fn replace(&mut self, fill: impl FnOnce(&Store) -> Result<(), StoreError>) -> Result<Store, StoreError> {
        let new = self.beside("new");
        let _ = self.disk.remove(&new);
        let file = self.disk.create(&new).map_err(|error| unavailable(&error))?;
        let doubt = Doubt::default();
        let store = Store::open(file, doubt.clone())?;
        fill(&store)?;
        doubt.leave_mark(self.disk.clone(), self.beside(DOUBT));
        let renamed = self.disk.rename(&new, &self.path).and_then(|()| self.disk.sync_dir(self.dir()));
        renamed.map_err(|error| unavailable(&error))?;
        self.doubt = doubt;
        let _ = self.disk.remove(&self.beside(DOUBT));
        Ok(store)
    }

    /// Renames it to `<name>.damaged-<n>`; gives that name.
    pub(crate) fn set_aside(&self) -> io::Result<String> {
        let mut numbers = self.set_aside_numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let to = self.beside(&format!("damaged-{number}"));
        self.disk.rename(&self.path, &to)?;
        self.disk.sync_dir(self.dir())?;
        numbers.push(number);
        let too_many = numbers.len().saturating_sub(SET_ASIDE_MAX);
        for old in numbers.drain(..too_many) {
            let _ = self.disk.remove(&self.beside(&format!("damaged-{old}")));
        }
        Ok(to.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Removes every file that was set aside.
    pub(crate) fn remove_set_aside(&self) -> Result<(), StoreError> {
        let removed = self.set_aside_numbers().and_then(|numbers| {
            for number in &numbers {
                self.disk.remove(&self.beside(&format!("damaged-{number}")))?;
            }
            if numbers.is_empty() { Ok(()) } else { self.disk.sync_dir(self.dir()) }
        });
        removed.map_err(|error| unavailable(&error))
    }

    /// Says no when a transaction of so many bytes would fill the disk. One that `brings_nothing_new` is tried all the
    /// same, until one has found no room: it takes the place of what was there before, in pages that the file has.
    pub(crate) fn check_room(&mut self, bytes: usize, brings_nothing_new: bool) -> Result<(), StoreError> {
        match self.shortage(bytes) {
            None => self.is_used_up = false,
            Some(_) if brings_nothing_new && !self.is_used_up => {}
            Some(why) => return Err(StoreError::NotTried(why)),
        }
        Ok(())
    }

    /// A transaction has found no room.
    pub(crate) fn used_up(&mut self) {
        self.is_used_up = true;
    }

    /// Why nothing new of so many bytes is taken, if the disk has no room for it.
    pub(crate) fn shortage(&self, bytes: usize) -> Option<String> {
        let space = self.disk.space(self.dir()).ok()?;
        let is_short = space.free_bytes < ROOM_BYTES + bytes as u64;
        is_short.then(|| format!("its disk has only {} bytes free", space.free_bytes))
    }

    /// Random bytes for the secret.
    pub(crate) fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.disk.random().to_le_bytes());
        }
        bytes
    }

    /// For measuring.
    pub(crate) fn monotonic_us(&self) -> u64 {
        self.disk.monotonic_us()
    }

    fn set_aside_numbers(&self) -> io::Result<Vec<u64>> {
        let prefix = format!("{}.damaged-", self.name());
        let names = self.disk.list(self.dir())?;
        let numbers = names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.path.with_file_name(format!("{}.{suffix}", self.name()))
    }
}

/// What stands at the front of it, if it is of this log.
fn check(store: &Store, log_id: u64, head: Offset) -> Result<Meta, StoreError> {
    let meta = store.meta()?;
    if meta.log_id != log_id {
        return Err(StoreError::Damaged("it belongs to another log".into()));
    }
    if meta.applied > head {
        let applied = meta.applied;
        let why = format!(
            "it holds up to event {applied}, but the log ends at {head}: events that were durable are gone, up to {applied} \
             at least; look at the disk"
        );
        return Err(StoreError::Damaged(why));
    }
    Ok(meta)
}

fn unavailable(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}
