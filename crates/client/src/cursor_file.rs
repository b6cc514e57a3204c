//! How far one has read, in a file of one line that is replaced as a whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use firehose_log::Cursor;

use crate::ClientError;

/// The file.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    stored: Option<Cursor>,
}

impl CursorFile {
    /// Reads the file; one that is not there yet is as good as one without a cursor.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let fail = |what: String| ClientError::Usage(format!("{}: {what}", path.display()));
        let stored = match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => match Cursor::parse(text.trim()) {
                Ok(cursor) => Some(cursor),
                Err(error) => return Err(fail(format!("{error}: remove the file to begin anew"))),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(fail(format!("cannot be read: {error}"))),
        };
        Ok(CursorFile { path: path.to_owned(), stored })
    }

    /// The cursor in it.
    pub fn cursor(&self) -> Option<Cursor> {
        self.stored
    }

    /// Puts this cursor in its place, by a rename: whoever looks finds the old line or the new one.
    pub fn store(&mut self, cursor: Cursor) -> io::Result<()> {
        if self.stored == Some(cursor) {
            return Ok(());
        }
        let beside = beside(&self.path);
        let mut file = File::create(&beside)?;
        writeln!(file, "{}", cursor.encode())?;
        fs::rename(&beside, &self.path)?;
        self.stored = Some(cursor);
        Ok(())
    }
}

/// A name in the same folder.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(offset: u64) -> Cursor {
        Cursor { log_id: 7, epoch: 1, offset, recorded_secs: 1_790_000_000 }
    }

    #[test]
    fn what_was_stored_is_read_again_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cursor");
        let mut file = CursorFile::open(&path).expect("it is not there yet");
        assert_eq!(file.cursor(), None);
        for offset in [1, 2, 2, 3] {
            file.store(cursor(offset)).expect("it can be stored");
        }
        assert_eq!(CursorFile::open(&path).expect("it is there").cursor(), Some(cursor(3)));
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, format!("{}\n", cursor(3).encode()));
        assert_eq!(fs::read_dir(folder.path()).expect("the folder is there").count(), 1);
    }

    #[test]
    fn a_file_that_holds_something_else_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cursor");
        fs::write(&path, "my diary\n").expect("it can be written");
        assert!(matches!(CursorFile::open(&path), Err(ClientError::Usage(_))));
    }
}
