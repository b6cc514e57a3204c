//! Finds the line and the key that a place in a TOML text belongs to, and the place of a key.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One step of the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

/// The line, from 1, on which the byte stands.
pub fn line(text: &str, byte: usize) -> usize {
    1 + text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count()
}

/// The way to the deepest key or value that holds the byte; empty: none does.
pub fn steps_at(text: &str, byte: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Ok(document) = DeTable::parse(text) {
        walk_table(document.get_ref(), byte, &mut steps);
    }
    steps
}

/// The bytes of the value that the steps lead to.
pub fn span_of(text: &str, steps: &[Step]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let (first, rest) = steps.split_first()?;
    let Step::Key(key) = first else { return None };
    let mut value = document.get_ref().get(key.as_str())?;
    for step in rest {
        value = match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str())?,
            (Step::Index(index), DeValue::Array(array)) => array.get(*index)?,
            _ => return None,
        };
    }
    Some(value.span())
}

/// How many elements the array of tables has.
pub fn count(text: &str, key: &str) -> usize {
    let elements =
        DeTable::parse(text).ok().and_then(|document| match document.get_ref().get(key)?.get_ref() {
            DeValue::Array(array) => Some(array.len()),
            _ => None,
        });
    elements.unwrap_or(0)
}

/// The steps as people write them: `log.retention_age`, `listener[2].address` (elements counted from 1).
pub fn show(steps: &[Step]) -> String {
    let mut shown = String::new();
    for step in steps {
        match step {
            Step::Key(key) if shown.is_empty() => shown.push_str(key),
            Step::Key(key) => {
                shown.push('.');
                shown.push_str(key);
            }
            Step::Index(index) => shown.push_str(&format!("[{}]", index + 1)),
        }
    }
    shown
}

/// Whether the byte is in a key or a value of the table; if so, the way there is appended.
fn walk_table(table: &DeTable<'_>, byte: usize, steps: &mut Vec<Step>) -> bool {
    for (key, value) in table.iter() {
        steps.push(Step::Key(key.get_ref().to_string()));
        if key.span().contains(&byte)
            || walk_value(value.get_ref(), byte, steps)
            || value.span().contains(&byte)
        {
            return true;
        }
        steps.pop();
    }
    false
}

fn walk_value(value: &DeValue<'_>, byte: usize, steps: &mut Vec<Step>) -> bool {
    match value {
        DeValue::Table(table) => walk_table(table, byte, steps),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, element)| {
            steps.push(Step::Index(index));
            let found = walk_value(element.get_ref(), byte, steps) || element.span().contains(&byte);
            if !found {
                steps.pop();
            }
            found
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[log]\nretention_age = \"1d\"\n\n[[listener]]\nname = \"a\"\n[[listener]]\nname = \"b\"\ntls = { key = \"k\" }\n";

    #[test]
    fn a_place_is_named_by_its_keys() {
        for (at, shown, line_number) in [
            ("\"1d\"", "log.retention_age", 2),
            ("\"b\"", "listener[2].name", 7),
            ("\"k\"", "listener[2].tls.key", 8),
        ] {
            let byte = TEXT.find(at).expect("it stands there");
            assert_eq!(show(&steps_at(TEXT, byte)), shown);
            assert_eq!(line(TEXT, byte), line_number);
            assert_eq!(span_of(TEXT, &steps_at(TEXT, byte)).map(|span| span.start), Some(byte));
        }
    }

    #[test]
    fn elements_are_counted() {
        assert_eq!(count(TEXT, "listener"), 2);
        assert_eq!(count(TEXT, "source"), 0);
    }
}
