use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// What is wrong with one line of a file. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line's number.
    pub line: usize,
    /// What is wrong there, and what to do about it.
    pub what: String,
}

impl LineError {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl Error for LineError {}

/// Why a password or ACL file cannot be used. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// The line with the mistake, from 1; none when the file could not be read at all.
    pub line: Option<usize>,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl LoadError {
    pub(crate) fn at(path: &Path, error: LineError) -> Self {
        Self { path: path.to_owned(), line: Some(error.line), what: error.what }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self { path: path.to_owned(), line: None, what: format!("cannot be read: {error}") }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.what),
            None => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

impl Error for LoadError {}

/// The largest password or ACL file that is read: a mistaken path (a device, a log) must not eat the memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let read = || {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        fs::read(path)
    };
    read().map_err(|error| LoadError::io(path, &error))
}

/// The lines of a file with their numbers from 1; each must be UTF-8 without U+0000.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, &str), LineError>> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|&byte| byte == b'\n').enumerate().map(|(index, line)| match std::str::from_utf8(line) {
        Ok(text) if text.contains('\0') => Err(LineError::new(index + 1, "a zero byte; write text only")),
        Ok(text) => Ok((index + 1, text)),
        Err(_) => Err(LineError::new(index + 1, "not UTF-8; write the file in UTF-8")),
    })
}
