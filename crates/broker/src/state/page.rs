//! Pages of retained messages: found in the state, read from the log.

use crate::action::Action;
use crate::message::Message;
use crate::retained_page::{PageDraft, RetainedPage};
use crate::state::reader::StateReader;
use firehose_log::{Batch, Fetched, Offset, Read, ReadError, Wait};
use firehose_topic::TopicFilter;
use std::collections::HashMap;
use std::sync::Arc;

/// Messages that are looked up at a time.
const STEP: usize = 128;
/// Steps that found nothing, after which a page is given as it is: others still follow.
const EMPTY_STEPS_MAX: usize = 4;

impl StateReader {
    /// Answers an [`Action::Retained`] whose `as_of` the view has reached; none for other actions. May wait for the disk.
    pub fn answer(&self, read: &dyn Read, question: Action) -> Option<Message> {
        let Action::Retained { scan, filter, after, as_of, bytes_max } = question else { return None };
        let page = self.page(read, &filter, after.as_deref(), as_of, bytes_max);
        Some(Message::Retained { scan, page: page.map(Arc::new) })
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
    ) -> Result<RetainedPage, ReadError> {
        let mut page = PageDraft::default();
        let mut after: Option<Box<str>> = after.map(Box::from);
        let mut empty_steps = 0;
        loop {
            let found = self.retained(filter, after.as_deref(), as_of, STEP)?;
            let batches = fetch(read, found.entries.iter().map(|(_, offset)| *offset).collect())?;
            let count = found.entries.len();
            for (index, (topic, offset)) in found.entries.into_iter().enumerate() {
                let Some(batch) = batches.get(&offset) else { continue };
                let full = page.push(offset, batch).is_err() || page.bytes_len() >= bytes_max;
                if full && (index + 1 < count || found.after.is_some()) {
                    return Ok(page.finish(Some(topic)));
                }
            }
            empty_steps += usize::from(count == 0);
            if found.after.is_none() || empty_steps == EMPTY_STEPS_MAX {
                return Ok(page.finish(found.after));
            }
            after = found.after;
        }
    }
}

fn fetch(read: &dyn Read, mut offsets: Vec<Offset>) -> Result<HashMap<Offset, Arc<Batch>>, ReadError> {
    offsets.sort_unstable();
    match read.fetch(&offsets, Wait::Yes)? {
        Fetched::Events(events) => Ok(events.into_iter().collect()),
        Fetched::Blocked => Err(ReadError("it would have to be waited for".into())),
    }
}
