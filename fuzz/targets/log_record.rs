//! A record's body and the attributes in it: any bytes are read without a panic, and attributes that are read can be
//! written again.

use firehose_log::{Attribute, AttributesBuf, Record};

pub fn record(data: &[u8]) {
    let record = Record::from_body(data);
    let event = record.event();
    assert!(event.topic.len() + event.attributes.raw().len() + event.payload.len() <= data.len());
    assert!(record.topic_bytes().len() <= data.len() && record.origin().principal.len() <= data.len());
    attributes(event.attributes.raw());
    attributes(data);
}

fn attributes(data: &[u8]) {
    let read: Vec<Attribute<'_>> = firehose_log::Attributes::from_raw(data).iter().collect();
    let mut again = AttributesBuf::new();
    for attribute in &read {
        assert!(again.push(attribute), "what was read can be written");
    }
    assert_eq!(again.as_attributes().iter().collect::<Vec<_>>(), read);
    assert!(data.starts_with(again.as_attributes().raw()), "each has one form only");
}
