//! Pages of retained messages: found in the state, read from the log.

use crate::action::Action;
use crate::message::Message;
use crate::retained_page::{PageDraft, RetainedPage};
use crate::state::reader::{StateReader, scan};
use firehose_log::{Batch, Fetched, Offset, Read, ReadError, Wait};
use firehose_topic::TopicFilter;
use std::collections::HashMap;
use std::sync::Arc;

/// Messages that are looked up at a time.
const STEP: usize = 128;
/// Messages that are read at first: their batches may be large.
const GROUP_FIRST: usize = 4;
/// About what the batches of messages that are read together take.
const FETCH_BYTES: usize = 512 << 10;
/// Steps that found nothing, after which a page is given as it is: others still follow.
const EMPTY_STEPS_MAX: usize = 4;

impl StateReader {
    /// Answers an [`Action::Retained`] whose `as_of` the view has reached; none for other actions. May wait for the disk.
    pub fn answer(&self, read: &dyn Read, question: Action) -> Option<Message> {
        let Action::Retained { scan, filter, after, as_of, bytes_max } = question else { return None };
        let page = self.page(read, &filter, after.as_deref(), as_of, bytes_max);
        Some(Message::Retained { scan, page })
    }

    /// A page of about `bytes_max` bytes: retained messages behind the topic `after` that match and are not newer than
    /// `as_of`. May wait for the disk.
    ///
    /// # Errors
    /// The state or the log cannot be read now.
    pub fn page(
        &self,
        read: &dyn Read,
        filter: &TopicFilter,
        after: Option<&str>,
        as_of: Offset,
        bytes_max: usize,
    ) -> Result<Arc<RetainedPage>, ReadError> {
        let key = self.0.pages.key(filter, after, as_of, bytes_max);
        if let Some(known) = self.0.pages.get(&key) {
            return Ok(known);
        }
        let page = Arc::new(self.read_page(read, filter, after, as_of, bytes_max)?);
        self.0.pages.put(key, page.clone());
        Ok(page)
    }

    fn read_page(
        &self,
        read: &dyn Read,
        filter: &TopicFilter,
        after: Option<&str>,
        as_of: Offset,
        bytes_max: usize,
    ) -> Result<RetainedPage, ReadError> {
        let store = self.store(as_of)?;
        let mut page = PageDraft::default();
        let mut after: Option<Box<str>> = after.map(Box::from);
        let mut empty_steps = 0;
        let mut group = GROUP_FIRST;
        loop {
            let found = scan(&store, filter, after.as_deref(), as_of, STEP)?;
            let mut entries = &found.entries[..];
            while !entries.is_empty() {
                let (now, later) = entries.split_at(group.min(entries.len()));
                let batches = fetch(read, now)?;
                for (index, (topic, offset)) in now.iter().enumerate() {
                    let Some(batch) = batches.get(offset) else { continue };
                    let full = page.push(*offset, batch).is_err() || page.bytes_len() >= bytes_max;
                    let is_last = index + 1 == now.len() && later.is_empty() && found.after.is_none();
                    if full && !is_last {
                        return Ok(page.finish(Some(topic.clone())));
                    }
                }
                entries = later;
                group = next_group(&batches);
            }
            empty_steps += usize::from(found.entries.is_empty());
            if found.after.is_none() || empty_steps == EMPTY_STEPS_MAX {
                return Ok(page.finish(found.after));
            }
            after = found.after;
        }
    }
}

/// How many messages to read next, so that the batches that hold them take about [`FETCH_BYTES`].
fn next_group(batches: &HashMap<Offset, Arc<Batch>>) -> usize {
    let distinct: HashMap<Offset, usize> =
        batches.values().map(|batch| (batch.base(), batch.bytes_len())).collect();
    let bytes: usize = distinct.values().sum();
    (FETCH_BYTES * batches.len() / bytes.max(1)).clamp(1, STEP)
}

fn fetch(read: &dyn Read, entries: &[(Box<str>, Offset)]) -> Result<HashMap<Offset, Arc<Batch>>, ReadError> {
    let mut offsets: Vec<Offset> = entries.iter().map(|(_, offset)| *offset).collect();
    offsets.sort_unstable();
    match read.fetch(&offsets, Wait::Yes)? {
        Fetched::Events(events) => Ok(events.into_iter().collect()),
        Fetched::Blocked => Err(ReadError("it would have to be waited for".into())),
    }
}
