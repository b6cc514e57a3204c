//! One page of history: a bounded walk over the log.
//!
//! A page ends when it has `limit` events or [`PAGE_BYTES_MAX`], when [`SCAN_BYTES_MAX`] of the log were looked at for it, or
//! when the walk came to its end (the head as it was when the request came, the `end`, or, downwards, the lower bound).
//! Unless it came to its end there is a next page, even if this one is short or empty: a filter that matches little is
//! searched on, page by page.

use std::ops::Range;
use std::sync::Arc;

use firehose_auth::{Auth, Identity};
use firehose_log::{
    Batch, Chunk, Cursor, Kind, Offset, Read, ReadError, Since, SinceError, Wait, write_json,
};
use firehose_topic::{TopicFilter, TopicName};

use crate::query::EventsQuery;

/// How large a page grows before it ends, in bytes of JSON; its last event may go beyond.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// How much of the log is looked at for one page, in bytes.
pub const SCAN_BYTES_MAX: usize = 16 << 20;
/// How much is asked of the log at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How many events a step downwards looks at first; doubled while they are small.
const WINDOW_EVENTS: u64 = 128;
/// How many events a step downwards looks at most.
const WINDOW_EVENTS_MAX: u64 = 8_192;

/// A page of events.
#[derive(Debug, Default)]
pub struct Page {
    /// The events as JSON, one after the other.
    json: Vec<u8>,
    /// Where in `json` each event is.
    events: Vec<Range<usize>>,
    /// Which they are.
    offsets: Vec<Offset>,
    /// The place after which the next page begins (downwards: before which); none: this was the last.
    pub next: Option<Cursor>,
    /// The place up to which a reader has seen everything, to go on from there later.
    pub position: Option<Cursor>,
    /// The newest event when the page was read.
    pub head: Option<Cursor>,
}

/// Why there is no page.
#[derive(Debug)]
pub enum ScanError {
    /// `since` or `before` cannot be answered.
    Since(SinceError),
    /// The events that should come first are gone; there is everything after this cursor.
    Gone(Cursor),
    /// The log could not be read.
    Read(ReadError),
}

impl From<ReadError> for ScanError {
    fn from(error: ReadError) -> Self {
        ScanError::Read(error)
    }
}

impl Page {
    /// How many events it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The offsets of its events, in its order.
    pub fn offsets(&self) -> &[Offset] {
        &self.offsets
    }

    /// The events as NDJSON.
    pub fn into_ndjson(self) -> Vec<u8> {
        self.join(b"", b"\n", b"\n")
    }

    /// The events as `{"events":[…]}`.
    pub fn into_json(self) -> Vec<u8> {
        self.join(b"{\"events\":[", b",", b"]}\n")
    }

    fn join(&self, before: &[u8], between: &[u8], after: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(before.len() + self.json.len() + self.events.len() + after.len());
        out.extend_from_slice(before);
        for (index, event) in self.events.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(between);
            }
            out.extend_from_slice(&self.json[event.clone()]);
        }
        if !(before.is_empty() && self.events.is_empty()) {
            out.extend_from_slice(after);
        }
        out
    }
}

/// Reads one page for this reader. Waits for the disk: not for an async thread.
pub fn page(
    log: &dyn Read,
    query: &EventsQuery,
    rules: &Auth,
    reader: &Identity,
    now_us: i64,
) -> Result<Page, ScanError> {
    let head = log.head();
    let start = log.resolve(&query.since, now_us).map_err(ScanError::Since)?;
    let asked_for_place = matches!(query.since, Since::After(_));
    if start.gap.is_some() && asked_for_place && !query.continue_on_gap {
        return Err(ScanError::Gone(cursor_at(log, log.oldest().saturating_sub(1), now_us)?));
    }
    let mut last = head;
    if let Some(end_us) = query.end_us {
        last = last.min(log.seek_time(end_us.saturating_add(1))?.saturating_sub(1));
    }
    if let Some(before) = query.before {
        let place = log.resolve(&Since::After(before), now_us).map_err(ScanError::Since)?;
        // `next` is one after the cursor's event, and that event itself is not wanted
        last = last.min(place.next.saturating_sub(2));
    }
    let scan = Scan { log, query, rules, reader, now_us, page: Page::default(), looked_at: 0 };
    let mut page = match query.descending {
        false => scan.up(start.next, last)?,
        true => scan.down(start.next, last)?,
    };
    let head = cursor_at(log, head, now_us)?;
    page.head = Some(head);
    // what was read downwards, or up to an end, says nothing about where a reader stands: the head does
    page.position = page.position.or(Some(head));
    Ok(page)
}

/// The cursor after the event at this offset; of one that is gone, its time is taken as now.
pub fn cursor_at(log: &dyn Read, offset: Offset, now_us: i64) -> Result<Cursor, ReadError> {
    let time_us = match log.read(offset, offset, 1, Wait::Yes) {
        Ok(Chunk::Batches(batches)) => batches.first().map_or(now_us, |batch| batch.time_us()),
        Ok(_) => now_us,
        Err(error) => return Err(error),
    };
    Ok(log.cursor(offset, time_us))
}

struct Scan<'a> {
    log: &'a dyn Read,
    query: &'a EventsQuery,
    rules: &'a Auth,
    reader: &'a Identity,
    now_us: i64,
    page: Page,
    looked_at: usize,
}

impl Scan<'_> {
    /// From the oldest wanted to the newest.
    fn up(mut self, first: Offset, last: Offset) -> Result<Page, ScanError> {
        let mut next = first;
        while next <= last {
            let batches = match self.log.read(next, last, CHUNK_BYTES, Wait::Yes)? {
                Chunk::Batches(batches) => batches,
                Chunk::Gap { next: beyond, .. } if self.query.continue_on_gap => {
                    next = beyond.max(next + 1);
                    continue;
                }
                Chunk::Gap { next: beyond, .. } => return self.stop_before_gap(next, first, beyond, last),
                Chunk::Blocked | Chunk::End => break,
            };
            for batch in batches {
                self.looked_at += batch.bytes_len();
                for offset in batch.base().max(next)..=batch.last().min(last) {
                    self.take(&batch, offset);
                    if self.is_full() {
                        return Ok(self.stopped_at(&batch, offset, last));
                    }
                }
                next = next.max(batch.last().saturating_add(1));
                if self.looked_at >= SCAN_BYTES_MAX {
                    let offset = batch.last().min(last);
                    return Ok(self.stopped_at(&batch, offset, last));
                }
            }
        }
        Ok(self.page)
    }

    /// Events are gone in the midst of the walk (damage, or retention that overtook it): they are told by the page that
    /// begins with them. This one ends before them.
    fn stop_before_gap(
        mut self,
        next: Offset,
        first: Offset,
        beyond: Offset,
        last: Offset,
    ) -> Result<Page, ScanError> {
        let has_place = matches!(self.query.since, Since::After(_));
        if next == first && has_place {
            return Err(ScanError::Gone(cursor_at(self.log, beyond.saturating_sub(1), self.now_us)?));
        }
        if next == first {
            // a time or `earliest` never claimed that everything is there
            return Scan { page: Page::default(), ..self }.up(beyond.max(next + 1), last);
        }
        let here = cursor_at(self.log, next.saturating_sub(1), self.now_us)?;
        self.page.next = Some(here);
        self.page.position = Some(here);
        Ok(self.page)
    }

    /// The page is over at this event; there is another one if more was wanted.
    fn stopped_at(mut self, batch: &Batch, offset: Offset, last: Offset) -> Page {
        let here = self.log.cursor(offset, batch.time_us());
        if offset < last {
            self.page.next = Some(here);
            self.page.position = Some(here);
        }
        self.page
    }

    /// From the newest wanted to the oldest, in steps that are read upwards and taken downwards.
    fn down(mut self, first: Offset, last: Offset) -> Result<Page, ScanError> {
        let first = first.max(self.log.oldest());
        let mut window = WINDOW_EVENTS;
        let mut above = last.saturating_add(1);
        while above > first {
            let from = above.saturating_sub(window).max(first);
            let Some(batches) = self.collect(from, above - 1)? else {
                window /= 2;
                continue;
            };
            let bytes: usize = batches.iter().map(|batch| batch.bytes_len()).sum();
            self.looked_at += bytes;
            for batch in batches.iter().rev() {
                for offset in (batch.base().max(from)..=batch.last().min(above - 1)).rev() {
                    self.take(batch, offset);
                    if self.is_full() {
                        if offset > first {
                            self.page.next = Some(self.log.cursor(offset, batch.time_us()));
                        }
                        return Ok(self.page);
                    }
                }
            }
            above = from;
            if self.looked_at >= SCAN_BYTES_MAX && above > first {
                self.page.next = Some(cursor_at(self.log, above, self.now_us)?);
                return Ok(self.page);
            }
            if bytes < CHUNK_BYTES {
                window = (window * 2).min(WINDOW_EVENTS_MAX);
            }
        }
        Ok(self.page)
    }

    /// All batches of the range; none: they are too much for one step.
    fn collect(&self, from: Offset, upto: Offset) -> Result<Option<Vec<Arc<Batch>>>, ScanError> {
        let mut collected = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= upto {
            match self.log.read(next, upto, CHUNK_BYTES, Wait::Yes)? {
                Chunk::Batches(batches) => {
                    bytes += batches.iter().map(|batch| batch.bytes_len()).sum::<usize>();
                    next = batches.last().map_or(upto, |batch| batch.last()).saturating_add(1).max(next + 1);
                    collected.extend(batches);
                }
                Chunk::Gap { next: beyond, .. } => next = beyond.max(next + 1),
                Chunk::Blocked | Chunk::End => break,
            }
            if bytes > SCAN_BYTES_MAX && from < upto {
                return Ok(None);
            }
        }
        Ok(Some(collected))
    }

    /// Puts the event on the page, if it is one that is asked for and may be read.
    fn take(&mut self, batch: &Batch, offset: Offset) {
        let Some(index) = offset.checked_sub(batch.base()).and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        let record = batch.record(index);
        if record.kind() != Kind::Event {
            return;
        }
        let event = record.event();
        let topic = TopicName::trusted(event.topic);
        if !wanted(&self.query.topics, topic) || !self.rules.may_read(self.reader, "", topic) {
            return;
        }
        let begin = self.page.json.len();
        let cursor = self.log.cursor(offset, batch.time_us());
        write_json(&mut self.page.json, &cursor, batch.time_us(), &event);
        self.page.events.push(begin..self.page.json.len());
        self.page.offsets.push(offset);
    }

    fn is_full(&self) -> bool {
        self.page.events.len() >= self.query.limit || self.page.json.len() >= PAGE_BYTES_MAX
    }
}

fn wanted(filters: &[TopicFilter], topic: TopicName<'_>) -> bool {
    filters.iter().any(|filter| filter.matches(topic))
}
