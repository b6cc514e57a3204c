//! The tables of the state file, and their reading and writing.

use crate::arrival::Secret;
use crate::state::backend::{Backend, Doubt};
use crate::state::change::{Pending, Received, SessionChange, WillKey, without_offset};
use crate::state::last_save;
use crate::state::overlay::Overlay;
use crate::state::record::{
    GroupRecord, Life, SessionRecord, SubscriptionsRecord, WillRecord, decode, encode,
};
use crate::state::request::Resumed;
use crate::state::stored::Progress;
use firehose_log::{File, Offset};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
    WriteTransaction,
};
use std::sync::Arc;

/// The format of the state file; a file of another one is not read. Format 1 had no groups of shared subscriptions, and was
/// in no release.
const FORMAT: u64 = 2;
/// Bytes that redb keeps in memory.
const CACHE_BYTES: usize = 16 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const RETAINED: TableDefinition<'_, &str, u64> = TableDefinition::new("retained");
pub(crate) const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
const LIFE: TableDefinition<'_, u64, (u32, i64)> = TableDefinition::new("life");
const SUBSCRIPTIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("subscriptions");
pub(crate) const PROGRESS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("progress");
const RECEIVED: TableDefinition<'_, (u64, u16), u64> = TableDefinition::new("received");
pub(crate) const WILLS: TableDefinition<'_, (u64, u16), &[u8]> = TableDefinition::new("wills");

const GROUPS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("groups");

/// What went wrong with the state file.
#[derive(Clone, Debug)]
pub(crate) enum StoreError {
    /// It does not hold what a state file of this log holds. Says why.
    Damaged(String),
    /// It cannot be read or written now; it may be whole. Says why.
    Unavailable(String),
    /// The disk is full: a write failed.
    Full(String),
    /// Nothing was tried: the disk is as good as full, or the file has to be written anew first. It can be read.
    NotTried(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Damaged(why)
            | StoreError::Unavailable(why)
            | StoreError::Full(why)
            | StoreError::NotTried(why) => f.write_str(why),
        }
    }
}

/// What stands at the front of a state file.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// Which log it is a view of.
    pub log_id: u64,
    /// The offset up to which it holds.
    pub applied: Offset,
    /// How often it was saved.
    pub saves: u64,
    /// Keys the hashes of names.
    pub secret: Secret,
}

/// An open state file.
pub(crate) struct Store {
    database: Database,
    /// What is written is kept in memory, and the file is to be written anew.
    is_view: bool,
    /// The last save did not verify, and the one before it counts.
    went_back: bool,
}

impl Store {
    /// Opens a state file and checks every page of it; an empty file is made one by [`Store::begin`].
    pub(crate) fn open(file: Arc<dyn File>, doubt: Doubt) -> Result<Store, StoreError> {
        let (database, went_back) = open(Backend::new(file, doubt))?;
        Ok(Store { database, is_view: false, went_back })
    }

    /// Opens a state file of `len` bytes to be read, and leaves it as it is.
    pub(crate) fn view(file: Arc<dyn File>, len: u64) -> Result<Store, StoreError> {
        let overlay = Overlay::new(file, len).map_err(|error| classify(redb::Error::Io(error)))?;
        let (database, went_back) = open(overlay)?;
        Ok(Store { database, is_view: true, went_back })
    }

    /// Whether the last save did not verify, and what is read is that of the one before it: the power failed, or the
    /// process was killed, while it was written; or it is damaged.
    pub(crate) fn went_back(&self) -> bool {
        self.went_back
    }

    /// Whether it can be read only, and is to be written anew.
    pub(crate) fn is_view(&self) -> bool {
        self.is_view
    }

    /// Makes the tables of a new file.
    pub(crate) fn begin(&self, meta: &Meta) -> Result<(), StoreError> {
        let txn = self.database.begin_write()?;
        {
            let mut table = txn.open_table(META)?;
            table.insert("format", &FORMAT.to_le_bytes()[..])?;
            table.insert("log", &meta.log_id.to_le_bytes()[..])?;
            table.insert("applied", &meta.applied.to_le_bytes()[..])?;
            table.insert("saves", &meta.saves.to_le_bytes()[..])?;
            table.insert("secret", &meta.secret.bytes()[..])?;
        }
        txn.open_table(RETAINED)?;
        txn.open_table(SESSIONS)?;
        txn.open_table(LIFE)?;
        txn.open_table(SUBSCRIPTIONS)?;
        txn.open_table(PROGRESS)?;
        txn.open_table(RECEIVED)?;
        txn.open_table(WILLS)?;
        txn.open_table(GROUPS)?;
        Ok(txn.commit()?)
    }

    /// What stands at the front.
    pub(crate) fn meta(&self) -> Result<Meta, StoreError> {
        let txn = self.database.begin_read()?;
        let table = txn.open_table(META)?;
        let number = |key: &str| -> Result<u64, StoreError> {
            let value = table.get(key)?;
            let bytes = value.as_ref().and_then(|value| value.value().first_chunk::<8>().copied());
            bytes.map(u64::from_le_bytes).ok_or_else(|| damaged(format!("it does not say its {key}")))
        };
        let format = number("format")?;
        if format != FORMAT {
            let age = if format > FORMAT { "newer" } else { "older" };
            return Err(damaged(format!("its format {format} is {age} than this version's ({FORMAT})")));
        }
        for table in [SUBSCRIPTIONS, PROGRESS, SESSIONS, GROUPS] {
            txn.open_table(table)?;
        }
        txn.open_table(LIFE)?;
        txn.open_table(RETAINED)?;
        txn.open_table(RECEIVED)?;
        txn.open_table(WILLS)?;
        let secret = table.get("secret")?;
        let secret = secret.as_ref().and_then(|value| <[u8; 32]>::try_from(value.value()).ok());
        let secret = Secret::new(secret.ok_or_else(|| damaged("it does not say its secret".into()))?);
        // At first nobody counted them.
        let saves = if table.get("saves")?.is_some() { number("saves")? } else { 0 };
        Ok(Meta { log_id: number("log")?, applied: number("applied")?, saves, secret })
    }

    /// Writes all that waits, in one durable transaction: the save of that number.
    pub(crate) fn write(&self, pending: &Pending, applied: Offset, saves: u64) -> Result<(), StoreError> {
        let txn = self.database.begin_write()?;
        {
            let mut table = txn.open_table(RETAINED)?;
            for (topic, offset) in &pending.retained {
                match offset {
                    Some(offset) => drop(table.insert(&**topic, offset)?),
                    None => drop(table.remove(&**topic)?),
                }
            }
        }
        write_sessions(&txn, pending)?;
        {
            let mut table = txn.open_table(WILLS)?;
            for (key, will) in &pending.wills {
                put(&mut table, (key.session, key.serial), will.as_ref())?;
            }
            let mut table = txn.open_table(GROUPS)?;
            for (&hash, group) in &pending.groups {
                put(&mut table, hash, group.as_ref())?;
            }
            let mut table = txn.open_table(META)?;
            table.insert("applied", &applied.to_le_bytes()[..])?;
            table.insert("saves", &saves.to_le_bytes()[..])?;
        }
        Ok(txn.commit()?)
    }

    /// All sessions, by their hashes; none instead of what cannot be read.
    pub(crate) fn sessions(
        &self,
        mut each: impl FnMut(u64, Option<(SessionRecord, Life)>),
    ) -> Result<(), StoreError> {
        let txn = self.database.begin_read()?;
        let (table, lives) = (txn.open_table(SESSIONS)?, txn.open_table(LIFE)?);
        for entry in table.iter()? {
            let (hash, bytes) = entry?;
            let life = lives.get(hash.value())?.map(|life| Life::from_stored(life.value()));
            each(hash.value(), decode(bytes.value()).zip(life));
        }
        Ok(())
    }

    /// All wills; none instead of what cannot be read.
    pub(crate) fn wills(&self, mut each: impl FnMut(WillKey, Option<WillRecord>)) -> Result<(), StoreError> {
        let table = self.database.begin_read()?.open_table(WILLS)?;
        for entry in table.iter()? {
            let (key, bytes) = entry?;
            let (session, serial) = key.value();
            each(WillKey { session, serial }, decode(bytes.value()));
        }
        Ok(())
    }

    /// All groups of shared subscriptions; none instead of what cannot be read.
    pub(crate) fn groups(&self, mut each: impl FnMut(u64, Option<GroupRecord>)) -> Result<(), StoreError> {
        let table = self.database.begin_read()?.open_table(GROUPS)?;
        for entry in table.iter()? {
            let (hash, bytes) = entry?;
            each(hash.value(), decode(bytes.value()));
        }
        Ok(())
    }

    /// The subscriptions of a session, as they stand in the file.
    pub(crate) fn subscriptions(&self, hash: u64) -> Result<Option<SubscriptionsRecord>, StoreError> {
        Ok(read(&self.database.begin_read()?, SUBSCRIPTIONS, hash)?.flatten())
    }

    /// A will.
    pub(crate) fn will(&self, key: WillKey) -> Result<Option<WillRecord>, StoreError> {
        let table = self.database.begin_read()?.open_table(WILLS)?;
        let bytes = table.get((key.session, key.serial))?;
        Ok(bytes.and_then(|bytes| decode(bytes.value())))
    }

    /// What there is of a session, with what waits to be written of it. None: it cannot be read.
    pub(crate) fn session(
        &self,
        hash: u64,
        change: Option<&SessionChange>,
    ) -> Result<Option<(SessionRecord, Resumed)>, StoreError> {
        let txn = self.database.begin_read()?;
        let stored = change.is_none_or(|change| !change.wiped);
        let Some(mut resumed) = (if stored { read_session(&txn, hash)? } else { Some(Resumed::default()) })
        else {
            return Ok(None);
        };
        if let Some(change) = change {
            overlay(&mut resumed, change, &txn, hash)?;
        }
        let waiting = change.and_then(|change| change.record.clone());
        let record = match waiting {
            Some(record) => Some(record),
            None if stored => read(&txn, SESSIONS, hash)?.flatten(),
            None => None,
        };
        Ok(record.map(|record| (record, resumed)))
    }

    /// A snapshot to read from.
    pub(crate) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.database.begin_read()?)
    }

    /// Writes everything of this file into another, new one, except retained messages and messages in flight with the
    /// offset `without`.
    pub(crate) fn copy_into(&self, other: &Store, without: Offset) -> Result<(), StoreError> {
        let from = self.database.begin_read()?;
        let to = other.database.begin_write()?;
        copy(&from, &to, META, |_, value| Some(value.to_vec()))?;
        copy(&from, &to, SESSIONS, |_, value| Some(value.to_vec()))?;
        copy(&from, &to, SUBSCRIPTIONS, |_, value| Some(value.to_vec()))?;
        copy(&from, &to, GROUPS, |_, value| Some(value.to_vec()))?;
        copy(&from, &to, WILLS, |_, value| Some(value.to_vec()))?;
        copy(&from, &to, PROGRESS, |_, value| redacted(value, without))?;
        {
            let (from, mut to) = (from.open_table(RETAINED)?, to.open_table(RETAINED)?);
            for entry in from.iter()? {
                let (topic, offset) = entry?;
                if offset.value() != without {
                    to.insert(topic.value(), offset.value())?;
                }
            }
        }
        {
            let (from, mut to) = (from.open_table(LIFE)?, to.open_table(LIFE)?);
            for entry in from.iter()? {
                let (hash, life) = entry?;
                to.insert(hash.value(), life.value())?;
            }
        }
        {
            let (from, mut to) = (from.open_table(RECEIVED)?, to.open_table(RECEIVED)?);
            for entry in from.iter()? {
                let (key, offset) = entry?;
                to.insert(key.value(), offset.value())?;
            }
        }
        Ok(to.commit()?)
    }
}

/// Opens it, and says whether redb went back to the save before the last one.
fn open(backend: impl StorageBackend) -> Result<(Database, bool), StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(last_save::open(&builder, backend)?)
}

fn write_sessions(txn: &WriteTransaction, pending: &Pending) -> Result<(), StoreError> {
    let mut sessions = txn.open_table(SESSIONS)?;
    let mut lives = txn.open_table(LIFE)?;
    let mut subscriptions = txn.open_table(SUBSCRIPTIONS)?;
    let mut progress = txn.open_table(PROGRESS)?;
    let mut received = txn.open_table(RECEIVED)?;
    for (&hash, change) in &pending.sessions {
        if change.wiped {
            sessions.remove(hash)?;
            lives.remove(hash)?;
            subscriptions.remove(hash)?;
            progress.remove(hash)?;
            received.retain_in((hash, 0)..=(hash, u16::MAX), |_, _| false)?;
        }
        if change.record.is_some() {
            put(&mut sessions, hash, change.record.as_ref())?;
        }
        if let Some(life) = change.life {
            lives.insert(hash, life.to_stored())?;
        }
        if change.subscriptions.is_some() {
            put(&mut subscriptions, hash, change.subscriptions.as_ref())?;
        }
        if change.progress.is_some() {
            put(&mut progress, hash, change.progress.as_ref())?;
        }
        for (&packet_id, now) in &change.received {
            let key = (hash, packet_id);
            match *now {
                Received::At(offset) => drop(received.insert(key, offset)?),
                Received::ForgottenUpTo(head) => {
                    let released = received.get(key)?.is_some_and(|offset| offset.value() <= head);
                    if released {
                        received.remove(key)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn put<K: redb::Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    key: K::SelfType<'_>,
    record: Option<&impl serde::Serialize>,
) -> Result<(), StoreError> {
    match record {
        Some(record) => {
            let bytes = encode(record).map_err(damaged)?;
            table.insert(key, &bytes[..])?;
        }
        None => {
            table.remove(key)?;
        }
    }
    Ok(())
}

/// The record under a key: none if there is none, `Some(None)` if it cannot be read.
fn read<T: serde::de::DeserializeOwned>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, u64, &'static [u8]>,
    hash: u64,
) -> Result<Option<Option<T>>, StoreError> {
    let table = txn.open_table(table)?;
    let bytes = table.get(hash)?;
    Ok(bytes.map(|bytes| decode(bytes.value())))
}

fn read_session(txn: &ReadTransaction, hash: u64) -> Result<Option<Resumed>, StoreError> {
    let subscriptions: Option<Option<SubscriptionsRecord>> = read(txn, SUBSCRIPTIONS, hash)?;
    let progress: Option<Option<Progress>> = read(txn, PROGRESS, hash)?;
    if matches!(subscriptions, Some(None)) || matches!(progress, Some(None)) {
        return Ok(None);
    }
    let SubscriptionsRecord { cursors, subscriptions } = subscriptions.flatten().unwrap_or_default();
    let progress = progress.flatten().unwrap_or_default();
    let table = txn.open_table(RECEIVED)?;
    let mut received = Vec::new();
    for entry in table.range((hash, 0)..=(hash, u16::MAX))? {
        received.push(entry?.0.value().1);
    }
    Ok(Some(Resumed { cursors, subscriptions, progress, received }))
}

fn overlay(
    resumed: &mut Resumed,
    change: &SessionChange,
    txn: &ReadTransaction,
    hash: u64,
) -> Result<(), StoreError> {
    if let Some(record) = &change.subscriptions {
        resumed.cursors = record.cursors;
        resumed.subscriptions.clone_from(&record.subscriptions);
    }
    if let Some(progress) = &change.progress {
        resumed.progress.clone_from(progress);
    }
    let table = txn.open_table(RECEIVED)?;
    for (&packet_id, now) in &change.received {
        let stored = resumed.received.contains(&packet_id);
        match *now {
            Received::At(_) if !stored => resumed.received.push(packet_id),
            Received::ForgottenUpTo(head) if stored => {
                let offset = table.get((hash, packet_id))?;
                if offset.is_some_and(|offset| offset.value() <= head) {
                    resumed.received.retain(|id| *id != packet_id);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy<K: redb::Key + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    kept: impl Fn(K::SelfType<'_>, &[u8]) -> Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let (from, mut to) = (from.open_table(table)?, to.open_table(table)?);
    for entry in from.iter()? {
        let (key, value) = entry?;
        if let Some(value) = kept(key.value(), value.value()) {
            to.insert(key.value(), &value[..])?;
        }
    }
    Ok(())
}

/// A progress record in which nothing has this offset. One that cannot be read is left out.
fn redacted(bytes: &[u8], without: Offset) -> Option<Vec<u8>> {
    let mut progress: Progress = decode(bytes)?;
    if !without_offset(&mut progress, without) {
        return Some(bytes.to_vec());
    }
    encode(&progress).ok()
}

fn damaged(why: String) -> StoreError {
    StoreError::Damaged(why)
}

fn classify(error: redb::Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, QuotaExceeded, StorageFull, UnexpectedEof};
    let why = error.to_string();
    match error {
        redb::Error::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded) => StoreError::Full(why),
        redb::Error::Io(io) if !matches!(io.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
            StoreError::Unavailable(why)
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
            StoreError::Unavailable(why)
        }
        _ => StoreError::Damaged(why),
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> StoreError {
                classify(error.into())
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
