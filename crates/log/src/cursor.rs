//! A cursor: the place after one event, the same on every door.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::event::Offset;
use crate::varint;

const VERSION: u8 = 1;
/// No cursor's text is longer; longer text is refused before it is decoded.
const TEXT_BYTES_MAX: usize = 64;

/// The place after the event at `offset`. Offset 0 stands before the first event.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which log it is of.
    pub log_id: u64,
    /// The epoch in which its event was recorded.
    pub epoch: u32,
    /// The event it stands after.
    pub offset: Offset,
    /// When that event was recorded, in seconds since 1970-01-01 UTC.
    pub recorded_secs: i64,
}

/// Text that is not a cursor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CursorError {
    /// It is not the text of a cursor, or was cut.
    Malformed,
    /// It is of a version this program does not know.
    Version(u8),
}

impl std::fmt::Display for CursorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CursorError::Malformed => f.write_str("not a cursor, or a part of one only"),
            CursorError::Version(version) => {
                write!(f, "a cursor of version {version}; this bus knows version 1")
            }
        }
    }
}

impl std::error::Error for CursorError {}

impl Cursor {
    /// Its text: `c` and base64url of version, log id, epoch, offset and recorded second; about 25 characters
    /// that may stand in a topic level, a URL and an SSE id.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(40);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.log_id.to_be_bytes());
        varint::push(&mut bytes, u64::from(self.epoch));
        varint::push(&mut bytes, self.offset);
        varint::push(&mut bytes, zigzag(self.recorded_secs));
        let mut text = String::with_capacity(TEXT_BYTES_MAX);
        text.push('c');
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        text
    }

    /// Reads what [`Cursor::encode`] gave.
    ///
    /// # Errors
    /// [`CursorError`] for anything else: each cursor has exactly one text.
    pub fn parse(text: &str) -> Result<Cursor, CursorError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CursorError::Malformed);
        }
        let encoded = text.strip_prefix('c').ok_or(CursorError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| CursorError::Malformed)?;
        let (&version, rest) = bytes.split_first().ok_or(CursorError::Malformed)?;
        if version != VERSION {
            return Err(CursorError::Version(version));
        }
        fields(rest).ok_or(CursorError::Malformed)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.encode())
    }
}

impl std::str::FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        Cursor::parse(text)
    }
}

fn fields(bytes: &[u8]) -> Option<Cursor> {
    let (log_id, rest) = bytes.split_first_chunk::<8>()?;
    let (epoch, rest) = varint::split(rest)?;
    let (offset, rest) = varint::split(rest)?;
    let (secs, rest) = varint::split(rest)?;
    if !rest.is_empty() {
        return None;
    }
    Some(Cursor {
        log_id: u64::from_be_bytes(*log_id),
        epoch: u32::try_from(epoch).ok()?,
        offset,
        recorded_secs: unzigzag(secs),
    })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back_from_its_text_and_fits_a_topic_level_and_a_url(
            log_id in any::<u64>(), epoch in any::<u32>(), offset in any::<u64>(), recorded_secs in any::<i64>()
        ) {
            let cursor = Cursor { log_id, epoch, offset, recorded_secs };
            let text = cursor.encode();
            prop_assert!(text.starts_with('c') && text.len() <= TEXT_BYTES_MAX);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(Cursor::parse(&text), Ok(cursor));
        }

        #[test]
        fn a_text_that_parses_is_the_only_text_of_its_cursor(text in "c[A-Za-z0-9_-]{0,60}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in any::<String>()) {
            let _ = Cursor::parse(&text);
        }
    }

    #[test]
    fn a_cut_cursor_and_one_of_a_later_version_are_refused() {
        let cursor = Cursor { log_id: 7, epoch: 1, offset: 1_000_000, recorded_secs: 1_790_000_000 };
        let text = cursor.encode();
        for cut in 0..text.len() {
            assert_eq!(Cursor::parse(&text[..cut]), Err(CursorError::Malformed), "{cut}");
        }
        let later = format!("c{}", URL_SAFE_NO_PAD.encode([2, 0, 0]));
        assert_eq!(Cursor::parse(&later), Err(CursorError::Version(2)));
    }
}
