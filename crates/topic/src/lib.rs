//! MQTT topic names, topic filters and the subscription trie.
//!
//! A [`TopicName`] is what a message is published under, a [`TopicFilter`] what somebody subscribes to; neither can
//! hold an invalid value. A [`Trie`] finds everything whose filter matches a name. All rules are those of MQTT 5.0
//! section 4.7 (the same as 3.1.1's).
//!
//! There is no limit to the number of levels. Nothing here recurses over them, and a walk through the trie comes to each
//! node once at most: whoever bounds the nodes, by what filters cost those who keep them, bounds the work of a match.
//!
//! ```
//! use firehose_topic::{TopicFilter, TopicName, Trie};
//!
//! let mut trie = Trie::new();
//! trie.insert(&TopicFilter::new("gerrit/+/comment-added")?, "a bot");
//! trie.insert(&TopicFilter::new("gerrit/#")?, "an archive");
//!
//! let mut readers = Vec::new();
//! trie.for_each_match(TopicName::new("gerrit/nova/comment-added")?, |reader| readers.push(*reader));
//! readers.sort();
//! assert_eq!(readers, ["a bot", "an archive"]);
//! # Ok::<(), firehose_topic::TopicError>(())
//! ```

mod encode;
mod error;
mod filter;
mod name;
mod share;
mod trie;

pub use encode::encode_name;
pub use error::TopicError;
pub use filter::TopicFilter;
pub use name::TopicName;
pub use share::parse_share;
pub use trie::Trie;

/// The most bytes that a name or a filter may have (MQTT 5.0 section 1.5.4: a two-byte length).
pub const BYTES_MAX: usize = 65_535;
