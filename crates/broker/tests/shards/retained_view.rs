//! What is retained, found by reading the whole log: the slow way, which the tests compare with.

use firehose_broker::message::RetainedPage;
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
    let mut page = RetainedPage { events: Vec::new(), after: None };
    let mut bytes = 0;
    for (topic, (offset, batch)) in everything(read) {
        let seen = after.is_some_and(|after| *topic <= *after);
        if seen || offset > as_of || !filter.matches(TopicName::trusted(&topic)) {
            continue;
        }
        bytes += batch.record((offset - batch.base()) as usize).event().payload.len() + topic.len();
        page.events.push((offset, batch));
        if bytes >= bytes_max {
            page.after = Some(topic);
            break;
        }
    }
    page
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
