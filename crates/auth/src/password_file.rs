//! Users and their password hashes: the file that `mosquitto_passwd` and `firehose passwd` write.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use crate::{
    HashKind, LineError, LoadError,
    hash::{Hash, HashError},
    load_error::{lines, read_file},
};

/// A password file: one `user:hash` a line. Comments and the order of lines are kept when it is written again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PasswordFile {
    lines: Vec<Line>,
}

/// Why a user cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The name cannot stand in a password file; the text says why.
    Name(&'static str),
    /// The password could not be hashed.
    Hash(HashError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// A comment or an empty line, as it stands.
    Other(String),
    User {
        name: String,
        hash: Hash,
    },
}

const NAME_BYTES_MAX: usize = 65_535;

impl PasswordFile {
    /// Reads the bytes of a password file. Every line must be empty, a comment (`#`), or a user with a hash that is
    /// known; nobody may be there twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        Self::parse_lines(bytes, |field, _| field.trim().parse())
    }

    /// The same for a file with plain passwords (`firehose passwd -U`): whatever does not look like a hash is taken
    /// as a password, up to the line's end, and hashed.
    pub fn parse_plain(bytes: &[u8], kind: HashKind) -> Result<Self, LineError> {
        Self::parse_lines(bytes, |field, rest| {
            if Hash::looks_like(field.trim()) {
                field.trim().parse()
            } else {
                Hash::create(kind, rest.trim_end_matches('\r').as_bytes())
            }
        })
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        Self::parse(&read_file(path)?).map_err(|error| LoadError::at(path, error))
    }

    /// Reads a file with plain passwords at `path`: see [`PasswordFile::parse_plain`].
    pub fn read_plain(path: &Path, kind: HashKind) -> Result<Self, LoadError> {
        Self::parse_plain(&read_file(path)?, kind).map_err(|error| LoadError::at(path, error))
    }

    /// Whether `password` is that of `user`. Slow on purpose; quick for a user who is not there, so what listens on
    /// a network uses [`crate::Auth::authenticate`].
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.hash(user).is_some_and(|hash| hash.verify(password))
    }

    /// The hash of a user's password.
    pub fn hash(&self, user: &str) -> Option<&Hash> {
        self.entries().find(|(name, _)| *name == user).map(|(_, hash)| hash)
    }

    /// All users, in the file's order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|(name, _)| name)
    }

    /// Gives a user a password, whether it was there before or not; says whether it was.
    pub fn set(&mut self, user: &str, password: &[u8], kind: HashKind) -> Result<bool, SetError> {
        check_name(user).map_err(SetError::Name)?;
        let new_hash = Hash::create(kind, password).map_err(SetError::Hash)?;
        for line in &mut self.lines {
            if let Line::User { name, hash } = line
                && name == user
            {
                *hash = new_hash;
                return Ok(true);
            }
        }
        self.lines.push(Line::User { name: user.to_owned(), hash: new_hash });
        Ok(false)
    }

    /// Takes a user out; says whether it was there.
    pub fn delete(&mut self, user: &str) -> bool {
        let lines_before = self.lines.len();
        self.lines.retain(|line| !matches!(line, Line::User { name, .. } if name == user));
        self.lines.len() < lines_before
    }

    /// Writes the file so that a reader, or a crash, finds the old one or the new one whole. A new file is readable
    /// by its owner alone (0600); one that exists keeps its owner, group and mode, so that a service that could
    /// read it still can.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let temporary = folder.join(format!(".passwd-{:016x}.tmp", u64::from_ne_bytes(random)));
        let written = self.write_new(&temporary, fs::metadata(&path).ok());
        written.and_then(|()| fs::rename(&temporary, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        File::open(folder)?.sync_all()
    }

    fn write_new(&self, path: &Path, like: Option<fs::Metadata>) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.to_string().as_bytes())?;
        if let Some(like) = like {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
        }
        file.sync_all()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Hash)> {
        self.lines.iter().filter_map(|line| match line {
            Line::User { name, hash } => Some((name.as_str(), hash)),
            Line::Other(_) => None,
        })
    }

    fn parse_lines(
        bytes: &[u8],
        hash_of: impl Fn(&str, &str) -> Result<Hash, HashError>,
    ) -> Result<Self, LineError> {
        let mut file = Self::default();
        let mut first_seen = std::collections::HashMap::new();
        for line in lines(bytes) {
            let (number, text) = line?;
            if text.starts_with('#') || text.trim().is_empty() {
                file.lines.push(Line::Other(text.to_owned()));
                continue;
            }
            let Some((name, rest)) = text.split_once(':') else {
                return Err(LineError::new(number, "no `:`; a line is `user:hash`, empty, or a `#` comment"));
            };
            let name = name.trim();
            check_name(name).map_err(|what| LineError::new(number, what))?;
            if let Some(first) = first_seen.insert(name, number) {
                let what = format!("user `{name}` is already on line {first}; take one of them out");
                return Err(LineError::new(number, what));
            }
            // What follows another `:` is ignored, as mosquitto does.
            let field = rest.split(':').next().unwrap_or("");
            let hash = hash_of(field, rest)
                .map_err(|error| LineError::new(number, format!("user `{name}`: {error}")))?;
            file.lines.push(Line::User { name: name.to_owned(), hash });
        }
        // An empty file has one empty line, which is none.
        if bytes.is_empty() {
            file.lines.clear();
        }
        Ok(file)
    }
}

impl fmt::Display for PasswordFile {
    /// The file's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::User { name, hash } => writeln!(f, "{name}:{hash}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(what) => f.write_str(what),
            Self::Hash(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SetError {}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("the user name is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Err("the user name is longer than 65535 bytes")
    } else if name.starts_with('#') {
        Err("the user name begins with `#`, which makes the line a comment")
    } else if name.contains(|c: char| c == ':' || c.is_control()) {
        Err("the user name contains `:` or a control character")
    } else if name.trim() != name {
        Err("the user name begins or ends with a space")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: &str = "$6$AAAAAAAAAAAAAAAA$";

    fn line(name: &str) -> String {
        let digest = "A".repeat(85) + "w==";
        format!("{name}:{SHA512}{digest}\n").replace("w==", "A==")
    }

    #[test]
    fn comments_blank_lines_and_order_are_kept() {
        let text = format!("# people\n\n{}# services\n{}", line("a"), line("b c"));
        let mut file = PasswordFile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.to_string(), text);
        assert_eq!(file.users().collect::<Vec<_>>(), ["a", "b c"]);
        assert!(file.set("d", b"pw", HashKind::Argon2id).is_ok_and(|existed| !existed));
        assert!(file.set("d", b"pw2", HashKind::Argon2id).is_ok_and(|existed| existed));
        assert!(file.verify("d", b"pw2") && !file.verify("d", b"pw") && !file.verify("e", b"pw2"));
        assert!(file.delete("d") && !file.delete("d"));
        assert_eq!(file.to_string(), text);
    }

    #[test]
    fn windows_line_ends_spaces_and_further_fields_are_taken_as_mosquitto_does() {
        let text = line(" a ").replace('\n', " :x:y\r\n");
        assert_eq!(PasswordFile::parse(text.as_bytes()).unwrap().users().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, number, why) in [
            (format!("{}nonsense\n", line("a")), 2, "no `:`"),
            (format!("{}{}", line("a"), line("a")), 2, "already on line 1"),
            (format!("\n{}", line("")), 2, "empty"),
            ("bob:letmein\n".to_owned(), 1, "passwd -U"),
            ("bob:\n".to_owned(), 1, "passwd -U"),
            ("bob:$7$x$AAAA$AAAA".to_owned(), 1, "rounds"),
            ("a\0b:x".to_owned(), 1, "zero"),
        ] {
            let error = PasswordFile::parse(text.as_bytes()).unwrap_err();
            assert!(error.line == number && error.what.contains(why), "{text:?}: {error}");
        }
        assert_eq!(PasswordFile::parse(b"# a\n\xff\n").unwrap_err().line, 2);
    }

    #[test]
    fn plain_passwords_are_hashed_and_hashes_left_alone() {
        let text = format!("{}bob:let:me in \n", line("a"));
        let file = PasswordFile::parse_plain(text.as_bytes(), HashKind::Argon2id).unwrap();
        assert!(file.verify("bob", b"let:me in "));
        assert!(file.to_string().starts_with(&line("a")));
        assert_eq!(PasswordFile::parse(file.to_string().as_bytes()).unwrap(), file);
    }

    #[test]
    fn names_that_a_file_cannot_hold_are_refused() {
        let mut file = PasswordFile::default();
        for name in ["", "a:b", "#a", " a", "a\n", "a\0"] {
            let set = file.set(name, b"x", HashKind::Argon2id);
            assert!(matches!(set, Err(SetError::Name(_))), "{name:?}");
        }
        assert_eq!(file.to_string(), "");
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        let file = PasswordFile::parse(line("a").as_bytes()).unwrap();
        file.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        file.write(&link).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(PasswordFile::read(&link).unwrap(), file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = PasswordFile::read(&folder.path().join("none")).unwrap_err();
        assert!(error.line.is_none() && error.to_string().contains("none: cannot be read"), "{error}");
        assert!(PasswordFile::read(folder.path()).unwrap_err().what.contains("regular file"));
        assert!(PasswordFile::default().write(&folder.path().join("no/such/folder")).is_err());
    }
}
