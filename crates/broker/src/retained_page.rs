//! A page of retained messages: copies, side by side, so that it keeps alive no more of the log than it shows.

use firehose_log::{Batch, Draft, Event, Offset, TooLarge};

/// See the module. The messages stand in the order of their topics.
#[derive(Debug)]
pub struct RetainedPage {
    batch: Batch,
    places: Vec<Place>,
    after: Option<Box<str>>,
}

/// Where a message of the page stands in the log.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: Offset,
    time_us: i64,
    epoch: u32,
}

/// A retained message.
#[derive(Clone, Copy, Debug)]
pub struct Retained<'a> {
    /// Where it stands in the log; 0: it is in no log.
    pub offset: Offset,
    /// When it was recorded, microseconds since 1970.
    pub time_us: i64,
    /// The epoch it is of.
    pub epoch: u32,
    /// What was published.
    pub event: Event<'a>,
    /// The session that published it.
    pub session: u64,
}

/// A page being made.
#[derive(Default)]
pub struct PageDraft {
    draft: Draft,
    places: Vec<Place>,
}

impl PageDraft {
    /// Adds the event at `offset`, which lies in `batch`.
    ///
    /// # Errors
    /// The page is as large as a page can be.
    pub fn push(&mut self, offset: Offset, batch: &Batch) -> Result<(), TooLarge> {
        let index = offset.saturating_sub(batch.base()) as usize;
        if index < batch.len() {
            let record = batch.record(index);
            let offset = if batch.is_logged() { offset } else { 0 };
            self.draft.push(&record.event(), &record.origin())?;
            self.places.push(Place { offset, time_us: batch.time_us(), epoch: batch.epoch() });
        }
        Ok(())
    }

    /// Bytes of all messages so far.
    pub fn bytes_len(&self) -> usize {
        self.draft.bytes_len()
    }

    /// The page; `after` is the last topic that was looked at, none: there are no more.
    pub fn finish(self, after: Option<Box<str>>) -> RetainedPage {
        RetainedPage { batch: Batch::unlogged(self.draft, 0, 0), places: self.places, after }
    }
}

impl RetainedPage {
    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = Retained<'_>> {
        self.places.iter().zip(self.batch.records()).map(|(place, (_, record))| Retained {
            offset: place.offset,
            time_us: place.time_us,
            epoch: place.epoch,
            event: record.event(),
            session: record.origin().session,
        })
    }

    /// The last topic that was looked at; none: there are no more.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The memory it takes.
    pub fn bytes_len(&self) -> usize {
        self.batch.bytes_len() + self.places.len() * size_of::<Place>()
    }
}
