use std::{error::Error, fmt};

/// Why a topic name, a topic filter or a shared subscription is not one. Whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character (MQTT-4.7.3-1).
    Empty,
    /// It is longer than 65,535 bytes (MQTT-4.7.3-3).
    TooLong,
    /// It contains U+0000 (MQTT-4.7.3-2).
    Nul,
    /// It is not UTF-8 (MQTT-1.5.4-1).
    NotUtf8,
    /// A name contains `+` or `#` (MQTT-3.3.2-2).
    WildcardInName,
    /// A `#` is not the last character, or not alone in its level (MQTT-4.7.1-1).
    MisplacedHash,
    /// A `+` is not alone in its level (MQTT-4.7.1-2).
    MisplacedPlus,
    /// The group's name of a shared subscription is empty, or contains `+` or `#` (MQTT-4.8.2-1, MQTT-4.8.2-2).
    ShareName,
    /// A shared subscription has no filter after its group's name (MQTT-4.8.2-2).
    ShareFilter,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the topic is empty; it needs at least one character (MQTT-4.7.3-1)",
            Self::TooLong => "the topic is longer than 65535 bytes (MQTT-4.7.3-3)",
            Self::Nul => "the topic contains U+0000 (MQTT-4.7.3-2)",
            Self::NotUtf8 => "the topic is not UTF-8 (MQTT-1.5.4-1)",
            Self::WildcardInName => "the topic name contains + or #, which only filters may (MQTT-3.3.2-2)",
            Self::MisplacedHash => {
                "a # in the filter is not a whole level of its own at the end (MQTT-4.7.1-1)"
            }
            Self::MisplacedPlus => "a + in the filter is not a whole level of its own (MQTT-4.7.1-2)",
            Self::ShareName => {
                "the group's name in $share/<group>/<filter> is empty or contains + or # (MQTT-4.8.2-1)"
            }
            Self::ShareFilter => "the filter in $share/<group>/<filter> is missing (MQTT-4.8.2-2)",
        })
    }
}

impl Error for TopicError {}
