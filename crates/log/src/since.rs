//! From where to read: `earliest`, `-90m`, a time, or a cursor.

use std::time::Duration;

use crate::cursor::{Cursor, CursorError};
use crate::event::Offset;
use crate::json::format_time;

/// From where to read. A cursor means *after* its event, a time is inclusive.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// The oldest event that is still there.
    Earliest,
    /// So long before now; whole seconds.
    Ago(Duration),
    /// From this time on, in µs since 1970-01-01 UTC.
    At(i64),
    /// After this event.
    After(Cursor),
}

/// A `since` that is malformed, or that this log cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinceError {
    /// None of the forms: the reader's mistake.
    Malformed(String),
    /// It begins as a cursor and is not one: the reader's mistake.
    Cursor(CursorError),
    /// A duration that no clock can go back.
    TooLong(String),
    /// A cursor above the head of its own epoch, or of an epoch that is yet to come.
    AboveHead {
        /// The offset it names.
        offset: Offset,
        /// The head of the log.
        head: Offset,
    },
    /// The disk failed while the place was looked up: the server's fault.
    Io(String),
}

impl std::fmt::Display for SinceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SinceError::Malformed(text) => write!(
                f,
                "'{text}' is not a place to start from; write earliest, -90m (s, m, h, d), a time such as \
                 2026-11-23T04:00:00Z, or a cursor"
            ),
            SinceError::Cursor(error) => error.fmt(f),
            SinceError::TooLong(text) => write!(f, "'{text}' is further back than time goes"),
            SinceError::AboveHead { offset, head } => {
                write!(f, "the cursor stands at event {offset}, above the newest event {head}")
            }
            SinceError::Io(why) => write!(f, "cannot look up the place to start from: {why}"),
        }
    }
}

impl std::error::Error for SinceError {}

impl Since {
    /// Reads `earliest`, `-30s`, `-90m`, `-2h`, `-7d`, an RFC 3339 time or a cursor.
    ///
    /// # Errors
    /// [`SinceError::Malformed`], [`SinceError::Cursor`] or [`SinceError::TooLong`].
    pub fn parse(text: &str) -> Result<Since, SinceError> {
        match text.as_bytes() {
            b"earliest" => Ok(Since::Earliest),
            [b'c', ..] => Cursor::parse(text).map(Since::After).map_err(SinceError::Cursor),
            [b'-', ..] => parse_ago(text),
            [b'0'..=b'9', ..] => parse_time(text).map(Since::At),
            _ => Err(malformed(text)),
        }
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Since::Earliest => f.write_str("earliest"),
            Since::Ago(duration) => {
                let secs = duration.as_secs();
                let unit = UNITS.iter().find(|(_, unit)| secs != 0 && secs % unit == 0).unwrap_or(&('s', 1));
                write!(f, "-{}{}", secs / unit.1, unit.0)
            }
            Since::At(time_us) => match format_time(*time_us).strip_suffix(".000000Z") {
                Some(whole) => write!(f, "{whole}Z"),
                None => f.write_str(&format_time(*time_us)),
            },
            Since::After(cursor) => cursor.fmt(f),
        }
    }
}

impl std::str::FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Since, SinceError> {
        Since::parse(text)
    }
}

/// Largest first, so that text is shortest.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

fn parse_ago(text: &str) -> Result<Since, SinceError> {
    let mut digits = text[1..].chars();
    let unit = digits.next_back().and_then(|last| UNITS.iter().find(|(name, _)| *name == last));
    let digits = digits.as_str();
    let Some((_, unit)) = unit.filter(|_| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    else {
        return Err(malformed(text));
    };
    let secs = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*unit));
    // So far back as µs in an i64 reach.
    match secs.filter(|secs| *secs <= i64::MAX as u64 / 1_000_000) {
        Some(secs) => Ok(Since::Ago(Duration::from_secs(secs))),
        None => Err(SinceError::TooLong(shown(text))),
    }
}

fn parse_time(text: &str) -> Result<i64, SinceError> {
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return Err(malformed(text));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| malformed(text))?;
    Ok(time.as_microsecond())
}

fn malformed(text: &str) -> SinceError {
    SinceError::Malformed(shown(text))
}

/// What an error repeats of a reader's text: its beginning, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(Since::parse("earliest"), Ok(Since::Earliest));
        for (text, secs) in [("-30s", 30), ("-90m", 5_400), ("-2h", 7_200), ("-7d", 604_800), ("-0s", 0)] {
            assert_eq!(Since::parse(text), Ok(Since::Ago(Duration::from_secs(secs))));
        }
        let at = 1_795_406_400_000_000;
        assert_eq!(Since::parse("2026-11-23T04:00:00Z"), Ok(Since::At(at)));
        assert_eq!(Since::parse("2026-11-23T04:00:00.25Z"), Ok(Since::At(at + 250_000)));
        assert_eq!(Since::parse("2026-11-23T05:30:00+01:30"), Ok(Since::At(at)));
    }

    #[test]
    fn what_is_none_of_the_forms_is_refused() {
        for text in [
            "",
            "now",
            "Earliest",
            "-",
            "-5",
            "-m",
            "-5w",
            "--5m",
            "-+5m",
            "-5.5m",
            "5m",
            "2026",
            "2026-11-23",
        ] {
            assert!(matches!(Since::parse(text), Err(SinceError::Malformed(_))), "{text}");
        }
        assert!(matches!(Since::parse("2026-11-23T04:00:00"), Err(SinceError::Malformed(_))));
        assert!(matches!(Since::parse("2026-13-23T04:00:00Z"), Err(SinceError::Malformed(_))));
        assert!(matches!(Since::parse("c"), Err(SinceError::Cursor(_))));
        assert!(matches!(Since::parse("-99999999999999d"), Err(SinceError::TooLong(_))));
        assert!(matches!(Since::parse("-99999999999999999999999d"), Err(SinceError::TooLong(_))));
    }

    #[test]
    fn a_malformed_text_is_repeated_without_control_characters_and_not_at_length() {
        let error = Since::parse(&format!("\n{}", "x".repeat(10_000))).expect_err("malformed").to_string();
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(secs in 0u64..10_000_000_000, at in 0i64..4_000_000_000_000_000) {
            for since in [Since::Earliest, Since::Ago(Duration::from_secs(secs)), Since::At(at)] {
                prop_assert_eq!(Since::parse(&since.to_string()), Ok(since));
            }
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in any::<String>(), tail in "[0-9a-zA-Z:+-]{0,30}") {
            let _ = Since::parse(&text);
            let _ = Since::parse(&format!("-{text}"));
            let _ = Since::parse(&format!("2026{tail}"));
        }
    }
}
