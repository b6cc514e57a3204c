//! Single events by their offsets: what is retained or in flight. Offsets that stand close together cost one read.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::{self, BATCH_HEADER_BYTES, Batch, BatchHeader, Piece};
use crate::disk::File;
use crate::engine::{Chunk, Fetched, ReadError, Wait, fetched};
use crate::event::Offset;
use crate::reader::{self, Located, is_gone, locate};
use crate::segment::{Segment, lock};
use crate::segment_header::SEGMENT_HEADER_BYTES;
use crate::shared::Shared;

/// Bytes of one read of the disk, unless a batch is larger: about what the index leaves to be looked through.
const READ_BYTES: usize = 64 << 10;

pub(crate) type Events = Vec<(Offset, Arc<Batch>)>;

/// As [`crate::Read::fetch`].
pub(crate) fn fetch(shared: &Shared, offsets: &[Offset], wait: Wait) -> Result<Fetched, ReadError> {
    let head = shared.head.load(Ordering::Acquire);
    let offsets = &offsets[..offsets.partition_point(|offset| *offset <= head)];
    let mut recent = Events::new();
    let older = {
        let tail = lock(&shared.tail);
        let first = tail.first().unwrap_or(Offset::MAX);
        let (older, newer) = offsets.split_at(offsets.partition_point(|offset| *offset < first));
        recent.extend(newer.iter().filter_map(|offset| fetched(*offset, tail.find(*offset)?)));
        older
    };
    let Some(mut events) = from_disk(shared, older, wait)? else { return Ok(Fetched::Blocked) };
    events.append(&mut recent);
    Ok(Fetched::Events(events))
}

/// `None`: the disk would have to be waited for.
fn from_disk(shared: &Shared, mut offsets: &[Offset], wait: Wait) -> Result<Option<Events>, ReadError> {
    let mut events = Events::with_capacity(offsets.len());
    while let Some(&offset) = offsets.first() {
        let (segment, last) = match locate(shared, offset) {
            Located::In(segment, last) => (segment, last),
            Located::Gap(oldest) => {
                let (gone, after) = offsets.split_at(offsets.partition_point(|offset| *offset < oldest));
                if !from_kept(shared, gone, wait, &mut events)? {
                    return Ok(None);
                }
                offsets = after;
                continue;
            }
        };
        let (here, after) = offsets.split_at(offsets.partition_point(|offset| *offset <= last));
        let before = events.len();
        match (Fetching { shared, segment: &segment, wait }).fetch(here, &mut events) {
            Ok(()) => offsets = after,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // It was deleted or written anew after it was looked up.
            Err(error) if error.kind() == ErrorKind::NotFound && is_gone(shared, &segment) => {
                events.truncate(before);
            }
            Err(error) => return Err(ReadError(format!("{}: {error}", segment.path.display()))),
        }
    }
    Ok(Some(events))
}

/// Whether the disk need not be waited for.
fn from_kept(
    shared: &Shared,
    offsets: &[Offset],
    wait: Wait,
    events: &mut Events,
) -> Result<bool, ReadError> {
    let Some(kept) = shared.kept() else { return Ok(true) };
    match kept.fetch(shared, offsets, wait, events) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(ReadError(format!("{}: {error}", kept.path.display()))),
    }
}

/// A fetch from one segment.
struct Fetching<'a> {
    shared: &'a Shared,
    segment: &'a Arc<Segment>,
    wait: Wait,
}

impl Fetching<'_> {
    fn fetch(&self, mut offsets: &[Offset], events: &mut Events) -> io::Result<()> {
        let (file, starts) = self.places(offsets)?;
        let mut starts = &starts[..];
        let mut pages = Pages::new(file, self.wait);
        let mut position = 0;
        while let (Some(&wanted), Some(&start)) = (offsets.first(), starts.first()) {
            position = start.max(position);
            let head = pages.get(position, BATCH_HEADER_BYTES)?;
            let header = BatchHeader::decode(head, self.shared.salt).filter(|header| header.base <= wanted);
            let Some(header) = header else {
                self.search(wanted, events)?;
                (offsets, starts) = (&offsets[1..], &starts[1..]);
                continue;
            };
            if header.last() >= wanted {
                let here = offsets.partition_point(|offset| *offset <= header.last());
                let bytes = pages.get(position, header.total_bytes())?;
                take(self.shared, bytes, &header, &offsets[..here], events);
                (offsets, starts) = (&offsets[here..], &starts[here..]);
            }
            position += header.total_bytes() as u64;
        }
        Ok(())
    }

    /// The file, and for each offset a position at or before its batch.
    fn places(&self, offsets: &[Offset]) -> io::Result<(Arc<dyn File>, Vec<u64>)> {
        let starts = |index: &crate::index::Index| {
            let start = |offset: &Offset| {
                index.place_of(*offset).map_or(SEGMENT_HEADER_BYTES as u64, |(_, position)| position)
            };
            offsets.iter().map(start).collect()
        };
        if let Some(places) = self.segment.look(|it| (Arc::clone(&it.file), starts(&it.index))) {
            return Ok(places);
        }
        let opened = match (self.shared.opened_lately(self.segment), self.wait) {
            (Some(opened), _) => opened,
            (None, Wait::No) => return Err(ErrorKind::WouldBlock.into()),
            (None, Wait::Yes) => self.shared.open(self.segment)?,
        };
        Ok((opened.file, starts(&opened.index)))
    }

    /// The slow way, behind damage.
    fn search(&self, wanted: Offset, events: &mut Events) -> io::Result<()> {
        match reader::read(self.shared, wanted, wanted, 1, self.wait) {
            Ok(Chunk::Batches(batches)) => {
                events.extend(batches.into_iter().next().and_then(|batch| fetched(wanted, batch)));
                Ok(())
            }
            Ok(Chunk::Blocked) => Err(ErrorKind::WouldBlock.into()),
            Ok(Chunk::Gap { .. } | Chunk::End) => Ok(()),
            Err(error) => Err(io::Error::other(error.0)),
        }
    }
}

/// Takes the wanted events of one batch from its bytes.
pub(crate) fn take(
    shared: &Shared,
    bytes: &[u8],
    header: &BatchHeader,
    wanted: &[Offset],
    events: &mut Events,
) {
    for piece in batch::split(bytes, header, shared.salt) {
        let run = match piece {
            Piece::Whole(run) => Arc::new(run),
            Piece::Bad(first, last) => {
                shared.found_damaged(first, last);
                continue;
            }
        };
        let from = wanted.partition_point(|offset| *offset < run.base());
        let inside = wanted[from..].iter().take_while(|offset| **offset <= run.last());
        events.extend(inside.filter_map(|offset| fetched(*offset, Arc::clone(&run))));
    }
}

/// A piece of a file in memory.
pub(crate) struct Pages {
    file: Arc<dyn File>,
    wait: Wait,
    start: u64,
    bytes: Vec<u8>,
}

impl Pages {
    pub(crate) fn new(file: Arc<dyn File>, wait: Wait) -> Pages {
        Pages { file, wait, start: 0, bytes: Vec::new() }
    }

    /// `len` bytes at `position`; fewer where the file ends. `WouldBlock` if the disk would have to be waited for.
    pub(crate) fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let inside = position >= self.start && position + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.fill(position, len)?;
        }
        let from = (position - self.start) as usize;
        let to = (from + len).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        self.start = position;
        self.bytes.clear();
        self.bytes.resize(len.max(READ_BYTES), 0);
        let mut done = 0;
        while done < self.bytes.len() {
            let (buf, at) = (&mut self.bytes[done..], position + done as u64);
            let read = match self.wait {
                Wait::Yes => self.file.read_at(buf, at),
                Wait::No => self.file.read_at_nowait(buf, at),
            };
            match read {
                Ok(0) => break,
                Ok(read) => done += read,
                // What is there may do.
                Err(error) if error.kind() == ErrorKind::WouldBlock && done >= len => break,
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(done);
        Ok(())
    }
}
