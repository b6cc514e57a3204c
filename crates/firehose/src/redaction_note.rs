//! Redactions that have begun. A note of each stands in the data folder until everyone was told, so that one that is cut off
//! is finished at the next start, by the name of who published the event. It says nothing else of the event.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use firehose_log::{Cursor, Offset};
use serde_json::{Value, json};

const PREFIX: &str = "redaction.";
const SUFFIX: &str = ".json";

/// What is known of a redaction before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactionNote {
    /// The event's cursor.
    pub cursor: Cursor,
    /// Who published it; empty: not known.
    pub principal: String,
    /// Why it is taken back.
    pub reason: String,
}

impl RedactionNote {
    /// Writes it into the data folder, durably.
    ///
    /// # Errors
    /// As the system says.
    pub fn store(&self, data: &Path) -> io::Result<()> {
        let text = json!({
            "cursor": self.cursor.encode(),
            "principal": self.principal,
            "reason": self.reason,
        });
        let path = path(data, self.cursor.offset);
        let new = path.with_extension("new");
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(text.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(data)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// That of the event at this offset, if there is one.
    ///
    /// # Errors
    /// As the system says; `InvalidData` if it is none.
    pub fn load(data: &Path, offset: Offset) -> io::Result<Option<RedactionNote>> {
        match fs::read_to_string(path(data, offset)) {
            Ok(text) => parse(&text).map(Some).ok_or_else(|| ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes it. One that comes back after a crash does no harm.
    ///
    /// # Errors
    /// As the system says.
    pub fn remove(data: &Path, offset: Offset) -> io::Result<()> {
        match fs::remove_file(path(data, offset)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The offsets of all that are there, in order.
    ///
    /// # Errors
    /// As the system says.
    pub fn offsets(data: &Path) -> io::Result<Vec<Offset>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(data)? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            let offset = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
            found.extend(offset.and_then(|offset| offset.parse::<Offset>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn path(data: &Path, offset: Offset) -> PathBuf {
    data.join(format!("{PREFIX}{offset}{SUFFIX}"))
}

fn parse(text: &str) -> Option<RedactionNote> {
    let value: Value = serde_json::from_str(text).ok()?;
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some(RedactionNote {
        cursor: Cursor::parse(&text("cursor")?).ok()?,
        principal: text("principal")?,
        reason: text("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_until_it_is_removed() {
        let data = tempfile::tempdir().expect("a folder");
        let cursor = Cursor { log_id: 1, epoch: 2, offset: 3, recorded_secs: 4 };
        let note = RedactionNote { cursor, principal: "ann \"x\"".into(), reason: "a token\u{e4}".into() };
        note.store(data.path()).expect("is written");
        assert_eq!(RedactionNote::offsets(data.path()).expect("lists"), [3]);
        assert_eq!(RedactionNote::load(data.path(), 3).expect("is read"), Some(note));
        RedactionNote::remove(data.path(), 3).expect("goes");
        RedactionNote::remove(data.path(), 3).expect("is gone");
        assert_eq!(RedactionNote::load(data.path(), 3).expect("is read"), None);
    }

    #[test]
    fn what_is_no_note_is_an_error() {
        let data = tempfile::tempdir().expect("a folder");
        fs::write(path(data.path(), 7), "{}").expect("is written");
        assert_eq!(RedactionNote::load(data.path(), 7).expect_err("is none").kind(), ErrorKind::InvalidData);
    }
}
