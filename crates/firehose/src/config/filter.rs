//! A topic filter in the configuration.

use firehose_topic::TopicFilter;
use serde::{Deserialize, Serialize};

/// A valid topic filter, read from and shown as a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(pub TopicFilter);

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        TopicFilter::new(&text)
            .map(Filter)
            .map_err(|error| format!("{text:?} is not a topic filter: {error}"))
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        filter.0.as_str().to_owned()
    }
}
