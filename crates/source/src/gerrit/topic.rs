//! Where an event goes, and what travels beside it.

use firehose_topic::{TopicName, encode_name};

use super::event::GerritEvent;

/// `<base>/<project>/<type>`, as germqtt computed it, with names percent-encoded where a topic cannot hold them.
///
/// An event without a project has an empty level there. None: MQTT has no such topic (too long).
pub(super) fn topic(base: &str, event: &GerritEvent<'_>) -> Option<String> {
    let topic = format!("{base}/{}/{}", encode_name(&event.project), encode_name(&event.kind));
    TopicName::new(&topic).is_ok().then_some(topic)
}

/// CloudEvents 1.0 context attributes. There is no `id` yet: what identifies an event across doors is still to be fixed.
pub(super) fn attributes(source_uri: &str, event: &GerritEvent<'_>) -> Vec<(String, String)> {
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("type", format!("org.gerritcodereview.{}", event.kind)),
        ("source", source_uri.to_owned()),
    ];
    attributes.extend(subject(event).map(|subject| ("subject", subject)));
    attributes.extend(event.created.map(|created| ("time", created.to_string())));
    attributes.into_iter().map(|(name, value)| (name.to_owned(), for_everyone(value))).collect()
}

/// The value as every MQTT client takes it: percent-encodes control characters and noncharacters, with which MQTT lets a
/// receiver end the connection (mosquitto and its clients do; MQTT 5, section 1.5.4), and `%`, so that it can be undone.
fn for_everyone(value: String) -> String {
    let is_special = |char: char| {
        let code = u32::from(char);
        char == '%' || char.is_control() || code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code)
    };
    if !value.contains(is_special) {
        return value;
    }
    let mut encoded = String::with_capacity(value.len() + 16);
    for char in value.chars() {
        match is_special(char) {
            true => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    encoded.push_str(&format!("%{byte:02X}"));
                }
            }
            false => encoded.push(char),
        }
    }
    encoded
}

/// `<project>/<change>/<patch set>`, else `<project>/<ref>`, else `<project>`; none without a project.
fn subject(event: &GerritEvent<'_>) -> Option<String> {
    let project = &event.project;
    if project.is_empty() {
        return None;
    }
    Some(match (&event.change, &event.patch_set, &event.reference) {
        (Some(change), Some(patch_set), _) => format!("{project}/{change}/{patch_set}"),
        (_, _, Some(reference)) => format!("{project}/{reference}"),
        _ => project.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_of(line: &str) -> String {
        topic("gerrit", &GerritEvent::parse(line.as_bytes()).expect(line)).expect(line)
    }

    fn attributes_of(line: &str) -> Vec<(String, String)> {
        attributes("https://review.example.org/", &GerritEvent::parse(line.as_bytes()).expect(line))
    }

    #[test]
    fn the_project_is_sought_in_germqtts_order_and_then_in_project_name() {
        for (line, expected) in [
            (r#"{"type":"t","project":"a/b","change":{"project":"c"}}"#, "gerrit/a/b/t"),
            (r#"{"type":"t","project":{"name":"a/b"},"change":{"project":"c"}}"#, "gerrit/a/b/t"),
            (r#"{"type":"t","change":{"project":"c"},"refUpdate":{"project":"d"}}"#, "gerrit/c/t"),
            (r#"{"type":"t","refUpdate":{"project":"d"},"projectName":"e"}"#, "gerrit/d/t"),
            (r#"{"type":"project-created","projectName":"e"}"#, "gerrit/e/project-created"),
            (r#"{"type":"dropped-output","eventCreatedOn":1}"#, "gerrit//dropped-output"),
        ] {
            assert_eq!(topic_of(line), expected);
        }
    }

    #[test]
    fn names_that_a_topic_cannot_hold_are_percent_encoded() {
        assert_eq!(topic_of(r#"{"type":"t","project":"libs/libstdc++"}"#), "gerrit/libs/libstdc%2B%2B/t");
        assert_eq!(topic_of(r#"{"type":"t","project":"c#lib"}"#), "gerrit/c%23lib/t");
        assert_eq!(topic_of(r#"{"type":"t","project":"größe/a b\tc"}"#), "gerrit/größe/a b%09c/t");
        assert_eq!(topic_of(r#"{"type":"t","project":"a\u0000%"}"#), "gerrit/a%00%25/t");
    }

    #[test]
    fn an_event_that_no_topic_can_name_has_none() {
        let long = format!(r#"{{"type":"t","project":"{}"}}"#, "x".repeat(70_000));
        assert_eq!(topic("gerrit", &GerritEvent::parse(long.as_bytes()).unwrap()), None);
    }

    #[test]
    fn attributes_are_those_of_cloudevents() {
        let line = r#"{"type":"comment-added","project":"a/b","refName":"refs/heads/x","change":{"number":7},"patchSet":{"number":"2"},"eventCreatedOn":1795404491}"#;
        let expected = [
            ("specversion", "1.0"),
            ("type", "org.gerritcodereview.comment-added"),
            ("source", "https://review.example.org/"),
            ("subject", "a/b/7/2"),
            ("time", "2026-11-23T03:28:11Z"),
        ];
        assert_eq!(attributes_of(line), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_some_clients_hang_up_on_is_percent_encoded_in_attributes() {
        let line = r#"{"type":"t","project":"a\tb\u0000/\uffff+#ü%"}"#;
        let subject = attributes_of(line).into_iter().find(|(name, _)| name == "subject");
        assert_eq!(subject.unwrap().1, "a%09b%00/%EF%BF%BF+#ü%25");
    }

    #[test]
    fn the_subject_is_as_narrow_as_the_event_allows() {
        let subject = |line| {
            let event = GerritEvent::parse(str::as_bytes(line)).unwrap();
            subject(&event)
        };
        let line = r#"{"type":"t","refUpdate":{"project":"p","refName":"refs/heads/x"}}"#;
        assert_eq!(subject(line).as_deref(), Some("p/refs/heads/x"));
        assert_eq!(subject(r#"{"type":"t","projectName":"p"}"#).as_deref(), Some("p"));
        assert_eq!(subject(r#"{"type":"dropped-output"}"#), None);
    }
}
