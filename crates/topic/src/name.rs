use std::fmt;

use crate::{BYTES_MAX, TopicError};

/// The name that a message is published under: valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Takes a name as it stands: not empty, at most [`BYTES_MAX`] bytes, without U+0000, `+` and `#` (MQTT 5.0
    /// sections 3.3.2.1 and 4.7). It may have as many levels as fit.
    pub fn new(name: &'a str) -> Result<Self, TopicError> {
        check(name.as_bytes())?;
        Ok(Self(name))
    }

    /// The same from bytes, which must be UTF-8.
    pub fn from_bytes(name: &'a [u8]) -> Result<Self, TopicError> {
        check(name)?;
        match std::str::from_utf8(name) {
            Ok(name) => Ok(Self(name)),
            Err(_) => Err(TopicError::NotUtf8),
        }
    }

    /// Takes a name that [`TopicName::new`] has accepted before (one that comes from the log, say) without looking
    /// at it again. An invalid name does no harm to memory: it only matches filters in ways that MQTT does not know.
    pub fn trusted(name: &'a str) -> Self {
        Self(name)
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The parts between the slashes, in order; some may be empty.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether it begins with `$`, so that no filter that begins with a wildcard matches it (MQTT-4.7.2-1).
    pub fn is_dollar(self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AsRef<str> for TopicName<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

/// Which rule was broken is looked for only when one was.
#[inline]
fn check(name: &[u8]) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if has_forbidden(name) {
        return Err(if name.contains(&0) { TopicError::Nul } else { TopicError::WildcardInName });
    }
    Ok(())
}

/// Whether there is a U+0000, `+` or `#`: eight bytes at a time, the last eight perhaps twice.
#[inline]
fn has_forbidden(name: &[u8]) -> bool {
    let Some(last) = name.last_chunk::<8>() else {
        return name.iter().any(|byte| matches!(byte, 0 | b'+' | b'#'));
    };
    let (words, _) = name.as_chunks::<8>();
    words.iter().chain([last]).fold(0, |found, word| found | forbidden_bytes(u64::from_ne_bytes(*word))) != 0
}

/// Not zero when one of the eight bytes is forbidden. `#` and `+` differ in the bit 0x08 only.
#[inline]
fn forbidden_bytes(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let zeros = |word: u64| word.wrapping_sub(EACH) & !word & (EACH * 0x80);
    zeros(word) | zeros((word & !(EACH * 0x08)) ^ (EACH * b'#' as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_specification_are_taken() {
        for name in ["a", "/", "/finance", "sport/tennis/", "a//b", " ", "Ünï/çødé", "$SYS/x", "\u{feff}a"]
        {
            assert_eq!(TopicName::new(name).unwrap().as_str(), name);
            assert_eq!(TopicName::from_bytes(name.as_bytes()).unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_broken_rule_is_told() {
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a\0b"), Err(TopicError::Nul));
        assert_eq!(TopicName::new("a/+/b"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a#"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new(&"x".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(TopicName::from_bytes(b"a\xed\xa0\x80"), Err(TopicError::NotUtf8));
        assert_eq!(TopicName::from_bytes(b"\xc0\x80"), Err(TopicError::NotUtf8));
    }

    #[test]
    fn forbidden_bytes_are_found_at_every_place_and_no_other_byte_is_forbidden() {
        for len in 1..30 {
            for at in 0..len {
                for byte in 0..=255_u8 {
                    let mut name = vec![b'x'; len];
                    name[at] = byte;
                    assert_eq!(
                        has_forbidden(&name),
                        matches!(byte, 0 | b'+' | b'#'),
                        "{byte} at {at} of {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_name_has_at_most_65535_bytes_and_as_many_levels_as_fit() {
        for character in ["x", "/"] {
            assert!(TopicName::new(&character.repeat(65_535)).is_ok());
            assert_eq!(TopicName::new(&character.repeat(65_536)), Err(TopicError::TooLong));
        }
    }

    #[test]
    fn levels_keep_the_empty_ones() {
        assert_eq!(TopicName::new("/a//").unwrap().levels().collect::<Vec<_>>(), ["", "a", "", ""]);
        assert!(TopicName::new("$SYS").unwrap().is_dollar());
        assert!(!TopicName::new("/$SYS").unwrap().is_dollar());
    }
}
