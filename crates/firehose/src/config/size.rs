//! Sizes in bytes as people write them: `20GiB`, `256 MiB`, `1000000`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes. In a file: an integer, or a string with a unit of 1,000 (`kB MB GB TB`) or of 1,024 (`KiB MiB GiB TiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[number.len()..];
        let factor = match unit {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        let count = number.trim_end().parse::<u64>().ok();
        match (count, factor) {
            (Some(count), Some(factor)) => {
                count.checked_mul(factor).map(Size).ok_or_else(|| format!("{text:?} is more than 16 EiB"))
            }
            _ => Err(format!(
                "{text:?} is not a size: write a whole number of bytes, or one with a unit, as in \"256MiB\" or \"20GiB\""
            )),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &UNITS[..4];
        match binary.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"256MiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Size, E> {
        u64::try_from(count)
            .map(Size)
            .map_err(|_| E::custom(format!("{count} is not a size: it is below zero")))
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Size, E> {
        Ok(Size(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("20GiB", 20 << 30), ("256 MiB", 256 << 20), ("3kB", 3000)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5GiB", "20gib", "20 G", "99999999999999999999", "20000000TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_would_be_read() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 20 << 30, 1_000_000] {
            let shown = Size(bytes).to_string();
            assert_eq!(shown.parse(), Ok(Size(bytes)), "{shown}");
        }
    }
}
