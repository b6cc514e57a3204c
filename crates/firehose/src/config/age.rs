//! Spans of time as people write them: `365d`, `12h`, `90s`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A span of whole seconds. In a file: an integer (seconds), or a string with one of the units `s m h d w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// The span, in seconds.
    pub secs: u64,
}

const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Age {
    /// A span of so many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Age { secs }
    }

    /// A span of so many days.
    pub const fn from_days(days: u64) -> Self {
        Age { secs: days * 86_400 }
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[number.len()..];
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, secs)| *secs);
        match (number.trim_end().parse::<u64>(), factor) {
            (Ok(count), Some(factor)) => count
                .checked_mul(factor)
                .map(Age::from_secs)
                .ok_or_else(|| format!("{text:?} is too long a span of time")),
            _ => Err(format!(
                "{text:?} is not a span of time: write a whole number with s, m, h, d or w, as in \"365d\" or \"90s\""
            )),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, secs): &&(&str, u64)| self.secs >= *secs && self.secs.is_multiple_of(*secs);
        match UNITS[1..].iter().find(fits) {
            Some((unit, secs)) => write!(f, "{}{unit}", self.secs / secs),
            None => write!(f, "{}s", self.secs),
        }
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AgeVisitor)
    }
}

struct AgeVisitor;

impl Visitor<'_> for AgeVisitor {
    type Value = Age;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a span of time such as \"365d\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Age, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, secs: i64) -> Result<Age, E> {
        u64::try_from(secs)
            .map(Age::from_secs)
            .map_err(|_| E::custom(format!("{secs} is not a span of time: it is below zero")))
    }

    fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Age, E> {
        Ok(Age::from_secs(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, secs) in
            [("365d", 31_536_000), ("12h", 43_200), ("90 s", 90), ("2w", 1_209_600), ("0s", 0)]
        {
            assert_eq!(text.parse(), Ok(Age { secs }), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for text in
            ["", "d", "12", "-1d", "1.5h", "12 hours", "1dd", "99999999999999999999d", "99999999999999999d"]
        {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_is_shown_as_it_would_be_read() {
        for secs in [0, 1, 59, 60, 3_600, 86_400, 31_536_000, 61] {
            let shown = Age { secs }.to_string();
            assert_eq!(shown.parse(), Ok(Age { secs }), "{shown}");
        }
    }
}
