//! Events from a recording of the stream, for demonstrations and tests.

use bytes::Bytes;

use super::event::GerritEvent;
use super::topic;
use crate::sink::NewEvent;

/// The event that a recorded line makes, as the live source would publish it, and when Gerrit made it (seconds since
/// 1970), if it says so. None: the line is no event, or no topic can name it.
pub fn recorded_event(line: &[u8], base: &str, source_uri: &str) -> Option<(NewEvent, Option<i64>)> {
    let event = GerritEvent::parse(line)?;
    let created_secs = event.created.map(|created| created.as_second());
    let new = NewEvent {
        topic: topic::topic(base, &event)?,
        payload: Bytes::copy_from_slice(line),
        content_type: Some("application/json".to_owned()),
        attributes: topic::attributes(source_uri, &event),
        qos: 1,
        retain: false,
    };
    Some((new, created_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_line_is_published_as_it_would_be_live() {
        let line = br#"{"type":"ref-updated","eventCreatedOn":1795403974,"refUpdate":{"project":"a/b","refName":"r"}}"#;
        let (event, created_secs) =
            recorded_event(line, "gerrit", "https://review.example.org/").expect("an event");
        assert_eq!((event.topic.as_str(), created_secs), ("gerrit/a/b/ref-updated", Some(1_795_403_974)));
        assert_eq!(&event.payload[..], line);
        assert!(
            event
                .attributes
                .iter()
                .any(|(name, value)| name == "source" && value == "https://review.example.org/")
        );
    }

    #[test]
    fn a_line_that_is_no_event_makes_none() {
        for line in [&b""[..], b"{}", b"[1]", b"not json"] {
            assert!(recorded_event(line, "gerrit", "x").is_none());
        }
    }
}
