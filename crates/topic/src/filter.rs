use std::{fmt, str::FromStr};

use crate::{BYTES_MAX, TopicError, TopicName};

/// What somebody subscribes to: a name in which `+` stands for any one level and a last `#` for any number of them.
/// Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Box<str>);

impl TopicFilter {
    /// Takes a filter that keeps the rules of MQTT 5.0 section 4.7: not empty, at most [`BYTES_MAX`] bytes, no U+0000,
    /// each wildcard alone in its level, `#` only as the last. It may have as many levels as fit: who keeps filters has
    /// to count what they cost.
    ///
    /// `$share/…` is a filter like any other here; see [`crate::parse_share`].
    pub fn new(filter: &str) -> Result<Self, TopicError> {
        Self::check(filter)?;
        Ok(Self(filter.into()))
    }

    /// Whether this is a filter, which [`TopicFilter::new`] takes.
    pub fn check(filter: &str) -> Result<(), TopicError> {
        if filter.is_empty() {
            return Err(TopicError::Empty);
        }
        if filter.len() > BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        let bytes = filter.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let begins = || at == 0 || bytes[at - 1] == b'/';
            match byte {
                0 => return Err(TopicError::Nul),
                b'#' if !begins() || at + 1 < bytes.len() => return Err(TopicError::MisplacedHash),
                b'+' if !begins() || bytes.get(at + 1).is_some_and(|next| *next != b'/') => {
                    return Err(TopicError::MisplacedPlus);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes, in order; some may be empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether it has a `+` or `#`, that is, may match more than one name.
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether it matches `name`. A filter that begins with a wildcard matches no name that begins with `$`.
    pub fn matches(&self, name: TopicName<'_>) -> bool {
        if name.is_dollar() && self.begins_with_wildcard() {
            return false;
        }
        let (mut filter, mut name) = (self.0.as_bytes(), name.as_str().as_bytes());
        loop {
            // What they have in common are whole levels and the beginning of one: a name has no wildcards.
            let common = common_len(filter, name);
            (filter, name) = (&filter[common..], &name[common..]);
            match filter {
                [] | b"/#" => return name.is_empty(),
                b"#" => return true,
                [b'+', behind @ ..] => {
                    let level = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
                    (filter, name) = (behind, &name[level..]);
                }
                _ => return false,
            }
        }
    }

    /// Whether it matches every name that `other` matches.
    pub fn covers(&self, other: &TopicFilter) -> bool {
        if other.0.starts_with('$') && self.begins_with_wildcard() {
            return false;
        }
        let mut theirs = other.canonical_levels();
        for part in self.canonical_levels() {
            match (part, theirs.next()) {
                ("#", _) => return true,
                (_, None | Some("#")) => return false,
                ("+", Some(_)) => {}
                (part, Some(other)) if part == other => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether there is a name that both match.
    pub fn overlaps(&self, other: &TopicFilter) -> bool {
        if other.0.starts_with('$') && self.begins_with_wildcard()
            || self.0.starts_with('$') && other.begins_with_wildcard()
        {
            return false;
        }
        let mut ours = self.canonical_levels();
        let mut theirs = other.canonical_levels();
        loop {
            match (ours.next(), theirs.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (None, _) | (_, None) => return false,
                (Some("+"), _) | (_, Some("+")) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }

    /// The levels of the filter that means the same and says how many levels it needs. Since no name is empty, `#` needs one
    /// level, and `/#` two.
    fn canonical_levels(&self) -> impl Iterator<Item = &str> {
        let canonical = match &*self.0 {
            "#" => "+/#",
            "/#" => "/+/#",
            filter => filter,
        };
        canonical.split('/')
    }

    fn begins_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }
}

/// How many bytes they begin with in common. Many at a time: both may be long.
fn common_len(one: &[u8], other: &[u8]) -> usize {
    const CHUNK: usize = 32;
    let chunks = one.chunks_exact(CHUNK).zip(other.chunks_exact(CHUNK));
    let at = CHUNK * chunks.take_while(|(one, other)| one == other).count();
    at + one[at..].iter().zip(&other[at..]).take_while(|(one, other)| one == other).count()
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(filter: &str) -> Result<Self, TopicError> {
        Self::new(filter)
    }
}

/// The filter that matches exactly this name.
impl From<TopicName<'_>> for TopicFilter {
    fn from(name: TopicName<'_>) -> Self {
        Self(name.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    fn matches(text: &str, name: &str) -> bool {
        filter(text).matches(TopicName::new(name).unwrap())
    }

    #[test]
    fn examples_of_the_specification_match_as_it_says() {
        for name in
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
        {
            assert!(matches("sport/tennis/player1/#", name));
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("#", "a/b"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("ACCOUNTS", "Accounts"));
    }

    #[test]
    fn leading_wildcards_do_not_match_dollar_names() {
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/#", "$SYS/x"));
        assert!(matches("$SYS/+", "$SYS/x"));
        assert!(matches("a/+", "a/$x"));
    }

    #[test]
    fn misplaced_wildcards_are_refused() {
        for text in ["#/a", "a/#/b", "sport/tennis#", "a#", "##", "#+", "a/#/#"] {
            assert_eq!(TopicFilter::new(text), Err(TopicError::MisplacedHash), "{text}");
        }
        for text in ["sport+", "a/+b", "++", "a/b+/c"] {
            assert_eq!(TopicFilter::new(text), Err(TopicError::MisplacedPlus), "{text}");
        }
        for text in ["#", "+", "+/+/#", "/", "//", "a/+/b", "a//#"] {
            assert!(TopicFilter::new(text).is_ok(), "{text}");
        }
        assert_eq!(TopicFilter::new(""), Err(TopicError::Empty));
        assert_eq!(TopicFilter::new("a\0"), Err(TopicError::Nul));
    }

    #[test]
    fn a_filter_has_at_most_65535_bytes_and_as_many_levels_as_fit() {
        for character in ["x", "/"] {
            assert!(TopicFilter::new(&character.repeat(65_535)).is_ok());
            assert_eq!(TopicFilter::new(&character.repeat(65_536)), Err(TopicError::TooLong));
        }
        let (mut deep, name) = ("+/".repeat(32_767), "a/".repeat(32_766) + "a");
        assert!(!matches(&deep, &name));
        deep.pop();
        assert!(matches(&deep, &name));
    }

    #[test]
    fn covering_is_told_at_the_edges() {
        assert!(filter("#").covers(&filter("+/#")));
        assert!(filter("+/#").covers(&filter("#")));
        assert!(!filter("a/+/#").covers(&filter("a/#")));
        assert!(filter("a/#").covers(&filter("a")));
        assert!(filter("a/#").covers(&filter("a/+/c")));
        assert!(!filter("a/+").covers(&filter("a/#")));
        assert!(!filter("#").covers(&filter("$SYS/#")));
        assert!(filter("$SYS/#").covers(&filter("$SYS/a")));
    }

    #[test]
    fn overlap_is_told_at_the_edges() {
        assert!(filter("a/+").overlaps(&filter("+/b")));
        assert!(filter("a/#").overlaps(&filter("a")));
        assert!(!filter("a/+/#").overlaps(&filter("a")));
        assert!(!filter("#").overlaps(&filter("$SYS/#")));
        assert!(!filter("$SYS/+").overlaps(&filter("+/x")));
        assert!(!filter("a/b").overlaps(&filter("a/c")));
        assert!(!filter("/#").overlaps(&filter("+")));
    }
}
