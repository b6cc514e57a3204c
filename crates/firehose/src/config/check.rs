//! Rules that concern more than one key of the configuration.

use std::collections::HashSet;

use firehose_topic::TopicName;

use super::Config;
use super::address::Address;
use super::load::{ConfigError, File};
use super::locate::{self, Step};

/// Checks a whole configuration; the files say where a key that breaks a rule stands.
pub fn check(config: &Config, files: &[File]) -> Result<(), ConfigError> {
    listeners(config, files)?;
    sources(config, files)?;
    if config.limits.inflight_max == 0 {
        return Err(error(files, "limits", None, "inflight_max", "must be at least 1"));
    }
    match config.limits.packet_bytes_max.0 {
        0..1024 => Err(error(files, "limits", None, "packet_bytes_max", "must be at least 1KiB")),
        1024..=268_435_460 => Ok(()),
        _ => Err(error(
            files,
            "limits",
            None,
            "packet_bytes_max",
            "must be at most 268435460, the largest of MQTT",
        )),
    }
}

fn listeners(config: &Config, files: &[File]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    let mut addresses = HashSet::new();
    for (index, listener) in config.listener.iter().enumerate() {
        if !names.insert(&listener.name) {
            let what =
                format!("another listener is named {:?} already: give each a name of its own", listener.name);
            return Err(error(files, "listener", Some(index), "name", &what));
        }
        let chosen_by_system = matches!(listener.address, Address::Tcp { port: 0, .. });
        if !addresses.insert(&listener.address) && !chosen_by_system {
            let what = format!("another listener has {} already", listener.address);
            return Err(error(files, "listener", Some(index), "address", &what));
        }
    }
    Ok(())
}

fn sources(config: &Config, files: &[File]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    for (index, source) in config.source.iter().enumerate() {
        let fail = |key: &str, what: &str| Err(error(files, "source", Some(index), key, what));
        if source.name.is_empty() || source.name.contains(['/', '+', '#', '\0']) {
            return fail("name", "a source's name is one level of a topic: not empty, without / + and #");
        }
        if !names.insert(&source.name) {
            return fail("name", "another source has this name already: give each a name of its own");
        }
        if let Some(topic) = &source.topic
            && (TopicName::new(topic).is_err() || topic.starts_with('$'))
        {
            return fail("topic", "not a topic name: it may not be empty, hold + or #, or begin with $");
        }
    }
    Ok(())
}

/// An error at a key of a table, or of the element of an array of tables; without the key in the file: at the element.
fn error(files: &[File], table: &str, element: Option<usize>, key: &str, what: &str) -> ConfigError {
    let mut steps = vec![Step::Key(table.to_owned())];
    let mut within = element;
    let mut place = String::from("configuration");
    for file in files {
        let mut here = steps.clone();
        if let Some(index) = within {
            let count = locate::count(&file.text, table);
            if index >= count {
                within = Some(index - count);
                continue;
            }
            here.push(Step::Index(index));
        }
        here.push(Step::Key(key.to_owned()));
        let span = locate::span_of(&file.text, &here).or_else(|| {
            here.pop();
            element.and(locate::span_of(&file.text, &here))
        });
        if let Some(span) = span {
            place = format!("{}:{}", file.path.display(), locate::line(&file.text, span.start));
            if element.is_some() {
                break;
            }
        }
    }
    steps.extend(element.map(Step::Index));
    steps.push(Step::Key(key.to_owned()));
    ConfigError { place, key: locate::show(&steps), what: what.to_owned() }
}
