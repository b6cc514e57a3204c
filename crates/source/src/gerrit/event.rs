//! The few members of a Gerrit event that its topic and attributes need.
//!
//! Accepts what Gerrit 2.4 to 3.13 wrote: numbers as integers or strings, the project as a string or as
//! `{"name": …}`, any member missing. Everything else is passed over unread; the line's bytes are the payload.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An event's members, borrowed from its line where they have no escapes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GerritEvent<'a> {
    /// `patchset-created`, or whatever a plugin calls its own.
    pub(super) kind: Cow<'a, str>,
    /// Empty if the event names no project.
    pub(super) project: Cow<'a, str>,
    pub(super) change: Option<Cow<'a, str>>,
    pub(super) patch_set: Option<Cow<'a, str>>,
    pub(super) reference: Option<Cow<'a, str>>,
    pub(super) created: Option<Timestamp>,
}

impl<'a> GerritEvent<'a> {
    /// Reads a line. None: it is no JSON object with a `type`.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let outer: Outer<'a> = serde_json::from_slice(line).ok()?;
        let kind = text(outer.kind)?;
        let change: Inner<'a> = inner(outer.change);
        let patch_set: Inner<'a> = inner(outer.patch_set);
        let ref_update: Inner<'a> = inner(outer.ref_update);
        // germqtt's order; it knew no projectName, and left the project empty where only that is given.
        let project = [outer.project, change.project, ref_update.project, outer.project_name]
            .into_iter()
            .find_map(project)
            .unwrap_or_default();
        Some(Self {
            kind,
            project,
            change: text(change.number),
            patch_set: text(patch_set.number),
            reference: [outer.ref_name, ref_update.ref_name, outer.reference].into_iter().find_map(text),
            created: text(outer.created).and_then(|t| Timestamp::from_second(t.parse().ok()?).ok()),
        })
    }
}

/// Members are kept raw, so that one of an unexpected type is as good as missing.
type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    project: Raw<'a>,
    #[serde(borrow, rename = "projectName")]
    project_name: Raw<'a>,
    #[serde(borrow)]
    change: Raw<'a>,
    #[serde(borrow, rename = "patchSet")]
    patch_set: Raw<'a>,
    #[serde(borrow, rename = "refUpdate")]
    ref_update: Raw<'a>,
    #[serde(borrow, rename = "refName")]
    ref_name: Raw<'a>,
    /// So the replication plugin calls it.
    #[serde(borrow, rename = "ref")]
    reference: Raw<'a>,
    #[serde(borrow, rename = "eventCreatedOn")]
    created: Raw<'a>,
}

/// What is needed of `change`, `patchSet` and `refUpdate`.
#[derive(Default, Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    project: Raw<'a>,
    #[serde(borrow)]
    number: Raw<'a>,
    #[serde(borrow, rename = "refName")]
    ref_name: Raw<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Raw<'a>,
}

fn inner<'a>(raw: Raw<'a>) -> Inner<'a> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// A string's text, or an integer's digits.
fn text<'a>(raw: Raw<'a>) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let json = raw?.get();
    if json.starts_with('"') {
        return serde_json::from_str(json).ok().map(|Text(text)| text);
    }
    json.bytes().all(|b| b.is_ascii_digit() || b == b'-').then_some(Cow::Borrowed(json))
}

/// A project's name, from a string or from `{"name": …}`.
fn project<'a>(raw: Raw<'a>) -> Option<Cow<'a, str>> {
    match raw?.get() {
        json if json.starts_with('{') => text(serde_json::from_str::<Named<'a>>(json).ok()?.name),
        json if json.starts_with('"') => text(raw),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> GerritEvent<'_> {
        GerritEvent::parse(line.as_bytes()).expect(line)
    }

    #[test]
    fn numbers_may_be_integers_or_strings() {
        for number in ["12", "\"12\""] {
            let line =
                format!(r#"{{"type":"t","change":{{"number":{number}}},"patchSet":{{"number":{number}}}}}"#);
            let event = parse(&line);
            assert_eq!((event.change.as_deref(), event.patch_set.as_deref()), (Some("12"), Some("12")));
        }
    }

    #[test]
    fn a_member_of_an_unexpected_type_is_as_good_as_missing() {
        let event = parse(
            r#"{"type":"t","project":7,"change":"x","patchSet":[1],"refUpdate":{"project":null,"refName":{}},"eventCreatedOn":"soon"}"#,
        );
        assert_eq!(event.project, "");
        assert_eq!((event.change, event.patch_set, event.reference, event.created), (None, None, None, None));
    }

    #[test]
    fn only_json_objects_with_a_type_are_events() {
        for line in ["", "x", "[]", "{}", "null", "{\"type\":{}}", "{\"type\":\"a\"", "{\"type\":\"a\"} x"] {
            assert_eq!(GerritEvent::parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(GerritEvent::parse(b"{\"type\":\"\xff\"}"), None);
    }

    #[test]
    fn escapes_are_read() {
        let event = parse(r#" { "type" : "a\u002db" , "project" : "gr\u00f6\u00dfe" } "#);
        assert_eq!((&*event.kind, &*event.project), ("a-b", "größe"));
    }
}
