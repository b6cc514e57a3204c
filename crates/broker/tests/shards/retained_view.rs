//! What is retained, found by reading the whole log: the slow way, which the tests compare with.

use firehose_broker::retained_page::{PageDraft, RetainedPage};
use firehose_log::{Batch, Chunk, Kind, Offset, Read, Wait};
use firehose_topic::{TopicFilter, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A page of what is retained under a filter, behind the topic `after`.
pub fn page(
    read: &dyn Read,
    filter: &TopicFilter,
    after: Option<&str>,
    as_of: Offset,
    bytes_max: usize,
) -> RetainedPage {
    let mut page = PageDraft::default();
    for (topic, (offset, batch)) in everything(read) {
        let seen = after.is_some_and(|after| *topic <= *after);
        if seen || offset > as_of || !filter.matches(TopicName::trusted(&topic)) {
            continue;
        }
        page.push(offset, &batch).expect("fits");
        if page.bytes_len() >= bytes_max {
            return page.finish(Some(topic));
        }
    }
    page.finish(None)
}

fn everything(read: &dyn Read) -> BTreeMap<Box<str>, (Offset, Arc<Batch>)> {
    let mut found: BTreeMap<Box<str>, (Offset, Arc<Batch>)> = BTreeMap::new();
    let mut next = read.oldest();
    while next <= read.head() {
        let batches = match read.read(next, read.head(), usize::MAX, Wait::Yes) {
            Ok(Chunk::Batches(batches)) => batches,
            other => panic!("the log is not read: {other:?}"),
        };
        for batch in batches {
            for (offset, record) in batch.records().filter(|(_, record)| record.kind() == Kind::Event) {
                let event = record.event();
                if event.flags.retain() && event.payload.is_empty() {
                    found.remove(event.topic);
                } else if event.flags.retain() {
                    found.insert(event.topic.into(), (offset, batch.clone()));
                }
            }
            next = batch.last() + 1;
        }
    }
    found
}
